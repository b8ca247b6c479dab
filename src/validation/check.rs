//! What a node concludes from comparing its copy with a worker's leaves.

use super::comparison::{Difference, Finding};
use super::leaves::{Leaves, Progress};
use crate::bigquery::sql::Window;
use crate::log::Note;
use crate::time::{Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};

/// A difference counts when it is still there after this time: rows of other nodes may be on their way.
const SECOND_LOOK_US: i64 = 30 * SECOND_US;
/// So much later does the next node look: most likely, the one before has mended what all of them lack.
const RANK_US: i64 = 30 * SECOND_US;
/// How long after a repair to look again.
const REPAIR_US: i64 = 30 * SECOND_US;
/// So often is a leaf read again that still differs.
const REPAIRS_MAX: u32 = 3;

/// What is known of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It equals the source.
    Equal,
    /// It differs, perhaps because rows are on their way.
    Suspected,
    /// It differs, and the rows are being read again.
    Repairing,
    /// It differs, though its rows were read again.
    Different,
}

/// A node's check of its copy against one worker's leaves, as it is stored in the table SyncCheck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// `tableId:owner@node`.
    pub id: String,
    /// The table's id in the configuration.
    pub table_id: String,
    /// The node.
    pub node: String,
    /// The worker whose leaves they are.
    pub owner: String,
    /// The last command that the worker had followed when it counted the leaves.
    #[serde(default)]
    pub asked: u64,
    /// When the leaves were counted, by BigQuery's clock.
    #[serde(with = "instant", default)]
    pub counted_at: Option<Micros>,
    /// Up to which cursor the leaves reach.
    #[serde(with = "instant", default)]
    pub until: Option<Micros>,
    /// When the copy was compared last, by the node's clock.
    #[serde(with = "instant", default)]
    pub checked_at: Option<Micros>,
    /// When it has to be compared again; none if it need not be.
    #[serde(with = "instant", default)]
    pub again_at: Option<Micros>,
    /// What came of it.
    pub state: State,
    /// Rows that were counted in BigQuery.
    pub counted: u64,
    /// The same rows on this node.
    pub stored: u64,
    /// Rows that are missing on this node, at least.
    pub missing: u64,
    /// Rows that only this node has, at least.
    pub extra: u64,
    /// The leaves that differed at the last comparison, in order.
    #[serde(default)]
    pub suspects: Vec<i64>,
    /// How often leaves were read again.
    #[serde(default)]
    pub repairs: u32,
    /// What the counting billed.
    pub bytes_billed: u64,
}

/// Rows that are to be read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// The windows that have them.
    pub windows: Vec<Window>,
    /// The time of writing that they get, if they have a key.
    #[serde(with = "instant", default)]
    pub stamp: Option<Micros>,
}

/// Who compares, and when.
#[derive(Debug, Clone, Copy)]
pub struct Place<'n> {
    /// The node.
    pub node: &'n str,
    /// Its place among all nodes.
    pub rank: u32,
    /// Divides the waiting times.
    pub haste: u32,
    /// Whether a difference counts at first sight.
    pub is_certain: bool,
    /// The time by its clock.
    pub now: Micros,
}

/// What follows from a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// To be stored.
    pub check: Check,
    /// What is to be read again.
    pub repair: Option<Repair>,
    /// To be told in the audit; none while that is open.
    pub note: Option<Note>,
}

impl Check {
    /// Tells whether a node has to compare its copy with leaves. A node that has not got all rows yet that their worker had
    /// stored when they were counted waits for these.
    pub fn is_due(before: Option<&Check>, leaves: &Leaves, progress: &[Progress], now: Micros) -> bool {
        leaves.are_stored_up_to(progress) && Self::is_wanted(before, leaves, now)
    }

    fn is_wanted(before: Option<&Check>, leaves: &Leaves, now: Micros) -> bool {
        match before {
            None => true,
            Some(before) if !before.is_of(leaves) => true,
            // A clock that was set back must not delay it for long.
            Some(before) => before
                .again_at
                .is_some_and(|at| now >= at || before.checked_at.is_some_and(|checked_at| now < checked_at)),
        }
    }

    /// Whether it was these leaves that the copy was compared with. BigQuery's clock ticks in seconds.
    fn is_of(&self, leaves: &Leaves) -> bool {
        self.counted_at == leaves.counted_at && self.asked == leaves.asked
    }

