//! Whether what workers of other nodes committed has arrived on this one.
//!
//! Harper may lose a whole transaction on its way to a node that is ending, or has just started. So each commit leaves a
//! numbered witness behind its rows. A node that has a later number and misses an earlier one has lost a commit. The
//! witnesses around the gap tell which rows of which result it had.

use super::loss::{Loss, Piece};
use super::retention::{self, Retention, WITNESSES, WITNESSES_KEPT_LONG};
use crate::bigquery::page::JobReference;
use crate::bigquery::sql::Window;
use crate::time::{Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// While commits arrive, a node keeps so often how far nothing is missing. In its next life it trusts nothing else: what it
/// was just taking in when it ended may be there in parts.
const SAVED_US: i64 = 5 * SECOND_US;
/// So many witnesses are looked for at a time, of all workers together, but of each one at least the second number.
const LOOKED_FOR: u64 = 2_048;
const LOOKED_FOR_EACH: u64 = 256;
/// Losses of rows without key with fewer commits between them are mended as one, for each takes its time.
const NEAR: u64 = 64;
/// What does not arrive for so long, although later commits did, is lost.
const PATIENCE_US: i64 = 10 * SECOND_US;
/// A lost commit is tried again after this time; it doubles.
const RETRY_US: i64 = 60 * SECOND_US;
const RETRY_US_MAX: i64 = 3_600 * SECOND_US;
/// After so long, a node knows of whatever the others had stored when it read lost rows again.
const SETTLING_US: i64 = 60 * SECOND_US;
/// The last commit for now is told again after these times, for no later one tells of it. What is told may get lost like
/// the commit itself, for a node needs some time to start.
const CLOSING_US: [i64; 2] = [5 * SECOND_US, 60 * SECOND_US];

/// Some rows of a query's result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Portion {
    /// The query's job; none where the endpoint names none.
    #[serde(default)]
    pub job: Option<JobReference>,
    /// Whether BigQuery numbered the identical rows.
    #[serde(default)]
    pub numbered: bool,
    /// The version of the schema that they were read under.
    #[serde(default)]
    pub schema: u32,
    /// The window's lower bound, exclusive.
    #[serde(with = "instant", default)]
    pub after: Option<Micros>,
    /// The window's upper bound, inclusive.
    #[serde(with = "instant", default)]
    pub until: Option<Micros>,
    /// Rows of the whole result.
    pub total_rows: u64,
    /// The first row.
    pub from: u64,
    /// The row behind the last one.
    pub to: u64,
}

impl Portion {
    /// Returns the window that they are a part of.
    pub fn window(&self) -> Window {
        Window { after: self.after, until: self.until }
    }

    fn between(&self, from: u64, to: u64) -> Option<Piece> {
        (from < to).then(|| Piece::Rows(Portion { from, to, ..self.clone() }))
    }
}

/// A commit of rows, as its witness tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    /// The table's id in the configuration.
    pub table_id: String,
    /// The worker, `node-index`.
    pub owner: String,
    /// Its number among the worker's commits for this table.
    pub number: u64,
    /// Where its witness is, until another one takes the place.
    #[serde(default)]
    pub place: u64,
    /// From this commit on, all witnesses are still there.
    #[serde(default)]
    pub kept_from: u64,
    /// Whether its witness arrived in a former life of the node that looks for it.
    #[serde(default, skip_serializing)]
    pub is_former: bool,
    /// The time that Harper took for that of the writing.
    #[serde(with = "instant", default)]
    pub stamp: Option<Micros>,
    /// The rows that it wrote.
    pub rows: Portion,
    /// The number of the result among those that the worker read for this table.
    pub result: u64,
    /// Where the worker began to read that result.
    pub began: u64,
    /// What the worker committed of the result before.
    #[serde(default)]
    pub before: Option<Portion>,
    /// Where the rows of all results before lie.
    #[serde(default)]
    pub past: Option<Past>,
    /// What may be wrong of what the worker wrote, and nobody has read again since.
    #[serde(default)]
    pub doubt: Option<Doubt>,
    /// What becomes a doubt if the worker does not come to its end.
    #[serde(default)]
    pub mending: Option<Doubt>,
}

