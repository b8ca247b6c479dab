//! How simulated nodes compare their copies with what was counted.

use crate::node::Node;
use crate::world::World;
use bigquery_sync::validation::{
    Check, Comparison, Conclusion, KeyComparison, Leaves, Listing, Place, Repair, Vetted,
};
use std::borrow::Cow;

/// Ways to break validation on purpose, to see whether the worlds notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// As many rows are taken for the same rows.
    SumsIgnored,
    /// All nodes believe what the first one has found.
    FirstNodeAlone,
    /// Rows of other workers are taken for those that were counted.
    PartitionsIgnored,
    /// Nothing is read again.
    NothingReadAgain,
    /// The last microsecond of what differs is not read again.
    EndsNotReadAgain,
    /// Nothing is deleted.
    NothingDeleted,
}

/// Compares a node's copy. Returns none if the list of keys cannot be read.
pub fn compare(
    world: &mut World,
    node: usize,
    leaves: &Leaves,
    vetted: &Vetted,
    place: Place<'_>,
) -> Option<Conclusion> {
    let mut leaves = leaves.clone();
    if world.flaw == Some(Flaw::PartitionsIgnored) {
        leaves.rule = "table/1".to_owned();
    }
    let mut concluded = match world.nodes[0].checks.get(&leaves.id) {
        Some(first) if node > 0 && world.flaw == Some(Flaw::FirstNodeAlone) => {
            Conclusion { check: first.clone(), repair: None, deletion: None, note: None }
        }
        _ => honestly(world, node, &leaves, vetted, place)?,
    };
    match (world.flaw, &mut concluded.repair) {
        (Some(Flaw::NothingReadAgain), repair) => *repair = None,
        (Some(Flaw::EndsNotReadAgain), Some(Repair { windows, .. })) => {
            for window in windows {
                window.until = window.until.map(|until| until.plus(-1));
            }
        }
        (Some(Flaw::NothingDeleted), _) => concluded.deletion = None,
        _ => {}
    }
    Some(concluded)
}

fn honestly(
    world: &mut World,
    node: usize,
    leaves: &Leaves,
    vetted: &Vetted,
    place: Place<'_>,
) -> Option<Conclusion> {
    let before = world.nodes[node].checks.get(&leaves.id).cloned();
    if let Some(listing) = leaves.listing.clone() {
        return compare_keys(world, node, leaves, listing, before, place);
    }
    let mut found = Comparison::new(leaves.clone()).unwrap();
    found.vet(vetted, before.as_ref());
    found.add(world.nodes[node].target.keys().map(String::as_str));
    let mut finding = found.finding(before.as_ref());
    if world.flaw == Some(Flaw::SumsIgnored) {
        finding.differences.retain(|one| one.missing + one.extra > 0);
    }
    Some(Check::conclude(before, &finding, |leaves| found.windows(leaves), place))
}

fn compare_keys(
    world: &mut World,
    node: usize,
    leaves: &Leaves,
    listing: Listing,
    before: Option<Check>,
    place: Place<'_>,
) -> Option<Conclusion> {
    let mut found = KeyComparison::new(leaves.clone(), listing).unwrap();
    loop {
        while let Some(request) = found.request() {
            let (status, body) = world.read_result(&request.path);
            if status != 200 {
                return None;
            }
            found.add_page(body.into_bytes()).ok()?;
        }
        found.add_stored(&records(world, &world.nodes[node]));
        if !found.looks_closer() {
            break;
        }
    }
    let finding = found.finding(before.as_ref(), place.node);
    Some(Check::conclude(before, &finding, |leaves| found.windows(leaves), place))
}

/// The ids of all records and, behind each, its cursor as Harper stores it.
fn records(world: &World, node: &Node) -> Vec<Option<Cow<'static, str>>> {
    let clock = &world.source.habits.clock;
    let cursor = |cursor: i64| Some(Cow::Owned(clock.cell(cursor)));
    let record = |(id, row): (&String, Option<i64>)| [Some(Cow::Owned(id.clone())), row.and_then(cursor)];
    node.target.iter().map(|(id, (row, _))| (id, row.cursor)).flat_map(record).collect()
}
