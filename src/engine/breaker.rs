//! A circuit breaker: pauses requests to a side that keeps failing, and probes it with one request from time to time.

use super::retry::{Backoff, Jitter};
use crate::config::Pace;
use crate::error::{Failure, Kind};
use crate::time::Micros;
use serde::Serialize;

/// Failures in a row that open the circuit.
const FAILURES_MAX: u32 = 5;
/// How long it stays open.
const OPEN_MS: u64 = 60_000;

/// One of the two ends of the sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The source.
    BigQuery,
    /// The target.
    Harper,
}

/// What a circuit does with requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Circuit {
    /// It lets them pass.
    #[default]
    Closed,
    /// It keeps them back.
    Open,
    /// It lets one pass; its outcome decides.
    HalfOpen,
}

/// The failures of one side: how long to wait after the next one, and whether to send requests at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// The delays between attempts.
    pub backoff: Backoff,
    /// The circuit breaker.
    pub breaker: Breaker,
}

/// The circuit breaker of one side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    open_until: Option<Micros>,
}

impl Health {
    /// Notes that a request to the side succeeded.
    pub fn succeed(&mut self) {
        *self = Health::default();
    }

    /// Notes a failure and returns how long to wait before the next attempt.
    pub fn fail(&mut self, failure: &Failure, now: Micros, pace: &Pace, jitter: Jitter) -> u64 {
        let delay_ms = self.backoff.fail(pace, failure.retry_after_ms, jitter);
        // A budget of our own says nothing about the side.
        let open_ms =
            (failure.kind != Kind::DayBudget).then(|| self.breaker.fail(now, pace, jitter)).flatten();
        delay_ms.max(open_ms.unwrap_or(0))
    }
}

impl Breaker {
    /// Notes a failure. Returns how long to send no request, if the circuit opens.
    pub fn fail(&mut self, now: Micros, pace: &Pace, jitter: Jitter) -> Option<u64> {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_MAX.max(pace.attempts_max) {
            return None;
        }
        // The time differs a little, so that the tables of a node do not all come back at once.
        let open_ms = OPEN_MS + ((u64::from(jitter.0) * (OPEN_MS / 10)) >> 32);
        self.open_until = Some(now.plus(open_ms as i64 * 1_000));
        Some(open_ms)
    }

    /// Returns the circuit's state.
    pub fn circuit(self, now: Micros) -> Circuit {
        match self.open_until {
            None => Circuit::Closed,
            Some(until) if now < until => Circuit::Open,
            Some(_) => Circuit::HalfOpen,
        }
    }
}

impl Side {
    /// Tells which side a failure came from.
    pub fn of(kind: Kind) -> Side {
        match kind {
            Kind::HarperWrite | Kind::HarperRead | Kind::HarperTable | Kind::TooManyRejectedRows => {
                Side::Harper
            }
            Kind::Configuration
            | Kind::CheckpointMismatch
            | Kind::NotFound
            | Kind::ColumnMissing
            | Kind::CursorType
            | Kind::ColumnReserved
            | Kind::SchemaChanged
            | Kind::PermissionDenied
            | Kind::Credentials
            | Kind::Unauthenticated
            | Kind::QueryInvalid
            | Kind::BytesBilledLimit
            | Kind::DayBudget
            | Kind::WindowTooLarge
            | Kind::BillingDisabled
            | Kind::Blocked
            | Kind::QuotaExceeded
            | Kind::RateLimited
            | Kind::Unavailable
            | Kind::Timeout
            | Kind::Unreachable
            | Kind::ResultLost
            | Kind::ResponseMalformed => Side::BigQuery,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::table;

    #[test]
    fn a_budget_that_is_spent_opens_no_circuit() {
        let (pace, now) = (table().pace, Micros(0));
        let mut health = Health::default();
        let spent = Failure::new(Kind::DayBudget, "spent");
        for _ in 0..100 {
            health.fail(&spent, now, &pace, Jitter(0));
        }
        assert_eq!(health.breaker.circuit(now), Circuit::Closed);
    }

    #[test]
    fn a_circuit_opens_after_five_failures_and_lets_one_pass_a_minute_later() {
        let pace = table().pace;
        let mut breaker = Breaker::default();
        let start = Micros(0);
        for _ in 0..4 {
            assert_eq!(breaker.fail(start, &pace, Jitter(0)), None);
        }
        assert_eq!(breaker.circuit(start), Circuit::Closed);
        assert_eq!(breaker.fail(start, &pace, Jitter(0)), Some(60_000));
        assert_eq!(breaker.circuit(start), Circuit::Open);
        assert_eq!(breaker.circuit(start.plus(60_000_000)), Circuit::HalfOpen);
        assert!(breaker.fail(start, &pace, Jitter(u32::MAX)).is_some());
        let mut health = Health { breaker, ..Health::default() };
        health.succeed();
        assert_eq!(health.breaker.circuit(start), Circuit::Closed);
        assert_eq!(health.breaker.fail(start, &pace, Jitter(0)), None);
    }
}
