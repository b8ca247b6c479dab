//! What crosses the engine's boundary: events in, commands out, and what they carry.

use super::checkpoint::Checkpoint;
use super::counts::Counts;
use super::delivery::Commit;
use super::retry::Jitter;
use crate::bigquery::request::Request;
use crate::error::Failure;
use crate::mapping::attributes::Target;
use crate::mapping::batch::Batch;
use crate::mapping::succession::Renewed;
use crate::mapping::version::SchemaVersion;
use crate::time::Micros;
use serde::{Deserialize, Serialize};

/// When an event happened, and the randomness that the engine may use for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The worker's clock.
    pub now: Micros,
    /// A fresh random number.
    pub jitter: Jitter,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The engine is to begin. Only the first event.
    Start,
    /// The outcome of [`Command::Load`].
    Loaded(Result<Box<Stored>, Failure>),
    /// The outcome of [`Command::EnsureTarget`].
    TargetReady(Result<Incarnation, Failure>),
    /// The outcome of [`Command::AdoptSchema`].
    SchemaAdopted(Result<(), Failure>),
    /// The outcome of [`Command::Send`].
    Answered(Result<Answer, Failure>),
    /// The outcome of [`Command::Write`].
    Written(Result<Receipt, Failure>),
    /// The end of [`Command::ShareCounts`].
    CountsShared,
    /// The end of [`Command::Rest`].
    Rested,
    /// The engine is to end, whatever it was doing; comes instead of an outcome.
    Stop,
}

/// Something to do; its outcome is the next event.
#[derive(Debug)]
pub enum Command {
    /// Read what Harper holds of the table's progress.
    Load,
    /// Make the target table ready for rows.
    EnsureTarget {
        /// What it is to be like.
        target: Box<Target>,
        /// Whether this worker is the first to make it if it is missing; others wait a while for that.
        is_first: bool,
    },
    /// Store a version of the schema, unless one with its number is stored.
    AdoptSchema(Box<SchemaVersion>),
    /// Send a request to BigQuery.
    Send(Request),
    /// Commit a batch and the checkpoints in one transaction.
    Write(Box<WriteOrder>),
    /// Tell the other workers how many rows the source's partitions have. Should that fail, they count themselves.
    ShareCounts(Box<Counts>),
    /// Do nothing for a while.
    Rest {
        /// How long.
        delay_ms: u64,
    },
    /// Nothing more will be done; no event may follow.
    Halt,
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The server's clock, from the `Date` header.
    pub server_time: Option<Micros>,
    /// From the `Retry-After` header.
    pub retry_after_ms: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

/// What to commit in one transaction.
#[derive(Debug, Clone)]
pub struct WriteOrder {
    /// The rows.
    pub batch: Batch,
    /// Whether the rows may be in Harper with ids of a former era, and then are to be replaced.
    pub replaces: bool,
    /// Whether rows may be in Harper just as they are, and then are not to be written: it is not remembered which ones.
    pub may_be_stored: bool,
    /// The cursors of which all rows have their newest ids once this is committed, so that none may stay in Harper with an
    /// id of a former era; none when that is not known.
    pub renewed: Option<Renewed>,
    /// What else belongs into the audit.
    pub notes: Vec<Note>,
    /// The progress after them; the first one also counts the rows. None where it is known already.
    pub checkpoints: Vec<Checkpoint>,
    /// What Harper is to take for the time of the writing: of two versions of a record it keeps the later one, so that a
    /// node whose clock is behind could not replace what another one has written.
    pub stamp: Option<Micros>,
    /// What the worker tells of its last commit, the first record of the transaction.
    pub head: Option<Commit>,
    /// Which commit's rows are there once this is committed: between the rows and the progress.
    pub witness: Option<Commit>,
    /// Up to which commit of another worker nothing is missing on this node once this is committed: in the same place.
    pub proof: Option<Commit>,
    /// A request that will most likely be sent next and may be started meanwhile.
    pub ahead: Option<Request>,
}

impl WriteOrder {
    /// One that commits no rows.
    pub fn without_rows(notes: Vec<Note>, checkpoints: Vec<Checkpoint>, head: Option<Commit>) -> WriteOrder {
        WriteOrder {
            batch: Batch::none(),
            replaces: false,
            may_be_stored: false,
            renewed: None,
            notes,
            stamp: checkpoints.first().and_then(|first| first.stamp),
            checkpoints,
            head,
            witness: None,
            proof: None,
            ahead: None,
        }
    }
}

/// An entry of the audit that is not about a single row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What it is about, as a stable word.
    pub kind: &'static str,
    /// What there is to say.
    pub reason: String,
}

/// Changes when a component makes a target table (anew); empty if none ever made it.
pub type Incarnation = String;

/// What Harper holds of a table's progress.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The checkpoints of all partitions.
    pub checkpoints: Vec<Checkpoint>,
    /// What some worker counted.
    pub counts: Option<Counts>,
    /// That of the target table.
    pub incarnation: Incarnation,
    /// The newest version of the schema.
    pub schema: Option<Box<SchemaVersion>>,
    /// How many rows of the table had been rejected when it was started by hand last.
    #[serde(default)]
    pub forgiven_rows: u64,
    /// The worker's own last commit.
    #[serde(default)]
    pub last_commit: Option<Commit>,
    /// Up to which commits of other workers nothing is missing on this node because that was mended.
    #[serde(default)]
    pub proofs: Vec<Commit>,
    /// What the workers told of their last commits before they made them.
    #[serde(default)]
    pub heads: Vec<Commit>,
}

/// What a commit came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Rows that Harper itself refused.
    pub refused: u64,
    /// Rows that could not be written, for whatever reason, and were not counted before.
    pub rejected: u64,
    /// Rows that were in Harper already, just as they are.
    pub unchanged: u64,
    /// How long the thread was busy from the commit's start to its end, without its waiting.
    pub busy_ms: u64,
}

/// Who runs an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The node's name.
    pub node: String,
    /// The worker thread's index.
    pub index: u32,
}

impl Worker {
    /// Returns the worker's name in the cluster.
    pub fn name(&self) -> String {
        format!("{}-{}", self.node, self.index)
    }
}
