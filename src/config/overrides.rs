//! `schemaOverrides`: the types and indexes that the user chooses for single columns.

use super::reader::Section;
use serde::Serialize;

/// The types that an attribute in Harper can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum HarperType {
    /// Integers of 32 bits.
    Int,
    /// Integers that are exact in a double.
    Long,
    /// Doubles: exactly the integer or the double; for a decimal, the nearest double.
    Float,
    /// Integers of any size; zero is a number, because Harper 4.7 loses a bigint that is zero.
    BigInt,
    /// Text.
    String,
    /// Truth values.
    Boolean,
    /// Instants, cut to milliseconds.
    Date,
    /// Bytes.
    Bytes,
    /// The component's default.
    Any,
}

impl HarperType {
    /// Every type, in the order of the documentation.
    pub const ALL: [HarperType; 9] = [
        HarperType::Int,
        HarperType::Long,
        HarperType::Float,
        HarperType::BigInt,
        HarperType::String,
        HarperType::Boolean,
        HarperType::Date,
        HarperType::Bytes,
        HarperType::Any,
    ];

    /// Returns the type's name in Harper's schemas.
    pub fn name(self) -> &'static str {
        match self {
            HarperType::Int => "Int",
            HarperType::Long => "Long",
            HarperType::Float => "Float",
            HarperType::BigInt => "BigInt",
            HarperType::String => "String",
            HarperType::Boolean => "Boolean",
            HarperType::Date => "Date",
            HarperType::Bytes => "Bytes",
            HarperType::Any => "Any",
        }
    }
}

/// The configured properties of a column's attribute in Harper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaOverride {
    /// The column; case does not matter, as in BigQuery.
    pub column: String,
    /// The type to store its values as; the component's own choice when absent.
    pub harper_type: Option<HarperType>,
    /// Whether the attribute gets an index; the component's own choice when absent.
    pub indexed: Option<bool>,
}

impl SchemaOverride {
    /// Reads `schemaOverrides` of a table, in the order of the columns' names.
    pub fn read_all(table: &Section<'_>) -> Vec<SchemaOverride> {
        let Some(section) = table.section("schemaOverrides") else { return Vec::new() };
        let mut found: Vec<SchemaOverride> = Vec::new();
        for column in section.keys() {
            let twin = found.iter().find(|other| other.column.eq_ignore_ascii_case(column));
            if let Some(SchemaOverride { column: twin, .. }) = twin {
                section.problem(
                    column,
                    format!("is the same column as {twin}: BigQuery does not distinguish case"),
                );
            }
            found.extend(SchemaOverride::read(&section, column));
        }
        found
    }

    fn read(overrides: &Section<'_>, column: &str) -> Option<SchemaOverride> {
        let nothing = || overrides.problem(column, "is empty: give it a type, indexed, or both".to_owned());
        if !overrides.has(column) {
            nothing();
            return None;
        }
        let entry = overrides.section(column)?;
        entry.refuse_unknown(&["type", "indexed"]);
        if !entry.has("type") && !entry.has("indexed") {
            nothing();
        }
        let types = HarperType::ALL.map(|harper_type| (harper_type.name(), harper_type));
        let harper_type = entry.choice("type", &types);
        Some(SchemaOverride { column: column.to_owned(), harper_type, indexed: entry.flag("indexed") })
    }
}
