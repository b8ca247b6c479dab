//! Rows that workers have to read again because others wrote meanwhile, or because one was interrupted.

use crate::node::Node;
use crate::run::{BASE_US, engine};
use crate::scenarios::{self, configuration, habits, world};
use crate::source::{Extra, Habits, Row};
use crate::world::{Actor, World};
use bigquery_sync::bigquery::request::Purpose;
use bigquery_sync::cluster::{Share, Standing};
use bigquery_sync::engine::delivery::Commit;
use bigquery_sync::engine::retention::WITNESSES;
use bigquery_sync::engine::{Command, Engine, Event, Worker};
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use serde_json::json;

const OWNS_NOTHING: Standing =
    Standing { share: Share { position: 0, workers: 2 }, is_settled: true, seen_at: None, lives: 0 };

/// The only worker of a node, and what it hears next.
struct Hand {
    engine: Engine,
    actor: Actor,
    event: Event,
}

impl Hand {
    fn new(node: usize, standing: Standing) -> Hand {
        Hand::of(node, standing, &["k"])
    }

    fn of(node: usize, standing: Standing, key: &[&str]) -> Hand {
        let mut configuration = configuration(json!({}));
        configuration["bigquery"]["key"] = json!(key);
        let worker = Worker { node: format!("node{node}"), index: 0 };
        let actor = Actor { node, ..Actor::default() };
        Hand { engine: engine(&configuration, worker, standing), actor, event: Event::Start }
    }

    /// Begins to work, and hears of commits of a third node that do not arrive.
    fn miss_something(&mut self, world: &mut World) {
        self.work(world, 5, |_| false);
        self.engine.missing(vec![lost_commit()]);
        self.engine.arrived(Vec::new(), Micros(world.now));
    }

    /// Works for so long, or until something is done for which `is_last` holds.
    fn work(&mut self, world: &mut World, seconds: i64, is_last: impl Fn(&Command) -> bool) {
        self.work_but(world, seconds, is_last, |_, _| false);
    }

    /// Works, and leaves undone what somebody else does.
    fn work_but(
        &mut self,
        world: &mut World,
        seconds: i64,
        is_last: impl Fn(&Command) -> bool,
        mut is_done: impl FnMut(&mut World, &Command) -> bool,
    ) {
        let end = world.now + seconds * SECOND_US;
        while world.now < end {
            let event = std::mem::replace(&mut self.event, Event::Stop);
            let command = self.engine.step(event, world.moment(self.actor.node));
            let ends = is_last(&command);
            if is_done(world, &command) {
                return;
            }
            let (duration_us, event) = world.execute(&mut self.actor, command).unwrap();
            world.now += duration_us;
            self.event = event;
            if ends {
                return;
            }
        }
    }
}

fn starts_query(command: &Command) -> bool {
    matches!(command, Command::Send(request) if request.purpose == Purpose::StartQuery)
}

fn add(world: &mut World, key: &str, ago_s: i64) {
    let cursor = Some(BASE_US - ago_s * SECOND_US);
    let row = Row { cursor, key: key.to_owned(), text: format!("{key}, {ago_s} s ago") };
    let visible_at = world.now;
    world.source.add(row, visible_at);
}

#[test]
fn an_older_version_that_came_late_from_another_node_is_replaced_though_the_watermark_stood_still() {
    let mut world = world(Habits { keyed: true, ..habits() });
    world.nodes.push(Node { is_up: true, ..Node::default() });
    world.skews_us = vec![0, 0];
    add(&mut world, "k", 300);
    add(&mut world, "newest", 60);
    let mut first = Hand::new(0, Standing::ALONE);
    first.work(&mut world, 20, |_| false);
    world.deliver_everything();
    let among_others = Standing { is_settled: false, seen_at: Some(Micros(BASE_US)), ..Standing::ALONE };
    first.engine.set_standing(among_others);
    let mut second = Hand::new(1, among_others);
    // It does not hear the first one, and has a result with the older version, which it is slow to write.
    world.splits.insert((0, 1));
    for _of_count_and_window in 0..2 {
        second.work(&mut world, 60, starts_query);
    }
    add(&mut world, "k", 200);
    first.work(&mut world, 60, |_| false);
    assert_eq!(world.nodes[0].checkpoints["t:0"].0.last_timestamp, Some(Micros(BASE_US - 60 * SECOND_US)));
    second.work(&mut world, 5, |command| matches!(command, Command::Write(_)));
    world.deliver_everything();
    assert!(world.check_equality().is_some());
    first.engine.set_standing(Standing::ALONE);
    first.work(&mut world, 60, |_| false);
    world.deliver_everything();
    assert_eq!(world.check_equality(), None);
    // Once is enough.
    let queries = world.source.queries;
    first.work(&mut world, 600, |_| false);
    assert_eq!(world.source.queries, queries);
}

