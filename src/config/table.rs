//! One table's part of the configuration.

use super::overrides::{HarperType, SchemaOverride};
use super::reader::{Section, nearest};
use super::{Pace, Problem, SYSTEM_TABLES};
use crate::time::Micros;
use crate::time::zone::{Zone, Zones};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::cell::RefCell;

/// Keys of a table, in an entry of `tables` or at the level of `bigquery`.
pub const KEYS: [&str; 16] = [
    "id",
    "idType",
    "dataset",
    "table",
    "timestampColumn",
    "timestampUnit",
    "timeZone",
    "columns",
    "key",
    "where",
    "targetTable",
    "partitionBy",
    "deletes",
    "schemaOverrides",
    "batchSize",
    "sync",
];

const SYNC_KEYS: [&str; 11] = [
    "startTimestamp",
    "initialBatchSize",
    "catchupBatchSize",
    "steadyBatchSize",
    "catchupThreshold",
    "steadyThreshold",
    "pollInterval",
    "lateness",
    "partitions",
    "autoStart",
    "pace",
];

/// BigQuery does not describe wildcards, so neither the columns nor the costs are known.
const WILDCARD: &str = "is a wildcard, which cannot be synced: make a view of it (CREATE VIEW v AS SELECT * FROM \
                        `dataset.prefix_*`) and sync the view, or list its tables one by one";

const DAY_S: u64 = 86_400;
/// The default of `maxMemoryPerWorker`.
const MEMORY_BYTES: u64 = 512 << 20;
const MEMORY_BYTES_MIN: u64 = 64 << 20;
/// The core has no more than 4 GiB.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
const PAGE_ROWS_MAX: u64 = 100_000;
/// The values of `deletes`.
const DELETES: [(&str, Deletes); 3] =
    [("keep", Deletes::Keep), ("mirror", Deletes::Mirror), ("mirrorExpired", Deletes::MirrorExpired)];
/// The default of `validation.maxBytesBilledPerDay`, and of `validation.maxContentBytesBilledPerDay`.
const VALIDATION_BYTES_MAX: u64 = 10 << 30;
/// The default of `validation.interval`.
const VALIDATION_INTERVAL_S: u64 = 3_600;
/// The default of `validation.contentInterval`.
const CONTENT_INTERVAL_S: u64 = 7 * DAY_S;

/// How much room the sync leaves to other requests of the same thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manner {
    /// Transactions are small, so that others wait for some milliseconds only.
    Gentle,
    /// Transactions are large, because they cost less per row.
    Fast,
}

/// Which columns are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// All that the source table has.
    All,
    /// These, besides the cursor and the key.
    Named(Vec<String>),
}

/// How the work on a table is divided among workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionBy {
    /// By the source table's own partitioning, or as a whole.
    Auto,
    /// By the cursor's value.
    Timestamp,
    /// By spans of cursor time.
    Minute,
    /// By spans of cursor time.
    Hour,
    /// By spans of cursor time.
    Day,
    /// By spans of cursor time.
    Month,
    /// One worker reads the whole table.
    Table,
}

/// What a cursor column of type INT64 counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CursorUnit {
    /// Seconds since the epoch.
    Seconds,
    /// Milliseconds since the epoch.
    Milliseconds,
    /// Microseconds since the epoch.
    Microseconds,
}

impl CursorUnit {
    /// Returns the unit in microseconds.
    pub fn us(self) -> i64 {
        match self {
            CursorUnit::Seconds => 1_000_000,
            CursorUnit::Milliseconds => 1_000,
            CursorUnit::Microseconds => 1,
        }
    }
}

/// What the ids of records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdType {
    /// Texts; different rows never share one.
    Text,
    /// Integers of 53 bits; two rows may share one by chance, and then one of them is lost.
    Integer,
}

/// Rows requested per page, by phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PageRows {
    /// While the lag is above the catch-up threshold.
    pub initial: u64,
    /// In between.
    pub catchup: u64,
    /// While the lag is below the steady threshold.
    pub steady: u64,
}

/// When a target that the component creates gets its indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Indexes {
    /// When all of its source has been read once.
    AfterBackfill,
    /// When it is created.
    Immediate,
}

