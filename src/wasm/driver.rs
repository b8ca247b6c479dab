//! Executes the engine's commands on the host and feeds the outcomes back.

use super::convert;
use super::host::Host;
use super::pool::Pool;
use crate::bigquery::request::{Purpose, Request};
use crate::cluster::{Standing, Work};
use crate::engine::checkpoint::Checkpoint;
use crate::engine::delivery::Commit;
use crate::engine::resync::Resync;
use crate::engine::retry::Jitter;
use crate::engine::status::{Activity, Status};
use crate::engine::sweep::{Known, Sweep};
use crate::engine::{Answer, Command, Engine, Event, Moment, Stored, WriteOrder};
use crate::error::{Failure, Kind};
use crate::mapping::attributes::Target;
use crate::mapping::succession::{Comparable, Heir, Renewed, Succession};
use crate::mapping::target::Table;
use crate::operations::news::News;
use crate::time::{Micros, SECOND_US};
use crate::validation::{Place, Repair, Vetted};
use gloo_timers::future::TimeoutFuture;
use js_sys::{Date, Math, Promise};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

/// JavaScript's timers count in 32 bits.
const TIMER_MS_MAX: u64 = 60_000;

/// Runs one engine.
pub struct Driver {
    engine: RefCell<Engine>,
    /// The memory that it shares with the worker's other tables, and its number among these.
    pool: Rc<Pool>,
    table: u32,
    /// Since when it has been waiting for memory.
    waits_since: Cell<Option<Micros>>,
    event: RefCell<Option<Event>>,
    command: RefCell<Option<Command>>,
    stopping: Cell<bool>,
    /// Whether a rest should end early.
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// What the host has loaded last, and what it says.
    loaded: RefCell<Option<(JsValue, Box<Stored>)>>,
    /// The pages that are fetched ahead, in the order in which they will be asked for.
    ahead: RefCell<VecDeque<Ahead>>,
    /// The target table that is needed.
    target: RefCell<Option<Box<Target>>>,
    /// The range of cursors in which all rows have their newest ids once the current batch is stored.
    renewed: RefCell<Option<Renewed>>,
    /// The current search for the rows that new rows replace.
    succession: RefCell<Option<Succession>>,
}

/// A request that was started before it was asked for.
struct Ahead {
    request: Request,
    answer: Promise,
    /// The room that was taken for its answer.
    bytes: usize,
}

impl Driver {
    /// Wraps an engine that has not begun.
    pub fn new(engine: Engine, pool: Rc<Pool>) -> Driver {
        Driver {
            engine: RefCell::new(engine),
            table: pool.join(),
            pool,
            waits_since: Cell::new(None),
            event: RefCell::new(None),
            command: RefCell::new(None),
            stopping: Cell::new(false),
            woken: Cell::new(false),
            waker: RefCell::new(None),
            loaded: RefCell::new(None),
            ahead: RefCell::default(),
            target: RefCell::new(None),
            renewed: RefCell::new(None),
            succession: RefCell::new(None),
        }
    }

