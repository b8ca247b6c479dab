//! Single properties of the engine, each in a world made for it.

use crate::crew::Crew;
use crate::node::Node;
use crate::random::Random;
use crate::run::{BASE_US, engine};
use crate::sabotage::Sabotage;
use crate::source::{Extra, Habits, Row, Source, VersionHabit};
use crate::world::{Actor, World};
use crate::zones::Clock;
use bigquery_sync::bigquery::request::Purpose;
use bigquery_sync::cluster::Standing;
use bigquery_sync::engine::{Answer, Command, Engine, Event, Worker, WriteOrder};
use bigquery_sync::error::{Failure, Kind};
use bigquery_sync::partition::{Division, Rule, Span};
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub fn habits() -> Habits {
    Habits {
        keyed: false,
        partitioned: false,
        version: VersionHabit::Told,
        page_rows_max: 1_000,
        age_us: 0,
        slow_queries: false,
        bytes_per_row: 40,
        loses: false,
        forgets: false,
        clock: Clock::utc(),
        rule: Rule::WHOLE,
    }
}

/// What `auto` makes of a table that is partitioned by days.
pub const BY_DAY: Rule = Rule { division: Division::Spans(Span::Day), partitions: 64, pruned: true };

pub fn world(habits: Habits) -> World {
    World::new(Random::new(1), BASE_US, Source::new(habits), None)
}

pub fn configuration(limits: Value) -> Value {
    json!({
        "bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"}, "limits": limits
    })
}

pub fn lone_engine(configuration: &Value) -> Engine {
    engine(configuration, Worker { node: "node0".to_owned(), index: 0 }, Standing::ALONE)
}

pub fn add(world: &mut World, count: i64, first_us: i64) {
    for number in 0..count {
        let row = Row { cursor: Some(first_us + number), key: format!("k{number}"), text: "text".to_owned() };
        let visible_at = world.now;
        world.source.add(row, visible_at);
    }
}

/// Runs for a while and returns how many rows each commit had.
pub fn run_for(
    world: &mut World,
    engine: &mut Engine,
    event: Event,
    seconds: i64,
) -> (Event, Vec<WriteOrder>) {
    let end = world.now + seconds * SECOND_US;
    let mut event = event;
    let mut orders = Vec::new();
    while world.now < end {
        let moment = world.moment(0);
        let command = engine.step(event, moment);
        if let Command::Write(order) = &command {
            orders.push((**order).clone());
        }
        let Some(next) = world.run(command) else { return (Event::Stop, orders) };
        event = next;
    }
    (event, orders)
}

pub fn written(orders: &[WriteOrder]) -> usize {
    orders.iter().map(|order| order.batch.rows).sum()
}

#[test]
fn an_unchanged_table_is_read_by_one_query_and_costs_none_afterwards() {
    let mut world = world(habits());
    add(&mut world, 5_000, BASE_US - DAY_US);
    let mut engine = lone_engine(&configuration(json!({})));
    let (_, orders) = run_for(&mut world, &mut engine, Event::Start, 3_000);
    assert_eq!(written(&orders), 5_000);
    assert_eq!(world.source.queries, 1);
    let status = engine.status(Micros(world.now));
    assert!(status.lag_seconds.unwrap() < 60, "{status:?}");
    assert!(status.unchanged_at.is_some());
}

#[test]
fn what_was_read_while_nodes_came_and_went_is_read_again_once_though_the_table_is_unchanged() {
    let mut world = world(Habits { keyed: true, ..habits() });
    add(&mut world, 500, BASE_US - DAY_US);
    let mut configuration = configuration(json!({}));
    configuration["bigquery"]["key"] = json!(["k"]);
    let among_others = Standing { is_settled: false, seen_at: Some(Micros(BASE_US)), ..Standing::ALONE };
    let worker = Worker { node: "node0".to_owned(), index: 0 };
    let mut engine = engine(&configuration, worker, among_others);
    let (event, orders) = run_for(&mut world, &mut engine, Event::Start, 300);
    assert_eq!((written(&orders), world.source.queries), (500, 1));
    engine.set_standing(Standing::ALONE);
    let (event, orders) = run_for(&mut world, &mut engine, event, 120);
    assert_eq!((written(&orders), world.source.queries), (500, 2));
    let (_, orders) = run_for(&mut world, &mut engine, event, 600);
    assert_eq!((written(&orders), world.source.queries), (0, 2));
}

