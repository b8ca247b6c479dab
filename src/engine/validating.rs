//! Has BigQuery count and digest the rows that the worker owns, so that all nodes can compare their copies with that.

use super::bill::{Bill, day_of};
use super::boundary::{Command, Moment, Note};
use super::contents::Contents;
use super::loss::Loss;
use super::planning::{Cost, Question};
use super::source::Described;
use super::window::{self, LowerBound};
use super::{Engine, Inquiry, Next, State, division};
use crate::bigquery::cursor::CursorType;
use crate::bigquery::page::Page;
use crate::bigquery::sql::{self, Selection, Window};
use crate::bigquery::table::{PartitionUnit, Version};
use crate::config::{self, Deletes};
use crate::mapping::batch::Batch;
use crate::mapping::id;
use crate::mapping::projection::Projection;
use crate::time::{DAY_US, Micros, SECOND_US, instant};
use crate::validation::{
    Consent, Leaf, Leaves, Listing, Period, Repair, Seen, Span, StoredCursor, Vetted, Vetting, WORDS,
};
use serde::Deserialize;
use std::collections::VecDeque;
use std::sync::Arc;

/// The time from one attempt to read differing rows again to the next.
const ATTEMPT_US: i64 = 60 * SECOND_US;
/// So many times longer are leaves that are counted again because they were too many.
const LONGER: i64 = 16;

/// What Harper holds of a worker's validation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    /// The number of the operators' last command to validate.
    pub asked: u64,
    /// The last one that this worker has followed.
    pub followed: u64,
    /// The day, since the epoch, on which `bytes_on_day` were billed.
    #[serde(default)]
    pub billed_day: i64,
    /// What counting billed on that day.
    #[serde(default)]
    pub billed_on_day: u64,
    /// When the worker counted last, by BigQuery's clock.
    #[serde(with = "instant", default)]
    pub counted_at: Option<Micros>,
    /// What that billed.
    #[serde(default)]
    pub bytes_billed: u64,
    /// The first id of the target; none if the target is empty.
    #[serde(default)]
    pub first_id: Option<String>,
    /// Which nodes have rows that this worker's last list of keys did not have.
    #[serde(default)]
    pub extras: Vec<Seen>,
    /// The number of the operators' last command to compare the values of all rows.
    #[serde(default)]
    pub contents_asked: u64,
    /// How far the worker has come with that.
    #[serde(default)]
    pub contents: Option<Box<Contents>>,
}

/// When to count again, and which rows to read again.
#[derive(Debug, Default)]
pub struct Validation {
    wish: Wish,
    /// When it was counted last, or else when the worker first looked whether it should be, by BigQuery's clock.
    counted_at: Option<Micros>,
    /// What that billed.
    bytes_billed: u64,
    /// The source's version when it was counted.
    version: Option<Version>,
    /// Windows of differing rows, with the times of writing that rows with a key get.
    repairs: VecDeque<(Window, Option<Micros>)>,
    attempted_at: Option<Micros>,
    /// The rows that such windows had.
    vetted: Vetted,
    /// Those of the window that is being read, if they have no key.
    vetting: Option<Vetting>,
    /// Which nodes' rows the last list of keys has looked for.
    seen: Vec<Seen>,
    /// Why nothing was counted last.
    refusal: Option<String>,
}

/// A count that is to be made.
#[derive(Debug, Clone)]
pub struct Counting {
    window: Window,
    span: Span,
    /// Where records have their cursors, if not in their ids.
    cursor: Option<StoredCursor>,
    /// None if the worker has no rows in the window.
    selection: Option<Selection>,
}

/// What was counted.
#[derive(Debug, Default)]
struct Counted {
    leaves: Vec<Leaf>,
    listing: Option<Listing>,
    bytes: u64,
}

