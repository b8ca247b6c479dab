//! From the source's description to the next query, or to the knowledge that none is needed.

use super::bill::{Bill, day_of};
use super::counts::Counts;
use super::ledger::Ledger;
use super::reading::Recent;
use super::status::Activity;
use super::window::{self, WINDOW_BYTES_MAX};
use super::{
    AfterRest, Answer, Command, Engine, Incarnation, Moment, Note, Phase, State, Stored, Task, division,
    transfer,
};
use crate::bigquery::json::Text;
use crate::bigquery::page::{Cell, Page};
use crate::bigquery::request::{self, Purpose, Request};
use crate::bigquery::sql::{self, Selection};
use crate::bigquery::table::{Description, PartitionUnit};
use crate::cluster::Share;
use crate::error::{Failure, Kind};
use crate::mapping::attributes::{Target, attributes};
use crate::mapping::layout::Layout;
use crate::mapping::projection::Projection;
use crate::partition::{Division, Rule};
use crate::time::{Micros, SECOND_US};

/// An unchanged table is queried all the same after this long, in case its version does not tell.
const TRUST_US: i64 = 3_600 * SECOND_US;
/// A watermark that is further ahead of BigQuery's clock than this comes from a wrong clock.
const CLOCK_TOLERANCE_US: i64 = 60 * SECOND_US;
/// Rows without a cursor are counted again at most this often.
const COUNT_INTERVAL_US: i64 = 3_600 * SECOND_US;
/// How long one worker waits for another to count before it counts by itself.
const COUNTS_PATIENCE_US: i64 = 60 * SECOND_US;
/// How often it looks.
const COUNTS_LOOK_MS: u64 = 1_000;
/// What was counted so long ago tells too little of now.
const COUNTS_AGE_S_MAX: i64 = 86_400;
/// How often a worker without a share looks whether the table, or its rule, gave it one.
const STANDBY_MS: u64 = 300_000;
/// Tables of at least this size are asked about before they are queried, where a budget is configured.
const DRY_RUN_BYTES_MIN: u64 = 1 << 30;

/// A query whose result is small and tells the engine something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// How many rows does each partition of the backlog have?
    Backlog,
    /// How many rows have no cursor?
    WithoutCursor,
    /// What would the next window bill?
    Cost,
}

impl Engine {
    pub(super) fn describe(&mut self) -> Command {
        self.send(request::describe_table(&self.config.source))
    }

    pub(super) fn described(&mut self, outcome: Result<Answer, Failure>, moment: Moment) -> Command {
        let answer = match self.accept(Purpose::DescribeTable, outcome) {
            Ok(answer) => answer,
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
        };
        let resolved = Description::read(&answer.body).and_then(|description| {
            let projection = Projection::resolve(&self.config, &description, self.schema.as_deref())?;
            let rule = division::resolve(&self.config, &projection, &description)?;
            Ok((projection, description, rule))
        });
        let (projection, description, rule) = match resolved {
            Ok(resolved) => resolved,
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
        };
        // Without the server's clock the own one must do.
        self.server_time = answer.server_time.unwrap_or(moment.now);
        self.meter.server_ahead_us = self.server_time.since(moment.now);
        if self.stored.is_none() && (rule != self.rule || self.standing.share != self.share) {
            return self.load();
        }
        if let Some(failure) = self.stored.as_ref().and_then(|stored| self.mismatch(&projection, stored)) {
            return self.fail(failure, AfterRest::Load, moment);
        }
        match self.next_schema(&projection) {
            Err(failure) => return self.fail(failure, AfterRest::Load, moment),
            Ok(Some(next)) => return self.adopt(next, moment),
            Ok(None) => self.adopted_version = None,
        }
        if let Some(stored) = self.stored.take() {
            let identity = self.config.identity(&projection.key_names());
            self.take_stored(*stored, rule, &identity);
        }
        self.follow_schema(projection);
        self.description = Some(description);
        if self.own.is_empty() {
            return self.stand_by(moment);
        }
        if self.target_ready {
            return self.plan(moment);
        }
        let (Some(projection), Some(description)) = (&self.projection, &self.description) else {
            return self.describe();
        };
        let target = Box::new(Target {
            layout: Layout::of(projection),
            attributes: attributes(projection, description, &self.config.schema_overrides),
            may_create: self.config.may_create,
        });
        self.state = State::Preparing;
        Command::EnsureTarget { target, is_first: self.own.contains(&0) }
    }