    /// Concludes from a comparison; `windows` returns what to read again of some leaves. `rank` is the node's place among
    /// all nodes; `haste` divides the waiting times.
    pub fn conclude(
        before: Option<Check>,
        finding: &Finding<'_>,
        windows: impl FnOnce(&[i64]) -> Vec<Window>,
        Place { node, rank, haste, is_certain, now }: Place<'_>,
    ) -> Conclusion {
        let Finding { leaves, counted, stored, differences } = finding;
        let before = before.filter(|before| before.is_of(leaves));
        let sum = |count: fn(&Difference) -> u64| differences.iter().map(count).sum();
        let check = Check {
            id: format!("{}@{node}", leaves.id),
            table_id: leaves.table_id.clone(),
            node: node.to_owned(),
            owner: leaves.owner.clone(),
            asked: leaves.asked,
            counted_at: leaves.counted_at,
            until: leaves.until,
            checked_at: Some(now),
            again_at: None,
            state: State::Equal,
            counted: *counted,
            stored: *stored,
            missing: sum(|one| one.missing),
            extra: sum(|one| one.extra),
            suspects: differences.iter().map(|one| one.leaf).collect(),
            repairs: before.as_ref().map_or(0, |before| before.repairs),
            bytes_billed: leaves.bytes_billed,
        };
        if differences.is_empty() {
            return check.end(State::Equal);
        }
        let again = |us: i64| Some(now.plus(us / i64::from(haste.max(1))));
        let was_suspected = |leaf: &i64| {
            is_certain || before.as_ref().is_some_and(|before| before.suspects.binary_search(leaf).is_ok())
        };
        let confirmed: Vec<i64> = check.suspects.iter().copied().filter(was_suspected).collect();
        if confirmed.is_empty() {
            let again_at = again(SECOND_LOOK_US + i64::from(rank) * RANK_US);
            return Conclusion::open(Check { again_at, state: State::Suspected, ..check }, None);
        }
        if check.repairs >= REPAIRS_MAX {
            return check.end(State::Different);
        }
        let windows = windows(&confirmed);
        if windows.is_empty() {
            return check.end(State::Different);
        }
        let stamp = leaves.listing.as_ref().and_then(|listing| listing.stamp);
        let repairs = check.repairs + 1;
        let check = Check { again_at: again(REPAIR_US), state: State::Repairing, repairs, ..check };
        Conclusion::open(check, Some(Repair { windows, stamp }))
    }

    fn end(self, state: State) -> Conclusion {
        let Check { counted, stored, missing, extra, repairs, node, owner, .. } = &self;
        let until = self.until.map_or_else(|| "the end".to_owned(), |until| until.to_string());
        let note = match state {
            State::Different => Note {
                kind: "validation_differs",
                reason: format!(
                    "the rows of {owner} up to {until} on {node} differ from the source: {counted} rows there, {stored} \
                     here; at least {missing} are missing and {extra} are only here, although they were read again \
                     {repairs} times"
                ),
            },
            _ if *repairs > 0 => Note {
                kind: "validation_repaired",
                reason: format!(
                    "the rows of {owner} up to {until} on {node} differed from the source, and were read again: both \
                     have {counted} rows now"
                ),
            },
            _ => Note {
                kind: "validation_equal",
                reason: format!(
                    "the rows of {owner} up to {until} on {node} equal the source: {counted} rows"
                ),
            },
        };
        Conclusion { check: Check { state, ..self }, repair: None, note: Some(note) }
    }
}