#[test]
fn what_is_read_again_because_nodes_came_and_went_is_read_in_windows_of_whole_days() {
    let mut world = world(Habits { keyed: true, partitioned: true, ..habits() });
    for day in 1..=9 {
        for number in 0..100 {
            let cursor = Some(BASE_US - day * DAY_US + number);
            let key = format!("k{day}-{number}");
            world.source.add(Row { cursor, key, text: "text".to_owned() }, BASE_US);
        }
    }
    let configuration = configuration(json!({"maxRowsPerWindow": 300}));
    let among_others = Standing { is_settled: false, seen_at: Some(Micros(BASE_US)), ..Standing::ALONE };
    let mut engine = engine(&configuration, Worker { node: "node0".to_owned(), index: 0 }, among_others);
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 300);
    engine.set_standing(Standing::ALONE);
    world.trace.clear();
    let (event, orders) = run_for(&mut world, &mut engine, event, 120);
    let reads = |line: &&String| line.contains("query SELECT *");
    assert_eq!((written(&orders), world.trace.iter().filter(reads).count()), (900, 3));
    world.trace.clear();
    run_for(&mut world, &mut engine, event, 600);
    assert_eq!(world.trace.iter().filter(reads).count(), 0);
}

#[test]
fn ten_workers_of_which_each_makes_the_target_fill_one() {
    for seed in 0..20 {
        let mut world = World::new(Random::new(seed), BASE_US, Source::new(habits()), None);
        add(&mut world, 500, BASE_US - DAY_US);
        let mut crew = Crew::gather(&mut world, &configuration(json!({})), &(10..=10));
        // They hear of each other only when each of them has made it.
        let nodes = world.nodes.len();
        world.splits = (0..nodes).flat_map(|one| (0..nodes).map(move |other| (one, other))).collect();
        let apart = world.now + 60 * SECOND_US;
        crew.work_until(&mut world, apart);
        crew.come_to_rest(&mut world);
        let made: BTreeSet<&str> = world.nodes.iter().map(|node| node.incarnation.0.as_str()).collect();
        assert_eq!(made.len(), 1, "seed {seed}: {made:?}");
        assert!(world.incarnations >= nodes as u64, "seed {seed}: {} of {nodes} made it", world.incarnations);
        assert_eq!(world.check_equality(), None, "seed {seed}");
    }
}

/// Nodes of two workers or one, and rows to read by all of them.
fn crowd(seed: u64) -> (World, Crew) {
    let rule = Rule { division: Division::Value, partitions: 64, pruned: false };
    let mut world = World::new(Random::new(seed), BASE_US, Source::new(Habits { rule, ..habits() }), None);
    add(&mut world, 500, BASE_US - DAY_US);
    let mut configuration = configuration(json!({}));
    configuration["bigquery"]["partitionBy"] = json!("timestamp");
    let mut crew = Crew::gather(&mut world, &configuration, &(4..=6));
    crew.bring_all_back(&mut world);
    (world, crew)
}

#[test]
fn a_node_that_beats_but_runs_nothing_has_no_share() {
    for seed in 0..10 {
        let (mut world, mut crew) = crowd(seed);
        let first = world.now + 100 * SECOND_US;
        crew.work_until(&mut world, first);
        crew.refuse(&mut world, 0);
        let now = world.now;
        add(&mut world, 300, now);
        crew.work_until(&mut world, first + 1_800 * SECOND_US);
        world.deliver_everything();
        assert_eq!(world.check_equality(), None, "seed {seed}");
    }
}

#[test]
fn whichever_nodes_do_not_hear_which_others_each_row_is_read() {
    for seed in 0..30 {
        let (mut world, mut crew) = crowd(seed);
        let nodes = world.nodes.len();
        let pairs = (0..nodes).flat_map(|one| (0..nodes).map(move |other| (one, other)));
        let splits = pairs.filter(|_| world.random.one_in(3)).collect();
        world.splits = splits;
        let first = world.now + 300 * SECOND_US;
        crew.work_until(&mut world, first);
        let now = world.now;
        add(&mut world, 300, now);
        crew.work_until(&mut world, first + 1_800 * SECOND_US);
        world.deliver_everything();
        assert_eq!(world.check_equality(), None, "seed {seed}: {:?}", world.splits);
    }
}

