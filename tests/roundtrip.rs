//! Values of any type go to Harper and can be had back from there, so that nothing of them is lost.

use bigquery_sync::bigquery::json::Scanner;
use bigquery_sync::bigquery::page::{Cell, read_values};
use bigquery_sync::bigquery::schema::{Field, Type};
use bigquery_sync::bigquery::value::{Patches, Special, Step, Value};
use bigquery_sync::time::Micros;
use proptest::prelude::*;
use serde_json::{Map, Number, json};

type Json = serde_json::Value;

/// What stands in a test's JSON for a value that JSON has no notation for.
const SPECIAL: &str = "\u{0}special";

fn field(name: &str, kind: Type, repeated: bool) -> Field {
    Field { name: name.to_owned(), kind, repeated, required: false }
}

fn scalar_types() -> Vec<Type> {
    vec![
        Type::Int64,
        Type::Float64,
        Type::Numeric,
        Type::BigNumeric,
        Type::Bool,
        Type::String,
        Type::Bytes,
        Type::Timestamp,
        Type::Date,
        Type::Time,
        Type::DateTime,
        Type::Geography,
        Type::Interval,
        Type::Json,
        Type::Range(Box::new(Type::Date)),
        Type::Range(Box::new(Type::DateTime)),
        Type::Range(Box::new(Type::Timestamp)),
        Type::Unknown("SKETCH".to_owned()),
    ]
}

/// Any column: of a scalar type, or a record of columns; repeated or not.
fn any_field() -> impl Strategy<Value = Field> {
    let scalar = (prop::sample::select(scalar_types()), any::<bool>())
        .prop_map(|(kind, repeated)| field("c", kind, repeated));
    scalar.prop_recursive(3, 12, 4, |inner| {
        (prop::collection::vec(inner, 1..4), any::<bool>()).prop_map(|(fields, repeated)| {
            let fields = fields
                .into_iter()
                .enumerate()
                .map(|(index, inner)| Field { name: format!("f{index}"), ..inner })
                .collect();
            field("c", Type::Record(fields), repeated)
        })
    })
}

/// Any cell of a column, as the API sends it.
fn any_cell(column: &Field) -> BoxedStrategy<Json> {
    if column.repeated {
        let element = Field { repeated: false, ..column.clone() };
        let elements = prop::collection::vec(present_cell(&element), 0..4);
        return elements.prop_map(|cells| cells.into_iter().map(|cell| json!({"v": cell})).collect()).boxed();
    }
    prop_oneof![1 => Just(Json::Null), 6 => present_cell(column)].boxed()
}

fn present_cell(column: &Field) -> BoxedStrategy<Json> {
    if let Type::Record(fields) = &column.kind {
        let cells: Vec<BoxedStrategy<Json>> = fields.iter().map(any_cell).collect();
        let wrap = |cells: Vec<Json>| cells.into_iter().map(|cell| json!({"v": cell})).collect::<Vec<_>>();
        return cells.prop_map(move |cells| json!({"f": wrap(cells)})).boxed();
    }
    any_text(&column.kind).prop_map(Json::String).boxed()
}

