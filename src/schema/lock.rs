//! Decides which node checks a source table's schema, and when: one node at a time, less often while nothing changes.

use crate::config::Polling;
use crate::time::{Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};

/// A lock that has not been renewed for so long is free.
const EXPIRY_US: i64 = 600 * SECOND_US;
/// A lock is renewed when so much of that time is left.
const RENEWAL_US: i64 = EXPIRY_US / 2;
/// A node that has taken the lock waits for so long, to see whether another node took it at the same time.
const SETTLING_US: i64 = 2 * SECOND_US;
/// After so many checks without a change, checks become rarer.
const QUIET_CHECKS: u32 = 3;

/// The lock of one table, as it is stored in the table SchemaLock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// The table's id in the configuration.
    pub id: String,
    /// The node that holds it.
    pub owner: String,
    /// Since when, by the owner's clock.
    #[serde(with = "instant", default)]
    pub claimed_at: Option<Micros>,
    /// Until when, unless it is renewed.
    #[serde(with = "instant", default)]
    pub expires_at: Option<Micros>,
    /// When the schema was last checked.
    #[serde(with = "instant", default)]
    pub checked_at: Option<Micros>,
    /// Seconds from that to the next check.
    pub poll_seconds: u64,
    /// Consecutive checks without a change, at this interval.
    pub quiet_checks: u32,
    /// The fingerprint of the columns at the last check.
    pub fingerprint: String,
}

/// What a node does about a table's lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "turn", rename_all = "camelCase")]
pub enum Turn {
    /// Nothing: another node checks, or it is not time yet.
    Rest,
    /// Store the lock, and check later whether it is still this one.
    Claim {
        /// What to store.
        lock: Lock,
    },
    /// Check the schema, and store the lock that [`checked`] returns.
    Check,
}

/// Decides what `node` does. `others` are the nodes that are known to be alive; a lock of any other node is free.
pub fn turn(
    lock: Option<&Lock>,
    id: &str,
    node: &str,
    others: &[String],
    polling: Polling,
    now: Micros,
) -> Turn {
    let Some(lock) = lock else {
        return Turn::Claim { lock: claimed(None, id, node, polling, now) };
    };
    let left_us = lock.expires_at.map_or(0, |expires_at| expires_at.since(now));
    // A clock that was set back must not keep the lock for longer than it was taken for.
    let is_expired = !(0..=EXPIRY_US).contains(&left_us);
    if lock.owner != node {
        let is_free = is_expired || !others.contains(&lock.owner);
        return if is_free {
            Turn::Claim { lock: claimed(Some(lock), id, node, polling, now) }
        } else {
            Turn::Rest
        };
    }
    let is_settled = lock.claimed_at.is_some_and(|claimed_at| now.since(claimed_at) >= SETTLING_US);
    if is_expired {
        return Turn::Claim { lock: claimed(Some(lock), id, node, polling, now) };
    }
    if !is_settled {
        return Turn::Rest;
    }
    let poll_us = i64::try_from(lock.poll_seconds.clamp(polling.min_s, polling.max_s)).unwrap_or(i64::MAX);
    let due = lock.checked_at.is_none_or(|at| {
        let since_us = now.since(at);
        since_us < 0 || since_us >= poll_us.saturating_mul(SECOND_US)
    });
    if due {
        return Turn::Check;
    }
    if left_us <= RENEWAL_US {
        return Turn::Claim { lock: Lock { expires_at: Some(now.plus(EXPIRY_US)), ..lock.clone() } };
    }
    Turn::Rest
}

fn claimed(before: Option<&Lock>, id: &str, node: &str, polling: Polling, now: Micros) -> Lock {
    Lock {
        id: id.to_owned(),
        owner: node.to_owned(),
        claimed_at: Some(now),
        expires_at: Some(now.plus(EXPIRY_US)),
        checked_at: before.and_then(|lock| lock.checked_at),
        poll_seconds: before.map_or(polling.min_s, |lock| lock.poll_seconds),
        quiet_checks: before.map_or(0, |lock| lock.quiet_checks),
        fingerprint: before.map(|lock| lock.fingerprint.clone()).unwrap_or_default(),
    }
}

