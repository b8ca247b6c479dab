//! Removes from a node's copy what the source no longer has, once the table was read again.
//!
//! A record is taken for gone if it was written before its partition began to be read again: since then, each row that the
//! source has was written once more, at a later time of writing. Removals have the time of that beginning. So Harper drops
//! them wherever a row was written since, also where that has not arrived yet.

use super::Engine;
use super::checkpoint::Checkpoint;
use super::delivery::Commit;
use super::resync::{Reread, Resync};
use crate::bigquery::cursor::CursorType;
use crate::config::TableConfig;
use crate::log::Note;
use crate::mapping::id;
use crate::mapping::projection::{ID, Projection};
use crate::partition::Rule;
use crate::time::{Micros, SECOND_US, instant};
use crate::validation::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// So long after all partitions were read, the first node looks: until then, their workers notice that the source was
/// emptied meanwhile, and begin again.
const DELAY_US: i64 = 30 * SECOND_US;
/// So much later does the next node look. Most likely, the one before has removed everything by then.
const RANK_US: i64 = 30 * SECOND_US;
/// What other nodes have written and has not arrived after this time does not delay it any longer.
const PATIENCE_US: i64 = 600 * SECOND_US;
/// By how much clocks may differ, and a bit.
const MENDED_US: i64 = 3_600 * SECOND_US;
/// An attribute may hold the cursor without its microseconds.
const CUT_US: i64 = 999;

/// How a node's sweep fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Records are being removed.
    Removing,
    /// All that are gone from the source were removed.
    Done,
    /// Nothing was removed, because the source had no rows.
    Refused,
}

/// What a node removes after a command to read a table again, as it is stored in the table SyncSweep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// `tableId@node`.
    pub id: String,
    /// The table's id in the configuration.
    pub table_id: String,
    /// The node.
    pub node: String,
    /// The command's number.
    pub number: u64,
    /// How it fares.
    pub state: State,
    /// Rows that all workers have read again.
    pub rows_read: u64,
    /// Records that the node has removed.
    pub removed: u64,
    /// What BigQuery billed for reading the rows.
    pub bytes_billed: u64,
    /// When that was written, by the node's clock.
    #[serde(with = "instant", default)]
    pub at: Option<Micros>,
}

/// What a node knows of its copy.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// The number of the last command after which it has removed what is gone.
    #[serde(default)]
    pub swept: u64,
    /// When it last read rows again that had got lost on their way from another node, by its clock.
    #[serde(with = "instant", default)]
    pub mended_at: Option<Micros>,
    /// How many records it removed after the last command.
    #[serde(default)]
    pub removed: u64,
}

/// Finds the records that are gone from the source.
#[derive(Debug)]
pub struct Sweep {
    swept: Swept,
    rule: Rule,
    /// Of each partition, in order.
    marks: Vec<Mark>,
    /// The earliest mark of all.
    least: Mark,
    /// Rows are removed behind this cursor and up to that; none where there is no bound.
    after: Option<Micros>,
    until: Option<Micros>,
    /// And behind this one.
    future_after: Option<Micros>,
    cursor: CursorPlace,
    excused: BTreeSet<String>,
    /// Why nothing is removed here.
    restraint: Option<Restraint>,
    /// Whether a record has one of several versions.
    is_versioned: bool,
    resync: Resync,
    /// Records that were not read, though the source has older versions of them.
    outdated: u64,
}

/// Why a node removes nothing, though the source has rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restraint {
    /// The times at which records were written tell nothing here.
    Mended,
    /// Older versions may lie before the rows that were read.
    PartOfVersions,
    /// Rows that others have read again did not arrive here.
    Missing,
}

/// When a partition began to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    /// The time of writing.
    stamp: Micros,
    /// By the worker's clock.
    began: Micros,
}

/// Where a record has its cursor.
#[derive(Debug)]
enum CursorPlace {
    Id,
    Attribute(String, CursorType),
}

/// A record, as it was written last.
#[derive(Debug, Clone, Copy)]
pub struct Written<'r> {
    /// Its id.
    pub id: &'r str,
    /// Harper's time of that writing.
    pub stamp: Micros,
    /// The time by the clock of the worker that wrote it, if the record tells.
    pub synced_at: Option<Micros>,
    /// The value of the wanted attribute.
    pub cursor: Option<&'r str>,
}

