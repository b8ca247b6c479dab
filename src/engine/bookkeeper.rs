//! Writes checkpoints: the state of the partitions after a commit.

use super::bill::{Bill, day_of};
use super::boundary::Worker;
use super::checkpoint::Checkpoint;
use super::holding::Holding;
use super::query::Query;
use super::resync::{Reread, Resync};
use super::schema::Schema;
use super::sizes::Sizes;
use super::source::{Described, Source};
use super::transfer::Transfer;
use crate::config::TableConfig;
use crate::mapping::batch::Batch;
use crate::time::Micros;

/// Writes checkpoints, from all that they contain.
#[derive(Debug, Clone, Copy)]
pub struct Bookkeeper<'e> {
    /// The table.
    pub config: &'e TableConfig,
    /// Who writes.
    pub worker: &'e Worker,
    /// The checkpoints before.
    pub holding: &'e Holding,
    /// The schema under which rows are read.
    pub schema: &'e Schema,
    /// Knows BigQuery's clock, and the number of rows without a cursor.
    pub source: &'e Source,
    /// Knows the phase, and the size of pages.
    pub sizes: &'e Sizes,
    /// The bytes to add with the next commit.
    pub bill: &'e Bill,
    /// The worker's clock.
    pub now: Micros,
}

impl Bookkeeper<'_> {
    /// Returns the checkpoints that are true once the batch is in Harper. Within a window, that is the checkpoint of
    /// the first partition, which has the progress and counts the rows. At the end of the window, these are the
    /// checkpoints of all its partitions.
    pub fn of_batch(&self, transfer: &Transfer, batch: &Batch) -> Vec<Checkpoint> {
        let task = &transfer.task;
        let complete = transfer.reading.is_complete();
        let reached = transfer.reading.reached().filter(|_| complete);
        let is_sole = task.is_still_sole(self.holding, self.now);
        // Others may still send rows that they wrote in a former era.
        let has_replaced_all = complete && is_sole && task.replaces && self.reads_all_old_ids(transfer);
        let written = if complete { task.partitions.len() } else { 1 };
        let next = |partition: &u32| {
            let mut row = self.current(*partition, &transfer.described);
            // A clock that was set back does not take back what was read.
            row.last_timestamp = row.last_timestamp.max(reached);
            row.backfilled |= complete && task.is_open_ended();
            if complete && is_sole {
                // Rows that are read again in several windows are settled as far as the windows have come.
                let until = task.plan.window.until.or(row.last_timestamp);
                row.settled = row.settled.max(until.min(row.last_timestamp));
            }
            if let Some(reread) = row.reread.as_mut().filter(|_| complete && task.is_open_ended()) {
                reread.reach_end(task.plan.watermark, self.holding.rule().pruned, task.reads_future);
            }
            if has_replaced_all {
                row.old_ids_until = task.plan.window.after;
            }
            row
        };
        let mut checkpoints: Vec<Checkpoint> = task.partitions.iter().take(written).map(next).collect();
        if let Some(first) = checkpoints.first_mut() {
            first.records_ingested += batch.rows_to_write();
            if let Some(reread) = self.open_reread(first) {
                reread.rows += batch.rows_to_write();
            }
            self.enter_bill(first);
            first.window = if complete { None } else { transfer.open_window(self.schema.number()) };
        }
        checkpoints
    }

    /// Returns the checkpoint to commit with notes alone; none if the worker owns nothing.
    pub fn of_notes(&self, described: &Described) -> Option<Checkpoint> {
        let mut row = self.current(*self.holding.own().first()?, described);
        self.enter_bill(&mut row);
        Some(row)
    }

    /// Returns the checkpoints to commit before a query's job is created. The first one names the job. The others say
    /// where the window starts, for partitions that have no checkpoint yet.
    pub fn of_opening(&self, query: &Query) -> Vec<Checkpoint> {
        let mut others = query.task.partitions.iter().copied();
        let first = others.next();
        let others = others.filter(|partition| !self.holding.ledger.is_stored(*partition));
        let mut checkpoints: Vec<Checkpoint> =
            first.into_iter().chain(others).map(|one| self.current(one, &query.described)).collect();
        if let Some(first) = checkpoints.first_mut() {
            self.enter_bill(first);
            first.window = query.open_window(self.schema.number());
        }
        checkpoints
    }

    /// Returns a checkpoint without its window, after the job was given up. The job has billed so many bytes.
    pub fn of_debt(&self, row: Checkpoint, bytes: u64, era: u32) -> Checkpoint {
        let day = day_of(self.source.server_time());
        let old_ids_until = if row.era == era { row.old_ids_until } else { Some(Micros::MAX) };
        Checkpoint {
            window: None,
            bytes_billed: row.bytes_billed + bytes,
            billed_on_day: bytes + if row.billed_day == day { row.billed_on_day } else { 0 },
            billed_day: day,
            era,
            old_ids_until,
            stamp: Some(self.holding.next_stamp(self.now)),
            node_id: self.worker.node.clone(),
            owner: self.worker.name(),
            last_sync_time: Some(self.now),
            ..row
        }
    }

    /// Returns the checkpoints of partitions that begin to be read again.
    pub fn of_rereads(&self, partitions: &[u32], resync: Resync, described: &Described) -> Vec<Checkpoint> {
        // A table that has its indexes keeps them.
        let is_backfilled = self.holding.ledger.is_backfilled();
        let begin = |partition: &u32| {
            let mut row = self.current(*partition, described);
            row.backfilled |= is_backfilled;
            row.begin_reread(resync, &self.config.pace, self.now);
            row
        };
        partitions.iter().map(begin).collect()
    }

    /// Returns the checkpoints of partitions that have nothing more to be read again, each with its watermark.
    pub fn of_ended_rereads(
        &self,
        ended: &[(u32, Micros)],
        is_pruned: bool,
        described: &Described,
    ) -> Vec<Checkpoint> {
        let end = |(partition, watermark): &(u32, Micros)| {
            let before = self.holding.ledger.get(*partition);
            let mut row = Checkpoint {
                window: before.and_then(|row| row.window.clone()),
                ..self.current(*partition, described)
            };
            if let Some(reread) = &mut row.reread {
                reread.reach_end(*watermark, is_pruned, false);
            }
            row
        };
        let mut checkpoints: Vec<Checkpoint> = ended.iter().map(end).collect();
        if let Some(first) = checkpoints.first_mut() {
            self.enter_bill(first);
        }
        checkpoints
    }

    /// Returns what a checkpoint tells of reading the partition again, unless that had come to its end before.
    fn open_reread<'r>(&self, row: &'r mut Checkpoint) -> Option<&'r mut Reread> {
        let before = self.holding.ledger.get(row.partition).and_then(|row| row.reread);
        row.reread.as_mut().filter(|_| before.is_some_and(|before| !before.done))
    }

    fn enter_bill(&self, row: &mut Checkpoint) {
        if let Some(reread) = self.open_reread(row) {
            reread.bytes_billed += self.bill.due_bytes();
        }
        row.bytes_billed += self.bill.due_bytes();
        row.billed_on_day += self.bill.due_bytes();
    }

    /// Whether no row after the window's start has an id of a former era once the window has been read. Rows of the
    /// future, whichever partition they are in, are read by the owner of the present. No worker is done before that
    /// one.
    fn reads_all_old_ids(&self, transfer: &Transfer) -> bool {
        let era = transfer.described.projection.era;
        let is_future_done =
            transfer.task.reads_future || self.holding.ledger.has_only_new_ids_somewhere(era);
        transfer.task.is_open_ended() && is_future_done
    }

    /// Returns a partition's checkpoint as it would be without new rows.
    fn current(&self, partition: u32, described: &Described) -> Checkpoint {
        let Described { description, projection } = described;
        let Bookkeeper { config, holding, .. } = *self;
        let (ledger, era) = (&holding.ledger, projection.era);
        let before = ledger.counters(partition);
        let count = |number: fn(&Checkpoint) -> u64| before.map_or(0, number);
        let day = day_of(self.source.server_time());
        let billed_on_day = before.map_or(0, |row| if row.billed_day == day { row.billed_on_day } else { 0 });
        let without_cursor = self.source.rows_without_cursor().filter(|_| partition == 0);
        Checkpoint {
            id: format!("{}:{partition}", config.id),
            table_id: config.id.clone(),
            partition,
            rule: holding.rule().name(),
            inherited: ledger.inherited(),
            incarnation: self.schema.incarnation().clone(),
            source_created: description.created.clone(),
            source_rows: description.rows,
            era,
            old_ids_until: ledger.old_ids_until(partition, era),
            stamp: Some(holding.next_stamp(self.now)),
            node_id: self.worker.node.clone(),
            owner: self.worker.name(),
            last_timestamp: ledger.watermark(partition),
            settled: ledger.settled(&[partition]),
            reread_by: ledger.get(partition).map(|row| row.reread_by.clone()).unwrap_or_default(),
            doubts: ledger.get(partition).map(|row| row.doubts.clone()).unwrap_or_default(),
            start_timestamp: config.pace.start,
            time_zone: config.pace.zone.name_unless_utc(),
            phase: self.sizes.phase(),
            records_ingested: count(|row| row.records_ingested),
            records_rejected: count(|row| row.records_rejected),
            bytes_billed: count(|row| row.bytes_billed),
            billed_day: day,
            billed_on_day,
            backfilled: ledger.get(partition).is_some_and(|row| row.backfilled),
            rows_without_cursor: without_cursor.unwrap_or(count(|row| row.rows_without_cursor)),
            last_sync_time: Some(self.now),
            batch_size: self.sizes.page_rows(),
            window: None,
            reread: ledger.get(partition).and_then(|row| row.reread),
            identity: config.identity(&projection.key_names()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Standing;
    use crate::engine::late::LateRange;
    use crate::engine::reading::Progress;
    use crate::engine::samples::{Books, transfer};
    use crate::partition::Rule;

    /// Returns the checkpoints of one batch of so many rows, of a window of five.
    fn after(rows: usize, standing: Standing) -> Vec<Checkpoint> {
        let mut holding = Holding::new(standing);
        holding.take(Vec::new(), Rule::WHOLE, 0);
        let mut transfer = transfer(1, 5);
        let Progress::Batch(batch) = transfer.next_step(&mut LateRange::default(), rows).progress.unwrap()
        else {
            panic!("no batch");
        };
        Books::open().keeper(&holding).of_batch(&transfer, &batch)
    }

    #[test]
    fn in_mid_window_the_progress_is_the_offset_and_the_watermark_stays() {
        let checkpoints = after(3, Standing::ALONE);
        let [row] = checkpoints.as_slice() else { panic!("{checkpoints:?}") };
        assert_eq!((row.owner.as_str(), row.records_ingested, row.bytes_billed), ("n-2", 3, 7));
        assert_eq!((row.last_timestamp, row.window.as_ref().unwrap().offset), (None, 3));
    }

    #[test]
    fn a_partition_is_backfilled_at_the_end_of_a_window_that_reaches_to_the_end_of_the_table() {
        let is_backfilled = |rows| after(rows, Standing::ALONE).remove(0).backfilled;
        assert_eq!([3, 5].map(is_backfilled), [false, true]);
    }

    #[test]
    fn at_the_end_of_a_window_the_watermark_moves_to_the_newest_row_and_is_settled_if_nobody_else_wrote() {
        let end = Some(Micros(4));
        let row = after(5, Standing::ALONE).remove(0);
        assert_eq!((row.last_timestamp, row.settled, row.window), (end, end, None));
        let row = after(5, Standing { is_settled: false, ..Standing::ALONE }).remove(0);
        assert_eq!((row.last_timestamp, row.settled), (end, None));
    }
}