/// Where the rows of a worker's results lie that it read some time ago. Results that got lost one after the other are
/// told of by nothing else, and may lie anywhere: a worker that takes partitions over reads earlier windows again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// Of results up to this number, nothing is known.
    pub known_from: u64,
    /// The older results: those up to the number, and the window that has them all.
    pub older: Option<(u64, Window)>,
    /// The window that has all later ones.
    pub newer: Option<Window>,
}

impl Past {
    fn take(&mut self, window: Window) {
        self.newer = Some(self.newer.map_or(window, |known| known.around(window)));
    }

    /// Forgets the older results. Those up to this number are the older ones from now on.
    fn age(&mut self, number: u64) {
        if let Some((until, _)) = self.older {
            self.known_from = until;
        }
        self.older = self.newer.take().map(|window| (number, window));
    }

    /// Returns a window that has all results after this number; none if that is not known.
    fn since(&self, number: u64) -> Option<Window> {
        if number < self.known_from {
            return None;
        }
        let older = self.older.filter(|(until, _)| number < *until).map(|(_, window)| window);
        match (older, self.newer) {
            (Some(older), Some(newer)) => Some(older.around(newer)),
            (one, other) => one.or(other),
        }
    }
}

/// Rows that have to be read again. Those of a table with key were written by a worker while others may have written for
/// the same keys: they may be older than what others wrote before. Those of a table without key were being written once
/// more, under other ids: they may be there under both ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// A later doubt of the worker has a higher one: the number of the last commit of such rows, or the time at which the
    /// rows were begun.
    pub number: u64,
    /// The cursor behind which they lie; none if they may lie anywhere.
    #[serde(with = "instant", default)]
    pub after: Option<Micros>,
}

/// The reading of lost rows without key, which get ids of an era.
#[derive(Debug, Clone, Copy)]
pub struct Mending {
    doubt: Doubt,
    era: u32,
    ended_at: Option<Micros>,
}

impl Doubt {
    /// Returns a doubt of all that either doubts.
    pub fn of_both(one: Option<Doubt>, other: Option<Doubt>) -> Option<Doubt> {
        match (one, other) {
            (Some(one), Some(other)) => {
                Some(Doubt { number: one.number.max(other.number), after: one.after.min(other.after) })
            }
            (one, other) => one.or(other),
        }
    }
}

impl Commit {
    /// Makes what a worker tells that has not committed any rows of the table.
    pub fn none(table_id: &str, owner: String) -> Commit {
        Commit {
            table_id: table_id.to_owned(),
            owner,
            number: 0,
            place: 0,
            kept_from: 0,
            is_former: false,
            stamp: None,
            rows: Portion::default(),
            result: 0,
            began: 0,
            before: None,
            past: None,
            doubt: None,
            mending: None,
        }
    }

    /// Takes what the worker was mending for a doubt: it will not come to its end any more.
    pub fn end(&mut self) {
        self.doubt = Doubt::of_both(self.doubt, self.mending.take());
    }
}

/// The own commits, as they are told to other nodes.
#[derive(Debug, Default)]
pub struct Outbox {
    last: Option<Commit>,
    /// The latest time of a writing that was told of, with a witness or without.
    stamp: Option<Micros>,
    doubt: Option<Doubt>,
    mending: Option<Mending>,
    retention: Retention,
    /// The number of the last reading of lost rows that was begun in this life.
    begun: u64,
    /// When the last one was made, or a node started that may have lost it; none once it was told often enough.
    open_since: Option<Micros>,
    /// How often it was told again since.
    told: usize,
}

