//! Compares the values of all rows with those of the source, slowly.
//!
//! A validation compares cursors and keys alone. Values that were changed without a new cursor are seen only when their rows
//! are read again, whichever side they were changed on. So in a round, a worker reads all of its rows again, in pieces, each
//! of which fits into what may be billed on a day. To read a result is free: so its rows are read a few at a time, between
//! the polls. Those that are stored with other values are written once more.

use super::bill::{Bill, day_of};
use super::boundary::{Command, Moment, Note};
use super::delivery::{Mending, Portion};
use super::loss::Loss;
use super::phase::Phase;
use super::planning::{Cost, Question};
use super::source::Described;
use super::task::Task;
use super::transfer::Transfer;
use super::window;
use super::{Engine, Inquiry, Next, State, division};
use crate::bigquery::page::Page;
use crate::bigquery::sql::{self, Window};
use crate::bigquery::table::PartitionUnit;
use crate::error::Failure;
use crate::time::{DAY_US, Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// So many rows are compared at a time.
const PORTION_ROWS: u64 = 5_000;
/// The pause from one time to the next.
const PAUSE_US: i64 = SECOND_US / 2;
/// How far the comparison has come is stored after so many portions.
const STORED_EVERY: u32 = 10;
/// The result of a query has about so many bytes at most, as far as smaller pieces bill less.
const PIECE_BYTES_MAX: u64 = window::WINDOW_BYTES_MAX;
/// How long after a failure it goes on.
const RETRY_US: i64 = 600 * SECOND_US;
/// A round that no longer fits, because other nodes come and go, is given up after this time.
const MISFIT_US: i64 = 600 * SECOND_US;
/// A first piece ends so many days before the end at the latest, if all rows together would bill too much.
const DAYS_BACK: [i64; 5] = [1, 10, 100, 1_000, 10_000];

/// How far a worker's comparison of values has come, as it is stored in the table SyncContents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// `tableId:owner`.
    pub id: String,
    /// The table's id in the configuration.
    pub table_id: String,
    /// The worker, `node-index`.
    pub owner: String,
    /// The operators' last command that the round follows; zero if it follows none.
    #[serde(default)]
    pub asked: u64,
    /// Whether the round was begun because of that command.
    #[serde(default)]
    pub commanded: bool,
    /// Which rows the worker compares, and how it reads them. If that changes, the round is begun anew.
    pub scope: Scope,
    /// When the round began, by BigQuery's clock.
    #[serde(with = "instant", default)]
    pub began: Option<Micros>,
    /// When it ended; none before that.
    #[serde(with = "instant", default)]
    pub ended: Option<Micros>,
    /// Rows up to this cursor are compared in this round.
    #[serde(with = "instant", default)]
    pub until: Option<Micros>,
    /// Rows up to this cursor were compared.
    #[serde(with = "instant", default)]
    pub up_to: Option<Micros>,
    /// How many rows were compared so far.
    #[serde(default)]
    pub rows: u64,
    /// How many of them were not stored with the values of the source.
    #[serde(default)]
    pub changed: u64,
    /// What the round has billed so far.
    #[serde(default)]
    pub bytes_billed: u64,
    /// The day, since the epoch, on which `billed_on_day` was billed.
    #[serde(default)]
    pub billed_day: i64,
    /// Those bytes.
    #[serde(default)]
    pub billed_on_day: u64,
    /// The result that is being read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
    /// Why it does not go on; none if it does.
    #[serde(default)]
    pub refusal: Option<String>,
}

/// Which rows are compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// The rule that divides the table.
    pub rule: String,
    /// The worker's partitions.
    pub partitions: Vec<u32>,
    /// The version of the schema.
    pub schema: u32,
    /// The incarnation of the target table.
    pub incarnation: String,
    /// The options that ids and stored values depend on.
    pub identity: String,
    /// When the source table was created, if BigQuery tells.
    #[serde(default)]
    pub source_created: Option<String>,
}

/// A result that is being read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// The rows that are left.
    pub rows: Portion,
    /// The time of writing that rows with a key get; what was written later stays. Other rows get later times.
    #[serde(with = "instant", default)]
    pub stamp: Option<Micros>,
}

/// A piece of the rows whose query is being made.
#[derive(Debug, Clone)]
pub struct Piece {
    window: Window,
    sql: String,
    stamp: Option<Micros>,
    /// What it bills, by a dry run.
    bytes: u64,
}

