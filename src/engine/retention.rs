//! How long the witnesses of a worker's commits are kept.

use crate::time::{Micros, SECOND_US};

/// So many are kept for a short time: until so many later ones were kept like that.
pub const WITNESSES: u64 = 256;
/// So many are kept for a long time.
pub const WITNESSES_KEPT_LONG: u64 = 16_384;
/// After so many commits, it is seen how fast they come.
const COUNTED: u64 = 64;
/// Commits that come faster are witnessed for long. A node that ends is missed only after a while.
const COUNTED_US: i64 = 120 * SECOND_US;

/// Returns the places where the witness of a commit may be.
pub fn places(number: u64) -> [u64; 2] {
    [number % WITNESSES, WITNESSES + number % WITNESSES_KEPT_LONG]
}

/// Returns from which commit on all witnesses are there once this one has its place; `before` are the place of the one
/// before, and what was kept then.
pub fn kept_from(number: u64, place: u64, before: Option<(u64, u64)>) -> u64 {
    let is_long = |place: u64| place >= WITNESSES;
    let at_any_rate = number.saturating_sub(WITNESSES - 1).max(1);
    let kept = match before {
        Some((place_before, kept_before)) if is_long(place) && is_long(place_before) => kept_before,
        _ if is_long(place) => number.saturating_sub(WITNESSES).max(1),
        _ => at_any_rate,
    };
    kept.max((number + 1).saturating_sub(WITNESSES_KEPT_LONG)).min(at_any_rate)
}

/// Tells for how long witnesses have to be kept: a node that returns looks for those of the time in which it was away.
#[derive(Debug, Default)]
pub struct Retention {
    counted_at: Option<Micros>,
    is_hurried: bool,
}

impl Retention {
    /// Notes that a commit was made.
    pub fn note(&mut self, number: u64, now: Micros) {
        if number.is_multiple_of(COUNTED) {
            let before = self.counted_at.replace(now);
            self.is_hurried = before.is_some_and(|before| now.since(before) < COUNTED_US);
        }
    }

    /// Returns the place of the next commit's witness, which takes the place of a former one.
    pub fn place(&self, number: u64, is_somebody_away: bool) -> u64 {
        let [short, long] = places(number);
        if self.is_hurried || is_somebody_away { long } else { short }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn after(commits: u64, each_s: i64) -> Retention {
        let mut retention = Retention::default();
        for number in 1..=commits {
            retention.note(number, Micros(number as i64 * each_s * SECOND_US));
        }
        retention
    }

    #[test]
    fn witnesses_are_kept_for_long_while_somebody_is_away_or_commits_come_fast() {
        let place = |retention: &Retention, is_away| retention.place(70_000, is_away);
        assert_eq!(place(&after(300, 10), false), 70_000 % 256);
        assert_eq!(place(&after(300, 10), true), 256 + 70_000 % 16_384);
        assert_eq!(place(&after(300, 1), false), 256 + 70_000 % 16_384);
        assert_eq!(place(&after(100, 1), false), 70_000 % 256);
    }

    #[test]
    fn whatever_is_said_to_be_kept_is_in_its_place_still() {
        let mut retention = Retention::default();
        let mut there: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut before, mut furthest, mut now) = (None, 0, 0);
        for number in 1..=40_000_u64 {
            // Slow ones, fast ones, and some while a node is away.
            now += if number % 5_000 < 1_500 { 10 } else { 1 };
            let place = retention.place(number, number % 7_000 < 300);
            let kept = kept_from(number, place, before);
            there.insert(place, number);
            assert!(
                (kept..=number).all(|one| places(one).iter().any(|at| there.get(at) == Some(&one))),
                "{number}"
            );
            retention.note(number, Micros(now * SECOND_US));
            before = Some((place, kept));
            furthest = furthest.max(number - kept);
        }
        assert!(furthest > 3_000, "{furthest}");
    }

    #[test]
    fn the_two_kinds_take_no_place_of_each_other() {
        let [short, long]: [Vec<u64>; 2] =
            [0, 1].map(|kind| (0..40_000).map(|at| places(at)[kind]).collect());
        assert!(short.iter().max() < long.iter().min());
    }
}
