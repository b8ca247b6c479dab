//! Keeps one Harper table equal to one BigQuery table: one event in, one command out.
//!
//! The engine never acts, waits or reads a clock. Its durable state is the checkpoint, which is committed with the
//! rows. It can lose everything else at any time, and find it out again.
//!
//! [`Engine::step`] shows which event each state waits for, and what may follow. The stages are `describing`,
//! `planning` and `copying`. They return what comes [`Next`], and do not call each other. Lasting knowledge belongs to
//! the parts of the [`Engine`]; what is valid in one state only belongs to that [`State`].

mod bill;
mod bookkeeper;
mod boundary;
pub mod breaker;
pub mod checkpoint;
mod condition;
pub mod contents;
mod copying;
pub mod counts;
pub mod delivery;
mod describing;
mod division;
pub mod fingerprints;
mod holding;
mod job;
pub mod late;
mod ledger;
mod loss;
pub mod memory;
mod mending;
mod meter;
pub mod phase;
mod planning;
mod query;
pub mod reading;
pub mod resync;
pub mod retention;
pub mod retry;
#[cfg(test)]
mod samples;
mod schema;
mod sizes;
mod source;
pub mod status;
pub mod sweep;
mod task;
mod transfer;
mod unread;
mod validating;
pub mod window;

use crate::bigquery::failure::{self, Subject};
use crate::bigquery::page::Page;
use crate::bigquery::request::{self, Request};
use crate::cluster::Standing;
use crate::config::{Connection, TableConfig};
use crate::error::Failure;
use crate::time::Micros;
use bill::Bill;
use bookkeeper::Bookkeeper;
pub use boundary::{Answer, Command, Event, Incarnation, Moment, Note, Receipt, Stored, Worker, WriteOrder};
use checkpoint::Checkpoint;
use condition::Condition;
use contents::Comparing;
use delivery::{Commit, Deliveries, Outbox};
use fingerprints::Fingerprints;
use holding::Holding;
use job::Debt;
use late::LateRange;
use loss::Loss;
use memory::Need;
use meter::Meter;
use planning::{Cost, Question};
use query::Query;
use schema::Schema;
use sizes::Sizes;
use source::{Described, Source};
use status::{Activity, Status};
use std::sync::Arc;
use transfer::{Closing, Transfer};
use unread::Unread;
use validating::Validation;
pub use validating::Wish;

/// Keeps one table in sync.
#[derive(Debug)]
pub struct Engine {
    config: TableConfig,
    connection: Connection,
    worker: Worker,
    state: State,
    source: Source,
    schema: Schema,
    holding: Holding,
    late: LateRange,
    /// The bytes in which rows may be remembered.
    memory_bytes: usize,
    sizes: Sizes,
    bill: Bill,
    condition: Condition,
    meter: Meter,
    outbox: Outbox,
    deliveries: Deliveries,
    validation: Validation,
    unread: Unread,
    comparing: Comparing,
    /// When the table was found to have been read again to its end, by the number of that command.
    ended_at: Option<(u64, Micros)>,
    /// What is to be told in the audit with the next commit.
    notes: Vec<Note>,
}

/// Which event the engine waits for, and what it needs to go on then.
#[derive(Debug)]
enum State {
    New,
    Loading,
    /// A request was sent; it is kept to be sent again.
    Asking(Inquiry, Request),
    /// With the number of the version.
    Adopting(u32),
    Preparing(Arc<Described>),
    Writing(Box<Written>, AfterWrite),
    Sharing(Box<Next>),
    Resting(Box<Next>),
    Ended,
}

/// What a request is sent for.
#[derive(Debug)]
enum Inquiry {
    /// The source's description; with what was loaded just before, if that was not taken over yet.
    Describe(Option<Box<Stored>>),
    /// A small result that planning needs.
    Question(Question, Arc<Described>),
    /// What the query of a window would bill.
    Cost(Cost, Arc<Described>),
    /// To start the query of a window.
    Query(Box<Query>),
    /// To make the job that runs the query of a window.
    Job(Box<Query>),
    /// How that job fares, after BigQuery failed to tell its result.
    Look(Box<Query>),
    /// To end a job that nobody will read, and to learn what it billed.
    Debt(Box<Debt>, Arc<Described>),
    /// The result of a query that was not done at once.
    Result(Box<Query>),
    /// A page of a result that was begun.
    Page(Box<Transfer>),
}

