//! Rows as they are read: their values, and the keys by which they are recognised.

use super::id::{ContentHash, content_hash};
use super::projection::Projection;
use crate::bigquery::page::Cell;
use crate::bigquery::value::{Unreadable, Value, write_canonical_field};
use crate::time::Micros;

/// The properties by which a row is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKey {
    /// The cursor's value.
    pub cursor: Micros,
    /// The content's hash; zero if rows have a key.
    pub hash: ContentHash,
}

/// Parses the cells of a row.
///
/// # Errors
/// When a value does not have the form that its column's type promises.
pub fn parse_row<'a>(
    projection: &'a Projection,
    cells: &[Cell<'a>],
    values: &mut Vec<Value<'a>>,
) -> Result<(), Unreadable> {
    values.clear();
    if cells.len() != projection.fields.len() {
        return Err(Unreadable {
            column: "the row".to_owned(),
            expected: "as many values as columns".to_owned(),
        });
    }
    for (cell, field) in cells.iter().zip(&projection.fields) {
        values.push(Value::parse(*cell, field)?);
    }
    Ok(())
}

/// Returns the properties by which a row is recognised; `canonical` is a working buffer.
///
/// # Errors
/// When the row has no cursor, or when a nested value of a row without a key is unreadable.
pub fn recognise(
    projection: &Projection,
    values: &[Value<'_>],
    canonical: &mut Vec<u8>,
) -> Result<RowKey, Unreadable> {
    let cursor = values.get(projection.cursor).and_then(|value| projection.cursor_type.instant(value));
    let cursor = cursor.ok_or_else(|| Unreadable {
        column: projection.cursor_name().to_owned(),
        expected: "a cursor".to_owned(),
    })?;
    let mut hash = [0; 32];
    if projection.key.is_empty() {
        canonical.clear();
        for (index, tag) in &projection.by_name {
            if let Some(value) = values.get(*index) {
                write_canonical_field(canonical, *tag, value)?;
            }
        }
        hash = content_hash(canonical);
    }
    Ok(RowKey { cursor, hash })
}