impl Outbox {
    /// Takes what is stored: the last commit, what was told of it, and the present era of rows without key.
    pub fn load(&mut self, last: Option<Commit>, head: Option<&Commit>, era: u32, now: Micros) {
        let number = |commit: &Option<Commit>| commit.as_ref().map(|commit| commit.number);
        if number(&last) != number(&self.last) {
            // Whoever made it may have ended before it was told again.
            self.open(now);
        }
        self.stamp = self.stamp.max(head.and_then(|head| head.stamp));
        for commit in last.as_ref().into_iter().chain(head) {
            self.doubt = Doubt::of_both(self.doubt, commit.doubt);
        }
        self.last = last;
        let cut_short = head.and_then(|head| head.mending).filter(|mending| mending.number > self.begun);
        let conclusion = self.conclude(era, now);
        if cut_short.is_some() || conclusion.is_some() {
            self.doubt = Doubt::of_both(self.doubt, Doubt::of_both(cut_short, conclusion.flatten()));
            self.open(now);
        }
    }

    /// Ends a reading of lost rows some time after they were written, and returns what is in doubt then: all of them, if
    /// their ids are those of a former era. Others may have read everything once more before these rows arrived.
    fn conclude(&mut self, era: u32, now: Micros) -> Option<Option<Doubt>> {
        let is_over = |mending: &Mending| mending.ended_at.is_some_and(|at| now.since(at) >= SETTLING_US);
        let mending = self.mending.take_if(|mending| is_over(mending))?;
        Some((mending.era != era).then_some(mending.doubt))
    }

    /// Returns the last commit that was made.
    pub fn last(&self) -> Option<&Commit> {
        self.last.as_ref()
    }

    /// Returns what is told of the last commit; none if there is nothing to tell.
    pub fn head(&self, table_id: &str, owner: String) -> Option<Commit> {
        let is_told_of = self.doubt.is_some() || self.begun > 0;
        let last = self.last.clone().or_else(|| is_told_of.then(|| Commit::none(table_id, owner)))?;
        Some(Commit {
            stamp: last.stamp.max(self.stamp),
            doubt: self.doubt,
            mending: self.mending_doubt(),
            ..last
        })
    }

    /// Returns what may be wrong of what the worker wrote.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// Notes that whatever was in doubt was read again.
    pub fn dispel_doubt(&mut self) {
        self.doubt = None;
    }

    fn mending_doubt(&self) -> Option<Doubt> {
        self.mending.map(|mending| mending.doubt)
    }

    /// Notes that lost rows of a table without key are written at this time, with ids of an era, which lie behind a cursor.
    pub fn mend(&mut self, stamp: Micros, after: Option<Micros>, era: u32) {
        self.stamp = self.stamp.max(Some(stamp));
        if let Some(mending) = self.mending.as_mut().filter(|mending| mending.era == era) {
            mending.doubt.after = mending.doubt.after.min(after);
            mending.ended_at = None;
            return;
        }
        self.doubt = Doubt::of_both(self.doubt, self.mending_doubt());
        let number = u64::try_from(stamp.0).unwrap_or(0).max(self.begun + 1);
        self.begun = number;
        self.mending = Some(Mending { doubt: Doubt { number, after }, era, ended_at: None });
    }

    /// Returns what is being mended.
    pub fn mending(&self) -> Option<Mending> {
        self.mending
    }

    /// Notes that no row was written since that was being mended.
    pub fn mend_no_more(&mut self, mending: Option<Mending>) {
        self.mending = mending;
    }

    /// Notes that all of them were written.
    pub fn mended(&mut self, now: Micros) {
        if let Some(mending) = &mut self.mending {
            mending.ended_at = Some(now);
        }
    }

