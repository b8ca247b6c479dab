//! A cell's value: parsed once, then written as JSON for Harper and in canonical form for the row's hash.

use super::json::{self, Malformed, Scanner, Start, Text};
use super::page::{self, Cell};
use super::schema::{Field, Type};
use crate::time::{self, Micros, SECOND_US};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Integers up to this size are exact in a double.
const EXACT_INTEGER_MAX: u64 = 1 << 53;
/// Decimals with at most this many significant digits survive the way through a double.
const EXACT_DIGITS: usize = 15;

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

/// An interval: its three parts have signs of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    months: i64,
    days: i64,
    micros: i64,
}

/// A value that JSON cannot carry, to be put into the parsed record afterwards.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Patch {
    /// Index of the column in the batch.
    pub column: usize,
    /// Index of the row in the batch.
    pub row: usize,
    /// Keys and indexes that lead from the column's value to the place.
    pub path: Vec<Step>,
    /// What belongs there.
    pub value: Special,
}

/// One step of a patch's path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Step {
    /// A record's field.
    Key(String),
    /// An array's element.
    Index(usize),
}

/// A value that JSON has no notation for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Special {
    /// An integer that is not exact in a double, in decimal digits.
    Bigint(String),
    /// `NaN`, `Infinity` or `-Infinity`.
    Float(&'static str),
}

/// Collects the patches of one batch.
#[derive(Debug, Default)]
pub struct Patches {
    found: Vec<Patch>,
    column: usize,
    row: usize,
    path: Vec<Step>,
}

impl Patches {
    /// Says which cell is written next.
    pub fn locate(&mut self, column: usize, row: usize) {
        self.column = column;
        self.row = row;
        self.path.clear();
    }

    /// Notes a value for the current place.
    pub fn add(&mut self, value: Special) {
        let (column, row, path) = (self.column, self.row, self.path.clone());
        self.found.push(Patch { column, row, path, value });
    }

    /// Drops the patches of a row that was not written after all.
    pub fn forget_row(&mut self, row: usize) {
        self.found.retain(|patch| patch.row != row);
    }

    /// Returns what was found.
    pub fn into_found(self) -> Vec<Patch> {
        self.found
    }
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

    /// Appends the value as JSON. What JSON cannot carry is written as `null` and noted in `patches`.
    ///
    /// # Errors
    /// When a nested value is unreadable.
    pub fn write_json(&self, out: &mut Vec<u8>, patches: &mut Patches) -> Result<(), Unreadable> {
        match self {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Int(value) => write_integer(out, *value, patches),
            Value::Float(value) => write_float(out, *value, patches),
            Value::Decimal(text) if decimal_is_exact(text) => out.extend_from_slice(text.as_bytes()),
            Value::Decimal(text) => json::write_string(out, text.as_bytes()),
            Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Value::Instant(instant) => {
                out.push(b'"');
                instant.write_rfc3339(out);
                out.push(b'"');
            }
            Value::Text(text) => {
                out.push(b'"');
                out.extend_from_slice(text.raw);
                out.push(b'"');
            }
            Value::Interval(interval) => json::write_string(out, interval.to_iso8601().as_bytes()),
            Value::Range(bounds) => {
                out.extend_from_slice(b"{\"start\":");
                bounds.0.write_json(out, patches)?;
                out.extend_from_slice(b",\"end\":");
                bounds.1.write_json(out, patches)?;
                out.push(b'}');
            }
            Value::Json(text) => write_document(out, text, patches)?,
            Value::Record(cells, fields) => write_record(out, cells, fields, patches)?,
            Value::Array(cells, field) => write_array(out, cells, field, patches)?,
        }
        Ok(())
    }

