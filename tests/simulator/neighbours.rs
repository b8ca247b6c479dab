//! Nodes that compare their copies with each other: what a node lacks is found and mended, and nothing where nothing
//! differs.

use crate::node::{Node, Stamp, Transaction};
use crate::random::Random;
use crate::run::{BASE_US, begin};
use crate::sabotage::Sabotage;
use crate::scenarios::habits;
use crate::source::{Row, Source};
use crate::world::World;
use bigquery_sync::cluster::{Heartbeat, Roster};
use bigquery_sync::time::SECOND_US;
use bigquery_sync::validation::{Neighbour, Put, Returns, Situation, Step, next};
use std::collections::BTreeMap;

const BEAT_US: i64 = 5 * SECOND_US;
const WORLDS: u64 = 60;
/// A put record has a later stamp than all nodes could give it at that instant.
const LATER: usize = 1_000;

fn ms(us: i64) -> f64 {
    us as f64 / 1_000.0
}

/// When a record was written, as Harper tells it.
fn version((at, node): Stamp) -> f64 {
    (0..node / LATER).fold(ms(at), |at, _| at.next_up())
}

/// Does what a node does each time that it looks at the others' copies.
pub fn look(world: &mut World, node: usize, names: &[String], alive: &[String], returns: &mut Returns) {
    let now = ms(world.now + world.skews_us[node]);
    let here = &world.nodes[node];
    let others = here.heartbeats.values().filter(|(beat, _)| beat.node != names[node]);
    let neighbour = |(beat, stamp): &(Heartbeat, Stamp)| Neighbour {
        node: beat.node.clone(),
        alive: alive.contains(&beat.node),
        beat: ms(stamp.0),
        started: beat.started as f64,
    };
    returns.observe(others.map(neighbour).collect(), now);
    let summaries: Vec<_> = here.copies.values().map(|(summary, _)| summary.clone()).collect();
    let own = summaries.iter().find(|one| one.node == names[node]);
    let begins = returns.begins("t", world.validations, own.map_or(0.0, |own| own.until), now);
    let (others, heard) = (returns.alive(), returns.heard(now));
    let situation = Situation {
        table_id: "t",
        node: &names[node],
        others: &others,
        heard,
        forgotten: 0.0,
        now,
        haste: 1,
        begins,
        mended: own.map_or(0, |own| own.mended),
    };
    let summary = match next(&summaries, &situation) {
        None => return,
        Some(Step::Tell(summary, _)) => *summary,
        Some(Step::Read(mut reading)) => {
            reading.add(records(here, world.sabotage).iter().map(|(id, at)| (id.as_str(), *at)));
            let (summary, puts) = reading.end();
            puts.iter().for_each(|put| put_again(world, node, put));
            summary
        }
    };
    world.publish(node, Transaction { copy: Some(summary), ..Transaction::default() });
}

fn records(here: &Node, sabotage: Option<Sabotage>) -> Vec<(String, f64)> {
    let stored = here.target.iter().map(|(id, (_, stamp))| (id.clone(), version(*stamp)));
    let gone = |id: &String| sabotage != Some(Sabotage::DeletionsUntold) && !here.target.contains_key(id);
    let deleted = here.deleted.iter().filter(|(id, _)| gone(id));
    stored.chain(deleted.map(|(id, stamp)| (id.clone(), version(*stamp)))).collect()
}

fn put_again(world: &mut World, node: usize, put: &Put) {
    let mut transactions: BTreeMap<Stamp, Transaction> = BTreeMap::new();
    for id in &put.ids {
        let here = &world.nodes[node];
        let (row, stamp) = match (here.target.get(id), here.deleted.get(id)) {
            (Some((row, stamp)), _) => (Some(row.clone()), *stamp),
            (None, Some(stamp)) => (None, *stamp),
            (None, None) => continue,
        };
        if version(stamp) != put.written_at {
            continue;
        }
        let one = transactions.entry(stamp).or_default();
        one.rows.extend(row.map(|row| (id.clone(), row)));
        if !here.target.contains_key(id) {
            one.replaced.push(id.clone());
        }
    }
    for ((at, by), transaction) in transactions {
        world.note(format!(
            "{node} puts {} rows of {at} again for {:?}",
            transaction.rows.len(),
            put.lacking
        ));
        world.put_again += (transaction.rows.len() + transaction.replaced.len()) as u64;
        let stamp = match world.sabotage {
            Some(Sabotage::PutAsNew) => (world.now, node),
            _ => (at, by + LATER),
        };
        world.publish_as(node, Transaction { stamp, ..transaction });
    }
}

/// Nodes that hold records and run nothing but their comparisons.
struct Cluster {
    world: World,
    names: Vec<String>,
    returns: Vec<Returns>,
}

