//! Who is there, and who does what: the live workers of all nodes in one order, without a coordinator.

use crate::time::{Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A node of which nothing was heard for so long is out.
const SILENT_US: i64 = 45 * SECOND_US;
/// Who starts waits for so long to hear of everybody before the work is divided among those who were heard of.
const ARRIVAL_US: i64 = 20 * SECOND_US;
/// The cluster is settled when everybody has been there for so long: what they wrote before has reached all.
const SETTLING_US: i64 = 60 * SECOND_US;
/// What was seen so long ago tells nothing of now.
const STALE_US: i64 = 15 * SECOND_US;
/// Threads of a node that count, at most.
const WORKERS_MAX: u32 = 1_024;

/// What a node tells of itself, in the table SyncNode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The node's name.
    #[serde(rename = "id")]
    pub node: String,
    /// How many workers it runs.
    pub workers: u32,
    /// Changes with each heartbeat.
    pub beat: u64,
    /// Whether another node tells that this one was removed from the cluster; Harper's own news of it may get lost.
    #[serde(default)]
    pub removed: bool,
}

/// A worker's place in the order of all live workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Counted from 0.
    pub position: u32,
    /// How many there are; none means that nobody knows yet.
    pub workers: u32,
}

/// What a worker has to know of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Its share of the work.
    pub share: Share,
    /// Whether all members have been there for a while, so that nobody else may still write for the same partitions.
    pub is_settled: bool,
    /// When that was seen, by the worker's clock; none where there is nobody else.
    #[serde(with = "instant")]
    pub seen_at: Option<Micros>,
}

impl Share {
    /// Of one who is alone.
    pub const WHOLE: Share = Share { position: 0, workers: 1 };

    /// Of one who does not know yet.
    pub const UNKNOWN: Share = Share { position: 0, workers: 0 };

    /// Tells whether the worker owns a partition. Tables that are one partition are told apart by `offset`, so that
    /// different ones go to different workers.
    pub fn owns(self, partition: u32, offset: u32) -> bool {
        let turn = (u64::from(partition) + u64::from(offset)).checked_rem(u64::from(self.workers));
        turn == Some(u64::from(self.position))
    }
}

impl Standing {
    /// Of one who is alone.
    pub const ALONE: Standing = Standing { share: Share::WHOLE, is_settled: true, seen_at: None };

    /// Tells whether the cluster is settled for all that can be known now. Whoever was paused knows only of before.
    pub fn is_settled_at(self, now: Micros) -> bool {
        self.is_settled && self.seen_at.is_none_or(|at| (0..STALE_US).contains(&now.since(at)))
    }
}

/// What one worker knows of the nodes, by its own clock.
#[derive(Debug, Clone)]
pub struct Observer {
    node: String,
    members: BTreeSet<String>,
    seen: BTreeMap<String, Sight>,
    started_at: Micros,
    /// Who was alive when it was last looked, and since when these were.
    live: BTreeMap<String, u32>,
    live_since: Micros,
    observed_at: Micros,
}

#[derive(Debug, Clone, Copy)]
struct Sight {
    beat: u64,
    workers: u32,
    changed_at: Micros,
}

/// A node, for the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// How many workers it runs.
    pub workers: u32,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// Since when nothing was heard of it; absent while it is alive.
    pub silent_since: Option<String>,
}

impl Observer {
    /// Starts to look around from `node`.
    pub fn new(node: &str, now: Micros) -> Observer {
        Observer {
            node: node.to_owned(),
            members: BTreeSet::new(),
            seen: BTreeMap::new(),
            started_at: now,
            live: BTreeMap::new(),
            live_since: now,
            observed_at: now,
        }
    }

    /// Takes what the nodes last told of themselves. A node that is not among the cluster's `members` is forgotten;
    /// one that is seen for the first time counts as alive, for its clock may be any.
    pub fn observe(&mut self, heartbeats: &[Heartbeat], members: BTreeSet<String>, now: Micros) {
        self.members = members;
        for Heartbeat { node, .. } in heartbeats.iter().filter(|one| one.removed) {
            self.members.remove(node);
        }
        self.members.insert(self.node.clone());
        self.seen.retain(|node, _| self.members.contains(node));
        for Heartbeat { node, workers, beat, .. } in
            heartbeats.iter().filter(|one| self.members.contains(&one.node))
        {
            let changed = self.seen.get(node).is_none_or(|sight| sight.beat != *beat);
            let changed_at =
                if changed { now } else { self.seen.get(node).map_or(now, |sight| sight.changed_at) };
            // An own clock that was set back must not make the dead live for long.
            let changed_at = changed_at.min(now);
            let workers = (*workers).clamp(1, WORKERS_MAX);
            self.seen.insert(node.clone(), Sight { beat: *beat, workers, changed_at });
        }
        let alive = self.seen.iter().filter(|(_, sight)| sight.is_alive(now));
        let live = alive.map(|(node, sight)| (node.clone(), sight.workers)).collect();
        // Whoever was paused has not seen what happened meanwhile.
        let was_paused = !(0..STALE_US).contains(&now.since(self.observed_at));
        self.observed_at = now;
        if was_paused || self.live != live {
            self.live = live;
            self.live_since = now;
        }
        self.live_since = self.live_since.min(now);
        self.started_at = self.started_at.min(now);
    }