#[test]
fn a_table_of_which_the_version_is_not_told_is_queried_once_an_interval() {
    let mut world = world(Habits { version: VersionHabit::Untold, ..habits() });
    add(&mut world, 10, BASE_US - DAY_US);
    let mut engine = lone_engine(&configuration(json!({})));
    run_for(&mut world, &mut engine, Event::Start, 3_600);
    assert!((100..=123).contains(&world.source.queries), "{} queries in an hour", world.source.queries);
}

#[test]
fn known_rows_of_the_late_range_are_not_written_again() {
    let mut world = world(habits());
    add(&mut world, 1_000, BASE_US - 300 * SECOND_US);
    let mut engine = lone_engine(&configuration(json!({})));
    let (event, orders) = run_for(&mut world, &mut engine, Event::Start, 60);
    assert_eq!(written(&orders), 1_000);
    let late = BASE_US - 200 * SECOND_US;
    add(&mut world, 3, late);
    add(&mut world, 3, late);
    let (event, orders) = run_for(&mut world, &mut engine, event, 60);
    assert_eq!(written(&orders), 6);
    // One more of what is there twice.
    add(&mut world, 1, late);
    let (_, orders) = run_for(&mut world, &mut engine, event, 60);
    assert_eq!(written(&orders), 1);
    assert_eq!(world.check_equality(), None);
}

/// Polls a table whose version is not told for ten minutes, in which the same rows are read again, and returns how many
/// rows were put, how many were asked for in Harper, and the warning in the status.
fn poll_with_memory(keyed: bool, bytes_max: usize) -> (u64, usize, Option<String>) {
    let mut world = world(Habits { keyed, version: VersionHabit::Untold, ..habits() });
    add(&mut world, 20_000, BASE_US - 300 * SECOND_US);
    let mut engine = lone_engine(&configuration(json!({})));
    engine.allow_memory(bytes_max);
    let (_, orders) = run_for(&mut world, &mut engine, Event::Start, 600);
    assert_eq!(world.check_equality(), None);
    let asked = orders.iter().filter(|order| order.may_be_stored).map(|order| order.batch.rows).sum();
    let status = engine.status(Micros(world.now));
    assert_eq!(status.rows, 20_000);
    (world.rows_put, asked, status.warning)
}

#[test]
fn no_row_of_the_late_range_is_written_twice_however_small_the_memory_is() {
    for keyed in [false, true] {
        assert_eq!(poll_with_memory(keyed, usize::MAX), (20_000, 0, None));
        let (put, asked, warning) = poll_with_memory(keyed, 200_000);
        assert!(put == 20_000 && asked > 20_000 && warning.is_some_and(|text| text.contains("lateness")));
    }
}

#[test]
fn a_large_partitioned_table_is_read_in_windows_of_whole_days() {
    let mut world = world(Habits { partitioned: true, rule: BY_DAY, ..habits() });
    for day in 1..=9 {
        add(&mut world, 100, BASE_US - day * DAY_US);
    }
    let mut engine = lone_engine(&configuration(json!({"maxRowsPerWindow": 300})));
    let (_, orders) = run_for(&mut world, &mut engine, Event::Start, 20);
    assert_eq!(written(&orders), 900);
    let ends: Vec<Micros> = orders.iter().filter_map(|order| order.checkpoints[0].last_timestamp).collect();
    let midnight = |day: i64| Micros(BASE_US - day * DAY_US - 1);
    assert!(ends.contains(&midnight(6)) && ends.contains(&midnight(3)), "{ends:?}");
    // One counts the partitions, three read.
    assert_eq!(world.source.queries, 4);
}

