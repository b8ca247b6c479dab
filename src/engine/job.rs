//! Queries that may bill much. Each one runs as a job whose id we choose, and store before the job is created.
//!
//! So a worker that reads the window later finds the job by its id, and the query is not billed twice: after a crash,
//! after a request without an answer, or after a change of the cluster. Creating a job that exists already does no
//! harm, because BigQuery refuses it as a duplicate. A worker that owns all partitions of the window continues it. If
//! there is no such worker, the owner of the first partition gives the job up: it cancels the job, asks what it has
//! billed, and adds that in the commit that removes the job.

use super::boundary::{Answer, Moment};
use super::checkpoint::{Checkpoint, OpenWindow};
use super::counts::Counts;
use super::query::{self, Pauses, Query, unnamed_job};
use super::source::Described;
use super::status::Activity;
use super::task::Task;
use super::{AfterWrite, Engine, Inquiry, Next, division};
use crate::bigquery::failure::{self, Subject};
use crate::bigquery::job::Job;
use crate::bigquery::page::JobReference;
use crate::bigquery::request::{self, Request};
use crate::error::{Failure, Kind, Recovery};
use crate::time::Micros;
use std::sync::Arc;

/// The HTTP status of a refusal because a job with this id exists.
const DUPLICATE: u16 = 409;

/// A job whose result nobody will read, and the checkpoint that names it.
#[derive(Debug)]
pub struct Debt {
    row: Checkpoint,
    job: JobReference,
    pauses: Pauses,
}

impl Engine {
    /// Stores the id of the job that will run a query.
    pub(super) fn open_job(&mut self, mut query: Query, moment: Moment) -> Next {
        let (config, location) = (&self.config, self.connection.location.as_ref());
        let worker = self.worker.name();
        query.name_job(JobReference {
            project_id: self.connection.project_id.clone(),
            job_id: request::job_id_of(
                &config.id,
                &config.target_table,
                &worker,
                moment.now,
                moment.jitter.0,
            ),
            location: location.or(query.described.description.location.as_ref()).cloned(),
        });
        let checkpoints = self.bookkeeper(moment).of_opening(&query);
        let notes = std::mem::take(&mut self.notes);
        self.write_notes(notes, checkpoints, AfterWrite::MakeJob(Box::new(query)))
    }

    /// Creates the job of a query. Its id is stored already.
    pub(super) fn make_job(&self, query: Box<Query>) -> Next {
        let Some(job) = &query.job else { return Next::fail(unnamed_job(), Next::Describe(None)) };
        let request = request::make_job(job, &query.sql(&self.config), self.config.pace.bytes_billed_max);
        Next::Ask(Inquiry::Job(query), request)
    }

    /// Continues with a window whose job's id is stored. The job may or may not have been created.
    pub(super) fn find_job(&mut self, open: OpenWindow, task: Task, described: Arc<Described>) -> Next {
        let counts = self.holding.counts().into_iter().flat_map(Counts::partitions);
        let starts: Vec<Micros> = counts.map(|one| one.starts).collect();
        let (rule, now) = (self.holding.rule(), self.source.server_time());
        let Some(selection) = division::select(rule, &task.partitions, task.plan.window, &starts, now) else {
            self.holding.ledger.give_up_windows();
            return Next::Describe(None);
        };
        self.make_job(Box::new(Query::found(open, Task { selection, ..task }, described)))
    }

    pub(super) fn job_made(
        &mut self,
        query: Box<Query>,
        request: Request,
        outcome: Result<Answer, Failure>,
    ) -> Next {
        let is_there = outcome.as_ref().is_ok_and(|answer| answer.status == DUPLICATE);
        match self.accept(request.purpose, outcome) {
            Ok(_) => self.ask_result(query),
            Err(_) if is_there => self.ask_result(query),
            Err(failure) if failure.kind == Kind::WindowTooLarge => self.cut_window(failure, &query),
            // The job may exist, now or later. So the window stays open, and its owner tries again.
            Err(failure) if failure.kind.recovery() == Recovery::Retry => {
                Next::fail(failure, Next::Describe(None))
            }
            Err(failure) => self.lose_result(failure, query.task.mends.as_deref(), 0),
        }
    }