    /// Tells where worker `index` of the own node stands, which runs `workers` of them.
    ///
    /// All first workers come before all second ones: few tables then go to different nodes.
    pub fn standing(&self, index: u32, workers: u32, now: Micros) -> Standing {
        if self.members.len() <= 1 {
            let share = Share { position: index, workers: workers.clamp(1, WORKERS_MAX) };
            return Standing { share, is_settled: true, seen_at: None };
        }
        let is_heard = |node: &String| *node == self.node || self.seen.contains_key(node);
        if !self.members.iter().all(is_heard) && now.since(self.started_at) < ARRIVAL_US {
            return Standing { share: Share::UNKNOWN, is_settled: false, seen_at: Some(now) };
        }
        let others = self.seen.iter().filter(|(name, sight)| **name != self.node && sight.is_alive(now));
        let mut live: BTreeMap<&str, u32> =
            others.map(|(name, sight)| (name.as_str(), sight.workers)).collect();
        live.insert(&self.node, workers.clamp(1, WORKERS_MAX));
        let is_before = |name: &str, count: u32| u32::from(name < self.node.as_str() && count > index);
        let before = |(name, count): (&&str, &u32)| (*count).min(index) + is_before(name, *count);
        let share = Share { position: live.iter().map(before).sum(), workers: live.values().sum() };
        let all_there = self.members.iter().all(|member| live.contains_key(member.as_str()));
        let is_settled = all_there && now.since(self.live_since) >= SETTLING_US;
        Standing { share, is_settled, seen_at: Some(now) }
    }

    /// Tells of each member that was ever heard of.
    pub fn nodes(&self, now: Micros) -> Vec<NodeStatus> {
        let status = |(node, sight): (&String, &Sight)| {
            let alive = sight.is_alive(now);
            let silent_since = (!alive).then(|| sight.changed_at.to_string());
            NodeStatus { node: node.clone(), workers: sight.workers, alive, silent_since }
        };
        self.seen.iter().map(status).collect()
    }
}