    /// Makes the witness of the next commit; `is_in_doubt` where others may be writing rows with the same keys, and
    /// `is_somebody_away` if a node looks for it later.
    pub fn next(
        &self,
        table_id: &str,
        owner: String,
        stamp: Option<Micros>,
        rows: Portion,
        is_in_doubt: bool,
        is_somebody_away: bool,
    ) -> Commit {
        let of_same = |last: &&Commit| last.rows.job.is_some() && last.rows.job == rows.job;
        let (number, result) = self.last.as_ref().map_or((0, 0), |last| (last.number, last.result));
        let mut past = self.past();
        let (result, began, before) = match self.last.as_ref().filter(of_same) {
            Some(last) => (result, last.began.min(rows.from), last.before.clone()),
            None => {
                let before = self.last.as_ref().map(|last| Portion { from: last.began, ..last.rows.clone() });
                if let Some(before) = &before {
                    past.take(before.window());
                }
                (result + 1, rows.from, before)
            }
        };
        let number = number + 1;
        let place = self.retention.place(number, is_somebody_away);
        let before_it = self.last.as_ref().map(|last| (last.place, last.kept_from));
        if number.is_multiple_of(WITNESSES) {
            past.age(result - 1);
        }
        let past = Some(past);
        let known = self.doubt;
        let after = known.map_or(rows.after, |known| known.after.min(rows.after));
        let doubt = if is_in_doubt { Some(Doubt { number, after }) } else { known };
        Commit {
            table_id: table_id.to_owned(),
            owner,
            number,
            place,
            kept_from: retention::kept_from(number, place, before_it),
            is_former: false,
            stamp,
            rows,
            result,
            began,
            before,
            past,
            doubt,
            mending: self.mending_doubt(),
        }
    }

    /// Returns where the rows of the results before the last one lie.
    fn past(&self) -> Past {
        let unknown = |last: &Commit| Past { known_from: last.result.saturating_sub(1), ..Past::default() };
        self.last.as_ref().map_or_else(Past::default, |last| last.past.unwrap_or_else(|| unknown(last)))
    }

    /// Notes that a commit was made.
    pub fn made(&mut self, commit: Commit, now: Micros) {
        self.doubt = commit.doubt;
        self.retention.note(commit.number, now);
        self.last = Some(commit);
        self.open(now);
    }

    /// Notes that the last commit has to be told again.
    pub fn open(&mut self, now: Micros) {
        self.open_since = Some(now);
        self.told = 0;
    }

    /// Returns in how many milliseconds the last commit has to be told again; none if it need not be.
    pub fn closes_in_ms(&self, now: Micros) -> Option<u64> {
        let (since, closing_us) = (self.open_since?, *CLOSING_US.get(self.told)?);
        let left_us = closing_us.saturating_sub(now.since(since)).clamp(0, closing_us);
        Some(left_us.unsigned_abs().div_ceil(1_000))
    }

    /// Notes that the last commit was told again.
    pub fn close(&mut self) {
        self.told += 1;
    }
}

/// What arrived of the other nodes' commits for one table.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Whether it is known what this node keeps; before that, an old gap could not be told from what is too old to be seen.
    is_loaded: bool,
    /// Whether what had arrived before the node started may be there in parts.
    distrusts_former: bool,
    /// Whether the rows have no key.
    is_keyless: bool,
    senders: BTreeMap<String, Sender>,
}

/// What arrived of one worker's commits.
#[derive(Debug)]
struct Sender {
    /// Up to this number, nothing is missing.
    proven: u64,
    /// The commit of that number, if it is known.
    last: Option<Commit>,
    /// Up to which number the node keeps that, if it does.
    saved: Option<u64>,
    /// When it noted that last.
    saved_at: Option<Micros>,
    /// The last commit that was proven when that was asked for last. Harper ended meanwhile if a commit is there in parts.
    settled: Option<Commit>,
    /// The newest commit that was told of, whether it arrived or not.
    head: Commit,
    /// Up to this number, all were looked for.
    looked_for: u64,
    /// When it got so far, for those that are not proven.
    looked_at: Vec<(u64, Micros)>,
    /// Later ones that arrived.
    arrived: BTreeMap<u64, Commit>,
    gap: Option<Gap>,
}