    pub(super) fn prepared(&mut self, outcome: Result<Incarnation, Failure>, moment: Moment) -> Command {
        match outcome {
            Err(failure) => self.fail(failure, AfterRest::Describe, moment),
            Ok(incarnation) => {
                self.target_ready = true;
                self.condition.recover_from(Kind::HarperTable);
                if incarnation == self.incarnation {
                    return self.plan(moment);
                }
                // What is stored of a table that had been there before stands for nothing any more.
                self.poll()
            }
        }
    }

    /// Tells whether rows would get other ids than those that the checkpoints stand for.
    fn mismatch(&self, projection: &Projection, stored: &Stored) -> Option<Failure> {
        let identity = self.config.identity(&projection.key_names());
        stored.checkpoints.iter().any(|checkpoint| checkpoint.identity != identity).then(|| {
            let message = format!(
                "columns, key, where, timestampColumn, timestampUnit, idType, schemaOverrides, targetTable or \
                 the source of {id} were changed since its checkpoint was written, and rows would get other ids or \
                 forms, or go elsewhere: set them back, or delete the rows of {target} \
                 and the SyncCheckpoint and SchemaVersion rows of {id} to sync anew",
                id = self.config.id,
                target = self.config.target_table
            );
            Failure::new(Kind::CheckpointMismatch, message)
        })
    }

    /// Takes over what Harper holds, and the share that is due.
    fn take_stored(&mut self, stored: Stored, rule: Rule, identity: &str) {
        let share = self.standing.share;
        let Stored { checkpoints, counts, incarnation, .. } = stored;
        let mut ledger = Ledger::of(checkpoints, &rule.name());
        let own = owned(rule, share, self.config.position);
        let same_division = self.rule == rule && self.own == own;
        if same_division && self.ledger.is_same_for(&ledger, &own) {
            ledger.take_proofs(&mut self.ledger);
        } else {
            // Somebody else wrote for these partitions, or they are others: what is known of their rows is void.
            self.recent = Recent::default();
            self.forget_conclusions();
        }
        (self.rule, self.share, self.own, self.ledger) = (rule, share, own, ledger);
        self.incarnation = incarnation;
        let age_s = |counts: &Counts| self.server_time.0 / SECOND_US - counts.counted_at;
        let fresh = |counts: &Counts| counts.identity == identity && age_s(counts) < COUNTS_AGE_S_MAX;
        self.counts = counts.filter(fresh).or(self.counts.take());
        self.start_over_if_asked();
    }

    /// Reads everything anew when rows are wanted that were left out before, or went to a table that is gone.
    fn start_over_if_asked(&mut self) {
        let start = self.config.pace.start;
        let own_rows = || self.own.iter().filter_map(|partition| self.ledger.get(*partition));
        let moved_back = own_rows()
            .any(|row| row.start_timestamp.is_some_and(|before| start.is_none_or(|start| start < before)));
        let was_missing =
            own_rows().any(|row| row.incarnation != self.incarnation && row.last_timestamp.is_some());
        if moved_back {
            self.start_over("start_moved_back", "startTimestamp was moved back");
        }
        if was_missing {
            self.start_over("target_was_missing", "the target table was missing");
        }
    }

    /// Reads everything anew; rows that are there get the same ids and so are not doubled.
    fn start_over(&mut self, kind: &'static str, why: &str) {
        self.ledger.start_over();
        self.recent = Recent::default();
        self.forget_conclusions();
        self.notes.push(Note { kind, reason: format!("{why}: the table is read anew") });
    }

