//! The time zones of these worlds, by the rules of 2023 and 2024.

use bigquery_sync::bigquery::cursor::CursorType;
use bigquery_sync::config::{CursorUnit, Environment};
use bigquery_sync::time::zone::{Zone, Zones};
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use serde_json::{Value, json};

pub const LOS_ANGELES: &str = "America/Los_Angeles";
pub const BERLIN: &str = "Europe/Berlin";
pub const KOLKATA: &str = "Asia/Kolkata";

/// The clocks are set back then.
pub const AUTUMN: [(&str, &str); 2] =
    [(LOS_ANGELES, "2024-11-03T09:00:00Z"), (BERLIN, "2024-10-27T01:00:00Z")];
/// The clocks are set forward then.
const SPRING: [(&str, &str); 2] = [(LOS_ANGELES, "2024-03-10T10:00:00Z"), (BERLIN, "2024-03-31T01:00:00Z")];
/// How many minutes the clocks are ahead of UTC in winter.
const WINTER: [(&str, i64); 3] = [(LOS_ANGELES, -480), (BERLIN, 60), (KOLKATA, 330)];

/// How a source tells the time in its cursor column.
#[derive(Debug, Clone)]
pub struct Clock {
    pub cursor: CursorType,
    pub zone: Zone,
}

pub fn at(text: &str) -> i64 {
    Micros::parse(text).unwrap().0
}

/// When the clocks of a zone are set back, and forward; nothing where they never are.
pub fn changes(zone: &str) -> Vec<i64> {
    let all = AUTUMN.into_iter().chain(SPRING);
    all.filter(|(name, _)| *name == zone).map(|(_, text)| at(text)).collect()
}

fn zone(name: &str, ahead_min: i64) -> Zone {
    let spells = |ahead_min: i64| move |from| (Micros(from), ahead_min * 60 * SECOND_US);
    let spring = SPRING.iter().filter(|(other, _)| *other == name).map(|(_, text)| at(text));
    let autumn = AUTUMN.iter().filter(|(other, _)| *other == name).map(|(_, text)| at(text));
    let summer = spring.map(spells(ahead_min + 60)).chain(autumn.map(spells(ahead_min)));
    Zone::new(name, std::iter::once((Micros(0), ahead_min * 60 * SECOND_US)).chain(summer)).unwrap()
}

/// What surrounds the configurations of these worlds.
pub fn environment() -> Environment {
    let named = WINTER.iter().map(|(name, ahead_min)| ((*name).to_owned(), zone(name, *ahead_min)));
    Environment { zones: Zones { named: named.collect(), ..Zones::default() }, ..Environment::default() }
}

impl Clock {
    pub const INTEGER: CursorType = CursorType::Integer(CursorUnit::Seconds);

    /// A column of type TIMESTAMP.
    pub fn utc() -> Clock {
        Clock { cursor: CursorType::Timestamp, zone: Zone::default() }
    }

    /// A column of a type; of those that tell local time, in a zone.
    pub fn new(cursor: CursorType, zone: &str) -> Clock {
        let is_local = matches!(cursor, CursorType::DateTime | CursorType::Date);
        let zone = environment().zones.named.remove(zone).filter(|_| is_local).unwrap_or_default();
        Clock { cursor, zone }
    }

    /// Adds to a table's configuration what it needs for such a column.
    pub fn configure(&self, configuration: &mut Value) {
        let bigquery = &mut configuration["bigquery"];
        if self.cursor == Clock::INTEGER {
            bigquery["timestampUnit"] = json!("seconds");
        }
        if !self.zone.is_utc() {
            bigquery["timeZone"] = json!(self.zone.name());
        }
    }

    /// The type of the column.
    pub fn type_name(&self) -> &'static str {
        match self.cursor {
            CursorType::Timestamp => "TIMESTAMP",
            CursorType::DateTime => "DATETIME",
            CursorType::Date => "DATE",
            CursorType::Integer(_) => "INTEGER",
        }
    }

    /// What the column has for a row of an instant.
    pub fn cursor_at(&self, instant: i64) -> i64 {
        self.cut(self.zone.local(Micros(instant)).0)
    }

    /// What the column has of a time.
    pub fn cut(&self, local: i64) -> i64 {
        let unit_us = match self.cursor {
            CursorType::Timestamp | CursorType::DateTime => 1,
            CursorType::Date => DAY_US,
            CursorType::Integer(unit) => unit.us(),
        };
        local.div_euclid(unit_us) * unit_us
    }

    /// A value of the column, as BigQuery answers it.
    pub fn cell(&self, cursor: i64) -> String {
        let mut text = Vec::new();
        Micros(cursor).write_civil(&mut text, b'T');
        let text = String::from_utf8(text).unwrap();
        match self.cursor {
            CursorType::Timestamp => cursor.to_string(),
            CursorType::DateTime => text,
            CursorType::Date => text[..10].to_owned(),
            CursorType::Integer(unit) => (cursor / unit.us()).to_string(),
        }
    }

    /// A bound of a query: a literal of the column's type.
    pub fn read_literal(&self, literal: &str) -> i64 {
        let quoted = || Micros::parse(literal.split('\'').nth(1)?);
        match self.cursor {
            CursorType::Integer(unit) => literal.parse::<i64>().unwrap() * unit.us(),
            CursorType::Timestamp | CursorType::DateTime | CursorType::Date => quoted().unwrap().0,
        }
    }
}