/// What is known once a commit has happened.
#[derive(Debug)]
struct Written {
    checkpoints: Vec<Checkpoint>,
    commit: Option<Commit>,
}

/// What follows a commit.
#[derive(Debug)]
enum AfterWrite {
    /// Make the job that is stored now.
    MakeJob(Box<Query>),
    /// Look what Harper holds now that the bill of a job is settled.
    Poll,
    ReadOn(Box<Transfer>),
    Close(Box<Closing>),
    /// A loss is mended, or a piece of it.
    Mended(Box<Loss>),
    /// The last commit was told again.
    Told,
    /// Some partitions are known to have been read again to their ends.
    Reread,
    Rest,
}

/// What follows an event.
#[derive(Debug)]
enum Next {
    /// Begin anew from what Harper holds.
    Load,
    /// Look what Harper holds: other workers may have written for the same partitions.
    Poll,
    /// Ask for the source's description; with what was loaded.
    Describe(Option<Box<Stored>>),
    /// Decide what to read.
    Plan(Arc<Described>),
    /// Cut the next batch out of the page, or ask for the next page.
    ReadOn(Box<Transfer>),
    /// Send a request.
    Ask(Inquiry, Request),
    /// Give a command whose outcome the state waits for.
    Await(State, Command),
    /// Rest for so many milliseconds, then go on.
    Rest(u64, Box<Next>),
    /// Rest until the next poll is due, or rows are to be compared.
    RestUntilPoll,
    /// Compare rows if it is time to, or else poll: something has ended the rest.
    CompareOrPoll,
    /// Note a failure, and rest before going on if that can help.
    Fail(Failure, Box<Next>),
    /// Nothing more.
    End(Activity),
}

impl Engine {
    /// Makes an engine that waits for [`Event::Start`].
    pub fn new(config: TableConfig, connection: Connection, worker: Worker, standing: Standing) -> Engine {
        Engine {
            sizes: Sizes::new(&config.pace),
            config,
            connection,
            worker,
            state: State::New,
            source: Source::default(),
            schema: Schema::default(),
            holding: Holding::new(standing),
            late: LateRange::default(),
            memory_bytes: late::BYTES_MAX,
            bill: Bill::default(),
            condition: Condition::default(),
            meter: Meter::default(),
            outbox: Outbox::default(),
            deliveries: Deliveries::default(),
            validation: Validation::default(),
            unread: Unread::default(),
            comparing: Comparing::default(),
            ended_at: None,
            notes: Vec::new(),
        }
    }