    /// Rests without anything to do, until the cluster changes or the table does.
    fn stand_by(&mut self, moment: Moment) -> Command {
        self.condition.succeed_idly();
        self.condition.rest(Activity::Standby, STANDBY_MS, moment.now);
        self.state = State::Resting(AfterRest::Poll);
        Command::Rest { delay_ms: STANDBY_MS }
    }

    pub(super) fn plan(&mut self, moment: Moment) -> Command {
        self.step_back_behind_the_clock();
        self.phase = Phase::of_lag(self.lag_s(moment.now), &self.config.pace);
        self.page_rows = self.phase.page_rows(&self.config.pace);
        if let Some(open) = self.ledger.open_window(&self.own).cloned() {
            return self.resume(open, moment);
        }
        let (Some(projection), Some(description)) = (&self.projection, &self.description) else {
            return self.describe();
        };
        if let Err(failure) = Bill::check_day(self.billed_today(), &self.config.pace) {
            return self.fail(failure, AfterRest::Poll, moment);
        }
        if self.must_count_without_cursor(projection, description, moment.now) {
            let sql = sql::count_without_cursor(self.source(projection, &Selection::All));
            return self.ask_sql(Question::WithoutCursor, &sql, moment);
        }
        let has_all = !self.is_unsettled(projection, &self.own, moment.now);
        if has_all && self.is_unchanged(description, moment.now) {
            return self.skip_poll(moment);
        }
        if let Some(unit) = self.unit_to_count(projection, description) {
            return self.count_or_await(unit, moment);
        }
        self.counts_awaited_since = None;
        let pace = &self.config.pace;
        let has_limit = pace.bytes_billed_max.is_some() || pace.day_bytes_billed_max.is_some();
        let asks_first = has_limit && description.bytes.is_none_or(|bytes| bytes >= DRY_RUN_BYTES_MIN);
        let Some(task) = self.next_task(moment.now) else {
            self.polled_at = Some(moment.now);
            return self.rest_until_poll(moment);
        };
        if asks_first {
            let mut request = self.window_request(&task, moment);
            request.make_dry_run();
            self.task = Some(task);
            return self.ask(Question::Cost, request);
        }
        self.query(task, moment)
    }

    /// Plans the next window of the partitions that are furthest behind; none when there is nothing to read yet.
    ///
    /// While nodes come and go, two workers may write versions of one row and not see each other's; there the last write
    /// wins, which need not be the newest version. Once the cluster has settled, what was read meanwhile is read again.
    fn next_task(&mut self, now: Micros) -> Option<Task> {
        let (projection, description) = (self.projection.as_ref()?, self.description.as_ref()?);
        let cursor_type = projection.cursor_type;
        let bytes_per_row = description.bytes.unwrap_or(0) / description.rows.unwrap_or(0).max(1);
        let starts: Vec<Micros> =
            self.counts.iter().flat_map(Counts::partitions).map(|one| one.starts).collect();
        let is_sole = self.standing.is_settled_at(now);
        // Each round puts partitions that have nothing in their window level with the next ones.
        for _ in 0..=self.own.len() {
            let group = self.ledger.furthest_behind(&self.own);
            let own_counts = self.counts.iter().flat_map(Counts::partitions).filter(|one| {
                !self.rule.pruned || group.partitions.binary_search(&self.rule.partition(one.starts)).is_ok()
            });
            let rows_max = self.config.pace.window_rows_max;
            let bound = window::next_bound(own_counts, group.watermark, bytes_per_row, rows_max);
            let until = [group.next, bound].into_iter().flatten().min();
            // Partitions that were read by other windows may have had late rows since.
            let reread = self.reread || group.partitions != self.last_partitions;
            let pace = &self.config.pace;
            let mut plan = window::plan(group.watermark, until, reread, self.server_time, cursor_type, pace)?;
            if self.is_unsettled(projection, &group.partitions, now) {
                let settled = self.ledger.settled(&group.partitions);
                plan.window.after = window::lower_bound(settled, cursor_type, pace);
                // What was written may have been overwritten; rows that come again are no sign of an untold change.
                self.recent = Recent::default();
                self.read_version = None;
            }
            let selected =
                division::select(self.rule, &group.partitions, plan.window, &starts, self.server_time);
            if let Some(selection) = selected {
                let started_from = group.watermark;
                let replaces = self.may_have_old_ids(&group.partitions, plan.window.after);
                let partitions = group.partitions;
                // Days of the future that were counted are left to those who own their partitions.
                let none_counted = starts.iter().all(|starts| *starts <= self.server_time);
                let reads_future = transfer::reads_future(&selection) && none_counted;
                return Some(Task {
                    plan,
                    partitions,
                    started_from,
                    selection,
                    is_sole,
                    replaces,
                    reads_future,
                });
            }
            self.ledger.prove(&group.partitions, plan.watermark);
        }
        None
    }