    /// Appends an encoding that is the same for equal values, however the endpoint spelled them.
    ///
    /// # Errors
    /// When a nested value is unreadable.
    pub fn write_canonical(&self, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        match self {
            Value::Null => {}
            Value::Int(value) => out.extend_from_slice(&value.to_be_bytes()),
            Value::Float(value) if value.is_nan() => out.extend_from_slice(&f64::NAN.to_bits().to_be_bytes()),
            Value::Float(value) => out.extend_from_slice(&value.to_bits().to_be_bytes()),
            Value::Decimal(text) => out.extend_from_slice(text.as_bytes()),
            Value::Bool(value) => out.push(u8::from(*value)),
            Value::Instant(instant) => out.extend_from_slice(&instant.0.to_be_bytes()),
            Value::Text(text) | Value::Json(text) => text.unescape_into(out),
            Value::Interval(interval) => out.extend_from_slice(interval.to_iso8601().as_bytes()),
            Value::Range(bounds) => {
                with_length(out, |out| bounds.0.write_canonical(out))?;
                with_length(out, |out| bounds.1.write_canonical(out))?;
            }
            Value::Record(text, fields) => {
                let mut cells = Vec::with_capacity(fields.len());
                let mut scanner = Scanner::new(text, 0);
                let read = page::read_record(&mut scanner, &mut cells);
                if read.is_err() || cells.len() != fields.len() {
                    return Err(Unreadable { column: String::new(), expected: "STRUCT".to_owned() });
                }
                let mut ordered: Vec<(&Field, Cell<'_>)> = fields.iter().zip(cells).collect();
                ordered.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
                for (field, cell) in ordered {
                    let value = Value::parse(cell, field)?;
                    write_canonical_field(out, name_tag(&field.name), &value)?;
                }
            }
            Value::Array(text, field) => {
                let element = Field { repeated: false, ..(*field).clone() };
                for cell in read_elements(text, field)? {
                    let value = Value::parse(cell, &element)?;
                    with_length(out, |out| value.write_canonical(out))?;
                }
            }
        }
        Ok(())
    }
}

/// Appends one named value of a row or record, unless it is absent: a column that is added later, NULL in all
/// older rows, must not change their hash.
///
/// # Errors
/// When a nested value is unreadable.
pub fn write_canonical_field(out: &mut Vec<u8>, tag: NameTag, value: &Value<'_>) -> Result<(), Unreadable> {
    if value.is_absent() {
        return Ok(());
    }
    out.extend_from_slice(&tag);
    with_length(out, |out| value.write_canonical(out))
}

/// What stands for a column's name in the canonical encoding.
pub type NameTag = [u8; 4];

/// Hashes a column's name. Two columns with one tag are unlikely, and would only matter in rows that are alike but
/// for their swapped values.
pub fn name_tag(name: &str) -> NameTag {
    let mut tag = [0; 4];
    for (to, from) in tag.iter_mut().zip(Sha256::digest(name.as_bytes())) {
        *to = from;
    }
    tag
}

/// Appends what `write` appends, with its length in front: one byte where that is enough, else a mark and four.
fn with_length(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    const LONG: u8 = 0xff;
    let length_at = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - length_at - 1;
    let short = u8::try_from(length).ok().filter(|short| *short != LONG);
    if let Some(place) = out.get_mut(length_at) {
        *place = short.unwrap_or(LONG);
    }
    if short.is_none() {
        let behind = length_at + 1;
        out.splice(behind..behind, (length as u32).to_be_bytes());
    }
    Ok(())
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
        Type::Json => Some(Value::Json(text)),
        Type::String | Type::Bytes | Type::Geography | Type::Unknown(_) => Some(Value::Text(text)),
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

fn parse_float(text: &str) -> Option<f64> {
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

/// Tells whether a double's shortest text denotes the very decimal.
fn decimal_is_exact(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
    digits <= EXACT_DIGITS || text.parse::<f64>().is_ok_and(|double| double.to_string() == text)
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

fn write_integer(out: &mut Vec<u8>, value: i64, patches: &mut Patches) {
    if value.unsigned_abs() <= EXACT_INTEGER_MAX {
        out.extend_from_slice(value.to_string().as_bytes());
    } else {
        patches.add(Special::Bigint(value.to_string()));
        out.extend_from_slice(b"null");
    }
}

/// Returns the double of an integer that is exact in it.
pub fn exact_double(value: i64) -> Option<f64> {
    (value.unsigned_abs() <= EXACT_INTEGER_MAX).then_some(value as f64)
}

fn write_float(out: &mut Vec<u8>, value: f64, patches: &mut Patches) {
    if value.is_finite() {
        out.extend_from_slice(format!("{value:?}").as_bytes());
        return;
    }
    let name = match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    };
    patches.add(Special::Float(name));
    out.extend_from_slice(b"null");
}

fn write_record(
    out: &mut Vec<u8>,
    text: &[u8],
    fields: &[Field],
    patches: &mut Patches,
) -> Result<(), Unreadable> {
    let mut cells = Vec::with_capacity(fields.len());
    let read = page::read_record(&mut Scanner::new(text, 0), &mut cells);
    if read.is_err() || cells.len() != fields.len() {
        return Err(Unreadable { column: String::new(), expected: "STRUCT".to_owned() });
    }
    out.push(b'{');
    for (index, (field, cell)) in fields.iter().zip(cells).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_string(out, field.name.as_bytes());
        out.push(b':');
        patches.path.push(Step::Key(field.name.clone()));
        let written = Value::parse(cell, field)
            .and_then(|value| value.write_json(out, patches).map_err(|error| error.inside(&field.name)));
        patches.path.pop();
        written?;
    }
    out.push(b'}');
    Ok(())
}

fn write_array(
    out: &mut Vec<u8>,
    text: &[u8],
    field: &Field,
    patches: &mut Patches,
) -> Result<(), Unreadable> {
    let element = Field { repeated: false, ..field.clone() };
    out.push(b'[');
    for (index, cell) in read_elements(text, field)?.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        patches.path.push(Step::Index(index));
        let written = Value::parse(cell, &element).and_then(|value| value.write_json(out, patches));
        patches.path.pop();
        written?;
    }
    out.push(b']');
    Ok(())
}

fn read_elements<'a>(text: &'a [u8], field: &Field) -> Result<Vec<Cell<'a>>, Unreadable> {
    let mut cells = Vec::new();
    page::read_values(&mut Scanner::new(text, 0), &mut cells).map_err(|_| Unreadable::new(field))?;
    Ok(cells)
}

