//! How a table is doing, for people and for the table of workers.

use super::Engine;
use super::breaker::{Circuit, Side};
use super::phase::Phase;
use crate::error::Kind;
use crate::time::{DAY_US, Micros, SECOND_US};
use serde::Serialize;

/// What an engine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// It has not read anything yet.
    Starting,
    /// It reads or writes rows.
    Running,
    /// It is up to date and waits for the next poll.
    Idle,
    /// It waits to try again after a failure that goes away by itself.
    Retrying,
    /// It looks again from time to time whether somebody removed the cause of a failure.
    Blocked,
    /// It gave up; something has to be changed and the table started again.
    Failed,
    /// It has no share of this table's work.
    Standby,
    /// It was stopped.
    Stopped,
}

/// Measures of the current run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Meter {
    /// How far BigQuery's clock is ahead of ours.
    pub server_ahead_us: i64,
    /// Bytes billed that are not yet in a checkpoint.
    pub bytes_billed: u64,
    /// Rows that have no cursor, if they were counted.
    pub rows_without_cursor: Option<u64>,
    /// What the last query that was no part of a backlog billed.
    pub poll_bytes: Option<u64>,
    /// When something will be done next, while resting.
    pub next_poll: Option<Micros>,
    /// When, by BigQuery's clock, a poll found the source unchanged and so made no query.
    pub unchanged_at: Option<Micros>,
    rows: u64,
    first_us: i64,
    last_us: i64,
    rows_per_second: f64,
}

/// Rows per second are taken over this time.
const RATE_SPAN_US: i64 = 5 * SECOND_US;

impl Meter {
    /// Notes that rows are about to be written.
    pub fn wrote(&mut self, rows: u64, now: Micros) {
        if now.0.saturating_sub(self.last_us) > 2 * RATE_SPAN_US {
            self.first_us = now.0;
            self.rows = 0;
            self.rows_per_second = 0.0;
        }
        self.rows += rows;
        self.last_us = now.0;
        let span_us = now.0.saturating_sub(self.first_us);
        if span_us >= RATE_SPAN_US {
            self.rows_per_second = self.rows as f64 * SECOND_US as f64 / span_us as f64;
            self.rows = 0;
            self.first_us = now.0;
        }
    }

    /// Returns the rows written per second of late, zero when none were.
    pub fn rows_per_second(&self, now: Micros) -> f64 {
        if now.0.saturating_sub(self.last_us) > 2 * RATE_SPAN_US {
            return 0.0;
        }
        let span_us = self.last_us.saturating_sub(self.first_us);
        let first_span = self.rows_per_second == 0.0 && span_us > 0;
        let rate = if first_span {
            self.rows as f64 * SECOND_US as f64 / span_us as f64
        } else {
            self.rows_per_second
        };
        (rate * 10.0).round() / 10.0
    }
}

/// A table's status.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The table's id.
    pub id: String,
    /// The table in BigQuery, `project.dataset.table`.
    pub source: String,
    /// The table in Harper.
    pub target: String,
    /// The rule that divides the work, and the number of partitions.
    pub partition_by: String,
    /// The partitions that this worker owns.
    pub partitions: Vec<u32>,
    /// What is going on.
    pub state: Activity,
    /// How far behind it is, in words.
    pub phase: Phase,
    /// Every row with a cursor up to here is in Harper.
    pub watermark: Option<String>,
    /// Seconds since the watermark, or since BigQuery last said that nothing had changed.
    pub lag_seconds: Option<u64>,
    /// Rows of the table written so far, by all workers.
    pub rows: u64,
    /// Rows of late.
    pub rows_per_second: f64,
    /// Rows that could not be written so far.
    pub rejected_rows: u64,
    /// Bytes billed by BigQuery so far.
    pub bytes_billed: u64,
    /// Bytes billed by BigQuery today, by UTC.
    pub bytes_billed_today: u64,
    /// What the last poll of a changed table billed.
    pub poll_bytes: Option<u64>,
    /// What this worker's polls of a day bill if the table changes all the time.
    pub projected_bytes_per_day: Option<u64>,
    /// Something that works, but that somebody should look at.
    pub warning: Option<String>,
    /// The version of the source's schema that rows are read under.
    pub schema_version: Option<u32>,
    /// Rows of the source that have no cursor, and so are not copied.
    pub rows_without_cursor: u64,
    /// The columns that identify a row; none when its content does.
    pub key: Vec<String>,
    /// When something will be done next, while resting.
    pub next_poll: Option<String>,
    /// When a poll last found the source unchanged and so made no query.
    pub unchanged_at: Option<String>,
    /// Whether requests to either side are kept back after many failures.
    pub breaker: Circuits,
    /// Rows of the window that is being read: how many are in Harper, and how many there are.
    pub window_progress: Option<[u64; 2]>,
    /// The failure that is in the way.
    pub last_error: Option<LastError>,
}