/// The commits that are missing behind the last one that is proven.
#[derive(Debug, Clone, Copy)]
struct Gap {
    first: u64,
    /// The number of the next commit that is there.
    until: u64,
    pieces_done: usize,
    /// Whether the result is gone, and the window is to be queried anew.
    result_is_lost: bool,
    attempts: u32,
    not_before: Micros,
}

impl Deliveries {
    /// Takes what this node keeps of how far nothing is missing. What had arrived before it started is trusted beyond that
    /// only in its first life: then it is a copy of what another node has.
    pub fn load(&mut self, proofs: Vec<Commit>, has_former_life: bool) {
        self.distrusts_former |= has_former_life && !self.is_loaded;
        self.is_loaded = true;
        for proof in proofs {
            let sender =
                self.senders.entry(proof.owner.clone()).or_insert_with(|| Sender::new(proof.clone()));
            sender.saved = sender.saved.max(Some(proof.number));
            if proof.number > sender.proven || sender.last.is_none() {
                sender.prove(proof);
            }
        }
    }

    /// Takes what workers tell of their last commits. Returns the commits whose witnesses should be looked for.
    pub fn wanted(&mut self, heads: Vec<Commit>) -> Vec<(String, u64)> {
        let mut wanted = Vec::new();
        let most = (LOOKED_FOR / (heads.len() as u64).max(1)).max(LOOKED_FOR_EACH);
        for head in heads.into_iter().filter(|_| self.is_loaded) {
            let (owner, number) = (head.owner.clone(), head.number);
            let sender = self.senders.entry(owner.clone()).or_insert_with(|| Sender::new(head.clone()));
            if number > sender.head.number {
                sender.head = head;
            }
            wanted.extend(sender.wanted(most).map(|number| (owner.clone(), number)));
        }
        wanted
    }

    /// Whether all that was told of has arrived, or was read again.
    pub fn has_all(&self) -> bool {
        self.senders.values().all(|sender| sender.proven >= sender.head.number)
    }

    /// Whether a worker's commits up to this number have arrived, or were read again.
    pub fn has(&self, owner: &str, number: u64) -> bool {
        self.senders.get(owner).is_some_and(|sender| sender.proven >= number)
    }

    /// Notes whether the rows have no key.
    pub fn know_key(&mut self, is_keyless: bool) {
        self.is_keyless = is_keyless;
    }

    /// Takes the witnesses that were found.
    pub fn take(&mut self, witnesses: Vec<Commit>, now: Micros) {
        for witness in witnesses {
            if let Some(sender) = self.senders.get_mut(&witness.owner)
                && witness.number > sender.proven
                && !(witness.is_former && self.distrusts_former)
            {
                sender.arrived.insert(witness.number, witness);
            }
        }
        for sender in self.senders.values_mut() {
            sender.note_look(now);
            sender.advance();
        }
    }

    /// Returns what the node should keep of how far nothing is missing.
    pub fn proofs(&mut self, now: Micros) -> Vec<Commit> {
        self.senders.values_mut().filter_map(|sender| sender.proof(now)).collect()
    }

    /// Tells what has to be read again next, if something is lost.
    pub fn loss(&mut self, now: Micros) -> Option<Loss> {
        let near = if self.is_keyless { NEAR } else { 0 };
        self.senders.values_mut().find_map(|sender| sender.loss(near, now))
    }

    /// Notes that a loss is being mended; it is tried again after a while, unless that works.
    pub fn attempt(&mut self, owner: &str, now: Micros) {
        if let Some(gap) = self.gap_of(owner) {
            let delay_us = RETRY_US.saturating_mul(1 << gap.attempts.min(10)).min(RETRY_US_MAX);
            gap.attempts += 1;
            gap.not_before = now.plus(delay_us);
        }
    }

