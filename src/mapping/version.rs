//! The versions of a table's schema: all columns that were ever read, and the attributes that hold their values.

use super::diff::{Difference, compare, same_name};
use crate::bigquery::schema::{Field, WireField};
use crate::time::{Micros, instant};
use serde::{Deserialize, Serialize};

/// A version of a table's schema, as it is stored in the table SchemaVersion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaVersion {
    /// `tableId:version`.
    pub id: String,
    /// The table's id in the configuration.
    pub table_id: String,
    /// Counted from 1.
    pub version: u32,
    /// Equal for equal columns, in any order.
    pub fingerprint: String,
    /// Increases when rows without a key get other ids, because columns are gone.
    pub era: u32,
    /// When it was stored, by that worker's clock.
    #[serde(with = "instant", default)]
    pub at: Option<Micros>,
    /// The worker that stored it.
    pub by: String,
    /// All columns that were ever read.
    pub columns: Vec<Column>,
    /// The changes since the previous version.
    pub changes: Vec<Change>,
}

/// A column of the source with one type, and the attribute that holds its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// The attribute in Harper.
    pub attribute: String,
    /// The column as it was last seen.
    pub source: WireField,
    /// The era since which its values have their present form.
    pub since: u32,
    /// Whether the source no longer has it, or has it with another type.
    pub retired: bool,
}

/// A difference between two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A column is new, or there again.
    Added {
        /// The column.
        column: String,
        /// Its type.
        #[serde(rename = "type")]
        type_text: String,
        /// Where its values go.
        attribute: String,
    },
    /// A record has a new field.
    FieldAdded {
        /// The path of the field.
        column: String,
    },
    /// A column is gone.
    Removed {
        /// The column.
        column: String,
        /// Where its old values stay.
        attribute: String,
    },
    /// A record has lost a field.
    FieldRemoved {
        /// The path of the field.
        column: String,
    },
    /// A column has another type.
    TypeChanged {
        /// The column.
        column: String,
        /// The type that it had.
        from: String,
        /// The type that it has.
        to: String,
        /// Where the old values stay.
        before: String,
        /// Where the values go from now on.
        attribute: String,
    },
}

impl Change {
    /// Says what happened, and what becomes of the values.
    pub fn sentence(&self) -> String {
        match self {
            Change::Added { column, type_text, attribute } => {
                format!("the source has the new column {column} ({type_text}); it is stored as {attribute}")
            }
            Change::FieldAdded { column } => {
                format!("the source has the new field {column}, which is stored too")
            }
            Change::Removed { column, attribute } => format!(
                "the column {column} is gone from the source, or is no longer read; the attribute {attribute} keeps its values"
            ),
            Change::FieldRemoved { column } => format!(
                "the field {column} is gone from the source; rows that are in Harper keep it until they change"
            ),
            Change::TypeChanged { column, from, to, before, attribute } => format!(
                "the column {column} has changed from {from} to {to}; its values go to the attribute {attribute}, and \
                 {before} keeps the old ones"
            ),
        }
    }

    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        match self {
            Change::Added { .. } | Change::FieldAdded { .. } => false,
            Change::Removed { .. } | Change::FieldRemoved { .. } | Change::TypeChanged { .. } => true,
        }
    }
}

impl SchemaVersion {
    /// Finds the present column with a name.
    pub fn current(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| !column.retired && same_name(column.name(), name))
    }

    /// Tells whether a column of that name was ever read.
    pub fn knows(&self, name: &str) -> bool {
        self.columns.iter().any(|column| same_name(column.name(), name))
    }

    /// Returns the attributes that hold only values of dropped or changed columns.
    pub fn retired(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.retired)
    }

    /// Says which attributes hold only values of dropped or changed columns, and why.
    pub fn warnings(&self) -> Vec<String> {
        self.retired()
            .map(|retired| {
                let (name, attribute) = (retired.name(), &retired.attribute);
                match self.current(name) {
                    Some(current) => format!(
                        "the column {name} is {} now: its values go to {}, and {attribute} keeps the old ones",
                        current.type_text(),
                        current.attribute
                    ),
                    None => {
                        format!("the column {name} is no longer read: the attribute {attribute} keeps its values")
                    }
                }
            })
            .collect()
    }
}

impl Column {
    /// Returns the column's name in the source.
    pub fn name(&self) -> &str {
        self.source.name()
    }

    /// Returns the column's type in BigQuery's SQL.
    pub fn type_text(&self) -> String {
        self.field().map(|field| field.type_text()).unwrap_or_default()
    }

    fn field(&self) -> Option<Field> {
        Field::from_wire(std::slice::from_ref(&self.source)).ok()?.pop()
    }

    /// Compares the column as it was last seen with the present one.
    pub fn difference(&self, field: &Field) -> Difference {
        let retyped = Difference { retyped: true, ..Difference::default() };
        self.field().map_or(retyped, |before| compare(&before, field))
    }
}
