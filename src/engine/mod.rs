//! Keeps one Harper table equal to one BigQuery table: one event in, one command out.
//!
//! The engine never acts, waits or looks at a clock. Its durable state is the checkpoint, which is committed
//! with the rows; whatever else it knows can be lost at any point and is found out again.

pub mod checkpoint;
pub mod phase;
pub mod reading;
pub mod retry;
pub mod status;
pub mod window;

use crate::bigquery::failure::{self, Subject};
use crate::bigquery::page::{JobReference, Page};
use crate::bigquery::projection::Projection;
use crate::bigquery::request::{self, Purpose, Request};
use crate::bigquery::schema::{Field, WireField};
use crate::bigquery::sql::{self, Window};
use crate::config::{Connection, TableConfig};
use crate::error::{Failure, Kind, Recovery};
use crate::harper::batch::{Batch, Layout};
use crate::time::Micros;
use checkpoint::{Checkpoint, OpenWindow};
use phase::Phase;
use reading::{Progress, Reading, Recent};
use retry::{Backoff, Jitter};
use serde::Deserialize;
use status::{Activity, Meter, Status};

/// Pause before a running query is asked for again, on endpoints that do not hold the request open.
const QUERY_POLL_MS: u64 = 250;

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
    /// The engine is to begin. Only the first event.
    Start,
    /// The outcome of [`Command::LoadCheckpoint`].
    Loaded(Result<Option<Box<Checkpoint>>, Failure>),
    /// The outcome of [`Command::EnsureTarget`].
    TargetReady(Result<(), Failure>),
    /// The outcome of [`Command::Send`].
    Answered(Result<Answer, Failure>),
    /// The outcome of [`Command::Write`].
    Written(Result<Receipt, Failure>),
    /// The end of [`Command::Rest`].
    Rested,
    /// The engine is to end, whatever it was doing; comes instead of an outcome.
    Stop,
}

/// Something to do; its outcome is the next event.
#[derive(Debug)]
pub enum Command {
    /// Read the checkpoint from Harper.
    LoadCheckpoint,
    /// Make the target table ready for the layout.
    EnsureTarget(Layout),
    /// Send a request to BigQuery.
    Send(Request),
    /// Commit a batch and the checkpoint in one transaction.
    Write(Box<WriteOrder>),
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
#[derive(Debug)]
pub struct WriteOrder {
    /// The rows.
    pub batch: Batch,
    /// The progress after them.
    pub checkpoint: Checkpoint,
    /// A request that will most likely be sent next and may be started meanwhile.
    pub ahead: Option<Request>,
}

/// What a commit came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Rows that Harper itself refused.
    pub refused: u64,
}

/// Who runs an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The node's name.
    pub node: String,
    /// The worker thread's index.
    pub index: u32,
}

/// What the engine waits for, and what it does then.
#[derive(Debug)]
enum State {
    New,
    Loading,
    Describing,
    Preparing { server_time: Micros },
    Querying(Request),
    Paging(Request),
    Writing(Box<Checkpoint>),
    Resting(AfterRest),
    Ended,
}

#[derive(Debug)]
enum AfterRest {
    Load,
    Describe,
    Resend(Request),
    ReadOn,
}

/// Keeps one table in sync.
#[derive(Debug)]
pub struct Engine {
    config: TableConfig,
    connection: Connection,
    worker: Worker,
    state: State,
    checkpoint: Option<Checkpoint>,
    projection: Option<Projection>,
    target_ready: bool,
    phase: Phase,
    page_rows: u64,
    window: Option<Window>,
    reading: Option<Reading>,
    recent: Recent,
    backoff: Backoff,
    meter: Meter,
    activity: Activity,
    last_failure: Option<Failure>,
    rejected_since_start: u64,
    renew_token: bool,
    queried_at: Option<Micros>,
}

impl Engine {
    /// Makes an engine that waits for [`Event::Start`].
    pub fn new(config: TableConfig, connection: Connection, worker: Worker) -> Engine {
        let page_rows = config.pace.page_rows.initial;
        Engine {
            config,
            connection,
            worker,
            state: State::New,
            checkpoint: None,
            projection: None,
            target_ready: false,
            phase: Phase::Initial,
            page_rows,
            window: None,
            reading: None,
            recent: Recent::default(),
            backoff: Backoff::default(),
            meter: Meter::default(),
            activity: Activity::Starting,
            last_failure: None,
            rejected_since_start: 0,
            renew_token: false,
            queried_at: None,
        }
    }

