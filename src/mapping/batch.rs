//! Rows on their way to Harper, as columns in a few buffers, so that nothing crosses to JavaScript per row.

use super::layout::Layout;
use super::projection::{ID, Projection};
use super::row::RowKey;
use super::{form, id};
use crate::bigquery::json::{self, Text};
use crate::bigquery::page::Cell;
use crate::bigquery::value::{
    Patch, Patches, Special, Unreadable, Value, exact_double, write_canonical_field,
};
use crate::config::{HarperType, IdType};
use crate::time::Micros;
use serde::Serialize;
use std::collections::HashMap;

/// A row that could not be converted, for the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The row's id, if that much could be read.
    pub row_id: Option<String>,
    /// The same each time the row is read: its id, or a hash of the row.
    pub mark: String,
    /// What was wrong, without the value.
    pub reason: String,
}

/// Rows for one Harper transaction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Rows to write.
    pub rows: usize,
    /// JSON text: an array with the ids, then one with the values of each text column.
    pub text: Vec<u8>,
    /// The values of the number columns, one column after the other.
    pub numbers: Vec<f64>,
    /// Pairs of column and row of number columns' NULLs.
    pub nulls: Vec<u32>,
    /// Rows that have a newer version in the same batch, and so must not be written.
    pub superseded: Vec<u32>,
    /// Values that neither JSON nor doubles can carry.
    pub patches: Vec<Patch>,
    /// Rows that could not be converted.
    pub rejections: Vec<Rejection>,
    /// The latest cursor of the rows.
    pub newest: Option<Micros>,
}

impl Batch {
    /// Returns a batch without rows.
    pub fn none() -> Batch {
        Batch {
            rows: 0,
            text: b"[[]]".to_vec(),
            numbers: Vec::new(),
            nulls: Vec::new(),
            superseded: Vec::new(),
            patches: Vec::new(),
            rejections: Vec::new(),
            newest: None,
        }
    }

    /// Returns the ids of rows without a key, whose texts JSON need not escape.
    pub fn plain_ids(&self) -> impl Iterator<Item = &[u8]> {
        let ids = self.text.strip_prefix(b"[[").unwrap_or_default();
        let ids = ids.split(|byte| *byte == b']').next().unwrap_or_default();
        // Integers are plain; texts stand between quotation marks.
        ids.split(|byte| matches!(byte, b',' | b'"')).filter(|id| !id.is_empty())
    }

    /// Returns the number of rows that are really to be written.
    pub fn rows_to_write(&self) -> u64 {
        self.rows.saturating_sub(self.superseded.len()) as u64
    }
}

/// Collects rows.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Per field of the projection: its place in the layout, none for a column that is the id.
    places: Vec<Option<usize>>,
    columns: Vec<Column>,
    ids: Vec<u8>,
    rows: usize,
    nulls: Vec<u32>,
    /// By key: the row with the newest version so far, and that version's cursor.
    newest: HashMap<Vec<u8>, (u32, Micros)>,
    superseded: Vec<u32>,
    patches: Patches,
    rejections: Vec<Rejection>,
    newest_cursor: Option<Micros>,
}

#[derive(Debug)]
enum Column {
    Numbers(Vec<f64>),
    Text(TextColumn),
}

/// JSON values, each with a comma behind it, and where the newest one starts.
#[derive(Debug, Default)]
struct TextColumn {
    values: Vec<u8>,
    newest_at: usize,
    newest_row: usize,
}

impl BatchBuilder {
    /// Starts a batch.
    pub fn new(projection: &Projection) -> BatchBuilder {
        let layout = Layout::of(projection);
        let mut next = 0;
        let places = (0..projection.fields.len())
            .map(|index| {
                let place = (!projection.is_id(index)).then_some(next);
                next += usize::from(place.is_some());
                place
            })
            .collect();
        let columns = layout
            .columns
            .iter()
            .map(|column| {
                if column.carrier.is_in_numbers() {
                    Column::Numbers(Vec::new())
                } else {
                    Column::Text(TextColumn::default())
                }
            })
            .collect();
        BatchBuilder {
            places,
            columns,
            ids: Vec::new(),
            rows: 0,
            nulls: Vec::new(),
            newest: HashMap::new(),
            superseded: Vec::new(),
            patches: Patches::default(),
            rejections: Vec::new(),
            newest_cursor: None,
        }
    }