#[test]
fn what_arrives_while_bigquery_describes_the_table_is_looked_at_before_rows_are_written() {
    let mut world = world(Habits { keyed: true, ..habits() });
    world.nodes.push(Node { is_up: true, ..Node::default() });
    world.skews_us = vec![0, 600 * SECOND_US];
    add(&mut world, "k", 300);
    let among_others = Standing { is_settled: false, seen_at: Some(Micros(BASE_US)), ..Standing::ALONE };
    let mut first = Hand::new(0, among_others);
    first.work(&mut world, 20, |_| false);
    world.deliver_everything();
    world.splits.extend([(0, 1), (1, 0)]);
    add(&mut world, "k", 200);
    let mut second = Hand::new(1, among_others);
    second.work(&mut world, 60, |_| false);
    add(&mut world, "k", 100);
    let describes = |command: &Command| matches!(command, Command::Send(request) if request.purpose == Purpose::DescribeTable);
    first.work(&mut world, 60, describes);
    // The other node is removed from the cluster: what it wrote, by a clock that is ahead, has arrived at last.
    world.deliver_everything();
    world.nodes[1].is_removed = true;
    first.engine.set_standing(Standing::ALONE);
    let writes_rows = |command: &Command| matches!(command, Command::Write(order) if order.batch.rows > 0);
    first.work(&mut world, 120, writes_rows);
    assert_eq!(world.check_equality(), None);
}

/// A world of two nodes that have the same rows, some with ids of a former era. The second one misses something, and is
/// interrupted while it gives rows their new ids: some are there under both.
fn interrupted_mending() -> (World, Hand) {
    let mut world = world(habits());
    world.nodes.push(Node { is_up: true, ..Node::default() });
    world.skews_us = vec![0, 0];
    world.source.alter(Extra::Integer);
    for (rows, ago_s) in [(100, 86_400), (10, 300)] {
        scenarios::add(&mut world, rows, BASE_US - ago_s * SECOND_US);
    }
    let mut first = Hand::of(0, Standing::ALONE, &[]);
    first.work(&mut world, 60, |_| false);
    world.source.alter(Extra::Absent);
    first.work(&mut world, 60, |_| false);
    world.deliver_everything();
    assert_eq!(world.check_equality(), None);
    let mut second = Hand::of(1, OWNS_NOTHING, &[]);
    second.miss_something(&mut world);
    // The last row that is written is one whose former id is not deleted.
    let cut = |world: &mut World, command: &Command| {
        let Command::Write(order) = command else { return false };
        if order.batch.rows == 0 {
            return false;
        }
        let actor = Actor { node: 1, era: Some(1), ..Actor::default() };
        for writes in 0..20 {
            world.apply_first(writes, actor, (**order).clone());
            if world.nodes[1].target.len() > 110 {
                break;
            }
        }
        true
    };
    second.work_but(&mut world, 600, |_| false, cut);
    assert_eq!(world.nodes[1].target.len(), 111);
    world.deliver_everything();
    (world, first)
}

/// What is told of a worker of a third node, whose commits have not arrived.
fn lost_commit() -> Commit {
    let rows = json!({"totalRows": 1, "from": 0, "to": 1});
    let commit =
        json!({"tableId": "t", "owner": "node2-0", "number": 3, "rows": rows, "result": 3, "began": 0});
    serde_json::from_value(commit).unwrap()
}

#[test]
fn rows_that_an_interrupted_node_left_under_both_ids_are_single_again_once_it_is_removed() {
    let (mut world, mut first) = interrupted_mending();
    world.nodes[1].is_removed = true;
    first.work(&mut world, 600, |_| false);
    assert_eq!(world.check_equality(), None);
    let queries = world.source.queries;
    first.work(&mut world, 600, |_| false);
    assert_eq!(world.source.queries, queries);
}

#[test]
fn rows_that_an_interrupted_node_left_under_both_ids_are_single_again_once_it_is_back() {
    let (mut world, mut first) = interrupted_mending();
    let mut second = Hand::of(1, OWNS_NOTHING, &[]);
    second.miss_something(&mut world);
    for _ in 0..10 {
        for hand in [&mut first, &mut second] {
            hand.work(&mut world, 60, |_| false);
            world.deliver_everything();
        }
    }
    assert_eq!(world.check_equality(), None);
}