    /// Whether some of the partitions were read while nodes came and went, and can be read again now.
    fn is_unsettled(&self, projection: &Projection, partitions: &[u32], now: Micros) -> bool {
        let is_keyed = !projection.key.is_empty();
        is_keyed && self.standing.is_settled_at(now) && !self.ledger.is_settled(partitions)
    }

    /// Takes back a watermark that is ahead of BigQuery's clock: the clock was wrong when it was written, and nothing is
    /// proven beyond the time at which the rows were read.
    fn step_back_behind_the_clock(&mut self) {
        let server_time = self.server_time;
        let is_ahead = |at: &Micros| at.since(server_time) > CLOCK_TOLERANCE_US;
        let mut stepped_back = self.ledger.forget_proofs(|at| is_ahead(&at));
        for row in self.ledger.rows_mut().filter(|row| row.last_timestamp.as_ref().is_some_and(is_ahead)) {
            row.last_timestamp = Some(row.last_sync_time.unwrap_or(server_time).min(server_time));
            row.window = None;
            stepped_back = true;
        }
        if stepped_back {
            self.reread = true;
            self.recent = Recent::default();
            let reason = "the watermark was ahead of BigQuery's clock and was taken back".to_owned();
            self.notes.push(Note { kind: "clock_was_wrong", reason });
        }
    }

    /// Starts the query of a window.
    fn query(&mut self, task: Task, moment: Moment) -> Command {
        let request = self.window_request(&task, moment);
        self.task = Some(task);
        self.queried_at = Some(moment.now);
        self.query_repeated = false;
        self.query_waits = 0;
        self.polled_at = Some(moment.now);
        self.query_server_time = Some(self.server_time);
        self.queried_version = self.description.as_ref().and_then(|description| description.version.clone());
        self.condition.set_activity(Activity::Running);
        self.send(request)
    }

    fn window_request(&self, task: &Task, moment: Moment) -> Request {
        let sql = match &self.projection {
            Some(projection) => {
                let source = self.source(projection, &task.selection);
                sql::read_window(source, task.plan.window, self.is_numbered(task))
            }
            None => String::new(),
        };
        self.sql_request(&sql, self.page_rows, moment)
    }

    /// Whether identical rows are so many, possibly, that BigQuery had better number them.
    pub(super) fn is_numbered(&self, task: &Task) -> bool {
        let (Some(projection), Some(description)) = (&self.projection, &self.description) else {
            return false;
        };
        let whole_table = task.plan.window.after.is_none() && task.plan.window.until.is_none();
        projection.key.is_empty()
            && whole_table
            && description.rows.is_some_and(|rows| rows > 2 * self.config.pace.window_rows_max)
    }

    fn sql_request(&self, sql: &str, page_rows: u64, moment: Moment) -> Request {
        let request_id = format!("{}-{}-{:08x}", self.worker.name(), moment.now.0, moment.jitter.0);
        let bytes_billed_max = self.config.pace.bytes_billed_max;
        request::start_query(
            &self.connection,
            request::Query { sql, page_rows, request_id: &request_id, bytes_billed_max },
        )
    }

