//! From a query's answer to rows in Harper: pages in, batches out, progress with every commit.

use super::bill::day_of;
use super::breaker::Side;
use super::checkpoint::{Checkpoint, OpenWindow};
use super::reading::{self, Progress, Reading, Step};
use super::status::Activity;
use super::{AfterRest, Answer, Command, Engine, Moment, Plan, Receipt, State, Task, WriteOrder, window};
use crate::bigquery::page::{JobReference, Page};
use crate::bigquery::request::{self, Purpose, Request};
use crate::bigquery::sql::{Selection, Window};
use crate::error::{Failure, Kind};
use crate::mapping::batch::{Batch, BatchBuilder};
use crate::time::{Micros, SECOND_US};

/// Pause before a running query is asked for again, on endpoints that do not hold the request open; it doubles.
pub(super) const QUERY_POLL_MS: u64 = 250;
/// The pause grows up to this.
const QUERY_POLL_MS_MAX: u64 = 8_000;

/// Rows per Harper transaction, adapted to how long a commit keeps the event loop busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    rows: usize,
}

impl Default for BatchSize {
    fn default() -> BatchSize {
        BatchSize { rows: 250 }
    }
}

impl BatchSize {
    const ROWS_MIN: usize = 200;
    /// More rows would keep Harper's event loop busy for longer than requests should wait.
    const ROWS_MAX: usize = 500;
    /// Commits that keep it busy for longer than this are made smaller.
    const SLOW_MS: u64 = 40;
    /// Commits that keep it busy for less than this may grow.
    const FAST_MS: u64 = 20;

    /// Learns how long the commit of a batch kept the event loop busy.
    fn learn(&mut self, rows: usize, busy_ms: u64) {
        if busy_ms > Self::SLOW_MS {
            self.rows = (self.rows * 3 / 4).max(Self::ROWS_MIN);
        } else if busy_ms < Self::FAST_MS && rows >= self.rows {
            self.rows = (self.rows * 5 / 4).min(Self::ROWS_MAX);
        }
    }
}

impl Engine {
    /// Goes on with a result of which a part is in Harper.
    pub(super) fn resume(&mut self, open: OpenWindow, moment: Moment) -> Command {
        let (Some(projection), Some(watermark)) = (&self.projection, open.watermark) else {
            return self.forget_window();
        };
        if open.schema.max(1) != self.schema_version() {
            return self.forget_window();
        }
        let plan = Plan { window: Window { after: open.after, until: open.until }, watermark };
        let task = Task {
            plan,
            partitions: open.partitions.clone(),
            started_from: open.started_from,
            selection: Selection::All,
            is_sole: open.is_sole && self.standing.is_settled_at(moment.now),
            replaces: self.may_have_old_ids(&open.partitions, open.after),
            reads_future: !self.rule.pruned,
        };
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
        self.task = Some(task);
        self.reading = Some(reading);
        self.queried_version = None;
        self.query_server_time = None;
        self.polled_at = None;
        self.condition.set_activity(Activity::Running);
        self.send(request)
    }

    /// Plans anew when the result of the window that was being read is no longer of use.
    fn forget_window(&mut self) -> Command {
        self.drop_window();
        self.describe()
    }

    fn drop_window(&mut self) {
        self.reading = None;
        self.ledger.forget_windows();
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
        let (Some(projection), Some(task)) = (&self.projection, &self.task) else { return self.describe() };
        let (plan, numbered) = (task.plan, self.is_numbered(task));
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
        self.bill.add(bytes);
        self.drop_window();
        self.fail(failure, AfterRest::Describe, moment)
    }

    /// Cuts the next batch out of the page, or asks for the next page.
    pub(super) fn read_on(&mut self, moment: Moment) -> Command {
        let (Some(projection), Some(reading)) = (&self.projection, &mut self.reading) else {
            return self.describe();
        };
        let Step { page_starts, progress } =
            reading.next_step(projection, &self.recent, self.batch_size.rows);
        let progress = match progress {
            Ok(progress) => progress,
            Err(failure) if failure.kind == Kind::ResultLost => return self.lose_result(failure, moment),
            Err(failure) => return self.reread_page(failure, moment),
        };
        let nothing_to_write = matches!(&progress, Progress::Batch(batch)
            if batch.rows == 0 && batch.rejections.is_empty() && !reading.is_complete());
        self.condition.succeed(Side::BigQuery);
        match progress {
            Progress::NeedsPage => self.ask_for_page(moment),
            Progress::Batch(_) if nothing_to_write => {
                self.state = State::Resting(AfterRest::ReadOn);
                Command::Rest { delay_ms: 0 }
            }
            Progress::Batch(batch) => self.write(batch, page_starts, moment),
        }
    }

