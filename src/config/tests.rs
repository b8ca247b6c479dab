use super::*;
use serde_json::json;

fn minimal() -> Value {
    json!({"bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"}})
}

fn parse(root: &Value) -> Result<Config, Vec<Problem>> {
    Config::parse(root, &Environment { shared_root: true, ..Environment::default() })
}

fn problem(root: Value) -> String {
    let problems = Config::parse(&root, &Environment::default()).map(|_| ()).unwrap_err();
    problems
        .iter()
        .map(|problem| format!("{}: {}", problem.key, problem.message))
        .collect::<Vec<_>>()
        .join("\n")
}

fn with(section: &str, key: &str, value: Value) -> Value {
    let mut root = minimal();
    root[section][key] = value;
    root
}

#[test]
fn the_shortest_configuration_gets_the_documented_defaults() {
    let config = parse(&minimal()).unwrap();
    let table = &config.tables[0];
    assert_eq!(table.id, "t");
    assert_eq!(table.target_table, "BigQueryData");
    assert_eq!(table.columns, Columns::All);
    assert_eq!(table.partitions, 64);
    assert_eq!(table.pace.page_rows, PageRows { initial: 10_000, catchup: 1_000, steady: 500 });
    assert_eq!(table.pace.poll_interval_ms, 30_000);
    assert_eq!(config.connection.api_endpoint, "https://bigquery.googleapis.com/bigquery/v2");
    assert!(!config.connection.anonymous);
    assert_eq!(config.audit_retention_days, 90);
    assert_eq!(config.memory_bytes_max, 512 << 20);
}

#[test]
fn a_worker_s_memory_is_enough_for_some_pages_and_within_what_the_core_can_have() {
    let parsed = parse(&with("limits", "maxMemoryPerWorker", json!(1 << 30))).unwrap();
    assert_eq!(parsed.memory_bytes_max, 1 << 30);
    for bytes in [1_000_000_u64, 4 << 30] {
        let problem = problem(with("limits", "maxMemoryPerWorker", json!(bytes)));
        assert!(problem.contains("allowed is a whole number from 67108864 to 3221225472"), "{problem}");
    }
}

#[test]
fn validation_is_done_on_command_unless_the_configuration_wants_it_regularly() {
    let validation = |root: &Value| parse(root).unwrap().tables[0].pace.validation;
    let usual = Validation {
        is_regular: false,
        interval_s: 3_600,
        day_bytes_billed_max: 10 << 30,
        content_interval_s: Some(7 * 86_400),
        content_day_bytes_billed_max: 10 << 30,
        deletes: Deletes::Keep,
        deletes_max: 10_000,
    };
    assert_eq!(validation(&minimal()), usual);
    let mut root = minimal();
    root["validation"] = json!({
        "enabled": true, "interval": 60, "maxBytesBilledPerDay": 0, "contentInterval": 0,
        "maxContentBytesBilledPerDay": 7
    });
    root["limits"] = json!({"maxDeletesPerRun": 5});
    root["bigquery"]["deletes"] = json!("mirror");
    let wanted = Validation {
        is_regular: true,
        interval_s: 60,
        day_bytes_billed_max: 0,
        content_interval_s: None,
        content_day_bytes_billed_max: 7,
        deletes: Deletes::Mirror,
        deletes_max: 5,
    };
    assert_eq!(validation(&root), wanted);
    let mut wrong = root.clone();
    wrong["bigquery"]["deletes"] = json!("miror");
    assert!(problem(wrong).contains("did you mean mirror?"));
    assert!(problem(with("validation", "interval", json!(1))).starts_with("validation.interval: is 1"));
    assert!(problem(with("validation", "intervall", json!(60))).contains("did you mean interval?"));
}

#[test]
fn the_audit_is_kept_for_at_least_a_day_and_at_most_ten_years() {
    assert_eq!(parse(&with("audit", "retentionDays", json!(7))).unwrap().audit_retention_days, 7);
    assert!(problem(with("audit", "retentionDays", json!(0))).starts_with("audit.retentionDays: is 0"));
    assert!(problem(with("audit", "retention", json!(7))).contains("did you mean retentionDays?"));
}