    /// Notes that the result of which rows are wanted is gone.
    pub fn lose_result(&mut self, owner: &str) {
        if let Some(gap) = self.gap_of(owner).filter(|gap| !gap.result_is_lost) {
            gap.result_is_lost = true;
            gap.not_before = Micros::MIN;
        }
    }

    /// Notes that a loss is mended, or one of its pieces.
    pub fn mended(&mut self, loss: &Loss) {
        let Some(sender) = self.senders.get_mut(&loss.owner) else { return };
        if loss.is_last {
            sender.prove(loss.proof());
            sender.advance();
        } else if let Some(gap) = &mut sender.gap {
            gap.pieces_done += 1;
            gap.result_is_lost = false;
            gap.attempts = 0;
            gap.not_before = Micros::MIN;
        }
    }

    fn gap_of(&mut self, owner: &str) -> Option<&mut Gap> {
        self.senders.get_mut(owner)?.gap.as_mut()
    }
}

impl Sender {
    /// What is older than the witnesses that are kept is taken for proven.
    fn new(head: Commit) -> Sender {
        let proven = match head.kept_from {
            0 => head.number.saturating_sub(WITNESSES),
            kept_from => kept_from - 1,
        };
        Sender {
            proven,
            last: None,
            saved: None,
            saved_at: None,
            settled: None,
            head,
            looked_for: 0,
            looked_at: Vec::new(),
            arrived: BTreeMap::new(),
            gap: None,
        }
    }

    /// Returns the numbers whose witnesses are looked for next. Behind a stretch that is missing as a whole, further ones
    /// are.
    fn wanted(&mut self, most: u64) -> impl Iterator<Item = u64> {
        let number = self.head.number;
        let reach = self.looked_for.max(self.proven);
        let before = if self.arrived.is_empty() && reach < number { reach } else { self.proven };
        let first = before + 1;
        let last = number.min(before + most).max(reach);
        self.looked_for = last;
        let first = first.max((number + 1).saturating_sub(WITNESSES_KEPT_LONG));
        (first..=last).filter(|number| !self.arrived.contains_key(number))
    }

    /// Returns what the node should keep of how far nothing is missing.
    fn proof(&mut self, now: Micros) -> Option<Commit> {
        let is_due = self.saved_at.is_none_or(|at| !(0..SAVED_US).contains(&now.since(at)));
        let is_news = |commit: &Commit| self.saved.is_none_or(|saved| commit.number > saved);
        let proof = self.settled.take().filter(|commit| is_due && is_news(commit));
        if let Some(proof) = &proof {
            self.saved = Some(proof.number);
            self.saved_at = Some(now);
        }
        self.settled = self.last.clone().filter(|last| self.saved.is_none_or(|saved| last.number > saved));
        proof
    }

    fn note_look(&mut self, now: Micros) {
        if self.looked_at.last().is_none_or(|(number, _)| *number < self.looked_for) {
            self.looked_at.push((self.looked_for, now));
        }
    }

    /// Returns since when a commit is looked for.
    fn looked_for_since(&self, number: u64) -> Option<Micros> {
        self.looked_at.iter().find(|(until, _)| *until >= number).map(|(_, at)| *at)
    }

    /// Returns the commit that is there behind what is missing next: behind several stretches if less than so much is
    /// between them.
    fn next_there(&self, near: u64) -> Option<&Commit> {
        let mut arrived = self.arrived.values();
        let mut next = arrived.next()?;
        let mut before = next.number;
        for commit in arrived {
            if commit.number > before + 1 {
                if before + 1 - next.number >= near {
                    break;
                }
                next = commit;
            }
            before = commit.number;
        }
        Some(next)
    }

    fn advance(&mut self) {
        while let Some(commit) = self.arrived.remove(&(self.proven + 1)) {
            self.prove(commit);
        }
        if self.last.is_none() && self.proven > 0 {
            // Where the kept witnesses begin, nothing is known to be missing.
            if let Some((_, commit)) = self.arrived.pop_first() {
                self.prove(commit);
                self.advance();
            }
        }
    }

