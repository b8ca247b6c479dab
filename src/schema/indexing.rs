//! Decides how a node gets an index on a table that has rows.
//!
//! Harper builds such an index in the background, but it does not finish what it began if its thread ends. It also
//! leaves out rows that are overwritten just then. So a node watches the build, has it continued if it stands still, and
//! compares the rows with the index at the end. Searches wait until the index is known to be complete.

use crate::time::{Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};

/// A build that has not moved for so long has ended without coming to its end.
const STANDSTILL_US: i64 = 15 * SECOND_US;
/// Each thread knows the index after so long, and maintains it.
const SETTLING_US: i64 = 5 * SECOND_US;
/// So often a build is repeated in which rows are missing.
const REPEATS_MAX: u32 = 3;

/// The build of an index, as the node stores it in the table SyncIndex.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// The last key that Harper told.
    #[serde(default)]
    pub reached: Option<String>,
    /// When the build last moved, by the node's clock.
    #[serde(with = "instant", default)]
    pub moved_at: Option<Micros>,
    /// Since when Harper has been done with it.
    #[serde(with = "instant", default)]
    pub done_since: Option<Micros>,
    /// How often it was repeated because rows were missing.
    #[serde(default)]
    pub repeats: u32,
}

/// What a node sees of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sight {
    /// Whether the database has it.
    pub declared: bool,
    /// Whether the table has rows.
    pub has_rows: bool,
    /// Whether Harper has not finished building it.
    pub is_building: bool,
    /// Whether another process began that.
    pub is_of_former: bool,
    /// The last key that Harper told.
    pub reached: Option<String>,
    /// Whether some row is missing in it; none if that was not looked at.
    pub is_missing_rows: Option<bool>,
}

/// What a node does about an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// Nothing now.
    Rest,
    /// Declare it. Harper builds it if there are rows.
    Declare,
    /// Have Harper build it again, without clearing it before.
    Continue,
    /// Look whether each row is in it.
    Compare,
    /// Let it be used. Some rows are still missing.
    Doubt,
}

/// Decides what the first worker of a node does about an index that is wanted. Returns the build to store before that;
/// none if the index is complete.
pub fn turn(build: Option<&Build>, sight: &Sight, now: Micros) -> (Turn, Option<Build>) {
    if !sight.declared {
        // In an empty table, there is nothing to build. But threads that do not know the index yet may get rows.
        let done_since = (!sight.has_rows).then_some(now);
        return (Turn::Declare, Some(Build { done_since, ..begun(sight, now) }));
    }
    match (sight.is_building, build) {
        (true, None) => (resumption(sight), Some(begun(sight, now))),
        (true, Some(build)) => watched(build, sight, now),
        (false, None) => (Turn::Rest, None),
        (false, Some(build)) => checked(build, sight, now),
    }
}

fn begun(sight: &Sight, now: Micros) -> Build {
    Build { reached: sight.reached.clone(), moved_at: Some(now), done_since: None, repeats: 0 }
}

fn resumption(sight: &Sight) -> Turn {
    if sight.is_of_former { Turn::Continue } else { Turn::Rest }
}

fn watched(build: &Build, sight: &Sight, now: Micros) -> (Turn, Option<Build>) {
    let has_moved = build.reached != sight.reached || build.done_since.is_some();
    let stands_still = !has_moved && build.moved_at.is_none_or(|at| now.since(at).abs() >= STANDSTILL_US);
    if stands_still || sight.is_of_former {
        return (Turn::Continue, Some(Build { repeats: build.repeats, ..begun(sight, now) }));
    }
    let moved_at = if has_moved { Some(now) } else { build.moved_at };
    let reached = sight.reached.clone();
    (Turn::Rest, Some(Build { reached, moved_at, done_since: None, repeats: build.repeats }))
}