/// The circuit breakers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Circuits {
    /// Towards the source.
    pub bigquery: Circuit,
    /// Towards the target.
    pub harper: Circuit,
}

/// A failure in the status.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastError {
    /// Its stable code.
    pub code: Kind,
    /// What happened and what to do.
    pub message: String,
    /// Failures in a row.
    pub attempts: u32,
}

/// US dollars for a tebibyte that a query scans, on demand, as Google's price list says for most regions.
const DOLLARS_PER_TEBIBYTE: f64 = 6.25;
/// A table that would cost more than this in a day is warned about.
const DOLLARS_PER_DAY_MAX: f64 = 10.0;

impl Engine {
    fn projected_bytes_per_day(&self) -> Option<u64> {
        let polls = DAY_US / 1_000 / i64::try_from(self.config.pace.poll_interval_ms.max(1)).ok()?;
        self.meter.poll_bytes.map(|bytes| bytes.saturating_mul(polls.unsigned_abs()))
    }

    fn warning(&self) -> Option<String> {
        let schema = self.schema.iter().flat_map(|schema| schema.warnings());
        let warnings: Vec<String> = self.cost_warning().into_iter().chain(schema).collect();
        (!warnings.is_empty()).then(|| warnings.join("; "))
    }

    fn cost_warning(&self) -> Option<String> {
        let dollars = self.projected_bytes_per_day()? as f64 / (1_u64 << 40) as f64 * DOLLARS_PER_TEBIBYTE;
        (dollars > DOLLARS_PER_DAY_MAX).then(|| {
            format!(
                "if the table changes all the time, this worker's polls bill about {dollars:.0} US dollars a day on \
                 demand: raise pollInterval, list fewer columns, or partition the source table on the cursor column"
            )
        })
    }
}

impl Status {
    pub(super) fn of(engine: &Engine, now: Micros) -> Status {
        let ledger = &engine.ledger;
        let source = &engine.config.source;
        Status {
            id: engine.config.id.clone(),
            source: format!("{}.{}.{}", source.project_id, source.dataset, source.table),
            target: engine.config.target_table.clone(),
            partition_by: engine.rule.name(),
            partitions: engine.own.clone(),
            state: engine.activity,
            phase: engine.phase,
            watermark: engine.watermark().map(|watermark| watermark.to_string()),
            lag_seconds: engine.lag_s(now),
            rows: ledger.sum(|row| row.records_ingested),
            rows_per_second: engine.meter.rows_per_second(now),
            rejected_rows: ledger.sum(|row| row.records_rejected),
            bytes_billed: ledger.sum(|row| row.bytes_billed) + engine.meter.bytes_billed,
            bytes_billed_today: engine.billed_on(now.0.div_euclid(DAY_US)),
            poll_bytes: engine.meter.poll_bytes,
            projected_bytes_per_day: engine.projected_bytes_per_day(),
            warning: engine.warning(),
            schema_version: engine.schema.as_ref().map(|schema| schema.version),
            rows_without_cursor: engine
                .meter
                .rows_without_cursor
                .unwrap_or(ledger.sum(|row| row.rows_without_cursor)),
            key: engine.projection.as_ref().map(|projection| projection.key_names()).unwrap_or_default(),
            next_poll: engine.meter.next_poll.filter(|at| *at > now).map(|at| at.to_string()),
            unchanged_at: engine.meter.unchanged_at.map(|at| at.to_string()),
            breaker: Circuits {
                bigquery: engine.bigquery.breaker.circuit(now),
                harper: engine.harper.breaker.circuit(now),
            },
            window_progress: ledger.open_window(&engine.own).map(|window| [window.offset, window.total_rows]),
            last_error: engine.last_failure.as_ref().map(|failure| LastError {
                code: failure.kind,
                message: failure.message.clone(),
                attempts: match Side::of(failure.kind) {
                    Side::BigQuery => engine.bigquery.backoff.failures(),
                    Side::Harper => engine.harper.backoff.failures(),
                },
            }),
        }
    }
}
