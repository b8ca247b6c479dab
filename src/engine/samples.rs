//! What several unit tests of the engine start from.

use super::bill::Bill;
use super::bookkeeper::Bookkeeper;
use super::boundary::{Moment, Worker};
use super::checkpoint::Checkpoint;
use super::holding::Holding;
use super::query::Query;
use super::retry::Jitter;
use super::schema::Schema;
use super::sizes::Sizes;
use super::source::{Described, Source};
use super::task::Task;
use super::transfer::Transfer;
use super::window::Plan;
use crate::bigquery::page::Page;
use crate::bigquery::sql::{Selection, Window};
use crate::bigquery::table::Description;
use crate::config::{Config, Environment, TableConfig};
use crate::mapping::projection::Projection;
use crate::time::Micros;
use serde_json::{Value, json};
use std::sync::Arc;

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

/// A description of a table with a cursor column `ts` and others, of which `modified` tells the version.
fn description(columns: &[&str], modified: u32) -> Description {
    let field =
        |name: &&str| json!({"name": name, "type": if *name == "ts" { "TIMESTAMP" } else { "STRING" }});
    let fields: Vec<Value> = columns.iter().map(field).collect();
    let body =
        json!({"schema": {"fields": fields}, "numRows": "5", "lastModifiedTime": modified.to_string()});
    Description::read(body.to_string().as_bytes()).unwrap()
}

pub fn projection(columns: &[&str]) -> Projection {
    Projection::resolve(&table(), &description(columns, 1), None).unwrap()
}

/// A table without key.
pub fn described(modified: u32) -> Described {
    let projection = Arc::new(projection(&["ts", "text"]));
    Described { description: description(&["ts", "text"], modified), projection }
}

/// A table with a key.
pub fn keyed(modified: u32) -> Described {
    let description = description(&["ts", "text"], modified);
    let config = TableConfig { key: Some(vec!["text".to_owned()]), ..table() };
    let projection = Arc::new(Projection::resolve(&config, &description, None).unwrap());
    Described { description, projection }
}

/// A checkpoint of a table that is divided into two partitions by day.
pub fn checkpoint(partition: u32, last: &str, settled: &str) -> Checkpoint {
    serde_json::from_value(json!({
        "id": format!("t:{partition}"), "tableId": "t", "partition": partition, "rule": "day/2",
        "nodeId": "n", "owner": "n-0", "lastTimestamp": last, "settled": settled, "phase": "steady",
        "recordsIngested": 0, "batchSize": 1, "identity": ""
    }))
    .unwrap()
}

/// What the bookkeeper of the worker `n-2` knows besides the checkpoints. Seven bytes are to be added to the bill.
pub struct Books {
    config: TableConfig,
    worker: Worker,
    schema: Schema,
    source: Source,
    sizes: Sizes,
    bill: Bill,
}

impl Books {
    pub fn open() -> Books {
        let config = table();
        let sizes = Sizes::new(&config.pace);
        Books {
            config,
            worker: Worker { node: "n".to_owned(), index: 2 },
            schema: Schema::default(),
            source: Source::default(),
            sizes,
            bill: Bill { unsaved_bytes: 7, ..Bill::default() },
        }
    }

    /// The bookkeeper, five seconds after the epoch.
    pub fn keeper<'b>(&'b self, holding: &'b Holding) -> Bookkeeper<'b> {
        let Books { config, worker, schema, source, sizes, bill } = self;
        Bookkeeper { config, worker, holding, schema, source, sizes, bill, now: moment(5).now }
    }
}

/// A task that reads a window of the whole table; the watermark will be at the beginning of 2024.
pub fn task(after: Option<&str>, until: Option<&str>) -> Task {
    Task {
        plan: Plan {
            window: Window { after: after.map(at), until: until.map(at) },
            watermark: at("2024-01-01"),
        },
        partitions: vec![0],
        started_from: None,
        newest: None,
        selection: Selection::All,
        is_sole: true,
        rereads_unsettled: false,
        replaces: false,
        reads_future: true,
        mends: None,
    }
}

/// The query of a whole table that has so many rows.
pub fn query(modified: u32, rows: u64) -> Query {
    let mut described = described(modified);
    described.description.rows = Some(rows);
    Query::new(task(None, None), Arc::new(described), at("2024-01-01T00:00:02Z"), u64::MAX, &table().pace)
}

/// The first page of a result with so many rows, all on it, with or without the name of the job `j`.
pub fn page(rows: u32, has_job: bool) -> Page {
    let row = |number: u32| json!({"f": [{"v": number.to_string()}, {"v": "text"}]});
    let mut body = json!({
        "jobComplete": true, "totalRows": rows.to_string(),
        "schema": {"fields": [{"name": "ts", "type": "TIMESTAMP"}, {"name": "text", "type": "STRING"}]},
        "rows": (0..rows).map(row).collect::<Vec<_>>()
    });
    if has_job {
        body["jobReference"] = json!({"projectId": "p", "jobId": "j"});
    }
    Page::open(body.to_string().into_bytes()).unwrap()
}

/// A window of the whole table whose result is about to be read.
pub fn transfer(modified: u32, rows: u32) -> Transfer {
    Transfer::open(query(modified, u64::from(rows)), page(rows, true), &table().pace).unwrap()
}
