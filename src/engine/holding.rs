//! A worker's share of a table: its partitions, their progress, and the number of their rows.

use super::boundary::{Incarnation, Note};
use super::checkpoint::Checkpoint;
use super::counts::Counts;
use super::division;
use super::ledger::Ledger;
use super::phase::Phase;
use super::resync::{Reread, Resync};
use super::sizes::Sizes;
use super::source::{Described, Source};
use super::window::{self, WINDOW_BYTES_MAX};
use crate::bigquery::table::{Description, PartitionUnit};
use crate::cluster::{Share, Standing};
use crate::config::Pace;
use crate::error::{Failure, Kind};
use crate::mapping::projection::Projection;
use crate::partition::{Division, Rule};
use crate::time::zone::Zone;
use crate::time::{Micros, SECOND_US};

/// How long one worker waits for another to count before it counts by itself.
const COUNTS_PATIENCE_US: i64 = 60 * SECOND_US;
/// What was counted so long ago tells too little of now.
const COUNTS_AGE_S_MAX: i64 = 86_400;

/// A worker's part of a table.
#[derive(Debug)]
pub struct Holding {
    /// Where the worker stands in the cluster.
    standing: Standing,
    /// The share that it acts upon.
    share: Share,
    rule: Rule,
    /// The partitions that the share holds, in order.
    own: Vec<u32>,
    /// How far all partitions have come.
    pub ledger: Ledger,
    /// Whether the cluster was settled when the checkpoints were read last.
    is_read_settled: bool,
    /// The latest time of writing of which some worker told before it wrote.
    told_stamp: Option<Micros>,
    counts: Option<Counts>,
    /// The last command to read the table again; its number is 0 if there was none.
    resync: Resync,
    /// The number of the last such command that was for all rows.
    whole: u64,
    /// Rows that had been rejected when the table was started by hand last: they are forgiven.
    forgiven_rows: u64,
    /// Since when another worker is expected to count.
    counts_awaited_since: Option<Micros>,
}

impl Holding {
    /// Starts with nothing, from where the worker stands.
    pub fn new(standing: Standing) -> Holding {
        Holding {
            standing,
            share: standing.share,
            rule: Rule::WHOLE,
            own: Vec::new(),
            ledger: Ledger::default(),
            is_read_settled: false,
            told_stamp: None,
            counts: None,
            resync: Resync::default(),
            whole: 0,
            forgiven_rows: 0,
            counts_awaited_since: None,
        }
    }

    /// Notes where the worker stands now. Tells whether its share is another than before.
    pub fn stand(&mut self, standing: Standing) -> bool {
        let changed = self.standing.share != standing.share;
        self.is_read_settled &= standing.is_settled;
        self.standing = standing;
        changed
    }

    /// Returns another number whenever some other node has started.
    pub fn lives(&self) -> u64 {
        self.standing.lives
    }

    /// Whether the share that is acted upon is no longer the one that is due, or is to be read again.
    pub fn is_outdated(&self) -> bool {
        self.standing.share != self.share || !self.rereads_due().is_empty()
    }

    /// Takes over the checkpoints that Harper holds, and the share that is due under a rule. Tells whether the own
    /// partitions are the same as before and nobody else wrote for them.
    pub fn take(&mut self, checkpoints: Vec<Checkpoint>, rule: Rule, position: u32) -> bool {
        let share = self.standing.share;
        let mut ledger = Ledger::of(checkpoints, &rule.name());
        ledger.void_before(self.whole);
        let own = owned(rule, share, position);
        let stands = self.rule == rule && self.own == own && self.ledger.is_same_for(&ledger, &own);
        if stands {
            ledger.take_proofs(&mut self.ledger);
        }
        (self.rule, self.share, self.own, self.ledger) = (rule, share, own, ledger);
        stands
    }