    /// Takes an event and returns what to do next.
    pub fn step(&mut self, event: Event, moment: Moment) -> Command {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let mut next = match (state, event) {
            (_, Event::Stop) => Next::End(Activity::Stopped),
            (State::New, Event::Start) => Next::Load,
            (State::Loading, Event::Loaded(outcome)) => self.loaded(outcome, moment),
            (State::Asking(inquiry, request), Event::Answered(outcome)) => match inquiry {
                Inquiry::Describe(stored) => self.described(stored, outcome, moment),
                Inquiry::Question(question, described) => {
                    self.question_answered(question, described, &request, outcome, moment)
                }
                Inquiry::Cost(cost, described) => {
                    self.cost_answered(cost, described, &request, outcome, moment)
                }
                Inquiry::Query(query) => self.query_answered(query, request, outcome),
                Inquiry::Job(query) => self.job_made(query, request, outcome),
                Inquiry::Look(query) => self.job_looked_at(query, request, outcome),
                Inquiry::Debt(debt, described) => {
                    self.debt_answered(debt, described, request, outcome, moment)
                }
                Inquiry::Result(query) => self.result_answered(query, request, outcome),
                Inquiry::Page(transfer) => self.page_answered(transfer, request, outcome),
            },
            (State::Adopting(number), Event::SchemaAdopted(outcome)) => self.adopted(number, outcome),
            (State::Preparing(described), Event::TargetReady(outcome)) => self.prepared(described, outcome),
            (State::Writing(written, after), Event::Written(outcome)) => {
                self.written(*written, after, outcome, moment)
            }
            (State::Sharing(next), Event::Shared) => *next,
            (State::Resting(next), Event::Rested) => *next,
            // An outcome that nobody asked for: the driver lost its place, and so must start over.
            _ => Next::Load,
        };
        loop {
            next = match next {
                Next::Load => self.begin_anew(),
                Next::Poll => Next::Await(State::Loading, Command::Load),
                Next::Describe(stored) => {
                    Next::Ask(Inquiry::Describe(stored), request::describe_table(&self.config.source))
                }
                Next::Plan(described) => self.plan(described, moment),
                Next::ReadOn(transfer) => self.read_on(transfer, moment),
                Next::Ask(inquiry, request) => {
                    let renew_token = self.condition.take_need_of_token();
                    let command = Command::Send(Request { renew_token, ..request.clone() });
                    Next::Await(State::Asking(inquiry, request), command)
                }
                Next::RestUntilPoll => self.rest_until_poll(moment),
                Next::CompareOrPoll => match self.compares_in_ms(moment) {
                    Some(0) => self.compare(moment),
                    _ => Next::Poll,
                },
                Next::Rest(delay_ms, next) => Next::Await(State::Resting(next), Command::Rest { delay_ms }),
                Next::Fail(failure, next) => match self.condition.fail(failure, &self.config.pace, moment) {
                    Some(delay_ms) => Next::Rest(delay_ms, next),
                    None => Next::End(Activity::Failed),
                },
                Next::End(activity) => {
                    self.condition.set_activity(activity);
                    Next::Await(State::Ended, Command::Halt)
                }
                Next::Await(state, command) => {
                    self.state = state;
                    return command;
                }
            };
        }
    }

    /// Tells how the table is doing.
    pub fn status(&self, now: Micros) -> Status {
        Status::of(self, now)
    }

    /// Tells the engine where its worker stands now. It takes over another share of the work at the next safe point.
    /// Returns whether it rests and would better be woken for that.
    pub fn set_standing(&mut self, standing: Standing) -> bool {
        let lives_before = self.holding.lives();
        let has_new_share = self.holding.stand(standing);
        // A node that has just started may have lost what was on its way to it.
        let must_tell = self.outbox.last().is_some() && standing.lives != lives_before;
        if let Some(now) = standing.seen_at.filter(|_| must_tell) {
            self.outbox.open(now);
        }
        (has_new_share || must_tell) && self.rests_until_poll()
    }

    /// Tells whether nothing is done before the next poll.
    pub fn rests_until_poll(&self) -> bool {
        matches!(&self.state, State::Resting(next) if matches!(**next, Next::Poll | Next::CompareOrPoll))
    }

    /// Decodes the next batch while the current one is being written; of use when the host has time for it, and
    /// harmless at any other time.
    pub fn prepare(&mut self) {
        if let State::Writing(_, AfterWrite::ReadOn(transfer)) = &mut self.state {
            let rows_max = self.sizes.batch_rows(transfer.rows_left(self.sizes.page_rows()));
            transfer.prepare(&mut self.late, rows_max);
        }
    }

    /// Tells how much memory the engine may take for what it remembers of rows. What it takes already is kept.
    pub fn allow_memory(&mut self, bytes_max: usize) {
        self.memory_bytes = bytes_max;
        let counting = self.transfer().map_or(0, Transfer::counting_bytes);
        self.late.allow_memory(bytes_max.saturating_sub(counting));
    }

    /// Tells what the engine holds in memory, and what its next page will take.
    pub fn need(&self) -> Need {
        let transfer = self.transfer();
        Need {
            page: transfer.map_or(0, |transfer| transfer.reading.page_bytes()),
            next_page: self.sizes.page_bytes(),
            rows: self.late.bytes() + transfer.map_or(0, Transfer::counting_bytes),
        }
    }

