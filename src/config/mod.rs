//! The configuration: every name, default and limit, checked in one place.

mod overrides;
mod reader;
mod table;

pub use overrides::{HarperType, SchemaOverride};
pub use table::{
    Columns, CursorUnit, Deletes, IdType, Indexes, Manner, PageRows, PartitionBy, Polling, SourceTable,
    TableConfig, Validation,
};

use crate::time::Micros;
use crate::time::zone::{Zone, Zones};
use reader::Section;
pub use reader::nearest;
use serde::Serialize;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Names of the component's own tables, which no target may have.
pub const SYSTEM_TABLES: [&str; 19] = [
    "SchemaLock",
    "SchemaVersion",
    "SyncAudit",
    "SyncBatch",
    "SyncCheck",
    "SyncCheckpoint",
    "SyncContents",
    "SyncControlState",
    "SyncCopy",
    "SyncCounts",
    "SyncIndex",
    "SyncLeaves",
    "SyncNode",
    "SyncProof",
    "SyncQuestion",
    "SyncReport",
    "SyncRoster",
    "SyncSweep",
    "SyncTarget",
];

const SECTIONS: [&str; 11] = [
    "bigquery",
    "sync",
    "limits",
    "audit",
    "validation",
    "retry",
    "schema",
    "operations",
    "synthesizer",
    "load",
    "control",
];

const CONNECTION_KEYS: [&str; 5] = ["projectId", "credentials", "location", "apiEndpoint", "tables"];

/// How long entries of SyncAudit are kept, unless the configuration says otherwise.
const AUDIT_RETENTION_DAYS: u64 = 90;
const AUDIT_RETENTION_DAYS_MAX: u64 = 3_650;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The key, with the sections it is in (`bigquery.tables[0].key`).
    pub key: String,
    /// What was found, what is allowed, what to do.
    pub message: String,
}

/// How to reach BigQuery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The project that is billed for queries and, by default, holds the tables.
    pub project_id: String,
    /// Path of a service account's key file; application default credentials when absent.
    pub credentials: Option<String>,
    /// Where the data is, e.g. `EU`; BigQuery finds it by itself when absent.
    pub location: Option<String>,
    /// Base address of the API, without a slash at its end.
    pub api_endpoint: String,
    /// Whether requests carry no credentials, because the endpoint is an emulator.
    pub anonymous: bool,
}

/// A configuration without problems.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to reach BigQuery.
    pub connection: Connection,
    /// The tables to keep in sync; ids and targets are unique.
    pub tables: Vec<TableConfig>,
    /// Roles besides super_user that may read and control the sync.
    pub control_roles: Vec<String>,
    /// The most bytes of memory for all tables of a worker.
    pub memory_bytes_max: u64,
    /// How long entries of SyncAudit are kept.
    pub audit_retention_days: u64,
    /// Keys that were understood but have no effect in this version.
    pub warnings: Vec<Problem>,
}

/// What surrounds the configuration and changes its meaning.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The variable `BIGQUERY_EMULATOR_HOST`.
    pub emulator_host: Option<String>,
    /// Whether the sections share their file with other components, so that unknown sections are allowed.
    pub shared_root: bool,
    /// The time zones that are known.
    pub zones: Zones,
}

impl Config {
    /// Checks a configuration and fills in the defaults.
    ///
    /// # Errors
    /// With every problem that was found, not only the first.
    pub fn parse(root: &Value, environment: &Environment) -> Result<Config, Vec<Problem>> {
        let problems = RefCell::new(Vec::new());
        let warnings = RefCell::new(Vec::new());
        let config = read_root(root, environment, &problems, &warnings);
        let mut found = problems.into_inner();
        match config {
            Some(config) if found.is_empty() => Ok(Config { warnings: warnings.into_inner(), ..config }),
            _ => {
                if found.is_empty() {
                    found.push(Problem { key: "bigquery".to_owned(), message: "is incomplete".to_owned() });
                }
                Err(found)
            }
        }
    }
}

