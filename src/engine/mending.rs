//! Reads again what got lost on its way from another node.

use super::bill::Bill;
use super::boundary::{Moment, Note, WriteOrder};
use super::delivery::Commit;
use super::loss::{Loss, Piece};
use super::source::Described;
use super::status::Activity;
use super::task::Task;
use super::transfer::Transfer;
use super::{AfterWrite, Engine, Inquiry, Next};
use crate::bigquery::sql::Window;
use crate::mapping::batch::Batch;
use crate::mapping::projection::Projection;
use crate::mapping::succession::Renewed;
use crate::time::Micros;
use std::sync::Arc;

impl Engine {
    /// Takes what workers of other nodes tell of their last commits. Returns the commits, by worker and number, whose
    /// witnesses should be looked for.
    pub fn missing(&mut self, heads: Vec<Commit>) -> Vec<(String, u64)> {
        for head in &heads {
            self.holding.hear_stamp(head.stamp);
        }
        self.deliveries.wanted(heads)
    }

    /// Takes the witnesses that were found. Returns whether the engine rests, and had better be woken to mend a loss; and
    /// what the node should keep of how far nothing is missing.
    pub fn arrived(&mut self, witnesses: Vec<Commit>, now: Micros) -> (bool, Vec<Commit>) {
        self.deliveries.take(witnesses, now);
        (self.deliveries.loss(now).is_some() && self.rests_until_poll(), self.deliveries.proofs(now))
    }

    /// Reads rows again that did not arrive: for nothing from the result that they came from, or else by a query.
    pub(super) fn mend(&mut self, loss: Loss, described: Arc<Described>, moment: Moment) -> Next {
        self.deliveries.attempt(&loss.owner, moment.now);
        self.condition.set_activity(Activity::Running);
        let Projection { key, era, .. } = &*described.projection;
        // Rows without key may be here with the ids of a former era.
        let replaces = key.is_empty() && *era > 0;
        let window = match loss.piece.clone() {
            Piece::Window(window) => window,
            Piece::Rows(portion) => {
                let window = Window { after: portion.after, until: portion.until };
                // Who ended while it did that has some rows under both ids: only all of them tell which.
                let was_cut_short = replaces && self.outbox.doubt().is_some();
                // Rows that were read before the table is read again may be gone from the source.
                let is_outdated = key.is_empty() && loss.stamp <= self.holding.last_mark();
                let is_readable = portion.schema == self.schema.number() && !was_cut_short && !is_outdated;
                let task = Task::mending(loss.clone(), window, replaces);
                let pace = &self.config.pace;
                let transfer = Transfer::mend(portion, task, Arc::clone(&described), pace);
                match transfer.filter(|_| is_readable) {
                    Some(transfer) => return self.ask_for_lost(transfer),
                    None => window,
                }
            }
        };
        if let Err(failure) = Bill::check_day(self.billed_today(), &self.config.pace) {
            return Next::fail(failure, Next::Poll);
        }
        self.begin(Task::mending(loss, window, replaces), described, moment)
    }

    /// Asks for the first rows of a result that are wanted.
    pub(super) fn ask_for_lost(&self, transfer: Transfer) -> Next {
        match transfer.next_page(self.sizes.page_rows()) {
            Ok(request) => Next::Ask(Inquiry::Page(Box::new(transfer)), request),
            Err(failure) => Next::fail(failure, Next::Load),
        }
    }

    /// Writes rows that had got lost.
    ///
    /// Rows without key may be stored under other ids, of which each row that is written takes one. If Harper ends between
    /// the two, a row is there twice: here and, as far as that has arrived, on other nodes. Nothing tells later which of
    /// its ids is the former one, until all rows of a window are read again.
    pub(super) fn write_lost(
        &mut self,
        mut loss: Loss,
        mut transfer: Box<Transfer>,
        batch: Batch,
        page_starts: bool,
        moment: Moment,
    ) -> Next {
        // A row with a key may have a newer version, which stays. Another one never changes; only its id may be a former one,
        // which goes.
        let Projection { key, era, .. } = &*transfer.described.projection;
        let window = transfer.task.plan.window;
        if loss.compares {
            let rows = batch.rows.saturating_sub(batch.superseded.len()) as u64;
            self.comparing.begin_batch(rows, self.outbox.mending());
        }
        let stamp = if key.is_empty() {
            let stamp = self.holding.take_stamp(moment.now);
            self.outbox.mend(stamp, window.after, *era);
            Some(stamp)
        } else {
            // The next batch may have a newer version of a row.
            let stamp = loss.stamp;
            loss.stamp = stamp.map(|stamp| stamp.plus(1));
            stamp
        };
        if loss.is_difference() {
            self.validation.vet(&batch);
        }
        let ahead = self.pages_ahead(&transfer, page_starts);
        let is_complete = transfer.reading.is_complete();
        let is_mended = is_complete && loss.is_last;
        // A former result has the rows of some partitions alone, and perhaps only some of them are read.
        let has_all_rows = is_complete && !transfer.origin.found;
        // Nobody else may have read these rows yet, so whoever does not get them has to miss them.
        let is_new = !transfer.origin.found || loss.compares;
        let is_news = transfer.described.projection.key.is_empty() && is_new && batch.rows > 0;
        let is_somebody_away = !self.holding.is_sole_at(moment.now);
        let commit = is_news.then(|| {
            let begins_at = transfer.reading.commit();
            let portion = transfer.portion(begins_at, self.schema.number());
            self.outbox.next(&self.config.id, self.worker.name(), stamp, portion, false, is_somebody_away)
        });
        let mut order = WriteOrder {
            batch,
            replaces: transfer.task.replaces,
            may_be_stored: loss.is_difference() && !transfer.task.replaces,
            compares_values: loss.compares,
            renewed: (transfer.task.replaces && has_all_rows)
                .then(|| Renewed::all_of(window.after, window.until)),
            head: commit.clone().or_else(|| self.outbox.head(&self.config.id, self.worker.name())),
            witness: commit,
            stamp,
            proof: (is_mended && !loss.is_difference()).then(|| loss.proof()),
            rewrites_before: self.holding.last_mark().filter(|_| !loss.compares),
            gone_before: self.holding.resync().gone_before,
            ahead,
            ..WriteOrder::without_rows(Vec::new(), Vec::new(), None)
        };
        let after = if is_complete {
            if is_mended && !loss.is_difference() {
                order.notes.push(note(&loss));
            }
            AfterWrite::Mended(Box::new(loss))
        } else {
            transfer.task.mends = Some(Box::new(loss));
            AfterWrite::ReadOn(transfer)
        };
        Next::write(order, after)
    }

    /// Returns in how many milliseconds the last commit has to be told again; none if it need not be.
    pub(super) fn closes_in_ms(&self, moment: Moment) -> Option<u64> {
        self.outbox.closes_in_ms(moment.now).filter(|_| self.holding.has_others())
    }

    /// Tells of the last commit again: should it have got lost, no later one tells of it.
    pub(super) fn tell_again(&mut self, moment: Moment) -> Next {
        let stamp = Some(self.holding.take_stamp(moment.now));
        let head = self.outbox.head(&self.config.id, self.worker.name());
        let order = WriteOrder { stamp, ..WriteOrder::without_rows(Vec::new(), Vec::new(), head) };
        Next::write(order, AfterWrite::Told)
    }
}

fn note(loss: &Loss) -> Note {
    let Loss { owner, count, .. } = loss;
    let reason = format!("{count} transactions of {owner} did not arrive here; their rows were read again");
    Note { kind: "lost_between_nodes", reason }
}