/// What becomes of rows that the source no longer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Deletes {
    /// They stay.
    #[default]
    Keep,
    /// They are deleted, unless a whole partition of the source is gone.
    Mirror,
    /// They are deleted, also those of whole partitions that have expired.
    MirrorExpired,
}

/// How copies are compared with the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// Whether that is done regularly, and not only on command.
    pub is_regular: bool,
    /// Seconds from one time to the next.
    pub interval_s: u64,
    /// The most bytes that it may bill in one day (UTC), for each worker and table.
    pub day_bytes_billed_max: u64,
    /// Seconds from one comparison of all values to the next; none if that is only done on command.
    pub content_interval_s: Option<u64>,
    /// The most bytes that it may bill in one day (UTC), for each worker and table.
    pub content_day_bytes_billed_max: u64,
    /// What becomes of rows that the source no longer has.
    pub deletes: Deletes,
    /// The most rows that are deleted at a time.
    pub deletes_max: u64,
}

/// How often a source table's schema is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Polling {
    /// Seconds between two checks after a change.
    pub min_s: u64,
    /// Seconds between two checks when nothing has changed for a long time.
    pub max_s: u64,
}

/// Names a table in BigQuery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceTable {
    /// The project that holds the table.
    pub project_id: String,
    /// The dataset.
    pub dataset: String,
    /// The table.
    pub table: String,
}

/// One table to keep in sync.
#[derive(Debug, Clone, PartialEq)]
pub struct TableConfig {
    /// Determines which worker gets the first partition. It depends on the id alone, because nodes may list their
    /// tables in different orders while their configurations are edited one after the other.
    pub position: u32,
    /// Names the table in status, control and checkpoints.
    pub id: String,
    /// Where rows come from.
    pub source: SourceTable,
    /// The column that orders rows in time.
    pub cursor: String,
    /// Which columns are read.
    pub columns: Columns,
    /// What a cursor column of type INT64 counts, since the epoch.
    pub cursor_unit: Option<CursorUnit>,
    /// The columns that identify a row. When empty, rows are identified by their content. When absent, they are
    /// identified by the primary key that the source table declares, if any, otherwise by their content.
    pub key: Option<Vec<String>>,
    /// What the ids of records are.
    pub id_type: IdType,
    /// Condition in BigQuery's SQL that rows must meet.
    pub filter: Option<String>,
    /// The Harper table that rows go to.
    pub target_table: String,
    /// How the work is divided.
    pub partition_by: PartitionBy,
    /// Number of partitions.
    pub partitions: u64,
    /// Whether the component may create the target table, and add to it.
    pub may_create: bool,
    /// When a target that the component creates gets its indexes.
    pub indexes: Indexes,
    /// How often the source's schema is checked.
    pub polling: Polling,
    /// The configured properties of single columns' attributes.
    pub schema_overrides: Vec<SchemaOverride>,
    /// Limits and paces.
    pub pace: Pace,
}

/// The keys that entries of `tables` may inherit from the level above.
pub struct Shared {
    dataset: Option<String>,
    cursor: Option<String>,
}

impl Shared {
    /// Reads the shared keys.
    pub fn read(bigquery: &Section<'_>) -> Shared {
        Shared { dataset: bigquery.text("dataset"), cursor: bigquery.text("timestampColumn") }
    }
}

/// The values of `sync`, `limits`, `retry` and `schema`, which a table's own `sync` may override.
pub struct Defaults<'z> {
    pace: Pace,
    start: Option<Start>,
    partitions: u64,
    /// The most bytes of memory for all tables of a worker.
    pub memory_bytes_max: u64,
    may_create: bool,
    indexes: Indexes,
    polling: Polling,
    zones: &'z Zones,
}

/// The time from which a table is read.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// An instant.
    Instant(Micros),
    /// A time without an offset, in the table's own zone.
    Local(Micros),
}

