//! From the source's description to the next query, or to the knowledge that none is needed.

use super::breaker::Side;
use super::reading::Recent;
use super::status::Activity;
use super::window::{self, PartitionCount, WINDOW_BYTES_MAX};
use super::{AfterRest, Answer, Command, Engine, Moment, Note, Phase, Plan, State, Target};
use crate::bigquery::json::Text;
use crate::bigquery::page::{Cell, Page};
use crate::bigquery::projection::Projection;
use crate::bigquery::request::{self, Purpose, Request};
use crate::bigquery::sql;
use crate::bigquery::table::{Description, PartitionUnit};
use crate::error::{Failure, Kind};
use crate::harper::batch::Layout;
use crate::time::{DAY_US, Micros, SECOND_US};

/// An unchanged table is queried all the same after this long, in case its version does not tell.
const TRUST_US: i64 = 3_600 * SECOND_US;
/// A watermark that is further ahead of BigQuery's clock than this comes from a wrong clock.
const CLOCK_TOLERANCE_US: i64 = 60 * SECOND_US;
/// Rows without a cursor are counted again at most this often.
const COUNT_INTERVAL_US: i64 = 3_600 * SECOND_US;
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
    Cost(Plan),
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
        let resolved = Description::read(&answer.body)
            .and_then(|description| Ok((Projection::resolve(&self.config, &description)?, description)));
        let (projection, description) = match resolved {
            Ok(resolved) => resolved,
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
        };
        if let Some(failure) = self.mismatch(&projection) {
            return self.fail(failure, AfterRest::Load, moment);
        }
        // Without the server's clock the own one must do.
        self.server_time = answer.server_time.unwrap_or(moment.now);
        self.meter.server_ahead_us = self.server_time.since(moment.now);
        self.target_ready &= self.projection.as_ref() == Some(&projection);
        let layout = Layout::of(&projection);
        self.projection = Some(projection);
        self.description = Some(description);
        if self.target_ready {
            return self.plan(moment);
        }
        self.state = State::Preparing;
        Command::EnsureTarget(layout)
    }

    pub(super) fn prepared(&mut self, outcome: Result<Target, Failure>, moment: Moment) -> Command {
        match outcome {
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
            Ok(Target::Created) => self.start_over("target_was_missing", "the target table was missing"),
            Ok(Target::Found) => {}
        }
        self.target_ready = true;
        self.recover_from(Kind::HarperTable);
        self.plan(moment)
    }

    /// Tells whether rows would get other ids than those that the checkpoint stands for.
    fn mismatch(&self, projection: &Projection) -> Option<Failure> {
        let identity = self.config.identity(&projection.key_names());
        let stored = &self.checkpoint.as_ref()?.identity;
        (*stored != identity).then(|| {
            let message = format!(
                "columns, key, where, timestampColumn, timestampUnit, partitions, targetTable or the source of {id} were \
                 changed since its checkpoint was written, and rows would get other ids or go elsewhere: set them back, or delete the rows of {target} \
                 and the SyncCheckpoint rows of {id} to sync anew",
                id = self.config.id,
                target = self.config.target_table
            );
            Failure::new(Kind::CheckpointMismatch, message)
        })
    }

    fn plan(&mut self, moment: Moment) -> Command {
        self.step_back_behind_the_clock();
        let (Some(projection), Some(description)) = (&self.projection, &self.description) else {
            return self.describe();
        };
        self.phase = Phase::of_lag(self.lag_s(moment.now), &self.config.pace);
        self.page_rows = self.phase.page_rows(&self.config.pace);
        if let Some(open) = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.window.clone()) {
            return self.resume(open);
        }
        if let Some(failure) = self.budget_exceeded(0) {
            return self.fail(failure, AfterRest::Describe, moment);
        }
        if self.is_unchanged(description, moment.now) {
            return self.skip_poll(moment);
        }
        if let Some(unit) = self.backlog_unit(projection, description) {
            let after = window::lower_bound(self.watermark(), projection.cursor_type, &self.config.pace);
            let sql = sql::count_by_partition(self.source(projection), after, unit);
            return self.ask_sql(Question::Backlog, &sql, moment);
        }
        if self.must_count_without_cursor(projection, description, moment.now) {
            let sql = sql::count_without_cursor(self.source(projection));
            return self.ask_sql(Question::WithoutCursor, &sql, moment);
        }
        let (watermark, cursor_type, pace) = (self.watermark(), projection.cursor_type, &self.config.pace);
        while self.backlog.front().is_some_and(|until| watermark.is_some_and(|watermark| *until <= watermark))
        {
            self.backlog.pop_front();
        }
        let until = self.backlog.front().copied();
        let Some(plan) = window::plan(watermark, until, self.reread, self.server_time, cursor_type, pace)
        else {
            self.polled_at = Some(moment.now);
            return self.rest_until_poll(moment);
        };
        let has_limit = pace.bytes_billed_max.is_some() || pace.day_bytes_billed_max.is_some();
        if has_limit && description.bytes.is_none_or(|bytes| bytes >= DRY_RUN_BYTES_MIN) {
            let mut request = self.window_request(&plan, moment);
            request.make_dry_run();
            return self.ask(Question::Cost(plan), request);
        }
        self.query(plan, moment)
    }

    /// Takes back a watermark that is ahead of BigQuery's clock: the clock was wrong when it was written, and nothing is
    /// proven beyond the time at which the rows were read.
    fn step_back_behind_the_clock(&mut self) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        let ahead =
            checkpoint.last_timestamp.is_some_and(|at| at.since(self.server_time) > CLOCK_TOLERANCE_US);
        if ahead {
            let read_at = checkpoint.last_sync_time.unwrap_or(self.server_time);
            checkpoint.last_timestamp = Some(read_at.min(self.server_time));
            checkpoint.window = None;
            self.reread = true;
            self.recent = Recent::default();
            let reason = "the watermark was ahead of BigQuery's clock and was taken back".to_owned();
            self.notes.push(Note { kind: "clock_was_wrong", reason });
        }
    }

    /// Starts the query of a window.
    fn query(&mut self, plan: Plan, moment: Moment) -> Command {
        let request = self.window_request(&plan, moment);
        self.plan = Some(plan);
        self.queried_at = Some(moment.now);
        self.query_repeated = false;
        self.query_waits = 0;
        self.polled_at = Some(moment.now);
        self.query_server_time = Some(self.server_time);
        self.queried_version = self.description.as_ref().and_then(|description| description.version.clone());
        self.activity = Activity::Running;
        self.send(request)
    }

    fn window_request(&self, plan: &Plan, moment: Moment) -> Request {
        let sql = match &self.projection {
            Some(projection) => {
                sql::read_window(self.source(projection), plan.window, self.is_numbered(plan))
            }
            None => String::new(),
        };
        self.sql_request(&sql, self.page_rows, moment)
    }

    /// Whether identical rows are so many, possibly, that BigQuery had better number them.
    pub(super) fn is_numbered(&self, plan: &Plan) -> bool {
        let (Some(projection), Some(description)) = (&self.projection, &self.description) else {
            return false;
        };
        let whole_table = plan.window.after.is_none() && plan.window.until.is_none();
        projection.key.is_empty()
            && whole_table
            && description.rows.is_some_and(|rows| rows > 2 * self.config.pace.window_rows_max)
    }

    fn sql_request(&self, sql: &str, page_rows: u64, moment: Moment) -> Request {
        let request_id = format!("{}-{}-{:08x}", self.worker_name(), moment.now.0, moment.jitter.0);
        let bytes_billed_max = self.config.pace.bytes_billed_max;
        request::start_query(
            &self.connection,
            request::Query { sql, page_rows, request_id: &request_id, bytes_billed_max },
        )
    }

    fn ask_sql(&mut self, question: Question, sql: &str, moment: Moment) -> Command {
        self.activity = Activity::Running;
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
        if !page.envelope().complete && !matches!(question, Question::Cost(_)) {
            let Some(job) = page.envelope().job.clone() else { return self.describe() };
            let request = request::read_result(&job, 0, 100_000);
            self.state = State::Resting(AfterRest::Ask(question, request));
            return Command::Rest { delay_ms: super::transfer::QUERY_POLL_MS };
        }
        let (rows, bytes) = match read_numbers(&page) {
            Ok(answer) => answer,
            Err(failure) => return self.fail(failure, AfterRest::Describe, moment),
        };
        if let Question::Cost(plan) = question {
            return self.judge_cost(plan, bytes, moment);
        }
        self.bill(bytes);
        match question {
            Question::Backlog => self.take_backlog(&rows),
            Question::WithoutCursor => self.take_count_without_cursor(&rows, moment.now),
            Question::Cost(_) => {}
        }
        self.plan(moment)
    }

    fn take_backlog(&mut self, rows: &[Vec<i64>]) {
        let partitions: Vec<PartitionCount> = rows
            .iter()
            .filter_map(|row| match row.as_slice() {
                [starts, rows] => {
                    Some(PartitionCount { starts: Micros(*starts), rows: u64::try_from(*rows).ok()? })
                }
                _ => None,
            })
            .collect();
        let size =
            self.description.as_ref().and_then(|description| Some((description.bytes?, description.rows?)));
        let bytes_per_row = size.map_or(0, |(bytes, rows)| bytes / rows.max(1));
        self.backlog = window::cut(&partitions, bytes_per_row, self.config.pace.window_rows_max);
        self.backlog_counted = true;
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
        let known = before.or(self.checkpoint.as_ref().map(|checkpoint| checkpoint.rows_without_cursor));
        if known.unwrap_or(0) != count {
            let column = &self.config.cursor;
            let reason = format!("{count} rows have no value in {column}; they are not copied");
            self.notes.push(Note { kind: "rows_without_cursor", reason });
        }
    }

    /// Goes on with a window if it costs no more than is allowed.
    fn judge_cost(&mut self, plan: Plan, bytes: u64, moment: Moment) -> Command {
        let per_query = self.config.pace.bytes_billed_max;
        if let Some(limit) = per_query.filter(|limit| bytes > *limit) {
            let message = format!(
                "the next query would bill {bytes} bytes, limits.maxBytesBilledPerQuery allows {limit}: raise the \
                 limit, or partition the source table on the cursor column"
            );
            return self.fail(Failure::new(Kind::BytesBilledLimit, message), AfterRest::Describe, moment);
        }
        match self.budget_exceeded(bytes) {
            Some(failure) => self.fail(failure, AfterRest::Describe, moment),
            None => self.query(plan, moment),
        }
    }

    /// Tells whether the day's budget is used up, or would be by a query of so many bytes.
    fn budget_exceeded(&self, next_bytes: u64) -> Option<Failure> {
        let limit = self.config.pace.day_bytes_billed_max?;
        let day = self.server_time.0.div_euclid(DAY_US);
        let billed = self.billed_on(day);
        let over = if next_bytes == 0 { billed >= limit } else { billed.saturating_add(next_bytes) > limit };
        over.then(|| {
            let message = format!(
                "limits.maxBytesBilledPerDay is {limit}; {billed} bytes were billed today and the next query would \
                 add {next_bytes}: the table goes on at midnight UTC, or when the limit is raised"
            );
            Failure::new(Kind::DayBudget, message)
        })
    }

    /// Returns the bytes billed on a day, those included that are not yet in the checkpoint.
    pub(super) fn billed_on(&self, day: i64) -> u64 {
        let checkpoint = self.checkpoint.as_ref().filter(|checkpoint| checkpoint.billed_day == day);
        checkpoint.map_or(0, |checkpoint| checkpoint.billed_on_day) + self.meter.bytes_billed
    }

    pub(super) fn bill(&mut self, bytes: u64) {
        self.meter.bytes_billed = self.meter.bytes_billed.saturating_add(bytes);
    }

    /// Whether all that the table holds was read before, to judge by its version.
    fn is_unchanged(&self, description: &Description, now: Micros) -> bool {
        let recently = self.queried_at.is_some_and(|at| now.since(at) < TRUST_US);
        let same = description.version.is_some() && description.version == self.read_version;
        same && recently && self.version_trusted && !description.streaming
    }

    /// Makes no query. The watermark stays where a query has proven it: should the table have changed although it is
    /// said not to have, the next query still reads from there.
    fn skip_poll(&mut self, moment: Moment) -> Command {
        self.succeed(Side::BigQuery);
        self.succeed(Side::Harper);
        self.polled_at = Some(moment.now);
        self.meter.unchanged_at = Some(self.server_time);
        self.rest_until_poll(moment)
    }

    /// Tells by which partitions a backlog is to be counted, if it is too large for one window.
    fn backlog_unit(&self, projection: &Projection, description: &Description) -> Option<PartitionUnit> {
        let large = description.rows.is_some_and(|rows| rows > self.config.pace.window_rows_max)
            || description.bytes.is_some_and(|bytes| bytes > WINDOW_BYTES_MAX);
        if self.backlog_counted || !large || self.phase == Phase::Steady {
            return None;
        }
        let (unit, column) = description.partitioning.as_ref()?;
        let by_cursor =
            column.as_ref().is_some_and(|column| column.eq_ignore_ascii_case(projection.cursor_name()));
        by_cursor.then_some(*unit)
    }

    /// Whether rows without a cursor may have come; after the first window their number follows from the totals.
    fn must_count_without_cursor(
        &self,
        projection: &Projection,
        description: &Description,
        now: Micros,
    ) -> bool {
        let nullable = projection.fields.get(projection.cursor).is_some_and(|field| !field.required);
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
