//! Plans the next query, or finds that none is needed.

use super::bill::{Bill, day_of};
use super::boundary::{Answer, Command, Moment, Note, WriteOrder};
use super::checkpoint::{Checkpoint, OpenWindow};
use super::contents::Piece;
use super::counts::Counts;
use super::phase::Phase;
use super::query::{self, Query};
use super::source::Described;
use super::status::Activity;
use super::task::Task;
use super::transfer::{self, Transfer};
use super::validating::Counting;
use super::window::{self, WINDOW_BYTES_MAX};
use super::{AfterWrite, Engine, Inquiry, Next, State};
use crate::bigquery::json::Text;
use crate::bigquery::page::{Cell, Page};
use crate::bigquery::request::{self, Request};
use crate::bigquery::sql::{self, Selection, Window};
use crate::bigquery::table::PartitionUnit;
use crate::error::{Failure, Kind};
use crate::time::{DAY_US, SECOND_US};
use std::sync::Arc;

/// How often a worker that waits for another's counts looks.
const COUNTS_LOOK_MS: u64 = 1_000;
/// Tables of at least this size are asked about before they are queried, where a budget is configured.
const DRY_RUN_BYTES_MIN: u64 = 1 << 30;
/// Queries that may bill this much run under a job id of our own, so that nothing bills them twice. Others bill less than
/// a fifth of a cent, and are spared the commit before and the request more.
const JOB_BYTES_MIN: u64 = 1 << 28;
/// Rows of a small result.
const ANSWER_ROWS_MAX: u64 = 100_000;

/// A query whose result is small and tells the engine something.
#[derive(Debug)]
pub enum Question {
    /// How many rows does each partition of the backlog have?
    Backlog,
    /// How many rows have no cursor?
    WithoutCursor,
    /// What are the leaves of the own rows?
    Leaves(Box<Counting>),
    /// What are the keys of the own rows? Only how many there are, and where, is of interest.
    Keys(Box<Counting>),
    /// What are the rows of a piece whose values are compared? Of these as well.
    Piece(Box<Piece>),
}

impl Question {
    fn rows_max(&self) -> u64 {
        match self {
            Question::Backlog | Question::WithoutCursor | Question::Leaves(_) => ANSWER_ROWS_MAX,
            Question::Keys(_) | Question::Piece(_) => 1,
        }
    }
}

/// What is asked before the query of a window is made.
#[derive(Debug)]
pub enum Cost {
    /// What does it bill?
    Window(Box<Task>),
    /// What does the last day bill alone? With what the window bills.
    Day(Box<Task>, u64),
    /// What does counting for validation bill?
    Counting(Box<Counting>),
    /// What do rows bill whose values are compared?
    Piece(Box<Piece>),
}