impl Validation {
    /// Takes what Harper holds.
    pub fn load(&mut self, stored: Option<Wish>) {
        let Some(stored) = stored else { return };
        if stored.counted_at > self.counted_at {
            (self.counted_at, self.bytes_billed) = (stored.counted_at, stored.bytes_billed);
        }
        let followed = stored.followed.max(self.wish.followed);
        let is_older =
            (stored.billed_day, stored.billed_on_day) < (self.wish.billed_day, self.wish.billed_on_day);
        let (billed_day, billed_on_day) = match is_older {
            true => (self.wish.billed_day, self.wish.billed_on_day),
            false => (stored.billed_day, stored.billed_on_day),
        };
        self.wish = Wish { followed, billed_day, billed_on_day, ..stored };
    }

    fn is_asked(&self) -> bool {
        self.wish.asked > self.wish.followed
    }

    /// Whether it is time to count again. What a count bills must not use up the day's budget before the day is over.
    fn is_old(&mut self, settings: config::Validation, server_time: Micros) -> bool {
        let counted_at = *self.counted_at.get_or_insert(server_time);
        let interval_s = i64::try_from(settings.interval_s).unwrap_or(i64::MAX);
        let day_share = self.bytes_billed as f64 / settings.day_bytes_billed_max.max(1) as f64;
        let affordable_us = (day_share * DAY_US as f64) as i64;
        server_time.since(counted_at).abs()
            >= interval_s.saturating_mul(SECOND_US).max(affordable_us.min(DAY_US))
    }

    fn billed_on(&self, day: i64) -> u64 {
        if self.wish.billed_day == day { self.wish.billed_on_day } else { 0 }
    }

    fn bill(&mut self, day: i64, bytes: u64) {
        self.wish.billed_on_day = self.billed_on(day) + bytes;
        self.wish.billed_day = day;
    }

    /// Whether the keys have to be listed again, because rows may be deleted only if two lists do not have them.
    fn must_list_again(&self, deletes: Deletes) -> bool {
        deletes != Deletes::Keep && self.wish.extras.iter().any(|one| !self.seen.contains(one))
    }

    /// Takes windows of which a node's copy differs.
    pub fn repair(&mut self, Repair { windows, stamp }: Repair) {
        for window in windows {
            if !self.repairs.contains(&(window, stamp)) {
                self.repairs.push_back((window, stamp));
            }
        }
    }

    /// Returns the next window to read again, if it is due.
    pub fn next_repair(&self, now: Micros) -> Option<(Window, Option<Micros>)> {
        let is_due = self.attempted_at.is_none_or(|at| now.since(at).abs() >= ATTEMPT_US);
        self.repairs.front().copied().filter(|_| is_due)
    }

    /// Notes that the next window is being read again.
    fn attempt(&mut self, window: Window, has_key: bool, now: Micros) {
        self.attempted_at = Some(now);
        self.vetting = (!has_key).then(|| Vetting::begin(window, now));
    }

    /// Takes rows of that window.
    pub fn vet(&mut self, batch: &Batch) {
        if let Some(vetting) = &mut self.vetting {
            vetting.add(batch.plain_ids());
        }
    }

    /// Notes that it may not be read.
    pub fn give_up(&mut self) {
        self.vetting = None;
        self.repaired(None);
    }

    /// Notes that it was read. `next` is the first time of writing that was not used: later windows
    /// may have newer versions of the same rows.
    pub fn repaired(&mut self, next: Option<Micros>) {
        self.repairs.pop_front();
        if let Some(vetting) = self.vetting.take() {
            self.vetted.take(vetting);
        }
        for (_, stamp) in &mut self.repairs {
            *stamp = stamp.map(|stamp| next.map_or(stamp, |next| stamp.max(next)));
        }
        self.attempted_at = None;
    }
}

impl Engine {
    /// Takes windows of which this node's copy differs. Returns whether the engine rests, and had better be woken.
    pub fn repair(&mut self, repair: Repair, now: Micros) -> bool {
        if !repair.windows.is_empty() {
            self.unread.miss();
        }
        self.validation.repair(repair);
        self.validation.next_repair(now).is_some() && self.rests_until_poll()
    }