impl Cluster {
    fn new(nodes: usize, sabotage: Option<Sabotage>) -> Cluster {
        let mut world = World::new(Random::new(1), BASE_US, Source::new(habits()), sabotage);
        let names: Vec<String> = (0..nodes).map(|node| format!("node{node}")).collect();
        world.nodes = (0..nodes).map(|_| Node { is_up: true, ..Node::default() }).collect();
        world.skews_us = vec![0; nodes];
        let returns = names.iter().map(|name| Returns::new(name, 1, ms(BASE_US))).collect();
        Cluster { world, names, returns }
    }

    fn work(&mut self, seconds: i64) {
        let end = self.world.now + seconds * SECOND_US;
        while self.world.now < end {
            self.world.now += BEAT_US;
            for node in 0..self.names.len() {
                let heartbeat = Heartbeat {
                    node: self.names[node].clone(),
                    workers: 1,
                    beat: self.world.now.unsigned_abs(),
                    started: 1,
                    removed: false,
                    roster: Some(Roster::default()),
                };
                self.world
                    .publish(node, Transaction { heartbeat: Some(heartbeat), ..Transaction::default() });
            }
            for node in 0..self.names.len() {
                let (now, splits) = (self.world.now, self.world.splits.clone());
                self.world.nodes[node].take_arrivals(now, |sender| !splits.contains(&(sender, node)));
                // The others' looks come before or behind it.
                if self.world.random.one_in(3) {
                    continue;
                }
                let alive = self.names.clone();
                look(&mut self.world, node, &self.names, &alive, &mut self.returns[node]);
            }
        }
    }

    /// Writes a row on a node, at this instant.
    fn write(&mut self, node: usize, id: &str, text: &str) {
        let rows = vec![(id.to_owned(), row(text))];
        self.world.publish(node, Transaction { rows, ..Transaction::default() });
    }

    fn delete(&mut self, node: usize, id: &str) {
        self.world.publish(node, Transaction { replaced: vec![id.to_owned()], ..Transaction::default() });
    }

    /// Loses what is on its way to a node from another one.
    fn lose(&mut self, node: usize, from: usize) {
        self.world.nodes[node].inbox.remove(&from);
    }

    fn texts(&self, id: &str) -> Vec<Option<&str>> {
        let text = |node: &'_ Node| node.target.get(id).map(|(row, _)| row.text.clone());
        let found: Vec<Option<String>> = self.world.nodes.iter().map(text).collect();
        found.into_iter().map(|text| text.map(|text| &*text.leak())).collect()
    }
}

fn row(text: &str) -> Row {
    Row { cursor: Some(BASE_US), key: "k".to_owned(), text: text.to_owned() }
}

#[test]
fn what_one_of_three_nodes_lost_is_put_again_by_one_of_the_others() {
    let mut cluster = Cluster::new(3, None);
    for number in 0..50 {
        cluster.write(0, &format!("there{number}"), "a");
    }
    cluster.work(1);
    for number in 0..250 {
        cluster.write(1, &format!("lost{number}"), "b");
    }
    cluster.lose(2, 1);
    cluster.work(120);
    for number in 0..250 {
        assert_eq!(cluster.texts(&format!("lost{number}")), [Some("b"); 3]);
    }
    assert_eq!(cluster.world.put_again, 250);
    cluster.work(600);
    assert_eq!(cluster.world.put_again, 250);
}

#[test]
fn what_two_nodes_lost_of_each_other_is_mended_both_ways() {
    let mut cluster = Cluster::new(2, None);
    cluster.write(0, "one", "a");
    cluster.write(1, "other", "b");
    cluster.lose(1, 0);
    cluster.lose(0, 1);
    cluster.work(120);
    assert_eq!((cluster.texts("one"), cluster.texts("other")), (vec![Some("a"); 2], vec![Some("b"); 2]));
}

#[test]
fn nothing_is_put_again_where_nothing_was_lost() {
    let mut cluster = Cluster::new(3, None);
    for number in 0..200 {
        cluster.write(number % 3, &format!("k{}", number % 7), &format!("version {number}"));
        cluster.work(5);
    }
    assert_eq!(cluster.world.put_again, 0);
    assert!(cluster.world.nodes.iter().all(|node| node.copies.len() == 3));
}

#[test]
fn an_older_version_is_replaced_and_never_replaces() {
    let mut cluster = Cluster::new(2, None);
    cluster.write(0, "k", "old");
    cluster.work(5);
    cluster.write(1, "k", "new");
    cluster.lose(0, 1);
    assert_eq!(cluster.texts("k"), [Some("old"), Some("new")]);
    cluster.work(150);
    assert_eq!(cluster.texts("k"), [Some("new"), Some("new")]);
    assert_eq!(cluster.world.put_again, 1);
}

