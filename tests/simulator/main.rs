//! The engine in simulated worlds: seeded, with faults, crashes and time that passes at once.
//!
//! `SIMULATOR_SEEDS` says how many worlds are tried, `SIMULATOR_SEED` which one alone (with its trace).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod random;
mod run;
mod sabotage;
mod scenarios;
mod source;
mod world;

use run::{Outcome, run};
use sabotage::Sabotage;

const SEEDS_DEFAULT: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_world_loses_doubles_or_invents_a_row() {
    if let Some(seed) = number("SIMULATOR_SEED") {
        let outcome = run(seed, None);
        println!("{}", outcome.trace.join("\n"));
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let seeds = number("SIMULATOR_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let mut totals = [0; 4];
    for seed in 0..seeds {
        let outcome = run(seed, None);
        if let Some(violation) = &outcome.violation {
            let last = outcome.trace.len().saturating_sub(60);
            println!("{}", outcome.trace[last..].join("\n"));
            panic!("seed {seed}: {violation}\nthe whole trace: npm run sim -- --seed {seed}");
        }
        for (total, count) in totals.iter_mut().zip(outcome.counts) {
            *total += count;
        }
    }
    let [rows, queries, faults, crashes] = totals;
    println!("{seeds} worlds: {rows} rows, {queries} queries, {faults} faults, {crashes} crashes");
    assert!(faults > seeds && crashes > seeds, "the worlds are too kind");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        assert_eq!(run(seed, None).trace, run(seed, None).trace);
    }
}

/// Breaks the engine at its boundary and tells whether some world notices.
fn is_caught(sabotage: Sabotage) -> bool {
    (0..300).any(|seed| matches!(run(seed, Some(sabotage)), Outcome { violation: Some(_), .. }))
}

#[test]
fn a_watermark_that_is_committed_before_the_rows_is_caught() {
    assert!(is_caught(Sabotage::CheckpointWithoutRows));
}

#[test]
fn a_window_that_leaves_out_its_last_instant_is_caught() {
    assert!(is_caught(Sabotage::EndsExclusive));
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
fn an_older_version_that_overwrites_a_newer_one_is_caught() {
    assert!(is_caught(Sabotage::OlderOverwrites));
}

#[test]
fn ids_that_change_with_each_reading_are_caught() {
    assert!(is_caught(Sabotage::UnstableIds));
}
