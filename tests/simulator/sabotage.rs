//! Ways to break the engine on purpose, at its boundary, to see whether the worlds notice.

use bigquery_sync::bigquery::request::{Purpose, Request};
use bigquery_sync::cluster::Standing;
use bigquery_sync::engine::WriteOrder;
use bigquery_sync::engine::checkpoint::{Checkpoint, OpenWindow};
use bigquery_sync::engine::delivery::Commit;
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use serde_json::{Value, json};

use crate::node::Node;
use crate::run::LATENESS_S;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The watermark and the progress are committed before the rows.
    CheckpointWithoutRows,
    /// `<` instead of `<=` at a window's end.
    EndsExclusive,
    /// Late rows are not looked for.
    NoLateRange,
    /// A result is taken for complete one page early.
    LastPageLost,
    /// Identical rows get the same id.
    NoOccurrence,
    /// A row is taken to be in Harper when its id is, whatever its version.
    StoredById,
    /// Whatever comes last is kept.
    OlderOverwrites,
    /// A row gets another id when it is read again.
    UnstableIds,
    /// Rows under ids of a former era are not replaced.
    OldIdsStay,
    /// Rows of which each is stored under its new id may still be there under former ones.
    GroupsNotCounted,
    /// Nobody reads one of the partitions.
    PartitionForgotten,
    /// The progress is the first that a transaction puts, not the last.
    ProgressFirst,
    /// A job is made before its id is stored.
    JobNotStored,
    /// Nobody looks whether what other nodes committed has arrived.
    LossesUnnoticed,
    /// What was in the middle of arriving when a node ended is taken to be there.
    FormerLivesTrusted,
    /// A commit is taken to be there if its end is.
    OpeningsIgnored,
    /// What a node writes has the time of its own clock, whatever it replaces.
    OwnClockOnly,
    /// A window that ends at midnight is followed by one that begins a microsecond after it.
    BoundaryLost,
    /// The watermark is where the clock is, not where the rows are.
    WatermarkFollowsClock,
    /// The source looks as if it had always been the same table.
    RemakeUnnoticed,
    /// Rows without a cursor are not counted.
    NullsUncounted,
    /// The clocks of the cursor's zone are taken to show UTC.
    ZoneIgnored,
    /// When a table is read again, rows that are stored are left out as usual.
    StoredCountsAsRead,
    /// Of rows that are older than what is stored, it is not seen that the source still has them.
    NewerNotRewritten,
    /// What is gone is removed before all partitions were read.
    SweptTooEarly,
    /// What is gone is never removed.
    NothingSwept,
    /// Nodes do not tell each other what was deleted.
    DeletionsUntold,
    /// What a node puts again has the time at which it does so.
    PutAsNew,
    /// Workers do not care that others may still write versions of the same rows.
    NeverUnsettled,
}

/// Changes a request before it is sent.
pub fn request(sabotage: Option<Sabotage>, request: &mut Request) {
    let Some(body) = &mut request.body else { return };
    match sabotage {
        Some(Sabotage::EndsExclusive) => *body = body.replace("`ts` <= TIMESTAMP", "`ts` < TIMESTAMP"),
        Some(Sabotage::NoLateRange) => *body = move_start(body, |_| LATENESS_S * SECOND_US),
        Some(Sabotage::BoundaryLost) => {
            *body = move_start(body, |bound| i64::from(bound.0.rem_euclid(DAY_US) == DAY_US - 1));
        }
        Some(Sabotage::PartitionForgotten) => *body = body.replace(" IN (0, ", " IN ("),
        _ => {}
    }
}

/// Changes what a worker knows of the cluster.
pub fn standing(sabotage: Option<Sabotage>, standing: Standing) -> Standing {
    match sabotage {
        Some(Sabotage::NeverUnsettled) => Standing { is_settled: true, seen_at: None, ..standing },
        _ => standing,
    }
}

