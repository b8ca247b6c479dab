//! The workers of a world's nodes: each one runs the engine, sees the others late, and may crash, pause or be cut off.

use crate::copies::compare;
use crate::neighbours;
use crate::node::{Node, Transaction};
use crate::resyncing::sweep_copy;
use crate::run::{add_row_now, alter, engine};
use crate::sabotage::{self, Sabotage};
use crate::world::{Actor, World};
use bigquery_sync::cluster::{Heartbeat, Observer, Running};
use bigquery_sync::engine::delivery::Commit;
use bigquery_sync::engine::resync::Resync;
use bigquery_sync::engine::{Command, Engine, Event, Worker, WriteOrder};
use bigquery_sync::time::{Micros, SECOND_US};
use bigquery_sync::validation::{Check, Conclusion, Leaves, Place, Progress, Returns};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

const BEAT_US: i64 = 5 * SECOND_US;
/// Steps of one worker after which it is taken to never rest.
const STEPS_MAX: u64 = 400_000;
/// After this long without a change, everything must have been noticed, also behind a version that does not tell.
const QUIET_US: i64 = 2 * 3_600 * SECOND_US;
/// After this long, what is right is taken to stay so; some worlds are watched for longer.
const STILL_US: i64 = 1_800 * SECOND_US;
/// How often it is checked.
const LOOK_US: i64 = 300 * SECOND_US;

pub struct Crew {
    config: Value,
    /// What each worker may remember of rows.
    memory_bytes: usize,
    nodes: Vec<Crewed>,
    workers: Vec<Hand>,
    pub crashes: u64,
    next_beat: i64,
    /// Whether rows are added while the workers work.
    adds_rows: bool,
    /// A node that ends in one of its next commits, and how many of them come before.
    doomed: Option<(usize, u64)>,
}

/// The table's id.
const TABLE: &str = "t";

/// What the workers of a node share.
struct Crewed {
    name: String,
    threads: u32,
    observer: Observer,
    beat: u64,
    /// When it started, by its clock.
    started: u64,
    /// Whether it beats and runs nothing, as with a configuration that it refuses.
    refuses: bool,
    returns: Returns,
}

struct Hand {
    actor: Actor,
    index: u32,
    engine: Engine,
    /// What happens to it next, and when.
    next: Option<(i64, Event)>,
    steps: u64,
}

impl Crew {
    /// Starts so many workers, on some nodes.
    pub fn gather(world: &mut World, config: &Value, workers: &RangeInclusive<u64>) -> Crew {
        let mut crew = Crew {
            config: config.clone(),
            memory_bytes: world.random.pick(&[0, 40_000, usize::MAX, usize::MAX]),
            nodes: Vec::new(),
            workers: Vec::new(),
            crashes: 0,
            next_beat: world.now,
            adds_rows: true,
            doomed: None,
        };
        world.nodes.clear();
        world.skews_us.clear();
        let mut left = workers.start() + world.random.below(workers.end() - workers.start() + 1);
        while left > 0 {
            let threads = (1 + world.random.below(2)).min(left);
            let copy = world.nodes.first().cloned().unwrap_or_default();
            crew.add_node(world, threads as u32, copy);
            left -= threads;
        }
        world.is_lone = crew.nodes.len() == 1 && crew.nodes[0].threads == 1;
        for node in 0..crew.nodes.len() {
            crew.start(world, node);
        }
        crew
    }

    /// Adds a node, unless all others still miss something: what is older than the witnesses is not missed in a copy.
    fn join(&mut self, world: &mut World) {
        let is_complete = |(number, node): (usize, &Node)| !node.is_removed && node.misses_nothing(number);
        let Some(leader) = world.nodes.iter().enumerate().position(is_complete) else { return };
        let copy = world.nodes[leader].clone();
        self.add_node(world, 1, copy);
        world.note("a node joins".to_owned());
        self.start(world, self.nodes.len() - 1);
    }

    /// Adds a node that has a copy of what another one has.
    fn add_node(&mut self, world: &mut World, threads: u32, copy: Node) {
        let number = world.nodes.len();
        world.is_lone = false;
        world.nodes.push(Node { is_up: false, lives: 0, missed: Vec::new(), ..copy });
        let skew_us = world.random.pick(&[0, 0, -90, 45, 600]) * SECOND_US;
        world.skews_us.push(skew_us);
        let name = format!("node{number}");
        let observer = Observer::new(&name, Micros(world.now + skew_us));
        let returns = Returns::new(&name, 1, 0.0);
        self.nodes.push(Crewed { name, threads, observer, beat: 0, started: 0, refuses: false, returns });
    }