    /// Whether there are rows to be read again. The copy had better not be compared before.
    pub fn is_repairing(&self) -> bool {
        !self.validation.repairs.is_empty()
    }

    /// Returns what the windows had that were read again last.
    pub fn vetted(&self) -> &Vetted {
        &self.validation.vetted
    }

    /// Reads rows again in which this node's copy differs from the source.
    pub(super) fn mend_difference(
        &mut self,
        (window, stamp): (Window, Option<Micros>),
        described: Arc<Described>,
        moment: Moment,
    ) -> Next {
        let has_key = !described.projection.key.is_empty();
        self.validation.attempt(window, has_key, moment.now);
        if Bill::check_day(self.billed_today(), &self.config.pace).is_err() {
            return self.plan(described, moment);
        }
        let loss = Loss::of_difference(&self.config.id, window, stamp);
        self.mend(loss, described, moment)
    }

    /// Returns what is to be counted now, or why that is impossible; none if nothing is.
    pub(super) fn count_due(
        &mut self,
        described: &Described,
        moment: Moment,
    ) -> Option<Result<Counting, String>> {
        let settings = self.config.pace.validation;
        let is_old = self.validation.is_old(settings, self.source.server_time());
        let version = described.description.version.as_ref();
        let has_changed = version.is_none() || self.validation.version.as_ref() != version;
        let projection = &described.projection;
        let is_due = self.validation.is_asked()
            || (settings.is_regular && ((is_old && has_changed) || self.unread.is_found()))
            || (!projection.key.is_empty() && self.validation.must_list_again(settings.deletes));
        if !is_due {
            return None;
        }
        let cursor = stored_cursor(projection);
        if cursor.is_none() && !projection.has_cursor_in_id() {
            return Some(Err(format!(
                "the records do not tell the exact value of {}, so they cannot be compared with the source",
                self.config.cursor
            )));
        }
        let (cursor_type, pace) = (projection.cursor_type, &self.config.pace);
        if self.holding.watermark().is_none() {
            let is_empty = self.has_read_all(described, moment);
            return is_empty.then(|| Err("the source has no rows".to_owned()));
        }
        let until = self.settled_until(described, moment)?;
        let after = window::lower_bound(None, cursor_type, pace);
        let window = Window { after, until: Some(until) };
        let span = self.span_until(until, after, described);
        let present = self.config.pace.zone.local(self.source.server_time());
        let counted = self.holding.counts().into_iter().flat_map(super::counts::Counts::partitions);
        let starts: Vec<Micros> = counted.map(|one| one.starts).collect();
        let selection = division::select(self.holding.rule(), self.holding.own(), window, &starts, present);
        Some(Ok(Counting { window, span, cursor, selection }))
    }

    /// Returns the cursor up to which nothing is being read again: rows behind it are, unless the source is known not to have
    /// changed.
    pub(super) fn settled_until(&self, described: &Described, moment: Moment) -> Option<Micros> {
        let watermark = self.holding.watermark()?;
        match self.has_read_all(described, moment) {
            true => Some(watermark),
            false => LowerBound::new(described.projection.cursor_type, &self.config.pace).of(Some(watermark)),
        }
    }

    /// Divides the time of all rows into leaves, as far as ids tell how long that is.
    fn span_until(&self, until: Micros, after: Option<Micros>, described: &Described) -> Span {
        if !described.projection.has_cursor_in_id() {
            return Span { length_us: DAY_US };
        }
        let oldest = self.validation.wish.first_id.as_deref().and_then(id::cursor_of).max(after);
        let rows =
            described.description.rows.unwrap_or_else(|| self.holding.ledger.sum(|row| row.records_ingested));
        Span::for_rows(rows, oldest.map_or(0, |oldest| until.since(oldest).max(0)))
    }

