//! The checkpoints of a table: those of the worker's partitions, and all others for sums.

use super::checkpoint::{Checkpoint, OpenWindow};
use super::delivery::{Commit, Doubt};
use crate::time::zone::{self, Zone};
use crate::time::{Micros, SECOND_US};
use std::collections::{BTreeMap, BTreeSet};

/// A watermark that is ahead of BigQuery's clock by more than this comes from a wrong clock.
const CLOCK_TOLERANCE_US: i64 = 60 * SECOND_US;

/// The checkpoints of a table, by partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    rows: BTreeMap<u32, Checkpoint>,
    /// The checkpoints of other rules, which only count in sums.
    others: BTreeMap<u32, Checkpoint>,
    /// Watermarks that no checkpoint has, of partitions for which there was nothing to read.
    proven: BTreeMap<u32, Micros>,
    /// Where partitions without a checkpoint start, because they were read under another rule.
    inherited: Option<Micros>,
    /// Partitions that have nothing in a window to the end of the table, with the watermark to which it leads.
    ended: BTreeMap<u32, Micros>,
}

/// Partitions with the same watermark, which are therefore read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Their watermark.
    pub watermark: Option<Micros>,
    /// The partitions, in order.
    pub partitions: Vec<u32>,
    /// The watermark of the partitions that are next.
    pub next: Option<Micros>,
}

impl Ledger {
    /// Takes the stored checkpoints. Checkpoints of another rule only tell a watermark that all of their partitions
    /// have reached.
    pub fn of(stored: Vec<Checkpoint>, rule: &str) -> Ledger {
        let (same, others): (Vec<Checkpoint>, Vec<Checkpoint>) =
            stored.into_iter().partition(|row| row.rule == rule);
        let mut inherited = same.iter().filter_map(|row| row.inherited).max();
        for other in others.iter().map(|row| &row.rule).collect::<BTreeSet<_>>() {
            let rows: Vec<&Checkpoint> = others.iter().filter(|row| row.rule == *other).collect();
            let complete = partitions_of(other).is_some_and(|count| count == rows.len() as u64);
            if complete {
                // None is the least: such a partition was not read at all.
                inherited = inherited.max(rows.iter().map(|row| row.last_timestamp).min().flatten());
            }
        }
        let by_partition = |rows: Vec<Checkpoint>| rows.into_iter().map(|row| (row.partition, row)).collect();
        Ledger { rows: by_partition(same), others: by_partition(others), inherited, ..Ledger::default() }
    }

    /// Returns a partition's checkpoint.
    pub fn get(&self, partition: u32) -> Option<&Checkpoint> {
        self.rows.get(&partition)
    }

    /// Returns the checkpoint with a partition's counters, also under another rule.
    pub fn counters(&self, partition: u32) -> Option<&Checkpoint> {
        self.rows.get(&partition).or(self.others.get(&partition))
    }

    /// Returns where partitions without a checkpoint start.
    pub fn inherited(&self) -> Option<Micros> {
        self.inherited
    }

    /// Notes what was committed.
    pub fn set(&mut self, checkpoint: Checkpoint) {
        self.others.remove(&checkpoint.partition);
        self.rows.insert(checkpoint.partition, checkpoint);
    }

    /// Returns the cursor up to which rows of a partition may have ids of an era before `era`.
    pub fn old_ids_until(&self, partition: u32, era: u32) -> Option<Micros> {
        match self.rows.get(&partition) {
            Some(row) if row.era == era => row.old_ids_until,
            Some(_) | None => (era > 0).then_some(Micros::MAX),
        }
    }

    /// Tells whether rows of some partitions after `after` may have ids of an era before `era`.
    pub fn may_have_old_ids(&self, partitions: &[u32], era: u32, after: Option<Micros>) -> bool {
        let bounds = partitions.iter().filter_map(|partition| self.old_ids_until(*partition, era));
        bounds.max().is_some_and(|bound| after.is_none_or(|after| after < bound))
    }