    fn start(&mut self, world: &mut World, node: usize) {
        world.nodes[node].begin();
        self.lose(world, node);
        let now = Micros(world.now + world.skews_us[node]);
        self.nodes[node].observer = Observer::new(&self.nodes[node].name, now);
        self.nodes[node].refuses = false;
        self.nodes[node].returns = Returns::new(&self.nodes[node].name, 1, now.0 as f64 / 1_000.0);
        self.nodes[node].started = now.0.unsigned_abs();
        self.beat_of(world, node);
        for index in 0..self.nodes[node].threads {
            let crewed = &self.nodes[node];
            let now = Micros(world.now + world.skews_us[node]);
            let standing = crewed.observer.standing(TABLE, index, now);
            let standing = sabotage::standing(world.sabotage, standing);
            let worker = Worker { node: crewed.name.clone(), index };
            let mut engine = engine(&self.config, worker, standing);
            engine.allow_memory(self.memory_bytes);
            let actor = Actor { node, index, ..Actor::default() };
            let next = Some((world.now, Event::Start));
            self.workers.push(Hand { actor, index, engine, next, steps: 0 });
        }
    }

    /// Ends a node at once. What it has committed is sent when it is back. Where it ends itself, what it is in the middle
    /// of committing may be cut short.
    fn crash(&mut self, world: &mut World, node: usize) {
        let ends_itself = world.random.one_in(2);
        world.note(format!("node {node} {}", if ends_itself { "ends itself" } else { "crashes" }));
        self.crashes += 1;
        for hand in self.workers.iter_mut().filter(|hand| hand.actor.node == node) {
            let Some((at, event)) = hand.next.take() else { continue };
            // Some commits happen although their worker does not live to see it.
            if at <= world.now + 60_000 && world.random.one_in(2) {
                let moment = world.moment(node);
                match hand.engine.step(event, moment) {
                    Command::Write(order) if world.nodes[node].target_exists => {
                        world.apply(hand.actor, *order, ends_itself);
                    }
                    // So do some requests.
                    Command::Send(request) => drop(world.answer(node, request)),
                    _ => {}
                }
            }
        }
        self.workers.retain(|hand| hand.actor.node != node);
        world.nodes[node].is_up = false;
        if ends_itself && world.source.habits.loses {
            let World { random, nodes, .. } = world;
            let is_missed = nodes[node].misses(node, world.source.habits.forgets);
            nodes[node].take_parts(is_missed, || random.one_in(2));
        }
        self.lose(world, node);
    }

    /// Loses some of what is on its way to a node, which is ending or has just started.
    fn lose(&mut self, world: &mut World, node: usize) {
        if !world.source.habits.loses || !world.random.one_in(3) {
            return;
        }
        let World { random, nodes, .. } = world;
        let is_missed = nodes[node].misses(node, world.source.habits.forgets);
        nodes[node].lose_first_parts(&is_missed, || !random.one_in(3));
        let lost = nodes[node].lose(&is_missed, || random.below(3));
        if lost > 0 {
            world.note(format!("{lost} transactions do not arrive at node {node}"));
        }
    }

    /// Lets something go wrong and time pass.
    pub fn play_scene(&mut self, world: &mut World) {
        world.faults = world.random.pick(&[0, 3, 5, 20]);
        let present: Vec<usize> =
            (0..self.nodes.len()).filter(|node| !world.nodes[*node].is_removed).collect();
        let node = world.random.pick(&present);
        match world.random.below(8) {
            0 => self.pause(world, node),
            1 if self.nodes.len() > 1 => {
                let other = (node + 1) % self.nodes.len();
                world.note(format!("node {node} does not hear {other}"));
                world.splits.insert((other, node));
                // Those of whom one hears the other do not do the same work for long.
                if world.sabotage.is_some() || world.random.one_in(2) {
                    world.note(format!("node {other} does not hear {node}"));
                    world.splits.insert((node, other));
                }
            }
            2 if self.nodes.len() > 1 && self.nodes.len() < 4 => {
                world.deliver_everything();
                self.join(world);
            }
            3 if self.nodes.len() > 1 && world.sabotage.is_none() => self.refuse(world, node),
            4 if self.nodes.len() == 1 => world.drop_target(node),
            _ => {}
        }
        let scene_us = world.random.pick(&[2, 20, 200, 200, 900]) * SECOND_US;
        let end = world.now + scene_us;
        self.doomed = world.random.one_in(2).then(|| (node, world.random.below(12)));
        self.work_until(world, end);
        if world.violation.is_some() {
            return;
        }
        world.splits.clear();
        if self.doomed.take().is_some() || world.nodes[node].is_up {
            self.crash(world, node);
        }
        if present.len() > 1 && world.random.one_in(8) {
            world.note(format!("node {node} is removed"));
            // What it had committed has reached the others, or is known to nobody.
            world.deliver_everything();
            world.nodes[node].is_removed = true;
            return;
        }
        let down_us = world.random.pick(&[0, 0, 20, 100, 1_000]) * SECOND_US;
        let back_at = world.now + down_us;
        self.work_until(world, back_at);
        self.start(world, node);
    }

