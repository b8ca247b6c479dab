use super::*;
use crate::bigquery::schema::WireField;
use crate::bigquery::table::Description;
use crate::config::{Config, Environment};
use crate::time::Micros;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn fields(columns: &[(&str, &str)]) -> Vec<Field> {
    wire(json!(columns.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect::<Vec<_>>()))
}

fn wire(fields: Value) -> Vec<Field> {
    let wire: Vec<WireField> = serde_json::from_value(fields).unwrap();
    Field::from_wire(&wire).unwrap()
}

/// Follows a story of schemas, and returns the last version.
fn story(schemas: &[&[(&str, &str)]]) -> SchemaVersion {
    let mut version: Option<SchemaVersion> = None;
    for columns in schemas {
        version = evolve(version.as_ref(), "t", &fields(columns)).or(version);
    }
    version.unwrap()
}

fn attributes_of(version: &SchemaVersion) -> BTreeMap<&str, &str> {
    let in_use = version.columns.iter().filter(|column| !column.retired);
    in_use.map(|column| (column.name(), column.attribute.as_str())).collect()
}

#[test]
fn the_same_columns_in_another_order_or_spelling_are_no_change() {
    let first = story(&[&[("ts", "TIMESTAMP"), ("n", "INTEGER")]]);
    assert_eq!((first.version, first.era, first.changes.len()), (1, 0, 0));
    assert_eq!(evolve(Some(&first), "t", &fields(&[("N", "INT64"), ("ts", "TIMESTAMP")])), None);
}

#[test]
fn a_new_column_changes_no_ids_and_a_lost_one_does() {
    let added = story(&[&[("ts", "TIMESTAMP")], &[("ts", "TIMESTAMP"), ("n", "INT64")]]);
    assert_eq!((added.version, added.era), (2, 0));
    assert!(added.warnings().is_empty());
    let lost = story(&[&[("ts", "TIMESTAMP"), ("n", "INT64")], &[("ts", "TIMESTAMP")]]);
    assert_eq!((lost.version, lost.era), (2, 1));
    assert_eq!(lost.warnings(), ["the column n is no longer read: the attribute n keeps its values"]);
}

#[test]
fn each_type_of_a_column_has_an_attribute_and_gets_it_back() {
    let kinds = ["INT64", "STRING", "DATE", "INT64", "DATE"];
    let schemas: Vec<Vec<(&str, &str)>> = kinds.iter().map(|kind| vec![("n", *kind)]).collect();
    let schemas: Vec<&[(&str, &str)]> = schemas.iter().map(Vec::as_slice).collect();
    let found: Vec<String> =
        (1..=schemas.len()).map(|count| attributes_of(&story(&schemas[..count]))["n"].to_owned()).collect();
    assert_eq!(found, ["n", "n_v2", "n_v3", "n", "n_v3"]);
    assert_eq!(story(&schemas).era, 4);
}

#[test]
fn an_attribute_never_belongs_to_two_columns() {
    let version = story(&[
        &[("n", "INT64")],
        &[("n", "STRING"), ("n_v2", "INT64")],
        &[("n", "STRING"), ("n_v2", "INT64"), ("n_v3", "DATE")],
    ]);
    let expected = [("n", "n_v3"), ("n_v2", "n_v2"), ("n_v3", "n_v3_v2")];
    assert_eq!(attributes_of(&version), BTreeMap::from(expected));
}

#[test]
fn a_renamed_column_is_one_that_is_gone_and_one_that_is_new() {
    let version = story(&[&[("speed", "FLOAT64")], &[("knots", "FLOAT64")]]);
    let sentences: Vec<String> = version.changes.iter().map(Change::sentence).collect();
    assert_eq!(
        sentences,
        [
            "the source has the new column knots (FLOAT64); it is stored as knots",
            "the column speed is gone from the source, or is no longer read; the attribute speed keeps its values",
        ]
    );
    assert_eq!(version.changes.iter().filter(|change| change.is_warning()).count(), 1);
}