/// Returns the lock after a check that found this fingerprint. There is no fingerprint if the check failed.
pub fn checked(lock: &Lock, fingerprint: Option<&str>, polling: Polling, now: Micros) -> Lock {
    let is_news = fingerprint.is_some_and(|found| found != lock.fingerprint);
    let quiet_checks = if is_news { 0 } else { lock.quiet_checks + 1 };
    let poll_seconds = lock.poll_seconds.clamp(polling.min_s, polling.max_s);
    let (poll_seconds, quiet_checks) = if is_news {
        (polling.min_s, 0)
    } else if quiet_checks >= QUIET_CHECKS {
        ((poll_seconds.saturating_mul(3).div_ceil(2)).min(polling.max_s), 0)
    } else {
        (poll_seconds, quiet_checks)
    };
    Lock {
        expires_at: Some(now.plus(EXPIRY_US)),
        checked_at: Some(now),
        poll_seconds,
        quiet_checks,
        fingerprint: fingerprint.map_or_else(|| lock.fingerprint.clone(), str::to_owned),
        ..lock.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLLING: Polling = Polling { min_s: 300, max_s: 1_800 };
    const START: Micros = Micros(1_704_067_200 * SECOND_US);

    fn held_by(node: &str, now: Micros) -> Lock {
        claimed(None, "t", node, POLLING, now)
    }

    #[test]
    fn checks_become_rarer_while_nothing_changes_and_frequent_again_on_a_change() {
        let mut lock = held_by("a", START);
        let mut now = START;
        let mut intervals = Vec::new();
        for _ in 0..16 {
            now = now.plus(lock.poll_seconds as i64 * SECOND_US);
            lock = checked(&lock, Some("f1"), POLLING, now);
            intervals.push(lock.poll_seconds);
        }
        let expected =
            [300, 300, 300, 450, 450, 450, 675, 675, 675, 1_013, 1_013, 1_013, 1_520, 1_520, 1_520, 1_800];
        assert_eq!(intervals, expected);
        // A look that failed tells nothing of a change.
        assert_eq!(checked(&lock, None, POLLING, now).poll_seconds, 1_800);
        assert_eq!(checked(&lock, Some("f2"), POLLING, now).poll_seconds, 300);
    }

    #[test]
    fn a_lock_passes_on_when_its_holder_is_gone_or_silent_and_not_before() {
        let lock = held_by("a", START);
        let both = ["a".to_owned(), "b".to_owned()];
        let turn_of_b = |others: &[String], after_s: i64| {
            turn(Some(&lock), "t", "b", others, POLLING, START.plus(after_s * SECOND_US))
        };
        assert_eq!(turn_of_b(&both, 599), Turn::Rest);
        assert!(matches!(turn_of_b(&both, 601), Turn::Claim { lock } if lock.owner == "b"));
        assert!(matches!(turn_of_b(&["b".to_owned()], 60), Turn::Claim { lock } if lock.owner == "b"));
        // A holder whose clock was years ahead does not hold it for years.
        assert!(matches!(turn_of_b(&both, -10 * 365 * 86_400), Turn::Claim { .. }));
    }

    #[test]
    fn who_takes_over_goes_on_with_the_same_distance_between_checks() {
        let lock = Lock {
            poll_seconds: 1_013,
            checked_at: Some(START),
            ..checked(&held_by("a", START), Some("f"), POLLING, START)
        };
        let at = START.plus(900 * SECOND_US);
        let Turn::Claim { lock } = turn(Some(&lock), "t", "b", &[], POLLING, at) else {
            panic!("not taken over")
        };
        assert_eq!(turn(Some(&lock), "t", "b", &[], POLLING, at.plus(5 * SECOND_US)), Turn::Rest);
        assert_eq!(turn(Some(&lock), "t", "b", &[], POLLING, at.plus(120 * SECOND_US)), Turn::Check);
    }

    proptest! {
        /// Writes reach the other nodes within a second; of several, the last one counts.
        #[test]
        fn one_node_checks_though_all_want_to(
            steps in prop::collection::vec((0..3_usize, 0..1_200_000_i64, 0..1_000_000_i64), 1..400)
        ) {
            const OFTEN: Polling = Polling { min_s: 1, max_s: 2 };
            let names = ["a", "b", "c"].map(str::to_owned);
            let mut written: Vec<(Micros, usize, Lock)> = Vec::new();
            let mut checks = Vec::new();
            let mut now = START;
            for (node, pause_us, lag_us) in steps {
                now = now.plus(pause_us + 1);
                let is_seen = |(at, by, _): &&(Micros, usize, Lock)| *by == node || now.since(*at) >= lag_us;
                let seen = written.iter().rev().find(is_seen).map(|(_, _, lock)| lock.clone());
                match turn(seen.as_ref(), "t", &names[node], &names, OFTEN, now) {
                    Turn::Claim { lock } => written.push((now, node, lock)),
                    Turn::Check => {
                        checks.push(node);
                        written.push((now, node, checked(&seen.unwrap(), Some("f"), OFTEN, now)));
                    }
                    Turn::Rest => {}
                }
            }
            prop_assert!(checks.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", checks);
        }
    }
}
