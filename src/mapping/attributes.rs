//! The attributes of a target table: their types, and which of them get an index.

use super::form::own_type;
use super::layout::Layout;
use super::projection::{Projection, SYNCED_AT};
use crate::bigquery::schema::{Field, Type};
use crate::bigquery::table::Description;
use crate::config::{HarperType, SchemaOverride};
use serde::Serialize;

/// The most indexes that the component chooses by itself, because each one costs about as much as writing the rows.
const CHOSEN_INDEXES_MAX: usize = 8;

/// Words in the name of a column that holds a time.
const WORDS_OF_TIME: [&str; 4] = ["time", "date", "datetime", "timestamp"];

/// An attribute of a target table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attribute {
    /// The name.
    pub name: String,
    /// The type that all values of the column fit, as they are stored.
    #[serde(rename = "type")]
    pub harper_type: HarperType,
    /// Whether it has an index.
    pub indexed: bool,
    /// The types that a user's own schema may declare for it. Other types would refuse values.
    pub accepts: &'static [HarperType],
}

/// The target table that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// How its rows travel.
    #[serde(flatten)]
    pub layout: Layout,
    /// The attributes besides `id`.
    pub attributes: Vec<Attribute>,
    /// Whether the component may create it, and add to it.
    pub may_create: bool,
    /// Whether it gets no indexes yet. Those that it has stay.
    pub do_indexes_wait: bool,
}

/// Returns the attributes besides `id`: the columns in their order, and the time of the write.
pub fn attributes(
    projection: &Projection,
    description: &Description,
    overrides: &[SchemaOverride],
) -> Vec<Attribute> {
    let chosen = chosen_indexes(projection, description);
    let mut attributes = Vec::with_capacity(projection.fields.len() + 1);
    for (index, field) in projection.fields.iter().enumerate() {
        if projection.is_id(index) {
            continue;
        }
        let form = projection.form(index);
        let wanted = overrides.iter().find(|wanted| wanted.column.eq_ignore_ascii_case(&field.name));
        let indexed = wanted.and_then(|wanted| wanted.indexed);
        attributes.push(Attribute {
            name: projection.attribute(index).to_owned(),
            harper_type: declared_type(field, form),
            indexed: indexed.unwrap_or_else(|| chosen.contains(&index)),
            accepts: if projection.newer_by() == Some(index) {
                accepted_types_in_order(field, form)
            } else {
                accepted_types(field, form)
            },
        });
    }
    let (harper_type, accepts) = (HarperType::String, &[HarperType::String, HarperType::Any][..]);
    attributes.push(Attribute { name: SYNCED_AT.to_owned(), harper_type, indexed: false, accepts });
    attributes
}

/// Returns the type that all values of a column fit, in the form in which they are stored.
pub fn declared_type(field: &Field, form: HarperType) -> HarperType {
    match form {
        HarperType::Any => own_type(field),
        // Harper 4.7 loses a zero in an attribute that is declared BigInt.
        HarperType::BigInt => HarperType::Any,
        form => form,
    }
}

/// Returns the types that accept the values of a column, or at least those within the type's range.
fn accepted_types(field: &Field, form: HarperType) -> &'static [HarperType] {
    use HarperType::{Any, BigInt, Boolean, Bytes, Date, Float, Int, Long, String};
    match form {
        Int | Long | Float => return &[Int, Long, Float, BigInt, Any],
        BigInt => return &[BigInt, Any],
        String => return &[String, Any],
        Boolean => return &[Boolean, Any],
        Date => return &[Date, Any],
        Bytes => return &[Bytes, Any],
        Any => {}
    }
    if field.repeated {
        return &[Any];
    }
    match field.kind {
        Type::Int64 => &[Int, Long, Float, BigInt, Any],
        Type::Float64 | Type::Numeric | Type::BigNumeric => &[Int, Long, Float, Any],
        Type::Bool => &[Boolean, Any],
        Type::Timestamp | Type::Date | Type::DateTime => &[String, Date, Any],
        Type::Bytes => &[String, Bytes, Any],
        Type::String | Type::Time | Type::Geography | Type::Interval | Type::Unknown(_) => &[String, Any],
        Type::Json => &HarperType::ALL,
        Type::Range(_) | Type::Record(_) => &[Any],
    }
}