/// Any text that the API may send for a value of a scalar type.
fn any_text(kind: &Type) -> BoxedStrategy<String> {
    let instant = || (Micros::MIN.0..=Micros::MAX.0).prop_map(Micros);
    let civil = || instant().prop_map(|at| at.to_string().trim_end_matches('Z').to_owned());
    match kind {
        Type::Int64 => prop_oneof![
            any::<i64>(),
            -10_i64..10,
            Just(i64::MIN),
            (1_i64 << 53) - 3..(1 << 53) + 3,
            -(1_i64 << 53) - 3..3 - (1 << 53),
        ]
        .prop_map(|integer| integer.to_string())
        .boxed(),
        Type::Float64 => prop_oneof![
            8 => any::<f64>().prop_map(|double| format!("{double:?}")),
            1 => prop::sample::select(vec!["NaN", "Infinity", "-Infinity", "-0.0", "0"]).prop_map(str::to_owned),
        ]
        .boxed(),
        Type::Numeric => "-?(0|[1-9][0-9]{0,28})(\\.[0-9]{1,9})?".boxed(),
        Type::BigNumeric => "-?(0|[1-9][0-9]{0,37})(\\.[0-9]{1,38})?".boxed(),
        Type::Bool => any::<bool>().prop_map(|truth| truth.to_string()).boxed(),
        Type::Bytes => "([A-Za-z0-9+/]{4}){0,5}([A-Za-z0-9+/]{2}==)?".boxed(),
        Type::Timestamp => instant().prop_map(|at| at.0.to_string()).boxed(),
        Type::Date => civil().prop_map(|text| text[..10].to_owned()).boxed(),
        Type::Time => civil().prop_map(|text| text[11..].trim_end_matches(".000000").to_owned()).boxed(),
        Type::DateTime => civil().prop_map(|text| text.trim_end_matches('0').trim_end_matches('.').to_owned())
            .prop_filter("a cut time", |text| text.len() >= 19)
            .boxed(),
        Type::Interval => any_interval(),
        Type::Json => any_document(),
        Type::Range(element) => {
            let side = || prop_oneof![1 => Just("UNBOUNDED".to_owned()), 3 => any_text(element)];
            (side(), side()).prop_map(|(start, end)| format!("[{start}, {end})")).boxed()
        }
        Type::String | Type::Geography | Type::Unknown(_) => "(?s).*".boxed(),
        Type::Record(_) => Just(String::new()).boxed(),
    }
}

fn any_interval() -> BoxedStrategy<String> {
    let sign = || prop::sample::select(vec!["", "-"]);
    let months = (sign(), 0..10_000, 0..12);
    let clock = (sign(), 0..87_840_000_i64, 0..60, 0..60, 0..1_000_000);
    (months, -3_660_000..3_660_000, clock)
        .prop_map(|((sign, years, months), days, (time_sign, hours, minutes, seconds, fraction))| {
            format!("{sign}{years}-{months} {days} {time_sign}{hours}:{minutes}:{seconds}.{fraction:06}")
        })
        .boxed()
}

fn any_document() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (-1e6_f64..1e6).prop_map(|double| json!(double)),
        "(?s).{0,8}".prop_map(Json::from),
    ];
    let document = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("(?s).{0,3}", inner, 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    });
    // The JSON value null becomes the same null as NULL.
    let present = document.prop_filter("a null", |document| !document.is_null());
    present.prop_map(|document| document.to_string()).boxed()
}

#[cfg(test)]
mod ways {
    use super::*;

    /// Reads the one cell of `[{"v": …}]`.
    fn parse<'a>(text: &'a str, column: &'a Field) -> Value<'a> {
        let mut cells: Vec<Cell<'a>> = Vec::new();
        read_values(&mut Scanner::new(text.as_bytes(), 0), &mut cells).unwrap();
        Value::parse(cells[0], column).unwrap()
    }

    /// The form that the row's hash is made of.
    pub fn canonical(cell: &Json, column: &Field) -> Vec<u8> {
        let text = json!([{"v": cell}]).to_string();
        let mut out = Vec::new();
        parse(&text, column).write_canonical(&mut out).unwrap();
        out
    }

    /// What Harper gets: the JSON, with the patches applied.
    pub fn stored(cell: &Json, column: &Field) -> Json {
        let text = json!([{"v": cell}]).to_string();
        let (mut out, mut patches) = (Vec::new(), Patches::default());
        parse(&text, column).write_json(&mut out, &mut patches).unwrap();
        let mut stored: Json = serde_json::from_slice(&out).unwrap();
        for patch in patches.into_found() {
            let mut place = &mut stored;
            for step in &patch.path {
                place = match step {
                    Step::Key(name) => &mut place[name.as_str()],
                    Step::Index(index) => &mut place[*index],
                };
            }
            assert_eq!(*place, Json::Null, "a patch hides a value");
            *place = match patch.value {
                Special::Bigint(digits) => json!({ SPECIAL: digits }),
                Special::Float(name) => json!({ SPECIAL: name }),
            };
        }
        stored
    }

