//! Keeps one Harper table equal to one BigQuery table: one event in, one command out.
//!
//! The engine never acts, waits or looks at a clock. Its durable state is the checkpoint, which is committed
//! with the rows; whatever else it knows can be lost at any point and is found out again.

mod bill;
mod boundary;
pub mod breaker;
pub mod checkpoint;
mod condition;
pub mod counts;
mod division;
mod evolution;
mod ledger;
mod meter;
pub mod phase;
mod planning;
pub mod reading;
pub mod retry;
#[cfg(test)]
mod samples;
pub mod status;
mod transfer;
pub mod window;

use crate::bigquery::failure::{self, Subject};
use crate::bigquery::page::Page;
use crate::bigquery::request::{Purpose, Request};
use crate::bigquery::sql::{self, Selection};
use crate::bigquery::table::{Description, Version};
use crate::cluster::{Share, Standing};
use crate::config::{Connection, TableConfig};
use crate::error::{Failure, Kind};
use crate::mapping::projection::Projection;
use crate::mapping::version::SchemaVersion;
use crate::partition::Rule;
use crate::time::Micros;
use bill::Bill;
pub use boundary::{Answer, Command, Event, Incarnation, Moment, Note, Receipt, Stored, Worker, WriteOrder};
use checkpoint::Checkpoint;
use condition::Condition;
use counts::Counts;
use ledger::Ledger;
use meter::Meter;
use phase::Phase;
use planning::Question;
use reading::{Reading, Recent};
use status::{Activity, Status};
use transfer::BatchSize;
use window::Plan;

/// A window to read for some partitions.
#[derive(Debug, Clone)]
struct Task {
    plan: Plan,
    /// In order.
    partitions: Vec<u32>,
    /// Their watermark.
    started_from: Option<Micros>,
    selection: Selection,
    /// Whether nobody else writes for these partitions, and all that others may have written is read again.
    is_sole: bool,
    /// Whether its rows may be in Harper with ids of a former era.
    replaces: bool,
    /// Whether it also reads what lies in the future, as far as is known.
    reads_future: bool,
}

/// What the engine waits for, and what it does then.
#[derive(Debug)]
enum State {
    New,
    Loading,
    Describing,
    Preparing,
    /// With the number of the version.
    Adopting(u32),
    Asking(Question, Request),
    Querying(Request),
    Paging(Request),
    Writing(Vec<Checkpoint>),
    Sharing,
    Resting(AfterRest),
    Ended,
}

#[derive(Debug)]
enum AfterRest {
    Load,
    Poll,
    Describe,
    Ask(Question, Request),
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
    /// Where the worker stands in the cluster, and the share that it acts upon.
    standing: Standing,
    share: Share,
    rule: Rule,
    /// The partitions that the share holds, in order.
    own: Vec<u32>,
    stored: Option<Box<Stored>>,
    ledger: Ledger,
    incarnation: Incarnation,
    description: Option<Description>,
    projection: Option<Projection>,
    schema: Option<Box<SchemaVersion>>,
    /// The number of the version that this worker has stored and not yet seen.
    adopted_version: Option<u32>,
    target_ready: bool,
    server_time: Micros,
    phase: Phase,
    page_rows: u64,
    batch_size: BatchSize,
    task: Option<Task>,
    /// The partitions of the last window that was read.
    last_partitions: Vec<u32>,
    counts: Option<Counts>,
    /// Since when another worker is expected to count.
    counts_awaited_since: Option<Micros>,
    /// Whether the last window was not the last of the backlog.
    backlog_waits: bool,
    reading: Option<Reading>,
    /// Rows of the late range that are in Harper.
    recent: Recent,
    /// The same, once the commit that is under way has happened.
    next_recent: Option<Recent>,
    /// Whether the next window reads the late range again.
    reread: bool,
    /// The source's version when the last query that read to its end was made.
    read_version: Option<Version>,
    /// Whether that query also read what lies in the future.
    read_future: bool,
    queried_version: Option<Version>,
    /// Whether the source's version can be relied on: it was never seen to stay the same over a change.
    version_trusted: bool,
    queried_at: Option<Micros>,
    /// Whether the query under way was sent again after BigQuery failed to answer.
    query_repeated: bool,
    /// How often the query under way was found not to be done yet.
    query_waits: u32,
    polled_at: Option<Micros>,
    /// BigQuery's clock shortly before the query was made; unknown for the result of an earlier run.
    query_server_time: Option<Micros>,
    without_cursor_counted: Option<(Micros, Option<Version>)>,
    notes: Vec<Note>,
    condition: Condition,
    bill: Bill,
    meter: Meter,
}

