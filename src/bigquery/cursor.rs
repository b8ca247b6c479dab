//! The column that orders the rows of a table in time.

use super::value::{Value, parse_datetime};
use crate::config::CursorUnit;
use crate::time::{self, DAY_US, Micros};

/// The types that can order rows in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorType {
    /// Microseconds in UTC.
    Timestamp,
    /// Microseconds of civil time, taken as UTC.
    DateTime,
    /// Days, taken as their midnight in UTC.
    Date,
    /// An integer that counts units since the epoch.
    Integer(CursorUnit),
}

impl CursorType {
    /// Returns the instant that a value stands for; none when it is no value of this type.
    pub fn instant(self, value: &Value<'_>) -> Option<Micros> {
        let plain = |raw| std::str::from_utf8(raw).ok();
        match (self, value) {
            (CursorType::Timestamp, Value::Instant(instant)) => Some(*instant),
            (CursorType::DateTime, Value::Text(text)) => plain(text.raw).and_then(parse_datetime),
            (CursorType::Date, Value::Text(text)) => {
                plain(text.raw).and_then(time::parse_date).map(|day| Micros(day * DAY_US))
            }
            (CursorType::Integer(unit), Value::Int(count)) => Some(Micros(count.saturating_mul(unit.us()))),
            _ => None,
        }
    }
}
