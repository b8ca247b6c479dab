//! Tables that are read again: that nothing gets lost meanwhile, and that what is gone from the source goes, and nothing
//! else does.

use crate::crew::Crew;
use crate::node::{Node, Transaction};
use crate::run::{Outcome, begin};
use crate::sabotage::{self, Sabotage};
use crate::source::Row;
use crate::world::World;
use bigquery_sync::engine::Engine;
use bigquery_sync::engine::checkpoint::Checkpoint;
use bigquery_sync::engine::resync::Resync;
use bigquery_sync::engine::sweep::{Sweep, Written};
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use bigquery_sync::validation::Place;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

const WORLDS: u64 = 250;
/// Longer than what a node has mended counts as in doubt.
const DOUBT_US: i64 = 2 * 3_600 * SECOND_US;

/// The first worker of a node removes what is gone from the source, if that is due.
pub fn sweep_copy(engine: &mut Engine, world: &mut World, node: usize, name: &str) {
    let here = &world.nodes[node];
    if here.checkpoints.values().all(|(one, _)| one.reread.is_none()) {
        return;
    }
    let checkpoints: Vec<Checkpoint> = here.checkpoints.values().map(|(one, _)| one.clone()).collect();
    let checkpoints = sabotage::sweeps_after(world.sabotage, checkpoints);
    let place =
        Place { node: name, rank: node as u32, haste: 1, is_certain: false, now: world.moment(node).now };
    let here = &world.nodes[node];
    let Some(mut sweep) = engine.sweep(here.told(name), &checkpoints, here.known, place) else { return };
    // It may be interrupted, and begins again then.
    let most = if world.random.one_in(4) { world.random.below(5) as usize } else { usize::MAX };
    let gone = gone(&sweep, world, &world.nodes[node]);
    let is_over = gone.len() <= most;
    let gone: Vec<_> = gone.into_iter().take(most).collect();
    world.note(format!("node {node} removes {} rows, may remove {}", gone.len(), sweep.may_remove()));
    let mut by_stamp: BTreeMap<Micros, Vec<(String, Row)>> = BTreeMap::new();
    for (id, row, stamp) in gone {
        by_stamp.entry(stamp).or_default().push((id, row));
    }
    for (stamp, gone) in by_stamp {
        sweep.remove(gone.len() as u64);
        let (replaced, rows): (Vec<String>, Vec<Row>) = gone.into_iter().unzip();
        world.remove(node, Transaction { replaced, ..Transaction::default() }, stamp.0);
        rows.iter().for_each(|row| check_removal(world, node, row));
    }
    if is_over {
        world.nodes[node].known.swept = sweep.swept(place.now).number;
    }
}

/// The records that are gone, each with the time at which it is to be removed.
fn gone(sweep: &Sweep, world: &World, node: &Node) -> Vec<(String, Row, Micros)> {
    let clock = &world.source.habits.clock;
    let taken = |(id, (row, (at, _))): (&String, &(Row, (i64, usize)))| {
        let cursor = row.cursor.map(|cursor| clock.cell(cursor));
        let cursor = cursor.as_deref().filter(|_| sweep.attribute().is_some());
        let stamp = sweep.takes(Written { id, stamp: Micros(*at), synced_at: None, cursor })?;
        Some((id.clone(), row.clone(), stamp))
    };
    node.target.iter().filter_map(taken).collect()
}

/// A row that the source had when the command was given, and still has, is not removed.
fn check_removal(world: &mut World, node: usize, row: &Row) {
    let Some(given) = world.resync.and_then(|resync| resync.given) else { return };
    let is_keyed = world.source.habits.keyed;
    let is_like = |other: &&Row| if is_keyed { other.key == row.key } else { *other == row };
    let wanted = world.source.visible(given.0 - 600 * SECOND_US).filter(is_like).count();
    let wanted = if is_keyed { wanted.min(1) } else { wanted };
    let found = world.nodes[node].target.values().map(|(row, _)| row).filter(is_like).count();
    if found < wanted {
        world.violation = Some(format!("node {node} has removed {row:?}, which exists"));
    }
}

/// Commands to read the table again. Some workers hear of it at once.
pub fn command(world: &mut World, crew: &mut Crew, from: Option<i64>) {
    let number = world.resync.map_or(1, |resync| resync.number + 1);
    let is_open = world.nodes.iter().any(|node| !node.is_removed && node.known.swept + 1 < number);
    // One that is still being followed is not given up for a shorter one.
    let open = world.resync.filter(|_| is_open).map(|resync| resync.from.map(|from| from.0));
    let from = open.map_or(from, |open| open.min(from));
    world.note(format!("resync {number} from {from:?}"));
    let resync = Resync { number, given: Some(Micros(world.now)), from: from.map(Micros), gone_before: None };
    world.resync = Some(resync);
    world.source.excuse_jobs();
    crew.tell_resync(world, resync);
}