/// Copies a JSON document, noting the integers that are not exact in a double.
fn write_document(out: &mut Vec<u8>, text: &Text<'_>, patches: &mut Patches) -> Result<(), Unreadable> {
    let mut document = Vec::with_capacity(text.raw.len());
    text.unescape_into(&mut document);
    let mut scanner = Scanner::new(&document, 0);
    let copied = copy_document(&mut scanner, out, patches, 0);
    if copied.is_err() || scanner.peek().is_some() {
        return Err(Unreadable { column: String::new(), expected: "JSON".to_owned() });
    }
    Ok(())
}

/// JSON columns may be nested as deep as BigQuery lets them be.
const DOCUMENT_NESTING_MAX: usize = 500;

fn copy_document(
    scanner: &mut Scanner<'_>,
    out: &mut Vec<u8>,
    patches: &mut Patches,
    depth: usize,
) -> Result<(), Malformed> {
    if depth > DOCUMENT_NESTING_MAX {
        return Err(scanner.malformed());
    }
    match scanner.start()? {
        Start::Object => copy_members(scanner, out, patches, depth),
        Start::Array => copy_elements(scanner, out, patches, depth),
        Start::String => {
            let text = scanner.string()?;
            out.push(b'"');
            out.extend_from_slice(text.raw);
            out.push(b'"');
            Ok(())
        }
        Start::Null | Start::Bare => {
            let word = scanner.bare()?;
            match std::str::from_utf8(word).ok().filter(|text| is_inexact_integer(text)) {
                Some(integer) => {
                    patches.add(Special::Bigint(integer.to_owned()));
                    out.extend_from_slice(b"null");
                }
                None => out.extend_from_slice(word),
            }
            Ok(())
        }
    }
}

fn is_inexact_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let integer = digits.bytes().all(|byte| byte.is_ascii_digit());
    integer && digits.parse::<u64>().map_or(digits.len() < 40, |value| value > EXACT_INTEGER_MAX)
}

