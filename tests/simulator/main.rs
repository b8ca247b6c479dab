//! The engine in simulated worlds: seeded, with faults, crashes and time that passes at once.
//!
//! `SIMULATOR_SEEDS` says how many worlds are tried, `SIMULATOR_FROM` which one is the first, `SIMULATOR_SEED` which one is
//! tried alone (with its trace), `SIMULATOR_WORKERS` how many workers they have.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod contents;
mod copies;
mod crew;
mod doubts;
mod jobs;
mod loads;
mod neighbours;
mod node;
mod noticing;
mod query;
mod random;
mod resyncing;
mod retelling;
mod run;
mod sabotage;
mod scenarios;
mod source;
mod telling;
mod validation;
mod world;
mod zones;

use run::{Outcome, run};
use sabotage::Sabotage;
use std::ops::{Range, RangeInclusive};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS_DEFAULT: u64 = 2_000;
/// After how many worlds it is told how many there were.
const PROGRESS_EVERY: u64 = 5_000;

/// How many workers worlds have, as `5` or `1..5`.
fn workers() -> RangeInclusive<u64> {
    let text = std::env::var("SIMULATOR_WORKERS").unwrap_or_default();
    let (least, most) = text.split_once("..").unwrap_or((&text, &text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) if least >= 1 && least <= most => least..=most,
        _ => 1..=5,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_world_loses_doubles_or_invents_a_row() {
    if let Some(seed) = number("SIMULATOR_SEED") {
        let outcome = run(seed, None, &workers());
        println!("{}", outcome.trace.join("\n"));
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let seeds = number("SIMULATOR_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let first = number("SIMULATOR_FROM").unwrap_or(0);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let totals = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| run_some(&next, first..first + seeds))).collect();
        let sums = runs.into_iter().map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)));
        sums.fold([0; 4], |totals, sums| std::array::from_fn(|place| totals[place] + sums[place]))
    });
    let [rows, queries, faults, crashes] = totals;
    println!("{seeds} worlds: {rows} rows, {queries} queries, {faults} faults, {crashes} crashes");
    assert!(faults > seeds && crashes > seeds, "the worlds are too kind");
}

/// Runs worlds until none is left, and adds up what happened in them.
fn run_some(next: &AtomicU64, seeds: Range<u64>) -> [u64; 4] {
    let mut totals = [0; 4];
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            return totals;
        }
        let done = seed - seeds.start;
        if done > 0 && done.is_multiple_of(PROGRESS_EVERY) {
            println!("  {done} of {} worlds", seeds.end - seeds.start);
        }
        let outcome = run(seed, None, &workers());
        if let Some(violation) = &outcome.violation {
            next.store(seeds.end, Ordering::Relaxed);
            let last = outcome.trace.len().saturating_sub(60);
            println!("{}", outcome.trace[last..].join("\n"));
            panic!(
                "seed {seed}: {violation}\nthe whole trace: npm run sim -- --seed {seed} --workers {}..{}",
                workers().start(),
                workers().end()
            );
        }
        for (total, count) in totals.iter_mut().zip(outcome.counts) {
            *total += count;
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        assert_eq!(run(seed, None, &workers()).trace, run(seed, None, &workers()).trace);
    }
}

/// Breaks the engine at its boundary and tells whether some world notices.
fn is_caught(sabotage: Sabotage) -> bool {
    is_caught_among(sabotage, 1..=1)
}

fn is_caught_among(sabotage: Sabotage, workers: RangeInclusive<u64>) -> bool {
    (0..1_000).any(|seed| matches!(run(seed, Some(sabotage), &workers), Outcome { violation: Some(_), .. }))
}

#[test]
fn a_partition_that_nobody_reads_is_caught() {
    assert!(is_caught_among(Sabotage::PartitionForgotten, 2..=5));
}

#[test]
fn workers_that_do_not_wait_for_the_cluster_to_settle_are_caught() {
    assert!(is_caught_among(Sabotage::NeverUnsettled, 3..=5));
}

#[test]
fn a_watermark_that_is_committed_before_the_rows_is_caught() {
    assert!(is_caught(Sabotage::CheckpointWithoutRows));
}

#[test]
fn progress_that_is_put_before_the_rows_is_caught() {
    assert!(is_caught(Sabotage::ProgressFirst));
}

#[test]
fn commits_that_did_not_arrive_and_that_nobody_misses_are_caught() {
    assert!(is_caught_among(Sabotage::LossesUnnoticed, 2..=5));
}

#[test]
fn commits_of_which_the_first_rows_did_not_arrive_are_caught() {
    assert!(is_caught_among(Sabotage::OpeningsIgnored, 2..=5));
}

#[test]
fn commits_that_were_arriving_when_a_node_ended_are_caught() {
    assert!(is_caught_among(Sabotage::FormerLivesTrusted, 2..=5));
}

#[test]
fn a_window_that_leaves_out_its_last_instant_is_caught() {
    assert!(is_caught(Sabotage::EndsExclusive));
}

#[test]
fn a_window_that_does_not_go_on_where_the_one_before_ended_is_caught() {
    assert!(is_caught(Sabotage::BoundaryLost));
}

#[test]
fn a_watermark_that_follows_the_clock_is_caught() {
    assert!(is_caught(Sabotage::WatermarkFollowsClock));
}

#[test]
fn a_time_zone_that_is_ignored_is_caught() {
    assert!(is_caught(Sabotage::ZoneIgnored));
}

#[test]
fn a_window_that_starts_too_late_is_caught() {
    assert!(is_caught(Sabotage::NoLateRange));
}

#[test]
fn a_lost_last_page_is_caught() {
    assert!(is_caught(Sabotage::LastPageLost));
}

#[test]
fn ids_without_occurrence_number_are_caught() {
    assert!(is_caught(Sabotage::NoOccurrence));
}

#[test]
fn a_version_that_is_taken_for_the_one_in_harper_is_caught() {
    assert!(is_caught(Sabotage::StoredById));
}

#[test]
fn rows_that_keep_the_ids_of_a_former_schema_are_caught() {
    assert!(is_caught(Sabotage::OldIdsStay));
}

#[test]
fn rows_that_two_nodes_renewed_and_that_stay_doubled_are_caught() {
    assert!(is_caught_among(Sabotage::GroupsNotCounted, 2..=5));
}

#[test]
fn an_older_version_that_overwrites_a_newer_one_is_caught() {
    assert!(is_caught(Sabotage::OlderOverwrites));
}

#[test]
fn a_job_that_is_made_before_it_is_stored_is_caught() {
    assert!(is_caught(Sabotage::JobNotStored));
}

#[test]
fn ids_that_change_with_each_reading_are_caught() {
    assert!(is_caught(Sabotage::UnstableIds));
}
