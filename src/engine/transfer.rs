//! A window that is being read: its task, the table's description at the start, and the progress through its result.

use super::checkpoint::OpenWindow;
use super::delivery::Portion;
use super::fingerprints::Fingerprints;
use super::late::LateRange;
use super::query::{Pauses, Query, unnamed_job};
use super::reading::{self, Reading, Step};
use super::source::{Described, Source};
use super::task::Task;
use super::window::{self, LowerBound, Plan};
use crate::bigquery::page::{JobReference, Page};
use crate::bigquery::request::{self, Request};
use crate::bigquery::sql::{Selection, Window};
use crate::bigquery::table::Version;
use crate::config::{Pace, TableConfig};
use crate::error::{Failure, Kind};
use crate::time::Micros;
use std::sync::Arc;

/// A window whose result is read.
#[derive(Debug)]
pub struct Transfer {
    /// What is read.
    pub task: Task,
    /// The table as it was when the query was made, or when a result of an earlier run was found.
    pub described: Arc<Described>,
    /// The result on its way to Harper.
    pub reading: Reading,
    /// Where it comes from.
    pub origin: Origin,
    /// The pauses while its job was not done yet.
    pub pauses: Pauses,
}

/// Where a result comes from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// BigQuery's clock shortly before the query was made; unknown of what former versions stored.
    pub made_at: Option<Micros>,
    /// The table's version then.
    pub version: Option<Version>,
    /// Whether the job has an id of our own.
    pub named: bool,
    /// Whether the query was made by an earlier run, or by another worker. A result belongs to the account that ran its
    /// query: after a change of the credentials it is out of reach.
    pub found: bool,
}

/// What a window that was read completely leaves, once it is in Harper.
#[derive(Debug)]
pub struct Closing {
    partitions: Vec<u32>,
    /// Whether nothing was left for further windows.
    is_last: bool,
    /// Whether the next window reads the late range again.
    is_reread: bool,
    version: Option<Version>,
    /// When the query was made, by BigQuery's clock, if it read the table to its end.
    read_at: Option<Micros>,
    with_future: bool,
}

impl Transfer {
    /// Begins to read a query's result, from its first page.
    ///
    /// # Errors
    /// When the result is not what was asked for.
    pub fn open(query: Query, page: Page, pace: &Pace) -> Result<Transfer, Failure> {
        let Query { task, described, origin, job, is_numbered, pauses, .. } = query;
        let (envelope, projection) = (page.envelope(), &described.projection);
        reading::check_schema(envelope, projection, is_numbered)?;
        let untold = || Failure::new(Kind::ResponseMalformed, "BigQuery did not tell the number of rows");
        let total_rows = envelope.total_rows.ok_or_else(untold)?;
        let lower_bound = LowerBound::new(projection.cursor_type, pace);
        let job = job.or_else(|| envelope.job.clone());
        let mut reading = Reading::new(task.plan, is_numbered, job, total_rows, task.newest, lower_bound);
        if task.mends.is_some() {
            reading.remember_nothing();
        }
        reading.take_page(page);
        Ok(Transfer { task, described, reading, origin, pauses })
    }

    /// Goes on with a result of which a part is in Harper. `task` has what the checkpoint does not tell.
    pub fn resume(
        open: OpenWindow,
        total_rows: u64,
        task: Task,
        described: Arc<Described>,
        pace: &Pace,
    ) -> Transfer {
        let projection = &described.projection;
        let origin = Origin::of(&open);
        let lower_bound = LowerBound::new(projection.cursor_type, pace);
        let job = Some(open.job);
        let mut reading = Reading::new(task.plan, open.numbered, job, total_rows, task.newest, lower_bound);
        reading.begin_at(open.offset, projection.key.is_empty());
        if open.billed {
            reading.forget_bytes_billed();
        }
        Transfer { task, described, reading, origin, pauses: Pauses::default() }
    }