impl Engine {
    /// Decides what to read.
    pub(super) fn plan(&mut self, described: Arc<Described>, moment: Moment) -> Next {
        self.step_back_behind_the_clock();
        self.sizes.follow_lag(self.lag_s(moment.now), &self.config.pace);
        self.sizes.restore_page(&self.config.pace);
        self.deliveries.know_key(described.projection.key.is_empty());
        self.comparing.know(Some(Arc::clone(&described)));
        if let Some(loss) = self.deliveries.loss(moment.now) {
            return self.mend(loss, described, moment);
        }
        if let Some((window, stamp)) = self.validation.next_repair(moment.now) {
            if stamp.is_some() && stamp <= self.holding.last_mark() {
                // What is written at that time is taken for gone, and all rows are read again in any case.
                self.validation.repaired(None);
                return Next::Plan(described);
            }
            return self.mend_difference((window, stamp), described, moment);
        }
        if self.holding.own().is_empty() {
            return self.stand_by(moment);
        }
        if self.holding.must_look_around(&described.projection, moment.now) {
            return Next::Load;
        }
        let not_begun = self.holding.rereads_due();
        if !not_begun.is_empty() {
            return self.begin_rereads(&not_begun, self.holding.resync(), described, moment);
        }
        if let Some(row) = self.holding.debt().cloned() {
            return self.settle(row, described);
        }
        if let Some(open) = self.holding.ledger.open_window(self.holding.own()).cloned() {
            return self.resume(open, described, moment);
        }
        if let Err(failure) = Bill::check_day(self.billed_today(), &self.config.pace) {
            // A table that has nothing new is well, whatever its day has left.
            return match self.has_read_all(&described, moment) {
                true => self.skip_poll(&described, moment),
                false => Next::fail(failure, Next::Poll),
            };
        }
        self.look_for_unread(&described, moment);
        match self.count_due(&described, moment) {
            Some(Ok(counting)) => return self.count(counting, described, moment),
            Some(Err(reason)) => return self.refuse_to_count(reason, described, moment),
            None => {}
        }
        if self.must_count_without_cursor(&described, moment) {
            let sql = sql::count_without_cursor(self.whole_source(&described));
            return self.ask_sql(Question::WithoutCursor, described, &sql, moment);
        }
        if self.has_read_all(&described, moment) {
            return self.skip_poll(&described, moment);
        }
        let pace = &self.config.pace;
        let (holding, sizes) = (&self.holding, &self.sizes);
        if let Some(unit) = holding.unit_to_count(&described, sizes, pace, &self.source, moment.now) {
            return self.count_or_await(unit, described, moment);
        }
        self.holding.need_no_counts();
        let pace = &self.config.pace;
        let (late, source, sizes) = (&self.late, &self.source, &self.sizes);
        let task = Task::next(&mut self.holding, &described, late, source, sizes, pace, moment.now);
        if let Some(next) = self.end_rereads(&described, moment) {
            return next;
        }
        match task {
            None => {
                self.source.skip_query(moment.now);
                Next::RestUntilPoll
            }
            Some(task) => self.begin(task, described, moment),
        }
    }

    /// Reads a window, if it costs no more than is allowed.
    pub(super) fn begin(&mut self, task: Task, described: Arc<Described>, moment: Moment) -> Next {
        if !self.must_ask_for_cost(&task, &described) {
            let bytes = self.bytes_expected(&task, &described);
            return self.query(task, described, bytes.unwrap_or(0), moment);
        }
        let query = self.query_of(task, described);
        let request = self.dry_run(&query, moment);
        Next::Ask(Inquiry::Cost(Cost::Window(Box::new(query.task)), query.described), request)
    }

    /// Asks what a query would bill.
    fn dry_run(&self, query: &Query, moment: Moment) -> Request {
        let mut request = self.sql_request(&query.sql(&self.config), self.sizes.page_rows(), moment);
        request.make_dry_run();
        request
    }

    fn query_of(&self, task: Task, described: Arc<Described>) -> Query {
        let pace = &self.config.pace;
        let countable_rows = self.sizes.countable_rows(self.countable_rows(), pace);
        Query::new(task, described, self.source.server_time(), countable_rows, pace)
    }

    /// Commits what there is to tell, without rows.
    pub(super) fn write_notes(
        &mut self,
        notes: Vec<Note>,
        checkpoints: Vec<Checkpoint>,
        after: AfterWrite,
    ) -> Next {
        let head = self.outbox.head(&self.config.id, self.worker.name());
        Next::write(WriteOrder::without_rows(notes, checkpoints, head), after)
    }

    /// Takes back a watermark that is ahead of BigQuery's clock: the clock was wrong when it was written, and nothing is
    /// proven beyond the time at which the rows were read.
    fn step_back_behind_the_clock(&mut self) {
        if self.holding.ledger.step_back_behind(self.source.server_time(), &self.config.pace.zone) {
            self.late.reread();
            self.late.forget_rows();
            let reason = "the watermark was ahead of BigQuery's clock and was taken back".to_owned();
            self.notes.push(Note { kind: "clock_was_wrong", reason });
        }
    }

    /// Goes on with a result of which a part is in Harper, unless it is no longer of use.
    fn resume(&mut self, open: OpenWindow, described: Arc<Described>, moment: Moment) -> Next {
        let era = described.projection.era;
        let replaces = self.holding.ledger.may_have_old_ids(&open.partitions, era, open.after);
        let is_sole = self.holding.is_sole_at(moment.now);
        let reads_future = !self.holding.rule().pruned;
        let task = transfer::task_of(&open, is_sole, replaces, reads_future);
        let Some(task) = task.filter(|_| open.schema.max(1) == self.schema.number()) else {
            self.holding.ledger.give_up_windows();
            return Next::Describe(None);
        };
        self.source.find_result(open.made_at, moment.now);
        self.condition.set_activity(Activity::Running);
        let Some(total_rows) = open.total_rows else { return self.find_job(open, task, described) };
        let transfer = Transfer::resume(open, total_rows, task, described, &self.config.pace);
        match transfer.next_page(self.sizes.page_rows()) {
            Ok(request) => {
                self.late.begin(&transfer.task.partitions);
                Next::Ask(Inquiry::Page(Box::new(transfer)), request)
            }
            Err(failure) => Next::fail(failure, Next::Load),
        }
    }