#[test]
fn fields_of_records_come_and_go_but_a_field_of_another_type_makes_another_column() {
    let record = |fields: Value| wire(json!([{"name": "r", "type": "RECORD", "fields": fields}]));
    let first = evolve(None, "t", &record(json!([{"name": "a", "type": "INT64"}]))).unwrap();
    let both = json!([{"name": "a", "type": "INT64"}, {"name": "b", "type": "DATE"}]);
    let grown = evolve(Some(&first), "t", &record(both)).unwrap();
    assert_eq!((grown.era, &grown.changes), (0, &vec![Change::FieldAdded { column: "r.b".to_owned() }]));
    let shrunk = evolve(Some(&grown), "t", &record(json!([{"name": "b", "type": "DATE"}]))).unwrap();
    assert_eq!((shrunk.era, &shrunk.changes), (1, &vec![Change::FieldRemoved { column: "r.a".to_owned() }]));
    assert_eq!(shrunk.columns[0].since, 1);
    let retyped = evolve(Some(&shrunk), "t", &record(json!([{"name": "b", "type": "STRING"}]))).unwrap();
    assert_eq!(attributes_of(&retyped)["r"], "r_v2");
}

#[test]
fn versions_convert_to_json_and_back() {
    let version = story(&[
        &[("ts", "TIMESTAMP"), ("n", "INT64"), ("gone", "BYTES")],
        &[("ts", "TIMESTAMP"), ("n", "STRING"), ("new", "JSON")],
    ]);
    let version = SchemaVersion { at: Some(Micros(5)), by: "node-0".to_owned(), ..version };
    let text = serde_json::to_string(&version).unwrap();
    assert_eq!(serde_json::from_str::<SchemaVersion>(&text).unwrap(), version);
}

fn config(bigquery: Value) -> TableConfig {
    let mut root = json!({"bigquery": {
        "projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"
    }});
    for (key, value) in bigquery.as_object().unwrap() {
        root["bigquery"][key] = value.clone();
    }
    Config::parse(&root, &Environment::default()).unwrap().tables.remove(0)
}

