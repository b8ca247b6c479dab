//! The layout of a batch: the buffer of each attribute.

use super::projection::Projection;
use crate::bigquery::schema::{Field, Type};
use crate::config::{HarperType, IdType};
use serde::Serialize;

/// How a column's values travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// As doubles in the numbers' buffer.
    Number,
    /// As milliseconds since 1970 in the numbers' buffer.
    Date,
    /// As JSON in the text.
    Text,
    /// As digits in JSON strings in the text; numbers and nulls there stay as they are.
    BigInt,
    /// As base64 in JSON strings in the text.
    Bytes,
}

impl Carrier {
    /// Decides how values of a form travel; `Any` is the component's own form.
    fn of(field: &Field, form: HarperType) -> Carrier {
        match form {
            HarperType::Int | HarperType::Long | HarperType::Float => Carrier::Number,
            HarperType::Date => Carrier::Date,
            HarperType::String | HarperType::Boolean => Carrier::Text,
            HarperType::BigInt => Carrier::BigInt,
            HarperType::Bytes => Carrier::Bytes,
            HarperType::Any if field.repeated => Carrier::Text,
            HarperType::Any if matches!(field.kind, Type::Int64 | Type::Float64) => Carrier::Number,
            HarperType::Any => Carrier::Text,
        }
    }

    /// Whether such values are in the numbers' buffer.
    pub fn is_in_numbers(self) -> bool {
        match self {
            Carrier::Number | Carrier::Date => true,
            Carrier::Text | Carrier::BigInt | Carrier::Bytes => false,
        }
    }
}

/// A column of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnLayout {
    /// The attribute's name in Harper.
    pub name: String,
    /// How its values travel.
    pub carrier: Carrier,
    /// The era since which its values have their present form.
    pub since: u32,
}

/// Describes how to read a batch's buffers. All batches of a projection have the same layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// The type of ids.
    pub id_type: IdType,
    /// The attributes besides `id`, in the order of their buffers.
    pub columns: Vec<ColumnLayout>,
    /// The attribute that tells which of two versions of a row is newer; absent if rows have no key.
    pub newer_by: Option<String>,
    /// Attributes of dropped columns. New rows have no values for them; records keep the ones that they have.
    pub retired: Vec<String>,
    /// The era of the ids of rows without a key.
    pub era: u32,
}

impl Layout {
    /// Decides how the columns of a projection travel.
    pub fn of(projection: &Projection) -> Layout {
        let mut columns = Vec::with_capacity(projection.fields.len());
        for (index, field) in projection.fields.iter().enumerate() {
            if projection.is_id(index) {
                continue;
            }
            let carrier = Carrier::of(field, projection.form(index));
            let (name, since) = (projection.attribute(index).to_owned(), projection.since(index));
            columns.push(ColumnLayout { name, carrier, since });
        }
        let newer_by = projection.newer_by().map(|index| projection.attribute(index).to_owned());
        let (retired, era) = (projection.retired.clone(), projection.era);
        Layout { id_type: projection.id_type, columns, newer_by, retired, era }
    }
}