impl Sweep {
    fn new(
        config: &TableConfig,
        node: &str,
        rows: &[&Checkpoint],
        rule: Rule,
        projection: &Projection,
    ) -> Option<Sweep> {
        let rereads: Vec<Reread> = rows.iter().filter_map(|row| row.reread).collect();
        let resync = rereads.first()?.resync;
        let is_versioned = !projection.key.is_empty() && !projection.key.contains(&projection.cursor);
        let marks: Option<Vec<Mark>> =
            rereads.iter().map(|reread| Some(Mark { stamp: reread.mark?, began: reread.began? })).collect();
        let marks = marks?;
        let sum = |number: fn(&Reread) -> u64| rereads.iter().map(number).fold(0, u64::saturating_add);
        let rows_read = sum(|reread| reread.rows);
        // Most of the rows went while they were being read.
        let has_shrunk = |row: &&Checkpoint| {
            let before = row.reread.and_then(|reread| reread.source_rows);
            before.zip(row.source_rows).is_some_and(|(before, now)| now < before.div_ceil(2))
        };
        let is_refused = rows_read == 0 || rows.iter().any(has_shrunk);
        let attribute = match projection.is_id(projection.cursor) {
            true => ID,
            false => projection.attribute(projection.cursor),
        };
        let cursor = match projection.has_cursor_in_id() {
            true => CursorPlace::Id,
            false => CursorPlace::Attribute(attribute.to_owned(), projection.cursor_type),
        };
        Some(Sweep {
            swept: Swept {
                id: format!("{}@{node}", config.id),
                table_id: config.id.clone(),
                node: node.to_owned(),
                number: resync.number,
                state: if is_refused { State::Refused } else { State::Removing },
                rows_read,
                removed: 0,
                bytes_billed: sum(|reread| reread.bytes_billed),
                at: None,
            },
            rule,
            least: marks.iter().min().copied()?,
            marks,
            after: rereads.iter().map(|reread| reread.after).max().flatten(),
            until: rereads.iter().filter_map(|reread| reread.until).min(),
            future_after: rereads.iter().filter_map(|reread| reread.future_after).max(),
            cursor,
            excused: BTreeSet::new(),
            restraint: (is_versioned && resync.from.is_some()).then_some(Restraint::PartOfVersions),
            is_versioned,
            resync,
            outdated: 0,
        })
    }

    /// Returns a time: what was written then or later stays in any case.
    pub fn stays_from(&self) -> Micros {
        self.marks.iter().map(|mark| mark.stamp).max().unwrap_or(Micros::MIN)
    }

    /// Returns the attribute that is wanted of records, if there is one.
    pub fn attribute(&self) -> Option<&str> {
        match &self.cursor {
            CursorPlace::Id => None,
            CursorPlace::Attribute(attribute, _) => Some(attribute),
        }
    }

    /// Whether this node may remove something.
    pub fn may_remove(&self) -> bool {
        self.restraint.is_none() && !self.is_refused()
    }

    fn is_refused(&self) -> bool {
        self.swept.state == State::Refused
    }

    /// Returns a time by workers' clocks, if that is of interest: records that were written again since, and say that they
    /// were synced before it, were not read, but older versions of them.
    pub fn outdated_before(&self) -> Option<Micros> {
        let is_told = self.is_versioned && self.may_remove() && self.resync.gone_before.is_none();
        is_told.then_some(self.least.began)
    }

    /// Notes that there are so many such records.
    pub fn find_outdated(&mut self, records: u64) {
        self.outdated += records;
    }

    /// Returns the command by which older versions replace them, if there are some.
    pub fn sequel(&self, now: Micros) -> Option<Resync> {
        let gone_before = self.outdated_before().filter(|_| self.outdated > 0);
        gone_before.map(|at| Resync {
            number: self.resync.number + 1,
            given: Some(now),
            gone_before: Some(at),
            ..self.resync
        })
    }

    /// Takes the ids of rows that the source has and that cannot be written: a former version of them stays.
    pub fn excuse(&mut self, ids: impl IntoIterator<Item = String>) {
        self.excused.extend(ids);
    }

    /// Tells whether a record is gone from the source, and at which time of writing it is to be removed: whatever was
    /// written later stays.
    pub fn takes(&self, record: Written<'_>) -> Option<Micros> {
        if !self.may_remove() || self.excused.contains(record.id) {
            return None;
        }
        let mark = self.mark_of(record)?;
        let is_former = record.stamp < mark.stamp && record.synced_at.is_none_or(|at| at < mark.began);
        is_former.then_some(mark.stamp)
    }

    /// Returns the mark of the partition by which a record would have been read again; none if it lies outside of what was
    /// read.
    fn mark_of(&self, record: Written<'_>) -> Option<Mark> {
        let Some((first, last)) = self.cursor_of(record) else {
            // No row that was read has such an id, or such a cursor.
            return self.after.is_none().then_some(self.least);
        };
        if self.after.is_some_and(|after| first <= after) {
            return None;
        }
        if self.until.is_none_or(|until| last <= until) {
            let [one, other] = [first, last].map(|at| self.marks.get(self.rule.partition(at) as usize));
            return one.min(other).copied();
        }
        // Rows of the future are read by one worker for all.
        self.future_after.is_some_and(|after| first > after).then_some(self.least)
    }

    /// Returns between which instants a record's cursor lies.
    fn cursor_of(&self, Written { id, cursor, .. }: Written<'_>) -> Option<(Micros, Micros)> {
        match &self.cursor {
            CursorPlace::Id => id::cursor_of(id).map(|at| (at, at)),
            CursorPlace::Attribute(_, CursorType::Integer(unit)) => {
                let at = Micros(cursor?.parse::<i64>().ok()?.checked_mul(unit.us())?);
                Some((at, at))
            }
            CursorPlace::Attribute(_, CursorType::Timestamp | CursorType::DateTime | CursorType::Date) => {
                let at = Micros::parse(cursor?)?;
                Some((at, at.plus(CUT_US)))
            }
        }
    }

