//! Copies a query's result to Harper: pages in, batches out, and progress with every commit.

use super::boundary::{Answer, Moment, Receipt, WriteOrder};
use super::breaker::Side;
use super::checkpoint::Checkpoint;
use super::loss::Loss;
use super::query::{self, Query};
use super::reading::{Progress, Step};
use super::status::Activity;
use super::transfer::{Origin, Transfer};
use super::{AfterWrite, Engine, Inquiry, Next, Written};
use crate::bigquery::page::Page;
use crate::bigquery::request::Request;
use crate::error::{Failure, Kind};
use crate::mapping::batch::Batch;

impl Engine {
    pub(super) fn query_answered(
        &mut self,
        mut query: Box<Query>,
        request: Request,
        outcome: Result<Answer, Failure>,
    ) -> Next {
        let page = match self.open_page(&request, outcome) {
            Ok(page) => page,
            Err(failure) if failure.kind == Kind::WindowTooLarge => return self.cut_window(failure, &query),
            Err(failure) => {
                let may_repeat = query.may_repeat(failure.kind);
                let repeat = || Next::Ask(Inquiry::Query(query), request);
                let next = if may_repeat { repeat() } else { Next::Describe(None) };
                return Next::fail(failure, next);
            }
        };
        if page.envelope().complete {
            return self.open_result(*query, page);
        }
        match Query::result_request(&page, self.sizes.page_rows()) {
            Ok(request) => await_result(query, request),
            Err(failure) => Next::fail(failure, Next::Describe(None)),
        }
    }

    pub(super) fn result_answered(
        &mut self,
        query: Box<Query>,
        request: Request,
        outcome: Result<Answer, Failure>,
    ) -> Next {
        match self.open_page(&request, outcome) {
            Ok(page) if page.envelope().complete => self.open_result(*query, page),
            Ok(_) => await_result(query, request),
            Err(failure) if query::may_come(failure.kind, false) => {
                Next::fail(failure, Next::Ask(Inquiry::Result(query), request))
            }
            Err(failure) if failure.kind == Kind::WindowTooLarge => self.cut_window(failure, &query),
            Err(failure) if failure.kind == Kind::Unavailable && query.job.is_some() => {
                self.look_at_job(failure, query)
            }
            Err(failure) => {
                self.lose_result(unless_of_others(failure, &query.origin), query.task.mends.as_deref(), 0)
            }
        }
    }

    /// Reads smaller windows from now on, for which the rows have to be counted first.
    pub(super) fn cut_window(&mut self, failure: Failure, query: &Query) -> Next {
        if query.task.mends.is_none() {
            let rows = || self.holding.rows_counted().filter(|_| query.task.is_whole_table());
            let unit = self.sizes.unit_to_cut();
            self.sizes.halve_window(query.described.description.rows.or_else(rows));
            if self.sizes.unit_to_cut() != unit {
                self.holding.forget_counts();
            }
        }
        self.lose_result(failure, query.task.mends.as_deref(), 0)
    }

    fn open_result(&mut self, query: Query, page: Page) -> Next {
        let bytes_billed = if query.origin.named { 0 } else { page.envelope().bytes_billed.unwrap_or(0) };
        let mends = query.task.mends.clone();
        match Transfer::open(query, page, &self.config.pace) {
            Ok(transfer)
                if transfer.counting_bytes() > self.memory_bytes.saturating_sub(self.late.bytes()) =>
            {
                self.sizes.number_identical();
                let message =
                    "the window has more rows than memory to count identical ones: BigQuery numbers them";
                self.lose_result(Failure::new(Kind::WindowTooLarge, message), mends.as_deref(), bytes_billed)
            }
            Ok(transfer) => {
                if transfer.task.mends.is_none() {
                    self.late.begin(&transfer.task.partitions);
                }
                Next::ReadOn(Box::new(transfer))
            }
            Err(failure) if failure.kind == Kind::ResponseMalformed => {
                Next::fail(failure, Next::Describe(None))
            }
            Err(failure) => self.lose_result(failure, mends.as_deref(), 0),
        }
    }

