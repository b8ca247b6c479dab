//! Values that differ though cursors and keys do not: that they are found and mended, and that nothing else is written.

use crate::crew::Crew;
use crate::run::begin;
use crate::source::Row;
use crate::validation::{rested, settled_until, work_until};
use crate::world::World;

const WORLDS: u64 = 120;

/// What makes values differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Somebody changes a record on all nodes.
    InHarper,
    /// Somebody changes a row of the source without a new cursor.
    InSource,
}

/// Changes the value of a row that is not read again by itself. Returns whether it could.
fn change(world: &mut World, change: Change) -> bool {
    let Some(until) = settled_until(world) else { return false };
    let is_settled = |row: &Row| row.cursor.is_some_and(|cursor| cursor <= until);
    let rows: Vec<(String, Row)> = world.nodes[0]
        .target
        .iter()
        .filter(|(id, (row, _))| is_settled(row) && !has_old_id(world, id))
        .map(|(id, (row, _))| (id.clone(), row.clone()))
        .collect();
    if rows.is_empty() {
        return false;
    }
    let (id, row) = rows[world.random.below(rows.len() as u64) as usize].clone();
    world.is_spoilt = true;
    let text = "another value".to_owned();
    match change {
        Change::InHarper => {
            let at = world.now + world.skews_us.iter().copied().min().unwrap_or(0);
            for here in &mut world.nodes {
                let changed = Row { text: text.clone(), ..row.clone() };
                here.target.insert(id.clone(), (changed, (at, 0)));
            }
            true
        }
        Change::InSource => world.source.change_one(&row, text),
    }
}

/// Whether a row was stored before the columns changed: it is not compared.
fn has_old_id(world: &World, id: &str) -> bool {
    let era = world.nodes[0].schemas.values().map(|(schema, _)| schema.era).max().unwrap_or(0);
    !world.source.habits.keyed && era > 0 && !id.ends_with(&format!("~{era}"))
}

/// Changes a value, and has all values compared. Tells what is not mended; none if nothing could be changed.
fn mend(seed: u64, which: Change) -> Option<Result<(), String>> {
    let (mut world, mut crew) = rested(seed);
    if !change(&mut world, which) {
        return None;
    }
    assert_ne!(world.check_equality(), None, "seed {seed}: nothing differs");
    world.comparisons += 1;
    let is_keyless = !world.source.habits.keyed;
    let is_mended = match which {
        Change::InSource if is_keyless => {
            // What the row was before has another id, and goes with the next validation.
            work_until(&mut world, &mut crew, is_compared);
            world.validations += 1;
            work_until(&mut world, &mut crew, |world| world.check_equality().is_none())
        }
        _ => {
            work_until(&mut world, &mut crew, |world| world.check_equality().is_none() && is_compared(world))
        }
    };
    let contents: Vec<_> = world.nodes[0].contents.values().collect();
    let unlike = || format!("{:?}, {:?}, {contents:?}", world.violation, world.check_equality());
    Some(if is_mended { Ok(()) } else { Err(unlike()) })
}

/// Whether all that workers own was compared.
fn is_compared(world: &World) -> bool {
    let contents = || world.nodes.iter().flat_map(|node| node.contents.values());
    let of_last = || contents().filter(|(one, _)| one.asked == world.comparisons);
    of_last().count() > 0 && of_last().all(|(one, _)| one.ended.is_some())
}

fn mend_all(which: Change) {
    let mut changed = 0;
    for seed in 0..WORLDS {
        let Some(mended) = mend(seed, which) else { continue };
        changed += 1;
        assert_eq!(mended, Ok(()), "seed {seed}");
    }
    assert!(changed > WORLDS / 5, "{changed} worlds alone could be changed");
}

#[test]
fn records_that_somebody_changed_get_their_values_back() {
    mend_all(Change::InHarper);
}

#[test]
fn values_that_changed_in_the_source_without_a_new_cursor_arrive() {
    mend_all(Change::InSource);
}

#[test]
fn nothing_is_written_where_all_values_are_equal() {
    let mut compared = 0;
    for seed in 0..WORLDS {
        let (mut world, mut crew) = rested(seed);
        world.comparisons += 1;
        let before = world.trace.len();
        compared += u64::from(work_until(&mut world, &mut crew, is_compared));
        let is_writing = |line: &&String| line.ends_with("rows again") && !line.contains("commits 0 of");
        let written: Vec<&String> = world.trace[before..].iter().filter(is_writing).collect();
        assert_eq!((world.violation.clone(), written), (None, vec![]), "seed {seed}");
    }
    assert!(compared > WORLDS / 2, "{compared} worlds alone were compared");
}

#[test]
fn what_nobody_compares_stays_as_it_is() {
    let left = (0..WORLDS / 4).filter(|seed| {
        let (mut world, mut crew): (World, Crew) = begin(*seed, None, &(1..=4));
        crew.come_to_rest(&mut world);
        change(&mut world, Change::InHarper)
            && !work_until(&mut world, &mut crew, |world| world.check_equality().is_none())
    });
    assert!(left.count() as u64 > WORLDS / 20);
}
