//! Prepares a table: loads its progress, asks BigQuery for its description, and makes the target ready for rows.

use super::boundary::{Answer, Command, Incarnation, Moment, Note, Stored};
use super::checkpoint::Checkpoint;
use super::source::Described;
use super::status::Activity;
use super::{Engine, Next, State, division, schema};
use crate::bigquery::request::Purpose;
use crate::bigquery::table::Description;
use crate::config::Indexes;
use crate::error::{Failure, Kind};
use crate::mapping::attributes::{Target, attributes};
use crate::mapping::evolution;
use crate::mapping::layout::Layout;
use crate::mapping::projection::Projection;
use crate::partition::Rule;
use crate::time::Micros;
use std::sync::Arc;

/// How often a worker without a share checks whether the table, or its rule, gives it one.
const STANDBY_MS: u64 = 300_000;

impl Engine {
    pub(super) fn loaded(&mut self, outcome: Result<Box<Stored>, Failure>, moment: Moment) -> Next {
        match outcome {
            Err(failure) => Next::fail(failure, Next::Load),
            Ok(mut stored) => {
                self.condition.recover_from(Kind::HarperRead);
                self.schema.load(stored.schema.take());
                // An operator may have dropped the target, and nothing else would tell while no rows arrive.
                self.schema.doubt_target();
                self.holding.hear_stamp(stored.heads.iter().filter_map(|head| head.stamp).max());
                self.take_heads(&mut stored, moment.now);
                let rereads = stored.checkpoints.iter().filter_map(|row| row.reread.as_ref());
                self.holding.hear_rereads(rereads);
                self.holding.hear_resyncs(stored.resync.into_iter());
                self.holding.look_around(moment.now);
                self.deliveries.load(std::mem::take(&mut stored.proofs), stored.has_former_life);
                if let Some(wish) = &mut stored.validation {
                    self.comparing.load(wish.contents.take(), wish.contents_asked);
                }
                self.validation.load(stored.validation.take());
                Next::Describe(Some(stored))
            }
        }
    }

    /// Takes what this worker told of its last commit, and finds out who does not come to an end of what it told of.
    fn take_heads(&mut self, stored: &mut Stored, now: Micros) {
        let own = self.worker.name();
        let told = stored.heads.iter().find(|head| head.owner == own);
        let era = self.schema.version().map_or(0, |version| version.era);
        self.outbox.load(stored.last_commit.take(), told, era, now);
        stored.heads.retain(|head| head.owner != own);
        stored.heads.extend(self.outbox.head(&self.config.id, own));
        for head in stored.heads.iter_mut().filter(|head| stored.removed.contains(&head.owner)) {
            head.end();
        }
    }

    pub(super) fn described(
        &mut self,
        stored: Option<Box<Stored>>,
        outcome: Result<Answer, Failure>,
        moment: Moment,
    ) -> Next {
        let resolved =
            self.accept(Purpose::DescribeTable, outcome).and_then(|answer| self.resolve(&answer, moment));
        let (description, projection, rule) = match resolved {
            Ok(resolved) => resolved,
            Err(failure) => return Next::fail(failure, Next::Describe(stored)),
        };
        if stored.is_none() && (rule != self.holding.rule() || self.holding.is_outdated()) {
            return Next::Load;
        }
        let identity = self.config.identity(&projection.key_names());
        if let Some(failure) = stored.as_ref().and_then(|stored| self.mismatch(stored, &identity)) {
            return Next::fail(failure, Next::Load);
        }
        let is_read_again =
            stored.as_ref().is_some_and(|stored| self.holding.voids_all(&stored.checkpoints, rule));
        match self.schema.next(&self.config, &projection, is_read_again) {
            Err(failure) => return Next::fail(failure, Next::Load),
            // It is stored before anything is read under it.
            Ok(Some(next)) => {
                let state = State::Adopting(next.version);
                return Next::Await(state, Command::AdoptSchema(schema::sign(next, &self.worker, moment)));
            }
            Ok(None) => {}
        }
        if let Some(stored) = stored {
            self.take_stored(*stored, rule, &identity, &description, projection.key.is_empty());
        }
        if let Err(failure) = self.holding.check_rejected(self.config.pace.rejected_rows_max) {
            return Next::fail(failure, Next::Load);
        }
        let (projection, is_void) = self.schema.follow(projection);
        if is_void {
            self.forget_rows();
        }
        self.get_ready(Arc::new(Described { description, projection }), moment)
    }

    /// Reads the source's description, and sets BigQuery's clock.
    fn resolve(
        &mut self,
        answer: &Answer,
        moment: Moment,
    ) -> Result<(Description, Projection, Rule), Failure> {
        let description = Description::read(&answer.body)?;
        let projection = Projection::resolve(&self.config, &description, self.schema.version())?;
        let rule = division::resolve(&self.config, &projection, &description)?;
        self.source.set_clock(answer.server_time, moment.now);
        Ok((description, projection, rule))
    }

