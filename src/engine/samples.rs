//! What several unit tests of the engine start from.

use super::boundary::Moment;
use super::retry::Jitter;
use crate::config::{Config, Environment, TableConfig};
use crate::time::Micros;
use serde_json::{Value, json};

/// A table, with some sections of the configuration besides.
pub fn table_with(sections: Value) -> TableConfig {
    let mut root =
        json!({"bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"}});
    for (name, section) in sections.as_object().unwrap() {
        root[name] = section.clone();
    }
    Config::parse(&root, &Environment::default()).unwrap().tables.remove(0)
}

pub fn table() -> TableConfig {
    table_with(json!({}))
}

pub fn at(text: &str) -> Micros {
    Micros::parse(text).unwrap()
}

/// So many seconds after the epoch, with the least jitter.
pub fn moment(seconds: i64) -> Moment {
    Moment { now: Micros(seconds * 1_000_000), jitter: Jitter(0) }
}
