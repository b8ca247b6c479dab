//! The query of a window, from its start until its result is there.

use super::checkpoint::OpenWindow;
use super::source::Described;
use super::task::Task;
use super::transfer::{self, Origin};
use crate::bigquery::page::{JobReference, Page};
use crate::bigquery::request::{self, Request};
use crate::bigquery::sql;
use crate::config::{Pace, TableConfig};
use crate::error::{Failure, Kind};
use crate::time::Micros;
use std::sync::Arc;

/// The first pause before a running query is asked for again, on endpoints that do not hold the request open. It
/// doubles each time.
pub const PAUSE_MS: u64 = 250;
/// The pause grows up to this.
const PAUSE_MS_MAX: u64 = 8_000;

/// A query that was made.
#[derive(Debug)]
pub struct Query {
    /// What it reads.
    pub task: Task,
    /// The table's description when the query was made.
    pub described: Arc<Described>,
    /// When it was made, under which version of the table.
    pub origin: Origin,
    /// The job with an id that we chose; none for a query that bills little.
    pub job: Option<JobReference>,
    /// Whether BigQuery numbers the identical rows.
    pub is_numbered: bool,
    /// Whether it was sent again after BigQuery failed to answer.
    is_repeated: bool,
    /// The pauses until it is done.
    pub pauses: Pauses,
}

/// Counts how often a job was found not to be done yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pauses {
    count: u32,
}

impl Query {
    /// Prepares the query of a task. Identical rows are counted here if the result cannot have more than
    /// `countable_rows` rows.
    pub fn new(
        task: Task,
        described: Arc<Described>,
        made_at: Micros,
        countable_rows: u64,
        pace: &Pace,
    ) -> Query {
        let is_numbered = is_numbered(&task, &described, countable_rows, pace);
        let version = described.description.version.clone();
        let origin = Origin { made_at: Some(made_at), version, named: false, found: false };
        Query {
            task,
            described,
            origin,
            job: None,
            is_numbered,
            is_repeated: false,
            pauses: Pauses::default(),
        }
    }

    /// Returns the query of an open window whose result has not been read. `task` has what the checkpoint does not
    /// contain.
    pub fn found(open: OpenWindow, task: Task, described: Arc<Described>) -> Query {
        Query {
            task,
            described,
            origin: Origin::of(&open),
            job: Some(open.job),
            is_numbered: open.numbered,
            is_repeated: false,
            pauses: Pauses::default(),
        }
    }

    /// Lets a job run it.
    pub fn name_job(&mut self, job: JobReference) {
        self.job = Some(job);
        self.origin.named = true;
    }

    /// Returns what is stored before its job is made; none without a job.
    pub fn open_window(&self, schema_number: u32) -> Option<OpenWindow> {
        let job = self.job.clone()?;
        Some(transfer::window_of(&self.task, &self.origin, job, self.is_numbered, schema_number))
    }

    /// Returns its text.
    pub fn sql(&self, config: &TableConfig) -> String {
        sql::read_window(
            sql::Source {
                table: &config.source,
                columns: self.described.projection.columns(),
                filter: config.filter.as_deref(),
                selection: &self.task.selection,
            },
            self.task.plan.window,
            self.is_numbered,
        )
    }

    /// Tells whether the same request may be sent again after a failure.
    ///
    /// Without an answer, the request may be repeated, and BigQuery runs the query once. After a refusal, a new query
    /// must be made. A server that failed may have run the query nevertheless, or may fail with this query each time.
    pub fn may_repeat(&mut self, kind: Kind) -> bool {
        let unanswered = matches!(kind, Kind::Timeout | Kind::Unreachable | Kind::ResponseMalformed);
        let failed_once = kind == Kind::Unavailable && !self.is_repeated;
        self.is_repeated |= failed_once;
        unanswered || failed_once
    }

    /// Returns the request for the result of a query that still runs.
    ///
    /// # Errors
    /// When the page does not name the job.
    pub fn result_request(page: &Page, page_rows: u64) -> Result<Request, Failure> {
        let job = page.envelope().job.as_ref().ok_or_else(unnamed_job)?;
        Ok(request::read_result(job, 0, page_rows))
    }
}

impl Pauses {
    /// Returns how long to wait before the job is asked for again.
    pub fn next_ms(&mut self) -> u64 {
        let delay_ms = (PAUSE_MS << self.count.min(10)).min(PAUSE_MS_MAX);
        self.count = self.count.saturating_add(1);
        delay_ms
    }
}