#[test]
fn a_large_view_is_read_in_windows_of_days_if_each_bills_its_own_rows_alone() {
    // The last one is too small for windows.
    for (is_pruned, bytes_per_row, queries) in [(true, 1 << 24, 4), (false, 1 << 24, 1), (true, 1 << 20, 1)] {
        let habits = Habits { version: VersionHabit::Untold, bytes_per_row, ..habits() };
        let mut world = world(habits);
        world.source.is_pruned = is_pruned;
        for day in 1..=9 {
            add(&mut world, 100, BASE_US - day * DAY_US);
        }
        let mut engine = lone_engine(&configuration(json!({"maxRowsPerWindow": 300})));
        let (mut event, orders) = run_for(&mut world, &mut engine, Event::Start, 20);
        assert_eq!((written(&orders), world.check_equality()), (900, None));
        // One counts the rows of each day.
        assert_eq!(world.source.queries, queries, "{is_pruned} {bytes_per_row}");
        for _ in 0..10 {
            let just_now = world.now - SECOND_US;
            add(&mut world, 1, just_now);
            (event, _) = run_for(&mut world, &mut engine, event, 60);
        }
        let counts = world.trace.iter().filter(|line| line.contains("GROUP BY starts")).count();
        assert_eq!((counts, world.check_equality()), (usize::from(queries > 1), None));
    }
}

#[test]
fn a_result_that_is_too_large_for_bigquery_is_read_in_smaller_windows() {
    let told = [(DAY_US, true), (DAY_US, false), (DAY_US / 30, false)];
    let told = told.map(|(span_us, partitioned)| (span_us, partitioned, VersionHabit::Told));
    let untold = [DAY_US, DAY_US / 30].map(|span_us| (span_us, false, VersionHabit::Untold));
    for (span_us, partitioned, version) in told.into_iter().chain(untold) {
        let rule = if partitioned { BY_DAY } else { Rule::WHOLE };
        let mut world = world(Habits { partitioned, rule, version, ..habits() });
        for step in 1..=60 {
            add(&mut world, 100, BASE_US - step * span_us);
        }
        world.source.result_rows_max = Some(1_300);
        let mut engine = lone_engine(&configuration(json!({})));
        let (_, orders) = run_for(&mut world, &mut engine, Event::Start, 300);
        assert_eq!((written(&orders), world.check_equality()), (6_000, None));
        assert!(world.source.queries < 25, "{} queries", world.source.queries);
        assert_eq!(engine.status(Micros(world.now)).last_error, None);
    }
}

/// Lets a node whose clock is ten minutes ahead read a table, and another one take it over. Returns how many rows that one
/// writes while one row comes each minute, for nine of them.
fn take_over_from_a_fast_clock(sabotage: Option<Sabotage>) -> usize {
    let mut world = World::new(Random::new(1), BASE_US, Source::new(habits()), sabotage);
    world.nodes.push(Node { is_up: true, ..Node::default() });
    world.skews_us = vec![600 * SECOND_US, 0];
    add(&mut world, 100, BASE_US - 2 * DAY_US);
    add(&mut world, 1, BASE_US - DAY_US);
    run_for(&mut world, &mut lone_engine(&configuration(json!({}))), Event::Start, 60);
    world.deliver_everything();
    let mut actor = Actor { node: 1, ..Actor::default() };
    let mut engine = lone_engine(&configuration(json!({})));
    let mut event = Event::Start;
    let mut written = 0;
    for minute in 0..9 {
        let just_now = world.now;
        add(&mut world, 1, just_now);
        while world.now < BASE_US + (minute + 2) * 60 * SECOND_US {
            let moment = world.moment(1);
            let command = engine.step(event, moment);
            if let Command::Write(order) = &command {
                written += order.batch.rows;
            }
            let (duration_us, next) = world.execute(&mut actor, command).unwrap();
            world.now += duration_us;
            event = next;
        }
    }
    written
}

#[test]
fn a_node_whose_clock_is_behind_keeps_the_progress_that_it_makes() {
    // The newest row of before is read once more, for it may have come late.
    assert_eq!(take_over_from_a_fast_clock(None), 10);
    assert!(take_over_from_a_fast_clock(Some(Sabotage::OwnClockOnly)) > 10);
}

#[test]
fn a_day_s_budget_holds_the_table_back_until_midnight() {
    let mut world = world(Habits { version: VersionHabit::Untold, ..habits() });
    add(&mut world, 10, BASE_US - DAY_US);
    // Each query of these worlds bills 1,000 bytes.
    let mut engine = lone_engine(&configuration(json!({"maxBytesBilledPerDay": 5_000})));
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 7_200);
    assert_eq!(world.source.queries, 5);
    let error = engine.status(Micros(world.now)).last_error.unwrap();
    assert_eq!(error.code, Kind::DayBudget);
    run_for(&mut world, &mut engine, event, 86_400);
    assert_eq!(world.source.queries, 10);
}

