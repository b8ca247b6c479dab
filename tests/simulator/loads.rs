//! Sources that tell the time in their own way: rows that come hours late, in local time, while clocks are changed.

use crate::scenarios::{BY_DAY, configuration, habits, lone_engine, run_for, written};
use crate::source::{Habits, Row};
use crate::world::World;
use crate::zones::{BERLIN, Clock, KOLKATA, LOS_ANGELES, at, changes};
use bigquery_sync::bigquery::cursor::CursorType;
use bigquery_sync::engine::{Engine, Event};
use bigquery_sync::error::Kind;
use bigquery_sync::partition::Rule;
use bigquery_sync::time::{Micros, SECOND_US};
use serde_json::json;

const HOUR_US: i64 = 3_600 * SECOND_US;
const CURSORS: [CursorType; 4] =
    [CursorType::Timestamp, CursorType::DateTime, CursorType::Date, Clock::INTEGER];
const ROWS_PER_HOUR: i64 = 10;

/// A world that begins at some time, and an engine that is configured for its source.
fn begin(habits: Habits, now: i64, lateness_s: u64, poll_interval_ms: u64) -> (World, Engine) {
    let mut configuration = configuration(json!({}));
    habits.clock.configure(&mut configuration);
    configuration["sync"] = json!({"lateness": lateness_s, "pollInterval": poll_interval_ms});
    let mut world = crate::scenarios::world(habits);
    world.now = now;
    (world, lone_engine(&configuration))
}

/// Adds the rows of an hour, which become visible now.
fn add_hour(world: &mut World, starts: i64) {
    for number in 0..ROWS_PER_HOUR {
        let instant = starts + number * HOUR_US / ROWS_PER_HOUR;
        let key = format!("k{}", if world.source.habits.keyed { number } else { instant });
        let cursor = world.source.habits.clock.cursor_at(instant);
        // In a keyed table, versions of one cursor are the same.
        let text = format!("{cursor}");
        let visible_at = world.now;
        world.source.add(Row { cursor: Some(cursor), key, text }, visible_at);
    }
}

/// Loads, each hour, the rows of the hour that ended two hours ago. Returns how many rows were written in all.
fn load_hourly(world: &mut World, engine: &mut Engine, hours: i64) -> usize {
    let (mut event, mut rows) = (Event::Start, 0);
    let begins = world.now;
    for hour in 0..hours {
        add_hour(world, begins + (hour - 3) * HOUR_US);
        let orders;
        let left_us = begins + (hour + 1) * HOUR_US - world.now;
        (event, orders) = run_for(world, engine, event, left_us / SECOND_US);
        rows += written(&orders);
        if hour % 24 == 23 {
            assert_eq!(world.check_equality(), None, "hour {hour}");
        }
    }
    rows
}

fn windows(world: &World) -> usize {
    let reads = |line: &&String| line.contains("query ") && !line.contains("IS NULL");
    world.trace.iter().filter(reads).count()
}

#[test]
fn a_month_of_hourly_loads_of_rows_two_hours_old_arrives_and_is_queried_once_each() {
    for (number, cursor) in CURSORS.into_iter().enumerate() {
        for (zone, starts) in [
            (LOS_ANGELES, "2024-10-20T00:00:00Z"),
            (BERLIN, "2024-03-15T00:00:00Z"),
            (KOLKATA, "2024-01-01T00:00:00Z"),
        ] {
            let (keyed, partitioned) = (number % 3 == 0, cursor != Clock::INTEGER && zone != KOLKATA);
            let rule = if partitioned && !keyed { BY_DAY } else { Rule::WHOLE };
            let clock = Clock::new(cursor, zone);
            let habits = Habits { keyed, partitioned, rule, clock, ..habits() };
            let (mut world, mut engine) = begin(habits, at(starts), 0, 600_000);
            let rows = load_hourly(&mut world, &mut engine, 720);
            let what = format!("{cursor:?} in {zone}");
            assert_eq!(windows(&world), 720, "{what}");
            assert!(engine.status(Micros(world.now)).lag_seconds.unwrap() < 1_200, "{what}");
            assert_eq!(rows, 7_200, "{what}");
            // Of a DATE, each load has the value of those before; of seconds, the newest row; an hour that is shown twice
            // is read with what comes in the second one, and with what comes next.
            let twice = match cursor {
                CursorType::Timestamp => 0,
                CursorType::DateTime if zone == LOS_ANGELES => 30,
                CursorType::DateTime => 0,
                CursorType::Integer(_) => 719,
                CursorType::Date => continue,
            };
            assert_eq!(world.source.rows_returned, 7_200 + twice, "{what}");
        }
    }
}

const MINUTE_US: i64 = 60 * SECOND_US;

/// Adds a row each minute, of that minute, and lets the engine run. Tells after how many minutes some row was missing for
/// longer than a minute.
fn add_each_minute(world: &mut World, engine: &mut Engine, event: Event, minutes: i64) -> (Event, Vec<i64>) {
    let mut event = event;
    let (mut missing, begins) = (Vec::new(), world.now);
    for minute in 0..minutes {
        let now = begins + minute * MINUTE_US;
        let cursor = world.source.habits.clock.cursor_at(now);
        let row = Row { cursor: Some(cursor), key: format!("k{now}"), text: String::new() };
        let visible_at = world.now;
        world.source.add(row, visible_at);
        let left_us = now + MINUTE_US - world.now;
        (event, _) = run_for(world, engine, event, left_us / SECOND_US);
        missing.extend(world.check_equality().map(|_| minute));
    }
    (event, missing)
}

