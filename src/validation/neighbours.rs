//! Nodes compare their copies with each other, without BigQuery.
//!
//! Of a record, Harper keeps when it was written, and that is the same on all nodes. All rows of a transaction have the
//! same time. So what a node lacks of a transaction differs in one span of time. Each node sums its copy up by spans
//! (leaves). Of those that differ from another node's, it tells the commits, and of these the rows. A node that has a row
//! which another one lacks puts it again, with the smallest later time: Harper then replicates it, and nothing that was
//! written later is replaced. Deleted records count like others, so a deletion that got lost is mended as well.

use super::digest::Digest;
use super::leaves::Leaf;
use super::summing::{Reading, Row, Scope};
use crate::log::Note;
use crate::time::Micros;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The length of a leaf.
const LEAF_MS: f64 = 60_000.0;
/// Only what was written so recently is compared. So there are some 4,000 leaves at most.
const EXTENT_MS: f64 = 3.0 * 86_400_000.0;
/// Clocks may differ. What may have been deleted so shortly before the oldest known deletion is not compared.
const MARGIN_MS: f64 = 3_600_000.0;
/// A difference counts when it is still there after this time: rows may be on their way.
const SECOND_LOOK_MS: f64 = 30_000.0;
/// So long does a node wait for what another one has to tell.
const PATIENCE_MS: f64 = 300_000.0;
/// So many leaves are looked at closely at a time.
const SUSPECTS_MAX: usize = 64;
/// So many rows of a node are looked at one by one at a time, and put again.
const ROWS_MAX: u64 = 20_000;
/// So many rounds follow one another while rows are put again.
const ROUNDS_MAX: u32 = 20;

/// How closely a node has told of its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Sums over spans of time.
    Leaves,
    /// Sums over the commits of leaves that differ.
    Commits,
    /// The rows of commits that differ.
    Rows,
    /// It has nothing more to tell.
    Done,
}

/// What a node tells of its copy, as it is stored in the table SyncCopy. Times are in ms since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// `tableId@node`.
    pub id: String,
    /// The table's id in the configuration.
    pub table_id: String,
    /// The node.
    pub node: String,
    /// The comparison that it belongs to: a later one has a larger number.
    pub occasion: u64,
    /// The comparison's place among those that follow one another while rows are put again.
    pub round: u32,
    /// What was written up to this is not compared: the node may not know any more what was deleted.
    pub after: f64,
    /// What was written after this is not compared: it may be on its way.
    pub until: f64,
    /// When the node told this, by its clock.
    pub told_at: f64,
    /// How closely it has told.
    pub stage: Stage,
    /// The leaves that have rows, in order.
    #[serde(default)]
    pub leaves: Vec<Leaf>,
    /// The leaves of which all commits are told.
    #[serde(default)]
    pub suspects: Vec<i64>,
    /// Their commits: when each was made, its rows, and two sums.
    #[serde(default)]
    pub commits: Vec<(f64, u64, u32, u32)>,
    /// The commits of which all rows are told.
    #[serde(default)]
    pub close: Vec<f64>,
    /// Their rows: when each was written, and the hash of its id.
    #[serde(default)]
    pub rows: Vec<(f64, u64)>,
    /// How many rows it has put again now.
    #[serde(default)]
    pub put: u64,
    /// How many rows it has put again in this and the rounds before.
    #[serde(default)]
    pub mended: u64,
}

/// What a node knows when it decides what to do next. Times are in ms since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'s> {
    /// The table's id in the configuration.
    pub table_id: &'s str,
    /// The node.
    pub node: &'s str,
    /// The other nodes that are alive.
    pub others: &'s [String],
    /// Up to when all that these have written is there, or lost.
    pub heard: f64,
    /// Up to when Harper may have forgotten what was deleted.
    pub forgotten: f64,
    /// The time by the node's clock.
    pub now: f64,
    /// Divides the waiting times.
    pub haste: u32,
    /// Whether it is to begin a comparison.
    pub begins: bool,
    /// How many rows it has put again in the last rounds.
    pub mended: u64,
}