/// Returns the witness of a commit of another node, if that has arrived.
pub fn arrived(sabotage: Option<Sabotage>, here: &Node, owner: &str, number: u64) -> Option<Commit> {
    match sabotage {
        Some(Sabotage::OpeningsIgnored) => {
            let is_former = here.former.contains(&(owner.to_owned(), number));
            here.witness(owner, number).map(|witness| Commit { is_former, ..witness.clone() })
        }
        Some(Sabotage::FormerLivesTrusted) => {
            here.arrived(owner, number).map(|witness| Commit { is_former: false, ..witness })
        }
        _ => here.arrived(owner, number),
    }
}

/// Changes checkpoints before they are committed.
pub fn checkpoint(sabotage: Option<Sabotage>, checkpoint: Checkpoint) -> Checkpoint {
    let is_begun = |window: &OpenWindow| window.total_rows.is_some();
    let window = checkpoint
        .window
        .clone()
        .filter(|window| sabotage != Some(Sabotage::JobNotStored) || is_begun(window));
    Checkpoint { window, ..checkpoint }
}

/// Changes ids before they are committed.
pub fn id(sabotage: Option<Sabotage>, id: &str, order: &WriteOrder) -> String {
    match sabotage {
        Some(Sabotage::NoOccurrence) => id.split('~').next().unwrap_or_default().to_owned(),
        Some(Sabotage::UnstableIds) => {
            let job = order
                .checkpoints
                .first()
                .and_then(|first| first.window.as_ref())
                .map_or("", |window| window.job.job_id.as_str());
            format!("{id}{job}")
        }
        _ => id.to_owned(),
    }
}

/// Changes an answer before it is received.
pub fn answer(sabotage: Option<Sabotage>, purpose: Purpose, text: &mut String) {
    if !matches!(sabotage, Some(Sabotage::RemakeUnnoticed | Sabotage::NullsUncounted)) {
        return;
    }
    let mut body: Value = serde_json::from_str(text).unwrap();
    if sabotage == Some(Sabotage::NullsUncounted) && body["schema"]["fields"][0]["name"] == "row_count" {
        body["rows"][0]["f"][0]["v"] = json!("0");
    }
    if let Some(table) = body.as_object_mut()
        && sabotage == Some(Sabotage::RemakeUnnoticed)
        && purpose == Purpose::DescribeTable
    {
        table.remove("creationTime");
        table.remove("numRows");
    }
    *text = body.to_string();
}

/// Changes the checkpoints by which a node decides whether to remove what is gone.
pub fn sweeps_after(sabotage: Option<Sabotage>, mut checkpoints: Vec<Checkpoint>) -> Vec<Checkpoint> {
    match sabotage {
        Some(Sabotage::NothingSwept) => checkpoints.clear(),
        Some(Sabotage::SweptTooEarly) => {
            for reread in checkpoints.iter_mut().filter_map(|row| row.reread.as_mut()) {
                (reread.done, reread.rows) = (true, reread.rows + 1);
            }
        }
        _ => {}
    }
    checkpoints
}

/// Changes the progress before it is committed.
pub fn late_checkpoint(sabotage: Option<Sabotage>, checkpoint: &mut Checkpoint, now: Micros) {
    if sabotage == Some(Sabotage::WatermarkFollowsClock) && checkpoint.window.is_none() {
        checkpoint.last_timestamp = Some(now.plus(-2 * SECOND_US));
    }
}

/// Moves a query's lower bound by so many microseconds.
fn move_start(body: &str, by_us: impl Fn(Micros) -> i64) -> String {
    const BOUND: &str = "`ts` > TIMESTAMP '";
    let Some((before, rest)) = body.split_once(BOUND) else { return body.to_owned() };
    let Some((bound, after)) = rest.split_once("+00'") else { return body.to_owned() };
    let Some(bound) = Micros::parse(bound) else { return body.to_owned() };
    let mut text = Vec::new();
    bound.plus(by_us(bound)).write_civil(&mut text, b' ');
    format!("{before}{BOUND}{}+00'{after}", String::from_utf8_lossy(&text))
}
