//! Adapts the schema when the columns of the source change, without losing or duplicating rows.
//!
//! Each change creates a new version of the schema. The new version depends only on the previous version and the
//! source, so that all workers arrive at the same one. An attribute belongs to one column and one type for ever.

use super::diff::{Difference, same_name};
use super::projection::Projection;
use super::version::{Change, Column, SchemaVersion};
use crate::bigquery::schema::Field;
use crate::config::{IdType, TableConfig};
use crate::error::{Failure, Kind};
use sha2::{Digest, Sha256};

/// Returns the new version of a table's schema that changed columns require; none if nothing has changed.
///
/// # Errors
/// When rows could not be recognised any more under the new version, unless all of them `are_read_again`.
pub fn next_version(
    config: &TableConfig,
    projection: &Projection,
    before: Option<&SchemaVersion>,
    are_read_again: bool,
) -> Result<Option<SchemaVersion>, Failure> {
    let Some(next) = evolve(before, &config.id, &projection.fields) else { return Ok(None) };
    if are_read_again {
        return Ok(Some(next));
    }
    let anew = way_out(&config.id);
    let must = || std::iter::once(projection.cursor).chain(projection.key.iter().copied());
    for change in &next.changes {
        let Change::TypeChanged { column, from, to, .. } = change else { continue };
        if must().any(|index| same_name(projection.name(index), column)) {
            let message = format!(
                "the column {column}, which tells rows apart, has changed from {from} to {to}: change it back, or {anew}"
            );
            return Err(Failure::new(Kind::SchemaChanged, message));
        }
    }
    let has_new_era = before.is_some_and(|before| before.era != next.era);
    if has_new_era && projection.key.is_empty() && projection.id_type == IdType::Integer {
        let sentences: Vec<String> = next.changes.iter().map(Change::sentence).collect();
        let message = format!(
            "{}; with idType: integer, rows without a key cannot be recognised after that: {anew}",
            sentences.join("; ")
        );
        return Err(Failure::new(Kind::SchemaChanged, message));
    }
    Ok(Some(next))
}

/// Says how a table is brought to its new state if its rows are no longer recognised.
pub fn way_out(table_id: &str) -> String {
    format!(
        "read all rows again, by POST {{\"action\": \"resync\", \"table\": \"{table_id}\"}} to /SyncControl; rows under \
         former ids are removed then"
    )
}

/// Returns the next version of a table's schema for the columns that are read now; none if nothing has changed.
pub fn evolve(before: Option<&SchemaVersion>, table_id: &str, fields: &[Field]) -> Option<SchemaVersion> {
    let Some(before) = before else { return Some(first_version(table_id, fields)) };
    let mut next = Next { columns: before.columns.clone(), changes: Vec::new(), cuts: false };
    for column in &mut next.columns {
        column.retired = true;
    }
    for field in fields {
        next.take(field, before, fields);
    }
    for column in before.columns.iter().filter(|column| !column.retired) {
        if !fields.iter().any(|field| same_name(&field.name, column.name())) {
            let (name, attribute) = (column.name().to_owned(), column.attribute.clone());
            next.changes.push(Change::Removed { column: name, attribute });
            next.cuts = true;
        }
    }
    if next.changes.is_empty() {
        return None;
    }
    let era = before.era + u32::from(next.cuts);
    let columns: Vec<Column> = next
        .columns
        .into_iter()
        .map(|column| Column { since: if column.since == NOW { era } else { column.since }, ..column })
        .collect();
    let version = before.version + 1;
    Some(SchemaVersion {
        id: format!("{table_id}:{version}"),
        table_id: table_id.to_owned(),
        version,
        fingerprint: fingerprint(&columns),
        era,
        at: None,
        by: String::new(),
        columns,
        changes: next.changes,
    })
}