/// What becomes of a table whose columns change once.
fn outcome(bigquery: Value, before: &[(&str, &str)], after: &[(&str, &str)]) -> Result<Vec<String>, Failure> {
    let config = config(bigquery);
    let describe = |columns: &[(&str, &str)]| Description {
        fields: fields(columns),
        ..Description::read(br#"{"schema":{}}"#).unwrap()
    };
    let first = Projection::resolve(&config, &describe(before), None).unwrap();
    let first = evolve(None, "t", &first.fields).unwrap();
    let mut projection = Projection::resolve(&config, &describe(after), Some(&first))?;
    let next = next_version(&config, &projection, Some(&first), false)?.unwrap_or(first);
    projection.follow(&next);
    Ok((0..projection.fields.len()).map(|index| projection.attribute(index).to_owned()).collect())
}

#[test]
fn what_tells_rows_apart_may_neither_go_nor_change() {
    let before = [("ts", "TIMESTAMP"), ("k", "STRING"), ("n", "INT64")];
    let kind = |after: &[(&str, &str)]| outcome(json!({"key": ["k"]}), &before, after).unwrap_err().kind;
    assert_eq!(kind(&[("k", "STRING"), ("n", "INT64")]), Kind::ColumnMissing);
    assert_eq!(kind(&[("ts", "TIMESTAMP"), ("n", "INT64")]), Kind::ColumnMissing);
    assert_eq!(kind(&[("ts", "DATETIME"), ("k", "STRING"), ("n", "INT64")]), Kind::SchemaChanged);
    assert_eq!(kind(&[("ts", "TIMESTAMP"), ("k", "INT64"), ("n", "INT64")]), Kind::SchemaChanged);
    let fine =
        outcome(json!({"key": ["k"]}), &before, &[("ts", "TIMESTAMP"), ("k", "STRING"), ("n", "DATE")]);
    assert_eq!(fine.unwrap(), ["ts", "k", "n_v2"]);
}

#[test]
fn integer_ids_of_rows_without_key_outlive_new_columns_only() {
    let before = [("ts", "TIMESTAMP"), ("n", "INT64")];
    let integers = || json!({"idType": "integer", "key": []});
    let added = outcome(integers(), &before, &[("ts", "TIMESTAMP"), ("n", "INT64"), ("x", "DATE")]);
    assert_eq!(added.unwrap(), ["ts", "n", "x"]);
    let failure = outcome(integers(), &before, &[("ts", "TIMESTAMP")]).unwrap_err();
    assert_eq!(failure.kind, Kind::SchemaChanged);
    let keyed = json!({"idType": "integer", "key": ["n"]});
    let before = [("ts", "TIMESTAMP"), ("n", "INT64"), ("x", "DATE")];
    assert_eq!(outcome(keyed, &before, &[("ts", "TIMESTAMP"), ("n", "INT64")]).unwrap(), ["ts", "n"]);
}

#[test]
fn a_listed_column_that_was_there_may_go_and_one_that_never_was_is_an_error() {
    let before = [("ts", "TIMESTAMP"), ("speed", "INT64")];
    let listed = |name: &str| json!({"columns": ["ts", name], "schemaOverrides": {"ts": {"indexed": true}}});
    assert_eq!(outcome(listed("speed"), &before, &[("ts", "TIMESTAMP")]).unwrap(), ["ts"]);
    let description =
        Description { fields: fields(&before), ..Description::read(br#"{"schema":{}}"#).unwrap() };
    let failure = Projection::resolve(&config(listed("sped")), &description, None).unwrap_err();
    assert_eq!(failure.to_string(), "column_missing: the table t has no column sped (did you mean speed?)");
}

proptest! {
    #[test]
    fn an_attribute_holds_values_of_one_column_and_one_type_for_ever(
        steps in prop::collection::vec(
            prop::collection::btree_map(
                prop::sample::select(vec!["a", "b", "a_v2", "A_v3", "c"]),
                prop::sample::select(vec!["INT64", "STRING", "DATE"]),
                0..5,
            ),
            1..12,
        )
    ) {
        let mut version: Option<SchemaVersion> = None;
        let mut belongs: BTreeMap<String, (String, String)> = BTreeMap::new();
        for step in steps {
            let columns: Vec<(&str, &str)> = step.iter().map(|(name, kind)| (*name, *kind)).collect();
            let next = evolve(version.as_ref(), "t", &fields(&columns));
            let mut reversed = fields(&columns);
            reversed.reverse();
            // The order does not matter.
            let twin = evolve(version.as_ref(), "t", &reversed);
            prop_assert_eq!(next.is_some(), twin.is_some());
            prop_assert_eq!(next.as_ref().map(|next| &next.fingerprint), twin.as_ref().map(|next| &next.fingerprint));
            let before = version.as_ref().map_or((0, 0), |version| (version.version, version.columns.len()));
            if let Some(next) = next {
                prop_assert_eq!(next.version, before.0 + 1);
                prop_assert!(next.columns.len() >= before.1, "a column was forgotten");
                version = Some(next);
            }
            let now = version.as_ref().unwrap();
            let mut used = BTreeSet::new();
            for (name, kind) in columns {
                let column = now.current(name).unwrap();
                prop_assert_eq!(column.type_text(), kind);
                prop_assert!(used.insert(column.attribute.clone()), "two columns write to one attribute");
                let owner = (name.to_ascii_lowercase(), kind.to_owned());
                prop_assert_eq!(belongs.entry(column.attribute.clone()).or_insert_with(|| owner.clone()), &owner);
            }
            prop_assert_eq!(now.columns.iter().filter(|column| !column.retired).count(), step.len());
        }
    }
}