    /// Does not count before that is wanted again, and tells why.
    pub(super) fn refuse_to_count(
        &mut self,
        reason: String,
        described: Arc<Described>,
        moment: Moment,
    ) -> Next {
        if self.validation.is_asked() || self.validation.refusal.as_ref() != Some(&reason) {
            self.notes.push(Note { kind: "validation_refused", reason: reason.clone() });
        }
        self.validation.refusal = Some(reason);
        let window = Window { after: None, until: None };
        let counting = Counting { window, span: Span { length_us: DAY_US }, cursor: None, selection: None };
        self.share_leaves(&counting, Counted::default(), described, moment)
    }

    /// Asks what the counting bills, before it is done.
    pub(super) fn count(&mut self, counting: Counting, described: Arc<Described>, moment: Moment) -> Next {
        let Some(sql) = self.counting_sql(&counting, &described) else {
            self.validation.refusal = None;
            return self.share_leaves(&counting, Counted::default(), described, moment);
        };
        let mut request = self.sql_request(&sql, 1, moment);
        request.make_dry_run();
        Next::Ask(Inquiry::Cost(Cost::Counting(Box::new(counting)), described), request)
    }

    fn counting_sql(&self, counting: &Counting, described: &Described) -> Option<String> {
        let selection = counting.selection.as_ref()?;
        let source = sql::Source { selection, ..self.whole_source(described) };
        let key = described.projection.key_names();
        if !key.is_empty() {
            return Some(sql::newest_of_keys(source, counting.window.after, &key));
        }
        Some(sql::digest_by_span(source, counting.window, counting.span.length_us, WORDS))
    }

    /// Counts, if that costs no more than is allowed.
    pub(super) fn judge_counting(
        &mut self,
        counting: Counting,
        described: Arc<Described>,
        bytes: u64,
        moment: Moment,
    ) -> Next {
        let day = day_of(self.source.server_time());
        let limit = self.config.pace.validation.day_bytes_billed_max;
        let billed = self.validation.billed_on(day);
        let is_allowed = billed.saturating_add(bytes) <= limit
            && Bill::check_query(bytes, self.billed_today(), &self.config.pace).is_ok();
        let Some(sql) = self.counting_sql(&counting, &described).filter(|_| is_allowed) else {
            let reason = format!(
                "validation would bill {bytes} bytes, after {billed} today; validation.maxBytesBilledPerDay is {limit}, \
                 and `limits` may allow less"
            );
            return self.refuse_to_count(reason, described, moment);
        };
        self.validation.refusal = None;
        let counting = Box::new(counting);
        let question = match described.projection.key.is_empty() {
            true => Question::Leaves(counting),
            false => Question::Keys(counting),
        };
        self.ask_sql(question, described, &sql, moment)
    }

    /// Counts again with fewer leaves, because they did not fit into an answer: the source has rows long before those that
    /// Harper has.
    pub(super) fn count_longer_leaves(
        &mut self,
        counting: Counting,
        bytes: u64,
        described: Arc<Described>,
        moment: Moment,
    ) -> Next {
        self.validation.bill(day_of(self.source.server_time()), bytes);
        let span = Span { length_us: counting.span.length_us.saturating_mul(LONGER) };
        self.count(Counting { span, ..counting }, described, moment)
    }

    /// Takes what was counted, and tells all nodes.
    pub(super) fn take_leaves(
        &mut self,
        counting: &Counting,
        rows: &[Vec<i64>],
        bytes: u64,
        described: Arc<Described>,
        moment: Moment,
    ) -> Next {
        let word = |sum: i64| u32::try_from(sum).ok();
        let leaves = rows.iter().filter_map(|row| match row.as_slice() {
            [leaf, rows, one, other] => Some((*leaf, u64::try_from(*rows).ok()?, word(*one)?, word(*other)?)),
            _ => None,
        });
        let counted = Counted { leaves: leaves.collect(), listing: None, bytes };
        self.share_leaves(counting, counted, described, moment)
    }

