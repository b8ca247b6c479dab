//! What the documentation says of the code.

use bigquery_sync::bigquery::schema::{Field, Type};
use bigquery_sync::config::HarperType;
use bigquery_sync::error::{Kind, Recovery};
use bigquery_sync::mapping::attributes::declared_type;
use bigquery_sync::mapping::form::allowed_types;
use std::fs;

#[test]
fn the_page_of_errors_lists_each_code_once_with_what_happens_next() {
    let page = fs::read_to_string("docs/errors.md").unwrap();
    let listed: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(code, rest)| (code, rest.split(['|', ' ']).find(|word| !word.is_empty()).unwrap_or_default()))
        .collect();
    let expected: Vec<(&str, &str)> = Kind::ALL
        .iter()
        .map(|kind| {
            let next = match kind.recovery() {
                Recovery::Retry => "retries",
                Recovery::Recheck => "rechecks",
                Recovery::Halt => "halts",
            };
            (kind.code(), next)
        })
        .collect();
    assert_eq!(listed, expected);
}

/// The types as the page of types spells them.
fn documented_fields() -> Vec<(&'static str, Field)> {
    let field = |kind, repeated| Field { name: "c".to_owned(), kind, repeated, required: false };
    let mut fields: Vec<(&str, Field)> = vec![
        ("RANGE", field(Type::Range(Box::new(Type::Date)), false)),
        ("STRUCT", field(Type::Record(Vec::new()), false)),
        ("ARRAY", field(Type::Int64, true)),
    ];
    for (name, kind) in [
        ("INT64", Type::Int64),
        ("FLOAT64", Type::Float64),
        ("NUMERIC", Type::Numeric),
        ("BIGNUMERIC", Type::BigNumeric),
        ("BOOL", Type::Bool),
        ("STRING", Type::String),
        ("BYTES", Type::Bytes),
        ("TIMESTAMP", Type::Timestamp),
        ("DATE", Type::Date),
        ("TIME", Type::Time),
        ("DATETIME", Type::DateTime),
        ("GEOGRAPHY", Type::Geography),
        ("INTERVAL", Type::Interval),
        ("JSON", Type::Json),
    ] {
        fields.push((name, field(kind, false)));
    }
    fields
}

/// The cells of the page's rows with so many columns, without backticks.
fn table_rows(page: &str, columns: usize) -> Vec<Vec<String>> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix('|'))
        .map(|line| line.split(" | ").map(|cell| cell.replace('`', "").trim().to_owned()).collect::<Vec<_>>())
        .filter(|cells| cells.len() == columns)
        .collect()
}

#[test]
fn the_page_of_types_lists_what_each_type_can_be_stored_as() {
    let page = fs::read_to_string("docs/types.md").unwrap();
    let rows = table_rows(&page, 2);
    for (name, field) in documented_fields() {
        let listed = rows.iter().find(|cells| cells[0] == name).map(|cells| cells[1].clone());
        let allowed: Vec<&str> = allowed_types(&field).iter().map(|allowed| allowed.name()).collect();
        assert_eq!(listed, Some(allowed.join(", ")), "{name}");
    }
    let explained: Vec<&str> = HarperType::ALL.map(HarperType::name).to_vec();
    let listed: Vec<&str> = rows.iter().map(|cells| cells[0].as_str()).collect();
    assert!(listed.ends_with(&explained), "{listed:?}");
}

#[test]
fn the_page_of_types_tells_how_attributes_are_declared() {
    let page = fs::read_to_string("docs/types.md").unwrap();
    let rows = table_rows(&page, 3);
    for (name, field) in documented_fields() {
        let listed: Vec<&str> =
            rows.iter().filter(|cells| cells[0] == name).map(|cells| cells[1].as_str()).collect();
        assert_eq!(listed, [declared_type(&field, HarperType::Any).name()], "{name}");
    }
}

#[test]
fn the_page_of_types_has_an_example_of_each_type_and_each_override() {
    let page = fs::read_to_string("docs/types.md").unwrap();
    let rows = table_rows(&page, 4);
    let plain = |name: &str| name.split('<').next().unwrap_or_default().to_owned();
    for (name, field) in documented_fields() {
        let of_type: Vec<&Vec<String>> = rows.iter().filter(|cells| plain(&cells[0]) == name).collect();
        for harper_type in HarperType::ALL {
            let shown = of_type.iter().any(|cells| cells[1] == harper_type.name());
            assert_eq!(
                shown,
                allowed_types(&field).contains(&harper_type),
                "{name} as {}",
                harper_type.name()
            );
        }
        assert!(
            of_type.iter().any(|cells| HarperType::ALL.iter().all(|other| other.name() != cells[1])),
            "{name}"
        );
    }
}