/// Returns the time zones that a configuration names, so that the host can look up their rules.
pub fn zone_names(root: &Value) -> BTreeSet<String> {
    let bigquery = root.get("bigquery");
    let tables = bigquery.and_then(|bigquery| bigquery.get("tables")).and_then(Value::as_array);
    let sections = bigquery.into_iter().chain(tables.into_iter().flatten());
    sections.filter_map(|section| section.get("timeZone")?.as_str()).map(str::to_owned).collect()
}

fn read_root(
    root: &Value,
    environment: &Environment,
    problems: &RefCell<Vec<Problem>>,
    warnings: &RefCell<Vec<Problem>>,
) -> Option<Config> {
    let empty = Map::new();
    let members = root.as_object().unwrap_or(&empty);
    let sections = Section::new("", members, problems);
    if !environment.shared_root {
        sections.refuse_unknown(&[SECTIONS.as_slice(), &["package", "files", "urlPath"]].concat());
    }
    let Some(bigquery) = sections.section("bigquery") else {
        if !members.contains_key("bigquery") {
            let found = sections.nearest_present("bigquery");
            let hint =
                found.map(|name| format!(" (there is {name}: did you mean bigquery?)")).unwrap_or_default();
            sections.problem("bigquery", format!("the section is missing{hint}: add bigquery: with projectId, dataset, table and timestampColumn"));
        }
        return None;
    };
    let connection = read_connection(&bigquery, environment);
    let defaults = table::Defaults::read(&sections, &environment.zones);
    let tables = read_tables(&bigquery, &sections, connection.as_ref(), &defaults, warnings);
    let control_roles = sections
        .section("control")
        .map(|control| {
            control.refuse_unknown(&["roles"]);
            control.texts("roles").unwrap_or_default()
        })
        .unwrap_or_default();
    let audit_retention_days = sections.section("audit").and_then(|audit| {
        audit.refuse_unknown(&["retentionDays"]);
        audit.whole("retentionDays", 1..=AUDIT_RETENTION_DAYS_MAX)
    });
    Some(Config {
        connection: connection?,
        tables,
        control_roles,
        memory_bytes_max: defaults.memory_bytes_max,
        audit_retention_days: audit_retention_days.unwrap_or(AUDIT_RETENTION_DAYS),
        warnings: Vec::new(),
    })
}

fn read_connection(bigquery: &Section<'_>, environment: &Environment) -> Option<Connection> {
    let emulator = environment.emulator_host.clone().filter(|host| !host.is_empty());
    let configured = bigquery.text("apiEndpoint");
    let endpoint = configured.clone().or_else(|| emulator.clone());
    let credentials = bigquery.text("credentials");
    let api_endpoint = match &endpoint {
        None => "https://bigquery.googleapis.com/bigquery/v2".to_owned(),
        Some(text) => match normal_endpoint(text) {
            Some(url) => url,
            None => {
                let key = if configured.is_some() { "apiEndpoint" } else { "BIGQUERY_EMULATOR_HOST" };
                bigquery.problem(key, format!("is \"{text}\", allowed is host:port or http(s)://host:port"));
                return None;
            }
        },
    };
    let project_id = bigquery.required_text("projectId")?;
    if !is_project_id(&project_id) {
        bigquery.problem("projectId", format!("is \"{project_id}\", which is no Google Cloud project id"));
    }
    let anonymous = credentials.is_none() && !api_endpoint.ends_with(".googleapis.com/bigquery/v2");
    Some(Connection { project_id, credentials, location: bigquery.text("location"), api_endpoint, anonymous })
}

/// Accepts `host:port` and addresses with or without `/bigquery/v2`.
fn normal_endpoint(text: &str) -> Option<String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let rest = with_scheme.strip_prefix("http://").or_else(|| with_scheme.strip_prefix("https://"))?;
    let host = rest.split('/').next()?;
    let valid = !host.is_empty() && !host.contains(['@', ' ', '?', '#']);
    let base = with_scheme.trim_end_matches('/').trim_end_matches("/bigquery/v2");
    valid.then(|| format!("{base}/bigquery/v2"))
}