    /// Tells whether rows with ids of a former era may still arrive from another node: some partition that was read has
    /// not been read to its end since the era began.
    pub fn may_get_old_ids(&self, partitions: &[u32], era: u32) -> bool {
        let was_read = |partition: &u32| self.get(*partition).is_some_and(|row| row.last_timestamp.is_some());
        let may_get = |partition: &u32| self.old_ids_until(*partition, era) == Some(Micros::MAX);
        era > 0 && partitions.iter().any(|partition| was_read(partition) && may_get(partition))
    }

    /// Tells whether some partition was read to its end since the era began.
    pub fn has_only_new_ids_somewhere(&self, era: u32) -> bool {
        self.rows.values().any(|row| row.era == era && row.old_ids_until != Some(Micros::MAX))
    }

    /// Forgets the watermarks of partitions whose checkpoints are void.
    pub fn start_over(&mut self, is_void: impl Fn(&Checkpoint) -> bool) {
        self.inherited = None;
        self.proven.clear();
        for row in self.rows.values_mut().filter(|row| is_void(row)) {
            row.last_timestamp = None;
            row.backfilled = false;
            row.settled = None;
            row.inherited = None;
            give_up(&mut row.window);
            if let Some(reread) = &mut row.reread {
                reread.start_over();
            }
        }
    }

    /// Forgets the watermarks of partitions that have not begun to be read again from the start, by the number of that
    /// command: they may be of another cursor.
    pub fn void_before(&mut self, resync: u64) {
        for row in self.rows.values_mut().filter(|row| row.reread_number() < resync) {
            self.inherited = None;
            (row.last_timestamp, row.settled, row.inherited) = (None, None, None);
        }
    }

    /// Returns the last of the times at which partitions began to be read again.
    pub fn last_mark(&self) -> Option<Micros> {
        self.rows.values().filter_map(|row| row.reread?.mark).max()
    }

    /// Notes that partitions have nothing in a window to the end of the table, which leads to a watermark.
    pub fn end(&mut self, partitions: &[u32], watermark: Micros) {
        self.ended.extend(partitions.iter().map(|partition| (*partition, watermark)));
    }

    /// Returns those of the partitions that were found to have nothing more to be read again.
    pub fn take_ended(&mut self, partitions: &[u32]) -> Vec<(u32, Micros)> {
        let ended = std::mem::take(&mut self.ended);
        let is_open = |partition: &u32| {
            let row = self.rows.get(partition);
            row.and_then(|row| row.reread).is_some_and(|reread| !reread.done)
        };
        ended.into_iter().filter(|(one, _)| partitions.contains(one) && is_open(one)).collect()
    }

    /// Tells whether all partitions with rows were once read to their end, by whichever worker.
    pub fn is_backfilled(&self) -> bool {
        !self.rows.is_empty() && self.rows.values().all(|row| row.backfilled)
    }

    /// Returns a partition's watermark.
    pub fn watermark(&self, partition: u32) -> Option<Micros> {
        self.stored_watermark(partition).max(self.proven.get(&partition).copied())
    }

    fn stored_watermark(&self, partition: u32) -> Option<Micros> {
        self.rows.get(&partition).map_or(self.inherited, |row| row.last_timestamp)
    }

    /// Notes that all rows of some partitions up to an instant have been read.
    pub fn prove(&mut self, partitions: &[u32], until: Micros) {
        for partition in partitions {
            let proven = self.proven.entry(*partition).or_insert(until);
            *proven = (*proven).max(until);
        }
    }

    /// Takes over the proven watermarks of another ledger.
    pub fn take_proofs(&mut self, other: &mut Ledger) {
        self.proven = std::mem::take(&mut other.proven);
    }