    /// Returns the bytes that it takes to count identical rows until the end of the window.
    pub fn counting_bytes(&self) -> usize {
        let counts = self.described.projection.key.is_empty() && !self.reading.numbered;
        let bytes = if counts { Fingerprints::bytes_for(self.reading.total_rows) } else { 0 };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Reads rows of a result again that did not arrive on this node.
    pub fn mend(portion: Portion, task: Task, described: Arc<Described>, pace: &Pace) -> Option<Transfer> {
        let projection = &described.projection;
        let lower_bound = LowerBound::new(projection.cursor_type, pace);
        let Portion { job, numbered, total_rows, from, to, .. } = portion;
        let mut reading = Reading::new(task.plan, numbered, Some(job?), total_rows, None, lower_bound);
        reading.read_only(from, to, projection.key.is_empty());
        reading.remember_nothing();
        reading.forget_bytes_billed();
        let origin = Origin { found: true, ..Origin::default() };
        Some(Transfer { task, described, reading, origin, pauses: Pauses::default() })
    }

    /// Takes the page that was asked for.
    ///
    /// # Errors
    /// When it is of another result.
    pub fn take_page(&mut self, page: Page) -> Result<(), Failure> {
        let envelope = page.envelope();
        if envelope.total_rows.is_some_and(|total| total != self.reading.total_rows) {
            let message = "the query's result has another number of rows now";
            return Err(Failure::new(Kind::ResultLost, message));
        }
        reading::check_schema(envelope, &self.described.projection, self.reading.numbered)?;
        self.reading.take_page(page);
        Ok(())
    }

    /// Returns how many rows are left on the page, if that has as many as were asked for.
    pub fn rows_left(&self, page_rows: u64) -> u64 {
        let read = self.reading.page_rows_read();
        let page_end = (self.reading.offset - read + page_rows).min(self.reading.end());
        page_end.saturating_sub(self.reading.offset)
    }

    /// Reads on, to the next batch or the end of the page.
    pub fn next_step(&mut self, late: &mut LateRange, rows_max: usize) -> Step {
        let late = if self.task.mends.is_some() { &mut LateRange::default() } else { late };
        self.reading.next_step(&self.described.projection, late, rows_max)
    }

    /// Reads on before it is asked for, while the batch before is being written.
    pub fn prepare(&mut self, late: &mut LateRange, rows_max: usize) {
        let late = if self.task.mends.is_some() { &mut LateRange::default() } else { late };
        self.reading.prepare(&self.described.projection, late, rows_max);
    }

    /// Returns the request for the next page.
    ///
    /// # Errors
    /// When the endpoint made no job whose result could be read.
    pub fn next_page(&self, page_rows: u64) -> Result<Request, Failure> {
        let job = self.reading.job.as_ref().ok_or_else(unnamed_job)?;
        Ok(request::read_result(job, self.reading.offset, page_rows))
    }

    /// Returns the requests for so many pages behind the one that is being read, as far as there are any.
    pub fn pages_ahead(&self, pages: usize, page_rows: u64) -> Vec<Request> {
        let Some(job) = &self.reading.job else { return Vec::new() };
        let page_start = self.reading.offset - self.reading.page_rows_read();
        let starts = (1..).map(|page: u64| page_start + page * page_rows);
        let starts = starts.take_while(|start| *start < self.reading.end()).take(pages);
        starts.map(|start| request::read_result(job, start, page_rows)).collect()
    }

    /// Returns what is stored of the window while it is being read.
    pub fn open_window(&self, schema_number: u32) -> Option<OpenWindow> {
        let Transfer { task, reading, origin, .. } = self;
        reading.job.as_ref().map(|job| OpenWindow {
            newest: reading.newest(),
            billed: reading.is_billed(),
            offset: reading.offset,
            total_rows: Some(reading.total_rows),
            ..window_of(task, origin, job.clone(), reading.numbered, schema_number)
        })
    }

    /// Returns the rows that the next commit writes, up to those that were read; `before` is where it began.
    pub fn portion(&self, before: u64, schema_number: u32) -> Portion {
        let Transfer { task, reading, .. } = self;
        Portion {
            job: reading.job.clone(),
            numbered: reading.numbered,
            schema: schema_number,
            after: task.plan.window.after,
            until: task.plan.window.until,
            total_rows: reading.total_rows,
            from: before,
            to: reading.offset,
        }
    }

    /// Whether the window had all rows that the table has, so that none is without a cursor.
    pub fn has_all_rows(&self, own: &[u32], config: &TableConfig) -> bool {
        let description = &self.described.description;
        let counts_all = description.rows == Some(self.reading.total_rows) && !description.streaming;
        self.task.is_whole_table() && self.task.partitions == own && counts_all && config.filter.is_none()
    }

    /// Returns what the window leaves now that it is read completely.
    pub fn close(self, own: &[u32], pace: &Pace) -> Closing {
        let is_last = self.task.is_open_ended() && self.task.partitions == own;
        let watermark = self.task.plan.watermark;
        let settled = self.origin.made_at.map(|at| window::late_until(at, pace));
        // Rows may come hours after their time, so the clock alone does not tell which of them are still expected.
        let newest = self.task.newest.max(self.reading.newest());
        let expected = window::lower_bound(newest, self.described.projection.cursor_type, pace);
        Closing {
            is_last,
            // What is read again lies before what the next window may have to read again.
            is_reread: is_last
                || self.task.started_from.is_some_and(|from| watermark < from)
                || settled.is_none_or(|settled| watermark > settled)
                || expected.is_none_or(|expected| watermark > expected),
            version: self.read_version(own).cloned(),
            read_at: self.origin.made_at.filter(|_| is_last),
            with_future: self.task.reaches_the_future(),
            partitions: self.task.partitions,
        }
    }

    /// Returns the table's version when the query was made, if that reads the table to its end.
    pub fn read_version(&self, own: &[u32]) -> Option<&Version> {
        let is_last = self.task.is_open_ended() && self.task.partitions == own;
        self.origin.version.as_ref().filter(|_| is_last && self.origin.made_at.is_some())
    }
}

impl Closing {
    /// Tells what is known from now on. Returns whether nothing was left for further windows.
    pub fn conclude(self, source: &mut Source, late: &mut LateRange) -> bool {
        source.conclude(self.version, self.with_future);
        source.read_to_end(self.read_at);
        late.follow(self.partitions, self.is_reread);
        self.is_last
    }
}

impl Origin {
    /// That of a window that was left open.
    pub fn of(open: &OpenWindow) -> Origin {
        let version = open.version.clone();
        Origin { made_at: open.made_at, version, named: open.named, found: true }
    }
}

/// Returns what is stored of a task of whose result nothing is read yet.
pub fn window_of(
    task: &Task,
    origin: &Origin,
    job: JobReference,
    numbered: bool,
    schema_number: u32,
) -> OpenWindow {
    OpenWindow {
        partitions: task.partitions.clone(),
        started_from: task.started_from,
        is_sole: task.is_sole,
        schema: schema_number,
        after: task.plan.window.after,
        until: task.plan.window.until,
        watermark: Some(task.plan.watermark),
        newest: task.newest,
        numbered,
        made_at: origin.made_at,
        version: origin.version.clone(),
        job,
        named: origin.named,
        billed: false,
        offset: 0,
        total_rows: None,
        void: false,
    }
}

/// Returns the task of a window that was left open; none when its checkpoint does not tell enough.
pub fn task_of(open: &OpenWindow, is_sole: bool, replaces: bool, reads_future: bool) -> Option<Task> {
    let plan = Plan { window: Window { after: open.after, until: open.until }, watermark: open.watermark? };
    Some(Task {
        plan,
        partitions: open.partitions.clone(),
        started_from: open.started_from,
        // What was begun by an earlier version tells of its end alone.
        newest: open.newest.or(open.until),
        selection: Selection::All,
        is_sole: open.is_sole && is_sole,
        rereads_unsettled: false,
        replaces,
        reads_future,
        mends: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::reading::Progress;
    use crate::engine::samples::{at, page, query, table, transfer};

    fn open_at(offset: u64) -> OpenWindow {
        let mut transfer = transfer(1, 5);
        transfer.reading.begin_at(offset, false);
        transfer.open_window(1).unwrap()
    }

    #[test]
    fn a_result_with_other_columns_is_not_read() {
        let mut query = query(1, 5);
        query.is_numbered = true;
        assert_eq!(Transfer::open(query, page(5, true), &table().pace).unwrap_err().kind, Kind::ResultLost);
    }

    #[test]
    fn a_page_of_another_result_is_not_taken() {
        let mut transfer = transfer(1, 5);
        assert_eq!(transfer.take_page(page(6, true)).unwrap_err().kind, Kind::ResultLost);
        assert!(transfer.take_page(page(5, true)).is_ok());
    }

    #[test]
    fn the_rows_left_end_with_the_page_or_the_result() {
        let mut transfer = transfer(1, 5);
        assert_eq!((transfer.rows_left(3), transfer.rows_left(9)), (3, 5));
        transfer.next_step(&mut LateRange::default(), 2);
        assert_eq!((transfer.rows_left(3), transfer.rows_left(9)), (1, 3));
    }

    #[test]
    fn the_pages_ahead_end_with_the_result() {
        let mut transfer = transfer(1, 5);
        let starts = |transfer: &Transfer, pages, page_rows| -> Vec<String> {
            let requests = transfer.pages_ahead(pages, page_rows);
            requests
                .into_iter()
                .filter_map(|one| one.path.split(['=', '&']).nth(1).map(str::to_owned))
                .collect()
        };
        assert_eq!(starts(&transfer, 1, 2), ["2"]);
        assert_eq!(starts(&transfer, 3, 2), ["2", "4"]);
        assert!(starts(&transfer, 3, 5).is_empty());
        transfer.reading.job = None;
        assert!(starts(&transfer, 3, 4).is_empty());
        assert_eq!(transfer.next_page(4).unwrap_err().kind, Kind::ResponseMalformed);
    }

    #[test]
    fn an_open_window_is_read_on_where_it_was_left_and_counts_what_is_in_front() {
        let open = open_at(3);
        assert_eq!((open.offset, open.total_rows, open.watermark), (3, Some(5), Some(at("2024-01-01"))));
        let task = task_of(&open, true, false, true).unwrap();
        let described = transfer(1, 5).described;
        let mut resumed = Transfer::resume(open, 5, task, described, &table().pace);
        assert!(resumed.next_page(9).unwrap().path.contains("startIndex=0"));
        resumed.take_page(page(5, true)).unwrap();
        let Progress::Batch(batch) = resumed.next_step(&mut LateRange::default(), 100).progress.unwrap()
        else {
            panic!("no batch");
        };
        assert_eq!((batch.rows, resumed.reading.is_complete()), (2, true));
    }

    #[test]
    fn a_window_to_the_end_of_the_table_concludes_that_all_was_read_unless_others_own_a_part() {
        let description = &transfer(1, 5).described;
        let concludes = |own: &[u32]| {
            let (mut source, mut late) = (Source::default(), LateRange::default());
            source.query(at("2024-01-01"));
            let was_last = transfer(1, 5).close(own, &table().pace).conclude(&mut source, &mut late);
            (was_last, source.is_unchanged(&description.description, true, at("2024-01-01")))
        };
        assert_eq!(concludes(&[0]), (true, true));
        assert_eq!(concludes(&[0, 1]), (false, false));
    }

    #[test]
    fn behind_a_window_whose_rows_may_still_come_late_the_late_range_is_read_again() {
        // The result was made a month after the times of its rows, which come as late as that.
        let rereads = |newest: &str| {
            let mut transfer = transfer(1, 5);
            transfer.origin.made_at = Some(at("2024-02-01"));
            let window = Window { after: None, until: Some(at("2024-01-01")) };
            transfer.task.plan = Plan { window, watermark: at("2024-01-01") };
            transfer.task.newest = Some(at(newest));
            transfer.close(&[0], &table().pace).is_reread
        };
        assert!(rereads("2024-01-01T00:00:00Z") && rereads("2024-01-01T00:09:59Z"));
        assert!(!rereads("2024-01-01T00:10:00Z") && !rereads("2024-01-31T00:00:00Z"));
    }

    #[test]
    fn a_result_of_an_earlier_run_tells_of_the_version_that_was_stored_with_it_alone() {
        let resumed = |open: OpenWindow| {
            let task = task_of(&open, true, false, true).unwrap();
            // The table has changed since.
            Transfer::resume(open, 5, task, transfer(2, 5).described, &table().pace)
        };
        let stored = transfer(1, 5).read_version(&[0]).cloned();
        assert!(stored.is_some());
        assert_eq!(resumed(open_at(0)).read_version(&[0]), stored.as_ref());
        let untold = OpenWindow { made_at: None, version: None, ..open_at(0) };
        assert_eq!(resumed(untold).read_version(&[0]), None);
    }
}