impl<'z> Defaults<'z> {
    /// Reads the sections, with defaults for missing keys.
    pub fn read(sections: &Section<'_>, zones: &'z Zones) -> Defaults<'z> {
        let mut pace = Pace {
            start: None,
            zone: Zone::default(),
            page_rows: PageRows { initial: 10_000, catchup: 1_000, steady: 500 },
            manner: Manner::Gentle,
            catchup_threshold_s: 3_600,
            steady_threshold_s: 300,
            poll_interval_ms: 30_000,
            lateness_s: 600,
            auto_start: true,
            bytes_billed_max: None,
            day_bytes_billed_max: None,
            window_rows_max: 2_000_000,
            rejected_rows_max: 100,
            validation: Validation {
                is_regular: false,
                interval_s: VALIDATION_INTERVAL_S,
                day_bytes_billed_max: VALIDATION_BYTES_MAX,
                content_interval_s: Some(CONTENT_INTERVAL_S),
                content_day_bytes_billed_max: VALIDATION_BYTES_MAX,
                deletes: Deletes::Keep,
                deletes_max: 10_000,
            },
            attempts_max: 5,
            backoff_multiplier: 2.0,
            initial_delay_ms: 1_000,
        };
        let (mut start, mut partitions) = (None, 64);
        let mut memory_bytes_max = MEMORY_BYTES;
        if let Some(sync) = sections.section("sync") {
            read_sync(&sync, &mut pace, &mut start, &mut partitions);
        }
        if let Some(limits) = sections.section("limits") {
            limits.refuse_unknown(&[
                "maxBytesBilledPerQuery",
                "maxBytesBilledPerDay",
                "maxDeletesPerRun",
                "maxMemoryPerWorker",
                "maxRejectedRows",
                "maxRowsPerWindow",
            ]);
            set(&mut pace.window_rows_max, limits.whole("maxRowsPerWindow", 1..=1_000_000_000));
            set(
                &mut memory_bytes_max,
                limits.whole("maxMemoryPerWorker", MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX),
            );
            set(&mut pace.rejected_rows_max, limits.whole("maxRejectedRows", 0..=1_000_000_000));
            set(&mut pace.validation.deletes_max, limits.whole("maxDeletesPerRun", 0..=1_000_000));
            pace.bytes_billed_max = limits.whole("maxBytesBilledPerQuery", 1..=1 << 60);
            pace.day_bytes_billed_max = limits.whole("maxBytesBilledPerDay", 1..=1 << 60);
        }
        if let Some(validation) = sections.section("validation") {
            read_validation(&validation, &mut pace.validation);
        }
        if let Some(retry) = sections.section("retry") {
            retry.refuse_unknown(&["maxAttempts", "backoffMultiplier", "initialDelay"]);
            set(&mut pace.attempts_max, retry.whole("maxAttempts", 1..=100).map(|count| count as u32));
            set(&mut pace.backoff_multiplier, retry.number("backoffMultiplier", 1.0..=10.0));
            set(&mut pace.initial_delay_ms, retry.whole("initialDelay", 10..=60_000));
        }
        let (may_create, indexes, polling) = read_schema(sections);
        Defaults { pace, start, partitions, memory_bytes_max, may_create, indexes, polling, zones }
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Returns whether targets may be created, when they get their indexes, and how often schemas are checked.
fn read_schema(sections: &Section<'_>) -> (bool, Indexes, Polling) {
    let mut polling = Polling { min_s: 300, max_s: 1_800 };
    let mut indexes = Indexes::Immediate;
    let Some(schema) = sections.section("schema") else { return (true, indexes, polling) };
    schema.refuse_unknown(&["create", "indexes", "pollMin", "pollMax"]);
    let choices = [("afterBackfill", Indexes::AfterBackfill), ("immediate", Indexes::Immediate)];
    set(&mut indexes, schema.choice("indexes", &choices));
    set(&mut polling.min_s, schema.whole("pollMin", 1..=DAY_S));
    set(&mut polling.max_s, schema.whole("pollMax", 1..=DAY_S));
    let Polling { min_s, max_s } = polling;
    if max_s < min_s && schema.has("pollMax") {
        schema.problem("pollMax", format!("is {max_s}, which is below pollMin ({min_s})"));
    }
    polling.max_s = max_s.max(min_s);
    (schema.flag("create").unwrap_or(true), indexes, polling)
}

fn read_validation(section: &Section<'_>, validation: &mut Validation) {
    section.refuse_unknown(&[
        "enabled",
        "interval",
        "maxBytesBilledPerDay",
        "contentInterval",
        "maxContentBytesBilledPerDay",
    ]);
    set(&mut validation.is_regular, section.flag("enabled"));
    set(&mut validation.interval_s, section.whole("interval", 10..=30 * DAY_S));
    set(&mut validation.day_bytes_billed_max, section.whole("maxBytesBilledPerDay", 0..=1 << 60));
    if let Some(seconds) = section.whole("contentInterval", 0..=366 * DAY_S) {
        validation.content_interval_s = Some(seconds).filter(|seconds| *seconds > 0);
    }
    let bytes = section.whole("maxContentBytesBilledPerDay", 0..=1 << 60);
    set(&mut validation.content_day_bytes_billed_max, bytes);
}

fn read_sync(sync: &Section<'_>, pace: &mut Pace, start: &mut Option<Start>, partitions: &mut u64) {
    sync.refuse_unknown(&SYNC_KEYS);
    if let Some(text) = sync.text("startTimestamp") {
        match Micros::parse(&text) {
            Some(at) => {
                *start = Some(if Micros::names_offset(&text) { Start::Instant(at) } else { Start::Local(at) })
            }
            None => sync.problem(
                "startTimestamp",
                format!("is \"{text}\", allowed is a date or RFC 3339, like 2024-01-31T00:00:00Z"),
            ),
        }
    }
    set(&mut pace.page_rows.initial, sync.whole("initialBatchSize", 1..=PAGE_ROWS_MAX));
    set(&mut pace.page_rows.catchup, sync.whole("catchupBatchSize", 1..=PAGE_ROWS_MAX));
    set(&mut pace.page_rows.steady, sync.whole("steadyBatchSize", 1..=PAGE_ROWS_MAX));
    set(&mut pace.catchup_threshold_s, sync.whole("catchupThreshold", 1..=3_650 * DAY_S));
    set(&mut pace.steady_threshold_s, sync.whole("steadyThreshold", 1..=3_650 * DAY_S));
    if pace.steady_threshold_s > pace.catchup_threshold_s {
        let (steady, catchup) = (pace.steady_threshold_s, pace.catchup_threshold_s);
        sync.problem("steadyThreshold", format!("is {steady}, which is above catchupThreshold ({catchup})"));
    }
    set(&mut pace.poll_interval_ms, sync.whole("pollInterval", 100..=DAY_S * 1_000));
    set(&mut pace.lateness_s, sync.whole("lateness", 0..=7 * DAY_S));
    set(partitions, sync.whole("partitions", 1..=4_096));
    set(&mut pace.auto_start, sync.flag("autoStart"));
    set(&mut pace.manner, sync.choice("pace", &[("gentle", Manner::Gentle), ("fast", Manner::Fast)]));
}

impl Start {
    fn instant(self, zone: &Zone) -> Micros {
        match self {
            Start::Instant(instant) => instant,
            Start::Local(local) => zone.first_instant(local),
        }
    }
}

impl TableConfig {
    /// Reads a table; `None` when a key is missing that everything else depends on.
    pub fn read(
        section: &Section<'_>,
        project_id: &str,
        shared: Option<&Shared>,
        defaults: &Defaults<'_>,
        single: bool,
        warnings: &RefCell<Vec<Problem>>,
    ) -> Option<TableConfig> {
        if !single {
            section.refuse_unknown(&KEYS);
        }
        note_ineffective(section, warnings);
        let dataset = or_shared(section, "dataset", shared.and_then(|shared| shared.dataset.clone()));
        let table = section.required_text("table");
        let cursor = or_shared(section, "timestampColumn", shared.and_then(|shared| shared.cursor.clone()));
        check_name(section, "dataset", dataset.as_deref(), |c| c.is_ascii_alphanumeric() || c == '_');
        if table.as_deref().is_some_and(|table| table.contains('*')) {
            section.problem("table", WILDCARD.to_owned());
        } else {
            check_name(section, "table", table.as_deref(), |c| {
                c.is_alphanumeric() || matches!(c, '_' | '-' | ' ')
            });
        }
        let mut pace = defaults.pace.clone();
        set(&mut pace.validation.deletes, section.choice("deletes", &DELETES));
        let (mut start, mut partitions) = (defaults.start, defaults.partitions);
        pace.zone = read_zone(section, defaults.zones).unwrap_or_default();
        if let Some(rows) = section.whole("batchSize", 1..=PAGE_ROWS_MAX) {
            pace.page_rows = PageRows { initial: rows, catchup: rows, steady: rows };
        }
        if let Some(sync) = section.section("sync") {
            read_sync(&sync, &mut pace, &mut start, &mut partitions);
        }
        pace.start = start.map(|start| start.instant(&pace.zone));
        let columns = read_columns(section);
        let key = section.texts("key");
        refuse_repeated(section, "key", key.as_deref().unwrap_or_default());
        let cursor_unit = section.choice(
            "timestampUnit",
            &[
                ("seconds", CursorUnit::Seconds),
                ("milliseconds", CursorUnit::Milliseconds),
                ("microseconds", CursorUnit::Microseconds),
            ],
        );
        let id_type = section.choice("idType", &[("text", IdType::Text), ("integer", IdType::Integer)]);
        let schema_overrides = SchemaOverride::read_all(section);
        let filter = section.text("where");
        let partition_by = read_partition_by(section).unwrap_or(PartitionBy::Auto);
        let (dataset, table, cursor) = (dataset?, table?, cursor?);
        let target_table = read_target(section, &table, single);
        let id = section.text("id").unwrap_or_else(|| table.clone());
        let source = SourceTable { project_id: project_id.to_owned(), dataset, table };
        let position = first_turn(&id);
        Some(TableConfig {
            id,
            source,
            cursor,
            cursor_unit,
            columns,
            key,
            id_type: id_type.unwrap_or(IdType::Text),
            filter,
            target_table,
            partition_by,
            partitions,
            may_create: defaults.may_create,
            indexes: defaults.indexes,
            polling: defaults.polling,
            schema_overrides,
            position,
            pace,
        })
    }