#[test]
fn several_tables_share_the_dataset_and_get_targets_of_their_own() {
    let root = json!({"bigquery": {"projectId": "p", "dataset": "d", "timestampColumn": "ts", "tables": [
        {"table": "vessel_positions", "key": ["mmsi"], "sync": {"pollInterval": 5000}},
        {"id": "events", "dataset": "e", "table": "2024-port-events", "timestampColumn": "at", "batchSize": 7}
    ]}});
    let config = parse(&root).unwrap();
    assert_eq!(config.tables[0].target_table, "VesselPositions");
    assert_eq!(config.tables[0].pace.poll_interval_ms, 5_000);
    assert_eq!(config.tables[1].target_table, "T2024PortEvents");
    assert_eq!(config.tables[1].source.dataset, "e");
    assert_eq!(config.tables[1].pace.page_rows, PageRows { initial: 7, catchup: 7, steady: 7 });
}

#[test]
fn problems_name_the_key_what_was_found_and_what_is_allowed() {
    for (root, expected) in [
        (json!({}), "bigquery: the section is missing"),
        (json!({"bigqery": {}}), "bigqery: is not a known key: did you mean bigquery?"),
        (json!({"bigquery": []}), "bigquery: is a list, allowed is a section with keys of its own"),
        (
            with("bigquery", "projectID", json!("x")),
            "bigquery.projectID: is not a known key: did you mean projectId?",
        ),
        (with("bigquery", "timestampColumn", json!(7)), "bigquery.timestampColumn: is 7, allowed is a text"),
        (with("bigquery", "table", Value::Null), "bigquery.table: is missing"),
        (
            with("bigquery", "table", json!("a`b")),
            "bigquery.table: is \"a`b\", which is no name of a BigQuery table",
        ),
        (with("bigquery", "dataset", json!("a.b")), "bigquery.dataset: is \"a.b\""),
        (with("bigquery", "tables", json!([])), "bigquery.tables: is empty"),
        (
            with("bigquery", "columns", json!("a")),
            "bigquery.columns: is the text \"a\", allowed is a list of names",
        ),
        (with("bigquery", "key", json!(["a", "a"])), "bigquery.key: names a twice"),
        (
            with("bigquery", "partitionBy", json!("days")),
            "one of auto, timestamp, minute, hour, day, month, table (did you mean day?)",
        ),
        (with("bigquery", "targetTable", json!("SyncAudit")), "a table of the component itself"),
        (
            with("bigquery", "apiEndpoint", json!("ftp://x")),
            "bigquery.apiEndpoint: is \"ftp://x\", allowed is host:port",
        ),
        (
            with("sync", "pollInterval", json!("fast")),
            "sync.pollInterval: is the text \"fast\", allowed is a whole number from 100 to 86400000",
        ),
        (with("sync", "pollInterval", json!(1.5)), "sync.pollInterval: is 1.5"),
        (with("sync", "pollIntervall", json!(1)), "did you mean pollInterval?"),
        (
            with("sync", "startTimestamp", json!("soon")),
            "sync.startTimestamp: is \"soon\", allowed is a date or RFC 3339",
        ),
        (
            with("sync", "steadyThreshold", json!(4000)),
            "sync.steadyThreshold: is 4000, which is above catchupThreshold (3600)",
        ),
        (
            with("schema", "create", json!("no")),
            "schema.create: is the text \"no\", allowed is true or false",
        ),
        (with("schema", "creat", json!(false)), "schema.creat: is not a known key: did you mean create?"),
        (
            with("schema", "pollMin", json!(0)),
            "schema.pollMin: is 0, allowed is a whole number from 1 to 86400",
        ),
        (
            with("bigquery", "table", json!("events_*")),
            "bigquery.table: is a wildcard, which cannot be synced: make a view of it",
        ),
        (
            with("retry", "maxAttempts", json!(0)),
            "retry.maxAttempts: is 0, allowed is a whole number from 1 to 100",
        ),
    ] {
        let found = problem(root);
        assert!(found.contains(expected), "{found}\n  does not contain\n{expected}");
    }
}