    /// Takes back watermarks that are ahead of BigQuery's clock. A clock was wrong when they were written, and nothing
    /// is proven beyond the time at which the rows were read. Tells whether there were some.
    pub fn step_back_behind(&mut self, server_time: Micros, zone: &Zone) -> bool {
        let present = zone.local(server_time);
        let is_ahead = |at: &Micros| at.since(present) > CLOCK_TOLERANCE_US;
        let proofs_before = self.proven.len();
        self.proven.retain(|_, at| !is_ahead(at));
        let mut stepped_back = self.proven.len() != proofs_before;
        for row in self.rows.values_mut().filter(|row| row.last_timestamp.as_ref().is_some_and(is_ahead)) {
            let read_at = row.last_sync_time.unwrap_or(server_time).min(server_time);
            row.last_timestamp = Some(zone.passed(read_at));
            give_up(&mut row.window);
            stepped_back = true;
        }
        stepped_back
    }

    /// Takes back the watermarks of partitions that were read under another zone than `zone`, by as much as clocks may
    /// differ. Under other rules, other rows may have been late, or have seemed to be in the future. Tells whether
    /// there were some.
    pub fn step_back_for_zone(&mut self, zone: &Zone) -> bool {
        let name = zone.name_unless_utc();
        let mut stepped_back = false;
        for row in self.rows.values_mut().filter(|row| row.time_zone != name) {
            stepped_back |= row.last_timestamp.is_some();
            row.last_timestamp = row.last_timestamp.map(|at| at.plus(-zone::DIFFERENCE_US_MAX));
            row.time_zone.clone_from(&name);
            give_up(&mut row.window);
        }
        if stepped_back {
            self.proven.clear();
        }
        stepped_back
    }

    /// Tells whether another ledger has the same stored watermarks for some partitions.
    pub fn is_same_for(&self, other: &Ledger, partitions: &[u32]) -> bool {
        let progress = |ledger: &Ledger, partition: u32| {
            (ledger.stored_watermark(partition), ledger.get(partition).map(Checkpoint::reread_number))
        };
        partitions.iter().all(|partition| progress(self, *partition) == progress(other, *partition))
    }

    /// Returns the lowest watermark of all partitions that have a checkpoint.
    pub fn lowest_of_all(&self) -> Option<Micros> {
        let known = self.rows.values().map(|row| row.last_timestamp).min();
        known.unwrap_or(self.inherited)
    }

    /// Returns a time for the next commit that is later than those of all checkpoints, whichever node's clock they came
    /// from.
    ///
    /// It is also later than that of a commit of which a Harper that ended itself has kept only the rows, without the
    /// checkpoints, because time has passed since then. Only half of the passed time counts, so that the time of a
    /// clock that was ahead comes closer to the real time again.
    pub fn next_stamp(&self, now: Micros) -> Micros {
        let rows = self.rows.values().chain(self.others.values());
        let last = rows.filter_map(|row| Some((row.stamp?, row.last_sync_time))).max();
        last.map_or(now, |(stamp, written_at)| {
            let passed_us = written_at.map_or(0, |written_at| now.since(written_at) / 2);
            now.max(stamp.plus(passed_us.max(1)))
        })
    }

    /// Returns the highest watermark of all partitions.
    pub fn newest_of_all(&self) -> Option<Micros> {
        self.rows.values().map(|row| row.last_timestamp).max().flatten().max(self.inherited)
    }

    /// Returns the lowest watermark of some partitions; none if nothing was read of one of them.
    pub fn lowest(&self, partitions: &[u32]) -> Option<Micros> {
        partitions.iter().map(|partition| self.watermark(*partition)).min().flatten()
    }

    /// Returns the last watermark that all of the partitions reached while nobody else could write for them.
    pub fn settled(&self, partitions: &[u32]) -> Option<Micros> {
        let of = |partition: &u32| self.rows.get(partition).map_or(self.inherited, |row| row.settled);
        partitions.iter().map(of).min().flatten()
    }

    /// Tells whether everything was written for the partitions while nobody else could write for them.
    pub fn is_settled(&self, partitions: &[u32]) -> bool {
        let is_settled = |partition: &u32| self.settled(&[*partition]) >= self.stored_watermark(*partition);
        partitions.iter().all(is_settled)
    }