impl Engine {
    /// Makes an engine that waits for [`Event::Start`].
    pub fn new(config: TableConfig, connection: Connection, worker: Worker, standing: Standing) -> Engine {
        let page_rows = config.pace.page_rows.initial;
        Engine {
            config,
            connection,
            worker,
            state: State::New,
            standing,
            share: standing.share,
            rule: Rule::WHOLE,
            own: Vec::new(),
            stored: None,
            ledger: Ledger::default(),
            incarnation: String::new(),
            description: None,
            projection: None,
            schema: None,
            adopted_version: None,
            target_ready: false,
            server_time: Micros(0),
            phase: Phase::Initial,
            page_rows,
            batch_size: BatchSize::default(),
            task: None,
            last_partitions: Vec::new(),
            counts: None,
            counts_awaited_since: None,
            backlog_waits: false,
            reading: None,
            recent: Recent::default(),
            next_recent: None,
            reread: true,
            read_version: None,
            read_future: false,
            queried_version: None,
            version_trusted: true,
            queried_at: None,
            query_repeated: false,
            query_waits: 0,
            polled_at: None,
            query_server_time: None,
            without_cursor_counted: None,
            notes: Vec::new(),
            condition: Condition::default(),
            bill: Bill::default(),
            meter: Meter::default(),
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
            (State::Preparing, Event::TargetReady(outcome)) => self.prepared(outcome, moment),
            (State::Adopting(version), Event::SchemaAdopted(outcome)) => {
                self.adopted(version, outcome, moment)
            }
            (State::Asking(question, request), Event::Answered(outcome)) => {
                self.question_answered(question, request, outcome, moment)
            }
            (State::Querying(request), Event::Answered(outcome)) => {
                self.query_answered(request, outcome, moment)
            }
            (State::Paging(request), Event::Answered(outcome)) => {
                self.page_answered(request, outcome, moment)
            }
            (State::Writing(checkpoints), Event::Written(outcome)) => {
                self.written(checkpoints, outcome, moment)
            }
            (State::Sharing, Event::CountsShared) => self.plan(moment),
            (State::Resting(after), Event::Rested) => match after {
                AfterRest::Load => self.load(),
                AfterRest::Poll => self.poll(),
                AfterRest::Describe => self.describe(),
                AfterRest::Ask(question, request) => self.ask(question, request),
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
        self.condition.set_activity(activity);
        self.reading = None;
        Command::Halt
    }

    /// Tells the engine where its worker stands now. It takes over another share of the work at the next safe point.
    /// Returns whether it rests and would better be woken for that.
    pub fn set_standing(&mut self, standing: Standing) -> bool {
        let changed = self.standing.share != standing.share;
        self.standing = standing;
        let rests = matches!(self.state, State::Resting(AfterRest::Poll));
        changed && rests
    }

    /// Begins anew from what Harper holds.
    fn load(&mut self) -> Command {
        self.reading = None;
        // What was read since the last commit may not be in Harper.
        self.next_recent = None;
        self.forget_conclusions();
        // A write may have failed because the table is gone.
        self.target_ready = false;
        self.poll()
    }

    /// Voids what was concluded from the windows that were read.
    fn forget_conclusions(&mut self) {
        self.read_version = None;
        self.reread = true;
        self.backlog_waits = false;
    }

    /// Looks what Harper holds: other workers may have written for the same partitions.
    fn poll(&mut self) -> Command {
        self.state = State::Loading;
        Command::Load
    }

    fn loaded(&mut self, outcome: Result<Box<Stored>, Failure>, moment: Moment) -> Command {
        match outcome {
            Err(failure) => self.fail(failure, AfterRest::Load, moment),
            Ok(stored) => {
                self.condition.recover_from(Kind::HarperRead);
                self.schema = stored.schema.clone();
                self.stored = Some(stored);
                self.describe()
            }
        }
    }

    fn send(&mut self, request: Request) -> Command {
        let command = self.dispatch(&request);
        self.state = match request.purpose {
            Purpose::DescribeTable => State::Describing,
            Purpose::StartQuery => State::Querying(request),
            Purpose::ReadResult => State::Paging(request),
        };
        command
    }

    fn ask(&mut self, question: Question, request: Request) -> Command {
        let command = self.dispatch(&request);
        self.state = State::Asking(question, request);
        command
    }

    fn dispatch(&mut self, request: &Request) -> Command {
        let renew_token = self.condition.take_need_of_token();
        Command::Send(Request { renew_token, ..request.clone() })
    }

    /// Rests until the next poll is due. Each window reads up to BigQuery's clock, or is part of a backlog, so that
    /// nothing is gained by polling more often than configured.
    fn rest_until_poll(&mut self, moment: Moment) -> Command {
        let interval_ms = self.config.pace.poll_interval_ms;
        let since_ms = self.polled_at.map(|at| u64::try_from(moment.now.since(at)).unwrap_or(0) / 1_000);
        let delay_ms = interval_ms.saturating_sub(since_ms.unwrap_or(interval_ms));
        self.phase = Phase::of_lag(self.lag_s(moment.now), &self.config.pace);
        self.condition.rest(Activity::Idle, delay_ms, moment.now);
        self.state = State::Resting(AfterRest::Poll);
        Command::Rest { delay_ms }
    }

    /// Turns an answer that is not a success into a failure.
    fn accept(&mut self, purpose: Purpose, outcome: Result<Answer, Failure>) -> Result<Answer, Failure> {
        let answer = outcome?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let subject = Subject { connection: &self.connection, source: &self.config.source };
        Err(failure::from_answer(purpose, answer.status, &answer.body, answer.retry_after_ms, subject))
    }

    fn open_page(&mut self, purpose: Purpose, outcome: Result<Answer, Failure>) -> Result<Page, Failure> {
        self.accept(purpose, outcome).and_then(|answer| Page::open(answer.body))
    }

    /// Notes a failure and decides whether and when to go on.
    fn fail(&mut self, failure: Failure, after: AfterRest, moment: Moment) -> Command {
        let Some(delay_ms) = self.condition.fail(failure, &self.config.pace, moment) else {
            return self.end(Activity::Failed);
        };
        self.state = State::Resting(after);
        Command::Rest { delay_ms }
    }

    fn source<'s>(&'s self, projection: &'s Projection, selection: &'s Selection) -> sql::Source<'s> {
        sql::Source {
            table: &self.config.source,
            columns: projection.columns(),
            filter: self.config.filter.as_deref(),
            selection,
        }
    }

    /// Returns how far the own partitions have come.
    fn watermark(&self) -> Option<Micros> {
        self.ledger.lowest(&self.own)
    }

    /// Returns the seconds from the watermark, or from when nothing had changed since, to now by BigQuery's clock.
    fn lag_s(&self, now: Micros) -> Option<u64> {
        let proven = self.watermark().max(self.meter.unchanged_at)?;
        let lag_us = now.plus(self.meter.server_ahead_us).since(proven);
        Some(u64::try_from(lag_us).unwrap_or(0) / 1_000_000)
    }
}