#[test]
fn problems_of_types_name_what_is_allowed() {
    for (root, expected) in [
        (
            with("bigquery", "idType", json!("int")),
            "bigquery.idType: is the text \"int\", allowed is one of text, integer (did you mean integer?)",
        ),
        (
            with("bigquery", "schemaOverrides", json!({"a": "Float"})),
            "bigquery.schemaOverrides.a: is the text \"Float\", allowed is a section with keys of its own",
        ),
        (
            with("bigquery", "schemaOverrides", json!({"a": {"type": "float"}})),
            "bigquery.schemaOverrides.a.type: is the text \"float\", allowed is one of Int, Long, Float, BigInt, String, \
             Boolean, Date, Bytes, Any (did you mean Float?)",
        ),
        (
            with("bigquery", "schemaOverrides", json!({"a": {"type": "Int", "index": true}})),
            "bigquery.schemaOverrides.a.index: is not a known key: did you mean indexed?",
        ),
        (
            with("bigquery", "schemaOverrides", json!({"a": {"indexed": "yes"}})),
            "bigquery.schemaOverrides.a.indexed: is the text \"yes\", allowed is true or false",
        ),
        (with("bigquery", "schemaOverrides", json!({"a": {}})), "bigquery.schemaOverrides.a: is empty"),
        (with("bigquery", "schemaOverrides", json!({"a": null})), "bigquery.schemaOverrides.a: is empty"),
        (
            with("bigquery", "schemaOverrides", json!({"A": {"type": "Int"}, "a": {"type": "Int"}})),
            "bigquery.schemaOverrides.a: is the same column as A",
        ),
    ] {
        let found = problem(root);
        assert!(found.contains(expected), "{found}\n  does not contain\n{expected}");
    }
}

fn zones() -> Environment {
    let east = Zone::new("Asia/Kolkata", [(Micros(0), 19_800_000_000)]).unwrap();
    let names = ["Asia/Kolkata", "Europe/Berlin", "America/New_York"].map(str::to_owned).to_vec();
    let zones = Zones { named: [("Asia/Kolkata".to_owned(), east)].into(), names };
    Environment { zones, ..Environment::default() }
}

#[test]
fn a_time_zone_is_one_that_is_known_and_goes_with_cursors_that_tell_local_time() {
    let parse = |root: &Value| Config::parse(root, &zones()).map(|config| config.tables[0].pace.zone.clone());
    assert!(parse(&minimal()).unwrap().is_utc());
    assert!(parse(&with("bigquery", "timeZone", json!("UTC"))).unwrap().is_utc());
    assert_eq!(parse(&with("bigquery", "timeZone", json!("Asia/Kolkata"))).unwrap().name(), "Asia/Kolkata");
    for (name, expected) in [
        (
            "Europe/Berln",
            "is \"Europe/Berln\", allowed is the name of a zone in the IANA database, like Europe/Berlin, or UTC (did you mean Europe/Berlin?)",
        ),
        ("new york", "(did you mean America/New_York?)"),
        ("Berlin", "(did you mean Europe/Berlin?)"),
        ("x", "like Europe/Berlin, or UTC"),
    ] {
        let problem = parse(&with("bigquery", "timeZone", json!(name))).unwrap_err().remove(0);
        assert_eq!(problem.key, "bigquery.timeZone");
        assert!(problem.message.ends_with(expected), "{}", problem.message);
    }
    let mut root = with("bigquery", "timeZone", json!("Asia/Kolkata"));
    root["bigquery"]["timestampUnit"] = json!("seconds");
    assert!(parse(&root).unwrap_err()[0].message.starts_with("stands beside timestampUnit"));
}

