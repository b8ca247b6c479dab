//! A world's story: rows come, things fail, workers crash; at the end both sides must be equal.

use crate::random::Random;
use crate::sabotage::Sabotage;
use crate::source::{Habits, Row, Source, VersionHabit};
use crate::world::World;
use bigquery_sync::config::{Config, Environment};
use bigquery_sync::engine::{Command, Engine, Event, Worker};
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use serde_json::json;

/// 2024-01-01T00:00:00Z.
pub const BASE_US: i64 = 1_704_067_200 * SECOND_US;
pub const LATENESS_S: i64 = 600;
/// After this long without a change, everything must have been noticed, also behind a version that does not tell.
const QUIET_US: i64 = 2 * 3_600 * SECOND_US;

pub struct Outcome {
    pub trace: Vec<String>,
    pub violation: Option<String>,
    /// Rows, queries, faults, crashes.
    pub counts: [u64; 4],
}

pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    let mut random = Random::new(seed);
    let habits = Habits {
        keyed: random.one_in(2),
        partitioned: random.one_in(2),
        version: random.pick(&[
            VersionHabit::Told,
            VersionHabit::Told,
            VersionHabit::Untold,
            VersionHabit::Stale,
        ]),
        page_rows_max: random.pick(&[3, 40, 1_000]),
        slow_queries: random.one_in(3),
    };
    let config = configuration(&mut random);
    let mut world = World::new(random, BASE_US, Source::new(habits), sabotage);
    world.note(format!("seed {seed}, {:?}, {config}", world.source.habits.version));
    let rows = world.random.pick(&[0, 1, 30, 300, 1_500]);
    add_history(&mut world, rows);
    world.skew_us = world.random.pick(&[0, 0, -90 * SECOND_US, 45 * SECOND_US]);
    let mut crashes = 0;
    let lives = 1 + world.random.below(7);
    for life in 0..lives {
        world.faults = world.random.pick(&[0, 3, 5, 20]);
        let steps = world.random.pick(&[5, 40, 200]);
        live(&mut world, &config, steps);
        crashes += 1;
        if world.violation.is_some() {
            break;
        }
        world.note(format!("crash {life}"));
        add_news(&mut world);
        if world.random.one_in(6) {
            // The node is down for longer than results live.
            world.now += 2 * DAY_US;
        }
    }
    world.faults = 0;
    world.now = world.now.max(world.source.everything_is_visible_at());
    settle(&mut world, &config);
    let violation = world.violation.take().or_else(|| world.check_equality());
    let rows = world.source.visible(i64::MAX).count() as u64;
    Outcome {
        violation,
        counts: [rows, world.source.queries, world.faults_seen, crashes],
        trace: world.trace,
    }
}

fn configuration(random: &mut Random) -> serde_json::Value {
    json!({
        "bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"},
        "sync": {
            "initialBatchSize": random.pick(&[7, 100, 2_000]), "catchupBatchSize": random.pick(&[5, 100]),
            "steadyBatchSize": random.pick(&[5, 100]), "lateness": LATENESS_S
        },
        "limits": {"maxRowsPerWindow": random.pick(&[10, 200, 1_000_000]), "maxRejectedRows": 0},
        "retry": {"initialDelay": 100}
    })
}

pub fn engine(config: &serde_json::Value) -> Engine {
    let config = Config::parse(config, &Environment::default()).unwrap();
    let worker = Worker { node: "n".to_owned(), index: 0 };
    Engine::new(config.tables.into_iter().next().unwrap(), config.connection, worker)
}

/// Runs an engine for some steps, and lets it crash, also while a commit is on its way.
fn live(world: &mut World, config: &serde_json::Value, steps: u64) {
    let mut engine = engine(config);
    let mut event = Event::Start;
    for _ in 0..steps {
        let moment = world.moment();
        let command = engine.step(event, moment);
        if world.random.one_in(2) {
            engine.prepare();
        }
        if world.random.one_in(25) {
            add_row_now(world);
        }
        match world.execute(command) {
            Some(next) if world.violation.is_none() => event = next,
            _ => return,
        }
    }
    let moment = world.moment();
    if let Command::Write(order) = engine.step(event, moment)
        && world.random.one_in(2)
    {
        // The worker dies, but its transaction does not.
        world.apply(*order);
    }
}

/// Runs an engine without faults until nothing is left to be noticed.
fn settle(world: &mut World, config: &serde_json::Value) {
    let mut engine = engine(config);
    let mut event = Event::Start;
    let end = world.now + QUIET_US;
    let mut steps = 0;
    while world.now < end && world.violation.is_none() {
        let moment = world.moment();
        let command = engine.step(event, moment);
        steps += 1;
        match world.execute(command) {
            Some(next) if steps < 100_000 => event = next,
            _ => {
                let status = engine.status(Micros(world.now));
                world.violation = Some(format!("the engine ended, or never rests: {status:?}"));
                return;
            }
        }
    }
}

fn row(world: &mut World, cursor: Option<i64>) -> Row {
    let key = format!("k{}", world.random.below(40));
    // In a keyed table, versions of one instant are the same; else which one is kept would be anybody's guess.
    let text = match (world.source.habits.keyed, cursor) {
        (true, Some(cursor)) => format!("{key} at {cursor}"),
        _ => format!("text {}", world.random.below(3)),
    };
    Row { cursor, key, text }
}

/// Rows of the days before: ties, identical ones, instants at midnight, far past and future, none at all.
fn add_history(world: &mut World, rows: u64) {
    for _ in 0..rows {
        let cursor = match world.random.below(40) {
            0 => None,
            1 => Some(-(world.random.below(1_000_000_000_000) as i64)),
            2 => Some(Micros::MAX.0 - world.random.below(2) as i64),
            3 => Some(BASE_US - world.random.below(5) as i64 * DAY_US),
            4 => Some(BASE_US - world.random.below(5) as i64 * DAY_US - 1),
            _ => Some(BASE_US - world.random.below(400_000) as i64 * SECOND_US),
        };
        let row = row(world, cursor);
        let copies = if world.random.one_in(10) { 3 } else { 1 };
        for _ in 0..copies {
            world.source.add(row.clone(), BASE_US);
        }
    }
}

/// A row that is made now and becomes visible soon, within what counts as late.
fn add_row_now(world: &mut World) {
    let cursor = world.now - world.random.below(60) as i64 * SECOND_US;
    let row = row(world, Some(cursor));
    let delay_us = world.random.below((LATENESS_S as u64 - 120) * 1_000_000) as i64;
    // What comes at the instant of a query comes after it.
    let visible_at = world.now + world.random.pick(&[1, 1, delay_us.max(1)]);
    world.source.add(row, visible_at);
}

fn add_news(world: &mut World) {
    for _ in 0..world.random.below(20) {
        add_row_now(world);
    }
}
