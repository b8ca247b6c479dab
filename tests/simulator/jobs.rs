//! Queries that may bill much: what each of them bills is billed once, as long as its result lives.

use crate::crew::Crew;
use crate::random::Random;
use crate::run::BASE_US;
use crate::scenarios::{BY_DAY, add, configuration, habits, lone_engine, run_for, world};
use crate::source::{Extra, Habits, Source};
use crate::world::{Actor, World};
use bigquery_sync::bigquery::request::{Purpose, Request};
use bigquery_sync::cluster::{Share, Standing};
use bigquery_sync::engine::{Answer, Command, Engine, Event};
use bigquery_sync::error::{Failure, Kind};
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use serde_json::json;
use std::collections::BTreeSet;

/// A table of 2,000 rows that weigh a MiB each.
fn heavy(habits: Habits) -> World {
    let mut world = world(Habits { bytes_per_row: 1 << 20, ..habits });
    world.source.job_bytes_billed = 1 << 31;
    add(&mut world, 2_000, BASE_US - DAY_US);
    world
}

/// Lets an engine work until it gives a command, which is not carried out.
fn run_up_to(
    world: &mut World,
    engine: &mut Engine,
    event: Event,
    is_it: impl Fn(&Command) -> bool,
) -> Command {
    let mut event = event;
    for _ in 0..200 {
        let moment = world.moment(0);
        let command = engine.step(event, moment);
        if is_it(&command) {
            return command;
        }
        event = world.run(command).unwrap();
    }
    panic!("the command never came");
}

fn makes_job(command: &Command) -> bool {
    matches!(command, Command::Send(Request { purpose: Purpose::MakeJob, .. }))
}

fn writes_rows(command: &Command) -> bool {
    matches!(command, Command::Write(order) if order.batch.rows > 0)
}

fn reads_result(command: &Command) -> bool {
    matches!(command, Command::Send(Request { purpose: Purpose::ReadResult, .. }))
}

/// Lets a new engine read on, and checks that all is there, of so many jobs, each of which is on the bill.
fn assert_read_and_billed(world: &mut World, jobs: u64) {
    let mut engine = lone_engine(&configuration(json!({})));
    run_for(world, &mut engine, Event::Start, 600);
    assert_eq!(world.violation, None);
    assert_eq!(world.check_equality(), None);
    assert_eq!((world.source.queries, world.source.jobs.len() as u64), (jobs, jobs));
    let status = engine.status(Micros(world.now));
    assert_eq!((status.bytes_billed, status.last_error), (jobs * world.source.job_bytes_billed, None));
}

#[test]
fn a_crash_before_the_first_batch_bills_nothing_twice() {
    for slow_queries in [false, true] {
        let mut world = heavy(Habits { slow_queries, ..habits() });
        let mut engine = lone_engine(&configuration(json!({})));
        run_up_to(&mut world, &mut engine, Event::Start, writes_rows);
        assert_eq!(world.source.queries, 1);
        assert_read_and_billed(&mut world, 1);
    }
}

#[test]
fn a_crash_between_the_storing_of_a_job_and_its_making_makes_it_once() {
    let mut world = heavy(habits());
    let mut engine = lone_engine(&configuration(json!({})));
    run_up_to(&mut world, &mut engine, Event::Start, makes_job);
    assert_eq!(world.source.queries, 0);
    assert_read_and_billed(&mut world, 1);
}

#[test]
fn a_job_that_was_made_in_spite_of_a_failure_or_of_no_answer_is_found() {
    let refusal = |status: u16, reason: &str| {
        let body = json!({"error": {"errors": [{"reason": reason}]}}).to_string().into_bytes();
        Ok(Answer { status, server_time: None, retry_after_ms: None, body })
    };
    for outcome in [
        Err(Failure::new(Kind::Timeout, "no answer")),
        Err(Failure::new(Kind::Unreachable, "reset")),
        refusal(503, "backendError"),
        refusal(429, "rateLimitExceeded"),
        Ok(Answer { status: 200, server_time: None, retry_after_ms: None, body: b"{\"cut".to_vec() }),
    ] {
        let mut world = heavy(habits());
        let mut engine = lone_engine(&configuration(json!({})));
        let command = run_up_to(&mut world, &mut engine, Event::Start, makes_job);
        world.run(command).unwrap();
        run_for(&mut world, &mut engine, Event::Answered(outcome), 600);
        assert_eq!((world.source.queries, world.check_equality()), (1, None));
        let status = engine.status(Micros(world.now));
        assert_eq!((status.bytes_billed, status.last_error), (world.source.job_bytes_billed, None));
    }
}

#[test]
fn failures_while_a_job_runs_do_not_make_another_one() {
    let mut world = heavy(habits());
    let mut engine = lone_engine(&configuration(json!({})));
    let mut event = Event::Start;
    for _ in 0..5 {
        run_up_to(&mut world, &mut engine, event, reads_result);
        let body = br#"{"error":{"errors":[{"reason":"backendError"}]}}"#.to_vec();
        event = Event::Answered(Ok(Answer { status: 503, server_time: None, retry_after_ms: None, body }));
    }
    run_for(&mut world, &mut engine, event, 600);
    assert_eq!((world.source.queries, world.check_equality()), (1, None));
}

#[test]
fn a_job_whose_result_is_gone_is_on_the_bill_and_another_one_is_made() {
    let mut world = heavy(habits());
    let mut engine = lone_engine(&configuration(json!({})));
    run_up_to(&mut world, &mut engine, Event::Start, reads_result);
    world.now += 2 * DAY_US;
    assert_read_and_billed(&mut world, 2);
}