/// What the engine knows of its comparison.
#[derive(Debug, Default)]
pub struct Comparing {
    /// What is stored, or will be.
    contents: Contents,
    is_loaded: bool,
    /// The number of the operators' last command.
    asked: u64,
    /// The source, as it was when the worker came to rest.
    described: Option<Arc<Described>>,
    /// Nothing is done before, by the worker's clock.
    not_before: Option<Micros>,
    /// Since when the round does not fit.
    misfit_since: Option<Micros>,
    /// Up to where the next piece is tried, after longer ones would have billed too much.
    tried: Option<Micros>,
    /// The rows of the batch that is being written, and what was being mended before.
    writing: Option<(u64, Option<Mending>)>,
    /// The rows of this portion so far, and how many of them were written.
    portion: (u64, u64),
    portions: u32,
    /// Whether the result got lost.
    is_lost: bool,
}

impl Contents {
    fn is_open(&self) -> bool {
        self.began.is_some() && self.ended.is_none()
    }

    fn billed_on(&self, day: i64) -> u64 {
        if self.billed_day == day { self.billed_on_day } else { 0 }
    }

    fn bill(&mut self, day: i64, bytes: u64) {
        self.billed_on_day = self.billed_on(day).saturating_add(bytes);
        self.billed_day = day;
        self.bytes_billed = self.bytes_billed.saturating_add(bytes);
    }

    /// Takes back what was taken for billed before that was known.
    fn unbill(&mut self, bytes: u64) {
        self.billed_on_day = self.billed_on_day.saturating_sub(bytes);
        self.bytes_billed = self.bytes_billed.saturating_sub(bytes);
    }
}

impl Comparing {
    /// Takes what is stored, and the number of the operators' last command.
    pub fn load(&mut self, stored: Option<Box<Contents>>, asked: u64) {
        self.asked = self.asked.max(asked);
        if !self.is_loaded {
            self.contents = stored.map_or_else(Contents::default, |stored| *stored);
            self.is_loaded = true;
        }
    }

    /// Takes the source's description, for when the worker comes to rest.
    pub fn know(&mut self, described: Option<Arc<Described>>) {
        self.described = described;
    }

    /// Notes that a batch of so many rows is being written. `mending` is what was being mended before.
    pub fn begin_batch(&mut self, rows: u64, mending: Option<Mending>) {
        self.writing = Some((rows, mending));
    }

    /// Notes that it is not known what became of the batch. Its portion is read again.
    pub fn forget_batch(&mut self) {
        self.writing = None;
    }

    /// Notes how many rows of that batch were not written, because they are stored as they are, and how many Harper refused.
    /// Returns what was being mended before, if nothing was written at all.
    pub fn end_batch(&mut self, unchanged: u64, refused: u64) -> Option<Option<Mending>> {
        let (rows, mending) = self.writing.take()?;
        self.portion.0 += rows;
        self.portion.1 += rows.saturating_sub(unchanged + refused);
        (rows <= unchanged).then_some(mending)
    }

    /// Notes that the result is gone.
    pub fn lose_result(&mut self) {
        self.contents.open = None;
        self.writing = None;
        self.is_lost = true;
    }

    fn wait(&mut self, us: i64, now: Micros) {
        self.not_before = Some(now.plus(us));
    }

    /// Whether there is something to do: a round that was begun, or the next one.
    fn is_due(&self, interval_s: Option<u64>, server_time: Micros) -> bool {
        let is_old = |ended: Micros| {
            let us = interval_s.and_then(|s| i64::try_from(s).ok()).map(|s| s.saturating_mul(SECOND_US));
            us.is_some_and(|us| server_time.since(ended).abs() >= us)
        };
        self.asked > self.contents.asked || self.contents.is_open() || self.contents.ended.is_some_and(is_old)
    }
}

impl Engine {
    /// Returns in how many milliseconds rows should be compared; none if that need not be.
    pub(super) fn compares_in_ms(&self, moment: Moment) -> Option<u64> {
        let settings = self.config.pace.validation;
        let interval_s = settings.content_interval_s.filter(|_| settings.is_regular);
        let Comparing { contents, asked, .. } = &self.comparing;
        let is_commanded = *asked > contents.asked || (contents.is_open() && contents.commanded);
        let is_wanted = interval_s.is_some() || is_commanded;
        let is_calm = self.sizes.phase() == Phase::Steady
            && self.holding.is_sole_at(moment.now)
            && !self.holding.is_outdated()
            && !self.holding.is_rereading()
            && !self.is_repairing()
            && self.deliveries.has_all();
        if !is_wanted || !is_calm || self.comparing.described.is_none() {
            return None;
        }
        let is_new = interval_s.is_some() && self.comparing.contents.ended.is_none();
        let is_due = is_new || self.comparing.is_due(interval_s, self.source.server_time());
        let left_us = self.comparing.not_before.map_or(0, |at| at.since(moment.now));
        is_due.then(|| u64::try_from(left_us).unwrap_or(0).div_ceil(1_000))
    }