/// A node looks whether what others committed has arrived, until it finds nothing more.
fn look_for_losses(world: &mut World, hand: &mut Hand) {
    let node = hand.actor.node;
    loop {
        let here = &world.nodes[node];
        let missing = hand.engine.missing(here.told(&format!("node{node}")));
        let found: Vec<Commit> =
            missing.iter().filter_map(|(owner, number)| here.arrived(owner, *number)).collect();
        let is_over = found.is_empty();
        let (_, proofs) = hand.engine.arrived(found, Micros(world.now));
        for proof in proofs {
            world.nodes[node].proofs.insert((node, proof.owner.clone()), proof);
        }
        if is_over {
            return;
        }
    }
}

/// How many queries a node makes that returns after hundreds of commits of another one.
fn queries_of_a_node_that_was_away(habits: Habits) -> u64 {
    let mut world = world(Habits { page_rows_max: 3, ..habits });
    world.nodes.push(Node { is_up: true, ..Node::default() });
    world.skews_us = vec![0, 0];
    scenarios::add(&mut world, 3_000, BASE_US - DAY_US);
    let mut first = Hand::of(0, Standing::ALONE, &[]);
    first.work(&mut world, 20, |_| false);
    world.deliver_everything();
    let mut second = Hand::of(1, OWNS_NOTHING, &[]);
    second.work(&mut world, 5, |_| false);
    look_for_losses(&mut world, &mut second);
    let known = world.nodes[1].proofs_of(1)[0].number;
    let among_others = Standing { is_settled: false, seen_at: Some(Micros(world.now)), ..Standing::ALONE };
    first.engine.set_standing(among_others);
    first.work(&mut world, 600, |_| false);
    world.deliver_everything();
    let last = world.nodes[1].last_commit("node0-0").unwrap().number;
    assert!(last - known > 2 * WITNESSES, "{known} of {last}");
    // A day later, results are gone.
    world.source.lose_results();
    let mut returned = Hand::of(1, OWNS_NOTHING, &[]);
    returned.work(&mut world, 5, |_| false);
    let queries = world.source.queries;
    for _ in 0..6 {
        look_for_losses(&mut world, &mut returned);
        returned.work(&mut world, 60, |_| false);
    }
    look_for_losses(&mut world, &mut returned);
    assert!(last - world.nodes[1].proofs_of(1)[0].number < WITNESSES);
    world.source.queries - queries
}

#[test]
fn a_node_that_was_away_for_long_asks_bigquery_for_nothing_that_has_arrived() {
    assert_eq!(queries_of_a_node_that_was_away(habits()), 0);
    assert_eq!(queries_of_a_node_that_was_away(Habits { forgets: true, ..habits() }), 1);
}

#[test]
fn rows_that_a_node_queries_again_are_numbered_so_that_others_miss_them() {
    let mut world = world(habits());
    world.nodes.push(Node { is_up: true, ..Node::default() });
    world.skews_us = vec![0, 0];
    scenarios::add(&mut world, 10, BASE_US - DAY_US);
    Hand::of(0, Standing::ALONE, &[]).work(&mut world, 60, |_| false);
    world.deliver_everything();
    // Nobody has read this row yet when the second node reads everything again.
    add(&mut world, "new", 300);
    let mut second = Hand::of(1, OWNS_NOTHING, &[]);
    second.miss_something(&mut world);
    let writes_rows = |command: &Command| matches!(command, Command::Write(order) if order.batch.rows > 0);
    second.work(&mut world, 600, writes_rows);
    let told = world.nodes[1].last_commit("node1-0").unwrap();
    assert_eq!((told.number, told.rows.from, told.rows.to), (1, 0, 11));
}

#[test]
fn the_last_commit_of_a_node_that_is_gone_is_missed_if_its_first_part_got_lost() {
    let mut world = world(habits());
    world.nodes.push(Node { is_up: true, ..Node::default() });
    world.skews_us = vec![0, 0];
    scenarios::add(&mut world, 10, BASE_US - DAY_US);
    Hand::of(0, Standing::ALONE, &[]).work(&mut world, 60, |_| false);
    world.deliver_everything();
    let here = &mut world.nodes[1];
    here.heads.clear();
    here.openings.clear();
    here.target.pop_first();
    let mut second = Hand::of(1, OWNS_NOTHING, &[]);
    for _ in 0..3 {
        second.work(&mut world, 60, |_| false);
        look_for_losses(&mut world, &mut second);
    }
    assert_eq!(world.check_equality(), None);
}