fn is_project_id(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | ':');
    !text.is_empty() && text.chars().all(allowed)
}

fn read_tables(
    bigquery: &Section<'_>,
    sections: &Section<'_>,
    connection: Option<&Connection>,
    defaults: &table::Defaults<'_>,
    warnings: &RefCell<Vec<Problem>>,
) -> Vec<TableConfig> {
    let project_id = connection.map_or("", |connection| connection.project_id.as_str());
    let several = bigquery.sections("tables");
    let mut known = CONNECTION_KEYS.to_vec();
    known.extend(table::KEYS);
    bigquery.refuse_unknown(&known);
    let tables: Vec<TableConfig> = match several {
        None => TableConfig::read(bigquery, project_id, None, defaults, true, warnings).into_iter().collect(),
        Some(several) => {
            for key in table::KEYS.iter().filter(|key| !["dataset", "timestampColumn"].contains(*key)) {
                if bigquery.has(key) {
                    bigquery.problem(key, "stands beside tables: move it into an entry of tables".to_owned());
                }
            }
            if several.is_empty() {
                bigquery.problem("tables", "is empty: list at least one table".to_owned());
            }
            let shared = table::Shared::read(bigquery);
            several
                .iter()
                .filter_map(|entry| {
                    TableConfig::read(entry, project_id, Some(&shared), defaults, false, warnings)
                })
                .collect()
        }
    };
    refuse_twins(&tables, sections);
    tables
}

fn refuse_twins(tables: &[TableConfig], sections: &Section<'_>) {
    let mut ids = BTreeSet::new();
    let mut targets = BTreeSet::new();
    for table in tables {
        if !ids.insert(&table.id) {
            sections.problem("bigquery.tables", format!("has the id {} twice: ids must be unique", table.id));
        }
        if !targets.insert(&table.target_table) {
            let target = &table.target_table;
            sections.problem(
                "bigquery.tables",
                format!("writes to {target} twice: give each table its own targetTable"),
            );
        }
    }
}

/// The limits and paces of one table; the names are those of the `sync`, `limits` and `retry` sections.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// Rows before this instant are left out; everything is read when absent.
    #[serde(skip)]
    pub start: Option<Micros>,
    /// The zone of a cursor of type DATETIME or DATE.
    #[serde(skip)]
    pub zone: Zone,
    /// Rows requested per page, by phase.
    pub page_rows: PageRows,
    /// How much room the sync leaves to others.
    #[serde(rename = "pace")]
    pub manner: Manner,
    /// Lag above which the phase is initial.
    pub catchup_threshold_s: u64,
    /// Lag below which the phase is steady.
    pub steady_threshold_s: u64,
    /// The time from one poll to the next.
    pub poll_interval_ms: u64,
    /// How far before the watermark rows are read again.
    pub lateness_s: u64,
    /// Whether the table runs without having been started by hand.
    pub auto_start: bool,
    /// The most bytes that one query may bill; no limit when absent.
    pub bytes_billed_max: Option<u64>,
    /// The most bytes that the table's queries may bill in one day (UTC); no limit when absent.
    pub day_bytes_billed_max: Option<u64>,
    /// The most rows that one query reads, if the source's partitions allow that limit.
    pub window_rows_max: u64,
    /// Rows that may be rejected since the table was started by hand; with more, all workers stop it.
    pub rejected_rows_max: u64,
    /// How copies are compared with the source.
    pub validation: Validation,
    /// Attempts before the delays between attempts stop growing.
    pub attempts_max: u32,
    /// Factor from one delay to the next.
    pub backoff_multiplier: f64,
    /// The longest first delay.
    pub initial_delay_ms: u64,
}

#[cfg(test)]
mod tests;