    /// A process that is stopped and goes on later, as if nothing had happened.
    fn pause(&mut self, world: &mut World, node: usize) {
        let pause_us = world.random.pick(&[10, 100, 300]) * SECOND_US;
        world.note(format!("node {node} is paused for {} s", pause_us / SECOND_US));
        world.nodes[node].is_up = false;
        let back_at = world.now + pause_us;
        let (paused, others): (Vec<Hand>, Vec<Hand>) =
            std::mem::take(&mut self.workers).into_iter().partition(|hand| hand.actor.node == node);
        self.workers = others;
        self.work_until(world, back_at);
        world.nodes[node].is_up = true;
        self.workers.extend(paused);
    }

    /// Ends the node that the job under way belongs to, for good.
    pub fn crash_reader(&mut self, world: &mut World) {
        world.deliver_everything();
        let windows = world.nodes[0].checkpoints.values().filter(|(one, _)| one.window.is_some());
        let name = windows.map(|(one, _)| one.node_id.clone()).next().unwrap();
        let node = self.nodes.iter().position(|node| node.name == name).unwrap();
        self.crash(world, node);
    }

    /// Nobody runs for a while.
    pub fn sleep(&mut self, world: &mut World, us: i64) {
        for node in (0..self.nodes.len()).filter(|node| !world.nodes[*node].is_removed).collect::<Vec<_>>() {
            self.crash(world, node);
        }
        world.now += us;
        self.bring_back(world);
    }

    /// Ends all trouble, for good.
    pub fn bring_all_back(&mut self, world: &mut World) {
        self.adds_rows = false;
        world.splits.clear();
        self.bring_back(world);
    }

    /// Ends all trouble for good, and lets the workers read until everything is as it must be and stays so.
    pub fn come_to_rest(&mut self, world: &mut World) {
        world.faults = 0;
        self.bring_all_back(world);
        world.now = world.now.max(world.source.everything_is_visible_at());
        let end = world.now + QUIET_US;
        let still_us = if world.random.one_in(8) { QUIET_US } else { STILL_US };
        let mut right_since = None;
        while world.now < end && world.violation.is_none() {
            self.work_until(world, end.min(world.now + LOOK_US));
            let is_right = world.check_equality().is_none() && world.check_jobs_bill().is_none();
            right_since = is_right.then(|| right_since.unwrap_or(world.now));
            if right_since.is_some_and(|since| world.now - since >= still_us) {
                break;
            }
        }
        world.deliver_everything();
    }

    pub fn bring_back(&mut self, world: &mut World) {
        for node in 0..self.nodes.len() {
            if !world.nodes[node].is_up && !world.nodes[node].is_removed {
                self.start(world, node);
            }
        }
    }

    /// Lets the workers work, in the order in which things happen.
    pub fn work_until(&mut self, world: &mut World, end: i64) {
        while world.violation.is_none() {
            let due = |hand: &Hand| hand.next.as_ref().map(|(at, _)| *at);
            let soonest = (0..self.workers.len())
                .filter_map(|place| Some((due(&self.workers[place])?, place)))
                .min_by_key(|(at, _)| *at);
            let at = soonest.map_or(i64::MAX, |(at, _)| at);
            if self.next_beat.min(at) >= end {
                break;
            }
            if self.next_beat <= at {
                world.now = world.now.max(self.next_beat);
                self.next_beat += BEAT_US;
                self.beat(world);
            } else if let Some((at, place)) = soonest {
                world.now = world.now.max(at);
                self.step(world, place);
            }
        }
        world.now = world.now.max(end);
    }

