//! What a node concludes from comparing its copy with a worker's leaves.

use super::comparison::{Difference, Finding};
use super::digest::Digest;
use super::extras::{Consent, Deletion};
use super::leaves::{Leaf, Leaves, Progress};
use crate::bigquery::sql::Window;
use crate::config::Deletes;
use crate::log::Note;
use crate::time::{Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A difference counts when it is still there after this time: rows of other nodes may be on their way.
const SECOND_LOOK_US: i64 = 30 * SECOND_US;
/// So much later does the next node look: most likely, the one before has mended what all of them lack.
const RANK_US: i64 = 30 * SECOND_US;
/// How long after a repair to look again.
const REPAIR_US: i64 = 30 * SECOND_US;
/// So often is mended what still differs.
const REPAIRS_MAX: u32 = 3;
/// So many ids are named to operators.
const IDS_NAMED: usize = 10;

/// What is known of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It equals the source.
    Equal,
    /// It has all rows of the source, and some that the source no longer has.
    Extra,
    /// It differs, perhaps because rows are on their way.
    Suspected,
    /// It differs, and that is being mended.
    Repairing,
    /// It differs, though its rows were read again.
    Different,
    /// Nothing was counted that it could be compared with.
    Refused,
}

/// Rows that only a copy has, by leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    length_us: i64,
    /// Another wish may have another consequence.
    deletes: Deletes,
    rows_max: u64,
    leaves: Vec<Leaf>,
}

impl Kept {
    /// Rows of these leaves.
    pub fn new(leaves: &Leaves, digests: BTreeMap<i64, Digest>) -> Kept {
        let has_rows =
            |(leaf, Digest { rows, sums: [one, other] })| (rows > 0).then_some((leaf, rows, one, other));
        let Consent { deletes, rows_max, .. } = leaves.consent;
        let list = digests.into_iter().filter_map(has_rows).collect();
        Kept { length_us: leaves.length_us, deletes, rows_max, leaves: list }
    }

    /// Returns the rows, if such leaves were meant, and the configuration wants the same.
    pub fn of(&self, leaves: &Leaves) -> BTreeMap<i64, Digest> {
        let Consent { deletes, rows_max, .. } = leaves.consent;
        let is_same = (self.length_us, self.deletes, self.rows_max) == (leaves.length_us, deletes, rows_max);
        let digest = |(leaf, rows, one, other): &Leaf| (*leaf, Digest { rows: *rows, sums: [*one, *other] });
        self.leaves.iter().filter(|_| is_same).map(digest).collect()
    }