    /// Returns a text that changes whenever rows would get other ids, other columns or other forms, or go elsewhere.
    /// `key` has the columns that really identify a row.
    pub fn identity(&self, key: &[String]) -> String {
        let columns = match &self.columns {
            Columns::All => "*".to_owned(),
            Columns::Named(names) => {
                let mut names = names.clone();
                names.sort();
                names.join(",")
            }
        };
        let SourceTable { project_id, dataset, table } = &self.source;
        let (cursor, key, filter) = (&self.cursor, key.join(","), self.filter.as_deref().unwrap_or_default());
        let unit_us = self.cursor_unit.map_or(0, CursorUnit::us);
        let (target, forms) = (&self.target_table, self.form_identity());
        format!("{project_id}|{dataset}|{table}|{cursor}|{unit_us}|{columns}|{key}|{filter}|{target}{forms}")
    }

    /// Returns the part of the identity for ids and stored types. It is empty if they are the default.
    fn form_identity(&self) -> String {
        let mut columns: Vec<String> = self
            .schema_overrides
            .iter()
            .filter_map(|wanted| {
                let harper_type = wanted.harper_type.filter(|harper_type| *harper_type != HarperType::Any)?;
                Some(format!("{}:{}", wanted.column.to_ascii_lowercase(), harper_type.name()))
            })
            .collect();
        columns.sort();
        let ids = match self.id_type {
            IdType::Text => "",
            IdType::Integer => "|integer",
        };
        let columns = if columns.is_empty() { String::new() } else { format!("|{}", columns.join(",")) };
        format!("{ids}{columns}")
    }
}

fn note_ineffective(section: &Section<'_>, warnings: &RefCell<Vec<Problem>>) {
    if section.raw("id").and_then(Value::as_str) == Some("integer") {
        let message =
            "names the table, which is now called integer: for ids that are integers write idType: integer";
        warnings.borrow_mut().push(Problem { key: "id".to_owned(), message: message.to_owned() });
    }
}

fn or_shared(section: &Section<'_>, key: &str, shared: Option<String>) -> Option<String> {
    if section.has(key) || shared.is_none() { section.required_text(key) } else { shared }
}

fn check_name(section: &Section<'_>, key: &str, name: Option<&str>, allowed: impl Fn(char) -> bool) {
    if let Some(name) = name.filter(|name| !name.chars().all(&allowed)) {
        section.problem(key, format!("is \"{name}\", which is no name of a BigQuery {key}"));
    }
}

fn refuse_repeated(section: &Section<'_>, key: &str, names: &[String]) {
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|earlier| earlier == name) {
            section.problem(key, format!("names {name} twice"));
        }
    }
}