    fn step(&mut self, world: &mut World, place: usize) {
        let hand = &mut self.workers[place];
        let Some((_, event)) = hand.next.take() else { return };
        let moment = world.moment(hand.actor.node);
        let command = hand.engine.step(event, moment);
        hand.steps += 1;
        if world.random.one_in(2) {
            hand.engine.prepare();
        }
        let command = match command {
            Command::Write(order) if self.is_doomed(place) => {
                return self.end_in_commit(world, place, *order);
            }
            command => command,
        };
        let hand = &mut self.workers[place];
        match world.execute(&mut hand.actor, command) {
            Some((duration_us, event)) if hand.steps < STEPS_MAX => {
                hand.next = Some((world.now + duration_us, event));
            }
            _ if world.violation.is_none() => {
                let status = hand.engine.status(Micros(world.now));
                world.violation = Some(format!("the engine ended, or never rests: {status:?}"));
            }
            _ => {}
        }
        if self.adds_rows && world.random.one_in(60 * self.workers.len() as u64) {
            if world.random.one_in(8) {
                alter(world);
            }
            add_row_now(world);
        }
    }

    /// Whether a worker's node ends in the commit that the worker is about to make.
    fn is_doomed(&mut self, place: usize) -> bool {
        let node = self.workers[place].actor.node;
        let Some((_, left)) = self.doomed.as_mut().filter(|(doomed, _)| *doomed == node) else {
            return false;
        };
        let is_due = *left == 0;
        *left = left.saturating_sub(1);
        is_due
    }

    /// Ends a node in the middle of a commit, of which a part may happen.
    fn end_in_commit(&mut self, world: &mut World, place: usize, order: WriteOrder) {
        let actor = self.workers[place].actor;
        self.doomed = None;
        if world.nodes[actor.node].target_exists && world.random.one_in(2) {
            world.apply(actor, order, true);
        }
        self.crash(world, actor.node);
    }

    /// Each node tells that it lives, and looks who else does.
    fn beat(&mut self, world: &mut World) {
        // After a long sleep, one beat is as good as the many that were missed.
        self.next_beat = self.next_beat.max(world.now);
        for node in 0..self.nodes.len() {
            if !world.nodes[node].is_up {
                continue;
            }
            self.beat_of(world, node);
            let crewed = &self.nodes[node];
            let now = Micros(world.now + world.skews_us[node]);
            for hand in self.workers.iter_mut().filter(|hand| hand.actor.node == node) {
                let standing = crewed.observer.standing(TABLE, hand.index, now);
                let standing = sabotage::standing(world.sabotage, standing);
                if hand.engine.set_standing(standing) && matches!(hand.next, Some((_, Event::Rested))) {
                    hand.next = Some((world.now, Event::Rested));
                }
            }
            self.look_for_losses(world, node);
            self.check_copy(world, node);
            self.compare_copies(world, node);
            let name = &self.nodes[node].name;
            if let Some(hand) = self.workers.iter_mut().find(|hand| hand.actor.node == node) {
                sweep_copy(&mut hand.engine, world, node, name);
            }
        }
    }

    /// Tells some workers at once of a command to read the table again.
    pub fn tell_resync(&mut self, world: &mut World, resync: Resync) {
        for hand in &mut self.workers {
            let is_woken = world.random.one_in(2) && hand.engine.hear_resync(resync);
            if is_woken && matches!(hand.next, Some((_, Event::Rested))) {
                hand.next = Some((world.now, Event::Rested));
            }
        }
    }

    /// The first worker of a node compares the node's copy with those of other nodes.
    fn compare_copies(&mut self, world: &mut World, node: usize) {
        if !world.compares_copies || !self.workers.iter().any(|hand| hand.actor.node == node) {
            return;
        }
        let now = Micros(world.now + world.skews_us[node]);
        let names: Vec<String> = self.nodes.iter().map(|one| one.name.clone()).collect();
        let seen = self.nodes[node].observer.nodes(now);
        let alive: Vec<String> = seen.into_iter().filter(|one| one.alive).map(|one| one.node).collect();
        neighbours::look(world, node, &names, &alive, &mut self.nodes[node].returns);
    }