/// What a node does next.
#[derive(Debug)]
pub enum Step {
    /// It reads its copy.
    Read(Box<Reading>),
    /// It tells this.
    Tell(Box<Summary>, Option<Note>),
}

/// Returns the leaf that a time of writing lies in.
pub(super) fn leaf_of(written_at: f64) -> i64 {
    (written_at / LEAF_MS).floor() as i64
}

/// Returns up to when Harper may have forgotten deletions: it removes the oldest ones, and a node that joined need not have
/// got those before. Times are in ms since 1970.
pub fn forgotten_until(removed_until: f64, began_at: f64) -> f64 {
    let removed_until = if removed_until > MARGIN_MS { removed_until + MARGIN_MS } else { 0.0 };
    removed_until.max(began_at)
}

/// Returns the smallest time that is later.
pub fn stamp_after(written_at: f64) -> f64 {
    written_at.next_up()
}

/// Tells of rows that a node has put again.
pub fn mended(node: &str, lacking: &[String], written_at: f64, rows: u64) -> Note {
    let at = Micros::from_millis(written_at as i64);
    let lacking = lacking.join(" and ");
    let reason = format!(
        "{lacking} lacked {rows} rows of {at}; {node} has put them again, and asked BigQuery nothing"
    );
    Note { kind: "copies_mended", reason }
}

/// Decides what a node does next, from what it and the others have told. None: it waits.
pub fn next(summaries: &[Summary], situation: &Situation<'_>) -> Option<Step> {
    let own = summaries.iter().find(|one| one.node == situation.node);
    let is_heard = |one: &&Summary| situation.others.contains(&one.node);
    let others: Vec<&Summary> = summaries.iter().filter(is_heard).collect();
    let told = own.map_or(0, |own| own.occasion);
    let newest = others.iter().filter(|one| one.occasion > told).max_by_key(|one| one.occasion);
    if situation.begins && !situation.others.is_empty() {
        let last = newest.map_or(told, |one| one.occasion);
        return Some(situation.begin(&others, last, 1));
    }
    if let Some(newest) = newest.filter(|one| one.stage == Stage::Leaves) {
        let has_heard = situation.heard >= newest.until;
        return has_heard
            .then(|| situation.read_leaves(&others, newest.occasion, newest.round, newest.until));
    }
    let talk = Talk::new(own?, others, situation);
    match talk.own.stage {
        Stage::Leaves => talk.compare_leaves(),
        Stage::Commits => talk.compare_commits(),
        Stage::Rows => talk.compare_rows(),
        Stage::Done => talk.go_on(),
    }
}

impl Situation<'_> {
    fn begin(&self, others: &[&Summary], last: u64, round: u32) -> Step {
        self.read_leaves(others, (self.now as u64).max(last + 1), round, self.heard)
    }

    fn read_leaves(&self, others: &[&Summary], occasion: u64, round: u32, until: f64) -> Step {
        // Sums over the same can be compared.
        let after = others.iter().map(|other| other.after).fold(self.forgotten, f64::max);
        let summary = Summary {
            id: format!("{}@{}", self.table_id, self.node),
            table_id: self.table_id.to_owned(),
            node: self.node.to_owned(),
            occasion,
            round,
            after: after.max(until - EXTENT_MS),
            until,
            told_at: self.now,
            stage: Stage::Leaves,
            leaves: Vec::new(),
            suspects: Vec::new(),
            commits: Vec::new(),
            close: Vec::new(),
            rows: Vec::new(),
            put: 0,
            mended: if round > 1 { self.mended } else { 0 },
        };
        Step::Read(Box::new(Reading::new(summary, Scope::Leaves)))
    }

    /// Whether so much time has passed. A clock that was set back must not delay anything for long.
    fn is_over(&self, since: f64, ms: f64) -> bool {
        let passed = self.now - since;
        passed < 0.0 || passed >= ms / f64::from(self.haste.max(1))
    }
}