    /// Tells whether nothing was collected, not even rejections.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.rejections.is_empty()
    }

    /// Returns the number of rows to write.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns about how many bytes of text were collected.
    pub fn text_bytes(&self) -> usize {
        let columns = self.columns.iter().map(|column| match column {
            Column::Numbers(numbers) => numbers.len() * 8,
            Column::Text(column) => column.values.len(),
        });
        self.ids.len() + columns.sum::<usize>()
    }

    /// Adds a row; one that cannot be converted becomes a rejection.
    pub fn push(&mut self, projection: &Projection, values: &[Value<'_>], key: &RowKey, occurrence: u32) {
        let mut id = Vec::with_capacity(32);
        if projection.key.is_empty() {
            match projection.id_type {
                IdType::Text => id::write_keyless(&mut id, key.cursor, &key.hash, occurrence, projection.era),
                IdType::Integer => id::write_integer(&mut id, id::integer_of_row(&key.hash, occurrence)),
            }
        } else {
            if let Err(unreadable) = write_key(&mut id, projection, values) {
                let mut canonical = Vec::new();
                for (index, tag) in &projection.by_name {
                    let value = values.get(*index).unwrap_or(&Value::Null);
                    // A value that cannot be written does not tell rows apart.
                    let _ = write_canonical_field(&mut canonical, *tag, value);
                }
                return self.reject(None, mark_of([canonical.as_slice()].into_iter()), &unreadable);
            }
            if self.newest.get(&id).is_some_and(|(_, cursor)| *cursor > key.cursor) {
                return;
            }
        }
        if let Err(unreadable) = self.push_values(projection, values) {
            self.take_back_row();
            let id = String::from_utf8_lossy(&id).into_owned();
            self.reject(Some(id.clone()), id, &unreadable);
            return;
        }
        match projection.id_type {
            IdType::Text => json::write_string(&mut self.ids, &id),
            IdType::Integer => self.ids.extend_from_slice(&id),
        }
        self.ids.push(b',');
        if !projection.key.is_empty() {
            let older = self.newest.insert(id, (self.rows as u32, key.cursor));
            self.superseded.extend(older.map(|(row, _)| row));
        }
        self.newest_cursor = self.newest_cursor.max(Some(key.cursor));
        self.rows += 1;
    }

    /// Notes a row that has unreadable values, with its id if its key is readable.
    pub fn reject_unread(&mut self, projection: &Projection, cells: &[Cell<'_>], unreadable: &Unreadable) {
        let mut values = Vec::with_capacity(cells.len());
        for (index, field) in projection.fields.iter().enumerate() {
            let cell = cells.get(index).copied().filter(|_| projection.key.contains(&index));
            values.push(cell.and_then(|cell| Value::parse(cell, field).ok()).unwrap_or(Value::Null));
        }
        let mut id = Vec::new();
        let has_id = !projection.key.is_empty() && write_key(&mut id, projection, &values).is_ok();
        let row_id = has_id.then(|| String::from_utf8_lossy(&id).into_owned());
        let texts = cells.iter().map(|cell| match cell {
            Cell::Null => &[][..],
            Cell::Bare(raw) | Cell::Text(Text { raw, .. }) | Cell::Nested(raw) => raw,
        });
        let mark = row_id.clone().unwrap_or_else(|| mark_of(texts));
        self.reject(row_id, mark, unreadable);
    }

    fn reject(&mut self, row_id: Option<String>, mark: String, unreadable: &Unreadable) {
        let Unreadable { column, expected } = unreadable;
        let reason = format!("the value of {column} cannot be read as {expected}");
        self.rejections.push(Rejection { row_id, mark, reason });
    }

    fn push_values(&mut self, projection: &Projection, values: &[Value<'_>]) -> Result<(), Unreadable> {
        for (index, (value, place)) in values.iter().zip(&self.places).enumerate() {
            let Some(place) = *place else { continue };
            let form = projection.form(index);
            self.patches.locate(place, self.rows);
            let located = |error| located(error, projection.name(index));
            match self.columns.get_mut(place) {
                Some(Column::Numbers(numbers)) => {
                    let number = match (value, form) {
                        (Value::Null, _) => None,
                        (Value::Float(number), HarperType::Any) => Some(*number),
                        (Value::Int(integer), HarperType::Any) => {
                            Some(exact_double(*integer).unwrap_or_else(|| {
                                self.patches.add(Special::Bigint(integer.to_string()));
                                0.0
                            }))
                        }
                        (_, HarperType::Any) => None,
                        (value, form) => Some(form::number(form, value).map_err(located)?),
                    };
                    if number.is_none() {
                        self.nulls.extend([place as u32, self.rows as u32]);
                    }
                    numbers.push(number.unwrap_or(0.0));
                }
                Some(Column::Text(column)) => {
                    column.newest_at = column.values.len();
                    column.newest_row = self.rows;
                    let written = match (value, form) {
                        (Value::Null, _) | (_, HarperType::Any) => {
                            value.write_json(&mut column.values, &mut self.patches)
                        }
                        (value, form) => form::write_json(form, value, &mut column.values),
                    };
                    written.map_err(located)?;
                    column.values.push(b',');
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Removes the values of a row that failed halfway from the columns.
    fn take_back_row(&mut self) {
        let row = self.rows;
        for column in &mut self.columns {
            match column {
                Column::Numbers(numbers) => numbers.truncate(row),
                Column::Text(column) if column.newest_row == row => column.values.truncate(column.newest_at),
                Column::Text(_) => {}
            }
        }
        self.nulls = self
            .nulls
            .chunks(2)
            .filter(|pair| pair.get(1) != Some(&(row as u32)))
            .flatten()
            .copied()
            .collect();
        self.patches.forget_row(row);
    }

    /// Returns the batch.
    pub fn finish(self) -> Batch {
        let mut text = Vec::with_capacity(self.text_bytes() + 16);
        text.push(b'[');
        write_list(&mut text, &self.ids);
        let mut numbers = Vec::new();
        for column in &self.columns {
            match column {
                Column::Numbers(values) => numbers.extend_from_slice(values),
                Column::Text(column) => {
                    text.push(b',');
                    write_list(&mut text, &column.values);
                }
            }
        }
        text.push(b']');
        Batch {
            rows: self.rows,
            text,
            numbers,
            nulls: self.nulls,
            superseded: self.superseded,
            patches: self.patches.into_found(),
            rejections: self.rejections,
            newest: self.newest_cursor,
        }
    }
}

/// Returns the mark of a row without an id: a hash of its parts.
fn mark_of<'p>(parts: impl Iterator<Item = &'p [u8]>) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    let digits = id::content_hash(&bytes).into_iter().take(12).map(|byte| format!("{byte:02x}"));
    format!("#{}", digits.collect::<String>())
}

/// Appends values, each with a comma behind it, as a JSON array.
fn write_list(out: &mut Vec<u8>, values: &[u8]) {
    out.push(b'[');
    out.extend_from_slice(values.strip_suffix(b",").unwrap_or(values));
    out.push(b']');
}

/// Appends the id of a row with a key.
///
/// # Errors
/// When the key is the column `id`, which is stored nowhere else, and an id cannot hold its value.
fn write_key(out: &mut Vec<u8>, projection: &Projection, values: &[Value<'_>]) -> Result<(), Unreadable> {
    let parts: Vec<&Value<'_>> = projection.key.iter().filter_map(|index| values.get(*index)).collect();
    let is_id = projection.key.first().is_some_and(|index| projection.is_id(*index));
    write_key_parts(out, projection.id_type, is_id, &parts)
}

/// Appends the id of a row with a key, which has these parts. `is_id` tells that the key is the column `id`.
///
/// # Errors
/// When the key is the column `id`, and an id cannot hold its value.
pub fn write_key_parts(
    out: &mut Vec<u8>,
    id_type: IdType,
    is_id: bool,
    parts: &[&Value<'_>],
) -> Result<(), Unreadable> {
    let unfit = |expected: &str| Unreadable { column: ID.to_owned(), expected: expected.to_owned() };
    match (id_type, is_id) {
        (IdType::Text, _) => {
            let hashed = id::write_keyed(out, parts.iter().copied());
            if hashed && is_id {
                return Err(unfit("a text that is short enough for an id"));
            }
        }
        (IdType::Integer, false) => {
            let mut text = Vec::with_capacity(32);
            id::write_keyed(&mut text, parts.iter().copied());
            id::write_integer(out, id::integer_of_key(&text));
        }
        (IdType::Integer, true) => {
            let integer = match parts {
                [Value::Int(integer), ..] if *integer != 0 => exact_double(*integer).map(|_| *integer),
                _ => None,
            };
            id::write_integer(out, integer.ok_or_else(|| unfit("an integer that Harper takes as an id"))?);
        }
    }
    Ok(())
}

fn located(mut unreadable: Unreadable, column: &str) -> Unreadable {
    if unreadable.column.is_empty() {
        unreadable.column = column.to_owned();
    } else if unreadable.column != column {
        unreadable.column = format!("{column}.{}", unreadable.column);
    }
    unreadable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigquery::page::Page;
    use crate::bigquery::schema::{Field, Type};
    use crate::bigquery::table::Description;
    use crate::config::{Config, Environment};
    use crate::mapping::layout::Carrier;
    use crate::mapping::row::{parse_row, recognise};
    use serde_json::json;

    fn projection(key: &[&str]) -> Projection {
        projection_with(json!({"key": key}))
    }

    fn projection_with(bigquery: serde_json::Value) -> Projection {
        let mut root = json!({"bigquery": {
            "projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"
        }});
        for (key, value) in bigquery.as_object().unwrap() {
            root["bigquery"][key] = value.clone();
        }
        let config = Config::parse(&root, &Environment::default()).unwrap().tables.remove(0);
        let field =
            |name: &str, kind| Field { name: name.to_owned(), kind, repeated: false, required: false };
        let fields = vec![
            field("ts", Type::Timestamp),
            field("n", Type::Int64),
            field("s", Type::String),
            field("f", Type::Float64),
        ];
        Projection::resolve(
            &config,
            &Description { fields, ..Description::read(br#"{"schema":{}}"#).unwrap() },
            None,
        )
        .unwrap()
    }

    fn build(projection: &Projection, rows: &[[&str; 4]]) -> Batch {
        let cell = |value: &&str| if *value == "null" { json!({"v": null}) } else { json!({"v": value}) };
        let rows: Vec<_> =
            rows.iter().map(|row| json!({"f": row.iter().map(cell).collect::<Vec<_>>()})).collect();
        let page = Page::open(json!({"rows": rows}).to_string().into_bytes()).unwrap();
        let mut builder = BatchBuilder::new(projection);
        let mut reader = page.rows();
        let (mut cells, mut values, mut canonical) = (Vec::new(), Vec::new(), Vec::new());
        while reader.next(&mut cells).unwrap().is_some() {
            match parse_row(projection, &cells, &mut values)
                .and_then(|()| recognise(projection, &values, &mut canonical))
            {
                Ok(key) => builder.push(projection, &values, &key, 0),
                Err(unreadable) => builder.reject_unread(projection, &cells, &unreadable),
            }
        }
        builder.finish()
    }

    fn text(batch: &Batch) -> serde_json::Value {
        serde_json::from_slice(&batch.text).unwrap()
    }

    #[test]
    fn columns_travel_in_few_buffers() {
        let batch = build(&projection(&["n"]), &[["0", "1", "a", "0.5"], ["1000000", "2", "null", "null"]]);
        assert_eq!(
            text(&batch),
            json!([["1", "2"], ["1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:01.000000Z"], ["a", null]])
        );
        assert_eq!(batch.numbers, [1.0, 2.0, 0.5, 0.0]);
        assert_eq!(batch.nulls, [3, 1]);
    }

    #[test]
    fn a_row_that_fails_halfway_leaves_nothing_behind() {
        let batch = build(
            &projection(&["s"]),
            &[
                ["0", "1", "a", "1"],
                ["1", "9007199254740993", "b", "poison"],
                ["2", "x", "c", "null"],
                ["3", "4", "d", "2"],
            ],
        );
        assert_eq!(batch.rows, 2);
        assert_eq!(text(&batch)[0], json!(["a", "d"]));
        assert_eq!(text(&batch)[2], json!(["a", "d"]));
        assert_eq!(batch.numbers, [1.0, 4.0, 1.0, 2.0]);
        assert!(batch.nulls.is_empty() && batch.patches.is_empty());
        assert_eq!(
            batch.rejections,
            [
                Rejection {
                    row_id: Some("b".to_owned()),
                    mark: "b".to_owned(),
                    reason: "the value of f cannot be read as FLOAT64".to_owned()
                },
                Rejection {
                    row_id: Some("c".to_owned()),
                    mark: "c".to_owned(),
                    reason: "the value of n cannot be read as INT64".to_owned()
                },
            ]
        );
    }

    #[test]
    fn a_row_without_a_readable_id_has_the_same_mark_each_time_and_another_one_than_others() {
        let marks = |rows: &[[&str; 4]]| -> Vec<String> {
            let projection = projection(&[]);
            build(&projection, rows).rejections.into_iter().map(|one| one.mark).collect()
        };
        let first = marks(&[["x", "1", "a", "1"], ["x", "1", "b", "1"]]);
        assert_eq!(marks(&[["0", "1", "z", "1"], ["x", "1", "b", "1"]]), first[1..]);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn of_several_versions_in_a_batch_the_newest_is_written_whatever_their_order() {
        let rows = [
            ["5", "1", "k", "1"],
            ["7", "2", "k", "1"],
            ["6", "3", "k", "1"],
            ["7", "4", "k", "1"],
            ["1", "5", "other", "1"],
        ];
        let batch = build(&projection(&["s"]), &rows);
        assert_eq!(batch.numbers[..4], [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(batch.superseded, [0, 1]);
    }

    #[test]
    fn ids_of_rows_without_key_depend_on_all_values_and_sort_by_time() {
        let keyless = projection(&[]);
        let ids = |rows: &[[&str; 4]]| text(&build(&keyless, rows))[0].as_array().unwrap().clone();
        let original =
            ids(&[["5", "1", "a", "1"], ["5", "1", "a", "1.0"], ["5", "1", "a", "2"], ["6", "1", "a", "1"]]);
        assert_eq!(original[0], original[1]);
        assert_ne!(original[0], original[2]);
        assert!(original[3].as_str() > original[0].as_str());
    }

    #[test]
    fn swapped_values_of_two_columns_are_another_row() {
        let keyless = projection(&[]);
        let batch = build(
            &keyless,
            &[["5", "1", "null", "null"], ["5", "null", "1", "null"], ["5", "null", "null", "1"]],
        );
        let ids = text(&batch)[0].clone();
        let distinct: std::collections::HashSet<_> =
            ids.as_array().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), 3);
    }

    #[test]
    fn chosen_forms_travel_in_buffers_of_their_own_and_do_not_change_ids() {
        let rows = [["1001", "0", "7", "2"], ["-1", "5", "null", "null"], ["2", "6", "seven", "1"]];
        let overrides = json!({"key": [], "schemaOverrides": {
            "ts": {"type": "Date"}, "n": {"type": "BigInt"}, "s": {"type": "Int"}, "f": {"type": "String"}
        }});
        let projection = projection_with(overrides);
        let carriers: Vec<Carrier> =
            Layout::of(&projection).columns.iter().map(|column| column.carrier).collect();
        assert_eq!(carriers, [Carrier::Date, Carrier::BigInt, Carrier::Number, Carrier::Text]);
        let batch = build(&projection, &rows);
        assert_eq!(batch.numbers, [1.0, -1.0, 7.0, 0.0]);
        assert_eq!(batch.nulls, [2, 1]);
        let by_default = build(&projection_with(json!({"key": []})), &rows);
        assert_eq!(
            text(&batch),
            json!([[text(&by_default)[0][0], text(&by_default)[0][1]], [0, "5"], ["2", null]])
        );
        assert_eq!(batch.rejections.len(), 1);
        assert_eq!(batch.rejections[0].row_id.as_deref(), text(&by_default)[0][2].as_str());
    }

    #[test]
    fn integer_ids_are_safe_integers_that_depend_on_the_whole_row_or_on_the_key_alone() {
        let ids = |bigquery: serde_json::Value, rows: &[[&str; 4]]| {
            let ids = text(&build(&projection_with(bigquery), rows))[0].clone();
            ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect::<Vec<_>>()
        };
        let rows = [["5", "1", "a", "1"], ["5", "1", "b", "1"], ["6", "1", "a", "1"]];
        let of_rows = ids(json!({"key": [], "idType": "integer"}), &rows);
        assert!(of_rows[0] != of_rows[1] && of_rows[0] != of_rows[2] && of_rows[1] != of_rows[2]);
        let of_keys = ids(json!({"key": ["s"], "idType": "integer"}), &rows);
        assert!(of_keys[0] != of_keys[1] && of_keys[0] == of_keys[2]);
        assert!(of_rows.iter().chain(&of_keys).all(|id| (1..1 << 53).contains(id)));
    }
}
