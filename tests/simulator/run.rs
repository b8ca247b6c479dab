//! A world's story: rows come, things fail, workers crash, nodes fall silent; at the end all copies must be equal.

use crate::crew::Crew;
use crate::node::Node;
use crate::random::Random;
use crate::resyncing;
use crate::sabotage::Sabotage;
use crate::source::{Extra, Habits, Row, Source, VersionHabit};
use crate::world::World;
use crate::zones::{BERLIN, Clock, KOLKATA, LOS_ANGELES, changes, environment};
use bigquery_sync::bigquery::cursor::CursorType;
use bigquery_sync::cluster::Standing;
use bigquery_sync::config::Config;
use bigquery_sync::engine::{Engine, Worker};
use bigquery_sync::partition::{Division, Rule, Span};
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use serde_json::json;
use std::ops::RangeInclusive;

/// 2024-01-01T00:00:00Z.
pub const BASE_US: i64 = 1_704_067_200 * SECOND_US;
pub const LATENESS_S: i64 = 600;

pub struct Outcome {
    pub trace: Vec<String>,
    pub violation: Option<String>,
    /// Rows, queries, faults, crashes.
    pub counts: [u64; 4],
}

/// Makes a world in which so many workers begin. Nothing is validated before somebody wants that.
pub fn begin(seed: u64, sabotage: Option<Sabotage>, workers: &RangeInclusive<u64>) -> (World, Crew) {
    begin_with(seed, sabotage, workers, false)
}

/// Makes a world in which so many workers begin, and validate regularly if that is wanted.
fn begin_with(
    seed: u64,
    sabotage: Option<Sabotage>,
    workers: &RangeInclusive<u64>,
    validates: bool,
) -> (World, Crew) {
    let mut random = Random::new(seed);
    let keyed = random.one_in(2) || sabotage == Some(Sabotage::NeverUnsettled);
    let partitioned = random.one_in(2);
    let partition_by = if keyed {
        random.pick(&["auto", "table"])
    } else {
        random.pick(&["auto", "auto", "table", "timestamp", "minute", "hour", "day", "month"])
    };
    let partitions = random.pick(&[1, 3, 8, 64]);
    let version =
        random.pick(&[VersionHabit::Told, VersionHabit::Told, VersionHabit::Untold, VersionHabit::Stale]);
    let page_rows_max = random.pick(&[3, 40, 1_000]);
    let slow_queries = random.one_in(3);
    let age_us = random.pick(&[0, 0, 7_200, 100_000]) * SECOND_US;
    let (clock, base) = clock(&mut random, sabotage);
    let mut config = configuration(&mut random, partition_by, partitions);
    config["validation"]["enabled"] = json!(validates);
    // Integers are no time by which BigQuery could partition.
    let partitioned = partitioned && clock.cursor != Clock::INTEGER;
    let rule = rule(partition_by, partitioned, keyed, partitions);
    if sabotage != Some(Sabotage::ZoneIgnored) {
        clock.configure(&mut config);
    }
    // Of what weighs much, each window is read by a job under an id of the engine's own.
    let bytes_per_row = random.pick(&[40, 40, 1 << 20, 1 << 24]);
    let loses = sabotage == Some(Sabotage::LossesUnnoticed) || random.one_in(2);
    let habits = Habits {
        keyed,
        partitioned,
        version,
        page_rows_max,
        age_us,
        slow_queries,
        bytes_per_row,
        loses,
        forgets: seed.is_multiple_of(3),
        clock,
        rule,
    };
    let mut world = World::new(random, base, Source::new(habits), sabotage);
    world.source.job_bytes_billed = 1_000_000_000_000;
    world.note(format!("seed {seed}, {version:?}, {}, {config}", rule.name()));
    if world.random.one_in(2) {
        world.source.alter(Extra::Integer);
    }
    let rows = world.random.pick(&[0, 1, 30, 300, 1_500]);
    add_history(&mut world, rows);
    let crew = Crew::gather(&mut world, &config, workers);
    (world, crew)
}