impl Summary {
    /// Leaves the details out, which nobody needs any more.
    fn in_short(self) -> Summary {
        Summary {
            leaves: Vec::new(),
            suspects: Vec::new(),
            commits: Vec::new(),
            close: Vec::new(),
            rows: Vec::new(),
            ..self
        }
    }

    fn has_details(&self) -> bool {
        !self.leaves.is_empty() || !self.commits.is_empty() || !self.close.is_empty()
    }

    fn commits(&self) -> BTreeMap<u64, Digest> {
        let digest = |(at, rows, first, second): &(f64, u64, u32, u32)| {
            (at.to_bits(), Digest { rows: *rows, sums: [*first, *second] })
        };
        self.commits.iter().map(digest).collect()
    }
}

/// A comparison that is under way.
struct Talk<'t> {
    own: &'t Summary,
    /// What the others have told in this comparison.
    peers: Vec<&'t Summary>,
    situation: &'t Situation<'t>,
}

impl<'t> Talk<'t> {
    fn new(own: &'t Summary, others: Vec<&'t Summary>, situation: &'t Situation<'t>) -> Talk<'t> {
        let peers = others.into_iter().filter(|one| one.occasion == own.occasion).collect();
        Talk { own, peers, situation }
    }

    fn compare_leaves(&self) -> Option<Step> {
        let is_waiting = self.peers.len() < self.situation.others.len();
        if !self.situation.is_over(self.own.told_at, SECOND_LOOK_MS)
            || (is_waiting && !self.has_lost_patience())
        {
            return None;
        }
        let suspects: BTreeSet<i64> =
            self.peers.iter().flat_map(|peer| differing_leaves(self.own, peer)).collect();
        if suspects.is_empty() {
            return Some(self.end());
        }
        let suspects = suspects.into_iter().take(SUSPECTS_MAX).collect();
        Some(self.read(Scope::Commits(suspects)))
    }

    fn compare_commits(&self) -> Option<Step> {
        if self.waits_for(Stage::Commits) {
            return None;
        }
        let own = self.own.commits();
        let mut differing: BTreeSet<u64> = BTreeSet::new();
        for peer in &self.peers {
            let theirs = peer.commits();
            let is_common = |at: &&u64| {
                let leaf = leaf_of(f64::from_bits(**at));
                let is_told = |one: &Summary| one.suspects.binary_search(&leaf).is_ok();
                is_told(self.own) && is_told(peer)
            };
            let all = own.keys().chain(theirs.keys()).filter(is_common);
            differing.extend(all.filter(|at| own.get(at) != theirs.get(at)));
        }
        let mut rows = 0;
        differing.retain(|at| {
            let more = own.get(at).map_or(0, |digest| digest.rows);
            let fits = rows + more <= ROWS_MAX;
            rows += if fits { more } else { 0 };
            fits
        });
        if differing.is_empty() {
            return Some(self.end());
        }
        Some(self.read(Scope::Rows(differing)))
    }

    fn compare_rows(&self) -> Option<Step> {
        if self.waits_for(Stage::Rows) {
            return None;
        }
        let mut wanted: BTreeMap<Row, BTreeSet<String>> = BTreeMap::new();
        let peers: Vec<Peer<'_>> = self.peers.iter().map(|peer| Peer::new(peer)).collect();
        for (at, hash) in &self.own.rows {
            let row = (at.to_bits(), *hash);
            // One node that has the row does it, in each round another one.
            if peers.iter().any(|peer| peer.has(row) && self.place(peer.name) < self.place(&self.own.node)) {
                continue;
            }
            for peer in peers.iter().filter(|peer| peer.lacks(row)) {
                wanted.entry(row).or_default().insert(peer.name.to_owned());
            }
        }
        if wanted.is_empty() {
            return Some(self.end());
        }
        Some(self.read(Scope::Ids(wanted)))
    }

    /// Once all are done, nobody needs the details any more. Whether something was mended shows another comparison, which
    /// one node begins.
    fn go_on(&self) -> Option<Step> {
        let all = || self.peers.iter().copied().chain([self.own]);
        if !all().all(|one| one.stage == Stage::Done) && !self.has_lost_patience() {
            return None;
        }
        if self.own.has_details() {
            return Some(Step::Tell(Box::new(self.own.clone().in_short()), None));
        }
        let first = all().filter(|one| one.put > 0).map(|one| &one.node).min()?;
        if *first != self.own.node || !self.situation.is_over(self.own.told_at, SECOND_LOOK_MS) {
            return None;
        }
        if self.own.round < ROUNDS_MAX {
            return Some(self.situation.begin(&self.peers, self.own.occasion, self.own.round + 1));
        }
        let node = &self.own.node;
        let reason = format!(
            "{node} has put rows again in {ROUNDS_MAX} rounds, and the copies of the nodes still differ"
        );
        let summary = Summary { put: 0, ..self.own.clone() };
        Some(Step::Tell(Box::new(summary), Some(Note { kind: "copies_differ", reason })))
    }

    /// Whether another node still has to tell what this one compares.
    fn waits_for(&self, stage: Stage) -> bool {
        self.peers.iter().any(|peer| peer.stage < stage) && !self.has_lost_patience()
    }

    fn has_lost_patience(&self) -> bool {
        self.situation.is_over(self.own.told_at, PATIENCE_MS)
    }

    /// The place of a node among those that compare.
    fn place(&self, node: &str) -> usize {
        let mut names: Vec<&str> = self.peers.iter().map(|one| one.node.as_str()).collect();
        names.push(&self.own.node);
        names.sort_unstable();
        let count = names.len();
        let place = names.iter().position(|name| *name == node).unwrap_or(0);
        let turn = (self.own.round as usize).saturating_sub(1) % count.max(1);
        (place + count - turn) % count.max(1)
    }

    fn read(&self, scope: Scope) -> Step {
        Step::Read(Box::new(Reading::new(self.now_told(), scope)))
    }

    fn end(&self) -> Step {
        Step::Tell(Box::new(Summary { stage: Stage::Done, ..self.now_told() }), None)
    }

    fn now_told(&self) -> Summary {
        Summary { told_at: self.situation.now, ..self.own.clone() }
    }
}