    pub(super) fn page_answered(
        &mut self,
        mut transfer: Box<Transfer>,
        request: Request,
        outcome: Result<Answer, Failure>,
    ) -> Next {
        let page = match self.open_page(&request, outcome) {
            Ok(page) => page,
            Err(failure) if failure.kind == Kind::PermissionDenied && transfer.origin.found => {
                return self.lose_page(unless_of_others(failure, &transfer.origin), *transfer);
            }
            Err(failure) if query::may_come(failure.kind, true) => {
                return Next::fail(failure, Next::Ask(Inquiry::Page(transfer), request));
            }
            Err(failure) => return self.lose_page(failure, *transfer),
        };
        if !page.envelope().complete {
            let delay_ms = transfer.pauses.next_ms();
            return Next::rest(delay_ms, Next::Ask(Inquiry::Page(transfer), request));
        }
        match transfer.take_page(page) {
            Ok(()) => Next::ReadOn(transfer),
            Err(failure) => self.lose_page(failure, *transfer),
        }
    }

    fn lose_page(&mut self, failure: Failure, mut transfer: Transfer) -> Next {
        // What a job under an id of our own billed is asked for.
        let bytes = if transfer.origin.named { 0 } else { transfer.reading.take_bytes_billed() };
        self.lose_result(failure, transfer.task.mends.as_deref(), bytes)
    }

    /// Makes a new query for a result that cannot be used, and that perhaps mends a loss. The former one is billed all
    /// the same.
    pub(super) fn lose_result(&mut self, failure: Failure, mends: Option<&Loss>, bytes: u64) -> Next {
        self.bill.add(bytes);
        match mends {
            Some(loss) if loss.compares => self.comparing.lose_result(),
            Some(loss) => self.deliveries.lose_result(&loss.owner),
            None => self.holding.ledger.give_up_windows(),
        }
        Next::fail(failure, Next::Describe(None))
    }

    /// Cuts the next batch out of the page, or asks for the next page.
    pub(super) fn read_on(&mut self, mut transfer: Box<Transfer>, moment: Moment) -> Next {
        let rows_max = self.sizes.batch_rows(transfer.rows_left(self.sizes.page_rows()));
        let Step { page_starts, progress } = transfer.next_step(&mut self.late, rows_max);
        let progress = match progress {
            Ok(progress) => progress,
            Err(failure) if failure.kind == Kind::ResultLost => return self.lose_page(failure, *transfer),
            // The page is asked for again, from the first row that was not yet read.
            Err(failure) => match transfer.next_page(self.sizes.page_rows()) {
                Ok(request) => return Next::fail(failure, Next::Ask(Inquiry::Page(transfer), request)),
                Err(_) => return Next::fail(failure, Next::Load),
            },
        };
        self.condition.succeed(Side::BigQuery);
        match progress {
            Progress::NeedsPage => {
                let (rows, row_bytes) = (transfer.reading.page_rows_read(), transfer.reading.row_bytes());
                self.sizes.learn_page(rows, row_bytes, &self.config.pace);
                match transfer.next_page(self.sizes.page_rows()) {
                    Ok(request) => Next::Ask(Inquiry::Page(transfer), request),
                    Err(failure) => Next::fail(failure, Next::Load),
                }
            }
            Progress::Batch(batch) if is_empty(&batch) && !transfer.reading.is_complete() => {
                Next::rest(0, Next::ReadOn(transfer))
            }
            Progress::Batch(batch) => self.write(transfer, batch, page_starts, moment),
        }
    }

