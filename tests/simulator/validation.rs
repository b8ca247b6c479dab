//! Copies that differ from their source: that this is found and mended, and that nothing is found where nothing differs.

use crate::copies::Flaw;
use crate::crew::Crew;
use crate::run::{LATENESS_S, begin};
use crate::source::Row;
use crate::world::World;
use bigquery_sync::bigquery::cursor::CursorType;
use bigquery_sync::mapping::id;
use bigquery_sync::time::{DAY_US, Micros, SECOND_US};
use bigquery_sync::validation::State;

const WORLDS: u64 = 120;
/// What is wanted of a validation is there after so long.
const PATIENCE_US: i64 = 3_600 * SECOND_US;
const LOOK_US: i64 = 30 * SECOND_US;

/// A world whose workers have read everything.
pub fn rested(seed: u64) -> (World, Crew) {
    let (mut world, mut crew) = begin(seed, None, &(1..=4));
    crew.come_to_rest(&mut world);
    assert_eq!((world.violation.take(), world.check_equality()), (None, None), "seed {seed}");
    (world, crew)
}

/// The cursor up to which rows do not come any more.
pub fn settled_until(world: &World) -> Option<i64> {
    let checkpoints = world.nodes.iter().flat_map(|node| node.checkpoints.values());
    let lowest = checkpoints.map(|(one, _)| one.last_timestamp.map(|at| at.0)).min().flatten()?;
    let is_day = world.source.habits.clock.cursor == CursorType::Date;
    Some(lowest - LATENESS_S * SECOND_US - if is_day { DAY_US } else { 0 })
}

/// What makes a copy differ from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// The source gets a row far too late.
    LateRow,
    /// All nodes lose rows.
    LostEverywhere,
    /// One node loses rows.
    LostOnOne,
    /// The source loses rows, but no whole day, and not all versions of the newest.
    GoneFromSource,
    /// All nodes have rows that the source never had.
    Invented,
    /// Rows are replaced by as many others.
    Replaced,
}

const HARMS: [Harm; 6] = [
    Harm::LateRow,
    Harm::LostEverywhere,
    Harm::LostOnOne,
    Harm::GoneFromSource,
    Harm::Invented,
    Harm::Replaced,
];

/// Takes rows from one node or from all, or adds rows to the source that are far too late. Returns whether it could.
fn spoil(world: &mut World) -> bool {
    let Some(until) = settled_until(world) else { return false };
    let is_settled = |row: &Row| row.cursor.is_some_and(|cursor| cursor <= until);
    let rows: Vec<(String, Row)> = world.nodes[0]
        .target
        .iter()
        .filter(|(_, (row, _))| is_settled(row))
        .map(|(id, (row, _))| (id.clone(), row.clone()))
        .collect();
    if rows.is_empty() {
        return false;
    }
    world.is_spoilt = true;
    let harm = world.random.pick(&HARMS);
    let some = |world: &mut World| rows[world.random.below(rows.len() as u64) as usize].clone();
    match harm {
        Harm::LateRow => {
            let (_, row) = some(world);
            let text = "far too late".to_owned();
            let key = if world.source.habits.keyed { text.clone() } else { row.key.clone() };
            let visible_at = world.now;
            world.source.add(Row { text, key, ..row }, visible_at);
        }
        Harm::LostEverywhere | Harm::LostOnOne => {
            let node = world.random.below(world.nodes.len() as u64) as usize;
            for _ in 0..5 {
                let (id, _) = some(world);
                for (number, here) in world.nodes.iter_mut().enumerate() {
                    if harm == Harm::LostEverywhere || number == node {
                        here.target.remove(&id);
                    }
                }
            }
        }
        Harm::GoneFromSource => {
            let (_, row) = some(world);
            return world.source.remove_one(&row);
        }
        Harm::Invented => {
            let (_, like) = some(world);
            invent(world, &like);
        }
        Harm::Replaced => {
            let (id, row) = some(world);
            world.nodes.iter_mut().for_each(|here| {
                here.target.remove(&id);
            });
            invent(world, &row);
        }
    }
    true
}

/// Gives all nodes a row that is like another one, but a microsecond younger.
fn invent(world: &mut World, row: &Row) {
    let key = format!("{}x", row.key);
    let cursor = row.cursor.map(|cursor| cursor + 1);
    // The id of a row without a key begins with its cursor.
    let id = match world.source.habits.keyed {
        true => key.clone(),
        false => format!("{}{}", id::bounds(row.cursor.map(Micros), None).0, "x".repeat(16)),
    };
    let row = Row { text: "invented".to_owned(), key, cursor };
    let stored_at = world.now - SECOND_US;
    for here in &mut world.nodes {
        here.target.insert(id.clone(), (row.clone(), (stored_at, 0)));
        here.stored_at.insert(id.clone(), stored_at);
    }
}

/// Works until a condition holds, or for an hour.
pub fn work_until(world: &mut World, crew: &mut Crew, holds: impl Fn(&World) -> bool) -> bool {
    let end = world.now + PATIENCE_US;
    while world.now < end && world.violation.is_none() {
        if holds(world) {
            return true;
        }
        let next = world.now + LOOK_US;
        crew.work_until(world, next);
    }
    holds(world)
}