    fn prove(&mut self, commit: Commit) {
        self.proven = commit.number;
        self.arrived = self.arrived.split_off(&(self.proven + 1));
        self.looked_at.retain(|(number, _)| *number > self.proven);
        self.last = Some(commit);
        self.gap = None;
    }

    fn loss(&mut self, near: u64, now: Micros) -> Option<Loss> {
        if self.proven >= self.head.number {
            return None;
        }
        let first = self.proven + 1;
        let known = self.gap.filter(|gap| gap.first == first);
        let next =
            known.and_then(|gap| self.arrived.get(&gap.until)).or_else(|| self.next_there(near)).cloned();
        if next.is_none() && self.looked_for < self.head.number {
            return None;
        }
        // Who has nothing later knows of the last one what the worker told.
        let (until, end) = match next {
            Some(next) => {
                (next.number, Commit { rows: Portion { to: next.rows.from, ..next.rows.clone() }, ..next })
            }
            None => (self.head.number + 1, self.head.clone()),
        };
        let known = known.filter(|gap| gap.until == until);
        let gap = *self.gap.insert(known.unwrap_or_else(|| Gap::new(first, until)));
        let since = self.looked_for_since(until - 1).unwrap_or(now);
        if now.since(since) < PATIENCE_US || now < gap.not_before {
            return None;
        }
        let mut pieces = pieces(self.last.as_ref(), &end);
        if gap.pieces_done >= pieces.len() {
            // Numbers that no commit got: their worker ended before.
            self.prove(Commit { number: until - 1, ..end });
            self.advance();
            return self.loss(near, now);
        }
        let is_last = gap.pieces_done + 1 == pieces.len();
        let mut piece = pieces.swap_remove(gap.pieces_done);
        if let Piece::Rows(portion) = &piece
            && (gap.result_is_lost || portion.job.is_none())
        {
            piece = Piece::Window(portion.window());
        }
        let stamp = self.last.as_ref().and_then(|last| last.stamp).map(|stamp| stamp.plus(1));
        let stamp = stamp.or(end.stamp.map(|stamp| stamp.plus(-1)));
        let owner = end.owner.clone();
        Some(Loss { owner, first, count: until - first, piece, is_last, stamp, end, compares: false })
    }
}

impl Gap {
    fn new(first: u64, until: u64) -> Gap {
        Gap { first, until, pieces_done: 0, result_is_lost: false, attempts: 0, not_before: Micros::MIN }
    }
}

/// Returns what was committed between the last commit that arrived and the end of another one's rows.
fn pieces(last: Option<&Commit>, end: &Commit) -> Vec<Piece> {
    let results = end.result.saturating_sub(last.map_or(0, |last| last.result));
    let front = end.rows.between(end.began, end.rows.to);
    let tail_until = |to: u64| last.and_then(|last| last.rows.between(last.rows.to, to));
    let pieces = match (results, last, &end.before) {
        (0, Some(last), _) => vec![end.rows.between(last.rows.to, end.rows.to)],
        (1, _, Some(before)) => vec![tail_until(before.to), front],
        (1, _, None) => vec![front],
        (2, _, Some(before)) => {
            let rest = last.and_then(|last| tail_until(last.rows.total_rows));
            vec![rest, before.between(before.from, before.to), front]
        }
        // Of results in between nothing is known but where they lie.
        _ => {
            let number = last.map_or(0, |last| last.result);
            let between = end.past.and_then(|past| past.since(number)).unwrap_or(Window::ALL);
            let around = [last.map(|last| &last.rows), Some(&end.rows)].into_iter().flatten();
            let window = around.fold(between, |window, rows| window.around(rows.window()));
            vec![Some(Piece::Window(window))]
        }
    };
    pieces.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
