//! From a query's answer to rows in Harper: pages in, batches out, progress with every commit.

use super::breaker::Side;
use super::checkpoint::{Checkpoint, OpenWindow};
use super::reading::{self, Progress, Reading};
use super::status::Activity;
use super::{AfterRest, Answer, Command, Engine, Moment, Plan, Receipt, State, WriteOrder, window};
use crate::bigquery::page::{JobReference, Page};
use crate::bigquery::request::{self, Purpose, Request};
use crate::bigquery::sql::Window;
use crate::error::{Failure, Kind};
use crate::harper::batch::Batch;
use crate::time::{DAY_US, Micros, SECOND_US};

/// Pause before a running query is asked for again, on endpoints that do not hold the request open; it doubles.
pub(super) const QUERY_POLL_MS: u64 = 250;
/// The pause grows up to this.
const QUERY_POLL_MS_MAX: u64 = 8_000;

/// Rows per Harper transaction, adapted to how long a commit takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    rows: usize,
}

impl Default for BatchSize {
    fn default() -> BatchSize {
        BatchSize { rows: 500 }
    }
}

impl BatchSize {
    const ROWS_MIN: usize = 50;
    /// More rows would keep Harper's event loop busy for longer than requests should wait.
    const ROWS_MAX: usize = 1_000;
    /// Commits that take longer than this are made smaller.
    const SLOW_MS: u64 = 40;
    /// Commits that take less than this may grow.
    const FAST_MS: u64 = 20;

    /// Learns how long the commit of a full batch took.
    fn learn(&mut self, rows: usize, elapsed_ms: u64) {
        if elapsed_ms > Self::SLOW_MS {
            self.rows = (self.rows * 3 / 4).max(Self::ROWS_MIN);
        } else if elapsed_ms < Self::FAST_MS && rows >= self.rows {
            self.rows = (self.rows * 5 / 4).min(Self::ROWS_MAX);
        }
    }
}

impl Engine {
    /// Goes on with a result of which a part is in Harper.
    pub(super) fn resume(&mut self, open: OpenWindow) -> Command {
        let (Some(projection), Some(watermark)) = (&self.projection, open.watermark) else {
            return self.forget_window();
        };
        let plan = Plan { window: Window { after: open.after, until: open.until }, watermark };
        let remember_after = window::lower_bound(Some(watermark), projection.cursor_type, &self.config.pace);
        let job = Some(open.job.clone());
        let mut reading =
            Reading::new(plan, open.numbered, job, open.total_rows, open.offset, remember_after);
        if open.billed {
            reading.forget_bytes_billed();
        }
        if !projection.key.is_empty() || open.numbered {
            // The front need only be read again to count identical rows.
            reading.skip_to(open.offset);
        }
        let request = request::read_result(&open.job, reading.offset, self.page_rows);
        self.plan = Some(plan);
        self.reading = Some(reading);
        self.queried_version = None;
        self.query_server_time = None;
        self.polled_at = None;
        self.activity = Activity::Running;
        self.send(request)
    }

    /// Plans anew when the result of the window that was being read is no longer of use.
    fn forget_window(&mut self) -> Command {
        self.drop_window();
        self.describe()
    }

