//! What one worker knows of the cluster, by its own clock: the live nodes, its own share, and partitions that nobody
//! reads.

use super::alarms::{Alarm, Alarms, Concern};
use super::roster::{Partitions, Roster, Running};
use super::{Heartbeat, STALE_US, Share, Standing, WORKERS_MAX};
use crate::log::Line;
use crate::time::{Micros, SECOND_US};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A node that was silent for so long counts as down.
const SILENT_US: i64 = 45 * SECOND_US;
/// A node that starts waits for so long to hear all others. Then the work is divided among those that it has heard.
const ARRIVAL_US: i64 = 20 * SECOND_US;
/// The cluster is settled when all nodes have been alive for so long: what they wrote before has reached all others.
const SETTLING_US: i64 = 60 * SECOND_US;
/// Nodes notice events at different moments. If nodes see different nodes for longer than this, a connection works in
/// one direction only.
const DISAGREEMENT_US: i64 = 30 * SECOND_US;
/// A table that others have read for so long was not started just now.
const ELSEWHERE_US: i64 = 10 * SECOND_US;
/// Problems that end sooner are not reported.
const LASTING_US: i64 = 60 * SECOND_US;

/// What tells lives apart is smaller.
const LIVES: u64 = 1 << 52;

/// What one worker knows of the nodes.
#[derive(Debug, Clone)]
pub struct Observer {
    node: String,
    members: BTreeSet<String>,
    seen: BTreeMap<String, Sight>,
    rosters: BTreeMap<String, Roster>,
    started_at: Micros,
    observed_at: Micros,
    /// The nodes that each visible node sees, and since when.
    views: Lasting<BTreeMap<String, BTreeSet<String>>>,
    /// Which workers run a table, and since when.
    crews: BTreeMap<String, Lasting<BTreeSet<(u32, String)>>>,
    /// Since when a node has seen others than this one does.
    differs_since: BTreeMap<String, Micros>,
    /// Since when other nodes have read a table.
    elsewhere_since: BTreeMap<String, Micros>,
    alarms: Alarms,
    /// Divides the waiting times.
    haste: i64,
}

#[derive(Debug, Clone, Copy)]
struct Sight {
    beat: u64,
    workers: u32,
    started: u64,
    changed_at: Micros,
}

#[derive(Debug, Clone)]
struct Lasting<T> {
    what: T,
    since: Micros,
}

/// A node, for the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// How many workers it has; zero if it was never heard.
    pub workers: u32,
    /// Whether its heartbeat was heard lately.
    pub alive: bool,
    /// Since when it has been silent; absent while it is alive, or if it was never heard.
    pub silent_since: Option<String>,
    /// The nodes that do not hear it, although this one hears both.
    pub unheard_by: Vec<String>,
}

/// Partitions of a table that no worker reads, for the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Their numbers.
    pub partitions: Vec<u32>,
    /// How many partitions the table has; zero if no worker that runs the table knows, and nobody reads anything of it.
    pub of: u32,
    /// Since when, as far as this worker knows.
    pub since: Option<String>,
}

impl<T: PartialEq> Lasting<T> {
    fn set(&mut self, what: T, now: Micros, is_new: bool) {
        if is_new || self.what != what {
            self.what = what;
            self.since = now;
        }
        self.since = self.since.min(now);
    }

    fn lasts(&self, us: i64, now: Micros) -> bool {
        now.since(self.since) >= us
    }
}

impl Observer {
    /// Starts to observe the cluster from `node`.
    pub fn new(node: &str, now: Micros) -> Observer {
        Observer {
            node: node.to_owned(),
            members: BTreeSet::new(),
            seen: BTreeMap::new(),
            rosters: BTreeMap::new(),
            started_at: now,
            observed_at: now,
            views: Lasting { what: BTreeMap::new(), since: now },
            crews: BTreeMap::new(),
            differs_since: BTreeMap::new(),
            elsewhere_since: BTreeMap::new(),
            alarms: Alarms::default(),
            haste: 1,
        }
    }

    /// Divides the waiting times by `haste`, so that tests of real nodes take less time.
    #[must_use]
    pub fn in_haste(self, times: u32) -> Observer {
        Observer { haste: i64::from(times.max(1)), ..self }
    }