#[test]
fn a_table_that_used_up_its_day_s_budget_rests_until_there_is_something_to_read() {
    let mut world = world(habits());
    add(&mut world, 10, BASE_US - DAY_US);
    run_for(&mut world, &mut lone_engine(&configuration(json!({}))), Event::Start, 600);
    let bytes = world.source.queries * 1_000;
    let mut world = self::world(habits());
    add(&mut world, 10, BASE_US - DAY_US);
    let mut engine = lone_engine(&configuration(json!({"maxBytesBilledPerDay": bytes})));
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 600);
    assert_eq!(world.source.queries * 1_000, bytes);
    assert_eq!(engine.status(Micros(world.now)).last_error, None);
    let just_now = world.now - SECOND_US;
    add(&mut world, 1, just_now);
    run_for(&mut world, &mut engine, event, 60);
    let error = engine.status(Micros(world.now)).last_error.unwrap();
    assert_eq!(error.code, Kind::DayBudget);
}

#[test]
fn a_changed_identity_stops_the_table_with_a_way_out() {
    let mut world = world(habits());
    add(&mut world, 10, BASE_US - DAY_US);
    let mut engine_before = lone_engine(&configuration(json!({})));
    run_for(&mut world, &mut engine_before, Event::Start, 5);
    let mut changed = configuration(json!({}));
    changed["bigquery"]["key"] = json!(["k"]);
    let mut engine = lone_engine(&changed);
    run_for(&mut world, &mut engine, Event::Start, 5);
    let error = engine.status(Micros(world.now)).last_error.unwrap();
    assert_eq!(error.code, Kind::CheckpointMismatch);
    assert!(error.message.contains("set them back"));
}

#[test]
fn a_target_that_was_dropped_is_filled_again() {
    let mut world = world(habits());
    add(&mut world, 700, BASE_US - DAY_US);
    let mut engine = lone_engine(&configuration(json!({})));
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 60);
    world.drop_target(0);
    let (_, orders) = run_for(&mut world, &mut engine, event, 120);
    assert_eq!(world.check_equality(), None);
    assert!(orders.iter().flat_map(|order| &order.notes).any(|note| note.kind == "target_was_missing"));
}

#[test]
fn a_start_that_is_moved_back_brings_the_rows_that_were_left_out() {
    let mut world = world(habits());
    for day in 1..=5 {
        add(&mut world, 10, BASE_US - day * DAY_US);
    }
    let with_start = |start: &str| {
        let mut root = configuration(json!({}));
        root["sync"] = json!({"startTimestamp": start});
        lone_engine(&root)
    };
    run_for(&mut world, &mut with_start("2023-12-30T00:00:00Z"), Event::Start, 60);
    assert_eq!(world.nodes[0].target.len(), 20);
    run_for(&mut world, &mut with_start("2023-12-31T00:00:00Z"), Event::Start, 60);
    assert_eq!(world.nodes[0].target.len(), 20);
    run_for(&mut world, &mut with_start("2023-12-28T00:00:00Z"), Event::Start, 60);
    assert_eq!(world.nodes[0].target.len(), 40);
    run_for(&mut world, &mut lone_engine(&configuration(json!({}))), Event::Start, 60);
    assert_eq!(world.check_equality(), None);
}

#[test]
fn a_clock_that_was_wrong_for_a_while_loses_nothing() {
    let mut world = world(habits());
    add(&mut world, 10, BASE_US - DAY_US);
    let mut engine = lone_engine(&configuration(json!({})));
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 60);
    world.server_skew_us = 7_200 * SECOND_US;
    let just_now = world.now;
    add(&mut world, 1, just_now);
    let (event, _) = run_for(&mut world, &mut engine, event, 60);
    world.server_skew_us = 0;
    let just_now = world.now;
    add(&mut world, 1, just_now);
    run_for(&mut world, &mut engine, event, 120);
    assert_eq!(world.check_equality(), None);
}