    /// Moves `settled` back to before the rows that workers wrote in doubt. Their checkpoints said so, but may have been
    /// overwritten by those of a worker that did not know of them. Rows without key may be there under former ids.
    pub fn take_doubts(&mut self, heads: &[Commit], is_keyless: bool) {
        let doubts = heads.iter().filter_map(|head| Some((&head.owner, head.doubt?)));
        for row in self.rows.values_mut() {
            let before = std::mem::take(&mut row.doubts);
            for (owner, doubt) in doubts.clone() {
                let known = before.get(owner).copied().unwrap_or(0);
                if known < doubt.number {
                    row.settled = row.settled.min(doubt.after);
                    if is_keyless && row.era > 0 {
                        row.old_ids_until = Some(Micros::MAX);
                    }
                }
                row.doubts.insert(owner.clone(), known.max(doubt.number));
            }
        }
    }

    /// Tells whether all that a worker wrote in doubt was read again.
    pub fn has_dispelled(&self, owner: &str, doubt: Doubt) -> bool {
        let knows = |row: &Checkpoint| row.doubts.get(owner).is_some_and(|known| *known >= doubt.number);
        let is_settled = |row: &Checkpoint| row.settled >= row.last_timestamp;
        !self.rows.is_empty() && self.rows.values().all(|row| knows(row) && is_settled(row))
    }

    /// Returns those of the partitions that have the lowest watermark.
    pub fn furthest_behind(&self, partitions: &[u32]) -> Group {
        let watermark = self.lowest(partitions);
        let (group, others): (Vec<u32>, Vec<u32>) =
            partitions.iter().partition(|partition| self.watermark(**partition) == watermark);
        Group { watermark, partitions: group, next: self.lowest(&others) }
    }

    /// Returns an open window over some of the partitions that can be continued: the watermark of each of its
    /// partitions is the one from which the window started, or the one to which it leads, because its last commit may
    /// have been cut short.
    pub fn open_window(&self, partitions: &[u32]) -> Option<&OpenWindow> {
        let windows = partitions.iter().filter_map(|partition| self.get(*partition)?.window.as_ref());
        windows.filter(|window| self.fits(window, partitions)).max_by_key(|window| window.offset)
    }

    fn fits(&self, window: &OpenWindow, partitions: &[u32]) -> bool {
        let own = |partition: &u32| partitions.binary_search(partition).is_ok();
        let is_there = |partition: &u32| {
            let watermark = self.watermark(*partition);
            watermark == window.started_from || watermark == window.watermark
        };
        !window.void && window.partitions.iter().all(own) && window.partitions.iter().all(is_there)
    }

    /// Gives up all open windows.
    pub fn give_up_windows(&mut self) {
        for row in self.rows.values_mut() {
            give_up(&mut row.window);
        }
    }

    /// Gives up the open windows of some partitions.
    pub fn give_up_windows_of(&mut self, partitions: &[u32]) {
        for partition in partitions {
            if let Some(row) = self.rows.get_mut(partition) {
                give_up(&mut row.window);
            }
        }
    }

    /// Returns a checkpoint with a window that cannot be continued and whose job's bill is open. The checkpoint is that
    /// of one of some partitions or, `with_others`, of a former rule.
    pub fn debt(&self, partitions: &[u32], with_others: bool) -> Option<&Checkpoint> {
        let owes = |row: &&Checkpoint| row.window.as_ref().is_some_and(OpenWindow::owes);
        let is_stuck =
            |row: &&Checkpoint| !row.window.as_ref().is_some_and(|window| self.fits(window, partitions));
        let mut own = partitions.iter().filter_map(|partition| self.get(*partition));
        let others = || self.others.values().filter(|_| with_others).find(owes);
        own.find(|row| owes(row) && is_stuck(row)).or_else(others)
    }

    /// Tells whether a partition's known watermark is stored.
    pub fn is_stored(&self, partition: u32) -> bool {
        self.stored_watermark(partition) == self.watermark(partition)
    }