    /// Takes an event and returns what to do next.
    pub fn step(&mut self, event: Event, moment: Moment) -> Command {
        let state = std::mem::replace(&mut self.state, State::Ended);
        match (state, event) {
            (_, Event::Stop) => self.end(Activity::Stopped),
            (State::New, Event::Start) => self.load(),
            (State::Loading, Event::Loaded(outcome)) => self.loaded(outcome, moment),
            (State::Describing, Event::Answered(outcome)) => self.described(outcome, moment),
            (State::Preparing { server_time }, Event::TargetReady(outcome)) => match outcome {
                Ok(()) => {
                    self.target_ready = true;
                    self.plan(server_time, moment)
                }
                Err(failure) => self.fail(failure, AfterRest::Describe, moment),
            },
            (State::Querying(request), Event::Answered(outcome)) => {
                self.query_answered(request, outcome, moment)
            }
            (State::Paging(request), Event::Answered(outcome)) => {
                self.page_answered(request, outcome, moment)
            }
            (State::Writing(checkpoint), Event::Written(outcome)) => {
                self.written(*checkpoint, outcome, moment)
            }
            (State::Resting(after), Event::Rested) => match after {
                AfterRest::Load => self.load(),
                AfterRest::Describe => self.describe(),
                AfterRest::Resend(request) => self.send(request),
                AfterRest::ReadOn => self.read_on(moment),
            },
            // An outcome that nobody asked for: the driver lost its place, and so must start over.
            _ => self.load(),
        }
    }

    /// Tells how the table is doing.
    pub fn status(&self, now: Micros) -> Status {
        Status::of(self, now)
    }

    fn end(&mut self, activity: Activity) -> Command {
        self.activity = activity;
        self.reading = None;
        Command::Halt
    }

    fn load(&mut self) -> Command {
        self.reading = None;
        // What was read since the last commit may not be in Harper.
        self.recent = Recent::default();
        self.state = State::Loading;
        Command::LoadCheckpoint
    }

    fn loaded(&mut self, outcome: Result<Option<Box<Checkpoint>>, Failure>, moment: Moment) -> Command {
        match outcome {
            Err(failure) => self.fail(failure, AfterRest::Load, moment),
            Ok(Some(checkpoint)) if checkpoint.identity != self.config.identity() => {
                let failure = Failure::new(
                    Kind::CheckpointMismatch,
                    format!(
                        "columns, key, where, timestampColumn, partitions or the source of {id} were changed since its \
                         checkpoint was written, and rows would get other ids: set them back, or delete the rows of \
                         {target} and the SyncCheckpoint rows of {id} to sync anew",
                        id = self.config.id,
                        target = self.config.target_table
                    ),
                );
                self.fail(failure, AfterRest::Load, moment)
            }
            Ok(checkpoint) => {
                self.checkpoint = checkpoint.map(|checkpoint| *checkpoint);
                self.describe()
            }
        }
    }

    fn describe(&mut self) -> Command {
        self.send(request::describe_table(&self.config.source))
    }

    fn described(&mut self, outcome: Result<Answer, Failure>, moment: Moment) -> Command {
        let answer = match self.accept(Purpose::DescribeTable, outcome) {
            Ok(answer) => answer,
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
        };
        let projection = match read_description(&answer.body)
            .and_then(|fields| Projection::resolve(&self.config, &fields))
        {
            Ok(projection) => projection,
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
        };
        if self.projection.as_ref() != Some(&projection) {
            self.target_ready = false;
        }
        let layout = Layout::of(&projection);
        self.projection = Some(projection);
        // Without the server's clock the own one must do.
        let server_time = answer.server_time.unwrap_or(moment.now);
        if !self.target_ready {
            self.state = State::Preparing { server_time };
            return Command::EnsureTarget(layout);
        }
        self.plan(server_time, moment)
    }

