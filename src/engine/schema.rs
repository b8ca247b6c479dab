//! The schema under which rows are read, its versions, and the target table that they require.

use super::boundary::{Incarnation, Moment, Worker};
use crate::config::TableConfig;
use crate::error::{Failure, Kind};
use crate::mapping::evolution::next_version;
use crate::mapping::projection::Projection;
use crate::mapping::version::SchemaVersion;
use std::sync::Arc;

/// What an engine knows of the schema and of the target.
#[derive(Debug, Default)]
pub struct Schema {
    /// The newest version that is stored.
    version: Option<Box<SchemaVersion>>,
    /// The number of the version that this worker has stored and not yet seen.
    adopted: Option<u32>,
    projection: Option<Arc<Projection>>,
    is_target_ready: bool,
    /// Whether the target table does not get its indexes yet.
    do_indexes_wait: bool,
    /// The known incarnation of the target table.
    incarnation: Incarnation,
}

impl Schema {
    /// Takes the newest version that is stored.
    pub fn load(&mut self, version: Option<Box<SchemaVersion>>) {
        self.version = version;
    }

    /// Returns the newest version that is stored.
    pub fn version(&self) -> Option<&SchemaVersion> {
        self.version.as_deref()
    }

    /// Returns the number of the version that rows are read under.
    pub fn number(&self) -> u32 {
        self.version().map_or(1, |version| version.version)
    }

    /// Returns the new version that changed columns require; none if nothing has changed. `is_read_again` tells whether all
    /// rows are about to be read again.
    ///
    /// # Errors
    /// When rows could not be recognised any more under the new version, or when a version that was stored does not
    /// appear.
    pub fn next(
        &mut self,
        config: &TableConfig,
        projection: &Projection,
        is_read_again: bool,
    ) -> Result<Option<Box<SchemaVersion>>, Failure> {
        let Some(next) = next_version(config, projection, self.version(), is_read_again)? else {
            self.adopted = None;
            return Ok(None);
        };
        if self.adopted.is_some_and(|adopted| adopted >= next.version) {
            let message = format!("version {} of the schema was stored, but cannot be read", next.version);
            return Err(Failure::new(Kind::HarperRead, message));
        }
        Ok(Some(Box::new(next)))
    }

    /// Notes that a version was stored.
    pub fn adopt(&mut self, number: u32) {
        self.adopted = Some(number);
    }

    /// Returns the columns as they are read now.
    pub fn projection(&self) -> Option<&Projection> {
        self.projection.as_deref()
    }

    /// Takes the columns as the newest version has them. Tells whether they differ from the former ones, so that what
    /// is known of rows is void.
    pub fn follow(&mut self, mut projection: Projection) -> (Arc<Projection>, bool) {
        if let Some(version) = &self.version {
            projection.follow(version);
        }
        let before = self.projection.take();
        let is_same = before.as_deref() == Some(&projection);
        let is_void = before.is_some() && !is_same;
        self.is_target_ready &= is_same;
        let projection = before.filter(|_| is_same).unwrap_or_else(|| Arc::new(projection));
        self.projection = Some(Arc::clone(&projection));
        (projection, is_void)
    }

    /// Whether the target table fits the columns, as far as is known.
    pub fn is_target_ready(&self) -> bool {
        self.is_target_ready
    }

    /// Notes whether the target table does not get its indexes yet.
    pub fn let_indexes_wait(&mut self, do_wait: bool) {
        self.do_indexes_wait = do_wait;
    }

    /// Whether the target table does not get its indexes yet.
    pub fn do_indexes_wait(&self) -> bool {
        self.do_indexes_wait
    }

    /// Notes that the target table fits. Tells whether it has the known incarnation.
    pub fn target_is_ready(&mut self, incarnation: &Incarnation) -> bool {
        self.is_target_ready = true;
        *incarnation == self.incarnation
    }

    /// Notes that the target table may be gone.
    pub fn doubt_target(&mut self) {
        self.is_target_ready = false;
    }

    /// Returns the incarnation of the target table that rows go to.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Takes the stored incarnation of the target table.
    pub fn set_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
    }
}

/// Signs a version that a worker is about to store.
pub fn sign(mut version: Box<SchemaVersion>, worker: &Worker, moment: Moment) -> Box<SchemaVersion> {
    version.at = Some(moment.now);
    version.by = worker.name();
    version
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::{projection, table};

    #[test]
    fn the_first_description_makes_the_first_version_and_the_same_one_no_other() {
        let mut schema = Schema::default();
        let first = schema.next(&table(), &projection(&["ts"]), false).unwrap().unwrap();
        assert_eq!((first.version, schema.number()), (1, 1));
        schema.adopt(1);
        schema.load(Some(first));
        assert_eq!(schema.next(&table(), &projection(&["ts"]), false).unwrap(), None);
    }

    #[test]
    fn a_version_that_was_stored_and_does_not_appear_is_not_stored_again_and_again() {
        let mut schema = Schema::default();
        schema.adopt(1);
        let refused = schema.next(&table(), &projection(&["ts"]), false).unwrap_err();
        assert_eq!(refused.kind, Kind::HarperRead);
    }

    #[test]
    fn other_columns_make_void_what_is_known_of_rows_and_of_the_target() {
        let mut schema = Schema::default();
        assert!(!schema.follow(projection(&["ts"])).1);
        assert!(schema.target_is_ready(&String::new()));
        assert!(!schema.follow(projection(&["ts"])).1 && schema.is_target_ready());
        assert!(schema.follow(projection(&["ts", "more"])).1 && !schema.is_target_ready());
    }

    #[test]
    fn a_target_that_was_made_anew_is_not_the_one_that_is_known() {
        let mut schema = Schema::default();
        assert!(!schema.target_is_ready(&"second".to_owned()));
        schema.set_incarnation("second".to_owned());
        assert!(schema.target_is_ready(&"second".to_owned()));
    }
}