    /// Takes a list of all keys, and tells all nodes where it is.
    pub(super) fn take_keys(
        &mut self,
        counting: &Counting,
        page: &Page,
        bytes: u64,
        described: Arc<Described>,
        moment: Moment,
    ) -> Next {
        let envelope = page.envelope();
        let Some((job, rows)) = envelope.job.clone().zip(envelope.total_rows) else {
            self.validation.bill(day_of(self.source.server_time()), bytes);
            let reason = "BigQuery did not tell under which job the list of keys can be read".to_owned();
            return self.refuse_to_count(reason, described, moment);
        };
        let stamp = Some(self.holding.take_stamp(moment.now));
        let listing = Listing { job, rows, id_type: described.projection.id_type, stamp };
        let counted = Counted { leaves: Vec::new(), listing: Some(listing), bytes };
        self.share_leaves(counting, counted, described, moment)
    }

    fn share_leaves(
        &mut self,
        counting: &Counting,
        Counted { leaves, listing, bytes }: Counted,
        described: Arc<Described>,
        moment: Moment,
    ) -> Next {
        let now = self.source.server_time();
        self.validation.bill(day_of(now), bytes);
        self.validation.wish.followed = self.validation.wish.asked;
        self.validation.counted_at = Some(now);
        self.validation.bytes_billed = bytes;
        self.unread.count(moment.now);
        self.validation.version = described.description.version.clone();
        let Wish { asked, billed_day, billed_on_day, .. } = self.validation.wish;
        let owner = self.worker.name();
        let leaves = Leaves {
            id: format!("{}:{owner}", self.config.id),
            table_id: self.config.id.clone(),
            owner,
            asked,
            counted_at: Some(now),
            rule: self.holding.rule().name(),
            partitions: self.holding.own().to_vec(),
            after: counting.window.after,
            until: counting.window.until,
            length_us: counting.span.length_us,
            bytes_billed: bytes,
            billed_day,
            billed_on_day,
            leaves,
            cursor: counting.cursor.clone(),
            listing,
            consent: self.consent(&described),
            refusal: self.validation.refusal.clone(),
        };
        self.validation.seen.clone_from(&leaves.consent.seen);
        let plan = Box::new(Next::Plan(described));
        Next::Await(State::Sharing(plan), Command::ShareLeaves(Box::new(leaves)))
    }
}

impl Engine {
    /// What may be done with rows that only a copy has.
    fn consent(&self, described: &Described) -> Consent {
        let settings = self.config.pace.validation;
        let description = &described.description;
        let by_cursor = description.partitioning.as_ref().and_then(|(unit, column)| {
            column.as_ref().filter(|name| name.eq_ignore_ascii_case(&self.config.cursor)).map(|_| unit)
        });
        let period = by_cursor.map(|unit| match unit {
            PartitionUnit::Hour => Period::Hour,
            PartitionUnit::Day => Period::Day,
            PartitionUnit::Month => Period::Month,
            PartitionUnit::Year => Period::Year,
        });
        let present = self.config.pace.zone.local(self.source.server_time());
        let live_us = description.partitions_live_ms.map(|ms| ms.saturating_mul(1_000));
        Consent {
            deletes: settings.deletes,
            rows_max: settings.deletes_max,
            period,
            expired: live_us.map(|us| present.plus(-us)),
            seen: self.validation.wish.extras.clone(),
        }
    }
}

/// Returns where records have their cursors; none if their ids begin with them, or if no attribute tells them exactly.
fn stored_cursor(projection: &Projection) -> Option<StoredCursor> {
    let attribute =
        projection.exact_cursor_attribute().filter(|_| !projection.has_cursor_in_id())?.to_owned();
    let unit_us = match projection.cursor_type {
        CursorType::Integer(unit) => unit.us(),
        CursorType::Timestamp | CursorType::DateTime | CursorType::Date => 1,
    };
    Some(StoredCursor { attribute, unit_us })
}