    fn ask_sql(&mut self, question: Question, sql: &str, moment: Moment) -> Command {
        self.condition.set_activity(Activity::Running);
        let request = self.sql_request(sql, 100_000, moment);
        self.ask(question, request)
    }

    pub(super) fn question_answered(
        &mut self,
        question: Question,
        request: Request,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Command {
        let page = match self.open_page(request.purpose, outcome) {
            Ok(page) => page,
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
        };
        if !page.envelope().complete && question != Question::Cost {
            let Some(job) = page.envelope().job.clone() else { return self.describe() };
            let request = request::read_result(&job, 0, 100_000);
            self.state = State::Resting(AfterRest::Ask(question, request));
            return Command::Rest { delay_ms: super::transfer::QUERY_POLL_MS };
        }
        let (rows, bytes) = match read_numbers(&page) {
            Ok(answer) => answer,
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
        };
        match question {
            Question::Cost => self.judge_cost(bytes, moment),
            Question::WithoutCursor => {
                self.bill.add(bytes);
                self.take_count_without_cursor(&rows, moment.now);
                self.plan(moment)
            }
            Question::Backlog => {
                self.bill.add(bytes);
                self.take_backlog(&rows, moment)
            }
        }
    }

    fn take_backlog(&mut self, rows: &[Vec<i64>], moment: Moment) -> Command {
        let partitions = rows.iter().filter_map(|row| match row.as_slice() {
            [starts, rows] => Some((starts.div_euclid(SECOND_US), u64::try_from(*rows).ok()?)),
            _ => None,
        });
        let key = self.projection.as_ref().map(|projection| projection.key_names()).unwrap_or_default();
        let counts = Counts {
            id: self.config.id.clone(),
            identity: self.config.identity(&key),
            counted_at: self.server_time.0 / SECOND_US,
            partitions: partitions.collect(),
        };
        self.counts = Some(counts.clone());
        if self.rule == Rule::WHOLE {
            return self.plan(moment);
        }
        self.state = State::Sharing;
        Command::ShareCounts(Box::new(counts))
    }

    fn take_count_without_cursor(&mut self, rows: &[Vec<i64>], now: Micros) {
        let count = rows
            .first()
            .and_then(|row| row.first())
            .and_then(|count| u64::try_from(*count).ok())
            .unwrap_or(0);
        let version = self.description.as_ref().and_then(|description| description.version.clone());
        self.without_cursor_counted = Some((now, version));
        let before = self.meter.rows_without_cursor;
        self.meter.rows_without_cursor = Some(count);
        let known = before.unwrap_or(self.ledger.sum(|row| row.rows_without_cursor));
        if known != count {
            let column = &self.config.cursor;
            let reason = format!("{count} rows have no value in {column}; they are not copied");
            self.notes.push(Note { kind: "rows_without_cursor", reason });
        }
    }

    /// Goes on with a window if it costs no more than is allowed.
    fn judge_cost(&mut self, bytes: u64, moment: Moment) -> Command {
        let Some(task) = self.task.take() else { return self.describe() };
        match Bill::check_query(bytes, self.billed_today(), &self.config.pace) {
            Ok(()) => self.query(task, moment),
            // A budget comes back by itself; a limit of one query does not.
            Err(failure) if failure.kind == Kind::DayBudget => self.fail(failure, AfterRest::Poll, moment),
            Err(failure) => self.fail(failure, AfterRest::Describe, moment),
        }
    }

    fn billed_today(&self) -> u64 {
        self.bill.on_day(day_of(self.server_time), &self.ledger)
    }

    /// Whether all that the table holds was read before, to judge by its version.
    fn is_unchanged(&self, description: &Description, now: Micros) -> bool {
        let recently = self.queried_at.is_some_and(|at| now.since(at) < TRUST_US);
        let same = description.version.is_some() && description.version == self.read_version;
        let nothing_new_to_own = self.read_future || !self.owns_the_future();
        same && recently && self.version_trusted && !description.streaming && nothing_new_to_own
    }

    /// Whether the next window would also read what lies in the future.
    pub(super) fn owns_the_future(&self) -> bool {
        match self.rule.division {
            Division::Spans(_) if self.rule.pruned => {
                self.own.binary_search(&self.rule.partition(self.server_time)).is_ok()
            }
            Division::Whole | Division::Value | Division::Spans(_) => true,
        }
    }

    /// Makes no query. The watermark stays where a query has proven it: should the table have changed although it is
    /// said not to have, the next query still reads from there.
    fn skip_poll(&mut self, moment: Moment) -> Command {
        self.condition.succeed_idly();
        self.polled_at = Some(moment.now);
        self.meter.unchanged_at = Some(self.server_time);
        if self.notes.is_empty() {
            return self.rest_until_poll(moment);
        }
        self.write_notes(moment)
    }

    /// Tells by which partitions of the source the backlog has to be counted, if it is too large for one window or lies
    /// in so many spans that the own ones cannot be told from others'.
    fn unit_to_count(&self, projection: &Projection, description: &Description) -> Option<PartitionUnit> {
        if self.counts.is_some() || self.phase == Phase::Steady {
            return None;
        }
        let unit = division::partitioned_on_cursor(projection, description)?;
        let large = description.rows.is_some_and(|rows| rows > self.config.pace.window_rows_max)
            || description.bytes.is_some_and(|bytes| bytes > WINDOW_BYTES_MAX);
        let owns_all = self.own.len() as u64 >= u64::from(self.rule.partitions);
        let after = window::lower_bound(self.watermark(), projection.cursor_type, &self.config.pace);
        let scattered = !owns_all && division::needs_counting(self.rule, after, self.server_time);
        (large || scattered).then_some(unit)
    }

    /// Counts the backlog, or waits for the worker that does: one who counts is enough, and is billed once.
    fn count_or_await(&mut self, unit: PartitionUnit, moment: Moment) -> Command {
        let since = *self.counts_awaited_since.get_or_insert(moment.now);
        let waits = !self.own.contains(&0) && moment.now.since(since) < COUNTS_PATIENCE_US;
        let Some(projection) = self.projection.as_ref().filter(|_| !waits) else {
            self.state = State::Resting(AfterRest::Poll);
            return Command::Rest { delay_ms: COUNTS_LOOK_MS };
        };
        let after =
            window::lower_bound(self.ledger.lowest_of_all(), projection.cursor_type, &self.config.pace);
        let sql = sql::count_by_partition(self.source(projection, &Selection::All), after, unit);
        self.ask_sql(Question::Backlog, &sql, moment)
    }

    /// Whether rows without a cursor may have come; after the first window their number follows from the totals.
    fn must_count_without_cursor(
        &self,
        projection: &Projection,
        description: &Description,
        now: Micros,
    ) -> bool {
        let nullable = projection.fields.get(projection.cursor).is_some_and(|field| !field.required);
        if !self.own.contains(&0) {
            return false;
        }
        let Some(watermark) = self.watermark() else { return false };
        let up_to_date = self.phase == Phase::Steady && watermark <= self.server_time;
        nullable
            && up_to_date
            && match &self.without_cursor_counted {
                None => true,
                Some((at, version)) => {
                    now.since(*at) >= COUNT_INTERVAL_US
                        && (version.is_none() || *version != description.version)
                }
            }
    }
}

/// Returns the partitions that a share holds, in order.
fn owned(rule: Rule, share: Share, position: u32) -> Vec<u32> {
    // Tables that are not divided are dealt out in turn.
    let offset = if rule.division == Division::Whole { position } else { 0 };
    (0..rule.partitions).filter(|partition| share.owns(*partition, offset)).collect()
}

/// Reads a small result of integers, and what its query was billed.
fn read_numbers(page: &Page) -> Result<(Vec<Vec<i64>>, u64), Failure> {
    let mut rows = page.rows();
    let mut cells = Vec::new();
    let mut numbers = Vec::new();
    while rows.next(&mut cells)?.is_some() {
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
