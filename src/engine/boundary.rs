//! What crosses the engine's boundary: events in, commands out, and what they carry.

use super::checkpoint::Checkpoint;
use super::contents::Contents;
use super::counts::Counts;
use super::delivery::Commit;
use super::resync::Resync;
use super::retry::Jitter;
use super::validating::Wish;
use crate::bigquery::request::Request;
use crate::error::Failure;
pub use crate::log::Note;
use crate::mapping::attributes::Target;
use crate::mapping::batch::Batch;
use crate::mapping::succession::Renewed;
use crate::mapping::version::SchemaVersion;
use crate::time::Micros;
use crate::validation::Leaves;
use serde::Deserialize;

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
    /// The engine has to begin. This is only the first event.
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
    /// The end of a command that shares something.
    Shared,
    /// The end of [`Command::Rest`].
    Rested,
    /// The engine has to end, whatever it was doing. Comes instead of an outcome.
    Stop,
}

/// Something to do; its outcome is the next event.
#[derive(Debug)]
pub enum Command {
    /// Read what Harper holds of the table's progress.
    Load,
    /// Make the target table ready for rows.
    EnsureTarget {
        /// The target that is needed.
        target: Box<Target>,
        /// Whether this worker creates it at once if it is missing. Other workers wait a while for that.
        is_first: bool,
    },
    /// Store a version of the schema, unless one with its number exists.
    AdoptSchema(Box<SchemaVersion>),
    /// Send a request to BigQuery.
    Send(Request),
    /// Commit a batch and the checkpoints in one transaction.
    Write(Box<WriteOrder>),
    /// Tell the other workers the number of rows in each partition of the source. If that fails, they count themselves.
    ShareCounts(Box<Counts>),
    /// Tell all nodes what the worker's rows are in the source.
    ShareLeaves(Box<Leaves>),
    /// Tell all nodes how far the worker has compared the values of its rows.
    ShareContents(Box<Contents>),
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
    /// Whether the rows may be in Harper with ids of a former era, and then have to be replaced.
    pub replaces: bool,
    /// Whether some rows may be in Harper unchanged. It is not remembered which ones, so the host looks, and does not
    /// write them again.
    pub may_be_stored: bool,
    /// Whether all values decide about that, also of rows without a key. If no row has to be written, nothing is committed.
    pub compares_values: bool,
    /// The range of cursors in which all rows have their newest ids once this is committed, so that no row may keep an
    /// id of a former era; none if it is not known.
    pub renewed: Option<Renewed>,
    /// Further entries of the audit.
    pub notes: Vec<Note>,
    /// The progress after the rows. The first checkpoint also counts the rows. Empty if the progress is stored already.
    pub checkpoints: Vec<Checkpoint>,
    /// The time of the write for Harper. Harper keeps the later one of two versions of a record, so a node whose clock
    /// is behind could not replace a version of another node.
    pub stamp: Option<Micros>,
    /// The head, which names the worker's last commit. It is the first record of the transaction.
    pub head: Option<Commit>,
    /// The witness of this commit. It is written between the rows and the progress.
    pub witness: Option<Commit>,
    /// The proof that nothing is missing on this node up to a commit of another worker. It is written in the same
    /// place.
    pub proof: Option<Commit>,
    /// Records that were written up to this time are written once more, though they are stored already. So it is seen
    /// that the source still has them.
    pub rewrites_before: Option<Micros>,
    /// Of those, records that say they were synced before this time give way to older versions: the source does not have
    /// them any more.
    pub gone_before: Option<Micros>,
    /// The requests that will most likely be sent next, in this order. The host may start them meanwhile.
    pub ahead: Vec<Request>,
}

impl WriteOrder {
    /// Makes an order that commits no rows.
    pub fn without_rows(notes: Vec<Note>, checkpoints: Vec<Checkpoint>, head: Option<Commit>) -> WriteOrder {
        WriteOrder {
            batch: Batch::none(),
            replaces: false,
            may_be_stored: false,
            compares_values: false,
            renewed: None,
            notes,
            stamp: checkpoints.first().and_then(|first| first.stamp),
            checkpoints,
            head,
            witness: None,
            proof: None,
            rewrites_before: None,
            gone_before: None,
            ahead: Vec::new(),
        }
    }
}

/// Changes each time the component creates a target table; empty if the component never created it.
pub type Incarnation = String;

/// What Harper holds of a table's progress.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The checkpoints of all partitions.
    pub checkpoints: Vec<Checkpoint>,
    /// The rows in each partition, as some worker counted them.
    pub counts: Option<Counts>,
    /// The incarnation of the target table.
    pub incarnation: Incarnation,
    /// The newest version of the schema.
    pub schema: Option<Box<SchemaVersion>>,
    /// How many rows of the table had been rejected when it was last started by hand.
    #[serde(default)]
    pub forgiven_rows: u64,
    /// The worker's own last commit.
    #[serde(default)]
    pub last_commit: Option<Commit>,
    /// The proofs of this node: up to which commits of other workers nothing is missing.
    #[serde(default)]
    pub proofs: Vec<Commit>,
    /// Whether the node has run the table before it started.
    #[serde(default)]
    pub has_former_life: bool,
    /// The heads of all workers: what they told of their last commits before they made them.
    #[serde(default)]
    pub heads: Vec<Commit>,
    /// Those of these workers whose nodes were removed from the cluster.
    #[serde(default)]
    pub removed: Vec<String>,
    /// What the worker needs to know to validate.
    #[serde(default)]
    pub validation: Option<Wish>,
    /// The operators' last command to read the table again.
    #[serde(default)]
    pub resync: Option<Resync>,
}

/// The outcome of a commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Rows that Harper itself refused.
    pub refused: u64,
    /// Rows that could not be written, for whatever reason, and were not counted before.
    pub rejected: u64,
    /// Rows that were in Harper already, unchanged.
    pub unchanged: u64,
    /// How long the thread was busy during the commit, without waiting.
    pub busy_ms: u64,
}

/// The worker that runs an engine.
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