    /// Asks the run to end.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.wake();
        self.pool.wake_one(self.table);
    }

    /// Tells the engine its worker's place in the cluster.
    pub fn place(&self, standing: Standing) {
        if self.engine.borrow_mut().set_standing(standing) {
            self.end_rest();
        }
    }

    /// Ends a rest until the next poll.
    pub fn wake_for_poll(&self) {
        if self.engine.borrow().rests_until_poll() {
            self.end_rest();
        }
    }

    /// Takes the heads of other nodes' workers. Returns the commits whose witnesses should be looked for.
    pub fn missing(&self, heads: Vec<Commit>) -> Vec<(String, u64)> {
        self.engine.borrow_mut().missing(heads)
    }

    /// Takes the witnesses that were found. Returns the proofs that the node should store.
    pub fn arrived(&self, witnesses: Vec<Commit>) -> Vec<Commit> {
        let (is_woken, proofs) = self.engine.borrow_mut().arrived(witnesses, now());
        if is_woken {
            self.end_rest();
        }
        proofs
    }

    /// Takes rows in which this node's copy differs from the source. They are read again.
    pub fn repair(&self, repair: Repair) {
        if self.engine.borrow_mut().repair(repair, now()) {
            self.end_rest();
        }
    }

    /// Returns which rows were in the source when such rows were read again last.
    pub fn vetted(&self) -> Vetted {
        self.engine.borrow().vetted().clone()
    }

    /// Tells whether there are such rows.
    pub fn is_repairing(&self) -> bool {
        self.engine.borrow().is_repairing()
    }

    /// Takes the operators' last command to read the table again.
    pub fn hear_resync(&self, resync: Resync) {
        if self.engine.borrow_mut().hear_resync(resync) {
            self.end_rest();
        }
    }

    /// Tells what the node has to remove from its copy now.
    pub fn sweep(
        &self,
        told: Vec<Commit>,
        checkpoints: &[Checkpoint],
        known: Known,
        place: Place<'_>,
    ) -> Option<Sweep> {
        self.engine.borrow_mut().sweep(told, checkpoints, known, place)
    }

    fn end_rest(&self) {
        self.woken.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Passes the waiting event to the engine.
    pub fn step(&self) {
        if let Some(event) = self.event.take() {
            let mut engine = self.engine.borrow_mut();
            engine.allow_memory(self.pool.rows_allowed(self.table));
            self.command.replace(Some(engine.step(event, moment())));
            self.pool.hold(self.table, engine.need());
        }
    }

    /// Lets the engine work ahead while a batch is being written.
    pub fn prepare(&self) {
        self.engine.borrow_mut().prepare();
    }

    /// Says why a table cannot be the target; none if it can.
    pub fn refusal(&self, table: &Table) -> Option<String> {
        self.target.borrow().as_ref()?.refusal(table)
    }

    /// Begins a search for the stored rows that new rows replace.
    pub fn seek_former(&self) {
        let succession = self
            .target
            .borrow()
            .as_ref()
            .map(|target| Succession::new(&target.layout, self.renewed.borrow().clone()));
        self.succession.replace(succession);
    }

    /// Adds stored rows to the search.
    pub fn add_stored(&self, stored: Vec<Comparable>) {
        if let Some(succession) = self.succession.borrow_mut().as_mut() {
            succession.add(stored);
        }
    }

    /// Ends the search.
    pub fn settle(&self, records: &[Comparable]) -> Vec<Heir> {
        self.succession.take().map(|succession| succession.settle(records)).unwrap_or_default()
    }

    /// Returns the engine's status.
    pub fn status(&self) -> Status {
        let now = now();
        let seconds = |since| u64::try_from(now.since(since) / SECOND_US).unwrap_or(0);
        let waits_for_memory_seconds = self.waits_since.get().map(seconds);
        Status { waits_for_memory_seconds, ..self.engine.borrow().status(now) }
    }

    /// Returns what the worker does. The cluster divides the work by this.
    pub fn work(&self, commanded: bool) -> Work {
        self.engine.borrow().work(commanded)
    }

    /// Runs until the engine halts, and then releases its part of the worker's memory.
    pub async fn run(&self, host: &Host) {
        self.run_engine(host).await;
        self.ahead.borrow_mut().clear();
        self.pool.leave(self.table);
    }

    async fn run_engine(&self, host: &Host) {
        let mut event = Event::Start;
        let mut reported = None;
        let mut news = News::default();
        loop {
            let event_or_stop = if self.stopping.get() { Event::Stop } else { event };
            self.event.replace(Some(event_or_stop));
            if !host.guard() {
                return;
            }
            let Some(command) = self.command.take() else { return };
            self.report(host, &mut reported, &mut news);
            event = match command {
                Command::Load => Event::Loaded(self.load(host).await),
                Command::EnsureTarget { target, is_first } => {
                    let wanted = convert::to_js(&*target).unwrap_or(JsValue::UNDEFINED);
                    self.target.replace(Some(target));
                    let outcome = settle(host.ensure_target(wanted, is_first), Kind::HarperTable).await;
                    Event::TargetReady(outcome.map(|value| convert::incarnation(&value)))
                }
                Command::AdoptSchema(version) => {
                    let adoption = convert::adoption(&version).unwrap_or(JsValue::UNDEFINED);
                    let outcome = settle(host.adopt_schema(adoption), Kind::HarperWrite).await;
                    Event::SchemaAdopted(outcome.map(drop))
                }
                Command::ShareCounts(counts) => {
                    let counts = convert::to_js(&*counts).unwrap_or(JsValue::UNDEFINED);
                    // The other workers count themselves if they do not get the counts.
                    let _ = settle(host.share_counts(counts), Kind::HarperWrite).await;
                    Event::Shared
                }
                Command::ShareLeaves(leaves) => {
                    let leaves = convert::to_js(&*leaves).unwrap_or(JsValue::UNDEFINED);
                    // They are counted again when that is due.
                    let _ = settle(host.share_leaves(leaves), Kind::HarperWrite).await;
                    Event::Shared
                }
                Command::ShareContents(contents) => {
                    let contents = convert::to_js(&*contents).unwrap_or(JsValue::UNDEFINED);
                    // Some rows are compared once more if it is lost.
                    let _ = settle(host.share_contents(contents), Kind::HarperWrite).await;
                    Event::Shared
                }
                Command::Send(request) => Event::Answered(self.send(host, request).await),
                Command::Write(order) => Event::Written(self.write(host, *order).await),
                Command::Rest { delay_ms } => {
                    self.rest(delay_ms).await;
                    Event::Rested
                }
                Command::Halt => return,
            };
        }
    }

    /// Tells the host when the state or the last error has changed, and when there is something to log.
    fn report(&self, host: &Host, reported: &mut Option<(Activity, Option<Kind>)>, news: &mut News) {
        let status = self.status();
        let state = (status.state, status.last_error.as_ref().map(|error| error.code));
        let lines = news.of(&status);
        if reported.as_ref() != Some(&state) || !lines.is_empty() {
            *reported = Some(state);
            let lines = convert::to_js(&lines).unwrap_or(JsValue::UNDEFINED);
            host.report(convert::to_js(&status).unwrap_or(JsValue::UNDEFINED), lines);
        }
    }

    /// To convert what is stored costs more than to read it, so the same object is not converted again.
    async fn load(&self, host: &Host) -> Result<Box<Stored>, Failure> {
        let value = settle(host.load(), Kind::HarperRead).await?;
        if let Some((known, stored)) = self.loaded.borrow().as_ref()
            && *known == value
        {
            return Ok(stored.clone());
        }
        let stored = convert::stored(&value)?;
        self.loaded.replace(Some((value, stored.clone())));
        Ok(stored)
    }

    async fn send(&self, host: &Host, request: Request) -> Result<Answer, Failure> {
        let ahead = self.ahead.borrow_mut().pop_front();
        let promise = match ahead {
            Some(Ahead { request: started, answer, bytes }) if started == request => {
                self.pool.use_ahead(self.table, bytes);
                answer
            }
            _ => {
                self.ahead.borrow_mut().clear();
                self.pool.forget_ahead(self.table);
                if !self.has_room(request.purpose).await {
                    return Err(Failure::new(Kind::Unreachable, "the sync was stopped"));
                }
                start(host, &request)
            }
        };
        settle(promise, Kind::Unreachable).await.and_then(|value| convert::answer(&value))
    }

    /// Waits until there is memory for an answer. Returns false if the run has to end before.
    async fn has_room(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::DescribeTable | Purpose::MakeJob | Purpose::LookAtJob | Purpose::CancelJob => true,
            Purpose::StartQuery | Purpose::ReadResult => {
                let bytes = self.engine.borrow().need().next_page;
                self.waits_since.set(Some(now()));
                let has_room = self.pool.room(self.table, bytes, || self.stopping.get()).await;
                self.waits_since.set(None);
                has_room
            }
        }
    }

    async fn write(&self, host: &Host, order: WriteOrder) -> Result<crate::engine::Receipt, Failure> {
        self.fetch_ahead(host, &order.ahead);
        let converted = convert::order(&order)
            .map_err(|_| Failure::new(Kind::HarperWrite, "the batch could not be handed to JavaScript"))?;
        self.renewed.replace(order.renewed.clone());
        drop(order);
        settle(host.write(converted), Kind::HarperWrite).await.map(|value| convert::receipt(&value))
    }

    /// Starts the requests that were not started yet, as far as there is memory for their answers.
    fn fetch_ahead(&self, host: &Host, requests: &[Request]) {
        if requests.is_empty() {
            return;
        }
        if !self
            .ahead
            .borrow()
            .iter()
            .map(|ahead| &ahead.request)
            .eq(requests.iter().take(self.ahead.borrow().len()))
        {
            self.ahead.borrow_mut().clear();
            self.pool.forget_ahead(self.table);
        }
        let bytes = self.engine.borrow().need().next_page;
        let started = self.ahead.borrow().len();
        for request in requests.iter().skip(started) {
            if !self.pool.room_ahead(self.table, bytes) {
                return;
            }
            let answer = start(host, request);
            self.ahead.borrow_mut().push_back(Ahead { request: request.clone(), answer, bytes });
        }
    }

    /// Waits for a time, or until the run has to end or the cluster has changed.
    async fn rest(&self, delay_ms: u64) {
        self.woken.set(false);
        let mut left_ms = delay_ms;
        loop {
            let slice_ms = left_ms.min(TIMER_MS_MAX);
            let mut timer = TimeoutFuture::new(slice_ms as u32);
            std::future::poll_fn(|context| {
                if self.stopping.get() || self.woken.get() {
                    return Poll::Ready(());
                }
                self.waker.replace(Some(context.waker().clone()));
                Pin::new(&mut timer).poll(context)
            })
            .await;
            left_ms -= slice_ms;
            if left_ms == 0 || self.stopping.get() || self.woken.get() {
                return;
            }
        }
    }
}

fn start(host: &Host, request: &Request) -> Promise {
    host.send(convert::to_js(request).unwrap_or(JsValue::UNDEFINED))
}

async fn settle(promise: Promise, fallback: Kind) -> Result<JsValue, Failure> {
    convert::outcome(JsFuture::from(promise).await, fallback)
}

/// Returns the time by the worker's clock.
pub fn now() -> Micros {
    Micros::from_millis(Date::now() as i64)
}

fn moment() -> Moment {
    Moment { now: now(), jitter: Jitter((Math::random() * f64::from(u32::MAX)) as u32) }
}
