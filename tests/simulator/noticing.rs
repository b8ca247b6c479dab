//! What the engine has to notice of a source, and whether these worlds notice that it does not.

use crate::random::Random;
use crate::run::BASE_US;
use crate::sabotage::Sabotage;
use crate::scenarios::{BY_DAY, add, configuration, habits, lone_engine, run_for, world, written};
use crate::source::{Habits, Row, Source};
use crate::world::World;
use bigquery_sync::engine::Event;
use bigquery_sync::partition::Rule;
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use serde_json::json;

#[test]
fn a_source_that_is_made_anew_or_emptied_and_filled_again_is_read_anew() {
    for is_dropped in [true, false] {
        for (partitioned, rule) in [(false, Rule::WHOLE), (true, BY_DAY)] {
            let mut world = world(Habits { partitioned, rule, ..habits() });
            add(&mut world, 100, BASE_US - 3 * DAY_US);
            add(&mut world, 100, BASE_US - DAY_US);
            let mut engine = lone_engine(&configuration(json!({})));
            let (event, _) = run_for(&mut world, &mut engine, Event::Start, 300);
            let now = world.now;
            if is_dropped {
                world.source.make_anew(now);
            } else {
                world.source.empty();
            }
            // What comes now is older than all that was there.
            let rows = if is_dropped { 300 } else { 90 };
            add(&mut world, rows, BASE_US - 9 * DAY_US);
            let (event, orders) = run_for(&mut world, &mut engine, event, 120);
            assert_eq!(written(&orders), rows as usize);
            let kinds: Vec<&str> =
                orders.iter().flat_map(|order| &order.notes).map(|note| note.kind).collect();
            assert_eq!(kinds, ["source_made_anew"]);
            let queries = world.source.queries;
            run_for(&mut world, &mut engine, event, 600);
            assert_eq!(world.source.queries, queries);
        }
    }
}

#[test]
fn rows_without_a_cursor_are_counted_and_noted_once() {
    let mut world = world(habits());
    add(&mut world, 10, BASE_US - DAY_US);
    world.source.add(Row { cursor: None, key: "k".to_owned(), text: "text".to_owned() }, BASE_US);
    let mut engine = lone_engine(&configuration(json!({})));
    // The table need not change for that.
    let (event, orders) = run_for(&mut world, &mut engine, Event::Start, 60);
    let notes: Vec<&str> =
        orders.iter().flat_map(|order| &order.notes).map(|note| note.reason.as_str()).collect();
    assert_eq!(notes, ["1 rows have no value in ts; they are not copied"]);
    assert_eq!(engine.status(Micros(world.now)).rows_without_cursor, 1);
    let just_now = world.now - SECOND_US;
    add(&mut world, 1, just_now);
    let (_, orders) = run_for(&mut world, &mut engine, event, 60);
    assert!(orders.iter().all(|order| order.notes.is_empty()));
}

/// A world with so many rows, of which one has no cursor.
fn sabotaged(sabotage: Option<Sabotage>, rows: i64) -> World {
    let mut world = World::new(Random::new(1), BASE_US, Source::new(habits()), sabotage);
    add(&mut world, rows, BASE_US - DAY_US);
    world.source.add(Row { cursor: None, key: "k".to_owned(), text: "text".to_owned() }, BASE_US);
    world
}

/// Reads a source, makes it anew with rows that are older than all that were there, and tells whether copy and source
/// are equal then.
fn follows_a_remake(sabotage: Option<Sabotage>) -> bool {
    let mut world = sabotaged(sabotage, 100);
    let mut engine = lone_engine(&configuration(json!({})));
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 300);
    let now = world.now;
    world.source.make_anew(now);
    add(&mut world, 100, BASE_US - 9 * DAY_US);
    run_for(&mut world, &mut engine, event, 600);
    let stored = &world.nodes[0].target;
    let holds = |row: &Row| stored.values().any(|(stored, _)| stored == row);
    world.source.visible(world.now).all(holds)
}

#[test]
fn a_source_that_is_made_anew_unnoticed_is_caught() {
    assert!(follows_a_remake(None));
    assert!(!follows_a_remake(Some(Sabotage::RemakeUnnoticed)));
}

/// Tells how many rows without a cursor the status names, and how many the source has.
fn rows_without_cursor(sabotage: Option<Sabotage>) -> (u64, usize) {
    let mut world = sabotaged(sabotage, 10);
    let mut engine = lone_engine(&configuration(json!({})));
    run_for(&mut world, &mut engine, Event::Start, 60);
    let found = world.source.visible(world.now).filter(|row| row.cursor.is_none()).count();
    (engine.status(Micros(world.now)).rows_without_cursor, found)
}

#[test]
fn rows_without_a_cursor_that_are_not_counted_are_caught() {
    assert_eq!(rows_without_cursor(None), (1, 1));
    assert_eq!(rows_without_cursor(Some(Sabotage::NullsUncounted)), (0, 1));
}