    /// Forgets where the own partitions are when rows are wanted that were left out before, or went to a table that is
    /// gone. Returns why; rows that are read anew get the same ids and so are not doubled.
    pub fn start_over_if_asked(
        &mut self,
        start: Option<Micros>,
        incarnation: &Incarnation,
        description: &Description,
    ) -> Vec<Note> {
        let moved_back = |row: &Checkpoint| {
            row.start_timestamp.is_some_and(|before| start.is_none_or(|start| start < before))
        };
        let has_begun = |row: &Checkpoint| row.last_timestamp.is_some() || row.window.is_some();
        let was_missing = |row: &Checkpoint| row.incarnation != *incarnation && has_begun(row);
        let is_former = |row: &Checkpoint| row.is_of_former_source(description) && has_begun(row);
        let any = |applies: &dyn Fn(&Checkpoint) -> bool| {
            self.own.iter().filter_map(|partition| self.ledger.get(*partition)).any(applies)
        };
        let reasons = [
            (any(&moved_back), "start_moved_back", "startTimestamp was moved back"),
            (any(&was_missing), "target_was_missing", "the target table was missing"),
            (any(&is_former), "source_made_anew", "the source was dropped or emptied, and filled again"),
        ];
        let applies = reasons.into_iter().filter(|(applies, ..)| *applies);
        let note =
            |(_, kind, why): (bool, _, &str)| Note { kind, reason: format!("{why}: the table is read anew") };
        let notes: Vec<Note> = applies.map(note).collect();
        if !notes.is_empty() {
            self.ledger.start_over(|row| moved_back(row) || was_missing(row) || is_former(row));
        }
        notes
    }

    /// Notes how many rejected rows are forgiven.
    pub fn forgive(&mut self, rows: u64) {
        self.forgiven_rows = rows;
    }

    /// Whether more rows of the table were rejected than are allowed, by whichever worker: none of them goes on then.
    ///
    /// # Errors
    /// When there were.
    pub fn check_rejected(&self, rows_max: u64) -> Result<(), Failure> {
        let rows = self.ledger.sum(|row| row.records_rejected).saturating_sub(self.forgiven_rows);
        if rows <= rows_max {
            return Ok(());
        }
        let message = format!(
            "{rows} rows could not be written, limits.maxRejectedRows is {rows_max}: SyncAudit tells which and why; \
             POST {{\"action\": \"start\"}} to /SyncControl goes on without them"
        );
        Err(Failure::new(Kind::TooManyRejectedRows, message))
    }

    /// Returns a checkpoint whose window nobody can read on, though its job may have billed something, if it falls to this
    /// worker to end that: the owner of the checkpoint's partition does.
    pub fn debt(&self) -> Option<&Checkpoint> {
        self.ledger.debt(&self.own, self.is_first())
    }

    /// Takes the watermarks back where the cursor was taken to follow another zone. Returns what is to be told of it.
    pub fn follow_zone(&mut self, zone: &Zone) -> Option<Note> {
        self.ledger.step_back_for_zone(zone).then(|| Note {
            kind: "time_zone_changed",
            reason: format!(
                "timeZone is {} now: the 27 hours before the watermark are read again",
                zone.name()
            ),
        })
    }

    /// Returns the rule that divides the table.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Returns the own partitions, in order.
    pub fn own(&self) -> &[u32] {
        &self.own
    }

    /// Returns how far the own partitions have come.
    pub fn watermark(&self) -> Option<Micros> {
        self.ledger.lowest(&self.own)
    }

    /// Whether what has to be done once in the cluster falls to this worker.
    pub fn is_first(&self) -> bool {
        self.own.contains(&0)
    }

    /// Whether the own partitions include the one that the present lies in: what lies in the future is read with it.
    pub fn owns_the_future(&self, present: Micros) -> bool {
        match self.rule.division {
            Division::Spans(_) if self.rule.pruned => {
                self.own.binary_search(&self.rule.partition(present)).is_ok()
            }
            Division::Whole | Division::Value | Division::Spans(_) => true,
        }
    }

    /// Takes the time of a writing of which a worker told at its start: the rest may not have arrived, or never come.
    pub fn hear_stamp(&mut self, stamp: Option<Micros>) {
        self.told_stamp = self.told_stamp.max(stamp);
    }

    /// Returns a time for the next commit that is later than those of all others, whichever clock they were taken from.
    pub fn next_stamp(&self, now: Micros) -> Micros {
        let stamp = self.ledger.next_stamp(now);
        self.told_stamp.map_or(stamp, |told| stamp.max(told.plus(1)))
    }

    /// Returns such a time for a commit that stores none, and keeps it: the next one has to be later.
    pub fn take_stamp(&mut self, now: Micros) -> Micros {
        let stamp = self.next_stamp(now);
        self.hear_stamp(Some(stamp));
        stamp
    }

    /// Takes commands to read the table again.
    pub fn hear_resyncs(&mut self, resyncs: impl Iterator<Item = Resync>) {
        for resync in resyncs {
            self.whole = self.whole.max(resync.whole().unwrap_or(0));
            if resync.number > self.resync.number {
                self.resync = resync;
            }
        }
    }