    fn must_count_without_cursor(&self, described: &Described, moment: Moment) -> bool {
        let (watermark, phase) = (self.watermark_instant(), self.sizes.phase());
        self.holding.is_first()
            && self.source.must_count_without_cursor(described, watermark, phase, moment.now)
    }

    /// Whether all that the table holds is in Harper, and nothing of it has to be read again.
    pub(super) fn has_read_all(&self, described: &Described, moment: Moment) -> bool {
        let present = self.config.pace.zone.local(self.source.server_time());
        let owns_the_future = self.holding.owns_the_future(present);
        !self.holding.is_rereading()
            && !self.holding.is_unsettled(&described.projection, self.holding.own(), moment.now)
            && self.source.is_unchanged(&described.description, owns_the_future, moment.now)
    }

    /// Makes no query. The watermark stays where a query has proven it: should the table have changed although it is
    /// said not to have, the next query still reads from there.
    fn skip_poll(&mut self, described: &Described, moment: Moment) -> Next {
        self.condition.succeed_idly();
        self.source.stay_unchanged(moment.now);
        if self.notes.is_empty() {
            return Next::RestUntilPoll;
        }
        let Some(checkpoint) = self.bookkeeper(moment).of_notes(described) else {
            return Next::RestUntilPoll;
        };
        let notes = std::mem::take(&mut self.notes);
        self.write_notes(notes, vec![checkpoint], AfterWrite::Rest)
    }

    /// Counts the backlog, or waits for the worker that does.
    fn count_or_await(&mut self, unit: PartitionUnit, described: Arc<Described>, moment: Moment) -> Next {
        if self.holding.awaits_counts(moment.now) {
            return Next::rest(COUNTS_LOOK_MS, Next::Poll);
        }
        let lowest = self.holding.ledger.lowest_of_all();
        let after = window::lower_bound(lowest, described.projection.cursor_type, &self.config.pace);
        let sql = sql::count_by_partition(self.whole_source(&described), after, unit);
        self.ask_sql(Question::Backlog, described, &sql, moment)
    }

    fn must_ask_for_cost(&self, task: &Task, described: &Described) -> bool {
        let pace = &self.config.pace;
        let has_limit = pace.bytes_billed_max.is_some() || pace.day_bytes_billed_max.is_some();
        let limits_need_it =
            has_limit && described.description.bytes.is_none_or(|bytes| bytes >= DRY_RUN_BYTES_MIN);
        limits_need_it || self.bytes_expected(task, described).is_none()
    }

    /// Returns what the query of a window bills at most, as far as is known without asking: polls bill about as much as the
    /// one before.
    fn bytes_expected(&self, task: &Task, described: &Described) -> Option<u64> {
        let is_poll = task.plan.window.after.is_some() && task.is_open_ended() && !task.rereads_unsettled;
        let is_steady = self.sizes.phase() == Phase::Steady;
        self.bill.poll_bytes.filter(|_| is_poll && is_steady).or(described.description.bytes)
    }

    /// Starts the query of a window, which may bill so much.
    fn query(&mut self, task: Task, described: Arc<Described>, bytes: u64, moment: Moment) -> Next {
        if task.rereads_unsettled {
            // What was written may have been overwritten; rows that come again are no sign of an untold change.
            self.late.forget_rows();
            self.source.forget_conclusions();
        }
        self.source.query(moment.now);
        self.condition.set_activity(Activity::Running);
        let query = self.query_of(task, described);
        if bytes >= JOB_BYTES_MIN && query.task.mends.is_none() {
            return self.open_job(query, moment);
        }
        let request = self.sql_request(&query.sql(&self.config), self.sizes.page_rows(), moment);
        Next::Ask(Inquiry::Query(Box::new(query)), request)
    }

