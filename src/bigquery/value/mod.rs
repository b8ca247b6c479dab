//! A cell's value: parsed once, then written as JSON for Harper and in canonical form for the row's hash.

mod canonical;
mod interval;
mod written;

pub use canonical::{NameTag, name_tag, write_canonical_field};
pub use interval::Interval;
pub use written::{EXACT_INTEGER_MAX, Patch, Patches, Special, Step, exact_double};

use super::json::{self, Text};
use super::page::Cell;
use super::schema::{Field, Type};
use crate::time::{self, Micros};

/// A value that does not have the form its column's type promises. The value itself is never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The column, with the path inside of it (`a.b`).
    pub column: String,
    /// The type that was expected.
    pub expected: String,
}

/// A parsed cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// No value.
    Null,
    /// INT64.
    Int(i64),
    /// FLOAT64, NaN and infinities included.
    Float(f64),
    /// NUMERIC and BIGNUMERIC without superfluous zeros.
    Decimal(&'a str),
    /// BOOL.
    Bool(bool),
    /// TIMESTAMP.
    Instant(Micros),
    /// STRING and what is kept as its text.
    Text(Text<'a>),
    /// INTERVAL.
    Interval(Interval),
    /// RANGE; an unbounded side is `Null`.
    Range(Box<(Value<'a>, Value<'a>)>),
    /// JSON document, as text.
    Json(Text<'a>),
    /// RECORD, as its cells' JSON text.
    Record(&'a [u8], &'a [Field]),
    /// REPEATED field, as its values' JSON text.
    Array(&'a [u8], &'a Field),
}
impl<'a> Value<'a> {
    /// Parses a cell by its column's type.
    ///
    /// # Errors
    /// When the text does not have the form that the type promises.
    pub fn parse(cell: Cell<'a>, field: &'a Field) -> Result<Value<'a>, Unreadable> {
        let parsed = match cell {
            Cell::Null if field.repeated => Some(Value::Array(b"[]", field)),
            Cell::Null => Some(Value::Null),
            Cell::Nested(text) if field.repeated => Some(Value::Array(text, field)),
            Cell::Nested(text) => match &field.kind {
                Type::Record(fields) => Some(Value::Record(text, fields)),
                _ => None,
            },
            Cell::Text(text) if !field.repeated => parse_scalar(text, &field.kind),
            Cell::Bare(raw) if !field.repeated => parse_scalar(Text { raw, escaped: false }, &field.kind),
            Cell::Text(_) | Cell::Bare(_) => None,
        };
        parsed.ok_or_else(|| Unreadable::new(field))
    }

    /// Tells whether the value carries nothing: NULL, or an array without elements (BigQuery has no NULL arrays).
    pub fn is_absent(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Array(text, _) => *text == b"[]",
            _ => false,
        }
    }
}

impl Unreadable {
    fn new(field: &Field) -> Unreadable {
        let name = field.kind.name();
        let expected = if field.repeated { format!("ARRAY<{name}>") } else { name.to_owned() };
        Unreadable { column: field.name.clone(), expected }
    }

    fn inside(mut self, outer: &str) -> Unreadable {
        self.column =
            if self.column.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.column) };
        self
    }
}
fn parse_scalar<'a>(text: Text<'a>, kind: &Type) -> Option<Value<'a>> {
    let plain = || if text.escaped { None } else { std::str::from_utf8(text.raw).ok() };
    match kind {
        Type::Int64 => parse_integer(plain()?).map(Value::Int),
        Type::Float64 => parse_float(plain()?).map(Value::Float),
        Type::Numeric | Type::BigNumeric => normal_decimal(plain()?).map(Value::Decimal),
        Type::Bool => match plain()? {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        Type::Timestamp => parse_integer(plain()?).map(Micros).filter(|at| at.in_range()).map(Value::Instant),
        Type::Date => time::parse_date(plain()?).map(|_| Value::Text(text)),
        Type::Time => time::parse_time_of_day(plain()?).map(|_| Value::Text(text)),
        Type::DateTime => parse_datetime(plain()?).map(|_| Value::Text(text)),
        Type::Interval => Interval::parse(plain()?).map(Value::Interval),
        Type::Range(element) => parse_range(plain()?, element),
        Type::Json => text.is_unicode().then_some(Value::Json(text)),
        Type::String | Type::Bytes | Type::Geography | Type::Unknown(_) => {
            text.is_unicode().then_some(Value::Text(text))
        }
        Type::Record(_) => None,
    }
}

/// Parses an integer. Up to 18 digits cannot overflow, and the check for it is slow in WebAssembly.
fn parse_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || digits.len() > 18 {
        return text.parse().ok();
    }
    let mut value = 0_i64;
    for byte in digits.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if digits.len() < text.len() { -value } else { value })
}

/// Parses a civil date and time (`2024-01-31T10:20:30.5`) as if it were UTC.
pub fn parse_datetime(text: &str) -> Option<Micros> {
    let (date, time) = text.split_once('T')?;
    Some(Micros(time::parse_date(date)? * time::DAY_US + time::parse_time_of_day(time)?))
}

/// Parses a double, in the spellings that endpoints have for NaN and the infinities.
pub fn parse_float(text: &str) -> Option<f64> {
    match text {
        "NaN" | "nan" => Some(f64::NAN),
        "Infinity" | "inf" | "+inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        _ if json::is_number(text.as_bytes()) => text.parse().ok(),
        _ => None,
    }
}

/// Checks a decimal without exponent and cuts superfluous zeros behind the point.
fn normal_decimal(text: &str) -> Option<&str> {
    if !json::is_number(text.as_bytes()) || text.contains(['e', 'E']) {
        return None;
    }
    let cut = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    Some(if cut == "-0" { "0" } else { cut })
}
fn parse_range<'a>(text: &'a str, element: &Type) -> Option<Value<'a>> {
    let (start, end) = text.strip_prefix('[')?.strip_suffix(')')?.split_once(", ")?;
    let bound = |text: &'a str| match text {
        "UNBOUNDED" | "NULL" => Some(Value::Null),
        _ => match (element, Micros::parse(text)) {
            (Type::Timestamp, Some(instant)) => Some(Value::Instant(instant)),
            _ => parse_scalar(Text { raw: text.as_bytes(), escaped: false }, element),
        },
    };
    Some(Value::Range(Box::new((bound(start)?, bound(end)?))))
}
#[cfg(test)]
mod tests;
