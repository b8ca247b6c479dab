//! Reads a table again from its start, or from an instant on, because operators want that.
//!
//! The command has a number. Each partition's checkpoint tells which command it has begun, and the time of that writing,
//! its mark. To begin sets the progress back; the ordinary reading does the rest. All rows that are read from then on are
//! written at times later than the mark, also such as are stored already. So when all partitions have been read to their
//! ends, what is older is no longer in the source (`sweep`).

use super::boundary::{Moment, Note};
use super::checkpoint::Checkpoint;
use super::source::Described;
use super::{AfterWrite, Engine, Next};
use crate::config::Pace;
use crate::time::{Micros, instant, zone};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A command to read a table again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resync {
    /// A later command has a higher number.
    pub number: u64,
    /// When it was given, by the clock of the node that was told.
    #[serde(with = "instant", default)]
    pub given: Option<Micros>,
    /// Rows from this instant on are read again; none if all are.
    #[serde(with = "instant", default)]
    pub from: Option<Micros>,
    /// Records that were written before this time, by the clocks of their workers, are not in the source any more, as far as
    /// they are not written once more. Older versions replace them.
    #[serde(with = "instant", default)]
    pub gone_before: Option<Micros>,
}

/// How far a partition has come with the last such command that it has begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reread {
    /// The command.
    pub resync: Resync,
    /// The number of the last command to read all rows again that the partition has begun.
    #[serde(default)]
    pub whole: u64,
    /// When the partition began, by the worker's clock.
    #[serde(with = "instant", default)]
    pub began: Option<Micros>,
    /// The time of writing of that: what is read since has later ones.
    #[serde(with = "instant", default)]
    pub mark: Option<Micros>,
    /// How many rows the source had then, if BigQuery tells.
    #[serde(default)]
    pub source_rows: Option<u64>,
    /// The cursor behind which rows are read again; none if all are.
    #[serde(with = "instant", default)]
    pub after: Option<Micros>,
    /// Whether all of them were read.
    #[serde(default)]
    pub done: bool,
    /// The cursor up to which they were read; none if there is no such bound.
    #[serde(with = "instant", default)]
    pub until: Option<Micros>,
    /// Rows of all partitions behind this cursor, which lies in the future, were read as well.
    #[serde(with = "instant", default)]
    pub future_after: Option<Micros>,
    /// Rows that were read so far.
    #[serde(default)]
    pub rows: u64,
    /// Bytes that were billed for that so far.
    #[serde(default)]
    pub bytes_billed: u64,
}

impl Resync {
    /// Returns its number if it is for all rows.
    pub fn whole(&self) -> Option<u64> {
        self.from.is_none().then_some(self.number)
    }

    fn bound(&self, pace: &Pace) -> Option<Micros> {
        let before = |at: Micros| pace.zone.passed(at.plus(-1));
        self.from.map(before).max(pace.start.map(before))
    }
}

impl Reread {
    /// Notes that a window to the end of the table was read, which led to this watermark. If workers read spans of time, rows
    /// of the future are read by one of them for all.
    pub fn reach_end(&mut self, watermark: Micros, is_pruned: bool, reads_future: bool) {
        if self.done {
            return;
        }
        self.done = true;
        self.until = is_pruned.then_some(watermark);
        self.future_after = (is_pruned && reads_future).then(|| watermark.plus(zone::DIFFERENCE_US_MAX));
    }

    /// Begins again, because what was read before does not count any more.
    pub fn start_over(&mut self) {
        let Reread { resync, whole, began, mark, after, bytes_billed, .. } = *self;
        *self = Reread { resync, whole, began, mark, after, bytes_billed, ..Reread::default() };
    }
}

impl Checkpoint {
    /// Returns the number of the command to read again that was begun last; 0 if there was none.
    pub fn reread_number(&self) -> u64 {
        self.reread.map_or(0, |reread| reread.resync.number)
    }

    /// Sets the progress back to where a command wants it.
    pub(super) fn begin_reread(&mut self, resync: Resync, pace: &Pace, now: Micros) {
        let before = resync.from.and_then(|_| resync.bound(pace));
        self.last_timestamp = self.last_timestamp.min(before);
        self.settled = self.settled.min(self.last_timestamp);
        self.window = None;
        self.reread_by.clear();
        let after = resync.bound(pace);
        let (mark, source_rows) = (self.stamp, self.source_rows);
        let whole = resync.whole().unwrap_or_else(|| self.reread.map_or(0, |reread| reread.whole));
        let began = Some(now);
        self.reread = Some(Reread { resync, whole, began, mark, source_rows, after, ..Reread::default() });
    }
}

impl Engine {
    /// Takes a command to read the table again. It is begun at the next safe point, also in the middle of a window: what
    /// that has may be gone from the source by now. Returns whether the engine rests, and had better be woken.
    pub fn hear_resync(&mut self, resync: Resync) -> bool {
        self.holding.hear_resyncs(std::iter::once(resync));
        !self.holding.rereads_due().is_empty() && self.rests_until_poll()
    }

    /// Begins to read the own partitions again: sets their progress back.
    pub(super) fn begin_rereads(
        &mut self,
        partitions: &[u32],
        resync: Resync,
        described: Arc<Described>,
        moment: Moment,
    ) -> Next {
        self.holding.ledger.give_up_windows_of(partitions);
        // What its job billed is not forgotten.
        if let Some(row) = self.holding.debt().cloned() {
            return self.settle(row, described);
        }
        self.forget_rows();
        let bookkeeper = self.bookkeeper(moment);
        let checkpoints = bookkeeper.of_rereads(partitions, resync, &described);
        let reason = match resync.from {
            None => "the table is read again from its start".to_owned(),
            Some(from) => format!("the rows from {from} on are read again"),
        };
        let note = Note { kind: "resync_begun", reason };
        let notes = if self.holding.is_first() { vec![note] } else { Vec::new() };
        self.write_notes(notes, checkpoints, AfterWrite::Poll)
    }

    /// Notes which commit has rows of partitions that are being read again: who misses it lacks them.
    pub(super) fn note_reread(&self, checkpoints: &mut [Checkpoint], number: u64) {
        let was_done = |partition| {
            self.holding.ledger.get(partition).is_some_and(|row| row.reread.is_some_and(|reread| reread.done))
        };
        for row in checkpoints.iter_mut().filter(|row| row.reread.is_some() && !was_done(row.partition)) {
            row.reread_by.insert(self.worker.name(), number);
        }
    }

    /// Stores that own partitions have nothing more to be read again, if that was found without reading anything.
    pub(super) fn end_rereads(&mut self, described: &Described, moment: Moment) -> Option<Next> {
        let ended = self.holding.take_ended();
        if ended.is_empty() {
            return None;
        }
        let is_pruned = self.holding.rule().pruned;
        let checkpoints = self.bookkeeper(moment).of_ended_rereads(&ended, is_pruned, described);
        Some(self.write_notes(Vec::new(), checkpoints, AfterWrite::Reread))
    }
}

#[cfg(test)]
mod tests;
