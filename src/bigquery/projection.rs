//! Which columns of a source table are read, and what role each one plays.

use super::schema::{Field, Type};
use super::table::Description;
use super::value::{NameTag, name_tag};
use crate::config::{Columns, CursorUnit, TableConfig, nearest};
use crate::error::{Failure, Kind};

/// The attribute that holds the row's id.
pub const ID: &str = "id";
/// The attribute that holds when the row was written.
pub const SYNCED_AT: &str = "_syncedAt";
/// Attributes that Harper may add by itself.
const HARPERS_OWN: [&str; 2] = ["__createdtime__", "__updatedtime__"];

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

/// The columns that are read, in the order of the result's cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// The columns.
    pub fields: Vec<Field>,
    /// Index of the cursor column.
    pub cursor: usize,
    /// The cursor column's type.
    pub cursor_type: CursorType,
    /// Indexes of the key columns; empty when rows are identified by content.
    pub key: Vec<usize>,
    /// Columns ordered by name, with the tags that name them in the canonical encoding.
    pub by_name: Vec<(usize, NameTag)>,
}

impl Projection {
    /// Finds the configured columns in the source table's schema.
    ///
    /// # Errors
    /// When a configured column is missing or unfit, or a column collides with one of the component's own.
    pub fn resolve(config: &TableConfig, description: &Description) -> Result<Projection, Failure> {
        let schema = &description.fields;
        let key = config.key.as_ref().unwrap_or(&description.primary_key);
        let must = std::iter::once(&config.cursor).chain(key);
        let fields: Vec<Field> = match &config.columns {
            Columns::All => schema.clone(),
            Columns::Named(names) => {
                for name in names {
                    find(schema, name, config)?;
                }
                let wanted =
                    |field: &&Field| names.iter().chain(must.clone()).any(|name| same(name, &field.name));
                schema.iter().filter(wanted).cloned().collect()
            }
        };
        for name in must {
            find(schema, name, config)?;
        }
        let cursor = find(&fields, &config.cursor, config)?;
        let key: Result<Vec<usize>, Failure> = key.iter().map(|name| find(&fields, name, config)).collect();
        let key = key?;
        let cursor_type = cursor_type(fields.get(cursor), config)?;
        refuse_reserved(&fields, &key)?;
        refuse_unfit_keys(&fields, &key)?;
        let mut by_name: Vec<(usize, NameTag)> =
            fields.iter().enumerate().map(|(index, field)| (index, name_tag(&field.name))).collect();
        by_name.sort_by_key(|(index, _)| fields.get(*index).map(|field| field.name.as_str()));
        Ok(Projection { fields, cursor, cursor_type, key, by_name })
    }

    /// Tells whether the source column `index` is itself the record's id.
    pub fn is_id(&self, index: usize) -> bool {
        self.fields.get(index).is_some_and(|field| field.name == ID)
    }

    /// Returns the names of the key columns.
    pub fn key_names(&self) -> Vec<String> {
        self.key.iter().filter_map(|index| self.fields.get(*index)).map(|field| field.name.clone()).collect()
    }

    /// Returns the name of the cursor column.
    pub fn cursor_name(&self) -> &str {
        self.fields.get(self.cursor).map_or("", |field| field.name.as_str())
    }
}

/// BigQuery's column names do not distinguish case.
fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn find(fields: &[Field], name: &str, config: &TableConfig) -> Result<usize, Failure> {
    fields.iter().position(|field| same(&field.name, name)).ok_or_else(|| {
        let table = &config.source.table;
        let hint = nearest(name, fields.iter().map(|field| field.name.as_str()))
            .map(|found| format!(" (did you mean {found}?)"));
        let message = format!("the table {table} has no column {name}{}", hint.unwrap_or_default());
        Failure::new(Kind::ColumnMissing, message)
    })
}

fn cursor_type(field: Option<&Field>, config: &TableConfig) -> Result<CursorType, Failure> {
    let name = &config.cursor;
    let found = match (field.map(|field| (&field.kind, field.repeated)), config.cursor_unit) {
        (Some((Type::Timestamp, false)), _) => return Ok(CursorType::Timestamp),
        (Some((Type::DateTime, false)), _) => return Ok(CursorType::DateTime),
        (Some((Type::Date, false)), _) => return Ok(CursorType::Date),
        (Some((Type::Int64, false)), Some(unit)) => return Ok(CursorType::Integer(unit)),
        (Some((Type::Int64, false)), None) => {
            let message = format!(
                "the column {name} is INT64: say with timestampUnit whether it counts seconds, milliseconds or \
                 microseconds since 1970"
            );
            return Err(Failure::new(Kind::CursorType, message));
        }
        (Some((kind, _)), _) => kind.name(),
        (None, _) => "absent",
    };
    let message = format!(
        "the column {name} is {found}; timestampColumn must name a column of type TIMESTAMP, DATETIME, DATE or INT64"
    );
    Err(Failure::new(Kind::CursorType, message))
}

fn refuse_reserved(fields: &[Field], key: &[usize]) -> Result<(), Failure> {
    for (index, field) in fields.iter().enumerate() {
        let is_whole_key = key == [index];
        let is_taken = field.name == SYNCED_AT || HARPERS_OWN.contains(&field.name.as_str());
        if is_taken || (field.name == ID && !is_whole_key) {
            let name = &field.name;
            let way_out = if name == ID { "make it the key (key: [id]), or " } else { "" };
            let message = format!(
                "the source column {name} has the name of an attribute that the component or Harper adds: {way_out}\
                 list the columns to read without it, or read a view that renames it"
            );
            return Err(Failure::new(Kind::ColumnReserved, message));
        }
    }
    Ok(())
}

fn refuse_unfit_keys(fields: &[Field], key: &[usize]) -> Result<(), Failure> {
    for field in key.iter().filter_map(|index| fields.get(*index)) {
        let fit = match field.kind {
            Type::Int64
            | Type::Numeric
            | Type::BigNumeric
            | Type::Bool
            | Type::String
            | Type::Bytes
            | Type::Timestamp
            | Type::Date
            | Type::Time
            | Type::DateTime => !field.repeated,
            Type::Float64
            | Type::Geography
            | Type::Interval
            | Type::Json
            | Type::Range(_)
            | Type::Record(_)
            | Type::Unknown(_) => false,
        };
        if !fit {
            let (name, kind) = (&field.name, field.kind.name());
            let message =
                format!("the column {name} is {kind}, which cannot identify rows: choose another key");
            return Err(Failure::new(Kind::Configuration, message));
        }
    }
    Ok(())
}