impl Sight {
    fn is_alive(self, now: Micros) -> bool {
        now.since(self.changed_at) < SILENT_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heartbeat(node: &str, workers: u32, beat: u64) -> Heartbeat {
        Heartbeat { node: node.to_owned(), workers, beat, removed: false }
    }

    fn members(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn at(seconds: i64) -> Micros {
        Micros(seconds * SECOND_US)
    }

    fn observer(everybody: &[&str]) -> Observer {
        let mut observer = Observer::new("a", at(0));
        let heartbeats: Vec<Heartbeat> = everybody.iter().map(|name| heartbeat(name, 2, 1)).collect();
        observer.observe(&heartbeats, members(everybody), at(0));
        observer
    }

    #[test]
    fn a_node_that_falls_silent_is_out_after_a_while_and_in_again_when_it_speaks() {
        let mut observer = observer(&["a", "b"]);
        let share = |observer: &Observer, second| observer.standing(0, 1, at(second)).share;
        assert_eq!(share(&observer, 44), Share { position: 0, workers: 3 });
        observer.observe(&[heartbeat("a", 2, 2), heartbeat("b", 2, 1)], members(&["a", "b"]), at(30));
        assert_eq!(share(&observer, 46), Share { position: 0, workers: 1 });
        let alive: Vec<bool> = observer.nodes(at(46)).iter().map(|node| node.alive).collect();
        assert_eq!(alive, [true, false]);
        observer.observe(&[heartbeat("b", 2, 8)], members(&["a", "b"]), at(100));
        assert_eq!(share(&observer, 101), Share { position: 0, workers: 3 });
        observer.observe(&[heartbeat("b", 2, 9)], members(&["a"]), at(102));
        assert_eq!(share(&observer, 102), Share { position: 0, workers: 1 });
    }

    #[test]
    fn a_node_that_another_one_tells_was_removed_is_not_waited_for_unless_it_speaks_again() {
        let both = || members(&["a", "b"]);
        let mut observer = observer(&["a", "b"]);
        let removed = Heartbeat { removed: true, ..heartbeat("b", 1, 1) };
        for second in (0..=60).step_by(5) {
            observer.observe(&[heartbeat("a", 1, 1), removed.clone()], both(), at(second));
        }
        let standing = observer.standing(0, 1, at(60));
        assert_eq!((standing.share, standing.is_settled), (Share::WHOLE, true));
        observer.observe(&[heartbeat("b", 1, 2)], both(), at(61));
        assert_eq!(observer.standing(0, 1, at(61)).share, Share { position: 0, workers: 2 });
        // Nobody believes it of oneself.
        observer.observe(&[Heartbeat { removed: true, ..heartbeat("a", 1, 3) }], both(), at(62));
        assert_eq!(observer.standing(0, 1, at(62)).share, Share { position: 0, workers: 2 });
    }

    #[test]
    fn an_own_clock_that_jumps_back_does_not_keep_the_dead_alive() {
        let mut observer = Observer::new("a", at(10_000));
        observer.observe(&[heartbeat("b", 1, 1)], members(&["a", "b"]), at(10_000));
        observer.observe(&[heartbeat("b", 1, 1)], members(&["a", "b"]), at(10));
        assert_eq!(observer.standing(0, 1, at(60)).share, Share { position: 0, workers: 1 });
    }

    #[test]
    fn the_work_is_not_divided_before_everybody_was_heard_of_or_had_the_time_to_be() {
        let mut observer = observer(&["a"]);
        observer.observe(&[heartbeat("a", 1, 1)], members(&["a", "b"]), at(1));
        assert_eq!(observer.standing(0, 1, at(19)).share, Share::UNKNOWN);
        assert_eq!(observer.standing(0, 1, at(21)).share, Share { position: 0, workers: 1 });
        observer.observe(&[heartbeat("b", 1, 1)], members(&["a", "b"]), at(22));
        assert_eq!(observer.standing(0, 1, at(22)).share, Share { position: 0, workers: 2 });
    }

    #[test]
    fn the_cluster_is_settled_once_all_members_have_been_there_for_a_minute() {
        let everybody = || members(&["a", "b"]);
        let mut observer = observer(&["a", "b"]);
        let beats = |second: u64| [heartbeat("a", 1, second), heartbeat("b", 1, second)];
        observer.observe(&beats(5), everybody(), at(5));
        assert!(!observer.standing(0, 1, at(64)).is_settled);
        for second in (10..=60).step_by(5) {
            observer.observe(&beats(second), everybody(), at(second as i64));
        }
        assert!(observer.standing(0, 1, at(66)).is_settled);
        // A pause of the observer's own is as long a silence.
        observer.observe(&beats(90), everybody(), at(90));
        assert!(!observer.standing(0, 1, at(91)).is_settled);
        observer.observe(&beats(90), everybody(), at(136));
        assert!(!observer.standing(0, 1, at(136)).is_settled);
        assert!(Observer::new("a", at(0)).standing(0, 1, at(0)).is_settled);
    }

    proptest! {
        #[test]
        fn workers_that_see_the_same_agree_on_the_order(counts in prop::collection::vec(1..9_u32, 1..6), partition in 0..4_096_u32, offset in 0..100_u32) {
            let names: Vec<String> = (0..counts.len()).map(|node| format!("node{node}")).collect();
            let heartbeats: Vec<Heartbeat> =
                names.iter().zip(&counts).map(|(name, workers)| heartbeat(name, *workers, 1)).collect();
            let shares: Vec<Share> = heartbeats
                .iter()
                .flat_map(|one| {
                    let mut observer = Observer::new(&one.node, at(0));
                    observer.observe(&heartbeats, names.iter().cloned().collect(), at(0));
                    (0..one.workers).map(move |index| observer.standing(index, one.workers, at(1)).share)
                })
                .collect();
            let mut positions: Vec<u32> = shares.iter().map(|share| share.position).collect();
            positions.sort_unstable();
            prop_assert_eq!(positions, (0..counts.iter().sum()).collect::<Vec<u32>>());
            prop_assert_eq!(shares.iter().filter(|share| share.owns(partition, offset)).count(), 1);
        }
    }
}
