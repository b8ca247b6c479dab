//! Values as JSON for Harper.

use super::{Unreadable, Value};
use crate::bigquery::json::{self, Malformed, Scanner, Start, Text};
use crate::bigquery::page::{self, Cell};
use crate::bigquery::schema::Field;
use serde::Serialize;

/// Integers up to this size are exact in a double.
pub const EXACT_INTEGER_MAX: u64 = 1 << 53;
/// Decimals with at most this many significant digits survive the way through a double.
const EXACT_DIGITS: usize = 15;
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
    within_text: bool,
}

impl Patches {
    /// Makes a collector for JSON that becomes a text. It stays empty: in such JSON, integers keep all their digits,
    /// and NaN and the infinities are strings.
    pub fn within_text() -> Patches {
        Patches { within_text: true, ..Patches::default() }
    }

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

    /// Appends the placeholder for a value that JSON cannot carry.
    fn write(&mut self, out: &mut Vec<u8>, value: Special) {
        match value {
            Special::Bigint(digits) if self.within_text => out.extend_from_slice(digits.as_bytes()),
            Special::Float(name) if self.within_text => json::write_string(out, name.as_bytes()),
            value => {
                out.extend_from_slice(b"null");
                self.add(value);
            }
        }
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
impl Value<'_> {
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
}

/// Tells whether the shortest text of the double denotes exactly this decimal.
fn decimal_is_exact(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
    digits <= EXACT_DIGITS || text.parse::<f64>().is_ok_and(|double| double.to_string() == text)
}
fn write_integer(out: &mut Vec<u8>, value: i64, patches: &mut Patches) {
    if value.unsigned_abs() <= EXACT_INTEGER_MAX {
        out.extend_from_slice(value.to_string().as_bytes());
    } else {
        patches.write(out, Special::Bigint(value.to_string()));
    }
}

/// Returns an integer as a double, if that is exact.
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
    patches.write(out, Special::Float(name));
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

/// Splits an array's text into its elements.
pub(super) fn read_elements<'a>(text: &'a [u8], field: &Field) -> Result<Vec<Cell<'a>>, Unreadable> {
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
    let expected = match copied {
        Ok(()) if scanner.peek().is_none() => return Ok(()),
        Ok(()) | Err(Flaw::Malformed) => "JSON",
        Err(Flaw::Unfit) => {
            "JSON that Harper can hold; schemaOverrides can store its text instead, with the type String"
        }
    };
    Err(Unreadable { column: String::new(), expected: expected.to_owned() })
}

/// Why a document cannot be stored.
enum Flaw {
    /// It is no JSON.
    Malformed,
    /// It is JSON that JavaScript or Harper would change.
    Unfit,
}

impl From<Malformed> for Flaw {
    fn from(_: Malformed) -> Flaw {
        Flaw::Malformed
    }
}

/// JSON columns may be nested as deeply as BigQuery allows.
const DOCUMENT_NESTING_MAX: usize = 500;

fn copy_document(
    scanner: &mut Scanner<'_>,
    out: &mut Vec<u8>,
    patches: &mut Patches,
    depth: usize,
) -> Result<(), Flaw> {
    if depth > DOCUMENT_NESTING_MAX {
        return Err(Flaw::Malformed);
    }
    match scanner.start()? {
        Start::Object => copy_members(scanner, out, patches, depth),
        Start::Array => copy_elements(scanner, out, patches, depth),
        Start::String => {
            let text = scanner.string()?;
            if !text.is_unicode() {
                return Err(Flaw::Unfit);
            }
            out.push(b'"');
            out.extend_from_slice(text.raw);
            out.push(b'"');
            Ok(())
        }
        Start::Null | Start::Bare => {
            let word = scanner.bare()?;
            match std::str::from_utf8(word).ok().filter(|text| is_inexact_integer(text)) {
                Some(integer) => patches.write(out, Special::Bigint(integer.to_owned())),
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
) -> Result<(), Flaw> {
    scanner.expect(b'{')?;
    out.push(b'{');
    let mut names = Vec::new();
    if !scanner.accept(b'}') {
        loop {
            let key = scanner.string()?;
            if !key.is_unicode() {
                return Err(Flaw::Unfit);
            }
            scanner.expect(b':')?;
            out.push(b'"');
            out.extend_from_slice(key.raw);
            out.extend_from_slice(b"\":");
            let mut name = Vec::new();
            key.unescape_into(&mut name);
            patches.path.push(Step::Key(String::from_utf8_lossy(&name).into_owned()));
            copy_document(scanner, out, patches, depth + 1)?;
            if let Some(Step::Key(name)) = patches.path.pop() {
                names.push(name);
            }
            if !scanner.accept(b',') {
                scanner.expect(b'}')?;
                break;
            }
            out.push(b',');
        }
    }
    out.push(b'}');
    if are_fit(names) { Ok(()) } else { Err(Flaw::Unfit) }
}

/// Whether an object with these members arrives unchanged. Of members with the same name, JavaScript keeps the last
/// one. Harper 4.7 renames `__proto__`, and treats an object with both `constructor` and `toJSON` as an instance of a
/// class.
fn are_fit(mut names: Vec<String>) -> bool {
    names.sort_unstable();
    let distinct = names.windows(2).all(|pair| pair.first() != pair.last());
    let has = |wanted: &str| names.binary_search_by(|name| name.as_str().cmp(wanted)).is_ok();
    distinct && !has("__proto__") && !(has("constructor") && has("toJSON"))
}

fn copy_elements(
    scanner: &mut Scanner<'_>,
    out: &mut Vec<u8>,
    patches: &mut Patches,
    depth: usize,
) -> Result<(), Flaw> {
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