    fn rows(&self) -> u64 {
        self.leaves.iter().map(|(_, rows, ..)| rows).sum()
    }
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
    /// How often differences were mended.
    #[serde(default)]
    pub repairs: u32,
    /// Since when the node has known rows that only it has, by its clock.
    #[serde(with = "instant", default)]
    pub extra_since: Option<Micros>,
    /// These rows, as far as their leaves tell nothing else.
    #[serde(default)]
    pub kept: Kept,
    /// How many of such rows were to be deleted.
    #[serde(default)]
    pub deleted: u64,
    /// What the counting billed.
    pub bytes_billed: u64,
    /// Why nothing was counted; none if it was.
    #[serde(default)]
    pub refusal: Option<String>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conclusion {
    /// To be stored.
    pub check: Check,
    /// What is to be read again.
    pub repair: Option<Repair>,
    /// What is to be deleted.
    pub deletion: Option<Deletion>,
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

    /// Since when rows are being read again that differ from these leaves; none if they are not.
    pub fn repaired_since(&self, leaves: &Leaves) -> Option<Micros> {
        self.checked_at.filter(|_| self.state == State::Repairing && self.is_of(leaves))
    }

    /// Concludes from a comparison; `windows` returns what to read again of some leaves. `rank` is the node's place among
    /// all nodes; `haste` divides the waiting times.
    pub fn conclude(
        before: Option<Check>,
        finding: &Finding<'_>,
        windows: impl FnOnce(&[i64]) -> Vec<Window>,
        Place { node, rank, haste, is_certain, now }: Place<'_>,
    ) -> Conclusion {
        let check = Check::of(finding, before.as_ref(), node, now);
        if check.refusal.is_some() {
            return Conclusion::open(Check { state: State::Refused, ..check });
        }
        let before = before.filter(|before| before.is_of(finding.leaves));
        if finding.differences.is_empty() {
            return check.end_well(finding);
        }
        let again = |us: i64| Some(now.plus(us / i64::from(haste.max(1))));
        let was_suspected = |leaf: &i64| {
            is_certain || before.as_ref().is_some_and(|before| before.suspects.binary_search(leaf).is_ok())
        };
        let confirmed: Vec<i64> = check.suspects.iter().copied().filter(was_suspected).collect();
        let unexplained = |one: &&Difference| !one.is_explained && confirmed.binary_search(&one.leaf).is_ok();
        let unexplained: Vec<i64> =
            finding.differences.iter().filter(unexplained).map(|one| one.leaf).collect();
        if unexplained.is_empty() && confirmed.len() < check.suspects.len() {
            let again_at = again(SECOND_LOOK_US + i64::from(rank) * RANK_US);
            return Conclusion::open(Check { again_at, state: State::Suspected, ..check });
        }
        if unexplained.is_empty() {
            return check.settle_extras(finding, again(REPAIR_US));
        }
        if check.repairs >= REPAIRS_MAX {
            return check.end(State::Different, finding);
        }
        let windows = windows(&unexplained);
        if windows.is_empty() {
            return check.end(State::Different, finding);
        }
        let stamp = finding.leaves.listing.as_ref().and_then(|listing| listing.stamp);
        Conclusion {
            repair: Some(Repair { windows, stamp }),
            ..Conclusion::open(check.repairing(again(REPAIR_US)))
        }
    }

    /// What was found, before anything follows from it.
    fn of(finding: &Finding<'_>, before: Option<&Check>, node: &str, now: Micros) -> Check {
        let Finding { leaves, counted, stored, differences, extras, kept, .. } = finding;
        let same = before.filter(|before| before.is_of(leaves));
        let sum = |count: fn(&Difference) -> u64| differences.iter().map(count).sum();
        let extra = sum(|one| one.extra);
        let since = before.and_then(|before| before.extra_since).or(Some(now));
        Check {
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
            extra: extra.max(extras.rows()).max(kept.rows()),
            suspects: differences.iter().map(|one| one.leaf).collect(),
            repairs: same.map_or(0, |before| before.repairs),
            extra_since: since.filter(|_| extras.rows() > 0),
            kept: kept.clone(),
            deleted: same.map_or(0, |before| before.deleted),
            bytes_billed: leaves.bytes_billed,
            refusal: leaves.refusal.clone(),
        }
    }

    fn repairing(self, again_at: Option<Micros>) -> Check {
        Check { again_at, state: State::Repairing, repairs: self.repairs + 1, ..self }
    }

    /// Deletes the rows that only this node has, if that is wanted, allowed, and certain.
    fn settle_extras(self, finding: &Finding<'_>, again_at: Option<Micros>) -> Conclusion {
        let consent = &finding.leaves.consent;
        if consent.deletes == Deletes::Keep {
            return self.end_well(finding);
        }
        if let Some(refusal) = finding.extras.refusal(consent) {
            let Check { node, .. } = &self;
            let reason = format!("rows that only {node} has are not deleted: {refusal}");
            let note = Note { kind: "deletes_refused", reason };
            return Conclusion { note: Some(note), ..self.end_well(finding) };
        }
        if self.repairs >= REPAIRS_MAX {
            return self.end(State::Different, finding);
        }
        if finding.stored_before.is_none() {
            return self.end_well(finding);
        }
        let ids = finding.extras.ids().to_vec();
        let deletion = Deletion { ids, stored_before: finding.stored_before };
        let deleted = self.deleted + deletion.ids.len() as u64;
        Conclusion {
            deletion: Some(deletion),
            ..Conclusion::open(Check { deleted, kept: finding.known.clone(), ..self.repairing(again_at) })
        }
    }

    fn end_well(self, finding: &Finding<'_>) -> Conclusion {
        let state = if self.extra > 0 { State::Extra } else { State::Equal };
        self.end(state, finding)
    }

    fn end(self, state: State, finding: &Finding<'_>) -> Conclusion {
        let Check { counted, stored, missing, extra, repairs, deleted, node, owner, .. } = &self;
        let until = self.until.map_or_else(|| "the end".to_owned(), |until| until.to_string());
        let rows = format!("the rows of {owner} up to {until} on {node}");
        let (kind, reason) = match state {
            State::Different => (
                "validation_differs",
                format!(
                    "{rows} differ from the source: {counted} rows there, {stored} here; at least {missing} are missing \
                     and {extra} are only here, although they were read again {repairs} times"
                ),
            ),
            State::Extra => {
                let ids = finding.extras.ids();
                let mut names = ids.get(..IDS_NAMED.min(ids.len())).unwrap_or_default().join(", ");
                if !names.is_empty() {
                    names = format!(", among them {names}");
                }
                let reason =
                    format!("{rows} are all there, and {extra} more that the source no longer has{names}");
                ("validation_extra", reason)
            }
            _ if *repairs > 0 => {
                let deletion =
                    if *deleted > 0 { format!("; up to {deleted} rows were deleted") } else { String::new() };
                let reason = format!(
                    "{rows} differed from the source, and were read again: both have {counted} rows now{deletion}"
                );
                ("validation_repaired", reason)
            }
            _ => ("validation_equal", format!("{rows} equal the source: {counted} rows")),
        };
        let note = Some(Note { kind, reason });
        Conclusion { check: Check { state, ..self }, repair: None, deletion: None, note }
    }
}

impl Conclusion {
    fn open(check: Check) -> Conclusion {
        Conclusion { check, repair: None, deletion: None, note: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::id::{content_hash, write_keyless};
    use crate::validation::{Comparison, Consent, Digest, Extras, Seen};

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
            consent: Consent::default(),
            refusal: None,
        }
    }