    /// Learns from checkpoints which commands there were.
    pub fn hear_rereads<'c>(&mut self, rereads: impl Iterator<Item = &'c Reread>) {
        for reread in rereads {
            self.whole = self.whole.max(reread.whole);
            self.hear_resyncs(std::iter::once(reread.resync));
        }
    }

    /// Returns the last command to read the table again.
    pub fn resync(&self) -> Resync {
        self.resync
    }

    /// Returns the own partitions that have not begun to follow that command.
    pub fn rereads_due(&self) -> Vec<u32> {
        if self.resync.number == 0 {
            return Vec::new();
        }
        let has_begun = |partition: &u32| {
            self.ledger.get(*partition).map_or(0, Checkpoint::reread_number) >= self.resync.number
        };
        self.own.iter().copied().filter(|partition| !has_begun(partition)).collect()
    }

    /// Tells whether a command makes void what a checkpoint tells, so that it need not fit the configuration.
    pub fn is_voided(&self, row: &Checkpoint) -> bool {
        row.reread_number() < self.whole
    }

    /// Returns own partitions that were found to have nothing more to be read again.
    pub fn take_ended(&mut self) -> Vec<(u32, Micros)> {
        self.ledger.take_ended(&self.own)
    }

    /// Returns a time before which nothing was written that is known to be in the source since the last command to read the
    /// table again; none if there was none.
    pub fn last_mark(&self) -> Option<Micros> {
        self.ledger.last_mark()
    }

    /// Tells whether a command makes void what is known under a rule. What is left of former rules does not count.
    pub fn voids_all(&self, rows: &[Checkpoint], rule: Rule) -> bool {
        let name = rule.name();
        let mut of_rule = rows.iter().filter(|row| row.rule == name).peekable();
        self.whole > 0 && (of_rule.peek().is_none() || of_rule.any(|row| self.is_voided(row)))
    }

    /// Whether own partitions have not been read again to their ends.
    pub fn is_rereading(&self) -> bool {
        let is_open = |row: &Checkpoint| row.reread.is_some_and(|reread| !reread.done);
        self.own.iter().filter_map(|partition| self.ledger.get(*partition)).any(is_open)
    }

    /// Whether the work is shared with other workers.
    pub fn has_others(&self) -> bool {
        self.standing.share.workers > 1
    }

    /// Whether nobody else may write for the own partitions.
    pub fn is_sole_at(&self, now: Micros) -> bool {
        self.standing.is_settled_at(now)
    }

    /// Notes that the checkpoints, and what other workers tell, were read now.
    pub fn look_around(&mut self, now: Micros) {
        self.is_read_settled = self.is_sole_at(now);
    }

    /// Whether the checkpoints were read before the cluster settled: what others wrote meanwhile, and may have overwritten
    /// rows with key, is not known.
    pub fn must_look_around(&self, projection: &Projection, now: Micros) -> bool {
        !projection.key.is_empty() && self.is_sole_at(now) && !self.is_read_settled
    }

    /// Whether some partitions can be read again now, because they were read while nodes came and went: of a table with a
    /// key at any time, of another one since its rows have other ids.
    pub fn is_unsettled(&self, projection: &Projection, partitions: &[u32], now: Micros) -> bool {
        let is_unsettled = match projection.key.is_empty() {
            true => self.ledger.may_get_old_ids(partitions, projection.era),
            false => !self.ledger.is_settled(partitions),
        };
        is_unsettled && self.is_sole_at(now)
    }

    /// Takes what some worker counted, if it is of use.
    pub fn take_counts(&mut self, counts: Option<Counts>, identity: &str, server_time: Micros) {
        let age_s = |counts: &Counts| server_time.0 / SECOND_US - counts.counted_at;
        let resync = self.resync.number;
        // What was counted before may lack spans that have rows.
        let fresh = |counts: &Counts| {
            counts.identity == identity && age_s(counts) < COUNTS_AGE_S_MAX && counts.resync >= resync
        };
        self.counts = counts.filter(fresh).or(self.counts.take().filter(fresh));
    }

    /// Takes what this worker counted. Tells whether others need it too.
    pub fn set_counts(&mut self, counts: Counts) -> bool {
        self.counts = Some(counts);
        self.rule != Rule::WHOLE
    }

    /// Forgets what was counted: it has to be counted by other units.
    pub fn forget_counts(&mut self) {
        self.counts = None;
    }

    /// Returns what was counted.
    pub fn counts(&self) -> Option<&Counts> {
        self.counts.as_ref()
    }

    /// Returns how many rows the whole backlog has, if they were counted.
    pub fn rows_counted(&self) -> Option<u64> {
        let rows = |counts: &Counts| counts.partitions().map(|one| one.rows).fold(0, u64::saturating_add);
        self.counts.as_ref().map(rows)
    }

    /// Tells by which partitions of the source the backlog has to be counted, if it is too large for one window or lies
    /// in so many spans that the own ones cannot be told from others'.
    pub fn unit_to_count(
        &self,
        described: &Described,
        sizes: &Sizes,
        pace: &Pace,
        source: &Source,
        now: Micros,
    ) -> Option<PartitionUnit> {
        let Described { description, projection } = described;
        if self.counts.is_some() {
            return None;
        }
        let own_unit = division::partitioned_on_cursor(projection, description);
        if let Some(unit) = sizes.unit_to_cut() {
            return own_unit.filter(|own| *own == PartitionUnit::Hour).or(Some(unit));
        }
        let rereads = self.is_unsettled(projection, &self.own, now);
        let unit = own_unit.or(source.is_billed_by_day().then_some(PartitionUnit::Day));
        let unit = unit.filter(|_| rereads || sizes.phase() != Phase::Steady)?;
        let large = source.is_billed_by_day()
            || description.rows.is_some_and(|rows| rows > sizes.window_rows_max())
            || description.bytes.is_some_and(|bytes| bytes > WINDOW_BYTES_MAX);
        let owns_all = self.own.len() as u64 >= u64::from(self.rule.partitions);
        let after = window::lower_bound(self.watermark(), projection.cursor_type, pace);
        let scattered =
            !owns_all && division::needs_counting(self.rule, after, pace.zone.local(source.server_time()));
        (large || scattered).then_some(unit)
    }

    /// Whether to wait for the worker that counts: one who counts is enough, and is billed once.
    pub fn awaits_counts(&mut self, now: Micros) -> bool {
        let since = *self.counts_awaited_since.get_or_insert(now);
        !self.is_first() && now.since(since) < COUNTS_PATIENCE_US
    }

    /// Notes that no counts are needed.
    pub fn need_no_counts(&mut self) {
        self.counts_awaited_since = None;
    }
}