    fn write(
        &mut self,
        mut transfer: Box<Transfer>,
        batch: Batch,
        page_starts: bool,
        moment: Moment,
    ) -> Next {
        let bytes = transfer.reading.take_bytes_billed();
        if let Some(loss) = transfer.task.mends.take() {
            self.bill.add(bytes);
            return self.write_lost(*loss, transfer, batch, page_starts, moment);
        }
        if transfer.origin.named {
            self.bill.job_bytes = bytes;
        } else {
            self.bill.add(bytes);
        }
        let plan = transfer.task.plan;
        if bytes > 0 && plan.window.after.is_some() && plan.window.until.is_none() {
            self.bill.poll_bytes = Some(bytes);
        }
        let mut checkpoints = self.bookkeeper(moment).of_batch(&transfer, &batch);
        let ahead = self.pages_ahead(&transfer, page_starts);
        // Rows of the future are read now by one worker, now by another.
        let is_of_future = transfer.described.projection.era > 0 && batch.newest > Some(plan.watermark);
        let replaces = is_of_future || transfer.task.replaces;
        let may_be_stored = self.late.is_incomplete() && transfer.task.rereads() && !replaces;
        let stamp = checkpoints.first().and_then(|first| first.stamp);
        let is_last = transfer.reading.is_complete() && self.holding.is_sole_at(moment.now);
        let renewed =
            transfer.task.renewed(transfer.described.projection.era, self.holding.rule()).filter(|_| is_last);
        let is_sole = transfer.task.is_still_sole(&self.holding, moment.now);
        let is_in_doubt = !transfer.described.projection.key.is_empty() && !is_sole;
        let is_somebody_away = !self.holding.is_sole_at(moment.now);
        let commit = (batch.rows > 0).then(|| {
            let begins_at = transfer.reading.commit();
            let portion = transfer.portion(begins_at, self.schema.number());
            self.outbox.next(
                &self.config.id,
                self.worker.name(),
                stamp,
                portion,
                is_in_doubt,
                is_somebody_away,
            )
        });
        if let Some(commit) = &commit {
            self.note_reread(&mut checkpoints, commit.number);
        }
        self.meter.wrote(batch.rows as u64, moment.now);
        self.condition.set_activity(Activity::Running);
        let after = if transfer.reading.is_complete() {
            self.close(*transfer, moment)
        } else {
            AfterWrite::ReadOn(transfer)
        };
        let notes = std::mem::take(&mut self.notes);
        let order = WriteOrder {
            batch,
            replaces,
            may_be_stored,
            compares_values: false,
            renewed,
            notes,
            checkpoints,
            stamp,
            head: commit.clone().or_else(|| self.outbox.head(&self.config.id, self.worker.name())),
            witness: commit,
            proof: None,
            rewrites_before: self.holding.last_mark(),
            gone_before: self.holding.resync().gone_before,
            ahead,
        };
        Next::write(order, after)
    }

    /// Returns the requests for the next pages. They are given once for each page, when its first rows are written.
    pub(super) fn pages_ahead(&self, transfer: &Transfer, page_starts: bool) -> Vec<Request> {
        let pages = if page_starts { self.sizes.pages_ahead() } else { 0 };
        transfer.pages_ahead(pages, self.sizes.page_rows())
    }

    /// Learns what a completely read window tells of the source, whether its last rows arrive in Harper or not.
    fn close(&mut self, transfer: Transfer, moment: Moment) -> AfterWrite {
        self.sizes.learn_row(transfer.reading.row_bytes());
        let own = self.holding.own();
        if transfer.has_all_rows(own, &self.config) {
            self.source.count_without_cursor(0, &transfer.described.description, moment.now);
        }
        if let Some(version) = transfer.read_version(own) {
            // Of rows that nobody remembers, it is not known whether they are news.
            self.source.learn_trust(version, transfer.reading.has_news() && !self.late.is_incomplete());
        }
        AfterWrite::Close(Box::new(transfer.close(own, &self.config.pace)))
    }