    /// Adds up a number of all checkpoints.
    pub fn sum(&self, number: impl Fn(&Checkpoint) -> u64) -> u64 {
        self.rows.values().chain(self.others.values()).map(number).fold(0, u64::saturating_add)
    }
}

/// Forgets a window, unless the bill of its job is still open.
fn give_up(window: &mut Option<OpenWindow>) {
    match window {
        Some(open) if open.owes() => open.void = true,
        Some(_) | None => *window = None,
    }
}

/// Returns the number of partitions from a rule's name.
fn partitions_of(rule: &str) -> Option<u64> {
    rule.rsplit_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::{at, checkpoint};
    use serde_json::json;

    #[test]
    fn a_table_is_backfilled_when_each_of_its_checkpoints_says_so_and_not_after_it_starts_over() {
        let day = "2024-01-01T00:00:00Z";
        let row = |partition, backfilled| Checkpoint { backfilled, ..checkpoint(partition, day, day) };
        let mut ledger = Ledger::of(vec![row(0, true), row(1, false)], "day/2");
        assert!(!ledger.is_backfilled() && !Ledger::default().is_backfilled());
        ledger.set(row(1, true));
        assert!(ledger.is_backfilled());
        ledger.start_over(|row| row.partition == 0);
        assert!(!ledger.is_backfilled());
    }

    #[test]
    fn a_checkpoint_of_a_former_version_counts_as_backfilled() {
        let day = "2024-01-01T00:00:00Z";
        assert!(Ledger::of(vec![checkpoint(0, day, day)], "day/2").is_backfilled());
    }

    #[test]
    fn what_was_read_under_another_zone_is_read_again_once_and_its_job_is_paid() {
        let berlin = Zone::new("Europe/Berlin", [(Micros::MIN, 3_600 * SECOND_US)]).unwrap();
        let watermark = "2024-01-03T00:00:00Z";
        let window = json!({
            "partitions": [0], "watermark": watermark, "newest": null, "numbered": false, "named": true,
            "job": {"projectId": "p", "jobId": "j"}, "offset": 0
        });
        let window = Some(serde_json::from_value(window).unwrap());
        let row = Checkpoint { window, ..checkpoint(0, watermark, watermark) };
        let mut ledger = Ledger::of(vec![row], "day/2");
        assert!(ledger.step_back_for_zone(&berlin));
        assert_eq!(ledger.watermark(0), Some(at("2024-01-01T21:00:00Z")));
        assert!(ledger.debt(&[0], true).is_some(), "nobody asks what the job of the open window billed");
        assert!(!ledger.step_back_for_zone(&berlin));
    }

    #[test]
    fn a_partition_that_lags_behind_does_not_hide_that_another_one_is_unsettled() {
        let (early, middle, late) = ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z");
        let stored = vec![checkpoint(0, early, early), checkpoint(1, late, middle)];
        let ledger = Ledger::of(stored, "day/2");
        assert!(ledger.is_settled(&[0]) && ledger.is_settled(&[2]));
        assert!(!ledger.is_settled(&[1]) && !ledger.is_settled(&[0, 1]));
    }

    #[test]
    fn a_watermark_ahead_of_bigquery_s_clock_is_taken_back_and_one_slightly_ahead_is_not() {
        let stored = vec![checkpoint(0, "2024-01-01T02:00:00Z", "2024-01-01T00:00:00Z")];
        let mut ledger = Ledger::of(stored, "day/2");
        ledger.prove(&[1], at("2024-01-01T03:00:00Z"));
        let utc = Zone::default();
        assert!(!ledger.clone().step_back_behind(at("2024-01-01T02:59:00Z"), &utc));
        assert!(ledger.step_back_behind(at("2024-01-01T01:00:00Z"), &utc));
        assert_eq!(ledger.watermark(0), Some(at("2024-01-01T01:00:00Z")));
        assert_eq!(ledger.watermark(1), None);
    }

    #[test]
    fn a_stamp_is_later_than_all_before_and_than_that_of_a_commit_that_kept_no_checkpoint() {
        let day = "2024-01-01T00:00:00Z";
        let (stamp, written_at) = (Some(at("2024-01-01T00:10:00Z")), Some(at(day)));
        let row = Checkpoint { stamp, last_sync_time: written_at, ..checkpoint(0, day, day) };
        let ledger = Ledger::of(vec![row], "day/2");
        let next = |seconds: i64| ledger.next_stamp(at(day).plus(seconds * SECOND_US));
        assert!(next(-7_200) > at("2024-01-01T00:10:00Z"));
        let cut = next(100);
        assert!(next(101) > cut);
        assert_eq!(next(1_300), at("2024-01-01T00:21:40Z"));
        assert_eq!(Ledger::default().next_stamp(at(day)), at(day));
    }

    #[test]
    fn what_was_written_in_doubt_unsettles_a_partition_once_until_it_is_read_again() {
        let (early, late) = ("2024-01-01T00:00:00Z", "2024-01-03T00:00:00Z");
        let of = |number, after| {
            let doubt = json!({"number": number, "after": after});
            let rows = json!({"totalRows": 1, "from": 0, "to": 1});
            let head = json!({"tableId": "t", "owner": "m-0", "number": 9, "rows": rows, "result": 1, "began": 0, "doubt": doubt});
            let head: Commit = serde_json::from_value(head).unwrap();
            (head.doubt.unwrap(), vec![head])
        };
        let (first, heads) = of(4, early);
        let mut ledger = Ledger::of(vec![checkpoint(0, late, late)], "day/2");
        ledger.take_doubts(&heads, false);
        assert_eq!(ledger.settled(&[0]), Some(at(early)));
        assert!(!ledger.has_dispelled("m-0", first));
        // What is stored tells that it was taken into account.
        let row = ledger.get(0).unwrap().clone();
        let mut ledger = Ledger::of(vec![Checkpoint { settled: Some(at(late)), ..row }], "day/2");
        ledger.take_doubts(&heads, false);
        assert!(ledger.is_settled(&[0]) && ledger.has_dispelled("m-0", first));
        let (second, heads) = of(5, early);
        assert!(!ledger.has_dispelled("m-0", second));
        ledger.take_doubts(&heads, false);
        assert_eq!(ledger.settled(&[0]), Some(at(early)));
        ledger.take_doubts(&[], false);
        assert_eq!(ledger.get(0).unwrap().doubts.len(), 0);
    }

    #[test]
    fn rows_without_key_that_are_in_doubt_may_have_former_ids() {
        let day = "2024-01-01T00:00:00Z";
        let row = Checkpoint { era: 1, old_ids_until: None, ..checkpoint(0, day, day) };
        let head = json!({
            "tableId": "t", "owner": "m-0", "number": 0, "rows": {"totalRows": 0, "from": 0, "to": 0}, "result": 0,
            "began": 0, "doubt": {"number": 4, "after": null}
        });
        let head: Commit = serde_json::from_value(head).unwrap();
        let mut ledger = Ledger::of(vec![row], "day/2");
        assert!(!ledger.may_get_old_ids(&[0], 1));
        ledger.take_doubts(&[head], true);
        assert!(ledger.may_get_old_ids(&[0], 1));
        assert_eq!(ledger.settled(&[0]), None);
    }

    #[test]
    fn old_ids_may_be_anywhere_until_a_partition_was_read_in_the_new_era() {
        let day = "2024-01-01T00:00:00Z";
        let replaced = Checkpoint { era: 1, old_ids_until: Some(at(day)), ..checkpoint(0, day, day) };
        let ledger = Ledger::of(vec![replaced], "day/2");
        assert!(!ledger.may_have_old_ids(&[0, 1], 0, None));
        assert!(ledger.may_have_old_ids(&[0], 1, None) && !ledger.may_have_old_ids(&[0], 1, Some(at(day))));
        assert!(ledger.may_have_old_ids(&[0, 1], 1, Some(at(day))));
        assert!(!ledger.may_get_old_ids(&[0, 1], 1) && ledger.may_get_old_ids(&[0], 2));
    }
}