fn checked(build: &Build, sight: &Sight, now: Micros) -> (Turn, Option<Build>) {
    let done_since = build.done_since.unwrap_or(now);
    let waits = Build { done_since: Some(done_since), ..build.clone() };
    if now.since(done_since).abs() < SETTLING_US {
        return (Turn::Rest, Some(waits));
    }
    match sight.is_missing_rows {
        None => (Turn::Compare, Some(waits)),
        Some(false) => (Turn::Rest, None),
        Some(true) if build.repeats >= REPEATS_MAX => (Turn::Doubt, None),
        Some(true) => (Turn::Continue, Some(Build { repeats: build.repeats + 1, ..begun(sight, now) })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Micros {
        Micros(seconds * SECOND_US)
    }

    fn building(reached: &str) -> Sight {
        Sight {
            declared: true,
            has_rows: true,
            is_building: true,
            reached: Some(reached.to_owned()),
            ..Sight::default()
        }
    }

    fn built(is_missing_rows: Option<bool>) -> Sight {
        Sight { declared: true, has_rows: true, is_missing_rows, ..Sight::default() }
    }

    /// Returns the build after some turns, each with its time.
    fn after(turns: &[(&Sight, i64)]) -> Option<Build> {
        turns.iter().fold(None, |build, (sight, seconds)| turn(build.as_ref(), sight, at(*seconds)).1)
    }

    #[test]
    fn an_index_that_is_declared_is_watched_and_another_one_is_complete() {
        assert_eq!(turn(None, &built(None), at(0)), (Turn::Rest, None));
        let (what, build) = turn(None, &Sight { has_rows: true, ..Sight::default() }, at(0));
        assert_eq!((what, build.is_some()), (Turn::Declare, true));
    }

    #[test]
    fn an_index_of_an_empty_table_is_compared_once_all_threads_know_it() {
        let (what, build) = turn(None, &Sight::default(), at(0));
        assert_eq!(what, Turn::Declare);
        assert_eq!(turn(build.as_ref(), &built(None), at(4)).0, Turn::Rest);
        assert_eq!(turn(build.as_ref(), &built(None), at(5)).0, Turn::Compare);
        assert_eq!(turn(build.as_ref(), &built(Some(true)), at(5)).0, Turn::Continue);
        assert_eq!(turn(build.as_ref(), &built(Some(false)), at(5)), (Turn::Rest, None));
    }

    #[test]
    fn a_build_that_stands_still_is_continued_and_one_that_moves_is_not() {
        let build = after(&[(&building("a"), 0), (&building("b"), 14)]);
        assert_eq!(turn(build.as_ref(), &building("b"), at(28)).0, Turn::Rest);
        assert_eq!(turn(build.as_ref(), &building("c"), at(29)).0, Turn::Rest);
        let (what, build) = turn(build.as_ref(), &building("b"), at(29));
        assert_eq!(what, Turn::Continue);
        assert_eq!(turn(build.as_ref(), &building("b"), at(30)).0, Turn::Rest);
    }

    #[test]
    fn what_a_former_process_began_is_continued_at_once() {
        let former = Sight { is_of_former: true, ..building("a") };
        assert_eq!(turn(None, &former, at(0)).0, Turn::Continue);
        assert_eq!(turn(after(&[(&building("a"), 0)]).as_ref(), &former, at(1)).0, Turn::Continue);
    }

    #[test]
    fn an_index_is_complete_when_all_threads_know_it_and_no_row_is_missing() {
        let build = after(&[(&building("a"), 0), (&built(None), 10)]);
        assert_eq!(turn(build.as_ref(), &built(None), at(14)), (Turn::Rest, build.clone()));
        assert_eq!(turn(build.as_ref(), &built(None), at(15)), (Turn::Compare, build.clone()));
        assert_eq!(turn(build.as_ref(), &built(Some(false)), at(15)), (Turn::Rest, None));
    }

    #[test]
    fn a_build_in_which_rows_are_missing_is_repeated_a_few_times() {
        let mut build = after(&[(&building("a"), 0), (&built(None), 10)]);
        for repeat in 1..=i64::from(REPEATS_MAX) {
            let now = 20 * repeat;
            let (what, next) = turn(build.as_ref(), &built(Some(true)), at(now));
            assert_eq!(what, Turn::Continue);
            build = turn(next.as_ref(), &built(None), at(now + 1)).1;
        }
        assert_eq!(turn(build.as_ref(), &built(Some(true)), at(200)), (Turn::Doubt, None));
    }
}