    /// The first worker of a node compares the node's copy with what was counted.
    fn check_copy(&mut self, world: &mut World, node: usize) {
        let Some(hand) = self.workers.iter_mut().find(|hand| hand.actor.node == node) else { return };
        let now = Micros(world.now + world.skews_us[node]);
        let here = &world.nodes[node];
        if here.leaves.is_empty() {
            return;
        }
        let progress: Vec<Progress> = here
            .checkpoints
            .values()
            .map(|(one, _)| Progress { partition: one.partition, last_timestamp: one.last_timestamp })
            .collect();
        let is_due = |leaves: &&Leaves| Check::is_due(here.checks.get(&leaves.id), leaves, &progress, now);
        let due: Vec<Leaves> =
            here.leaves.values().map(|(leaves, _)| leaves).filter(is_due).cloned().collect();
        let place =
            Place { node: &self.nodes[node].name, rank: node as u32, haste: 1, is_certain: false, now };
        for leaves in due {
            if hand.engine.is_repairing() {
                break;
            }
            let vetted = hand.engine.vetted();
            let Some(Conclusion { check, repair, deletion, .. }) =
                compare(world, node, &leaves, vetted, place)
            else {
                continue;
            };
            world.nodes[node].checks.insert(leaves.id, check);
            if let Some(deletion) = deletion {
                world.delete_rows(node, &deletion);
            }
            let is_woken = repair.is_some_and(|repair| hand.engine.repair(repair, now));
            if is_woken && matches!(hand.next, Some((_, Event::Rested))) {
                hand.next = Some((world.now, Event::Rested));
            }
        }
    }

    /// The first worker of a node looks whether what others committed has arrived.
    fn look_for_losses(&mut self, world: &mut World, node: usize) {
        let here = &world.nodes[node];
        let Some(hand) = self.workers.iter_mut().find(|hand| hand.actor.node == node) else { return };
        let missing = hand.engine.missing(here.told(&self.nodes[node].name));
        if world.sabotage == Some(Sabotage::LossesUnnoticed) {
            let told: Vec<Commit> = here.heads.values().map(|(head, _)| head.clone()).collect();
            for proof in told {
                world.nodes[node].proofs.insert((node, proof.owner.clone()), proof);
            }
            return;
        }
        let there = missing
            .iter()
            .filter_map(|(owner, number)| sabotage::arrived(world.sabotage, here, owner, *number));
        let now = Micros(world.now + world.skews_us[node]);
        let (is_woken, proofs) = hand.engine.arrived(there.collect(), now);
        if is_woken && matches!(hand.next, Some((_, Event::Rested))) {
            hand.next = Some((world.now, Event::Rested));
        }
        for proof in proofs {
            world.publish(node, Transaction { proof: Some((node, proof)), ..Transaction::default() });
        }
    }

    /// A node looks around, tells what it sees and runs, and acts upon that.
    fn beat_of(&mut self, world: &mut World, node: usize) {
        self.observe(world, node);
        let crewed = &mut self.nodes[node];
        let workers = if crewed.refuses { 0..0 } else { 0..crewed.threads };
        let running = Running { id: TABLE.to_owned(), workers: workers.collect(), ..Running::default() };
        let roster = crewed.observer.roster(vec![running], Micros(world.now + world.skews_us[node]));
        crewed.beat += 1;
        let heartbeat = Heartbeat {
            node: crewed.name.clone(),
            workers: crewed.threads,
            beat: crewed.beat,
            started: crewed.started,
            removed: false,
            roster: Some(roster),
        };
        world.publish(node, Transaction { heartbeat: Some(heartbeat), ..Transaction::default() });
        self.observe(world, node);
    }

    /// Ends what a node runs, though it goes on giving signs of life.
    pub fn refuse(&mut self, world: &mut World, node: usize) {
        self.crash(world, node);
        world.note(format!("node {node} refuses its configuration"));
        world.nodes[node].is_up = true;
        self.nodes[node].refuses = true;
    }

    fn observe(&mut self, world: &mut World, node: usize) {
        let splits = world.splits.clone();
        let up: Vec<bool> = world.nodes.iter().map(|node| node.is_up).collect();
        world.nodes[node].take_arrivals(world.now, |sender| up[sender] && !splits.contains(&(sender, node)));
        let members = self.nodes.iter().zip(&world.nodes).filter(|(_, node)| !node.is_removed);
        let members: BTreeSet<String> = members.map(|(node, _)| node.name.clone()).collect();
        let heartbeats = world.nodes[node].heartbeats.values().map(|(heartbeat, _)| heartbeat);
        let now = Micros(world.now + world.skews_us[node]);
        self.nodes[node].observer.observe(heartbeats, members, now);
    }
}