    /// The way back: the cell that a stored value was.
    pub fn sent(stored: &Json, column: &Field) -> Json {
        if column.repeated {
            let element = Field { repeated: false, ..column.clone() };
            return stored.as_array().unwrap().iter().map(|one| json!({"v": sent(one, &element)})).collect();
        }
        match (&column.kind, stored) {
            (_, Json::Null) => Json::Null,
            (Type::Record(fields), stored) => {
                let cells: Vec<Json> =
                    fields.iter().map(|inner| json!({"v": sent(&stored[&inner.name], inner)})).collect();
                json!({"f": cells})
            }
            (kind, stored) => Json::String(text_sent(stored, kind)),
        }
    }

    fn text_sent(stored: &Json, kind: &Type) -> String {
        let special = || stored.get(SPECIAL).map(|text| text.as_str().unwrap().to_owned());
        // JavaScript has doubles only.
        let double = || stored.as_f64().unwrap();
        match kind {
            Type::Int64 => special().unwrap_or_else(|| (double() as i64).to_string()),
            Type::Float64 => special().unwrap_or_else(|| format!("{:?}", double())),
            Type::Numeric | Type::BigNumeric => {
                stored.as_str().map_or_else(|| double().to_string(), str::to_owned)
            }
            Type::Bool => stored.as_bool().unwrap().to_string(),
            Type::Timestamp => Micros::parse(stored.as_str().unwrap()).unwrap().0.to_string(),
            Type::Interval => interval_sent(stored.as_str().unwrap()),
            Type::Json => document_sent(stored).to_string(),
            Type::Range(element) => {
                let side = |side: &Json| match side {
                    Json::Null => "UNBOUNDED".to_owned(),
                    side => text_sent(side, element),
                };
                format!("[{}, {})", side(&stored["start"]), side(&stored["end"]))
            }
            _ => stored.as_str().unwrap().to_owned(),
        }
    }

    /// Puts integers back into a document in place of what stands for them.
    fn document_sent(stored: &Json) -> Json {
        match stored {
            Json::Array(items) => items.iter().map(document_sent).collect(),
            Json::Object(members) => match members.get(SPECIAL).and_then(Json::as_str) {
                Some(digits) => Json::Number(digits.parse::<Number>().unwrap()),
                None => members.iter().map(|(key, item)| (key.clone(), document_sent(item))).collect(),
            },
            leaf => leaf.clone(),
        }
    }

    /// Turns ISO 8601 into BigQuery's notation.
    fn interval_sent(text: &str) -> String {
        let (date, time) = text[1..].split_once('T').unwrap_or((&text[1..], ""));
        let part = |text: &str, unit: char| -> String {
            let end = text.find(unit);
            let start =
                end.map(|end| text[..end].rfind(|c: char| c.is_ascii_alphabetic()).map_or(0, |at| at + 1));
            end.zip(start).map_or("0".to_owned(), |(end, start)| text[start..end].to_owned())
        };
        let parts = [part(date, 'Y'), part(date, 'M'), part(time, 'H'), part(time, 'M'), part(time, 'S')];
        let sign = |parts: &[String]| if parts.iter().any(|part| part.starts_with('-')) { "-" } else { "" };
        let [years, months, hours, minutes, seconds] =
            [0, 1, 2, 3, 4].map(|index: usize| parts[index].trim_start_matches('-').to_owned());
        let (date_sign, time_sign) = (sign(&parts[..2]), sign(&parts[2..]));
        format!("{date_sign}{years}-{months} {} {time_sign}{hours}:{minutes}:{seconds}", part(date, 'D'))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stored_gives_back_what_was_sent(
        (column, cell) in any_field().prop_flat_map(|column| {
            let cells = any_cell(&column);
            (Just(column), cells)
        })
    ) {
        let stored = ways::stored(&cell, &column);
        let back = ways::sent(&stored, &column);
        prop_assert_eq!(ways::canonical(&back, &column), ways::canonical(&cell, &column), "stored as {}", stored);
    }
}
