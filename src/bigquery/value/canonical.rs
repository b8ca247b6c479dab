//! Values in canonical form, of which a row's hash is made.

use super::written::read_elements;
use super::{Unreadable, Value};
use crate::bigquery::json::Scanner;
use crate::bigquery::page::{self, Cell};
use crate::bigquery::schema::Field;
use sha2::{Digest, Sha256};

/// Appends one named value of a row or record, unless it is absent. So a column that is added later, and is NULL in all
/// older rows, does not change their hashes.
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

/// Represents a column's name in the canonical encoding.
pub type NameTag = [u8; 4];

/// Hashes a column's name. Two columns with the same tag are unlikely. They would only matter in rows that differ in
/// nothing but swapped values of these columns.
pub fn name_tag(name: &str) -> NameTag {
    let mut tag = [0; 4];
    for (to, from) in tag.iter_mut().zip(Sha256::digest(name.as_bytes())) {
        *to = from;
    }
    tag
}

/// Appends what `write` appends, preceded by its length: one byte if that suffices, otherwise a mark and four bytes.
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

impl Value<'_> {
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
