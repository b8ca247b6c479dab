//! The columns of a source table, as `tables.get` and query results describe them.

use crate::error::{Failure, Kind as FailureKind};
use serde::{Deserialize, Serialize};

/// BigQuery nests records at most 15 deep; a little more is tolerated, anything else is refused.
const NESTING_MAX: usize = 20;

/// The type of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// 64-bit integer.
    Int64,
    /// Double.
    Float64,
    /// Decimal with 38 digits, 9 of them fractional.
    Numeric,
    /// Decimal with 76 digits, 38 of them fractional.
    BigNumeric,
    /// Boolean.
    Bool,
    /// Text.
    String,
    /// Bytes, base64 on the wire.
    Bytes,
    /// Instant, microseconds since the epoch on the wire.
    Timestamp,
    /// Civil date.
    Date,
    /// Time of day.
    Time,
    /// Civil date and time.
    DateTime,
    /// Geography; selected as GeoJSON.
    Geography,
    /// Interval, in BigQuery's own notation on the wire.
    Interval,
    /// JSON document, as text on the wire.
    Json,
    /// Half-open range of dates, datetimes or timestamps.
    Range(Box<Type>),
    /// Record of named fields.
    Record(Vec<Field>),
    /// A type this version does not know; carried as text.
    Unknown(String),
}

/// A column, or a field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name as BigQuery spells it.
    pub name: String,
    /// The type of a value (of each element when repeated).
    pub kind: Type,
    /// Whether the field holds an array.
    pub repeated: bool,
    /// Whether the field always has a value.
    pub required: bool,
}

/// A field as the API spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireField {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fields: Vec<WireField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_element_type: Option<WireRangeElement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireRangeElement {
    #[serde(rename = "type")]
    kind: String,
}

impl WireField {
    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Field {
    /// Converts the API's list of fields.
    ///
    /// # Errors
    /// When records are nested deeper than BigQuery allows.
    pub fn from_wire(fields: &[WireField]) -> Result<Vec<Field>, Failure> {
        fields.iter().map(|field| convert(field, 0)).collect()
    }

    /// Converts back to the API's form, in one spelling for each type.
    pub fn to_wire(&self) -> WireField {
        let fields = match &self.kind {
            Type::Record(fields) => fields.iter().map(Field::to_wire).collect(),
            _ => Vec::new(),
        };
        let range_element_type = match &self.kind {
            Type::Range(element) => Some(WireRangeElement { kind: element.name().to_owned() }),
            _ => None,
        };
        WireField {
            name: self.name.clone(),
            kind: self.kind.name().to_owned(),
            mode: self.repeated.then(|| "REPEATED".to_owned()),
            fields,
            range_element_type,
        }
    }

    /// Tells whether each value is a single one of a simple type.
    pub fn is_simple(&self) -> bool {
        !self.repeated && self.kind.is_simple()
    }

    /// Returns the type in BigQuery's SQL, like `ARRAY<STRUCT<a INT64>>`.
    pub fn type_text(&self) -> String {
        let one = match &self.kind {
            Type::Record(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|field| format!("{} {}", field.name, field.type_text())).collect();
                format!("STRUCT<{}>", fields.join(", "))
            }
            Type::Range(element) => format!("RANGE<{}>", element.name()),
            kind => kind.name().to_owned(),
        };
        if self.repeated { format!("ARRAY<{one}>") } else { one }
    }
}

fn convert(field: &WireField, depth: usize) -> Result<Field, Failure> {
    if depth > NESTING_MAX {
        let message = format!("column {} nests records deeper than {NESTING_MAX} levels", field.name);
        return Err(Failure::new(FailureKind::ResponseMalformed, message));
    }
    let kind = match field.kind.to_ascii_uppercase().as_str() {
        "RECORD" | "STRUCT" => {
            let fields: Result<Vec<Field>, Failure> =
                field.fields.iter().map(|inner| convert(inner, depth + 1)).collect();
            Type::Record(fields?)
        }
        "RANGE" => {
            let element = field.range_element_type.as_ref().map_or("DATE", |element| element.kind.as_str());
            Type::Range(Box::new(scalar(&element.to_ascii_uppercase())))
        }
        name => scalar(name),
    };
    let has_mode = |wanted: &str| field.mode.as_deref().is_some_and(|mode| mode.eq_ignore_ascii_case(wanted));
    Ok(Field {
        name: field.name.clone(),
        kind,
        repeated: has_mode("REPEATED"),
        required: has_mode("REQUIRED"),
    })
}

fn scalar(name: &str) -> Type {
    match name {
        "INTEGER" | "INT64" => Type::Int64,
        "FLOAT" | "FLOAT64" => Type::Float64,
        "NUMERIC" | "DECIMAL" => Type::Numeric,
        "BIGNUMERIC" | "BIGDECIMAL" => Type::BigNumeric,
        "BOOLEAN" | "BOOL" => Type::Bool,
        "STRING" => Type::String,
        "BYTES" => Type::Bytes,
        "TIMESTAMP" => Type::Timestamp,
        "DATE" => Type::Date,
        "TIME" => Type::Time,
        "DATETIME" => Type::DateTime,
        "GEOGRAPHY" => Type::Geography,
        "INTERVAL" => Type::Interval,
        "JSON" => Type::Json,
        other => Type::Unknown(other.to_owned()),
    }
}

impl Type {
    /// Tells whether values are neither composed, nor written in a notation of their own.
    pub fn is_simple(&self) -> bool {
        match self {
            Type::Int64
            | Type::Float64
            | Type::Numeric
            | Type::BigNumeric
            | Type::Bool
            | Type::String
            | Type::Bytes
            | Type::Timestamp
            | Type::Date
            | Type::Time
            | Type::DateTime => true,
            Type::Geography
            | Type::Interval
            | Type::Json
            | Type::Range(_)
            | Type::Record(_)
            | Type::Unknown(_) => false,
        }
    }

    /// Returns the type's name in BigQuery's SQL.
    pub fn name(&self) -> &str {
        match self {
            Type::Int64 => "INT64",
            Type::Float64 => "FLOAT64",
            Type::Numeric => "NUMERIC",
            Type::BigNumeric => "BIGNUMERIC",
            Type::Bool => "BOOL",
            Type::String => "STRING",
            Type::Bytes => "BYTES",
            Type::Timestamp => "TIMESTAMP",
            Type::Date => "DATE",
            Type::Time => "TIME",
            Type::DateTime => "DATETIME",
            Type::Geography => "GEOGRAPHY",
            Type::Interval => "INTERVAL",
            Type::Json => "JSON",
            Type::Range(_) => "RANGE",
            Type::Record(_) => "STRUCT",
            Type::Unknown(name) => name,
        }
    }
}