    fn plan(&mut self, server_time: Micros, moment: Moment) -> Command {
        let Some(projection) = &self.projection else { return self.describe() };
        self.meter.server_ahead_us = server_time.since(moment.now);
        let watermark = self.watermark();
        self.phase = Phase::of_lag(self.lag_s(moment.now), &self.config.pace);
        self.page_rows = self.phase.page_rows(&self.config.pace);
        if let Some(open) = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.window.clone()) {
            return self.resume(open);
        }
        let Some(window) = window::plan(watermark, server_time, projection.cursor_type, &self.config.pace)
        else {
            self.queried_at = Some(moment.now);
            return self.rest_until_poll(moment);
        };
        let sql = sql::read_window(&self.config.source, projection, self.config.filter.as_deref(), window);
        let request_id = format!("{}-{}-{:08x}", self.worker_name(), moment.now.0, moment.jitter.0);
        let query = request::Query {
            sql: &sql,
            page_rows: self.page_rows,
            request_id: &request_id,
            bytes_billed_max: self.config.pace.bytes_billed_max,
        };
        let request = request::start_query(&self.connection, query);
        self.window = Some(window);
        self.queried_at = Some(moment.now);
        self.activity = Activity::Running;
        self.send(request)
    }

    /// Goes on with a result of which a part is in Harper.
    fn resume(&mut self, open: OpenWindow) -> Command {
        let Some(projection) = &self.projection else { return self.describe() };
        let Some(until) = open.until else { return self.forget_window() };
        let window = Window { after: open.after, until };
        let remember_after = window::lower_bound(Some(until), projection.cursor_type, &self.config.pace);
        let mut reading =
            Reading::new(window, Some(open.job.clone()), open.total_rows, open.offset, remember_after);
        reading.forget_bytes_billed();
        if !projection.key.is_empty() {
            // Only rows without key have occurrence numbers, for which the front must be counted again.
            reading.skip_to(open.offset);
        }
        self.window = Some(window);
        let request = request::read_result(&open.job, reading.offset, self.page_rows);
        self.reading = Some(reading);
        self.queried_at = None;
        self.activity = Activity::Running;
        self.send(request)
    }

    /// Plans anew when the result of the window that was being read is no longer of use.
    fn forget_window(&mut self) -> Command {
        self.reading = None;
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.window = None;
        }
        self.describe()
    }

    fn send(&mut self, mut request: Request) -> Command {
        request.renew_token = std::mem::take(&mut self.renew_token);
        let sent = Command::Send(request.clone());
        self.state = match request.purpose {
            Purpose::DescribeTable => State::Describing,
            Purpose::StartQuery => State::Querying(request),
            Purpose::ReadResult => State::Paging(request),
        };
        sent
    }

    fn query_answered(
        &mut self,
        request: Request,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Command {
        let page = match self.accept(Purpose::StartQuery, outcome).and_then(|answer| Page::open(answer.body))
        {
            Ok(page) => page,
            Err(failure) => {
                // Whoever got no answer may repeat the request; after a refusal a new query must be made.
                let unanswered =
                    matches!(failure.kind, Kind::Timeout | Kind::Unreachable | Kind::ResponseMalformed);
                let after = if unanswered { AfterRest::Resend(request) } else { AfterRest::Describe };
                return self.fail(failure, after, moment);
            }
        };
        if !page.envelope().complete {
            return match page.envelope().job.clone() {
                Some(job) => self.wait_for_job(request::read_result(&job, 0, self.page_rows)),
                None => {
                    let failure =
                        Failure::new(Kind::ResponseMalformed, "BigQuery did not name the query's job");
                    self.fail(failure, AfterRest::Describe, moment)
                }
            };
        }
        self.open_result(page, moment)
    }

    fn wait_for_job(&mut self, request: Request) -> Command {
        self.state = State::Resting(AfterRest::Resend(request));
        Command::Rest { delay_ms: QUERY_POLL_MS }
    }

    /// Begins to read a result, from its first page.
    fn open_result(&mut self, page: Page, moment: Moment) -> Command {
        let (Some(projection), Some(window)) = (&self.projection, self.window) else {
            return self.describe();
        };
        let envelope = page.envelope();
        if let Err(failure) = reading::check_schema(envelope, projection) {
            return self.fail(failure, AfterRest::Describe, moment);
        }
        let Some(total_rows) = envelope.total_rows else {
            let failure = Failure::new(Kind::ResponseMalformed, "BigQuery did not tell the number of rows");
            return self.fail(failure, AfterRest::Describe, moment);
        };
        let remember_after =
            window::lower_bound(Some(window.until), projection.cursor_type, &self.config.pace);
        let mut reading = Reading::new(window, envelope.job.clone(), total_rows, 0, remember_after);
        reading.take_page(page);
        self.reading = Some(reading);
        self.read_on(moment)
    }

    fn page_answered(
        &mut self,
        request: Request,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Command {
        let page = match self.accept(Purpose::ReadResult, outcome).and_then(|answer| Page::open(answer.body))
        {
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
        if let Some(Err(failure)) =
            self.projection.as_ref().map(|known| reading::check_schema(page.envelope(), known))
        {
            return self.lose_result(failure, moment);
        }
        reading.take_page(page);
        self.read_on(moment)
    }

    /// Asks for the page again, or for a new result when this one will not come any more.
    fn page_failed(&mut self, request: Request, failure: Failure, moment: Moment) -> Command {
        let may_come = match failure.kind {
            Kind::Timeout
            | Kind::Unreachable
            | Kind::ResponseMalformed
            | Kind::RateLimited
            | Kind::Unauthenticated => true,
            // Before the query is done, this may be its own failure, which repeating the request only repeats.
            Kind::Unavailable => self.reading.is_some(),
            _ => false,
        };
        if may_come {
            self.fail(failure, AfterRest::Resend(request), moment)
        } else {
            self.lose_result(failure, moment)
        }
    }

    fn lose_result(&mut self, failure: Failure, moment: Moment) -> Command {
        self.reading = None;
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.window = None;
        }
        self.fail(failure, AfterRest::Describe, moment)
    }

    /// Cuts the next batch out of the page, or asks for the next page.
    fn read_on(&mut self, moment: Moment) -> Command {
        let (Some(projection), Some(reading)) = (&self.projection, &mut self.reading) else {
            return self.describe();
        };
        let page_starts = reading.page_rows_read() == 0;
        let progress = match reading.next_batch(projection, &self.recent) {
            Ok(progress) => progress,
            Err(failure) => return self.reread_page(failure, moment),
        };
        self.backoff.reset();
        self.last_failure = None;
        match progress {
            Progress::NeedsPage => self.ask_for_page(moment),
            Progress::Batch(batch)
                if batch.rows == 0 && batch.rejections.is_empty() && !reading.is_complete() =>
            {
                self.state = State::Resting(AfterRest::ReadOn);
                Command::Rest { delay_ms: 0 }
            }
            Progress::Batch(batch) => self.write(batch, page_starts, moment),
        }
    }

    /// Asks again for a page that turned out to be malformed, from the first row that is not yet written.
    fn reread_page(&mut self, failure: Failure, moment: Moment) -> Command {
        if failure.kind == Kind::ResultLost {
            return self.lose_result(failure, moment);
        }
        match self.next_page_request() {
            Some(request) => self.fail(failure, AfterRest::Resend(request), moment),
            None => self.fail(failure, AfterRest::Load, moment),
        }
    }

    fn ask_for_page(&mut self, moment: Moment) -> Command {
        match self.next_page_request() {
            Some(request) => self.send(request),
            None => {
                let failure = Failure::new(Kind::ResponseMalformed, "BigQuery did not name the query's job");
                self.fail(failure, AfterRest::Load, moment)
            }
        }
    }

    fn next_page_request(&self) -> Option<Request> {
        let reading = self.reading.as_ref()?;
        Some(request::read_result(reading.job.as_ref()?, reading.offset, self.page_rows))
    }

    fn write(&mut self, batch: Batch, page_starts: bool, moment: Moment) -> Command {
        let Some(reading) = &mut self.reading else { return self.describe() };
        self.meter.bytes_billed += reading.take_bytes_billed();
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
            self.recent = self.reading.take().map(Reading::into_recent).unwrap_or_default();
            self.window = None;
        }
        self.meter.wrote(batch.rows as u64, moment.now);
        self.state = State::Writing(Box::new(checkpoint.clone()));
        self.activity = Activity::Running;
        Command::Write(Box::new(WriteOrder { batch, checkpoint, ahead }))
    }

    /// Returns the checkpoint that is true once the batch is in Harper.
    fn next_checkpoint(&self, reading: &Reading, batch: &Batch, moment: Moment) -> Checkpoint {
        let before = self.checkpoint.as_ref();
        let complete = reading.is_complete();
        let watermark = if complete { Some(reading.window.until) } else { self.watermark() };
        let open = |job: &JobReference| OpenWindow {
            after: reading.window.after,
            until: Some(reading.window.until),
            job: job.clone(),
            offset: reading.offset,
            total_rows: reading.total_rows,
        };
        Checkpoint {
            id: format!("{}:0", self.config.id),
            table_id: self.config.id.clone(),
            partition: 0,
            node_id: self.worker.node.clone(),
            owner: self.worker_name(),
            last_timestamp: watermark,
            phase: self.phase,
            records_ingested: before.map_or(0, |before| before.records_ingested) + batch.rows as u64,
            records_rejected: before.map_or(0, |before| before.records_rejected)
                + batch.rejections.len() as u64,
            bytes_billed: before.map_or(0, |before| before.bytes_billed) + self.meter.bytes_billed,
            last_sync_time: Some(moment.now),
            batch_size: self.page_rows,
            window: if complete { None } else { reading.job.as_ref().map(open) },
            identity: self.config.identity(),
        }
    }

    fn written(
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
        let rejected_before = self.checkpoint.as_ref().map_or(0, |before| before.records_rejected);
        self.rejected_since_start +=
            checkpoint.records_rejected.saturating_sub(rejected_before) + receipt.refused;
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
        self.rest_until_poll(moment)
    }

    /// Every window reads up to BigQuery's clock, so that nothing is gained by polling more often than configured.
    fn rest_until_poll(&mut self, moment: Moment) -> Command {
        let interval_ms = self.config.pace.poll_interval_ms;
        let since_ms = self
            .queried_at
            .map_or(interval_ms, |at| u64::try_from(moment.now.since(at)).unwrap_or(0) / 1_000);
        let delay_ms = interval_ms.saturating_sub(since_ms);
        self.phase = Phase::of_lag(self.lag_s(moment.now), &self.config.pace);
        self.activity = Activity::Idle;
        self.state = State::Resting(AfterRest::Describe);
        Command::Rest { delay_ms }
    }

    /// Turns an answer that is not a success into a failure.
    fn accept(&self, purpose: Purpose, outcome: Result<Answer, Failure>) -> Result<Answer, Failure> {
        let answer = outcome?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let subject = Subject { connection: &self.connection, source: &self.config.source };
        Err(failure::from_answer(purpose, answer.status, &answer.body, answer.retry_after_ms, subject))
    }

    /// Notes a failure and decides whether and when to go on.
    fn fail(&mut self, failure: Failure, after: AfterRest, moment: Moment) -> Command {
        let recovery = failure.kind.recovery();
        let delay_ms = self.backoff.fail(&self.config.pace, failure.retry_after_ms, moment.jitter);
        self.renew_token = failure.kind == Kind::Unauthenticated;
        self.last_failure = Some(failure);
        match recovery {
            Recovery::Halt => return self.end(Activity::Failed),
            Recovery::Retry => self.activity = Activity::Retrying,
            Recovery::Recheck => self.activity = Activity::Blocked,
        }
        self.state = State::Resting(after);
        Command::Rest { delay_ms }
    }

    fn watermark(&self) -> Option<Micros> {
        self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.last_timestamp)
    }

    /// Returns the seconds from the watermark to now by BigQuery's clock.
    fn lag_s(&self, now: Micros) -> Option<u64> {
        let lag_us = now.plus(self.meter.server_ahead_us).since(self.watermark()?);
        Some(u64::try_from(lag_us).unwrap_or(0) / 1_000_000)
    }

    fn worker_name(&self) -> String {
        format!("{}-{}", self.worker.node, self.worker.index)
    }
}

#[derive(Deserialize)]
struct WireTable {
    schema: Option<WireSchema>,
}

#[derive(Deserialize)]
struct WireSchema {
    #[serde(default)]
    fields: Vec<WireField>,
}

fn read_description(body: &[u8]) -> Result<Vec<Field>, Failure> {
    let malformed =
        || Failure::new(Kind::ResponseMalformed, "BigQuery's description of the table is cut or malformed");
    let table: WireTable = serde_json::from_slice(body).map_err(|_| malformed())?;
    Field::from_wire(&table.schema.ok_or_else(malformed)?.fields)
}

#[cfg(test)]
mod tests;