fn copy_members(
    scanner: &mut Scanner<'_>,
    out: &mut Vec<u8>,
    patches: &mut Patches,
    depth: usize,
) -> Result<(), Malformed> {
    scanner.expect(b'{')?;
    out.push(b'{');
    if !scanner.accept(b'}') {
        loop {
            let key = scanner.string()?;
            scanner.expect(b':')?;
            out.push(b'"');
            out.extend_from_slice(key.raw);
            out.extend_from_slice(b"\":");
            let mut name = Vec::new();
            key.unescape_into(&mut name);
            patches.path.push(Step::Key(String::from_utf8_lossy(&name).into_owned()));
            copy_document(scanner, out, patches, depth + 1)?;
            patches.path.pop();
            if !scanner.accept(b',') {
                scanner.expect(b'}')?;
                break;
            }
            out.push(b',');
        }
    }
    out.push(b'}');
    Ok(())
}

fn copy_elements(
    scanner: &mut Scanner<'_>,
    out: &mut Vec<u8>,
    patches: &mut Patches,
    depth: usize,
) -> Result<(), Malformed> {
    scanner.expect(b'[')?;
    out.push(b'[');
    if !scanner.accept(b']') {
        let mut index = 0;
        loop {
            patches.path.push(Step::Index(index));
            copy_document(scanner, out, patches, depth + 1)?;
            patches.path.pop();
            index += 1;
            if !scanner.accept(b',') {
                scanner.expect(b']')?;
                break;
            }
            out.push(b',');
        }
    }
    out.push(b']');
    Ok(())
}

impl Interval {
    /// Parses `[-]Y-M [-]D [-]H:M:S[.F]`.
    fn parse(text: &str) -> Option<Interval> {
        let mut parts = text.splitn(3, ' ');
        let (year_sign, year_month) = signed(parts.next()?);
        let days: i64 = parts.next()?.parse().ok()?;
        let (time_sign, clock) = signed(parts.next()?);
        let (years, months) = year_month.split_once('-')?;
        let years: i64 = years.parse().ok()?;
        let months: i64 = months.parse().ok()?;
        let mut clock = clock.splitn(3, ':');
        let hours: i64 = clock.next()?.parse().ok()?;
        let minutes: i64 = clock.next()?.parse().ok()?;
        let (seconds, fraction) = clock.next().map(|text| text.split_once('.').unwrap_or((text, "0")))?;
        let seconds: i64 = seconds.parse().ok()?;
        if fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let fraction_us = fraction.parse::<i64>().ok()? * 10_i64.pow(6 - fraction.len() as u32);
        let whole_us =
            hours.checked_mul(3_600)?.checked_add(minutes * 60 + seconds)?.checked_mul(SECOND_US)?;
        Some(Interval {
            months: year_sign * (years.checked_mul(12)?.checked_add(months)?),
            days,
            micros: time_sign * whole_us.checked_add(fraction_us)?,
        })
    }

    fn to_iso8601(self) -> String {
        let mut text = String::from("P");
        let mut part = |amount: i64, unit: char| {
            if amount != 0 {
                text.push_str(&amount.to_string());
                text.push(unit);
            }
        };
        part(self.months / 12, 'Y');
        part(self.months % 12, 'M');
        part(self.days, 'D');
        let seconds = self.micros / SECOND_US;
        let fraction_us = (self.micros % SECOND_US).unsigned_abs();
        if self.micros != 0 {
            text.push('T');
            let mut part = |amount: i64, unit: char| {
                if amount != 0 {
                    text.push_str(&amount.to_string());
                    text.push(unit);
                }
            };
            part(seconds / 3_600, 'H');
            part(seconds / 60 % 60, 'M');
            if fraction_us == 0 {
                part(seconds % 60, 'S');
            } else {
                let sign = if self.micros < 0 { "-" } else { "" };
                let fraction = format!("{fraction_us:06}");
                let fraction = fraction.trim_end_matches('0');
                text.push_str(&format!("{sign}{}.{fraction}S", (seconds % 60).unsigned_abs()));
            }
        }
        if text == "P" { "PT0S".to_owned() } else { text }
    }
}