fn read_columns(section: &Section<'_>) -> Columns {
    match section.texts("columns") {
        None => Columns::All,
        Some(names) if names == ["*"] => Columns::All,
        Some(names) => {
            if names.is_empty() || names.iter().any(|name| name == "*") {
                section.problem("columns", "must be ['*'] or a list of columns".to_owned());
            }
            refuse_repeated(section, "columns", &names);
            Columns::Named(names)
        }
    }
}

fn read_partition_by(section: &Section<'_>) -> Option<PartitionBy> {
    section.choice(
        "partitionBy",
        &[
            ("auto", PartitionBy::Auto),
            ("timestamp", PartitionBy::Timestamp),
            ("minute", PartitionBy::Minute),
            ("hour", PartitionBy::Hour),
            ("day", PartitionBy::Day),
            ("month", PartitionBy::Month),
            ("table", PartitionBy::Table),
        ],
    )
}

fn read_target(section: &Section<'_>, table: &str, single: bool) -> String {
    let default = if single { "BigQueryData".to_owned() } else { pascal_case(table) };
    let target = section.text("targetTable").unwrap_or(default);
    let mut characters = target.chars();
    let first_fits = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first_fits || !characters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        section.problem(
            "targetTable",
            format!("is \"{target}\", allowed are letters, digits and _, not a digit first"),
        );
    }
    if SYSTEM_TABLES.contains(&target.as_str()) {
        section.problem("targetTable", format!("is {target}, which is a table of the component itself"));
    }
    target
}