/// The rows that another node has told of.
struct Peer<'p> {
    name: &'p str,
    close: BTreeSet<u64>,
    /// The last version of each row.
    rows: BTreeMap<u64, u64>,
}

impl<'p> Peer<'p> {
    fn new(summary: &'p Summary) -> Peer<'p> {
        let mut rows: BTreeMap<u64, u64> = BTreeMap::new();
        for (at, hash) in &summary.rows {
            let last = rows.entry(*hash).or_default();
            *last = (*last).max(at.to_bits());
        }
        Peer { name: &summary.node, close: summary.close.iter().map(|at| at.to_bits()).collect(), rows }
    }

    fn has(&self, (at, hash): Row) -> bool {
        self.rows.get(&hash) == Some(&at)
    }

    fn lacks(&self, (at, hash): Row) -> bool {
        self.close.contains(&at) && self.rows.get(&hash).is_none_or(|last| *last < at)
    }
}

/// Returns the leaves of which two nodes have told different sums. What one of them may not know whole is left out.
fn differing_leaves(one: &Summary, other: &Summary) -> Vec<i64> {
    if other.stage == Stage::Done && !other.has_details() {
        return Vec::new();
    }
    let sums = |summary: &Summary| -> BTreeMap<i64, Leaf> {
        summary.leaves.iter().map(|leaf| (leaf.0, *leaf)).collect()
    };
    let is_cut = i64::from(one.after != other.after);
    let first = leaf_of(one.after.max(other.after)) + is_cut;
    let (ones, others) = (sums(one), sums(other));
    let all: BTreeSet<i64> =
        ones.keys().chain(others.keys()).copied().filter(|leaf| *leaf >= first).collect();
    all.into_iter().filter(|leaf| ones.get(leaf) != others.get(leaf)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: f64 = 1_000_000.0;

    /// A node's copy: ids, and when each was written.
    type Copy = Vec<(String, f64)>;

    fn copy(rows: &[(&str, f64)]) -> Copy {
        rows.iter().map(|(id, at)| ((*id).to_owned(), *at)).collect()
    }

    fn situation<'s>(node: &'s str, others: &'s [String], now: f64) -> Situation<'s> {
        Situation {
            table_id: "t",
            node,
            others,
            heard: UNTIL,
            forgotten: 0.0,
            now,
            haste: 1,
            begins: false,
            mended: 0,
        }
    }

    /// Lets nodes with these copies compare them until nobody does anything any more, a look each ten seconds. Returns what
    /// each one put again.
    fn compare(copies: &[(&str, Copy)], forgotten: f64) -> Vec<(String, Vec<String>)> {
        let mut summaries: Vec<Summary> = Vec::new();
        let mut put = Vec::new();
        for look in 0..20 {
            for (node, copy) in copies {
                let others: Vec<String> = copies
                    .iter()
                    .map(|(other, _)| (*other).to_owned())
                    .filter(|other| other != node)
                    .collect();
                let now = UNTIL + f64::from(look) * 10_000.0;
                let begins = look == 0 && summaries.is_empty();
                let situation = Situation { begins, forgotten, ..situation(node, &others, now) };
                let summary = match next(&summaries, &situation) {
                    None => continue,
                    Some(Step::Tell(summary, _)) => *summary,
                    Some(Step::Read(mut reading)) => {
                        reading.add(copy.iter().map(|(id, at)| (id.as_str(), *at)));
                        let (summary, puts) = reading.end();
                        put.extend(puts.into_iter().map(|one| ((*node).to_owned(), one.ids)));
                        // Here nothing is mended, so another round would find it again.
                        Summary { put: 0, ..summary }
                    }
                };
                summaries.retain(|one| one.node != summary.node);
                summaries.push(summary);
            }
        }
        assert!(summaries.iter().all(|one| one.stage == Stage::Done && one.leaves.is_empty()));
        put
    }

    #[test]
    fn a_node_puts_what_another_one_lacks_or_has_in_an_older_version() {
        let full = copy(&[("a", 100.0), ("b", 100.0), ("c", 200_000.0)]);
        let lacking = copy(&[("a", 100.0), ("c", 90.0)]);
        let put = compare(&[("m", full.clone()), ("n", lacking)], 0.0);
        let wanted = |id: &str| ("m".to_owned(), vec![id.to_owned()]);
        assert_eq!(put, [wanted("b"), wanted("c")]);
        assert_eq!(compare(&[("m", full.clone()), ("n", full)], 0.0), []);
    }

    #[test]
    fn one_of_several_nodes_that_have_it_does_so() {
        let full = copy(&[("a", 100.0), ("b", 100.0)]);
        let put = compare(&[("m", full.clone()), ("n", copy(&[("a", 100.0)])), ("o", full)], 0.0);
        assert_eq!(put, [("m".to_owned(), vec!["b".to_owned()])]);
    }

    #[test]
    fn what_may_have_been_deleted_or_is_on_its_way_is_left_alone() {
        let full = copy(&[("old", 100.0), ("new", UNTIL + 1.0)]);
        assert_eq!(compare(&[("m", full), ("n", Copy::new())], 200.0), []);
    }

    #[test]
    fn a_difference_counts_when_it_lasts() {
        let others = ["n".to_owned()];
        let begin = Situation { begins: true, ..situation("m", &others, 0.0) };
        let Some(Step::Read(mut reading)) = next(&[], &begin) else { panic!("it reads its copy") };
        reading.add([("a", 100.0)]);
        let (own, _) = reading.end();
        let peer = Summary { node: "n".to_owned(), leaves: Vec::new(), ..own.clone() };
        let both = [own, peer];
        assert!(next(&both, &situation("m", &others, SECOND_LOOK_MS - 1.0)).is_none());
        assert!(matches!(next(&both, &situation("m", &others, SECOND_LOOK_MS)), Some(Step::Read(_))));
    }

    #[test]
    fn a_node_that_tells_nothing_is_not_waited_for_forever() {
        let others = ["n".to_owned()];
        let begin = Situation { begins: true, ..situation("m", &others, 0.0) };
        let Some(Step::Read(reading)) = next(&[], &begin) else { panic!("it reads its copy") };
        let own = [reading.end().0];
        assert!(next(&own, &situation("m", &others, PATIENCE_MS - 1.0)).is_none());
        let Some(Step::Tell(done, None)) = next(&own, &situation("m", &others, PATIENCE_MS)) else {
            panic!("it ends")
        };
        assert_eq!(done.stage, Stage::Done);
    }

    #[test]
    fn a_node_that_is_done_has_told_what_the_others_need() {
        let others = ["n".to_owned()];
        let begin = Situation { begins: true, ..situation("m", &others, 0.0) };
        let Some(Step::Read(reading)) = next(&[], &begin) else { panic!("it reads its copy") };
        let told = Summary { close: vec![100.0], ..reading.end().0 };
        let own = Summary { stage: Stage::Rows, rows: vec![(100.0, 1)], ..told.clone() };
        let peer = Summary { stage: Stage::Rows, node: "n".to_owned(), ..told };
        let both = [own.clone(), peer];
        // It lacks everything, so it has nothing to put again.
        let Some(Step::Tell(done, None)) = next(&both, &situation("n", &["m".to_owned()], 0.0)) else {
            panic!("it ends")
        };
        assert_eq!(done.stage, Stage::Done);
        assert!(matches!(next(&[own, *done], &situation("m", &others, 0.0)), Some(Step::Read(_))));
    }

    #[test]
    fn what_others_have_written_before_is_waited_for() {
        let others = ["m".to_owned()];
        let begin = Situation { begins: true, ..situation("m", &others, 0.0) };
        let Some(Step::Read(reading)) = next(&[], &begin) else { panic!("it reads its copy") };
        let told = [reading.end().0];
        let others = ["m".to_owned()];
        let deaf = Situation { heard: UNTIL - 1.0, ..situation("n", &others, 0.0) };
        assert!(next(&told, &deaf).is_none());
        assert!(matches!(next(&told, &situation("n", &others, 0.0)), Some(Step::Read(_))));
    }

    #[test]
    fn a_row_that_is_put_again_gets_the_smallest_later_time() {
        let at = 1_795_419_866_354.541_3;
        assert!(stamp_after(at) > at && stamp_after(at) - at < 0.001);
    }

    #[test]
    fn deletions_that_harper_may_have_forgotten_are_known_with_a_margin() {
        assert_eq!(forgotten_until(1.0, 5.0), 5.0);
        assert_eq!(forgotten_until(10.0 * MARGIN_MS, 5.0), 11.0 * MARGIN_MS);
    }

    #[test]
    fn it_is_told_which_rows_were_put_again() {
        let note = mended("m", &["n".to_owned()], 1_704_067_200_000.25, 3);
        assert_eq!(note.kind, "copies_mended");
        assert_eq!(
            note.reason,
            "n lacked 3 rows of 2024-01-01T00:00:00.000000Z; m has put them again, and asked BigQuery nothing"
        );
    }
}