/// A source in the local time of a zone, whose world begins at some instant.
fn local(cursor: CursorType, zone: &str) -> Habits {
    Habits { clock: Clock::new(cursor, zone), ..habits() }
}

#[test]
fn rows_arrive_at_once_while_the_clocks_of_their_zone_are_changed() {
    for zone in [LOS_ANGELES, BERLIN] {
        for change in changes(zone) {
            for lateness_s in [600, 0] {
                let (mut world, mut engine) =
                    begin(local(CursorType::DateTime, zone), change - 90 * MINUTE_US, lateness_s, 30_000);
                let (_, missing) = add_each_minute(&mut world, &mut engine, Event::Start, 180);
                let what = format!("{zone}, {}, lateness {lateness_s}", Micros(change));
                assert_eq!(missing, Vec::<i64>::new(), "{what}");
                let status = engine.status(Micros(world.now));
                assert!(status.lag_seconds.unwrap() < 120, "{what}: {status:?}");
            }
        }
    }
}

#[test]
fn rows_of_an_hour_that_is_shown_twice_are_lost_where_the_zone_is_not_told() {
    let change = changes(LOS_ANGELES)[0];
    let habits = local(CursorType::DateTime, LOS_ANGELES);
    let mut world = crate::scenarios::world(habits);
    world.now = change - 90 * MINUTE_US;
    let mut engine = lone_engine(&configuration(json!({})));
    let (_, missing) = add_each_minute(&mut world, &mut engine, Event::Start, 180);
    assert!(!missing.is_empty());
}

#[test]
fn local_time_east_or_west_of_utc_is_read_as_often_as_utc_is() {
    let read = |clock: Clock| {
        let (mut world, mut engine) =
            begin(Habits { clock, ..habits() }, at("2024-06-01T00:00:00Z"), 600, 30_000);
        add_each_minute(&mut world, &mut engine, Event::Start, 600);
        let status = engine.status(Micros(world.now));
        (world.source.rows_returned, world.source.queries, status.lag_seconds, status.watermark.unwrap())
    };
    let (rows, queries, lag_s, watermark) = read(Clock::utc());
    assert_eq!(watermark, "2024-06-01T09:59:00.000000Z");
    for (zone, local) in [
        (KOLKATA, "2024-06-01T15:29:00.000000+05:30"),
        (LOS_ANGELES, "2024-06-01T02:59:00.000000-07:00"),
        (BERLIN, "2024-06-01T11:59:00.000000+02:00"),
    ] {
        let found = read(Clock::new(CursorType::DateTime, zone));
        assert_eq!(found, (rows, queries, lag_s, local.to_owned()), "{zone}");
    }
}

#[test]
fn another_zone_for_a_table_that_was_read_reads_what_may_have_been_missed_and_says_so_once() {
    // What the table was said to be in, and what it is in.
    for (said, is) in [("UTC", KOLKATA), (KOLKATA, LOS_ANGELES), (LOS_ANGELES, KOLKATA)] {
        let mut world = crate::scenarios::world(local(CursorType::DateTime, is));
        let engine_in = |zone: &str| {
            let mut configuration = configuration(json!({}));
            configuration["bigquery"]["timeZone"] = json!(zone);
            lone_engine(&configuration)
        };
        let yesterday = world.now - 30 * HOUR_US;
        add_hour(&mut world, yesterday);
        add_each_minute(&mut world, &mut engine_in(said), Event::Start, 60);
        let mut engine = engine_in(is);
        let (event, orders) = run_for(&mut world, &mut engine, Event::Start, 120);
        let kinds: Vec<&str> = orders.iter().flat_map(|order| &order.notes).map(|note| note.kind).collect();
        assert_eq!(kinds, ["time_zone_changed"], "{said} {is}");
        let (_, missing) = add_each_minute(&mut world, &mut engine, event, 60);
        assert_eq!(missing, Vec::<i64>::new(), "{said} {is}");
        let (_, orders) = run_for(&mut world, &mut engine_in(is), Event::Start, 120);
        assert_eq!(orders.iter().flat_map(|order| &order.notes).count(), 0, "{said} {is}");
    }
}

#[test]
fn a_zone_for_a_cursor_that_tells_instants_is_refused() {
    for (cursor, name) in [(CursorType::Timestamp, "TIMESTAMP"), (Clock::INTEGER, "INT64")] {
        let mut world = crate::scenarios::world(Habits { clock: Clock::new(cursor, BERLIN), ..habits() });
        let mut configuration = configuration(json!({}));
        configuration["bigquery"]["timeZone"] = json!(BERLIN);
        let mut engine = lone_engine(&configuration);
        run_for(&mut world, &mut engine, Event::Start, 10);
        let error = engine.status(Micros(world.now)).last_error.unwrap();
        assert_eq!(error.code, Kind::CursorType);
        assert!(error.message.contains(&format!("the column ts is {name}")), "{}", error.message);
        assert!(error.message.contains("leave timeZone out"), "{}", error.message);
    }
}