    fn ask_result(&self, query: Box<Query>) -> Next {
        let Some(job) = &query.job else { return Next::fail(unnamed_job(), Next::Describe(None)) };
        let request = request::read_result(job, 0, self.sizes.page_rows());
        Next::Ask(Inquiry::Result(query), request)
    }

    /// Asks for a job's state, to find out whether the job itself has failed or only the request for its result.
    pub(super) fn look_at_job(&self, failure: Failure, query: Box<Query>) -> Next {
        let Some(job) = &query.job else { return Next::fail(unnamed_job(), Next::Describe(None)) };
        let request = request::look_at_job(job);
        Next::fail(failure, Next::Ask(Inquiry::Look(query), request))
    }

    pub(super) fn job_looked_at(
        &mut self,
        query: Box<Query>,
        request: Request,
        outcome: Result<Answer, Failure>,
    ) -> Next {
        let looked = self.accept(request.purpose, outcome).and_then(|answer| Job::read(&answer.body));
        match looked {
            Ok(Job { failed_for: Some(reason), .. }) => {
                let subject = Subject { connection: &self.connection, source: &self.config.source };
                let failure = failure::of_job(&reason, subject);
                match failure.kind {
                    Kind::WindowTooLarge => self.cut_window(failure, &query),
                    _ => self.lose_result(failure, query.task.mends.as_deref(), 0),
                }
            }
            Ok(_) => self.ask_result(query),
            Err(failure) if may_be_told(failure.kind) => {
                Next::fail(failure, Next::Ask(Inquiry::Look(query), request))
            }
            Err(failure) => self.lose_result(failure, query.task.mends.as_deref(), 0),
        }
    }

    /// Ends the job of a window that cannot be continued, and asks what it billed.
    pub(super) fn settle(&mut self, row: Checkpoint, described: Arc<Described>) -> Next {
        let Some(window) = &row.window else { return Next::Load };
        self.condition.set_activity(Activity::Running);
        let job = window.job.clone();
        // A job whose result was read is done.
        let request = match window.total_rows {
            None => request::cancel_job(&job),
            Some(_) => request::look_at_job(&job),
        };
        let debt = Debt { row, job, pauses: Pauses::default() };
        Next::Ask(Inquiry::Debt(Box::new(debt), described), request)
    }

    pub(super) fn debt_answered(
        &mut self,
        mut debt: Box<Debt>,
        described: Arc<Described>,
        request: Request,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Next {
        let looked = self.accept(request.purpose, outcome).and_then(|answer| Job::read(&answer.body));
        match looked {
            Ok(Job { is_done: false, .. }) => {
                let (delay_ms, look) = (debt.pauses.next_ms(), request::look_at_job(&debt.job));
                Next::rest(delay_ms, Next::Ask(Inquiry::Debt(debt, described), look))
            }
            Ok(Job { bytes_billed, .. }) => self.forget_job(*debt, bytes_billed, &described, moment),
            Err(failure) if may_be_told(failure.kind) => {
                Next::fail(failure, Next::Ask(Inquiry::Debt(debt, described), request))
            }
            // The job was never created, or cannot be reached.
            Err(_) => self.forget_job(*debt, 0, &described, moment),
        }
    }

    fn forget_job(&mut self, debt: Debt, bytes: u64, described: &Described, moment: Moment) -> Next {
        let era = described.projection.era;
        let checkpoints = vec![self.bookkeeper(moment).of_debt(debt.row, bytes, era)];
        let notes = std::mem::take(&mut self.notes);
        self.write_notes(notes, checkpoints, AfterWrite::Poll)
    }
}

/// Whether another request may get the answer that this one did not.
fn may_be_told(kind: Kind) -> bool {
    kind == Kind::Unavailable || query::may_come(kind, false)
}
