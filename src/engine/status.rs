//! The status of a table, for operators and for the other workers.

use super::Engine;
use super::bill::day_of;
use super::breaker::Circuit;
use super::phase::Phase;
use crate::cluster::{Effort, Work};
use crate::error::Kind;
use crate::time::Micros;
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
    /// It waits before the next attempt, after a failure that may go away by itself.
    Retrying,
    /// It checks from time to time whether somebody has removed the cause of a failure.
    Blocked,
    /// It gave up. Somebody has to change something and start the table again.
    Failed,
    /// It has no share of this table's work.
    Standby,
    /// It was stopped.
    Stopped,
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
    /// How far behind it is.
    pub phase: Phase,
    /// Every row with a cursor up to this is in Harper; written in the cursor's own zone.
    pub watermark: Option<String>,
    /// Seconds since the watermark, or since the source was last read to its end or found unchanged.
    pub lag_seconds: Option<u64>,
    /// Rows of the table written so far, by all workers.
    pub rows: u64,
    /// Rows written per second lately.
    pub rows_per_second: f64,
    /// Rows that could not be written so far.
    pub rejected_rows: u64,
    /// Bytes billed by BigQuery so far.
    pub bytes_billed: u64,
    /// Bytes billed by BigQuery today, by UTC.
    pub bytes_billed_today: u64,
    /// Bytes that the last poll of a changed table billed.
    pub poll_bytes: Option<u64>,
    /// Bytes that this worker's polls would bill in a day if the table changed all the time.
    pub projected_bytes_per_day: Option<u64>,
    /// Something that works, but that somebody should look at.
    pub warning: Option<String>,
    /// The version of the source's schema that rows are read under.
    pub schema_version: Option<u32>,
    /// Rows of the source that have no cursor, and so are not copied.
    pub rows_without_cursor: u64,
    /// Whether the target has its indexes. The host knows which of them are being built.
    pub indexes: IndexState,
    /// The columns that identify a row; empty if its content does.
    pub key: Vec<String>,
    /// While resting: when the rest ends.
    pub next_poll: Option<String>,
    /// When a poll last found the source unchanged and so made no query.
    pub unchanged_at: Option<String>,
    /// The circuit breakers, which hold requests back after many failures.
    pub breaker: Circuits,
    /// The rows of the window that is being read: how many are in Harper, and how many there are.
    pub window_progress: Option<[u64; 2]>,
    /// How long it has been waiting for memory for its next page, which other tables of the worker use.
    pub waits_for_memory_seconds: Option<u64>,
    /// The failure that lasts.
    pub last_error: Option<LastError>,
}

/// Whether a target has its indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexState {
    /// They will be made when the backfill is done.
    AfterBackfill,
    /// It has them, or gets them now.
    Ready,
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

/// What operators can do if the rows of the late range do not fit in memory.
const LATE_RANGE_TOO_LARGE: &str = "the rows that sync.lateness makes it read again at each poll are more than memory \
                                    holds, so some of them are looked up in Harper each time: a smaller lateness, or \
                                    a larger limits.maxMemoryPerWorker, is faster";

impl Engine {
    fn warning(&self) -> Option<String> {
        let schema = self.schema.version().into_iter().flat_map(|version| version.warnings());
        let late = self.late.has_overflowed().then(|| LATE_RANGE_TOO_LARGE.to_owned());
        let warnings: Vec<String> =
            self.bill.warning(&self.config.pace).into_iter().chain(late).chain(schema).collect();
        (!warnings.is_empty()).then(|| warnings.join("; "))
    }

    /// Returns what the worker does for the table. The cluster divides the work by this. `commanded` tells whether the
    /// operators have started or stopped the table.
    pub fn work(&self, commanded: bool) -> Work {
        let effort = match self.condition.activity() {
            Activity::Starting => Effort::Begins,
            Activity::Running | Activity::Idle => Effort::Reads,
            Activity::Retrying => Effort::Retries,
            Activity::Blocked => Effort::Blocked,
            Activity::Failed => Effort::GaveUp,
            Activity::Standby | Activity::Stopped => Effort::Waits,
        };
        // The rule is known once the source was described.
        let of = if effort == Effort::Begins { 0 } else { self.holding.rule().partitions };
        let partitions = self.holding.own().to_vec();
        Work { id: self.config.id.clone(), effort: Some(effort), commanded, of, partitions }
    }
}

impl Status {
    pub(super) fn of(engine: &Engine, now: Micros) -> Status {
        let ledger = &engine.holding.ledger;
        let source = &engine.config.source;
        Status {
            id: engine.config.id.clone(),
            source: format!("{}.{}.{}", source.project_id, source.dataset, source.table),
            target: engine.config.target_table.clone(),
            partition_by: engine.holding.rule().name(),
            partitions: engine.holding.own().to_vec(),
            state: engine.condition.activity(),
            phase: engine.sizes.phase(),
            watermark: engine.holding.watermark().map(|watermark| engine.config.pace.zone.write(watermark)),
            lag_seconds: engine.lag_s(now),
            rows: ledger.sum(|row| row.records_ingested),
            rows_per_second: engine.meter.rows_per_second(now),
            rejected_rows: ledger.sum(|row| row.records_rejected),
            bytes_billed: ledger.sum(|row| row.bytes_billed) + engine.bill.unsaved_bytes,
            bytes_billed_today: engine.bill.on_day(day_of(now), ledger),
            poll_bytes: engine.bill.poll_bytes,
            projected_bytes_per_day: engine.bill.projected_bytes_per_day(&engine.config.pace),
            warning: engine.warning(),
            schema_version: engine.schema.version().map(|version| version.version),
            rows_without_cursor: engine.rows_without_cursor(),
            indexes: match engine.schema.do_indexes_wait() {
                true => IndexState::AfterBackfill,
                false => IndexState::Ready,
            },
            key: engine.schema.projection().map(|projection| projection.key_names()).unwrap_or_default(),
            next_poll: engine.condition.next_poll(now).map(|at| at.to_string()),
            unchanged_at: engine.source.unchanged_at().map(|at| at.to_string()),
            breaker: engine.condition.circuits(now),
            window_progress: ledger
                .open_window(engine.holding.own())
                .and_then(|window| Some([window.offset, window.total_rows?])),
            waits_for_memory_seconds: None,
            last_error: engine.condition.last_error(),
        }
    }
}