    pub(super) fn whole_source<'e>(&'e self, described: &'e Described) -> sql::Source<'e> {
        sql::Source {
            table: &self.config.source,
            columns: described.projection.columns(),
            filter: self.config.filter.as_deref(),
            selection: &Selection::All,
        }
    }

    pub(super) fn sql_request(&self, sql: &str, page_rows: u64, moment: Moment) -> Request {
        let request_id = request::id_of(&self.worker.name(), moment.now, moment.jitter.0);
        let bytes_billed_max = self.config.pace.bytes_billed_max;
        request::start_query(
            &self.connection,
            request::Query { sql, page_rows, request_id: &request_id, bytes_billed_max },
        )
    }

    pub(super) fn ask_sql(
        &mut self,
        question: Question,
        described: Arc<Described>,
        sql: &str,
        moment: Moment,
    ) -> Next {
        self.condition.set_activity(Activity::Running);
        let request = self.sql_request(sql, question.rows_max(), moment);
        Next::Ask(Inquiry::Question(question, described), request)
    }

    pub(super) fn question_answered(
        &mut self,
        question: Question,
        described: Arc<Described>,
        request: &Request,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Next {
        let page = match self.open_page(request, outcome) {
            Ok(page) => page,
            Err(failure) if matches!(question, Question::Piece(_)) => {
                return self.fail_piece(&failure, moment);
            }
            Err(failure) => return Next::fail(failure, Next::Describe(None)),
        };
        if !page.envelope().complete {
            let Some(job) = page.envelope().job.as_ref() else { return Next::Describe(None) };
            let request = request::read_result(job, 0, question.rows_max());
            return Next::rest(query::PAUSE_MS, Next::Ask(Inquiry::Question(question, described), request));
        }
        let wants_numbers = !matches!(question, Question::Keys(_) | Question::Piece(_));
        let (rows, bytes) = match read_answer(&page, wants_numbers) {
            Ok(answer) => answer,
            Err(failure) => return Next::fail(failure, Next::Describe(None)),
        };
        match question {
            Question::WithoutCursor => {
                self.bill.add(bytes);
                self.take_count_without_cursor(&rows, &described, moment);
                Next::Plan(described)
            }
            Question::Backlog => {
                self.bill.add(bytes);
                self.take_backlog(&rows, described)
            }
            Question::Leaves(counting) => {
                self.bill.add(bytes);
                match page.envelope().total_rows {
                    Some(total) if total > rows.len() as u64 => {
                        self.count_longer_leaves(*counting, bytes, described, moment)
                    }
                    _ => self.take_leaves(&counting, &rows, bytes, described, moment),
                }
            }
            Question::Keys(counting) => {
                self.bill.add(bytes);
                self.take_keys(&counting, &page, bytes, described, moment)
            }
            Question::Piece(piece) => {
                self.bill.add(bytes);
                self.take_piece(&piece, &page, bytes, &described, moment)
            }
        }
    }

    pub(super) fn cost_answered(
        &mut self,
        cost: Cost,
        described: Arc<Described>,
        request: &Request,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Next {
        // There are no rows, unless the endpoint knows no dry runs.
        let bytes = match self.open_page(request, outcome) {
            Ok(page) => page.envelope().bytes_billed.unwrap_or(0),
            Err(failure) if matches!(cost, Cost::Piece(_)) => return self.fail_piece(&failure, moment),
            Err(failure) => return Next::fail(failure, Next::Describe(None)),
        };
        match cost {
            Cost::Window(task) => match self.last_day_of(&task, &described, bytes) {
                Some(day) => {
                    let query = self.query_of(day, described);
                    let request = self.dry_run(&query, moment);
                    Next::Ask(Inquiry::Cost(Cost::Day(task, bytes), query.described), request)
                }
                None => self.judge_cost(*task, described, bytes, moment),
            },
            Cost::Piece(piece) => self.judge_piece(*piece, described, bytes, moment),
            Cost::Counting(counting) => self.judge_counting(*counting, described, bytes, moment),
            Cost::Day(task, window_bytes) => {
                self.source.learn_price(bytes, window_bytes);
                match self.source.is_billed_by_day() {
                    true => Next::Plan(described),
                    false => self.judge_cost(*task, described, window_bytes, moment),
                }
            }
        }
    }

    /// Returns the last day alone of a large window, if BigQuery does not tell how large the days of the source are, nor
    /// whether they can be read one by one: what a day bills tells that.
    fn last_day_of(&self, task: &Task, described: &Described, bytes: u64) -> Option<Task> {
        let is_untold = described.description.rows.is_none() && task.mends.is_none();
        let is_of_interest = is_untold && bytes > WINDOW_BYTES_MAX && !self.source.knows_price();
        let days_ago =
            |days: i64| self.config.pace.zone.local(self.source.server_time()).plus(-days * DAY_US);
        let is_long = task.plan.window.after.is_none_or(|after| after < days_ago(2));
        (is_of_interest && is_long).then(|| {
            let mut day = task.clone();
            day.plan.window = Window { after: Some(days_ago(1)), until: None };
            day
        })
    }

    fn take_backlog(&mut self, rows: &[Vec<i64>], described: Arc<Described>) -> Next {
        let partitions = rows.iter().filter_map(|row| match row.as_slice() {
            [starts, rows] => Some((starts.div_euclid(SECOND_US), u64::try_from(*rows).ok()?)),
            _ => None,
        });
        let counts = Counts {
            id: self.config.id.clone(),
            identity: self.config.identity(&described.projection.key_names()),
            counted_at: self.source.server_time().0 / SECOND_US,
            resync: self.holding.resync().number,
            partitions: partitions.collect(),
        };
        if self.holding.set_counts(counts.clone()) {
            let plan = Box::new(Next::Plan(described));
            return Next::Await(State::Sharing(plan), Command::ShareCounts(Box::new(counts)));
        }
        Next::Plan(described)
    }

    fn take_count_without_cursor(&mut self, rows: &[Vec<i64>], described: &Described, moment: Moment) {
        let count = rows.first().and_then(|row| row.first());
        let count = count.and_then(|count| u64::try_from(*count).ok()).unwrap_or(0);
        let known = self.rows_without_cursor();
        self.source.count_without_cursor(count, &described.description, moment.now);
        if known != count {
            let column = &self.config.cursor;
            let reason = format!("{count} rows have no value in {column}; they are not copied");
            self.notes.push(Note { kind: "rows_without_cursor", reason });
        }
    }

    /// Goes on with a window if it costs no more than is allowed.
    fn judge_cost(&mut self, task: Task, described: Arc<Described>, bytes: u64, moment: Moment) -> Next {
        match Bill::check_query(bytes, self.billed_today(), &self.config.pace) {
            Ok(()) => self.query(task, described, bytes, moment),
            Err(_) if task.mends.as_ref().is_some_and(|loss| loss.is_difference()) => {
                self.validation.give_up();
                Next::Plan(described)
            }
            // A budget comes back by itself; a limit of one query does not.
            Err(failure) if failure.kind == Kind::DayBudget => Next::fail(failure, Next::Poll),
            Err(failure) => Next::fail(failure, Next::Describe(None)),
        }
    }

    pub(super) fn billed_today(&self) -> u64 {
        self.bill.on_day(day_of(self.source.server_time()), &self.holding.ledger)
    }
}

/// Reads a small result, of integers if numbers are wanted, and what its query was billed.
fn read_answer(page: &Page, wants_numbers: bool) -> Result<(Vec<Vec<i64>>, u64), Failure> {
    let mut rows = page.rows();
    let mut cells = Vec::new();
    let mut numbers = Vec::new();
    while rows.next(&mut cells)?.is_some() {
        if !wants_numbers {
            continue;
        }
        let row: Option<Vec<i64>> = cells.iter().map(|cell| read_integer(*cell)).collect();
        let malformed = || Failure::new(Kind::ResponseMalformed, "BigQuery did not answer with integers");
        numbers.push(row.ok_or_else(malformed)?);
    }
    let mut page = page.clone();
    let progress = rows.progress();
    page.advance(progress);
    Ok((numbers, page.envelope().bytes_billed.unwrap_or(0)))
}

fn read_integer(cell: Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Bare(raw) | Cell::Text(Text { raw, .. }) => std::str::from_utf8(raw).ok()?.parse().ok(),
        Cell::Null | Cell::Nested(_) => None,
    }
}