    /// Compares some more rows.
    pub(super) fn compare(&mut self, moment: Moment) -> Next {
        let Some(described) = self.comparing.described.clone() else { return Next::Poll };
        let until = self.settled_until(&described, moment);
        let Some(until) = until.filter(|_| !std::mem::take(&mut self.comparing.is_lost)) else {
            return self.put_off_comparing(None, moment);
        };
        let Comparing { contents, asked, .. } = &self.comparing;
        let is_asked = *asked > contents.asked;
        if contents.began.is_none() && contents.ended.is_none() && !is_asked {
            // All rows have just been read for the first time, or by a former version.
            let ended = Some(self.source.server_time());
            self.comparing.contents = Contents { ended, ..self.no_contents() };
            return self.share_contents(RETRY_US, moment);
        }
        let scope = self.scope(&described);
        if !is_asked && self.waits_for_scope(&scope, moment) {
            return Next::RestUntilPoll;
        }
        let contents = &self.comparing.contents;
        let is_outdated = contents.open.as_ref().is_some_and(|open| {
            // Rows that were read before the table is read again may be gone.
            open.stamp <= self.holding.last_mark() || self.holding.watermark() < open.rows.until
        });
        if is_asked || is_outdated || !contents.is_open() || contents.scope != scope {
            self.begin_round(scope, until);
        }
        match self.comparing.contents.open.clone() {
            Some(open) => self.compare_portion(open, described, moment),
            None => self.price_piece(described, moment),
        }
    }

    /// Whether a round that does not fit is kept for now: the cluster may soon be as it was.
    fn waits_for_scope(&mut self, scope: &Scope, moment: Moment) -> bool {
        let Comparing { contents, misfit_since, .. } = &mut self.comparing;
        if !contents.is_open() || contents.scope == *scope {
            *misfit_since = None;
            return false;
        }
        let since = *misfit_since.get_or_insert(moment.now);
        let waits = moment.now.since(since).abs() < MISFIT_US;
        match waits {
            true => self.comparing.wait(MISFIT_US, moment.now),
            false => *misfit_since = None,
        }
        waits
    }

    fn scope(&self, described: &Described) -> Scope {
        Scope {
            rule: self.holding.rule().name(),
            partitions: self.holding.own().to_vec(),
            schema: self.schema.number(),
            incarnation: self.schema.incarnation().clone(),
            identity: self.config.identity(&described.projection.key_names()),
            source_created: described.description.created.clone(),
        }
    }

    fn begin_round(&mut self, scope: Scope, until: Micros) {
        let contents = Contents {
            asked: self.comparing.asked,
            commanded: self.comparing.asked > self.comparing.contents.asked
                || (self.comparing.contents.is_open() && self.comparing.contents.commanded),
            scope,
            began: Some(self.source.server_time()),
            until: Some(until),
            ..self.no_contents()
        };
        self.comparing.contents = contents;
        self.comparing.tried = None;
    }

    /// Returns a round that was not begun.
    fn no_contents(&self) -> Contents {
        let Contents { asked, billed_day, billed_on_day, .. } = self.comparing.contents;
        let owner = self.worker.name();
        let (id, table_id) = (format!("{}:{owner}", self.config.id), self.config.id.clone());
        Contents { id, table_id, owner, asked, billed_day, billed_on_day, ..Contents::default() }
    }

    /// Reads the next rows of a result.
    fn compare_portion(&mut self, open: Open, described: Arc<Described>, moment: Moment) -> Next {
        let Open { rows, stamp } = open;
        if rows.from >= rows.to {
            return self.end_piece(rows.until, moment);
        }
        let window = Window { after: rows.after, until: rows.until };
        self.comparing.portion = (0, 0);
        let portion = Portion { to: rows.to.min(rows.from + PORTION_ROWS), ..rows };
        let loss = Loss::of_values(&self.config.id, portion.clone(), stamp);
        let task = Task::mending(loss, window, false);
        match Transfer::mend(portion, task, described, &self.config.pace) {
            Some(transfer) => self.ask_for_lost(transfer),
            None => {
                self.comparing.lose_result();
                Next::RestUntilPoll
            }
        }
    }