#[test]
fn the_zones_that_a_configuration_names_are_found_wherever_they_stand() {
    let root = json!({"bigquery": {"timeZone": "A", "tables": [{"timeZone": "B"}, {}, {"timeZone": 7}]}});
    assert_eq!(zone_names(&root).into_iter().collect::<Vec<_>>(), ["A", "B"]);
    assert!(zone_names(&json!({"bigquery": 7})).is_empty() && zone_names(&json!(7)).is_empty());
}

#[test]
fn a_start_without_an_offset_is_in_the_table_s_own_zone() {
    let start = |text: &str| {
        let mut root = with("bigquery", "timeZone", json!("Asia/Kolkata"));
        root["sync"] = json!({"startTimestamp": text});
        Config::parse(&root, &zones()).unwrap().tables[0].pace.start
    };
    assert_eq!(start("2024-01-31"), Micros::parse("2024-01-30T18:30:00Z"));
    assert_eq!(start("2024-01-31T00:00:00"), Micros::parse("2024-01-30T18:30:00Z"));
    assert_eq!(start("2024-01-31T00:00:00Z"), Micros::parse("2024-01-31T00:00:00Z"));
    assert_eq!(start("2024-01-31T00:00:00+01:00"), Micros::parse("2024-01-30T23:00:00Z"));
}

#[test]
fn all_problems_are_told_at_once() {
    let found = problem(json!({"bigquery": {"projectId": "P!", "tabel": "t"}, "sync": {"lateness": -1}}));
    assert_eq!(found.lines().count(), 6, "{found}");
}

#[test]
fn two_tables_may_not_share_a_target_or_an_id() {
    let entry = json!({"table": "t", "dataset": "d", "timestampColumn": "ts"});
    let found = problem(json!({"bigquery": {"projectId": "p", "tables": [entry, entry]}}));
    assert!(found.contains("id t twice") && found.contains("writes to T twice"), "{found}");
}

#[test]
fn keys_of_other_components_are_left_alone_in_a_shared_file() {
    let mut root = minimal();
    root["rest"] = json!(true);
    assert!(parse(&root).is_ok());
    assert!(Config::parse(&root, &Environment::default()).is_err());
}

#[test]
fn an_emulator_is_reached_without_credentials_in_each_spelling() {
    for host in
        ["127.0.0.1:9050", "http://127.0.0.1:9050", "http://127.0.0.1:9050/bigquery/v2", "127.0.0.1:9050/"]
    {
        let environment =
            Environment { emulator_host: Some(host.to_owned()), shared_root: true, ..Environment::default() };
        let connection = Config::parse(&minimal(), &environment).unwrap().connection;
        assert_eq!(connection.api_endpoint, "http://127.0.0.1:9050/bigquery/v2", "{host}");
        assert!(connection.anonymous);
    }
}

#[test]
fn identity_changes_with_what_makes_ids_and_with_nothing_else() {
    let identity = |root: &Value| {
        let table = parse(root).unwrap().tables.remove(0);
        table.identity(table.key.as_deref().unwrap_or_default())
    };
    let original = identity(&minimal());
    for (key, value) in [
        ("key", json!(["a"])),
        ("columns", json!(["a"])),
        ("timestampColumn", json!("x")),
        ("targetTable", json!("X")),
        ("timestampUnit", json!("seconds")),
        ("idType", json!("integer")),
        ("schemaOverrides", json!({"a": {"type": "Int"}})),
    ] {
        assert_ne!(identity(&with("bigquery", key, value)), original, "{key}");
    }
    for (key, value) in [
        ("batchSize", json!(9)),
        ("timeZone", json!("UTC")),
        ("idType", json!("text")),
        ("schemaOverrides", json!({"a": {"type": "Any"}, "b": {"indexed": true}})),
    ] {
        assert_eq!(identity(&with("bigquery", key, value)), original, "{key}");
    }
    let overridden = |value| identity(&with("bigquery", "schemaOverrides", value));
    assert_eq!(
        overridden(json!({"b": {"type": "Int"}, "A": {"type": "Long"}})),
        overridden(json!({"B": {"type": "Int", "indexed": true}, "a": {"type": "Long"}}))
    );
    assert_ne!(overridden(json!({"a": {"type": "Int"}})), overridden(json!({"a": {"type": "Long"}})));
}

