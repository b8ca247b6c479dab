//! The progress of a table, committed together with the rows.

use super::phase::Phase;
use crate::bigquery::page::JobReference;
use crate::bigquery::table::{Description, Version};
use crate::time::{Micros, instant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is stored in the table SyncCheckpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// `tableId:partition`.
    pub id: String,
    /// The table's id in the configuration.
    pub table_id: String,
    /// The partition's number.
    pub partition: u32,
    /// The rule that divides the table into partitions, and how many there are.
    #[serde(default)]
    pub rule: String,
    /// Where partitions without a checkpoint start, because they were read under another rule.
    #[serde(with = "instant", default)]
    pub inherited: Option<Micros>,
    /// Which making of the target table the rows went to.
    #[serde(default)]
    pub incarnation: String,
    /// When the source was made from which the rows came, where BigQuery tells.
    #[serde(default)]
    pub source_created: Option<String>,
    /// How many rows the source had then, where BigQuery tells.
    #[serde(default)]
    pub source_rows: Option<u64>,
    /// The era of the ids that rows without key get.
    #[serde(default)]
    pub era: u32,
    /// Rows with a cursor up to here may have ids of former eras.
    #[serde(with = "instant", default)]
    pub old_ids_until: Option<Micros>,
    /// The time that Harper took for that of the writing: of two versions of a record it keeps the one with the later.
    #[serde(with = "instant", default)]
    pub stamp: Option<Micros>,
    /// The node that wrote last.
    pub node_id: String,
    /// The worker that wrote last, `node-index`.
    pub owner: String,
    /// The watermark: every row with a cursor up to it is in Harper.
    #[serde(with = "instant", default)]
    pub last_timestamp: Option<Micros>,
    /// The watermark when last nobody else can have written for the partition at the same time.
    #[serde(with = "instant", default)]
    pub settled: Option<Micros>,
    /// The last commits in doubt, by worker, of which `settled` knows: it was taken back to before their rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub doubts: BTreeMap<String, u64>,
    /// Rows before this instant were left out; none when everything was read.
    #[serde(with = "instant", default)]
    pub start_timestamp: Option<Micros>,
    /// The zone whose rules the cursor was taken to follow; none is UTC.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// The phase when it was written.
    pub phase: Phase,
    /// Rows written so far; rows that were read again and written again count again.
    pub records_ingested: u64,
    /// Rows that could not be written so far.
    #[serde(default)]
    pub records_rejected: u64,
    /// Bytes that BigQuery billed for the table's queries so far.
    #[serde(default)]
    pub bytes_billed: u64,
    /// The day, by UTC, that `billed_on_day` counts for.
    #[serde(default)]
    pub billed_day: i64,
    /// Bytes that BigQuery billed on that day.
    #[serde(default)]
    pub billed_on_day: u64,
    /// Rows of the source that have no cursor, and so are not copied.
    #[serde(default)]
    pub rows_without_cursor: u64,
    /// When it was written, by the worker's clock.
    #[serde(with = "instant", default)]
    pub last_sync_time: Option<Micros>,
    /// Rows asked for per page.
    pub batch_size: u64,
    /// The window that is being read; none between windows.
    #[serde(default)]
    pub window: Option<OpenWindow>,
    /// What the ids depend on, to notice a configuration that no longer fits.
    pub identity: String,
}

impl Checkpoint {
    /// Tells whether the source is another table by now, or was emptied and filled again: a part of it that goes is most
    /// likely old, most of it that goes at once is not.
    pub fn is_of_former_source(&self, description: &Description) -> bool {
        let is_other = |(before, now)| before != now;
        let is_emptied = |(before, now): (u64, u64)| now < before.div_ceil(2);
        let created = self.source_created.as_ref().zip(description.created.as_ref());
        created.is_some_and(is_other) || self.source_rows.zip(description.rows).is_some_and(is_emptied)
    }
}

/// A window that was begun: its rows are partly in Harper, or its job was or is to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenWindow {
    /// The partitions that it reads.
    #[serde(default)]
    pub partitions: Vec<u32>,
    /// Their watermark when it was begun.
    #[serde(with = "instant", default)]
    pub started_from: Option<Micros>,
    /// Whether nobody else wrote for them when it was begun.
    #[serde(default)]
    pub is_sole: bool,
    /// The version of the schema that it was begun under.
    #[serde(default)]
    pub schema: u32,
    /// Its lower bound, exclusive; none when it starts at the beginning.
    #[serde(with = "instant", default)]
    pub after: Option<Micros>,
    /// Its upper bound, inclusive; none when it reaches to the end.
    #[serde(with = "instant", default)]
    pub until: Option<Micros>,
    /// Where the watermark will be; of a window to the end of the table, the latest that it can be.
    #[serde(with = "instant", default)]
    pub watermark: Option<Micros>,
    /// The latest cursor of the table that is known, up to there.
    #[serde(with = "instant", default)]
    pub newest: Option<Micros>,
    /// Whether BigQuery numbered the identical rows.
    #[serde(default)]
    pub numbered: bool,
    /// BigQuery's clock shortly before the query was made.
    #[serde(with = "instant", default)]
    pub made_at: Option<Micros>,
    /// The table's version then.
    #[serde(default)]
    pub version: Option<Version>,
    /// The query's job, whose result can be read again.
    pub job: JobReference,
    /// Whether the job has an id of our own, which was stored before the job was made.
    #[serde(default)]
    pub named: bool,
    /// Whether the query's bill is in the checkpoint.
    #[serde(default)]
    pub billed: bool,
    /// Rows of the result that are in Harper.
    pub offset: u64,
    /// Rows of the result; none before that is read.
    #[serde(default)]
    pub total_rows: Option<u64>,
    /// Whether nobody will read it on.
    #[serde(skip)]
    pub void: bool,
}

impl OpenWindow {
    /// Whether its job may have billed what no checkpoint tells.
    pub fn owes(&self) -> bool {
        self.named && !self.billed
    }
}