/// Tells the story of a world with so many workers.
pub fn run(seed: u64, sabotage: Option<Sabotage>, workers: &RangeInclusive<u64>) -> Outcome {
    let validates = sabotage.is_none() && seed % 4 == 1;
    let is_read_again = sabotage.is_none() && seed % 5 == 2;
    let (mut world, mut crew) = begin_with(seed, sabotage, workers, validates);
    world.compares_copies = sabotage.is_none() && seed % 4 == 2;
    let scenes = 1 + world.random.below(7);
    for _ in 0..scenes {
        world.validations += u64::from(validates);
        world.comparisons += u64::from(validates && seed % 8 == 1);
        if is_read_again && world.random.one_in(2) {
            resyncing::command(&mut world, &mut crew, None);
        }
        crew.play_scene(&mut world);
        if world.violation.is_some() {
            break;
        }
        add_news(&mut world);
        if world.random.one_in(6) {
            // Everything is down for longer than results live.
            crew.sleep(&mut world, 2 * DAY_US);
        }
    }
    crew.come_to_rest(&mut world);
    let violation =
        world.violation.take().or_else(|| world.check_equality()).or_else(|| world.check_jobs_bill());
    let rows = world.source.visible(i64::MAX).count() as u64;
    Outcome {
        violation,
        counts: [rows, world.source.queries, world.faults_seen, crew.crashes],
        trace: world.trace,
    }
}

/// The rule that the engine is expected to follow.
fn rule(partition_by: &str, partitioned: bool, keyed: bool, partitions: u32) -> Rule {
    let by_span = |span, pruned| Rule { division: Division::Spans(span), partitions, pruned };
    match partition_by {
        "auto" if partitioned && !keyed => by_span(Span::Day, true),
        "timestamp" => Rule { division: Division::Value, partitions, pruned: false },
        "minute" => by_span(Span::Minute, false),
        "hour" => by_span(Span::Hour, false),
        "day" => by_span(Span::Day, partitioned),
        "month" => by_span(Span::Month, partitioned),
        _ => Rule::WHOLE,
    }
}

fn configuration(random: &mut Random, partition_by: &str, partitions: u32) -> serde_json::Value {
    json!({
        "bigquery": {
            "projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts", "partitionBy": partition_by,
            "deletes": "mirror"
        },
        "sync": {
            "initialBatchSize": random.pick(&[7, 100, 2_000]), "catchupBatchSize": random.pick(&[5, 100]),
            "steadyBatchSize": random.pick(&[5, 100]), "lateness": LATENESS_S, "partitions": partitions
        },
        "limits": {"maxRowsPerWindow": random.pick(&[10, 200, 1_000_000]), "maxRejectedRows": 0},
        "retry": {"initialDelay": 100},
        // A dry run bills the whole rows here, and not their cursors alone.
        "validation": {
            "interval": 600, "maxBytesBilledPerDay": 1_u64 << 60,
            "contentInterval": 7_200, "maxContentBytesBilledPerDay": 1_u64 << 60
        }
    })
}

/// How the source tells the time, and when the story begins: often not long before the clocks are changed.
fn clock(random: &mut Random, sabotage: Option<Sabotage>) -> (Clock, i64) {
    let zone = random.pick(&[LOS_ANGELES, BERLIN, KOLKATA]);
    let cursor = match sabotage {
        Some(Sabotage::ZoneIgnored) => CursorType::DateTime,
        Some(_) => return (Clock::utc(), BASE_US),
        None => random.pick(&[
            CursorType::Timestamp,
            CursorType::Timestamp,
            CursorType::DateTime,
            CursorType::DateTime,
            CursorType::Date,
            Clock::INTEGER,
        ]),
    };
    let clock = Clock::new(cursor, zone);
    let changes = if clock.zone.is_utc() { Vec::new() } else { changes(zone) };
    let before_us = random.below(5_400) as i64 * SECOND_US;
    let is_near = random.one_in(2);
    let near = changes.get(random.below(2) as usize).filter(|_| is_near);
    (clock, near.map_or(BASE_US, |change| change - before_us))
}