impl Conclusion {
    fn open(check: Check, repair: Option<Repair>) -> Conclusion {
        Conclusion { check, repair, note: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::id::{content_hash, write_keyless};
    use crate::validation::{Comparison, Digest};

    fn at(second: i64) -> Micros {
        Micros(second * SECOND_US)
    }

    /// Leaves of ten seconds, of rows whose cursors are so many seconds.
    fn leaves(seconds: &[i64], counted_at: i64) -> Leaves {
        let mut digests = std::collections::BTreeMap::<i64, Digest>::new();
        for second in seconds {
            digests.entry(second / 10).or_default().add(at(*second).0.to_string().as_bytes());
        }
        let list =
            digests.into_iter().map(|(leaf, Digest { rows, sums: [one, two] })| (leaf, rows, one, two));
        Leaves {
            id: "t:n-0".to_owned(),
            table_id: "t".to_owned(),
            owner: "n-0".to_owned(),
            asked: 1,
            counted_at: Some(at(counted_at)),
            rule: "table/1".to_owned(),
            partitions: vec![0],
            after: None,
            until: Some(at(1_000)),
            length_us: 10 * SECOND_US,
            bytes_billed: 8,
            billed_day: 0,
            billed_on_day: 8,
            leaves: list.collect(),
            cursor: None,
            listing: None,
        }
    }

    fn concluded(before: Option<Check>, comparison: &Comparison, rank: u32, now: Micros) -> Conclusion {
        let place = Place { node: "m", rank, haste: 1, is_certain: false, now };
        Check::conclude(before, &comparison.finding(), |leaves| comparison.windows(leaves), place)
    }

    fn conclude(before: Option<&Check>, counted: &[i64], stored: &[i64], now: i64) -> Conclusion {
        let mut comparison = Comparison::new(leaves(counted, 5)).unwrap();
        let mut ids = Vec::new();
        for second in stored {
            write_keyless(&mut ids, at(*second), &content_hash(b"row"), 0, 0);
            ids.push(b'\n');
        }
        comparison.add(std::str::from_utf8(&ids).unwrap().lines());
        concluded(before.cloned(), &comparison, 0, at(now))
    }

    fn stored_up_to(second: i64) -> [Progress; 1] {
        [Progress { partition: 0, last_timestamp: Some(at(second)) }]
    }

    fn is_due(before: Option<&Check>, leaves: &Leaves, now: i64) -> bool {
        Check::is_due(before, leaves, &stored_up_to(1_000), at(now))
    }

    fn kind(conclusion: &Conclusion) -> Option<&'static str> {
        conclusion.note.as_ref().map(|note| note.kind)
    }

    #[test]
    fn a_difference_counts_at_first_sight_if_an_operator_is_certain() {
        let comparison = Comparison::new(leaves(&[1, 25], 5)).unwrap();
        let state = |is_certain| {
            let place = Place { node: "m", rank: 0, haste: 1, is_certain, now: at(10) };
            let windows = |leaves: &[i64]| comparison.windows(leaves);
            let Conclusion { check, repair, .. } =
                Check::conclude(None, &comparison.finding(), windows, place);
            (check.state, repair.is_some())
        };
        assert_eq!(state(false), (State::Suspected, false));
        assert_eq!(state(true), (State::Repairing, true));
    }

    #[test]
    fn a_copy_that_is_equal_is_compared_once_for_each_count() {
        let conclusion = conclude(None, &[1, 25], &[1, 25], 10);
        let Conclusion { check, repair, .. } = &conclusion;
        assert_eq!((check.state, check.counted, check.stored, repair), (State::Equal, 2, 2, &None));
        assert_eq!(kind(&conclusion), Some("validation_equal"));
        assert!(!is_due(Some(check), &leaves(&[], 5), 1_000_000));
        assert!(is_due(Some(check), &leaves(&[], 6), 11));
        assert!(is_due(Some(check), &Leaves { asked: 2, ..leaves(&[], 5) }, 11));
        assert!(is_due(None, &leaves(&[], 5), 0));
    }

    #[test]
    fn a_difference_counts_when_it_is_seen_twice() {
        let first = conclude(None, &[1, 25], &[25], 10);
        assert_eq!((first.check.state, kind(&first), &first.repair), (State::Suspected, None, &None));
        let is_due = |now| is_due(Some(&first.check), &leaves(&[], 5), now);
        assert!(!is_due(39) && is_due(40));
        // The clock was set back.
        assert!(is_due(9));

        let arrived = conclude(Some(&first.check), &[1, 25], &[1, 25], 40);
        assert_eq!((arrived.check.state, kind(&arrived)), (State::Equal, Some("validation_equal")));
        let another = conclude(Some(&first.check), &[1, 25], &[1], 40);
        assert_eq!((another.check.state, another.repair), (State::Suspected, None));

        let again = conclude(Some(&first.check), &[1, 25], &[25], 40);
        assert_eq!((again.check.state, again.check.missing, again.check.extra), (State::Repairing, 1, 0));
        let windows = vec![Window { after: Some(Micros(-1)), until: Some(at(10).plus(-1)) }];
        assert_eq!(again.repair, Some(Repair { windows, stamp: None }));
        let repaired = conclude(Some(&again.check), &[1, 25], &[1, 25], 70);
        assert_eq!((repaired.check.state, kind(&repaired)), (State::Equal, Some("validation_repaired")));
    }

    #[test]
    fn what_reading_again_does_not_mend_is_told_and_left_alone() {
        let mut last = conclude(None, &[1], &[1, 2, 3], 10);
        let mut repairs = 0;
        while let Some(due) = last.check.again_at {
            last = conclude(Some(&last.check), &[1], &[1, 2, 3], due.0 / SECOND_US);
            repairs += usize::from(last.repair.is_some());
        }
        assert_eq!((last.check.state, last.check.extra, repairs), (State::Different, 2, 3));
        let reason = last.note.unwrap().reason;
        assert!(
            reason.contains("1 rows there, 3 here; at least 0 are missing and 2 are only here"),
            "{reason}"
        );
        assert!(!is_due(Some(&last.check), &leaves(&[], 5), 1_000));
    }

    #[test]
    fn a_node_that_lags_behind_does_not_compare() {
        let is_due = |progress: &[Progress]| Check::is_due(None, &leaves(&[], 5), progress, at(10));
        assert!(is_due(&stored_up_to(1_000)) && is_due(&stored_up_to(1_001)));
        assert!(!is_due(&stored_up_to(999)) && !is_due(&[]));
        assert!(!is_due(&[Progress { partition: 0, last_timestamp: None }]));
    }

    #[test]
    fn a_new_count_begins_anew() {
        let first = conclude(None, &[1, 25], &[25], 10);
        let later = Comparison::new(leaves(&[1, 25], 50)).unwrap();
        let next = concluded(Some(first.check), &later, 2, at(60));
        assert_eq!((next.check.state, next.check.again_at), (State::Suspected, Some(at(60 + 30 + 60))));
    }
}
