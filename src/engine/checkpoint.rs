//! The progress of a table, committed together with the rows.

use super::phase::Phase;
use super::resync::Reread;
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
    /// The incarnation of the target table that the rows went to.
    #[serde(default)]
    pub incarnation: String,
    /// When the source table was created, if BigQuery tells.
    #[serde(default)]
    pub source_created: Option<String>,
    /// How many rows the source had when it was read, if BigQuery tells.
    #[serde(default)]
    pub source_rows: Option<u64>,
    /// The era of the ids of rows without a key.
    #[serde(default)]
    pub era: u32,
    /// Rows with a cursor up to here may have ids of former eras.
    #[serde(with = "instant", default)]
    pub old_ids_until: Option<Micros>,
    /// The time of the write for Harper, which keeps the later one of two versions of a record.
    #[serde(with = "instant", default)]
    pub stamp: Option<Micros>,
    /// The node that wrote last.
    pub node_id: String,
    /// The worker that wrote last, `node-index`.
    pub owner: String,
    /// The watermark: every row with a cursor up to it is in Harper.
    #[serde(with = "instant", default)]
    pub last_timestamp: Option<Micros>,
    /// The last watermark that was reached while nobody else could write for the partition.
    #[serde(with = "instant", default)]
    pub settled: Option<Micros>,
    /// The last commits in doubt, by worker, of which `settled` knows: it was taken back to before their rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub doubts: BTreeMap<String, u64>,
    /// Rows before this instant were left out; none when everything was read.
    #[serde(with = "instant", default)]
    pub start_timestamp: Option<Micros>,
    /// The zone of the cursor's values; none is UTC.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// The phase when it was written.
    pub phase: Phase,
    /// Rows written so far; a row counts each time it is written.
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
    /// Whether the partition was once read to its end. A checkpoint that does not tell is of a version that made all
    /// indexes at once.
    #[serde(default = "told_by_no_former_version")]
    pub backfilled: bool,
    /// Rows of the source that have no cursor and are therefore not copied.
    #[serde(default)]
    pub rows_without_cursor: u64,
    /// When it was written, by the worker's clock.
    #[serde(with = "instant", default)]
    pub last_sync_time: Option<Micros>,
    /// Rows requested per page.
    pub batch_size: u64,
    /// The window that is being read; none between windows.
    #[serde(default)]
    pub window: Option<OpenWindow>,
    /// The last command to read it again that it has begun.
    #[serde(default)]
    pub reread: Option<Reread>,
    /// The last commits of rows, by worker, since it began to be read again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reread_by: BTreeMap<String, u64>,
    /// The options that ids and stored values depend on, to notice a configuration that no longer fits.
    pub identity: String,
}

fn told_by_no_former_version() -> bool {
    true
}

impl Checkpoint {
    /// Tells whether the source is now another table, or was emptied and filled again. The second is assumed if more
    /// than half of the rows are gone: a smaller part was most likely deleted because it is old.
    pub fn is_of_former_source(&self, description: &Description) -> bool {
        let is_other = |(before, now)| before != now;
        let is_emptied = |(before, now): (u64, u64)| now < before.div_ceil(2);
        let created = self.source_created.as_ref().zip(description.created.as_ref());
        created.is_some_and(is_other) || self.source_rows.zip(description.rows).is_some_and(is_emptied)
    }
}

/// A window that was begun: a part of its rows is in Harper, or its job has been or will be created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenWindow {
    /// The partitions that it reads.
    #[serde(default)]
    pub partitions: Vec<u32>,
    /// The partitions' watermark when the window was begun.
    #[serde(with = "instant", default)]
    pub started_from: Option<Micros>,
    /// Whether nobody else could write for these partitions when the window was begun.
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
    /// The watermark after the window; for a window to the end of the table, the latest possible one.
    #[serde(with = "instant", default)]
    pub watermark: Option<Micros>,
    /// The latest known cursor of the table, up to that watermark.
    #[serde(with = "instant", default)]
    pub newest: Option<Micros>,
    /// Whether BigQuery numbered the identical rows.
    #[serde(default)]
    pub numbered: bool,
    /// The time shortly before the query was made, by BigQuery's clock.
    #[serde(with = "instant", default)]
    pub made_at: Option<Micros>,
    /// The table's version at that time.
    #[serde(default)]
    pub version: Option<Version>,
    /// The query's job, whose result can be read again.
    pub job: JobReference,
    /// Whether we chose the job's id, and stored it before the job was created.
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
    /// Whether no worker can continue with it.
    #[serde(skip)]
    pub void: bool,
}

impl OpenWindow {
    /// Whether its job may have billed bytes that no checkpoint contains.
    pub fn owes(&self) -> bool {
        self.named && !self.billed
    }
}