#[test]
fn a_job_whose_columns_are_gone_is_cancelled_once_and_is_on_the_bill() {
    let mut world = heavy(Habits { slow_queries: true, ..habits() });
    world.source.alter(Extra::Integer);
    let mut engine = lone_engine(&configuration(json!({})));
    run_up_to(&mut world, &mut engine, Event::Start, reads_result);
    world.source.alter(Extra::Absent);
    assert_read_and_billed(&mut world, 2);
    let cancels: u64 = world.source.jobs.values().map(|job| job.cancels).sum();
    assert_eq!(cancels, 1);
}

#[test]
fn a_poll_that_bills_little_needs_no_job_whatever_the_table_weighs() {
    let mut world = heavy(Habits { partitioned: true, rule: BY_DAY, ..habits() });
    let mut engine = lone_engine(&configuration(json!({})));
    world.source.job_bytes_billed = 1_000;
    let (mut event, _) = run_for(&mut world, &mut engine, Event::Start, 60);
    for _ in 0..5 {
        let just_now = world.now - SECOND_US;
        add(&mut world, 1, just_now);
        (event, _) = run_for(&mut world, &mut engine, event, 60);
    }
    assert_eq!(world.check_equality(), None);
    // The whole table, and the first poll, of which nothing was known.
    assert_eq!(world.source.jobs.len(), 2);
    (world.source.bytes_billed, world.source.job_bytes_billed) = (1 << 28, 1 << 28);
    for _ in 0..3 {
        let just_now = world.now - SECOND_US;
        add(&mut world, 1, just_now);
        (event, _) = run_for(&mut world, &mut engine, event, 60);
    }
    assert_eq!(world.source.jobs.len(), 4);
}

#[test]
fn the_location_of_a_job_is_that_of_the_table_unless_it_is_configured() {
    for (configured, expected) in [(None, "asia-east1"), (Some("EU"), "EU")] {
        let mut world = heavy(habits());
        world.source.location = Some("asia-east1".to_owned());
        let mut root = configuration(json!({}));
        root["bigquery"]["location"] = json!(configured);
        let command = run_up_to(&mut world, &mut lone_engine(&root), Event::Start, makes_job);
        let Command::Send(request) = command else { panic!("{command:?}") };
        assert!(request.body.unwrap().contains(&format!("\"location\":\"{expected}\"")));
    }
}

/// Lets a worker of one node store and make a job over all partitions; then two workers share them.
#[test]
fn a_job_whose_partitions_come_to_several_workers_is_cancelled_once_and_is_on_the_bill() {
    let mut world = heavy(Habits { partitioned: true, rule: BY_DAY, slow_queries: true, ..habits() });
    let mut engine = lone_engine(&configuration(json!({})));
    run_up_to(&mut world, &mut engine, Event::Start, reads_result);
    let mut hands: Vec<(Actor, Engine, i64, Event)> = (0..2)
        .map(|position| {
            let standing = Standing { share: Share { position, workers: 2 }, ..Standing::ALONE };
            let worker = bigquery_sync::engine::Worker { node: "n".to_owned(), index: position };
            let engine = crate::run::engine(&configuration(json!({})), worker, standing);
            (Actor::default(), engine, world.now, Event::Start)
        })
        .collect();
    let end = world.now + 600 * SECOND_US;
    while world.now < end {
        let next = (0..2).min_by_key(|place| hands[*place].2).unwrap();
        let (actor, engine, at, event) = &mut hands[next];
        world.now = world.now.max(*at);
        let moment = world.moment(0);
        let command = engine.step(std::mem::replace(event, Event::Stop), moment);
        let (duration_us, outcome) = world.execute(actor, command).unwrap();
        (*at, *event) = (world.now + duration_us, outcome);
    }
    assert_eq!((world.violation.take(), world.check_equality()), (None, None));
    let cancels: Vec<u64> = world.source.jobs.values().map(|job| job.cancels).collect();
    assert_eq!(cancels.iter().sum::<u64>(), 1, "{cancels:?}");
    let billed: u64 = world.nodes[0].checkpoints.values().map(|(one, _)| one.bytes_billed).sum();
    assert_eq!(billed / world.source.job_bytes_billed, world.source.jobs.len() as u64);
}

#[test]
fn a_worker_that_takes_all_over_reads_the_job_of_the_one_that_is_gone() {
    for seed in 0..10 {
        let habits = Habits { bytes_per_row: 1 << 20, slow_queries: true, ..habits() };
        let mut world = World::new(Random::new(seed), BASE_US, Source::new(habits), None);
        add(&mut world, 2_000, BASE_US - DAY_US);
        let mut crew = Crew::gather(&mut world, &configuration(json!({})), &(2..=4));
        // No rows come meanwhile.
        crew.bring_all_back(&mut world);
        let mut steps = 0;
        while world.source.jobs.is_empty() {
            let soon = world.now + 1_000;
            crew.work_until(&mut world, soon);
            steps += 1;
            assert!(steps < 200_000, "no job was made");
        }
        crew.crash_reader(&mut world);
        for _ in 0..2 {
            let later = world.now + 600 * SECOND_US;
            crew.work_until(&mut world, later);
            crew.bring_all_back(&mut world);
        }
        world.deliver_everything();
        let reads_all = |line: &&String| line.contains(": query SELECT *") && !line.contains("`ts` >");
        let job =
            |line: &String| line.split(" job ").nth(1).map(|rest| rest.split(':').next().map(str::to_owned));
        let jobs: BTreeSet<_> = world.trace.iter().filter(reads_all).map(job).collect();
        assert_eq!((jobs.len(), world.violation.take()), (1, None), "seed {seed}");
        assert_eq!(world.check_equality(), None, "seed {seed}");
    }
}
