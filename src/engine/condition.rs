//! The condition of the sync: its activity, its last failure, and the state of the circuit breakers.

use super::boundary::Moment;
use super::breaker::{Health, Side};
use super::status::{Activity, Circuits, LastError};
use crate::config::Pace;
use crate::error::{Failure, Kind, Recovery};
use crate::time::Micros;

/// The condition of an engine.
#[derive(Debug)]
pub struct Condition {
    activity: Activity,
    /// While resting: when the rest ends.
    next_poll: Option<Micros>,
    bigquery: Health,
    harper: Health,
    last_failure: Option<Failure>,
    needs_token: bool,
}

impl Default for Condition {
    fn default() -> Condition {
        Condition {
            activity: Activity::Starting,
            next_poll: None,
            bigquery: Health::default(),
            harper: Health::default(),
            last_failure: None,
            needs_token: false,
        }
    }
}

impl Condition {
    /// Returns what the engine is doing.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// Notes what the engine is doing now.
    pub fn set_activity(&mut self, activity: Activity) {
        self.activity = activity;
    }

    /// Notes that the engine rests for a while.
    pub fn rest(&mut self, activity: Activity, delay_ms: u64, now: Micros) {
        self.activity = activity;
        self.next_poll = Some(now.plus(i64::try_from(delay_ms).unwrap_or(i64::MAX).saturating_mul(1_000)));
    }

    /// Notes a failure. Returns how long to rest before the next attempt; none if another attempt cannot help.
    pub fn fail(&mut self, failure: Failure, pace: &Pace, moment: Moment) -> Option<u64> {
        let delay_ms = self.side(Side::of(failure.kind)).fail(&failure, moment.now, pace, moment.jitter);
        self.needs_token = failure.kind == Kind::Unauthenticated;
        let recovery = failure.kind.recovery();
        self.last_failure = Some(failure);
        let activity = match recovery {
            Recovery::Halt => {
                self.activity = Activity::Failed;
                return None;
            }
            Recovery::Retry => Activity::Retrying,
            Recovery::Recheck => Activity::Blocked,
        };
        self.rest(activity, delay_ms, moment.now);
        Some(delay_ms)
    }

    /// Notes that one side has delivered: rows, or the news that there are none.
    pub fn succeed(&mut self, side: Side) {
        self.side(side).succeed();
        if self.last_failure.as_ref().is_some_and(|failure| Side::of(failure.kind) == side) {
            self.last_failure = None;
        }
    }

    /// Notes that there is nothing to do, as both sides have answered.
    pub fn succeed_idly(&mut self) {
        self.succeed(Side::BigQuery);
        self.succeed(Side::Harper);
    }

    /// Notes that the last failure is over, although this proves nothing about other requests to its side.
    pub fn recover_from(&mut self, kind: Kind) {
        if self.last_failure.as_ref().is_some_and(|failure| failure.kind == kind) {
            self.succeed(Side::of(kind));
        }
    }

    /// Tells whether the next request needs a new token. After a refusal of the token, it does so once.
    pub fn take_need_of_token(&mut self) -> bool {
        std::mem::take(&mut self.needs_token)
    }

    /// Returns when the engine's rest ends; none if it does not rest.
    pub fn next_poll(&self, now: Micros) -> Option<Micros> {
        self.next_poll.filter(|at| *at > now)
    }

    /// Returns the states of the circuit breakers.
    pub fn circuits(&self, now: Micros) -> Circuits {
        Circuits { bigquery: self.bigquery.breaker.circuit(now), harper: self.harper.breaker.circuit(now) }
    }

    /// Returns the failure that lasts.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_failure.as_ref().map(|failure| LastError {
            code: failure.kind,
            message: failure.message.clone(),
            attempts: match Side::of(failure.kind) {
                Side::BigQuery => self.bigquery.backoff.failures(),
                Side::Harper => self.harper.backoff.failures(),
            },
        })
    }

    fn side(&mut self, side: Side) -> &mut Health {
        match side {
            Side::BigQuery => &mut self.bigquery,
            Side::Harper => &mut self.harper,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::{moment, table};

    fn fail(condition: &mut Condition, kind: Kind) -> Option<u64> {
        condition.fail(Failure::new(kind, "no"), &table().pace, moment(0))
    }

    #[test]
    fn what_came_through_one_side_says_nothing_about_a_failure_of_the_other() {
        let mut condition = Condition::default();
        assert!(fail(&mut condition, Kind::HarperWrite).is_some());
        condition.succeed(Side::BigQuery);
        assert_eq!(condition.last_error().map(|error| error.code), Some(Kind::HarperWrite));
        condition.recover_from(Kind::HarperRead);
        assert_eq!(condition.last_error().map(|error| error.attempts), Some(1));
        condition.succeed(Side::Harper);
        assert_eq!(condition.last_error(), None);
    }

    #[test]
    fn the_cause_decides_whether_the_engine_tries_again_looks_again_or_gives_up() {
        let mut condition = Condition::default();
        assert!(fail(&mut condition, Kind::Unavailable).is_some());
        assert_eq!(condition.activity(), Activity::Retrying);
        assert!(fail(&mut condition, Kind::PermissionDenied).is_some());
        assert_eq!(condition.activity(), Activity::Blocked);
        assert!(condition.next_poll(moment(0).now).is_some());
        assert_eq!(fail(&mut condition, Kind::CheckpointMismatch), None);
        assert_eq!(condition.activity(), Activity::Failed);
    }

    #[test]
    fn a_refused_token_is_renewed_once() {
        let mut condition = Condition::default();
        fail(&mut condition, Kind::Unauthenticated);
        assert!(condition.take_need_of_token());
        assert!(!condition.take_need_of_token());
    }
}