fn signed(text: &str) -> (i64, &str) {
    text.strip_prefix('-').map_or((1, text), |rest| (-1, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(kind: Type) -> Field {
        Field { name: "c".to_owned(), kind, repeated: false }
    }

    fn text(raw: &str) -> Cell<'_> {
        Cell::Text(Text { raw: raw.as_bytes(), escaped: raw.contains('\\') })
    }

    fn to_json(cell: Cell<'_>, field: &Field) -> Result<String, Unreadable> {
        let mut out = Vec::new();
        Value::parse(cell, field)?.write_json(&mut out, &mut Patches::default())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_type_has_its_form_in_harper() {
        for (kind, given, expected) in [
            (Type::Int64, "-42", "-42"),
            (Type::Float64, "1e300", "1e300"),
            (Type::Float64, "-0.0", "-0.0"),
            (Type::Numeric, "12.500", "12.5"),
            (Type::Numeric, "0.000000001", "0.000000001"),
            (Type::Numeric, "12345678901234567890.123456789", "\"12345678901234567890.123456789\""),
            (Type::BigNumeric, "-0.00", "0"),
            (Type::Bool, "true", "true"),
            (Type::String, r#"a\"b\u00e9"#, r#""a\"b\u00e9""#),
            (Type::Bytes, "AAE=", "\"AAE=\""),
            (Type::Timestamp, "1704067200500000", "\"2024-01-01T00:00:00.500000Z\""),
            (Type::Timestamp, "-62135596800000000", "\"0001-01-01T00:00:00.000000Z\""),
            (Type::Date, "9999-12-31", "\"9999-12-31\""),
            (Type::Time, "23:59:59.999999", "\"23:59:59.999999\""),
            (Type::DateTime, "2024-01-01T00:00:00.5", "\"2024-01-01T00:00:00.5\""),
            (Type::Interval, "1-2 3 -4:5:6.5", "\"P1Y2M3DT-4H-5M-6.5S\""),
            (Type::Interval, "0-0 0 0:0:0", "\"PT0S\""),
            (Type::Interval, "-1-2 -3 0:0:0.000001", "\"P-1Y-2M-3DT0.000001S\""),
            (Type::Json, r#"{\"a\": [1, \"x\\n\"]}"#, r#"{"a":[1,"x\n"]}"#),
            (
                Type::Range(Box::new(Type::Date)),
                "[2024-01-01, UNBOUNDED)",
                r#"{"start":"2024-01-01","end":null}"#,
            ),
            (Type::Unknown("SKETCH".to_owned()), "xyz", "\"xyz\""),
        ] {
            assert_eq!(to_json(text(given), &field(kind)).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn values_of_the_wrong_form_name_column_and_type_only() {
        for kind in
            [Type::Int64, Type::Float64, Type::Numeric, Type::Bool, Type::Timestamp, Type::Date, Type::Json]
        {
            let expected = kind.name().to_owned();
            let failure = to_json(text("secret"), &field(kind)).unwrap_err();
            assert_eq!(failure.expected, expected);
            assert!(!format!("{failure:?}").contains("secret"));
        }
        assert!(to_json(text("253402300800000000"), &field(Type::Timestamp)).is_err());
    }

    #[test]
    fn what_json_cannot_carry_becomes_a_patch_with_its_path() {
        let inner = Field { name: "n".to_owned(), kind: Type::Int64, repeated: true };
        let record = field(Type::Record(vec![
            inner,
            Field { name: "f".to_owned(), kind: Type::Float64, repeated: false },
        ]));
        let cell = Cell::Nested(br#"{"f":[{"v":[{"v":"1"},{"v":"9007199254740993"}]},{"v":"NaN"}]}"#);
        let mut out = Vec::new();
        let mut patches = Patches::default();
        patches.locate(3, 7);
        Value::parse(cell, &record).unwrap().write_json(&mut out, &mut patches).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"n":[1,null],"f":null}"#);
        let found = serde_json::to_string(&patches.into_found()).unwrap();
        assert_eq!(
            found,
            r#"[{"column":3,"row":7,"path":["n",1],"value":{"bigint":"9007199254740993"}},{"column":3,"row":7,"path":["f"],"value":{"float":"NaN"}}]"#
        );
    }

    #[test]
    fn integers_in_json_documents_stay_exact() {
        let json = field(Type::Json);
        let mut patches = Patches::default();
        let mut out = Vec::new();
        let cell = text(r#"{\"a\":[9007199254740993,9007199254740992]}"#);
        Value::parse(cell, &json).unwrap().write_json(&mut out, &mut patches).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":[null,9007199254740992]}"#);
        assert_eq!(patches.into_found().len(), 1);
    }

    fn canonical(cell: Cell<'_>, field: &Field) -> Vec<u8> {
        let mut out = Vec::new();
        Value::parse(cell, field).unwrap().write_canonical(&mut out).unwrap();
        out
    }

    #[test]
    fn equal_values_have_one_canonical_form() {
        for (kind, one, other) in [
            (Type::Float64, "1", "1.0"),
            (Type::Float64, "100", "1e2"),
            (Type::Numeric, "1.50", "1.5"),
            (Type::String, "\\u00e9\\/", "é/"),
        ] {
            let field = field(kind);
            assert_eq!(canonical(text(one), &field), canonical(text(other), &field), "{one}");
        }
    }

    #[test]
    fn an_added_null_field_does_not_change_a_records_canonical_form() {
        let int = |name: &str| Field { name: name.to_owned(), kind: Type::Int64, repeated: false };
        let before = field(Type::Record(vec![int("b")]));
        let after = field(Type::Record(vec![int("a"), int("b")]));
        assert_eq!(
            canonical(Cell::Nested(br#"{"f":[{"v":"1"}]}"#), &before),
            canonical(Cell::Nested(br#"{"f":[{"v":null},{"v":"1"}]}"#), &after)
        );
    }

    #[test]
    fn long_values_have_their_length_in_front_too() {
        let encode = |first: &str, second: &str| {
            let string = field(Type::String);
            let mut out = Vec::new();
            for part in [first, second] {
                write_canonical_field(&mut out, name_tag("c"), &Value::parse(text(part), &string).unwrap())
                    .unwrap();
            }
            out
        };
        for length in [254, 255, 256, 70_000] {
            let (long, short) = ("x".repeat(length), "y");
            assert_ne!(encode(&long, short), encode(&"x".repeat(length - 1), "xy"), "{length}");
            assert_eq!(encode(&long, short).len(), length + 1 + 2 * 4 + 2 + if length > 254 { 4 } else { 0 });
        }
    }

    proptest! {
        #[test]
        fn any_integer_comes_back_the_same(value in any::<i64>()) {
            prop_assert_eq!(parse_integer(&value.to_string()), Some(value));
        }

        #[test]
        fn what_is_no_integer_is_refused(text in "[-+ 0-9a]{0,22}") {
            let plus_free = !text.starts_with('+');
            prop_assert_eq!(parse_integer(&text), text.parse().ok().filter(|_| plus_free || text.len() > 19));
        }

        #[test]
        fn a_decimal_is_a_number_only_if_it_comes_back_the_same(
            whole in 0_u64..u64::MAX, fraction in 0_u32..1_000_000_000, negative in any::<bool>()
        ) {
            let sign = if negative { "-" } else { "" };
            let given = format!("{sign}{whole}.{fraction:09}");
            let json = to_json(text(&given), &field(Type::Numeric)).unwrap();
            let exact = normal_decimal(&given).unwrap();
            if let Some(number) = serde_json::from_str::<serde_json::Value>(&json).unwrap().as_f64() {
                prop_assert_eq!(number.to_string(), exact);
            } else {
                prop_assert_eq!(json, format!("\"{exact}\""));
            }
        }

        #[test]
        fn any_double_comes_back_the_same(value in any::<f64>()) {
            let given = format!("{value:?}");
            let json = to_json(text(&given), &field(Type::Float64)).unwrap();
            if value.is_finite() {
                prop_assert_eq!(json.parse::<f64>().unwrap().to_bits(), value.to_bits());
            } else {
                prop_assert_eq!(json, "null");
            }
        }
    }
}