/// Returns the partitions that a share holds, in order.
fn owned(rule: Rule, share: Share, position: u32) -> Vec<u32> {
    // Tables that are not divided are dealt out in turn.
    let offset = if rule.division == Division::Whole { position } else { 0 };
    (0..rule.partitions).filter(|partition| share.owns(*partition, offset)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::{at, checkpoint, described, keyed, moment};
    use crate::partition::Span;

    const BY_DAY: Rule = Rule { division: Division::Spans(Span::Day), partitions: 2, pruned: true };
    const FIRST_OF_TWO: Standing =
        Standing { share: Share { position: 0, workers: 2 }, is_settled: true, seen_at: None, lives: 0 };

    fn taken(standing: Standing, checkpoints: Vec<Checkpoint>) -> Holding {
        let mut holding = Holding::new(standing);
        holding.take(checkpoints, BY_DAY, 0);
        holding
    }

    #[test]
    fn a_share_is_taken_over_with_what_harper_holds_and_not_before() {
        let mut holding = taken(Standing::ALONE, Vec::new());
        assert!(holding.stand(FIRST_OF_TWO) && holding.is_outdated());
        assert_eq!(holding.own(), [0, 1]);
        assert!(!holding.take(Vec::new(), BY_DAY, 0));
        assert_eq!((holding.own(), holding.is_outdated()), (&[0][..], false));
    }

    #[test]
    fn what_is_known_of_rows_stands_until_somebody_else_writes_for_them() {
        let day = "2024-01-01T00:00:00Z";
        let mut holding = taken(FIRST_OF_TWO, vec![checkpoint(0, day, day)]);
        holding.ledger.prove(&[0], at("2024-01-02"));
        assert!(holding.take(vec![checkpoint(0, day, day), checkpoint(1, day, day)], BY_DAY, 0));
        assert_eq!(holding.watermark(), Some(at("2024-01-02")));
        assert!(!holding.take(vec![checkpoint(0, "2024-01-01T12:00:00Z", day)], BY_DAY, 0));
        assert_eq!(holding.watermark(), Some(at("2024-01-01T12:00:00Z")));
    }

    #[test]
    fn a_target_that_was_made_anew_is_filled_again_and_the_reason_is_told_once() {
        let day = "2024-01-01T00:00:00Z";
        let mut holding = taken(FIRST_OF_TWO, vec![checkpoint(0, day, day)]);
        assert_eq!(holding.start_over_if_asked(None, &String::new(), &described(1).description), []);
        let notes = holding.start_over_if_asked(None, &"second".to_owned(), &described(1).description);
        assert_eq!(notes.iter().map(|note| note.kind).collect::<Vec<_>>(), ["target_was_missing"]);
        assert_eq!(holding.watermark(), None);
        assert_eq!(holding.start_over_if_asked(None, &"second".to_owned(), &described(1).description), []);
    }

    #[test]
    fn rejected_rows_are_allowed_up_to_a_limit_for_all_workers_since_the_table_was_started_by_hand() {
        let day = "2024-01-01T00:00:00Z";
        let rejected =
            |partition, rows| Checkpoint { records_rejected: rows, ..checkpoint(partition, day, day) };
        let mut holding = taken(FIRST_OF_TWO, vec![rejected(0, 2), rejected(1, 3)]);
        assert!(holding.check_rejected(5).is_ok());
        assert_eq!(holding.check_rejected(4).unwrap_err().kind, Kind::TooManyRejectedRows);
        holding.forgive(5);
        assert!(holding.check_rejected(0).is_ok());
    }

    #[test]
    fn only_the_first_worker_counts_at_once_and_others_after_a_while() {
        let second = Standing { share: Share { position: 1, workers: 2 }, ..FIRST_OF_TWO };
        assert!(!taken(FIRST_OF_TWO, Vec::new()).awaits_counts(moment(0).now));
        let mut holding = taken(second, Vec::new());
        assert!(holding.awaits_counts(moment(0).now) && holding.awaits_counts(moment(59).now));
        assert!(!holding.awaits_counts(moment(60).now));
        holding.need_no_counts();
        assert!(holding.awaits_counts(moment(61).now));
    }

    #[test]
    fn each_commit_has_a_later_stamp_than_the_one_before_by_a_clock_that_is_behind_as_well() {
        let day = "2024-01-01T00:00:00Z";
        let row =
            Checkpoint { stamp: Some(at(day)), last_sync_time: Some(at(day)), ..checkpoint(0, day, day) };
        let mut holding = taken(FIRST_OF_TWO, vec![row]);
        let first = holding.take_stamp(moment(0).now);
        assert!(first > at(day) && holding.take_stamp(moment(0).now) > first);
    }

    #[test]
    fn checkpoints_of_a_table_with_key_are_read_again_once_after_the_cluster_has_settled() {
        let (keyed, keyless) = (keyed(1).projection, described(1).projection);
        let now = moment(0).now;
        let mut holding = taken(FIRST_OF_TWO, Vec::new());
        assert!(holding.must_look_around(&keyed, now) && !holding.must_look_around(&keyless, now));
        holding.look_around(now);
        assert!(!holding.must_look_around(&keyed, now));
        holding.stand(Standing { is_settled: false, ..FIRST_OF_TWO });
        assert!(!holding.must_look_around(&keyed, now));
        holding.stand(FIRST_OF_TWO);
        assert!(holding.must_look_around(&keyed, now));
    }

    #[test]
    fn the_future_belongs_to_who_owns_the_present() {
        let holding = taken(FIRST_OF_TWO, Vec::new());
        let owns = |day: i64| holding.owns_the_future(Micros(day * 86_400 * SECOND_US));
        assert_eq!((owns(10), owns(11)), (true, false));
    }

    #[test]
    fn counts_are_used_while_they_are_fresh_and_of_this_configuration() {
        let counts = |identity: &str, counted_at| Counts {
            id: "t".to_owned(),
            identity: identity.to_owned(),
            counted_at,
            resync: 0,
            partitions: Vec::new(),
        };
        let mut holding = taken(FIRST_OF_TWO, Vec::new());
        holding.take_counts(Some(counts("other", 0)), "own", moment(10).now);
        holding.take_counts(Some(counts("own", -COUNTS_AGE_S_MAX)), "own", moment(10).now);
        assert_eq!(holding.counts(), None);
        holding.take_counts(Some(counts("own", 0)), "own", moment(10).now);
        holding.take_counts(None, "own", moment(10).now);
        assert!(holding.counts().is_some());
    }
}