    /// Returns the window that is being read.
    fn transfer(&self) -> Option<&Transfer> {
        match &self.state {
            State::Asking(Inquiry::Page(transfer), _) | State::Writing(_, AfterWrite::ReadOn(transfer)) => {
                Some(transfer)
            }
            State::Resting(next) => match &**next {
                Next::ReadOn(transfer) | Next::Ask(Inquiry::Page(transfer), _) => Some(transfer),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns how many rows there is memory for to count the identical ones among them.
    fn countable_rows(&self) -> u64 {
        Fingerprints::count_within(self.memory_bytes.saturating_sub(self.late.bytes()))
    }

    fn begin_anew(&mut self) -> Next {
        self.comparing.know(None);
        self.forget_conclusions();
        Next::Poll
    }

    /// Voids what was concluded from the windows that were read.
    fn forget_conclusions(&mut self) {
        self.source.forget_conclusions();
        self.late.reread();
    }

    /// Voids what is known of rows as well.
    fn forget_rows(&mut self) {
        self.late.forget_rows();
        self.forget_conclusions();
    }

    fn rest_until_poll(&mut self, moment: Moment) -> Next {
        let delay_ms = self.source.poll_delay_ms(self.config.pace.poll_interval_ms, moment.now);
        self.sizes.follow_lag(self.lag_s(moment.now), &self.config.pace);
        self.condition.rest(Activity::Idle, delay_ms, moment.now);
        let compares_in_ms = self.compares_in_ms(moment).filter(|compares_in_ms| *compares_in_ms < delay_ms);
        let rest_ms = compares_in_ms.unwrap_or(delay_ms);
        match self.closes_in_ms(moment) {
            Some(0) => self.tell_again(moment),
            Some(closes_in_ms) if closes_in_ms < rest_ms => Next::rest(closes_in_ms, Next::RestUntilPoll),
            _ if compares_in_ms.is_some() => Next::rest(rest_ms, Next::CompareOrPoll),
            _ => Next::rest(delay_ms, Next::Poll),
        }
    }

    /// Turns an answer that is not a success into a failure.
    fn accept(&self, purpose: request::Purpose, outcome: Result<Answer, Failure>) -> Result<Answer, Failure> {
        let answer = outcome?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let subject = Subject { connection: &self.connection, source: &self.config.source };
        Err(failure::from_answer(purpose, answer.status, &answer.body, answer.retry_after_ms, subject))
    }

    fn open_page(&self, request: &Request, outcome: Result<Answer, Failure>) -> Result<Page, Failure> {
        self.accept(request.purpose, outcome).and_then(|answer| Page::open(answer.body))
    }

    /// Returns how many rows have no cursor, by the last count of any worker.
    fn rows_without_cursor(&self) -> u64 {
        let stored = || self.holding.ledger.sum(|row| row.rows_without_cursor);
        self.source.rows_without_cursor().unwrap_or_else(stored)
    }

    fn bookkeeper(&self, moment: Moment) -> Bookkeeper<'_> {
        let Engine { config, worker, holding, schema, source, sizes, bill, .. } = self;
        Bookkeeper { config, worker, holding, schema, source, sizes, bill, now: moment.now }
    }

    /// Returns when the clocks of the cursor's zone first showed the watermark.
    fn watermark_instant(&self) -> Option<Micros> {
        self.holding.watermark().map(|watermark| self.config.pace.zone.first_instant(watermark))
    }

    fn lag_s(&self, now: Micros) -> Option<u64> {
        self.source.lag_s(self.watermark_instant(), now)
    }
}

impl Next {
    /// Commits an order.
    fn write(order: WriteOrder, after: AfterWrite) -> Next {
        let written = Written { checkpoints: order.checkpoints.clone(), commit: order.witness.clone() };
        Next::Await(State::Writing(Box::new(written), after), Command::Write(Box::new(order)))
    }

    fn fail(failure: Failure, next: Next) -> Next {
        Next::Fail(failure, Box::new(next))
    }

    fn rest(delay_ms: u64, next: Next) -> Next {
        Next::Rest(delay_ms, Box::new(next))
    }
}