    /// Takes the last heartbeats of the nodes. A node that is not among the cluster's `members` is forgotten. A node
    /// that is seen for the first time counts as alive, whatever its clock shows.
    pub fn observe<'h>(
        &mut self,
        heartbeats: impl Iterator<Item = &'h Heartbeat> + Clone,
        members: BTreeSet<String>,
        now: Micros,
    ) {
        let members_before = std::mem::replace(&mut self.members, members);
        for Heartbeat { node, .. } in heartbeats.clone().filter(|one| one.removed) {
            self.members.remove(node);
        }
        self.members.insert(self.node.clone());
        self.seen.retain(|node, _| self.members.contains(node));
        let tells = |node: &String| heartbeats.clone().any(|one| one.node == *node && one.roster.is_some());
        let rosters_before = self.rosters.len();
        self.rosters.retain(|node, _| self.members.contains(node) && tells(node));
        let mut is_news = members_before != self.members || rosters_before != self.rosters.len();
        for heartbeat in heartbeats {
            is_news |= self.hear(heartbeat, now);
        }
        self.started_at = self.started_at.min(now);
        // After a pause, this worker has not seen what happened meanwhile.
        let was_paused = !(0..STALE_US).contains(&now.since(self.observed_at));
        self.observed_at = now;
        if is_news || was_paused {
            self.compare(now, was_paused);
        } else {
            self.step_back(now);
        }
    }

    /// Takes a heartbeat. Returns whether the node's roster has changed.
    fn hear(&mut self, heartbeat: &Heartbeat, now: Micros) -> bool {
        let Heartbeat { node, workers, beat, started, roster, .. } = heartbeat;
        if !self.members.contains(node) {
            return false;
        }
        let before = self.seen.get(node).filter(|sight| sight.beat == *beat);
        // A clock that was set back must not keep dead nodes alive for long.
        let changed_at = before.map_or(now, |sight| sight.changed_at).min(now);
        let workers = (*workers).clamp(1, WORKERS_MAX);
        self.seen.insert(node.clone(), Sight { beat: *beat, workers, started: *started, changed_at });
        let Some(roster) = roster.as_ref().filter(|roster| self.rosters.get(node) != Some(roster)) else {
            return false;
        };
        self.rosters.insert(node.clone(), roster.clone());
        true
    }

    /// Adjusts all times, so that a clock that was set back does not delay anything.
    fn step_back(&mut self, now: Micros) {
        let crews = self.crews.values_mut().map(|crew| &mut crew.since);
        let since = self.differs_since.values_mut().chain(self.elsewhere_since.values_mut()).chain(crews);
        for at in since.chain([&mut self.views.since]) {
            *at = (*at).min(now);
        }
    }

    /// Notes since when the nodes' views and the tables' workers have been the same.
    fn compare(&mut self, now: Micros, was_paused: bool) {
        let view = self.view();
        let sees =
            |node: &String| self.rosters.get(node).map(|roster| roster.sees.clone()).unwrap_or_default();
        let views: BTreeMap<String, BTreeSet<String>> =
            view.iter().map(|node| (node.clone(), sees(node))).collect();
        let differing: BTreeSet<String> =
            views.iter().filter(|(_, sees)| **sees != view).map(|(node, _)| node.clone()).collect();
        since(&mut self.differs_since, &differing, now);
        let mut crews: BTreeMap<String, BTreeSet<(u32, String)>> = BTreeMap::new();
        let mut elsewhere = BTreeSet::new();
        for (node, roster) in self.rosters.iter().filter(|(node, _)| view.contains(*node)) {
            for table in &roster.tables {
                let crew = crews.entry(table.id.clone()).or_default();
                crew.extend(table.workers.iter().map(|index| (*index, node.clone())));
                if *node != self.node && !table.reads.is_empty() {
                    elsewhere.insert(table.id.clone());
                }
            }
        }
        since(&mut self.elsewhere_since, &elsewhere, now);
        self.views.set(views, now, was_paused);
        self.crews.retain(|id, _| crews.contains_key(id));
        for (id, crew) in crews {
            let known = self.crews.entry(id).or_insert(Lasting { what: BTreeSet::new(), since: now });
            known.set(crew, now, was_paused);
        }
    }

    /// Returns the roster that the node should write. Its threads run `tables`. The node acts on the roster once it is
    /// written.
    pub fn roster(&self, tables: Vec<Running>, now: Micros) -> Roster {
        let is_heard = |node: &String| *node == self.node || self.seen.contains_key(node);
        if !self.members.iter().all(is_heard) && now.since(self.started_at) < ARRIVAL_US / self.haste {
            return Roster { sees: BTreeSet::new(), tables };
        }
        let alive =
            self.seen.iter().filter(|(_, sight)| self.is_alive(sight, now)).map(|(node, _)| node.clone());
        Roster { sees: alive.chain([self.node.clone()]).collect(), tables }
    }

    /// Tells whether the node's last roster is still right.
    pub fn is_told(&self, roster: &Roster) -> bool {
        self.rosters.get(&self.node) == Some(roster)
    }

    /// Tells whether other nodes have read a table for a while.
    pub fn is_read_elsewhere(&self, table: &str, now: Micros) -> bool {
        self.elsewhere_since.get(table).is_some_and(|since| now.since(*since) >= ELSEWHERE_US)
    }

    /// Returns the place of this node's worker `index` among the workers that run a table.
    ///
    /// The first workers of all nodes come before all second ones, so that a few tables go to different nodes. If
    /// connections work in one direction only, nodes would divide the work in different ways, and nobody would read
    /// some partitions. So only nodes that see the same nodes divide the work. If there are several such groups, the
    /// one that sees most nodes does.
    pub fn standing(&self, table: &str, index: u32, now: Micros) -> Standing {
        let is_alone = self.members.len() <= 1;
        let seen_at = (!is_alone).then_some(now);
        let view = self.view();
        let group: BTreeSet<&String> = view.iter().filter(|node| !self.differs(node, now)).collect();
        let order = self.order(&group, table);
        let position = order.iter().position(|(at, node)| *at == index && *node == self.node.as_str());
        let share = match position {
            Some(position) if !self.yields(&view, &group, table, now) => Share {
                position: u32::try_from(position).unwrap_or(u32::MAX),
                workers: u32::try_from(order.len()).unwrap_or(u32::MAX),
            },
            Some(_) | None => Share::NONE,
        };
        let is_mutual = self.members.iter().all(|member| self.views.what.get(member) == Some(&self.members));
        let settling_us = SETTLING_US / self.haste;
        let is_calm = self.views.lasts(settling_us, now)
            && self.crews.get(table).is_some_and(|crew| crew.lasts(settling_us, now));
        Standing { share, is_settled: is_alone || (is_mutual && is_calm), seen_at, lives: self.lives() }
    }

    /// Returns a number that changes when another node starts. JavaScript can hold it.
    fn lives(&self) -> u64 {
        let others = self.seen.iter().filter(|(node, _)| **node != self.node);
        others.fold(0, |sum, (_, sight)| (sum + sight.started % LIVES) % LIVES)
    }

    /// Returns the workers that share a table, in order: those that can proceed, or all if none can.
    fn order<'g>(&self, group: &BTreeSet<&'g String>, table: &str) -> Vec<(u32, &'g str)> {
        let (mut well, mut all) = (Vec::new(), Vec::new());
        for node in group {
            let Some(found) = self.rosters.get(*node).and_then(|roster| roster.table(table)) else {
                continue;
            };
            for index in &found.workers {
                all.push((*index, node.as_str()));
                if !found.troubled.contains(index) {
                    well.push((*index, node.as_str()));
                }
            }
        }
        let mut order = if well.is_empty() { all } else { well };
        order.sort_unstable();
        order
    }

    /// Tells whether this group leaves the work to another group, which divides it differently.
    ///
    /// The nodes of a group know it completely; other nodes may know only a part of it. A group yields only to one of a
    /// higher rank. So there is one that yields to nobody.
    fn yields(&self, view: &BTreeSet<String>, group: &BTreeSet<&String>, table: &str, now: Micros) -> bool {
        let mut rivals: BTreeMap<&BTreeSet<String>, BTreeSet<&String>> = BTreeMap::new();
        for node in view.iter().filter(|node| self.differs(node, now)) {
            if let Some(roster) = self.rosters.get(node).filter(|roster| !roster.sees.is_empty()) {
                rivals.entry(&roster.sees).or_default().insert(node);
            }
        }
        let rank = |sees: &BTreeSet<String>, nodes: &BTreeSet<&String>| {
            (sees.len(), nodes.len(), Reverse(nodes.first().map(|node| (*node).clone())))
        };
        let own = rank(view, group);
        rivals.iter().any(|(sees, nodes)| rank(sees, nodes) > own && !self.order(nodes, table).is_empty())
    }

    /// Returns the nodes that this one sees, by its own roster; none as long as it does not know.
    fn view(&self) -> BTreeSet<String> {
        let told = self.rosters.get(&self.node).map(|roster| &roster.sees);
        told.map(|sees| sees.intersection(&self.members).cloned().collect()).unwrap_or_default()
    }

    fn is_alive(&self, sight: &Sight, now: Micros) -> bool {
        now.since(sight.changed_at) < SILENT_US / self.haste
    }

    fn differs(&self, node: &str, now: Micros) -> bool {
        self.differs_since.get(node).is_some_and(|since| now.since(*since) >= DISAGREEMENT_US / self.haste)
    }

    /// Returns the status of each member.
    pub fn nodes(&self, now: Micros) -> Vec<NodeStatus> {
        let view = self.view();
        let status = |node: &String| {
            let sight = self.seen.get(node);
            let alive = sight.is_some_and(|sight| self.is_alive(sight, now));
            let silent = sight.filter(|_| !alive);
            NodeStatus {
                node: node.clone(),
                workers: sight.map_or(0, |sight| sight.workers),
                alive,
                silent_since: silent.map(|sight| sight.changed_at.to_string()),
                unheard_by: self.unheard_by(node, &view, now),
            }
        };
        let is_known = |node: &&String| **node != self.node || self.seen.contains_key(*node);
        self.members.iter().filter(is_known).map(status).collect()
    }

    fn unheard_by(&self, node: &String, view: &BTreeSet<String>, now: Micros) -> Vec<String> {
        let misses = |other: &&String| {
            let roster = self.rosters.get(*other).filter(|roster| !roster.sees.is_empty());
            roster.is_some_and(|roster| !roster.sees.contains(node)) && self.differs(other, now)
        };
        match view.contains(node) {
            true => view.iter().filter(|other| *other != node).filter(misses).cloned().collect(),
            false => Vec::new(),
        }
    }

    /// Finds the partitions of a table that no worker reads, on any node that can be heard.
    pub fn unread(&self, table: &str) -> Option<Unread> {
        let view = self.view();
        let rosters = self.rosters.iter().filter(|(node, _)| view.contains(*node));
        let running: Vec<&Running> = rosters.filter_map(|(_, roster)| roster.table(table)).collect();
        let of = running.iter().map(|found| found.of).max().unwrap_or(0);
        let mut read = Partitions::default();
        for found in running.iter().filter(|found| found.of == of) {
            read.extend(found.reads.iter());
        }
        let read: BTreeSet<u32> = read.iter().collect();
        let partitions: Vec<u32> = (0..of.max(1)).filter(|partition| !read.contains(partition)).collect();
        let since = self.alarms.since(&unread_key(table)).map(|since| since.to_string());
        (!partitions.is_empty()).then_some(Unread { partitions, of, since })
    }

    /// Looks for problems, and returns what has to be logged. `wanted` are the tables that should be read.
    pub fn watch(&mut self, wanted: &[String], now: Micros) -> Vec<Line> {
        let mut concerns: Vec<Concern> =
            wanted.iter().filter_map(|table| self.unread_concern(table)).collect();
        for NodeStatus { node, alive, silent_since, unheard_by, .. } in self.nodes(now) {
            if !alive && silent_since.is_none() {
                let text = format!(
                    "the node {node} is a member of the cluster, but none of its heartbeats has arrived: if it runs, \
                     Harper has not connected its database to that of this node; restart Harper on {node}, and look \
                     at cluster_status"
                );
                concerns.push(Concern { key: format!("unconnected {node}"), text });
            } else if !unheard_by.is_empty() {
                let text = format!(
                    "the node {node} is heard here, but not by {}: restart Harper on one of them, and look at \
                     cluster_status",
                    unheard_by.join(", ")
                );
                concerns.push(Concern { key: format!("unheard {node}"), text });
            }
        }
        self.alarms.note(concerns, LASTING_US / self.haste, now)
    }

    fn unread_concern(&self, table: &str) -> Option<Concern> {
        let Unread { partitions, of, .. } = self.unread(table)?;
        let what = match of {
            0 | 1 => "no worker reads the table".to_owned(),
            of => format!("no worker reads {} of the {of} partitions", partitions.len()),
        };
        let text = format!("{table}: {what}: GET /SyncControl tells what is in the way on each node");
        Some(Concern { key: unread_key(table), text })
    }

    /// Lists the problems that have lasted for a while.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.lasting()
    }
}