#[test]
fn an_id_that_looks_like_a_wish_for_integer_ids_is_warned_about() {
    let config = parse(&with("bigquery", "id", json!("integer"))).unwrap();
    assert_eq!(config.tables[0].id, "integer");
    assert_eq!(config.tables[0].id_type, IdType::Text);
    assert!(config.warnings[0].message.contains("write idType: integer"));
}

#[test]
fn what_is_wanted_of_single_columns_is_kept() {
    let wanted = json!({"latitude": {"type": "Float", "indexed": true}, "port": {"indexed": false}});
    let table = parse(&with("bigquery", "schemaOverrides", wanted)).unwrap().tables.remove(0);
    let column = |column: &str, harper_type, indexed| SchemaOverride {
        column: column.to_owned(),
        harper_type,
        indexed: Some(indexed),
    };
    assert_eq!(
        table.schema_overrides,
        [column("latitude", Some(HarperType::Float), true), column("port", None, false)]
    );
}

#[test]
fn targets_are_made_unless_that_is_forbidden() {
    assert!(parse(&with("bigquery", "location", json!("EU"))).unwrap().tables[0].may_create);
    let config = parse(&with("schema", "create", json!(false))).unwrap();
    assert!(!config.tables[0].may_create);
    assert_eq!(config.warnings, []);
}

#[test]
fn targets_get_their_indexes_at_once_unless_they_are_wanted_after_the_backfill() {
    let indexes = |wanted: &str| parse(&with("schema", "indexes", json!(wanted)));
    let usual = parse(&with("bigquery", "location", json!("EU"))).unwrap();
    assert_eq!(usual.tables[0].indexes, Indexes::Immediate);
    assert_eq!(indexes("afterBackfill").unwrap().tables[0].indexes, Indexes::AfterBackfill);
    assert_eq!(indexes("immediate").unwrap().tables[0].indexes, Indexes::Immediate);
    let problems = indexes("imediate").unwrap_err();
    assert_eq!(problems[0].key, "schema.indexes");
    assert!(problems[0].message.ends_with("(did you mean immediate?)"), "{}", problems[0].message);
}

#[test]
fn the_pace_of_looking_at_columns_has_a_least_and_a_most() {
    let polling = |schema: Value| {
        let mut root = with("bigquery", "location", json!("EU"));
        root["schema"] = schema;
        parse(&root).map(|config| config.tables[0].polling)
    };
    assert_eq!(polling(json!({})).unwrap(), Polling { min_s: 300, max_s: 1_800 });
    assert_eq!(polling(json!({"pollMin": 1, "pollMax": 2})).unwrap(), Polling { min_s: 1, max_s: 2 });
    assert_eq!(polling(json!({"pollMin": 3_600})).unwrap(), Polling { min_s: 3_600, max_s: 3_600 });
    let problems = polling(json!({"pollMin": 10, "pollMax": 9})).unwrap_err();
    assert_eq!(problems[0].key, "schema.pollMax");
    assert_eq!(problems[0].message, "is 9, which is below pollMin (10)");
    assert!(polling(json!({"pollMin": 0})).is_err());
}

#[test]
fn no_table_of_the_component_can_be_a_target() {
    let schema = include_str!("../../schema.graphql");
    let mut names: Vec<&str> =
        schema.lines().filter_map(|line| line.strip_prefix("type ")?.split(' ').next()).collect();
    names.sort_unstable();
    assert_eq!(names, SYSTEM_TABLES);
    for name in names {
        let problem = problem(with("bigquery", "targetTable", json!(name)));
        assert!(problem.starts_with("bigquery.targetTable"), "{problem}");
    }
}
