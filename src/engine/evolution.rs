//! From one version of the source's schema to the next, in the middle of everything else.

use super::{AfterRest, Command, Engine, Moment, State, Task};
use crate::error::{Failure, Kind};
use crate::mapping::evolution::next_version;
use crate::mapping::projection::Projection;
use crate::mapping::version::SchemaVersion;
use crate::time::Micros;

impl Engine {
    /// Returns the version of the schema that the columns make necessary; none when nothing changed.
    ///
    /// # Errors
    /// When rows could not be recognised any more under it.
    pub(super) fn next_schema(&self, projection: &Projection) -> Result<Option<Box<SchemaVersion>>, Failure> {
        let next = next_version(&self.config, projection, self.schema.as_deref())?;
        let Some(next) = next else { return Ok(None) };
        if self.adopted_version.is_some_and(|adopted| adopted >= next.version) {
            let message = format!("version {} of the schema was stored, but cannot be read", next.version);
            return Err(Failure::new(Kind::HarperRead, message));
        }
        Ok(Some(Box::new(next)))
    }

    /// Stores a new version, before anything is read under it.
    pub(super) fn adopt(&mut self, mut next: Box<SchemaVersion>, moment: Moment) -> Command {
        next.at = Some(moment.now);
        next.by = self.worker.name();
        self.state = State::Adopting(next.version);
        Command::AdoptSchema(next)
    }

    pub(super) fn adopted(&mut self, version: u32, outcome: Result<(), Failure>, moment: Moment) -> Command {
        match outcome {
            Err(failure) => self.fail(failure, AfterRest::Load, moment),
            Ok(()) => {
                self.adopted_version = Some(version);
                // Another worker may have been faster, with another version.
                self.poll()
            }
        }
    }

    /// Takes a projection, and forgets what was known of rows as they were under another version.
    pub(super) fn follow_schema(&mut self, mut projection: Projection) {
        if let Some(schema) = &self.schema {
            projection.follow(schema);
        }
        let changed = self.projection.as_ref() != Some(&projection);
        if changed && self.projection.is_some() {
            self.recent = super::Recent::default();
            self.forget_conclusions();
        }
        self.target_ready &= !changed;
        self.projection = Some(projection);
    }

    /// Returns the era of the ids that rows get now.
    pub(super) fn era(&self) -> u32 {
        self.projection.as_ref().map_or(0, |projection| projection.era)
    }

    /// Returns the version of the schema that rows are read under.
    pub(super) fn schema_version(&self) -> u32 {
        self.schema.as_ref().map_or(1, |schema| schema.version)
    }

    /// Whether no row behind a window's start has an id of a former era once it was read. Rows of the future, whichever
    /// partition they are in, are read by who owns the present; nobody is done before that one is.
    pub(super) fn reads_all_old_ids(&self, task: &Task) -> bool {
        let is_future_done = task.reads_future || self.ledger.has_only_new_ids_somewhere(self.era());
        task.plan.window.until.is_none() && is_future_done
    }

    /// Whether rows behind `after` may be in Harper with ids of a former era.
    pub(super) fn may_have_old_ids(&self, partitions: &[u32], after: Option<Micros>) -> bool {
        let era = self.era();
        let bounds = partitions.iter().filter_map(|partition| self.ledger.old_ids_until(*partition, era));
        bounds.max().is_some_and(|bound| after.is_none_or(|after| after < bound))
    }
}