fn unread_key(table: &str) -> String {
    format!("unread {table}")
}

/// Remembers since when each thing has been so.
fn since(known: &mut BTreeMap<String, Micros>, found: &BTreeSet<String>, now: Micros) {
    known.retain(|name, _| found.contains(name));
    for name in found {
        let at = known.entry(name.clone()).or_insert(now);
        *at = (*at).min(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "t";
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn at(seconds: i64) -> Micros {
        Micros(seconds * SECOND_US)
    }

    fn running(workers: impl IntoIterator<Item = u32>) -> Running {
        Running { id: TABLE.to_owned(), workers: workers.into_iter().collect(), ..Running::default() }
    }

    /// Nodes that hear of some others.
    struct Net {
        members: BTreeSet<String>,
        observers: BTreeMap<String, Observer>,
        /// Of each node what arrived of each, its own included.
        arrived: BTreeMap<String, BTreeMap<String, Heartbeat>>,
        runs: BTreeMap<String, Running>,
        /// Who hears no more of whom.
        deaf: BTreeSet<(String, String)>,
        silent: BTreeSet<String>,
        second: i64,
    }

    impl Net {
        /// Starts nodes with so many workers each.
        fn of(workers: &[u32]) -> Net {
            let names: Vec<String> = NAMES.iter().zip(workers).map(|(name, _)| (*name).to_owned()).collect();
            Net {
                members: names.iter().cloned().collect(),
                observers: names.iter().map(|name| (name.clone(), Observer::new(name, at(0)))).collect(),
                arrived: names.iter().map(|name| (name.clone(), BTreeMap::new())).collect(),
                runs: names.iter().cloned().zip(workers.iter().map(|count| running(0..*count))).collect(),
                deaf: BTreeSet::new(),
                silent: BTreeSet::new(),
                second: 0,
            }
        }

        fn deafen(&mut self, hearer: &str, speaker: &str) {
            self.deaf.insert((hearer.to_owned(), speaker.to_owned()));
        }

        /// Lets all of them beat, every five seconds.
        fn pass(&mut self, seconds: i64) {
            let end = self.second + seconds;
            while self.second < end {
                self.second += 5;
                for name in self.members.clone() {
                    if !self.silent.contains(&name) {
                        self.beat(&name);
                    }
                }
            }
        }

        fn beat(&mut self, name: &str) {
            self.observe(name);
            let roster = self.observers[name].roster(vec![self.runs[name].clone()], at(self.second));
            let heartbeat = Heartbeat {
                node: name.to_owned(),
                workers: 2,
                beat: self.second.unsigned_abs(),
                started: self.observers[name].started_at.0.unsigned_abs(),
                removed: false,
                roster: Some(roster),
            };
            for hearer in self.members.clone() {
                if !self.deaf.contains(&(hearer.clone(), name.to_owned())) {
                    let arrived = self.arrived.get_mut(&hearer).unwrap();
                    arrived.insert(name.to_owned(), heartbeat.clone());
                }
            }
            self.observe(name);
        }

        fn observe(&mut self, name: &str) {
            let heartbeats: Vec<Heartbeat> = self.arrived[name].values().cloned().collect();
            let observer = self.observers.get_mut(name).unwrap();
            observer.observe(heartbeats.iter(), self.members.clone(), at(self.second));
        }

        fn standing(&self, name: &str, index: u32) -> Standing {
            self.observers[name].standing(TABLE, index, at(self.second))
        }

        fn share(&self, name: &str, index: u32) -> Share {
            self.standing(name, index).share
        }

        /// How many workers of all nodes read each of some partitions.
        fn readers(&self, partitions: u32) -> Vec<usize> {
            let shares: Vec<Share> = self
                .runs
                .iter()
                .flat_map(|(name, table)| table.workers.iter().map(|index| self.share(name, *index)))
                .collect();
            let count = |partition| shares.iter().filter(|share| share.owns(partition, 0)).count();
            (0..partitions).map(count).collect()
        }
    }

    #[test]
    fn a_node_that_falls_silent_is_out_after_a_while_and_in_again_when_it_speaks() {
        let mut net = Net::of(&[1, 2]);
        net.pass(10);
        assert_eq!(net.share("a", 0), Share { position: 0, workers: 3 });
        net.silent.insert("b".to_owned());
        net.pass(40);
        assert_eq!(net.share("a", 0), Share { position: 0, workers: 3 });
        net.pass(10);
        assert_eq!(net.share("a", 0), Share::WHOLE);
        let nodes = net.observers["a"].nodes(at(net.second));
        assert_eq!(nodes.iter().map(|node| node.alive).collect::<Vec<_>>(), [true, false]);
        net.silent.clear();
        net.pass(10);
        assert_eq!(net.share("a", 0), Share { position: 0, workers: 3 });
        net.members.remove("b");
        net.pass(5);
        assert_eq!(net.share("a", 0), Share::WHOLE);
    }

    #[test]
    fn a_node_that_another_one_tells_was_removed_is_not_waited_for_unless_it_speaks_again() {
        let mut net = Net::of(&[1, 1]);
        net.pass(10);
        net.silent.insert("b".to_owned());
        net.arrived.get_mut("a").unwrap().get_mut("b").unwrap().removed = true;
        net.pass(70);
        assert_eq!((net.share("a", 0), net.standing("a", 0).is_settled), (Share::WHOLE, true));
        net.silent.clear();
        net.pass(10);
        assert_eq!(net.share("a", 0), Share { position: 0, workers: 2 });
        // Nobody believes it of oneself.
        net.arrived.get_mut("a").unwrap().get_mut("a").unwrap().removed = true;
        net.observe("a");
        assert_eq!(net.share("a", 0), Share { position: 0, workers: 2 });
    }

    #[test]
    fn an_own_clock_that_jumps_back_does_not_keep_the_dead_alive() {
        let mut net = Net::of(&[1, 1]);
        net.second = 10_000;
        net.pass(10);
        net.silent.insert("b".to_owned());
        net.second = 10;
        net.pass(60);
        assert_eq!(net.share("a", 0), Share::WHOLE);
    }

    #[test]
    fn the_work_is_not_divided_before_everybody_was_heard_of_or_had_the_time_to_be() {
        let mut net = Net::of(&[1, 1]);
        net.silent.insert("b".to_owned());
        net.pass(15);
        assert_eq!(net.share("a", 0), Share::NONE);
        net.pass(10);
        assert_eq!(net.share("a", 0), Share::WHOLE);
        net.silent.clear();
        net.pass(10);
        assert_eq!(net.share("a", 0), Share { position: 0, workers: 2 });
    }

    #[test]
    fn the_cluster_is_settled_once_all_members_have_been_there_for_a_minute() {
        let mut net = Net::of(&[1, 1]);
        net.pass(60);
        assert!(!net.standing("a", 0).is_settled);
        net.pass(20);
        assert!(net.standing("a", 0).is_settled);
        // A pause of the observer's own is as long a silence.
        net.second += 25;
        net.observe("a");
        assert!(!net.standing("a", 0).is_settled);
    }

    #[test]
    fn whenever_another_node_starts_the_lives_are_others() {
        let mut net = Net::of(&[1, 1, 1]);
        net.pass(100);
        let before = net.standing("a", 0).lives;
        let mut restart = |name: &str| {
            net.observers.insert(name.to_owned(), Observer::new(name, at(net.second)));
            net.pass(25);
            net.standing("a", 0).lives
        };
        assert_eq!(restart("a"), before);
        let after = restart("b");
        assert_ne!(after, before);
        assert_ne!(restart("c"), after);
    }

    #[test]
    fn who_alone_is_settled_at_once() {
        let mut net = Net::of(&[1]);
        net.pass(5);
        assert_eq!(net.standing("a", 0), Standing::ALONE);
    }

    #[test]
    fn the_cluster_is_not_settled_while_one_node_does_not_hear_another() {
        let mut net = Net::of(&[1, 1]);
        net.deafen("b", "a");
        net.pass(200);
        assert!(!net.standing("a", 0).is_settled);
        net.deaf.clear();
        net.pass(80);
        assert!(net.standing("a", 0).is_settled);
    }

    #[test]
    fn nodes_and_workers_that_run_nothing_of_a_table_have_no_share_of_it() {
        let mut net = Net::of(&[2, 2, 1]);
        net.pass(10);
        assert_eq!(net.readers(20), [1; 20]);
        // One refuses its configuration, and one lost a thread.
        net.runs.get_mut("c").unwrap().workers.clear();
        net.runs.get_mut("b").unwrap().workers = [1].into();
        net.pass(10);
        assert_eq!(net.share("a", 0).workers, 3);
        assert_eq!(net.share("c", 0), Share::NONE);
        assert_eq!(net.readers(20), [1; 20]);
    }

    #[test]
    fn workers_in_trouble_have_a_share_only_if_all_are() {
        let mut net = Net::of(&[1, 1]);
        net.runs.get_mut("b").unwrap().troubled = [0].into();
        net.pass(10);
        assert_eq!((net.share("a", 0), net.share("b", 0)), (Share::WHOLE, Share::NONE));
        net.runs.get_mut("a").unwrap().troubled = [0].into();
        net.pass(10);
        assert_eq!(net.readers(20), [1; 20]);
    }

    #[test]
    fn of_three_nodes_two_of_which_do_not_hear_each_other_the_third_one_reads() {
        let mut net = Net::of(&[1, 1, 1]);
        net.pass(10);
        net.deafen("b", "c");
        net.deafen("c", "b");
        net.pass(150);
        assert_eq!(net.share("a", 0), Share::WHOLE);
        assert_eq!((net.share("b", 0), net.share("c", 0)), (Share::NONE, Share::NONE));
        let lines = net.observers.get_mut("a").unwrap().watch(&[], at(net.second));
        assert_eq!(lines, []);
        let lines = net.observers.get_mut("a").unwrap().watch(&[], at(net.second + 61));
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert!(texts[0].starts_with("the node b is heard here, but not by c:"), "{texts:?}");
        assert_eq!(texts.len(), 2);
    }

    #[test]
    fn a_member_whose_heartbeats_never_arrived_is_told() {
        let mut net = Net::of(&[1, 1]);
        net.silent.insert("b".to_owned());
        net.pass(30);
        let observer = net.observers.get_mut("a").unwrap();
        assert_eq!(observer.watch(&[], at(30)), []);
        assert_eq!(observer.alarms(), []);
        let lines = observer.watch(&[], at(95));
        assert!(lines[0].text.starts_with("the node b is a member of the cluster, but none"), "{lines:?}");
        assert_eq!(observer.alarms().len(), 1);
        let [_, silent] = &observer.nodes(at(95))[..] else { panic!("two nodes") };
        assert_eq!((silent.alive, silent.silent_since.as_deref()), (false, None));
    }

    #[test]
    fn partitions_that_nobody_reads_are_told_once() {
        let mut net = Net::of(&[1, 1]);
        let wanted = [TABLE.to_owned()];
        let table = net.runs.get_mut("a").unwrap();
        (table.of, table.reads) = (4, [0, 2].into_iter().collect());
        net.pass(30);
        let observer = net.observers.get_mut("a").unwrap();
        assert_eq!(observer.unread(TABLE).map(|unread| unread.partitions), Some(vec![1, 3]));
        assert_eq!(observer.watch(&wanted, at(30)), []);
        let lines = observer.watch(&wanted, at(90));
        assert!(lines[0].text.starts_with("t: no worker reads 2 of the 4 partitions:"), "{lines:?}");
        assert_eq!(observer.watch(&wanted, at(95)), []);
        let table = net.runs.get_mut("b").unwrap();
        (table.of, table.reads) = (4, [1, 3].into_iter().collect());
        net.pass(70);
        assert_eq!(net.observers["a"].unread(TABLE), None);
        let unknown = net.observers["a"].unread("another").unwrap();
        assert_eq!((unknown.partitions, unknown.of), (vec![0], 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn workers_that_see_the_same_agree_on_the_order(counts in prop::collection::vec(1..9_u32, 1..6)) {
            let mut net = Net::of(&counts);
            net.pass(10);
            prop_assert_eq!(net.readers(100), [1; 100]);
        }

        #[test]
        fn whoever_hears_whom_no_partition_is_without_a_reader(
            counts in prop::collection::vec(0..3_u32, 2..6),
            deaf in prop::collection::btree_set((0..5_usize, 0..5_usize), 0..10),
            from_the_start in any::<bool>(),
        ) {
            prop_assume!(counts.iter().any(|count| *count > 0));
            let mut net = Net::of(&counts);
            if !from_the_start {
                net.pass(30);
            }
            for (hearer, speaker) in deaf.into_iter().filter(|(hearer, speaker)| hearer != speaker) {
                net.deafen(NAMES[hearer], NAMES[speaker]);
            }
            net.pass(150);
            let readers = net.readers(60);
            prop_assert!(readers.iter().all(|readers| *readers > 0), "{:?}", readers);
        }
    }
}