    fn drop_window(&mut self) {
        self.reading = None;
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.window = None;
        }
    }

    pub(super) fn query_answered(
        &mut self,
        request: Request,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Command {
        let page = match self.open_page(Purpose::StartQuery, outcome) {
            Ok(page) => page,
            Err(failure) => {
                // Whoever got no answer may repeat the request, which runs the query once; after a refusal a new query
                // must be made. A server that failed may have run the query all the same, or may always fail with it.
                let unanswered =
                    matches!(failure.kind, Kind::Timeout | Kind::Unreachable | Kind::ResponseMalformed);
                let failed_once = failure.kind == Kind::Unavailable && !self.query_repeated;
                self.query_repeated |= failed_once;
                let repeat = unanswered || failed_once;
                let after = if repeat { AfterRest::Resend(request) } else { AfterRest::Describe };
                return self.fail(failure, after, moment);
            }
        };
        if page.envelope().complete {
            return self.open_result(page, moment);
        }
        match page.envelope().job.clone() {
            Some(job) => self.wait_for_job(request::read_result(&job, 0, self.page_rows)),
            None => self.fail(unnamed_job(), AfterRest::Describe, moment),
        }
    }

    fn wait_for_job(&mut self, request: Request) -> Command {
        let delay_ms = (QUERY_POLL_MS << self.query_waits.min(10)).min(QUERY_POLL_MS_MAX);
        self.query_waits = self.query_waits.saturating_add(1);
        self.state = State::Resting(AfterRest::Resend(request));
        Command::Rest { delay_ms }
    }

    /// Begins to read a result, from its first page.
    fn open_result(&mut self, page: Page, moment: Moment) -> Command {
        let (Some(projection), Some(plan)) = (&self.projection, self.plan) else { return self.describe() };
        let numbered = self.is_numbered(&plan);
        let envelope = page.envelope();
        if let Err(failure) = reading::check_schema(envelope, projection, numbered) {
            return self.fail(failure, AfterRest::Describe, moment);
        }
        let Some(total_rows) = envelope.total_rows else {
            let failure = Failure::new(Kind::ResponseMalformed, "BigQuery did not tell the number of rows");
            return self.fail(failure, AfterRest::Describe, moment);
        };
        let remember_after =
            window::lower_bound(Some(plan.watermark), projection.cursor_type, &self.config.pace);
        let mut reading = Reading::new(plan, numbered, envelope.job.clone(), total_rows, 0, remember_after);
        reading.take_page(page);
        self.reading = Some(reading);
        self.read_on(moment)
    }

    pub(super) fn page_answered(
        &mut self,
        request: Request,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Command {
        let page = match self.open_page(Purpose::ReadResult, outcome) {
            Ok(page) => page,
            Err(failure) => return self.page_failed(request, failure, moment),
        };
        if !page.envelope().complete {
            return self.wait_for_job(request);
        }
        let Some(reading) = &mut self.reading else { return self.open_result(page, moment) };
        if page.envelope().total_rows.is_some_and(|total| total != reading.total_rows) {
            let failure = Failure::new(Kind::ResultLost, "the query's result has another number of rows now");
            return self.lose_result(failure, moment);
        }
        let numbered = reading.numbered;
        let checked =
            self.projection.as_ref().map(|known| reading::check_schema(page.envelope(), known, numbered));
        if let Some(Err(failure)) = checked {
            return self.lose_result(failure, moment);
        }
        reading.take_page(page);
        self.read_on(moment)
    }

    /// Asks for the page again, or for a new result when this one will not come any more.
    fn page_failed(&mut self, request: Request, failure: Failure, moment: Moment) -> Command {
        let may_come = match failure.kind {
            Kind::ResultLost | Kind::NotFound | Kind::QueryInvalid => false,
            Kind::Timeout
            | Kind::Unreachable
            | Kind::ResponseMalformed
            | Kind::RateLimited
            | Kind::Unauthenticated => true,
            // Before the query is done, this may be its own failure, which repeating the request only repeats. A
            // result that was begun is there, and reading on is free.
            _ => self.reading.is_some(),
        };
        if may_come {
            self.fail(failure, AfterRest::Resend(request), moment)
        } else {
            self.lose_result(failure, moment)
        }
    }

    fn lose_result(&mut self, failure: Failure, moment: Moment) -> Command {
        // The query is billed, whether its result can be used or not.
        let bytes = self.reading.as_mut().map_or(0, Reading::take_bytes_billed);
        self.bill(bytes);
        self.drop_window();
        self.fail(failure, AfterRest::Describe, moment)
    }

    /// Cuts the next batch out of the page, or asks for the next page.
    pub(super) fn read_on(&mut self, moment: Moment) -> Command {
        let (Some(projection), Some(reading)) = (&self.projection, &mut self.reading) else {
            return self.describe();
        };
        let page_starts = reading.page_rows_read() == 0;
        let progress = match reading.next_batch(projection, &self.recent, self.batch_size.rows) {
            Ok(progress) => progress,
            Err(failure) if failure.kind == Kind::ResultLost => return self.lose_result(failure, moment),
            Err(failure) => return self.reread_page(failure, moment),
        };
        let nothing_to_write = matches!(&progress, Progress::Batch(batch)
            if batch.rows == 0 && batch.rejections.is_empty() && !reading.is_complete());
        self.succeed(Side::BigQuery);
        match progress {
            Progress::NeedsPage => self.ask_for_page(moment),
            Progress::Batch(_) if nothing_to_write => {
                self.state = State::Resting(AfterRest::ReadOn);
                Command::Rest { delay_ms: 0 }
            }
            Progress::Batch(batch) => self.write(batch, page_starts, moment),
        }
    }

    /// Asks again for a page that turned out to be malformed, from the first row that was not yet read.
    fn reread_page(&mut self, failure: Failure, moment: Moment) -> Command {
        let after = self.next_page_request().map_or(AfterRest::Load, AfterRest::Resend);
        self.fail(failure, after, moment)
    }

    fn ask_for_page(&mut self, moment: Moment) -> Command {
        self.adapt_page_rows();
        match self.next_page_request() {
            Some(request) => self.send(request),
            None => self.fail(unnamed_job(), AfterRest::Load, moment),
        }
    }

    /// Asks for no more rows than BigQuery put into the last page, or the page fetched ahead would miss its start; and
    /// for more again once pages come full.
    fn adapt_page_rows(&mut self) {
        let read = self.reading.as_ref().map_or(0, Reading::page_rows_read);
        if read > 0 && read < self.page_rows {
            self.page_rows = read;
        } else if read > 0 {
            self.page_rows = (self.page_rows * 2).min(self.phase.page_rows(&self.config.pace));
        }
    }

    fn next_page_request(&self) -> Option<Request> {
        let reading = self.reading.as_ref()?;
        Some(request::read_result(reading.job.as_ref()?, reading.offset, self.page_rows))
    }

    fn write(&mut self, batch: Batch, page_starts: bool, moment: Moment) -> Command {
        let bytes = self.reading.as_mut().map_or(0, Reading::take_bytes_billed);
        self.bill(bytes);
        let Some(reading) = &self.reading else { return self.describe() };
        let complete = reading.is_complete();
        let checkpoint = self.next_checkpoint(reading, &batch, moment);
        let page_end = reading.offset - reading.page_rows_read() + self.page_rows;
        let ahead = match &reading.job {
            Some(job) if page_starts && page_end < reading.total_rows => {
                Some(request::read_result(job, page_end, self.page_rows))
            }
            _ => None,
        };
        if complete {
            self.close_window(moment.now);
        }
        self.meter.wrote(batch.rows as u64, moment.now);
        self.activity = Activity::Running;
        self.state = State::Writing(Box::new(checkpoint.clone()));
        let notes = std::mem::take(&mut self.notes);
        Command::Write(Box::new(WriteOrder { batch, notes, checkpoint, ahead }))
    }

    /// Takes from a completely read window what the next one needs to know.
    fn close_window(&mut self, now: Micros) {
        let Some(reading) = self.reading.take() else { return };
        let window = reading.plan.window;
        let read_to_end = window.until.is_none();
        if let Some(description) = self.description.as_ref().filter(|_| read_to_end && window.after.is_none())
        {
            let counts_all = description.rows == Some(reading.total_rows) && !description.streaming;
            if counts_all && self.config.filter.is_none() {
                // The window had all rows that the table has, so that none is without a cursor.
                self.without_cursor_counted = Some((now, description.version.clone()));
                self.meter.rows_without_cursor = Some(0);
            }
        }
        if read_to_end && self.queried_version.is_some() {
            // A version that stayed the same while rows came cannot be relied on.
            let changed_unseen = self.read_version == self.queried_version && reading.has_news();
            self.version_trusted &= !changed_unseen;
        }
        self.read_version = if read_to_end { self.queried_version.take() } else { None };
        let lateness_us =
            i64::try_from(self.config.pace.lateness_s).unwrap_or(i64::MAX).saturating_mul(SECOND_US);
        let settled = self.query_server_time.map(|at| at.plus(lateness_us.saturating_neg()));
        self.reread = read_to_end || settled.is_none_or(|settled| reading.plan.watermark > settled);
        self.backlog_waits = !read_to_end;
        self.next_recent = Some(reading.into_recent());
        self.plan = None;
    }

    /// Whether the table has never held a row. It may be about to be filled with rows of any time, so that nothing is
    /// concluded from the time at which it was found empty; to read it from the start once more costs nothing.
    fn is_waiting_for_history(&self, reading: &Reading) -> bool {
        let is_empty = self.description.as_ref().is_some_and(|description| description.rows == Some(0));
        is_empty && reading.total_rows == 0 && self.watermark().is_none()
    }

    /// Returns the checkpoint that is true once the batch is in Harper.
    fn next_checkpoint(&self, reading: &Reading, batch: &Batch, moment: Moment) -> Checkpoint {
        let before = self.checkpoint.as_ref();
        let complete = reading.is_complete();
        let watermark = if complete && !self.is_waiting_for_history(reading) {
            // A clock that was set back does not take back what was read.
            self.watermark().max(Some(reading.plan.watermark))
        } else {
            self.watermark()
        };
        let open = |job: &JobReference| OpenWindow {
            after: reading.plan.window.after,
            until: reading.plan.window.until,
            watermark: Some(reading.plan.watermark),
            numbered: reading.numbered,
            job: job.clone(),
            billed: reading.is_billed(),
            offset: reading.offset,
            total_rows: reading.total_rows,
        };
        let day = self.server_time.0.div_euclid(DAY_US);
        let key_names = self.projection.as_ref().map(|projection| projection.key_names()).unwrap_or_default();
        Checkpoint {
            id: format!("{}:0", self.config.id),
            table_id: self.config.id.clone(),
            partition: 0,
            node_id: self.worker.node.clone(),
            owner: self.worker_name(),
            last_timestamp: watermark,
            start_timestamp: self.config.pace.start,
            phase: self.phase,
            records_ingested: before.map_or(0, |before| before.records_ingested) + batch.rows_to_write(),
            records_rejected: before.map_or(0, |before| before.records_rejected)
                + batch.rejections.len() as u64,
            bytes_billed: before.map_or(0, |before| before.bytes_billed) + self.meter.bytes_billed,
            billed_day: day,
            billed_on_day: self.billed_on(day),
            rows_without_cursor: self
                .meter
                .rows_without_cursor
                .unwrap_or(before.map_or(0, |b| b.rows_without_cursor)),
            last_sync_time: Some(moment.now),
            batch_size: self.page_rows,
            window: if complete { None } else { reading.job.as_ref().map(open) },
            identity: self.config.identity(&key_names),
        }
    }

    pub(super) fn written(
        &mut self,
        checkpoint: Checkpoint,
        outcome: Result<Receipt, Failure>,
        moment: Moment,
    ) -> Command {
        let receipt = match outcome {
            Ok(receipt) => receipt,
            // Whether the commit happened is unknown: the stored checkpoint tells.
            Err(failure) => return self.fail(failure, AfterRest::Load, moment),
        };
        self.succeed(Side::Harper);
        if let Some(recent) = self.next_recent.take() {
            self.recent = recent;
        }
        let (ingested, rejected) = self
            .checkpoint
            .as_ref()
            .map_or((0, 0), |before| (before.records_ingested, before.records_rejected));
        let rows =
            usize::try_from(checkpoint.records_ingested.saturating_sub(ingested)).unwrap_or(usize::MAX);
        self.batch_size.learn(rows, receipt.elapsed_ms);
        self.rejected_since_start += checkpoint.records_rejected.saturating_sub(rejected) + receipt.refused;
        self.meter.bytes_billed = 0;
        self.checkpoint = Some(Checkpoint {
            records_rejected: checkpoint.records_rejected + receipt.refused,
            records_ingested: checkpoint.records_ingested.saturating_sub(receipt.refused),
            ..checkpoint
        });
        let allowed = self.config.pace.rejected_rows_max;
        if self.rejected_since_start > allowed {
            let message = format!(
                "{} rows could not be written, limits.maxRejectedRows is {allowed}: SyncAudit tells which and why",
                self.rejected_since_start
            );
            return self.fail(Failure::new(Kind::TooManyRejectedRows, message), AfterRest::Load, moment);
        }
        if self.reading.is_some() {
            return self.read_on(moment);
        }
        if self.backlog_waits {
            return self.describe();
        }
        self.rest_until_poll(moment)
    }
}

fn unnamed_job() -> Failure {
    Failure::new(Kind::ResponseMalformed, "BigQuery did not name the query's job")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_when_commits_are_slow_and_grow_when_they_are_fast_within_bounds() {
        let mut size = BatchSize::default();
        for _ in 0..20 {
            size.learn(size.rows, 500);
        }
        assert_eq!(size.rows, BatchSize::ROWS_MIN);
        for _ in 0..20 {
            size.learn(size.rows, 1);
        }
        assert_eq!(size.rows, BatchSize::ROWS_MAX);
        size.learn(3, 1);
        size.learn(1_000, 30);
        assert_eq!(size.rows, BatchSize::ROWS_MAX);
    }
}