/// Tells whether a result may still come after a failure. If so, the request is sent again; otherwise a new query is
/// made.
pub fn may_come(kind: Kind, is_begun: bool) -> bool {
    match kind {
        Kind::ResultLost | Kind::NotFound | Kind::QueryInvalid | Kind::WindowTooLarge => false,
        Kind::Timeout
        | Kind::Unreachable
        | Kind::ResponseMalformed
        | Kind::RateLimited
        | Kind::Unauthenticated => true,
        // Before the query is done, the failure may be its own, and another request would only get it again. A result
        // of which a page has come exists, and reading it is free.
        _ => is_begun,
    }
}

/// The failure of an answer that does not name the query's job.
pub fn unnamed_job() -> Failure {
    Failure::new(Kind::ResponseMalformed, "BigQuery did not name the query's job")
}

/// Whether the result may have too many rows to count the identical ones here, so that BigQuery has to number them.
fn is_numbered(task: &Task, described: &Described, countable_rows: u64, pace: &Pace) -> bool {
    let Described { description, projection } = described;
    let rows = description.rows.map_or(0, |rows| match task.is_whole_table() {
        true => rows,
        false => rows.min(pace.window_rows_max),
    });
    projection.key.is_empty() && (countable_rows == 0 || rows > countable_rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::{at, described, page, query, table, table_with, task};
    use crate::engine::sizes::Sizes;
    use serde_json::json;

    #[test]
    fn a_query_without_an_answer_is_sent_again_and_one_that_bigquery_failed_with_only_once() {
        let mut query = query(1, 5);
        assert!(query.may_repeat(Kind::Timeout) && query.may_repeat(Kind::Timeout));
        assert!(query.may_repeat(Kind::Unavailable) && !query.may_repeat(Kind::Unavailable));
        assert!(!query.may_repeat(Kind::QueryInvalid));
    }

    #[test]
    fn a_result_that_was_begun_may_come_after_failures_that_end_one_that_was_not() {
        for kind in Kind::ALL {
            assert!(may_come(kind, true) >= may_come(kind, false), "{kind:?}");
        }
        assert!(may_come(Kind::Unavailable, true) && !may_come(Kind::Unavailable, false));
        assert!(may_come(Kind::Timeout, false) && !may_come(Kind::ResultLost, true));
    }

    #[test]
    fn the_pauses_double_up_to_a_limit() {
        let mut pauses = Pauses::default();
        let delays_ms: Vec<u64> = (0..7).map(|_| pauses.next_ms()).collect();
        assert_eq!(delays_ms, [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000]);
    }

    #[test]
    fn bigquery_numbers_identical_rows_where_a_whole_table_is_too_large_to_count_them_here() {
        let numbers = |rows_max: u64, task: Task| {
            let pace = table_with(json!({"limits": {"maxRowsPerWindow": rows_max}})).pace;
            let countable_rows = Sizes::new(&pace).countable_rows(u64::MAX, &pace);
            Query::new(task, Arc::new(described(1)), at("2024-01-01"), countable_rows, &pace).is_numbered
        };
        assert!(numbers(2, task(None, None)));
        assert!(!numbers(3, task(None, None)));
        assert!(!numbers(2, task(Some("2023-01-01"), None)));
        let pace = table().pace;
        let mut sizes = Sizes::new(&pace);
        let numbers = |countable_rows| {
            let task = task(Some("2023-01-01"), None);
            Query::new(task, Arc::new(described(1)), at("2024-01-01"), countable_rows, &pace).is_numbered
        };
        assert!(!numbers(sizes.countable_rows(5, &pace)) && numbers(sizes.countable_rows(4, &pace)));
        sizes.number_identical();
        assert!(numbers(sizes.countable_rows(u64::MAX, &pace)));
        assert!(query(1, 5).sql(&table()).contains("FROM `p`.`d`.`t`"));
    }

    #[test]
    fn a_job_without_a_name_cannot_be_asked_for_its_result() {
        assert_eq!(Query::result_request(&page(0, false), 5).unwrap_err().kind, Kind::ResponseMalformed);
        let request = Query::result_request(&page(0, true), 5).unwrap();
        assert!(request.path.contains("/queries/j?startIndex=0&maxResults=5"), "{}", request.path);
    }
}