#[test]
fn a_short_page_does_not_make_all_later_pages_short() {
    let mut world = world(habits());
    add(&mut world, 5_000, BASE_US - DAY_US);
    world.source.short_page_at = Some(1_000);
    let mut root = configuration(json!({}));
    root["bigquery"]["batchSize"] = json!(1_000);
    let (_, orders) = run_for(&mut world, &mut lone_engine(&root), Event::Start, 25);
    assert_eq!(written(&orders), 5_000);
    assert!(orders.len() < 200, "{} commits", orders.len());
}

#[test]
fn a_stop_ends_the_engine_in_any_state() {
    for steps in 0..60 {
        let mut world = world(habits());
        world.faults = 3;
        add(&mut world, 2_000, BASE_US - DAY_US);
        let mut engine = lone_engine(&configuration(json!({})));
        let mut event = Event::Start;
        for _ in 0..steps {
            let moment = world.moment(0);
            event = world.run(engine.step(event, moment)).unwrap();
        }
        let moment = world.moment(0);
        assert!(matches!(engine.step(Event::Stop, moment), Command::Halt));
    }
}

#[test]
fn a_side_that_fails_five_times_in_a_row_is_left_alone_for_a_minute() {
    let mut world = world(habits());
    world.faults = 1;
    let mut engine = lone_engine(&configuration(json!({})));
    let mut rests = Vec::new();
    let mut event = Event::Start;
    while rests.len() < 12 {
        let moment = world.moment(0);
        let command = engine.step(event, moment);
        if let Command::Rest { delay_ms } = command {
            rests.push(delay_ms);
        }
        event = world.run(command).unwrap();
    }
    let first_long = rests.iter().position(|delay_ms| *delay_ms >= 60_000);
    assert_eq!(first_long, Some(4), "{rests:?}");
    assert!(rests[5..].iter().all(|delay_ms| *delay_ms >= 60_000), "{rests:?}");
}

#[test]
fn a_table_that_is_found_empty_and_filled_with_old_rows_later_arrives_whole() {
    let mut world = world(habits());
    let mut engine = lone_engine(&configuration(json!({})));
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 300);
    let status = engine.status(Micros(world.now));
    assert_eq!(status.watermark, None);
    assert!(status.lag_seconds.unwrap() < 60, "{status:?}");
    add(&mut world, 100, BASE_US - 400 * DAY_US);
    let (event, _) = run_for(&mut world, &mut engine, event, 60);
    assert_eq!(world.check_equality(), None);
    assert!(engine.status(Micros(world.now)).watermark.is_some());
    let just_now = world.now;
    add(&mut world, 1, just_now);
    run_for(&mut world, &mut engine, event, 60);
    assert_eq!(world.check_equality(), None);
}

#[test]
fn the_delays_grow_when_harper_refuses_each_commit_although_bigquery_answers() {
    let mut world = world(habits());
    add(&mut world, 10, BASE_US - DAY_US);
    let mut engine = lone_engine(&configuration(json!({})));
    let mut event = Event::Start;
    let mut commits = 0;
    let end = world.now + 600 * SECOND_US;
    while world.now < end {
        let moment = world.moment(0);
        let command = engine.step(event, moment);
        event = if matches!(command, Command::Write(_)) {
            commits += 1;
            Event::Written(Err(Failure::new(Kind::HarperWrite, "no")))
        } else {
            world.run(command).unwrap()
        };
    }
    assert!((5..=16).contains(&commits), "{commits} commits in ten minutes");
    let status = engine.status(Micros(world.now));
    assert_eq!(status.last_error.map(|error| error.code), Some(Kind::HarperWrite));
}

#[test]
fn a_query_that_bigquery_may_have_run_in_spite_of_an_error_is_not_run_twice() {
    let mut world = world(habits());
    add(&mut world, 10, BASE_US - DAY_US);
    let mut engine = lone_engine(&configuration(json!({})));
    let mut event = Event::Start;
    let mut broken = 0;
    for _ in 0..40 {
        let moment = world.moment(0);
        let command = engine.step(event, moment);
        let is_query = matches!(&command, Command::Send(request) if request.purpose == Purpose::StartQuery);
        event = world.run(command).unwrap();
        if is_query && broken == 0 {
            broken = 1;
            let body = br#"{"error":{"errors":[{"reason":"backendError"}]}}"#.to_vec();
            event =
                Event::Answered(Ok(Answer { status: 503, server_time: None, retry_after_ms: None, body }));
        }
    }
    assert_eq!((broken, world.source.queries), (1, 1));
    assert_eq!(world.check_equality(), None);
}