/// Whether all nodes have compared their copies with what all workers counted, and found them equal.
fn is_found_equal(world: &World) -> bool {
    let leaves = || world.nodes.iter().flat_map(|node| node.leaves.values());
    let asked = leaves().filter(|(leaves, _)| leaves.asked == world.validations);
    let counted: std::collections::BTreeSet<&String> = asked.map(|(leaves, _)| &leaves.id).collect();
    let is_equal = |id: &&String| {
        world.nodes.iter().all(|node| {
            node.checks
                .get(*id)
                .is_some_and(|one| one.asked == world.validations && one.state == State::Equal)
        })
    };
    !counted.is_empty() && counted.iter().all(is_equal)
}

/// Spoils a world and has it validated. Tells what is not mended; none if the world could not be spoilt.
fn mend(seed: u64, flaw: Option<Flaw>) -> Option<Result<(), String>> {
    let (mut world, mut crew) = rested(seed);
    if !spoil(&mut world) {
        return None;
    }
    let soon = world.now + 60 * SECOND_US;
    crew.work_until(&mut world, soon);
    assert_ne!(world.check_equality(), None, "seed {seed}: nothing differs");
    world.validations += 1;
    world.flaw = flaw;
    let is_mended =
        work_until(&mut world, &mut crew, |world| world.check_equality().is_none() && is_found_equal(world));
    let checks: Vec<_> = world.nodes.iter().map(|node| &node.checks).collect();
    let unlike = || format!("{:?}, {:?}, {checks:?}", world.violation, world.check_equality());
    Some(if is_mended { Ok(()) } else { Err(unlike()) })
}

/// Validates a world in which nothing differs. Returns whether all copies were found equal.
fn leave_alone(seed: u64, flaw: Option<Flaw>) -> Result<bool, String> {
    let (mut world, mut crew) = rested(seed);
    world.validations += 1;
    world.flaw = flaw;
    let is_equal = work_until(&mut world, &mut crew, is_found_equal);
    let checks = world.nodes.iter().flat_map(|node| node.checks.values());
    let repaired: Vec<_> = checks.filter(|check| check.repairs > 0).collect();
    if repaired.is_empty() { Ok(is_equal) } else { Err(format!("{repaired:?}")) }
}

#[test]
fn copies_that_differ_are_found_and_mended() {
    let mut spoilt = 0;
    for seed in 0..WORLDS {
        let Some(mended) = mend(seed, None) else { continue };
        spoilt += 1;
        assert_eq!(mended, Ok(()), "seed {seed}");
    }
    assert!(spoilt > WORLDS / 5, "{spoilt} worlds alone could be spoilt");
}

#[test]
fn a_validation_that_does_not_work_is_noticed() {
    use Flaw::{
        EndsNotReadAgain, FirstNodeAlone, NothingDeleted, NothingReadAgain, PartitionsIgnored, SumsIgnored,
    };
    for flaw in [SumsIgnored, FirstNodeAlone, NothingReadAgain, EndsNotReadAgain, NothingDeleted] {
        let is_noticed = (0..WORLDS).any(|seed| mend(seed, Some(flaw)).is_some_and(|mended| mended.is_err()));
        assert!(is_noticed, "{flaw:?}");
    }
    assert!((0..WORLDS).any(|seed| leave_alone(seed, Some(PartitionsIgnored)).is_err()));
}

#[test]
fn a_copy_of_which_only_the_newest_rows_are_left_is_mended() {
    let mut emptied = 0;
    for seed in 0..WORLDS / 2 {
        let (mut world, mut crew) = rested(seed);
        let Some(until) = settled_until(&world) else { continue };
        world.is_spoilt = true;
        for node in &mut world.nodes {
            node.target
                .retain(|_, (row, _)| row.cursor.is_some_and(|cursor| cursor > until - 100 * SECOND_US));
        }
        emptied += u64::from(world.check_equality().is_some());
        world.validations += 1;
        let is_mended = work_until(&mut world, &mut crew, |world| {
            world.check_equality().is_none() && is_found_equal(world)
        });
        // Where nothing was ever counted, there is no row.
        let is_empty = world.nodes.iter().all(|node| node.leaves.is_empty());
        let checks: Vec<_> = world.nodes.iter().map(|node| &node.checks).collect();
        let differs = world.check_equality();
        assert!(is_mended || is_empty, "seed {seed}: {:?}, {differs:?}, {checks:?}", world.violation);
    }
    assert!(emptied > WORLDS / 10, "{emptied} worlds alone could be emptied");
}

#[test]
fn what_nobody_validates_stays_as_it_is() {
    let left = (0..WORLDS).filter(|seed| {
        let (mut world, mut crew) = rested(*seed);
        spoil(&mut world) && !work_until(&mut world, &mut crew, |world| world.check_equality().is_none())
    });
    assert!(left.count() as u64 > WORLDS / 5);
}

#[test]
fn nothing_is_read_again_where_nothing_differs() {
    let found = (0..WORLDS).filter(|seed| match leave_alone(*seed, None) {
        Ok(is_equal) => is_equal,
        Err(repaired) => panic!("seed {seed}: {repaired}"),
    });
    let found = found.count() as u64;
    assert!(found > WORLDS / 4, "{found} worlds alone were found equal");
}