    /// Decodes the next batch while the current one is being written; of use when the host has time for it, and
    /// harmless at any other time.
    pub fn prepare(&mut self) {
        if let (State::Writing(_), Some(projection), Some(reading)) =
            (&self.state, &self.projection, &mut self.reading)
        {
            reading.prepare(projection, &self.recent, self.batch_size.rows);
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
        self.bill.add(bytes);
        let Some(reading) = &self.reading else { return self.describe() };
        let window = reading.plan.window;
        if bytes > 0 && window.after.is_some() && window.until.is_none() {
            self.bill.poll_bytes = Some(bytes);
        }
        let complete = reading.is_complete();
        let checkpoints = self.next_checkpoints(reading, &batch, moment);
        let page_end = reading.offset - reading.page_rows_read() + self.page_rows;
        let ahead = match &reading.job {
            Some(job) if page_starts && page_end < reading.total_rows => {
                Some(request::read_result(job, page_end, self.page_rows))
            }
            _ => None,
        };
        // Rows of the future are read now by one worker, now by another.
        let is_of_future = self.era() > 0 && batch.newest > Some(reading.plan.watermark);
        let replaces = is_of_future || self.task.as_ref().is_some_and(|task| task.replaces);
        if complete {
            self.close_window(moment.now);
        }
        self.meter.wrote(batch.rows as u64, moment.now);
        self.condition.set_activity(Activity::Running);
        self.state = State::Writing(checkpoints.clone());
        let notes = std::mem::take(&mut self.notes);
        Command::Write(Box::new(WriteOrder { batch, replaces, notes, checkpoints, ahead }))
    }

    /// Takes from a completely read window what the next one needs to know.
    fn close_window(&mut self, now: Micros) {
        let (Some(reading), Some(task)) = (self.reading.take(), self.task.take()) else { return };
        let window = reading.plan.window;
        let read_to_end = window.until.is_none() && task.partitions == self.own;
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
        self.read_future = reads_future(&task.selection);
        let lateness_us =
            i64::try_from(self.config.pace.lateness_s).unwrap_or(i64::MAX).saturating_mul(SECOND_US);
        let settled = self.query_server_time.map(|at| at.plus(lateness_us.saturating_neg()));
        self.reread = read_to_end || settled.is_none_or(|settled| reading.plan.watermark > settled);
        self.backlog_waits = !read_to_end;
        self.next_recent = Some(reading.into_recent());
        self.last_partitions = task.partitions;
    }

    /// Whether the table has never held a row. It may be about to be filled with rows of any time, so that nothing is
    /// concluded from the time at which it was found empty; to read it from the start once more costs nothing.
    fn is_waiting_for_history(&self, reading: &Reading) -> bool {
        let is_empty = self.description.as_ref().is_some_and(|description| description.rows == Some(0));
        let read_to_end = reading.plan.window.until.is_none();
        is_empty && read_to_end && reading.total_rows == 0 && self.watermark().is_none()
    }

    /// Returns the checkpoints that are true once the batch is in Harper: in mid-window that of the first partition,
    /// which keeps the progress and counts the rows; at its end, those of all.
    fn next_checkpoints(&self, reading: &Reading, batch: &Batch, moment: Moment) -> Vec<Checkpoint> {
        let Some(task) = &self.task else { return Vec::new() };
        let complete = reading.is_complete();
        let moves = complete && !self.is_waiting_for_history(reading);
        let is_sole = task.is_sole && self.standing.is_settled_at(moment.now);
        let open = |job: &JobReference| OpenWindow {
            partitions: task.partitions.clone(),
            started_from: task.started_from,
            is_sole: task.is_sole,
            schema: self.schema_version(),
            after: reading.plan.window.after,
            until: reading.plan.window.until,
            watermark: Some(reading.plan.watermark),
            numbered: reading.numbered,
            job: job.clone(),
            billed: reading.is_billed(),
            offset: reading.offset,
            total_rows: reading.total_rows,
        };
        let key_names = self.projection.as_ref().map(|projection| projection.key_names()).unwrap_or_default();
        let identity = self.config.identity(&key_names);
        let written = if complete { task.partitions.len() } else { 1 };
        let mut checkpoints: Vec<Checkpoint> = task
            .partitions
            .iter()
            .take(written)
            .map(|partition| {
                let before = self.ledger.watermark(*partition);
                // A clock that was set back does not take back what was read.
                let watermark = if moves { before.max(Some(reading.plan.watermark)) } else { before };
                let settled = self.ledger.settled(&[*partition]);
                let settled = if moves && is_sole { watermark } else { settled };
                let row = self.checkpoint_of(*partition, watermark, &identity, moment);
                let replaced_all = complete && task.replaces && self.reads_all_old_ids(task);
                let old_ids_until = if replaced_all { reading.plan.window.after } else { row.old_ids_until };
                Checkpoint { settled, old_ids_until, ..row }
            })
            .collect();
        if let Some(first) = checkpoints.first_mut() {
            first.records_ingested += batch.rows_to_write();
            first.records_rejected += batch.rejections.len() as u64;
            first.bytes_billed += self.bill.unsaved_bytes;
            first.billed_on_day += self.bill.unsaved_bytes;
            first.window = if complete { None } else { reading.job.as_ref().map(open) };
        }
        checkpoints
    }

    /// Commits what there is to note of a table that has no rows to write.
    pub(super) fn write_notes(&mut self, moment: Moment) -> Command {
        let (Some(projection), Some(partition)) = (&self.projection, self.own.first().copied()) else {
            return self.rest_until_poll(moment);
        };
        let batch = BatchBuilder::new(projection).finish();
        let identity = self.config.identity(&projection.key_names());
        let (watermark, settled) = (self.ledger.watermark(partition), self.ledger.settled(&[partition]));
        let mut checkpoint = self.checkpoint_of(partition, watermark, &identity, moment);
        checkpoint.settled = settled;
        checkpoint.bytes_billed += self.bill.unsaved_bytes;
        checkpoint.billed_on_day += self.bill.unsaved_bytes;
        let checkpoints = vec![checkpoint];
        self.state = State::Writing(checkpoints.clone());
        let notes = std::mem::take(&mut self.notes);
        Command::Write(Box::new(WriteOrder { batch, replaces: false, notes, checkpoints, ahead: None }))
    }

    fn checkpoint_of(
        &self,
        partition: u32,
        watermark: Option<Micros>,
        identity: &str,
        moment: Moment,
    ) -> Checkpoint {
        let before = self.ledger.counters(partition);
        let day = day_of(self.server_time);
        let without_cursor = self.meter.rows_without_cursor.filter(|_| partition == 0);
        Checkpoint {
            id: format!("{}:{partition}", self.config.id),
            table_id: self.config.id.clone(),
            partition,
            rule: self.rule.name(),
            inherited: self.ledger.inherited(),
            incarnation: self.incarnation.clone(),
            era: self.era(),
            old_ids_until: self.ledger.old_ids_until(partition, self.era()),
            node_id: self.worker.node.clone(),
            owner: self.worker.name(),
            last_timestamp: watermark,
            settled: None,
            start_timestamp: self.config.pace.start,
            phase: self.phase,
            records_ingested: before.map_or(0, |before| before.records_ingested),
            records_rejected: before.map_or(0, |before| before.records_rejected),
            bytes_billed: before.map_or(0, |before| before.bytes_billed),
            billed_day: day,
            billed_on_day: before.map_or(0, |b| if b.billed_day == day { b.billed_on_day } else { 0 }),
            rows_without_cursor: without_cursor
                .unwrap_or(before.map_or(0, |before| before.rows_without_cursor)),
            last_sync_time: Some(moment.now),
            batch_size: self.page_rows,
            window: None,
            identity: identity.to_owned(),
        }
    }

    pub(super) fn written(
        &mut self,
        mut checkpoints: Vec<Checkpoint>,
        outcome: Result<Receipt, Failure>,
        moment: Moment,
    ) -> Command {
        let receipt = match outcome {
            Ok(receipt) => receipt,
            // Whether the commit happened is unknown: the stored checkpoints tell.
            Err(failure) => return self.fail(failure, AfterRest::Load, moment),
        };
        self.condition.succeed(Side::Harper);
        if let Some(recent) = self.next_recent.take() {
            self.recent = recent;
        }
        let mut rejected_now = 0;
        if let Some(first) = checkpoints.first_mut() {
            let before = self.ledger.counters(first.partition);
            let (ingested, rejected) =
                before.map_or((0, 0), |one| (one.records_ingested, one.records_rejected));
            let rows = first.records_ingested.saturating_sub(ingested);
            self.batch_size.learn(usize::try_from(rows).unwrap_or(usize::MAX), receipt.busy_ms);
            rejected_now = first.records_rejected.saturating_sub(rejected) + receipt.refused;
            first.records_rejected += receipt.refused;
            first.records_ingested = first.records_ingested.saturating_sub(receipt.refused);
        }
        self.bill.save();
        for checkpoint in checkpoints {
            self.ledger.set(checkpoint);
        }
        if let Err(failure) = self.meter.reject(rejected_now, self.config.pace.rejected_rows_max) {
            return self.fail(failure, AfterRest::Load, moment);
        }
        if self.standing.share != self.share {
            // Others may own these partitions now.
            return self.load();
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

pub(super) fn reads_future(selection: &Selection) -> bool {
    match selection {
        Selection::All | Selection::Partitions(..) => true,
        Selection::Segments(_, _, segments) => segments.iter().any(|segment| segment.to.is_none()),
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
        size.learn(BatchSize::ROWS_MAX, 30);
        assert_eq!(size.rows, BatchSize::ROWS_MAX);
    }
}