    pub(super) fn written(
        &mut self,
        written: Written,
        after: AfterWrite,
        outcome: Result<Receipt, Failure>,
        moment: Moment,
    ) -> Next {
        let Written { mut checkpoints, commit } = written;
        let receipt = match outcome {
            Ok(receipt) => receipt,
            // Whether the commit happened is unknown: the stored checkpoints tell.
            Err(failure) => {
                self.bill.doubt_commit();
                self.comparing.forget_batch();
                return Next::fail(failure, Next::Load);
            }
        };
        self.condition.succeed(Side::Harper);
        if matches!(after, AfterWrite::Poll) {
            return Next::Poll;
        }
        self.count_written(&mut checkpoints, receipt);
        if !checkpoints.is_empty() {
            self.bill.save();
        }
        match (self.comparing.end_batch(receipt.unchanged, receipt.refused), commit) {
            // Nothing was committed.
            (Some(mending), _) => self.outbox.mend_no_more(mending),
            (None, Some(commit)) => self.outbox.made(commit, moment.now),
            (None, None) => {}
        }
        for checkpoint in checkpoints {
            self.holding.ledger.set(checkpoint);
        }
        let (is_backlog_left, next) = match after {
            AfterWrite::ReadOn(transfer) => (false, Next::ReadOn(transfer)),
            AfterWrite::Close(closing) => {
                let was_last = closing.conclude(&mut self.source, &mut self.late);
                (!was_last, Next::RestUntilPoll)
            }
            AfterWrite::MakeJob(query) => (false, self.make_job(query)),
            AfterWrite::Poll => (false, Next::Poll),
            AfterWrite::Mended(loss) if loss.compares => {
                self.outbox.mended(moment.now);
                (false, self.portion_compared(&loss, moment))
            }
            AfterWrite::Mended(loss) => {
                self.deliveries.mended(&loss);
                if loss.is_difference() {
                    self.validation.repaired(loss.stamp);
                }
                self.outbox.mended(moment.now);
                (true, Next::RestUntilPoll)
            }
            AfterWrite::Told => {
                self.outbox.close();
                (false, Next::RestUntilPoll)
            }
            AfterWrite::Reread => (true, Next::RestUntilPoll),
            AfterWrite::Rest => (false, Next::RestUntilPoll),
        };
        if let Err(failure) = self.holding.check_rejected(self.config.pace.rejected_rows_max) {
            return Next::fail(failure, Next::Load);
        }
        if self.holding.is_outdated() {
            // Others may own these partitions now.
            return Next::Load;
        }
        if is_backlog_left { Next::Describe(None) } else { next }
    }

    /// Learns from what a commit came to, and corrects what the checkpoints count.
    fn count_written(&mut self, checkpoints: &mut [Checkpoint], receipt: Receipt) {
        let Some(first) = checkpoints.first_mut() else { return };
        let before = self.holding.ledger.counters(first.partition);
        let ingested = before.map_or(0, |before| before.records_ingested);
        let rows = first.records_ingested.saturating_sub(ingested);
        self.sizes.batch.learn(usize::try_from(rows).unwrap_or(usize::MAX), receipt.busy_ms);
        first.records_rejected += receipt.rejected;
        let not_written = receipt.refused + receipt.unchanged;
        first.records_ingested = first.records_ingested.saturating_sub(not_written);
    }
}

fn await_result(mut query: Box<Query>, request: Request) -> Next {
    let delay_ms = query.pauses.next_ms();
    Next::rest(delay_ms, Next::Ask(Inquiry::Result(query), request))
}

/// A result of an earlier run may belong to other credentials than today's.
fn unless_of_others(failure: Failure, origin: &Origin) -> Failure {
    if failure.kind != Kind::PermissionDenied || !origin.found {
        return failure;
    }
    let message = "the result of an earlier run belongs to other credentials; it is queried again";
    Failure::new(Kind::ResultLost, message)
}

fn is_empty(batch: &Batch) -> bool {
    batch.rows == 0 && batch.rejections.is_empty()
}