/// Deletes some rows of the source that came before, and commands to read the table again.
fn remove_and_command(world: &mut World, crew: &mut Crew) {
    let days = world.random.pick(&[0, 0, 1, 3]);
    let from = (days > 0).then(|| world.now - days * DAY_US);
    let present = world.source.habits.clock.zone.local(Micros(world.now)).0 - 60 * SECOND_US;
    // The cursor's clocks may show other times.
    let earliest = from.map_or(i64::MIN, |from| from + 2 * DAY_US);
    let is_pruned = world.source.habits.rule.pruned;
    let is_keyed = world.source.habits.keyed;
    let share = world.random.pick(&[0, 3, 10]);
    // Of a source without rows, nothing is removed.
    let is_small = world.source.visible(world.now).filter(|row| row.cursor.is_some()).count() < 20;
    let share = if is_small { 0 } else { share };
    let mut keys = BTreeMap::new();
    if is_keyed && from.is_some() {
        // All versions of a key go, and they may be older.
        return command(world, crew, from);
    }
    let World { random, source, now, .. } = world;
    source.remove(|row, visible_at| {
        let goes = if is_keyed {
            *keys.entry(row.key.clone()).or_insert_with(|| share > 0 && random.one_in(share))
        } else {
            share > 0 && random.one_in(share)
        };
        let is_in_range =
            row.cursor.is_some_and(|cursor| cursor >= earliest && (cursor <= present || !is_pruned));
        goes && (is_keyed || is_in_range && visible_at < *now)
    });
    command(world, crew, from);
}

/// Tells the story of a world in which the table is read again once or twice, with all kinds of trouble meanwhile.
fn run(seed: u64, sabotage: Option<Sabotage>, workers: &RangeInclusive<u64>) -> Outcome {
    let (mut world, mut crew) = begin(seed, sabotage, workers);
    if world.random.one_in(2) {
        crew.play_scene(&mut world);
    } else {
        let end = world.now + 900 * SECOND_US;
        crew.work_until(&mut world, end);
    }
    crew.bring_back(&mut world);
    let resyncs = 1 + world.random.below(2);
    for _ in 0..resyncs {
        if world.violation.is_none() {
            remove_and_command(&mut world, &mut crew);
            crew.play_scene(&mut world);
        }
    }
    crew.come_to_rest(&mut world);
    let has_mended = world.nodes.iter().any(|node| node.known.mended_at.is_some());
    if world.violation.is_none() && world.check_equality().is_some() && has_mended {
        // What was lost and read again is kept rather than removed by mistake.
        let end = world.now + DOUBT_US;
        crew.work_until(&mut world, end);
        command(&mut world, &mut crew, None);
        crew.come_to_rest(&mut world);
    }
    let violation =
        world.violation.take().or_else(|| world.check_equality()).or_else(|| world.check_jobs_bill());
    Outcome { violation, counts: [0; 4], trace: world.trace }
}

#[test]
fn a_table_that_is_read_again_loses_nothing_but_what_is_gone() {
    let only = std::env::var("SIMULATOR_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in only.map_or(0..WORLDS, |seed| seed..seed + 1) {
        let Outcome { violation, trace, .. } = run(seed, None, &(1..=4));
        if violation.is_some() || only.is_some() {
            let shown = if only.is_some() { 0 } else { trace.len().saturating_sub(60) };
            println!("{}", trace[shown..].join("\n"));
        }
        assert_eq!(violation, None, "seed {seed}");
    }
}

fn is_caught(sabotage: Sabotage, workers: RangeInclusive<u64>) -> bool {
    (0..1_000).any(|seed| run(seed, Some(sabotage), &workers).violation.is_some())
}

#[test]
fn stored_rows_that_are_not_written_again_are_caught() {
    assert!(is_caught(Sabotage::StoredCountsAsRead, 1..=4));
}

#[test]
#[ignore = "1,000 worlds do not catch it any more since a command may take the watermark back: they need another way"]
fn newer_versions_that_are_taken_for_gone_are_caught() {
    assert!(is_caught(Sabotage::NewerNotRewritten, 1..=2));
}

#[test]
fn removing_before_all_was_read_is_caught() {
    assert!(is_caught(Sabotage::SweptTooEarly, 1..=4));
}

#[test]
fn rows_that_nobody_removes_are_caught() {
    assert!(is_caught(Sabotage::NothingSwept, 1..=2));
}