/// A node puts a row again while a newer version of it is on its way to it. Returns what both nodes have then.
fn race(sabotage: Option<Sabotage>) -> Vec<Option<&'static str>> {
    let mut cluster = Cluster::new(2, sabotage);
    cluster.write(0, "k", "old");
    cluster.lose(1, 0);
    while cluster.world.put_again == 0 {
        if cluster.world.nodes[0].copies.values().any(|(copy, _)| !copy.rows.is_empty()) {
            cluster.write(1, "k", "new");
            cluster.world.nodes[0].inbox.entry(1).or_default().back_mut().unwrap().0 += 20 * SECOND_US;
        }
        cluster.work(5);
    }
    cluster.work(300);
    cluster.texts("k").into_iter().map(|text| text.map(|text| &*text.to_owned().leak())).collect()
}

#[test]
fn a_row_that_is_put_again_does_not_replace_a_newer_version_that_is_on_its_way() {
    assert_eq!(race(None), [Some("new"), Some("new")]);
    assert_eq!(race(Some(Sabotage::PutAsNew)), [Some("old"), Some("old")]);
}

/// Deletes a row whose deletion gets lost. Returns what both nodes have then.
fn deletion(sabotage: Option<Sabotage>) -> Vec<bool> {
    let mut cluster = Cluster::new(2, sabotage);
    cluster.write(0, "k", "deleted on purpose");
    cluster.work(5);
    cluster.delete(1, "k");
    cluster.lose(0, 1);
    cluster.work(300);
    cluster.texts("k").into_iter().map(|text| text.is_some()).collect()
}

#[test]
fn a_row_whose_deletion_got_lost_is_deleted_everywhere() {
    assert_eq!(deletion(None), [false, false]);
    assert_eq!(deletion(Some(Sabotage::DeletionsUntold)), [true, false]);
}

#[test]
fn more_rows_than_are_looked_at_at_a_time_are_mended_in_several_rounds() {
    let mut cluster = Cluster::new(2, None);
    for batch in 0..50 {
        let rows = (0..1_000).map(|number| (format!("{batch}-{number}"), row("a"))).collect();
        cluster.world.publish(0, Transaction { rows, ..Transaction::default() });
    }
    cluster.lose(1, 0);
    cluster.work(600);
    assert_eq!(cluster.world.nodes[1].target.len(), 50_000);
    assert_eq!(cluster.world.put_again, 50_000);
}

#[test]
fn nodes_that_were_cut_off_compare_when_they_hear_each_other_again() {
    let mut cluster = Cluster::new(2, None);
    cluster.work(200);
    cluster.world.splits = [(0, 1), (1, 0)].into();
    cluster.write(0, "k", "a");
    cluster.work(60);
    cluster.world.nodes[1].inbox.entry(0).or_default().pop_front();
    assert_eq!(cluster.texts("k"), [Some("a"), None]);
    cluster.world.splits.clear();
    cluster.work(150);
    assert_eq!(cluster.texts("k"), [Some("a"), Some("a")]);
}

/// Tells the stories of worlds in which transactions get lost of which no witness tells, and whether nodes compare.
fn unequal_worlds(compares: bool) -> usize {
    let story = |seed: &u64| {
        let (mut world, mut crew) = begin(*seed, Some(Sabotage::LossesUnnoticed), &(2..=4));
        world.compares_copies = compares;
        for _ in 0..4 {
            crew.play_scene(&mut world);
        }
        crew.come_to_rest(&mut world);
        let end = world.now + 600 * SECOND_US;
        crew.work_until(&mut world, end);
        world.deliver_everything();
        world.violation.is_some() || world.check_equality().is_some()
    };
    (0..WORLDS).filter(story).count()
}

#[test]
fn what_gets_lost_without_a_witness_is_mended_where_nodes_compare() {
    assert_eq!(unequal_worlds(true), 0);
    assert!(unequal_worlds(false) > 0);
}

#[test]
fn worlds_in_which_nothing_gets_lost_put_nothing_again() {
    let mut watched = 0;
    for seed in 0..WORLDS {
        let (mut world, mut crew) = begin(seed, None, &(2..=4));
        world.compares_copies = true;
        world.source.habits.loses = false;
        for _ in 0..3 {
            crew.play_scene(&mut world);
        }
        crew.come_to_rest(&mut world);
        // What only some nodes have heard of a node is put again by these.
        let is_partial = |line: &String| line.contains("does not hear") || line.contains("is removed");
        if !world.trace.iter().any(is_partial) {
            assert_eq!((world.violation.take(), world.put_again), (None, 0), "seed {seed}");
            watched += 1;
        }
    }
    assert!(watched > WORLDS / 4, "{watched} worlds alone");
}