fn first_version(table_id: &str, fields: &[Field]) -> SchemaVersion {
    let column = |field: &Field| Column {
        attribute: field.name.clone(),
        source: field.to_wire(),
        since: 0,
        retired: false,
    };
    let columns: Vec<Column> = fields.iter().map(column).collect();
    SchemaVersion {
        id: format!("{table_id}:1"),
        table_id: table_id.to_owned(),
        version: 1,
        fingerprint: fingerprint(&columns),
        era: 0,
        at: None,
        by: String::new(),
        columns,
        changes: Vec::new(),
    }
}

/// A placeholder for the era of the version that is being made.
const NOW: u32 = u32::MAX;

/// A version that is being made.
struct Next {
    columns: Vec<Column>,
    changes: Vec<Change>,
    /// Whether something is gone of which ids were made.
    cuts: bool,
}

impl Next {
    /// Finds the attribute for a column: the one that held values of this type before, or a new one.
    fn take(&mut self, field: &Field, before: &SchemaVersion, fields: &[Field]) {
        let was = before.current(&field.name);
        let fits =
            |column: &Column| same_name(column.name(), &field.name) && !column.difference(field).retyped;
        // The attribute in use comes first.
        let place = was
            .filter(|was| fits(was))
            .and_then(|was| self.columns.iter().position(|column| column.attribute == was.attribute))
            .or_else(|| self.columns.iter().position(fits));
        let attribute = match place.and_then(|place| self.columns.get_mut(place)) {
            Some(column) => {
                let Difference { gained, lost, .. } = column.difference(field);
                self.cuts |= !lost.is_empty();
                let stays = was.is_some_and(|was| was.attribute == column.attribute);
                if !lost.is_empty() || !stays {
                    column.since = NOW;
                }
                if !gained.is_empty() || !lost.is_empty() {
                    // The first spelling stays: ids depend on it.
                    column.source = Field { name: column.name().to_owned(), ..field.clone() }.to_wire();
                }
                column.retired = false;
                self.changes.extend(gained.into_iter().map(|column| Change::FieldAdded { column }));
                self.changes.extend(lost.into_iter().map(|column| Change::FieldRemoved { column }));
                column.attribute.clone()
            }
            None => {
                let attribute = self.free_attribute(&field.name, fields);
                let source = field.to_wire();
                self.columns.push(Column {
                    attribute: attribute.clone(),
                    source,
                    since: NOW,
                    retired: false,
                });
                attribute
            }
        };
        let (column, type_text) = (field.name.clone(), field.type_text());
        match was {
            None => self.changes.push(Change::Added { column, type_text, attribute }),
            Some(was) if was.attribute != attribute => {
                let (from, before) = (was.type_text(), was.attribute.clone());
                self.changes.push(Change::TypeChanged { column, from, to: type_text, before, attribute });
                self.cuts = true;
            }
            Some(_) => {}
        }
    }

    /// Returns a column's name, with `_v2`, `_v3`… appended if the name belongs to something else.
    fn free_attribute(&self, name: &str, fields: &[Field]) -> String {
        let is_taken = |attribute: &str| self.columns.iter().any(|one| same_name(&one.attribute, attribute));
        let is_column = |attribute: &str| fields.iter().any(|field| same_name(&field.name, attribute));
        if !is_taken(name) {
            return name.to_owned();
        }
        // There are more such names than columns, so one of them is free.
        (2..=self.columns.len() + fields.len() + 2)
            .map(|number| format!("{name}_v{number}"))
            .find(|attribute| !is_taken(attribute) && !is_column(attribute))
            .unwrap_or_else(|| format!("{name}_v"))
    }
}

/// Returns 64 bits of a hash of the columns that the source has.
fn fingerprint(columns: &[Column]) -> String {
    let mut texts: Vec<String> = columns
        .iter()
        .filter(|column| !column.retired)
        .map(|column| format!("{} {}", column.name().to_ascii_lowercase(), column.type_text()))
        .collect();
    texts.sort();
    let hash = Sha256::digest(texts.join("\n").as_bytes());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