    /// Notes that a portion was compared. `next` is the first time of writing that was not used.
    pub(super) fn portion_compared(&mut self, loss: &Loss, moment: Moment) -> Next {
        let Comparing { contents, portion, .. } = &mut self.comparing;
        let Some(open) = &mut contents.open else { return Next::RestUntilPoll };
        open.rows.from = loss.end_of_rows().unwrap_or(open.rows.to);
        open.stamp = open.stamp.max(loss.stamp);
        let (is_done, until) = (open.rows.from >= open.rows.to, open.rows.until);
        let (rows, changed) = std::mem::take(portion);
        contents.rows += rows;
        contents.changed += changed;
        if is_done {
            return self.end_piece(until, moment);
        }
        self.comparing.wait(PAUSE_US, moment.now);
        self.comparing.portions += 1;
        match self.comparing.portions.is_multiple_of(STORED_EVERY) {
            true => self.share_contents(PAUSE_US, moment),
            false => Next::RestUntilPoll,
        }
    }

    /// Notes that all rows up to a cursor were compared.
    fn end_piece(&mut self, until: Option<Micros>, moment: Moment) -> Next {
        let contents = &mut self.comparing.contents;
        contents.open = None;
        contents.up_to = until;
        self.comparing.tried = None;
        if contents.up_to >= contents.until {
            contents.ended = Some(self.source.server_time());
            let Contents { rows, changed, .. } = contents;
            let (kind, what) = match *changed {
                0 => ("contents_equal", "all of them have the values of the source".to_owned()),
                some => (
                    "contents_mended",
                    format!("{some} had not the values of the source, and were written again"),
                ),
            };
            let reason = format!("{rows} rows of {} were compared value by value: {what}", contents.owner);
            self.notes.push(Note { kind, reason });
        }
        self.share_contents(PAUSE_US, moment)
    }

    /// Stores how far the comparison has come, and goes on after a pause.
    fn share_contents(&mut self, pause_us: i64, moment: Moment) -> Next {
        self.comparing.wait(pause_us, moment.now);
        self.share_contents_before(Next::RestUntilPoll)
    }

    fn share_contents_before(&self, next: Next) -> Next {
        let contents = Box::new(self.comparing.contents.clone());
        Next::Await(State::Sharing(Box::new(next)), Command::ShareContents(contents))
    }

    /// Goes on later, because something failed or is not allowed.
    fn put_off_comparing(&mut self, reason: Option<String>, moment: Moment) -> Next {
        self.comparing.wait(RETRY_US, moment.now);
        let contents = &mut self.comparing.contents;
        if contents.refusal.is_some() == reason.is_some() {
            return Next::RestUntilPoll;
        }
        if let Some(reason) = &reason {
            self.notes.push(Note { kind: "contents_refused", reason: reason.clone() });
        }
        contents.refusal = reason;
        self.share_contents(RETRY_US, moment)
    }

    /// Asks what the next piece bills.
    fn price_piece(&mut self, described: Arc<Described>, moment: Moment) -> Next {
        let contents = &self.comparing.contents;
        let projection = &described.projection;
        let pace = &self.config.pace;
        // Rows of former eras have other ids: they are left until they are read again.
        let old_ids = self
            .holding
            .own()
            .iter()
            .filter_map(|one| self.holding.ledger.old_ids_until(*one, projection.era));
        let old_ids = old_ids.max().filter(|_| projection.key.is_empty());
        let start = window::lower_bound(None, projection.cursor_type, pace);
        let after = contents.up_to.max(start).max(old_ids);
        let Some(goal) = contents.until else { return Next::RestUntilPoll };
        if after >= Some(goal) {
            return self.end_piece(Some(goal), moment);
        }
        let until = self.comparing.tried.map_or(goal, |tried| tried.min(goal));
        let window = Window { after, until: Some(until) };
        let present = pace.zone.local(self.source.server_time());
        let counted = self.holding.counts().into_iter().flat_map(super::counts::Counts::partitions);
        let starts: Vec<Micros> = counted.map(|one| one.starts).collect();
        let selection = division::select(self.holding.rule(), self.holding.own(), window, &starts, present);
        let Some(selection) = selection else { return self.end_piece(Some(until), moment) };
        let source = sql::Source { selection: &selection, ..self.whole_source(&described) };
        let sql = sql::read_window(source, window, projection.key.is_empty());
        let mut request = self.sql_request(&sql, 1, moment);
        request.make_dry_run();
        let piece = Piece { window, sql, stamp: None, bytes: 0 };
        Next::Ask(Inquiry::Cost(Cost::Piece(Box::new(piece)), described), request)
    }

