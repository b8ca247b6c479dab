//! Commits behind which no later one comes, and which get lost together with what is told of them.

use crate::node::Node;
use crate::run::{BASE_US, engine};
use crate::scenarios::{configuration, habits, world};
use crate::source::{Habits, Row};
use crate::world::{Actor, World};
use bigquery_sync::cluster::{Share, Standing};
use bigquery_sync::engine::delivery::Commit;
use bigquery_sync::engine::{Engine, Event, Worker};
use bigquery_sync::time::{Micros, SECOND_US};
use serde_json::json;

/// Where the only worker that owns anything stands.
const AMONG_OTHERS: Standing = Standing {
    share: Share { position: 1, workers: 2 },
    is_settled: false,
    seen_at: Some(Micros(BASE_US)),
    lives: 1,
};

struct Writer {
    engine: Engine,
    actor: Actor,
    next: (i64, Event),
}

impl Writer {
    /// Starts the worker of the first node.
    fn new(world: &World) -> Writer {
        let worker = Worker { node: "node0".to_owned(), index: 0 };
        let engine = engine(&configuration(json!({})), worker, AMONG_OTHERS);
        Writer { engine, actor: Actor::default(), next: (world.now, Event::Start) }
    }

    fn work(&mut self, world: &mut World, seconds: i64) {
        let end = world.now + seconds * SECOND_US;
        while self.next.0 <= end {
            world.now = self.next.0;
            let event = std::mem::replace(&mut self.next.1, Event::Stop);
            let command = self.engine.step(event, world.moment(0));
            let (duration_us, event) = world.execute(&mut self.actor, command).unwrap();
            self.next = (world.now + duration_us, event);
        }
        world.now = end;
    }

    /// Hears that another node has started.
    fn hear_of_start(&mut self, world: &World) {
        let standing = Standing { seen_at: Some(Micros(world.now)), lives: 2, ..AMONG_OTHERS };
        if self.engine.set_standing(standing) {
            self.next = (world.now, Event::Rested);
        }
    }
}

/// What the second node is told of the first one's last commit.
fn told(world: &World) -> Option<&Commit> {
    world.nodes[1].heads.values().map(|(head, _)| head).next()
}

/// A world of two nodes in which the first one has read all rows, and nothing of that has arrived at the second one.
fn read_by_one() -> (World, Writer) {
    let mut world = world(Habits { loses: true, ..habits() });
    world.nodes.push(Node { is_up: true, ..Node::default() });
    world.skews_us = vec![0, 0];
    let row = Row { cursor: Some(BASE_US - 300 * SECOND_US), key: "k".to_owned(), text: String::new() };
    let visible_at = world.now;
    world.source.add(row, visible_at);
    let mut writer = Writer::new(&world);
    while world.nodes[0].target.is_empty() {
        writer.work(&mut world, 1);
    }
    (world, writer)
}

#[test]
fn a_node_that_takes_long_to_start_is_told_of_the_last_commit() {
    let (mut world, mut writer) = read_by_one();
    writer.work(&mut world, 30);
    world.nodes[1].inbox.clear();
    writer.work(&mut world, 60);
    world.deliver_everything();
    assert_eq!(told(&world).map(|commit| commit.number), Some(1));
}

#[test]
fn a_node_that_was_away_is_told_of_the_last_commit_when_it_is_back() {
    let (mut world, mut writer) = read_by_one();
    writer.work(&mut world, 600);
    world.nodes[1].inbox.clear();
    writer.work(&mut world, 600);
    world.deliver_everything();
    assert_eq!(told(&world), None);
    writer.hear_of_start(&world);
    writer.work(&mut world, 10);
    world.deliver_everything();
    assert_eq!(told(&world).map(|commit| commit.number), Some(1));
    // It is told twice, and then it is quiet.
    writer.work(&mut world, 120);
    world.nodes[1].inbox.clear();
    writer.work(&mut world, 600);
    assert!(world.nodes[1].inbox.is_empty());
}