    fn concluded(before: Option<Check>, comparison: &Comparison, rank: u32, now: Micros) -> Conclusion {
        let place = Place { node: "m", rank, haste: 1, is_certain: false, now };
        let finding = comparison.finding(before.as_ref());
        Check::conclude(before, &finding, |leaves| comparison.windows(leaves), place)
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
                Check::conclude(None, &comparison.finding(None), windows, place);
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

    /// Concludes again and again what follows from rows that only the copy has, as a list of keys tells of them.
    fn settle(deletes: Deletes, seen: bool, stored: usize) -> (Vec<State>, Vec<&'static str>, usize) {
        let counted = leaves(&[1], 5);
        let since = Some(at(10));
        let seen = seen.then(|| Seen { node: "m".to_owned(), since }).into_iter().collect();
        let leaves =
            Leaves { consent: Consent { deletes, rows_max: 2, seen, ..Consent::default() }, ..counted };
        let mut extras = Extras::default();
        (0..10).for_each(|_| extras.count(&leaves.consent, None));
        (0..stored).for_each(|id| extras.add(&leaves.consent, &id.to_string(), None));
        let difference = Difference { leaf: 3, missing: 0, extra: stored as u64, is_explained: true };
        let (mut states, mut kinds, mut deleted) = (Vec::new(), Vec::new(), 0);
        let mut before: Option<Check> = None;
        let mut now = at(10);
        loop {
            let finding = Finding {
                leaves: &leaves,
                counted: 1,
                stored: 3,
                differences: vec![difference],
                extras: &extras,
                stored_before: leaves.consent.seen_since("m"),
                known: Kept::default(),
                kept: Kept::default(),
            };
            let place = Place { node: "m", rank: 0, haste: 1, is_certain: false, now };
            let Conclusion { check, deletion, note, .. } =
                Check::conclude(before, &finding, |_| Vec::new(), place);
            states.push(check.state);
            kinds.extend(note.map(|note| note.kind));
            deleted += deletion.map_or(0, |deletion| deletion.ids.len());
            let Some(again_at) = check.again_at else { return (states, kinds, deleted) };
            (now, before) = (again_at, Some(check));
        }
    }

    #[test]
    fn rows_that_only_the_copy_has_are_deleted_if_that_is_wanted_certain_and_allowed() {
        use State::{Different, Extra, Repairing, Suspected};
        let extra = (vec![Suspected, Extra], vec!["validation_extra"], 0);
        assert_eq!(settle(Deletes::Keep, true, 2), extra);
        assert_eq!(settle(Deletes::Mirror, false, 2), extra);
        assert_eq!(settle(Deletes::Mirror, true, 3), (vec![Suspected, Extra], vec!["deletes_refused"], 0));
        // Here they come back each time.
        let states = vec![Suspected, Repairing, Repairing, Repairing, Different];
        assert_eq!(settle(Deletes::Mirror, true, 2), (states, vec!["validation_differs"], 6));
    }

    #[test]
    fn what_could_not_be_counted_is_told() {
        let refused = Leaves { refusal: Some("it costs too much".to_owned()), ..leaves(&[1], 5) };
        assert!(Check::is_due(None, &refused, &[], at(10)));
        let comparison = Comparison::new(refused).unwrap();
        let Conclusion { check, repair, note, .. } = concluded(None, &comparison, 0, at(10));
        assert_eq!((check.state, check.again_at, repair, note), (State::Refused, None, None, None));
        assert_eq!(check.refusal.as_deref(), Some("it costs too much"));
    }
}