    /// Makes the query of a piece if that bills no more than is allowed, or else tries a shorter one.
    pub(super) fn judge_piece(
        &mut self,
        piece: Piece,
        described: Arc<Described>,
        bytes: u64,
        moment: Moment,
    ) -> Next {
        let day = day_of(self.source.server_time());
        let limit = self.config.pace.validation.content_day_bytes_billed_max;
        let left = limit.saturating_sub(self.comparing.contents.billed_on(day));
        let is_allowed = Bill::check_query(bytes, self.billed_today(), &self.config.pace).is_ok();
        let is_cheap = bytes <= left && is_allowed;
        let unit = division::partitioned_on_cursor(&described.projection, &described.description);
        let unit_us = if unit == Some(PartitionUnit::Hour) { DAY_US / 24 } else { DAY_US };
        let can_be_cut = unit.is_some() || self.source.is_billed_by_day();
        let must_be_cut = !is_cheap || bytes > PIECE_BYTES_MAX;
        let goal = self.comparing.contents.until.filter(|_| can_be_cut && must_be_cut);
        let shorter = goal.and_then(|goal| shorter(piece.window, goal, unit_us));
        if let Some(shorter) = shorter {
            self.comparing.tried = Some(shorter);
            return self.price_piece(described, moment);
        }
        if !is_cheap {
            self.comparing.tried = None;
            if bytes <= limit && is_allowed {
                // There will be room tomorrow.
                return self.put_off_comparing(None, moment);
            }
            let reason = format!(
                "to compare the values of the next rows would bill {bytes} bytes; \
                 validation.maxContentBytesBilledPerDay is {limit}, and `limits` may allow less"
            );
            return self.put_off_comparing(Some(reason), moment);
        }
        // What it bills is stored before the query is made: crashes do not lead beyond the budget.
        let contents = &mut self.comparing.contents;
        contents.refusal = None;
        contents.bill(day, bytes);
        let stamp = Some(self.holding.take_stamp(moment.now));
        let request = self.sql_request(&piece.sql, 1, moment);
        let piece = Piece { stamp, bytes, ..piece };
        self.share_contents_before(Next::Ask(
            Inquiry::Question(Question::Piece(Box::new(piece)), described),
            request,
        ))
    }

    /// Takes the result of a piece's query.
    pub(super) fn take_piece(
        &mut self,
        piece: &Piece,
        page: &Page,
        bytes: u64,
        described: &Described,
        moment: Moment,
    ) -> Next {
        let day = day_of(self.source.server_time());
        let contents = &mut self.comparing.contents;
        contents.unbill(piece.bytes);
        contents.bill(day, bytes);
        let envelope = page.envelope();
        let Some((job, total_rows)) = envelope.job.clone().zip(envelope.total_rows) else {
            let reason = "BigQuery did not tell under which job the rows can be read";
            return self.put_off_comparing(Some(reason.to_owned()), moment);
        };
        let rows = Portion {
            job: Some(job),
            numbered: described.projection.key.is_empty(),
            schema: self.schema.number(),
            after: piece.window.after,
            until: piece.window.until,
            total_rows,
            from: 0,
            to: total_rows,
        };
        contents.open = Some(Open { rows, stamp: piece.stamp });
        self.share_contents(0, moment)
    }

    /// Goes on later with a piece whose query failed.
    pub(super) fn fail_piece(&mut self, failure: &Failure, moment: Moment) -> Next {
        self.put_off_comparing(Some(failure.message.clone()), moment)
    }
}

/// Returns where a shorter piece ends; none if there is none. Ends are aligned to the partitions of the source, so that none
/// of these is billed twice.
fn shorter(window: Window, goal: Micros, unit_us: i64) -> Option<Micros> {
    let until = window.until?;
    let end_before = |at: Micros| Micros(at.0.div_euclid(unit_us).saturating_mul(unit_us)).plus(-1);
    let Some(after) = window.after else {
        let ends = DAYS_BACK.iter().map(|days| end_before(goal.plus(-days * DAY_US)));
        return ends.into_iter().find(|end| *end < until);
    };
    let middle = end_before(after.plus(until.since(after) / 2));
    let first = end_before(after.plus(unit_us + 1));
    Some(middle.max(first)).filter(|end| *end > after && *end < until)
}

#[cfg(test)]
mod tests;