/// Reads the zone of a cursor of type DATETIME or DATE.
fn read_zone(section: &Section<'_>, zones: &Zones) -> Option<Zone> {
    let name = section.text("timeZone")?;
    if section.has("timestampUnit") {
        let message = "stands beside timestampUnit: an INT64 counts from 1970 by UTC, whatever the zone; leave one of them out";
        section.problem("timeZone", message.to_owned());
    }
    if name == Zone::UTC {
        return None;
    }
    let zone = zones.named.get(&name).cloned();
    if zone.is_none() {
        let hint = nearest_zone(&name, &zones.names).map(|nearest| format!(" (did you mean {nearest}?)"));
        let allowed = "allowed is the name of a zone in the IANA database, like Europe/Berlin, or UTC";
        section.problem("timeZone", format!("is \"{name}\", {allowed}{}", hint.unwrap_or_default()));
    }
    zone
}

/// Finds the zone that was most likely meant: the zone of the named place, or the one with the most similar name.
fn nearest_zone<'n>(name: &str, names: &'n [String]) -> Option<&'n str> {
    let names = || names.iter().map(String::as_str);
    let place = name.replace(' ', "_");
    let is_of_place =
        |known: &&str| known.rsplit('/').next().is_some_and(|own| own.eq_ignore_ascii_case(&place));
    names().find(is_of_place).or_else(|| nearest(name, names()))
}

/// Distributes tables among workers by the tables' ids.
fn first_turn(id: &str) -> u32 {
    Sha256::digest(id).first_chunk::<4>().map_or(0, |first| u32::from_be_bytes(*first))
}

/// Turns `vessel_positions` into `VesselPositions`.
fn pascal_case(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let mut letters = word.chars();
        result.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        result.push_str(letters.as_str());
    }
    if result.starts_with(|c: char| c.is_ascii_digit()) {
        result.insert(0, 'T');
    }
    if result.is_empty() { "BigQueryData".to_owned() } else { result }
}