#[test]
fn a_table_whose_polls_cost_much_is_warned_about() {
    let mut world = world(Habits { version: VersionHabit::Untold, ..habits() });
    add(&mut world, 10, BASE_US - DAY_US);
    let mut root = configuration(json!({}));
    root["sync"] = json!({"pollInterval": 30_000});
    let mut engine = lone_engine(&root);
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 100);
    let status = engine.status(Micros(world.now));
    // Each query of these worlds bills 1,000 bytes.
    assert_eq!((status.poll_bytes, status.projected_bytes_per_day), (Some(1_000), Some(2_880_000)));
    assert_eq!(status.warning, None);
    (world.source.bytes_billed, world.source.job_bytes_billed) = (1 << 30, 1 << 30);
    run_for(&mut world, &mut engine, event, 100);
    let warning = engine.status(Micros(world.now)).warning.unwrap();
    assert!(warning.contains("about 18 US dollars a day"), "{warning}");
}

/// Runs until so many batches are in Harper.
fn run_until_written(world: &mut World, engine: &mut Engine, batches: usize) {
    let mut event = Event::Start;
    let mut written = 0;
    while written < batches {
        let moment = world.moment(0);
        let command = engine.step(event, moment);
        written += usize::from(matches!(command, Command::Write(_)));
        event = world.run(command).unwrap();
    }
}

#[test]
fn a_window_that_was_begun_with_a_column_that_is_gone_is_read_anew_and_nothing_is_doubled() {
    let mut world = world(Habits { page_rows_max: 200, ..habits() });
    world.source.alter(Extra::Integer);
    add(&mut world, 2_000, BASE_US - DAY_US);
    run_until_written(&mut world, &mut lone_engine(&configuration(json!({}))), 4);
    let begun = world.nodes[0].target.len();
    assert!((400..1_000).contains(&begun), "{begun} rows");
    world.source.alter(Extra::Absent);
    let mut engine = lone_engine(&configuration(json!({})));
    let (_, orders) = run_for(&mut world, &mut engine, Event::Start, 60);
    assert_eq!((written(&orders), world.source.queries), (2_000, 2));
    assert_eq!(world.check_equality(), None);
}

#[test]
fn a_column_that_is_added_changes_no_ids_and_one_that_is_gone_only_those_that_are_read_again() {
    let mut world = world(habits());
    add(&mut world, 100, BASE_US - DAY_US);
    add(&mut world, 10, BASE_US - 300 * SECOND_US);
    let mut engine = lone_engine(&configuration(json!({})));
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 60);
    let ids = |world: &World| world.nodes[0].target.keys().cloned().collect::<Vec<_>>();
    let before = ids(&world);
    world.source.alter(Extra::Integer);
    add(&mut world, 1, BASE_US);
    let (event, _) = run_for(&mut world, &mut engine, event, 60);
    assert_eq!(ids(&world)[..110], before);
    world.source.alter(Extra::Absent);
    let (_, orders) = run_for(&mut world, &mut engine, event, 60);
    assert_eq!(written(&orders), 11);
    assert_eq!(ids(&world)[..100], before[..100]);
    assert!(ids(&world)[100..].iter().all(|id| id.ends_with("~0~1")));
    assert_eq!(world.check_equality(), None);
}

#[test]
fn a_history_of_the_schema_that_was_deleted_is_begun_anew() {
    let mut world = world(habits());
    add(&mut world, 10, BASE_US - DAY_US);
    let mut engine = lone_engine(&configuration(json!({})));
    let (event, _) = run_for(&mut world, &mut engine, Event::Start, 60);
    world.nodes[0].schemas.clear();
    run_for(&mut world, &mut engine, event, 60);
    assert_eq!(engine.status(Micros(world.now)).last_error, None);
    assert_eq!(world.nodes[0].schemas.len(), 1);
}