    /// Continues with the target, if there is anything to do.
    fn get_ready(&mut self, described: Arc<Described>, moment: Moment) -> Next {
        let must_mend =
            self.deliveries.loss(moment.now).is_some() || self.validation.next_repair(moment.now).is_some();
        if self.holding.own().is_empty() && !must_mend {
            return self.stand_by(moment);
        }
        if self.schema.is_target_ready() {
            return Next::Plan(described);
        }
        self.schema.let_indexes_wait(self.do_indexes_wait());
        let Described { description, projection } = &*described;
        let target = Box::new(Target {
            layout: Layout::of(projection),
            attributes: attributes(projection, description, &self.config.schema_overrides),
            may_create: self.config.may_create,
            do_indexes_wait: self.schema.do_indexes_wait(),
        });
        let is_first = self.holding.is_first();
        Next::Await(State::Preparing(described), Command::EnsureTarget { target, is_first })
    }

    /// Whether a target that gets its indexes after the backfill has to wait for them. One that has some keeps them.
    fn do_indexes_wait(&self) -> bool {
        self.config.may_create
            && self.config.indexes == Indexes::AfterBackfill
            && !self.holding.ledger.is_backfilled()
    }

    /// There is nothing to do until the cluster changes, or the table does.
    pub(super) fn stand_by(&mut self, moment: Moment) -> Next {
        self.condition.succeed_idly();
        self.condition.rest(Activity::Standby, STANDBY_MS, moment.now);
        match self.closes_in_ms(moment) {
            Some(0) => self.tell_again(moment),
            closes_in_ms => Next::rest(closes_in_ms.unwrap_or(STANDBY_MS).min(STANDBY_MS), Next::Poll),
        }
    }

    pub(super) fn prepared(
        &mut self,
        described: Arc<Described>,
        outcome: Result<Incarnation, Failure>,
    ) -> Next {
        match outcome {
            Err(failure) => Next::fail(failure, Next::Describe(None)),
            Ok(incarnation) => {
                self.condition.recover_from(Kind::HarperTable);
                if self.schema.target_is_ready(&incarnation) {
                    return Next::Plan(described);
                }
                // What is stored about a former table does not count any more.
                Next::Poll
            }
        }
    }

    pub(super) fn adopted(&mut self, number: u32, outcome: Result<(), Failure>) -> Next {
        match outcome {
            Err(failure) => Next::fail(failure, Next::Load),
            Ok(()) => {
                self.schema.adopt(number);
                // Another worker may have stored another version before.
                Next::Poll
            }
        }
    }

    /// Returns a failure if rows would get other ids or forms than those that the checkpoints stand for.
    fn mismatch(&self, stored: &Stored, identity: &str) -> Option<Failure> {
        let is_unfit = |row: &Checkpoint| row.identity != identity && !self.holding.is_voided(row);
        stored.checkpoints.iter().any(is_unfit).then(|| {
            let message = format!(
                "columns, key, where, timestampColumn, timestampUnit, idType, schemaOverrides, targetTable or \
                 the source of {id} were changed since its checkpoint was written, and rows would get other ids or \
                 forms, or go elsewhere: set them back, or {anew}",
                id = self.config.id,
                anew = evolution::way_out(&self.config.id),
            );
            Failure::new(Kind::CheckpointMismatch, message)
        })
    }

    /// Takes what Harper has stored, and the worker's share.
    fn take_stored(
        &mut self,
        stored: Stored,
        rule: Rule,
        identity: &str,
        description: &Description,
        is_keyless: bool,
    ) {
        let Stored { checkpoints, counts, incarnation, forgiven_rows, heads, .. } = stored;
        self.holding.forgive(forgiven_rows);
        if !self.holding.take(checkpoints, rule, self.config.position) {
            // Another worker wrote for these partitions, or they are other partitions: what is known of their rows is
            // void.
            self.forget_rows();
        }
        self.holding.ledger.take_doubts(&heads, is_keyless);
        let doubt = self.outbox.doubt();
        if doubt.is_some_and(|doubt| self.holding.ledger.has_dispelled(&self.worker.name(), doubt)) {
            self.outbox.dispel_doubt();
        }
        self.schema.set_incarnation(incarnation);
        self.holding.take_counts(counts, identity, self.source.server_time());
        let start = self.config.pace.start;
        let mut notes = self.holding.start_over_if_asked(start, self.schema.incarnation(), description);
        notes.extend(self.holding.follow_zone(&self.config.pace.zone));
        if !notes.is_empty() {
            self.forget_rows();
            let is_new = |note: &Note| !self.notes.contains(note);
            let notes: Vec<Note> = notes.into_iter().filter(is_new).collect();
            self.notes.extend(notes);
        }
    }
}