pub fn engine(config: &serde_json::Value, worker: Worker, standing: Standing) -> Engine {
    let config = Config::parse(config, &environment()).unwrap();
    Engine::new(config.tables.into_iter().next().unwrap(), config.connection, worker, standing)
}

fn row(world: &mut World, cursor: Option<i64>) -> Row {
    // A key that is gone does not come back: an older version of it would not replace the one that is stored.
    let generation = world.resync.map_or(0, |resync| resync.number);
    let letter =
        if world.source.habits.keyed && generation > 0 { format!("k{generation}x") } else { "k".to_owned() };
    let key = format!("{letter}{}", world.random.below(40));
    // In a keyed table, versions of one instant are the same; else which one is kept would be anybody's guess.
    let text = match (world.source.habits.keyed, cursor) {
        (true, Some(cursor)) => format!("{key} at {cursor}"),
        _ => format!("text {}", world.random.below(3)),
    };
    Row { cursor, key, text }
}

/// Rows of the days before those that come later: ties, identical ones, instants at midnight, far past and future, none at all.
fn add_history(world: &mut World, rows: u64) {
    let (base, clock) = (world.now, world.source.habits.clock.clone());
    let end = base - world.source.habits.age_us;
    let local_end = clock.zone.local(Micros(end)).0;
    for _ in 0..rows {
        let cursor = match world.random.below(40) {
            0 => None,
            1 => Some(-(world.random.below(1_000_000_000_000) as i64)),
            2 => Some(Micros::MAX.0 - world.random.below(2) as i64),
            3 => Some((local_end - world.random.below(5) as i64 * DAY_US).div_euclid(DAY_US) * DAY_US),
            4 => Some((local_end - world.random.below(5) as i64 * DAY_US).div_euclid(DAY_US) * DAY_US - 1),
            _ => Some(clock.zone.local(Micros(end - world.random.below(400_000) as i64 * SECOND_US)).0),
        };
        let cursor = cursor.map(|cursor| clock.cut(cursor));
        let row = row(world, cursor);
        let copies = if world.random.one_in(10) { 3 } else { 1 };
        for _ in 0..copies {
            world.source.add(row.clone(), base);
        }
    }
}

/// Adds, drops or retypes a column.
pub fn alter(world: &mut World) {
    let extra = world.random.pick(&[Extra::Absent, Extra::Integer, Extra::Text]);
    // Whoever drops a column and makes it anew before anybody looks changes rows that have no key, which is other rows.
    if world.source.extra == Extra::Absent && world.nodes.iter().any(|node| node.knows_column("extra")) {
        return;
    }
    // Nodes of which each saw another change first have two versions with one number, of which one is lost.
    let columns = world.source.columns();
    let knows = |node: &&Node| node.schemas.is_empty() || node.has_columns(&columns);
    let is_keyless_cluster = world.nodes.len() > 1 && !world.source.habits.keyed;
    // Rows that get lost just when they get other ids may stay doubled on one node.
    if is_keyless_cluster && world.source.habits.loses {
        return;
    }
    if is_keyless_cluster && !world.nodes.iter().filter(|node| node.is_up).all(|node| knows(&node)) {
        return;
    }
    world.note(format!("the extra column becomes {extra:?}"));
    world.source.alter(extra);
}

/// A row that comes now, however old, and becomes visible soon, within what counts as late.
pub fn add_row_now(world: &mut World) {
    let cursor = world.now - world.source.habits.age_us - world.random.below(60) as i64 * SECOND_US;
    let cursor = world.source.habits.clock.cursor_at(cursor);
    let row = row(world, Some(cursor));
    let delay_us = world.random.below((LATENESS_S as u64 - 120) * 1_000_000) as i64;
    // What comes at the instant of a query comes after it.
    let visible_at = world.now + world.random.pick(&[1, 1, delay_us.max(1)]);
    world.source.add(row, visible_at);
}

fn add_news(world: &mut World) {
    if world.random.one_in(4) {
        alter(world);
    }
    for _ in 0..world.random.below(20) {
        add_row_now(world);
    }
}
