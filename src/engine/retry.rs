//! Delays between attempts: exponential, with full jitter, never beyond a limit.

use crate::config::Pace;

/// The longest delay.
const DELAY_MS_MAX: u64 = 60_000;
/// The shortest delay, whatever the jitter.
const DELAY_MS_MIN: u64 = 10;

/// Randomness as an argument: a number that is evenly spread over all of `u32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter(pub u32);

/// Counts the failures in a row and tells how long to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns the failures in a row.
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// Notes a failure and returns the delay before the next attempt. The delays grow until `attempts_max` attempts
    /// have failed, and then stay: a lasting cause must not end the sync. A delay that the other side requested is
    /// respected, up to the longest delay.
    pub fn fail(&mut self, pace: &Pace, retry_after_ms: Option<u64>, jitter: Jitter) -> u64 {
        let growth = pace.backoff_multiplier.powi(self.failures.min(pace.attempts_max) as i32);
        self.failures = self.failures.saturating_add(1);
        let ceiling_ms = ((pace.initial_delay_ms as f64 * growth) as u64).min(DELAY_MS_MAX);
        let delay_ms = (ceiling_ms * u64::from(jitter.0)) >> 32;
        delay_ms.max(DELAY_MS_MIN).max(retry_after_ms.unwrap_or(0).min(DELAY_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::table;

    #[test]
    fn delays_double_up_to_a_limit_and_stay_there() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> =
            (0..9).map(|_| backoff.fail(&table().pace, None, Jitter(u32::MAX)).div_ceil(1_000)).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 32, 32, 32]);
    }

    #[test]
    fn jitter_takes_any_part_of_the_delay() {
        assert_eq!(Backoff::default().fail(&table().pace, None, Jitter(0)), DELAY_MS_MIN);
        assert_eq!(Backoff::default().fail(&table().pace, None, Jitter(1 << 31)), 500);
    }

    #[test]
    fn a_requested_delay_is_respected_within_the_limit() {
        assert_eq!(Backoff::default().fail(&table().pace, Some(5_000), Jitter(0)), 5_000);
        assert_eq!(Backoff::default().fail(&table().pace, Some(9_999_999), Jitter(0)), DELAY_MS_MAX);
    }
}