/// Returns those of the types that keep the order and the precision of a cursor. This matters if newer rows replace
/// older ones.
fn accepted_types_in_order(field: &Field, form: HarperType) -> &'static [HarperType] {
    match (&field.kind, form) {
        (Type::Timestamp | Type::DateTime, HarperType::Any) => &[HarperType::String, HarperType::Any],
        _ => accepted_types(field, form),
    }
}

/// Returns the columns that are worth an index, the most useful ones if there are many.
fn chosen_indexes(projection: &Projection, description: &Description) -> Vec<usize> {
    let mut ranked: Vec<(Reason, usize)> = projection
        .fields
        .iter()
        .enumerate()
        .filter(|(index, field)| !projection.is_id(*index) && is_indexable(field))
        .filter_map(|(index, field)| {
            let reason = if index == projection.cursor {
                Some(Reason::Cursor)
            } else if description.is_laid_out_by(&field.name) {
                Some(Reason::Layout)
            } else {
                reason_of_name(field)
            };
            reason.map(|reason| (reason, index))
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(CHOSEN_INDEXES_MAX).map(|(_, index)| index).collect()
}

/// Why a column is worth an index, the best reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Cursor,
    Layout,
    Id,
    CreatedOrUpdated,
    Time,
}

/// Whether values are simple and of moderate length.
fn is_indexable(field: &Field) -> bool {
    field.is_simple() && field.kind != Type::Bytes
}

fn reason_of_name(field: &Field) -> Option<Reason> {
    let words = words(&field.name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let identifies = matches!(field.kind, Type::Int64 | Type::String | Type::Numeric | Type::BigNumeric);
    let tells_time = matches!(
        field.kind,
        Type::Timestamp | Type::Date | Type::Time | Type::DateTime | Type::Int64 | Type::String
    );
    if identifies && words.last() == Some(&"id") {
        return Some(Reason::Id);
    }
    if tells_time && matches!(words.as_slice(), ["created" | "updated", "at"]) {
        return Some(Reason::CreatedOrUpdated);
    }
    (tells_time && words.iter().any(|word| WORDS_OF_TIME.contains(word))).then_some(Reason::Time)
}

/// Splits `vessel_id` and `vesselId` into their words, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut begins = true;
    let mut after_lower = false;
    for character in name.chars() {
        if !character.is_alphanumeric() {
            begins = true;
            continue;
        }
        begins |= after_lower && character.is_uppercase();
        after_lower = character.is_lowercase();
        let lower = character.to_lowercase();
        match words.last_mut().filter(|_| !begins) {
            Some(word) => word.extend(lower),
            None => words.push(lower.collect()),
        }
        begins = false;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};
    use serde_json::{Value, json};

    fn described(schema: Value, more: Value, bigquery: Value) -> Vec<Attribute> {
        let mut root = json!({"bigquery": {
            "projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts", "key": []
        }});
        for (key, value) in bigquery.as_object().unwrap() {
            root["bigquery"][key] = value.clone();
        }
        let config = Config::parse(&root, &Environment::default()).unwrap().tables.remove(0);
        let mut body = more;
        body["schema"] = json!({"fields": schema});
        let description = Description::read(body.to_string().as_bytes()).unwrap();
        let projection = Projection::resolve(&config, &description, None).unwrap();
        attributes(&projection, &description, &config.schema_overrides)
    }

    fn field(name: &str, kind: &str) -> Value {
        json!({"name": name, "type": kind})
    }

    fn indexed(attributes: &[Attribute]) -> Vec<&str> {
        attributes.iter().filter(|one| one.indexed).map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn a_type_is_declared_only_where_every_value_fits_it() {
        let kinds = [
            ("INT64", HarperType::Any),
            ("FLOAT64", HarperType::Float),
            ("NUMERIC", HarperType::Any),
            ("BIGNUMERIC", HarperType::Any),
            ("BOOL", HarperType::Boolean),
            ("STRING", HarperType::String),
            ("BYTES", HarperType::String),
            ("TIMESTAMP", HarperType::String),
            ("DATE", HarperType::String),
            ("TIME", HarperType::String),
            ("DATETIME", HarperType::String),
            ("GEOGRAPHY", HarperType::String),
            ("INTERVAL", HarperType::String),
            ("JSON", HarperType::Any),
            ("RANGE", HarperType::Any),
            ("RECORD", HarperType::Any),
        ];
        let schema: Vec<Value> = std::iter::once(field("ts", "TIMESTAMP"))
            .chain(kinds.iter().map(|(kind, _)| field(&format!("a_{kind}"), kind)))
            .chain([json!({"name": "many", "type": "STRING", "mode": "REPEATED"})])
            .collect();
        let found = described(json!(schema), json!({}), json!({}));
        let types: Vec<HarperType> = found.iter().skip(1).map(|one| one.harper_type).collect();
        let mut expected: Vec<HarperType> = kinds.iter().map(|(_, declared)| *declared).collect();
        expected.extend([HarperType::Any, HarperType::String]);
        assert_eq!(types, expected);
        assert_eq!(found.last().map(|one| one.name.as_str()), Some(SYNCED_AT));
        for attribute in &found {
            assert!(attribute.accepts.contains(&attribute.harper_type), "{}", attribute.name);
        }
    }

    #[test]
    fn overrides_win_in_type_and_index() {
        let schema = json!([field("ts", "TIMESTAMP"), field("n", "INT64"), field("big_id", "INT64")]);
        let overrides = json!({
            "TS": {"indexed": false, "type": "Date"}, "n": {"type": "Long", "indexed": true}, "big_id": {"type": "BigInt"}
        });
        let found = described(schema, json!({}), json!({"schemaOverrides": overrides}));
        let types: Vec<HarperType> = found.iter().map(|one| one.harper_type).collect();
        assert_eq!(types, [HarperType::Date, HarperType::Long, HarperType::Any, HarperType::String]);
        assert_eq!(indexed(&found), ["n", "big_id"]);
    }

    #[test]
    fn what_queries_look_for_is_indexed_and_nothing_long_or_composed() {
        let schema = json!([
            field("ts", "TIMESTAMP"),
            field("vessel_id", "STRING"),
            field("portId", "INT64"),
            field("paid", "INT64"),
            field("created_at", "TIMESTAMP"),
            field("arrival_date", "DATE"),
            field("candidate", "STRING"),
            field("sentiment", "STRING"),
            field("time_document", "JSON"),
            field("date_bytes", "BYTES"),
            json!({"name": "list_id", "type": "STRING", "mode": "REPEATED"}),
            field("region", "STRING"),
            field("code", "INT64"),
            field("remarks", "STRING"),
            field("area", "GEOGRAPHY"),
        ]);
        let more = json!({
            "clustering": {"fields": ["Region", "area"]},
            "rangePartitioning": {"field": "code"},
        });
        let found = described(schema, more, json!({}));
        let expected = ["ts", "vessel_id", "portId", "created_at", "arrival_date", "region", "code"];
        assert_eq!(indexed(&found), expected);
    }

    #[test]
    fn the_cursor_and_the_sources_own_order_go_first_where_there_are_many() {
        let mut schema: Vec<Value> = (0..20).map(|n| field(&format!("f{n}_id"), "INT64")).collect();
        schema.extend([field("ts", "TIMESTAMP"), field("region", "STRING"), field("day", "DATE")]);
        let more = json!({
            "clustering": {"fields": ["region"]},
            "timePartitioning": {"type": "DAY", "field": "day"},
        });
        let overrides = json!({"f19_id": {"indexed": true}});
        let found = described(json!(schema), more, json!({"schemaOverrides": overrides}));
        let names = ["f0_id", "f1_id", "f2_id", "f3_id", "f4_id", "f19_id", "ts", "region", "day"];
        assert_eq!(indexed(&found), names);
    }

    #[test]
    fn the_column_that_is_the_id_is_no_attribute_besides_it() {
        let schema = json!([field("id", "STRING"), field("ts", "TIMESTAMP")]);
        let found = described(schema, json!({}), json!({"key": ["id"]}));
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["ts", SYNCED_AT]);
    }
}