    /// Notes that so many records were removed.
    pub fn remove(&mut self, records: u64) {
        self.swept.removed += records;
    }

    /// Returns what is to be stored now.
    pub fn swept(&self, now: Micros) -> Swept {
        Swept { at: Some(now), ..self.swept.clone() }
    }

    /// Ends. Returns what is to be stored, and told in the audit.
    pub fn end(&self, now: Micros) -> (Swept, Note) {
        let Swept { node, rows_read, removed, bytes_billed, .. } = &self.swept;
        if self.is_refused() {
            let reason = format!(
                "{rows_read} rows were found when the table was read again, and the source had lost most of its rows or all: \
                 {node} removed nothing"
            );
            return (self.swept(now), Note { kind: "resync_refused", reason });
        }
        let removal = match self.restraint {
            Some(Restraint::Mended) => {
                format!(
                    "{node} had to read lost rows again, and leaves it to other nodes to remove what is gone"
                )
            }
            Some(Restraint::PartOfVersions) => format!(
                "{node} removed nothing: rows with a key may have older versions before those that were read"
            ),
            Some(Restraint::Missing) => {
                format!("{node} removed nothing: it has not got all rows that other nodes have read again")
            }
            None if self.outdated > 0 => format!(
                "{node} removed {removed} rows that are no longer in the source; of {} rows, the source has older \
                 versions alone",
                self.outdated
            ),
            None => format!("{node} removed {removed} rows that are no longer in the source"),
        };
        let reason =
            format!("{rows_read} rows were read again, which billed {bytes_billed} bytes; {removal}");
        (Swept { state: State::Done, ..self.swept(now) }, Note { kind: "resync_ended", reason })
    }
}

impl Engine {
    /// Tells what this node has to remove now; none if nothing is due. `told` is what other workers tell of their last
    /// commits; `checkpoints` are this node's.
    pub fn sweep(
        &mut self,
        told: Vec<Commit>,
        checkpoints: &[Checkpoint],
        known: Known,
        Place { node, rank, haste, now, .. }: Place<'_>,
    ) -> Option<Sweep> {
        self.missing(told);
        let (rule, projection) = (self.holding.rule(), self.schema.projection()?);
        let rows = self.read_again(checkpoints, rule, projection)?;
        let mut sweep = Sweep::new(&self.config, node, &rows, rule, projection)?;
        let number = sweep.swept.number;
        if number <= known.swept || self.holding.resync().number > number {
            return None;
        }
        let since = match self.ended_at {
            Some((known, since)) if known == number && now >= since => since,
            _ => {
                self.ended_at = Some((number, now));
                now
            }
        };
        let is_after = |us: i64| now.since(since) >= us / i64::from(haste.max(1));
        let own = format!("{node}-");
        let is_here =
            |(owner, number): (&String, &u64)| owner.starts_with(&own) || self.deliveries.has(owner, *number);
        let has_all = rows.iter().flat_map(|row| &row.reread_by).all(is_here);
        let is_complete = !self.is_repairing() && self.deliveries.has_all() && has_all;
        if !has_all {
            sweep.restraint = sweep.restraint.or(Some(Restraint::Missing));
        }
        if sweep.resync.gone_before.is_some() {
            sweep.remove(known.removed);
        }
        // Lost rows with a key were written again at the time at which they got lost, or somewhat before that.
        let was_mended = known.mended_at.is_some_and(|at| at.since(sweep.least.began) > -MENDED_US);
        if was_mended && !projection.key.is_empty() {
            sweep.restraint = sweep.restraint.or(Some(Restraint::Mended));
        }
        let is_due = is_after(DELAY_US + i64::from(rank) * RANK_US);
        (is_due && (is_complete || is_after(PATIENCE_US))).then_some(sweep)
    }

    /// Returns the checkpoints of all partitions, if all of them were read again to their ends, by the same command and
    /// under this configuration.
    fn read_again<'c>(
        &self,
        checkpoints: &'c [Checkpoint],
        rule: Rule,
        projection: &Projection,
    ) -> Option<Vec<&'c Checkpoint>> {
        let (name, identity) = (rule.name(), self.config.identity(&projection.key_names()));
        let number = checkpoints.iter().map(Checkpoint::reread_number).max().filter(|number| *number > 0)?;
        let is_ended = |row: &&Checkpoint| {
            let reread = row.reread.filter(|reread| reread.done && reread.resync.number == number);
            reread.is_some() && row.rule == name && row.identity == identity
        };
        let mut rows: Vec<&Checkpoint> = checkpoints.iter().filter(is_ended).collect();
        rows.sort_by_key(|row| row.partition);
        (rows.len() as u64 == u64::from(rule.partitions)).then_some(rows)
    }
}

#[cfg(test)]
mod tests;
