//! What nodes tell each other of the table, and what workers load of it.

use crate::node::Transaction;
use crate::world::{Actor, World};
use bigquery_sync::engine::contents::Contents;
use bigquery_sync::engine::{Stored, Wish};
use bigquery_sync::validation::{Leaves, Seen};

impl World {
    /// Returns what a worker's node holds of the table's progress.
    pub fn stored(&self, actor: &Actor) -> Stored {
        let here = &self.nodes[actor.node];
        Stored {
            checkpoints: here.checkpoints.values().map(|(checkpoint, _)| checkpoint.clone()).collect(),
            counts: here.counts.as_ref().map(|(counts, _)| counts.clone()),
            incarnation: here.incarnation.0.clone(),
            forgiven_rows: 0,
            schema: here.schemas.values().next_back().map(|(schema, _)| Box::new(schema.clone())),
            last_commit: here.last_commit(&actor.name()).cloned(),
            proofs: here.proofs_of(actor.node),
            has_former_life: here.lives > 1,
            heads: here.heads.values().map(|(head, _)| head.clone()).collect(),
            removed: self.of_removed_nodes(here.heads.keys()),
            validation: self.wish(actor),
            resync: self.resync,
        }
    }

    /// Returns what a worker has to know to validate.
    fn wish(&self, actor: &Actor) -> Option<Wish> {
        let here = &self.nodes[actor.node];
        let (own, _) = here.leaves.get(&format!("t:{}", actor.name())).cloned().unzip();
        let followed = own.as_ref().map_or(0, |leaves| leaves.asked);
        let first_id = here.target.keys().next().cloned();
        let counted_at = own.as_ref().and_then(|leaves| leaves.counted_at);
        let bytes_billed = own.as_ref().map_or(0, |leaves| leaves.bytes_billed);
        let (billed_day, billed_on_day) =
            own.map_or((0, 0), |leaves| (leaves.billed_day, leaves.billed_on_day));
        let leaves = format!("t:{}", actor.name());
        let checks = self.nodes.iter().filter_map(|node| node.checks.get(&leaves));
        let extras = checks
            .filter(|check| check.extra_since.is_some())
            .map(|check| Seen { node: check.node.clone(), since: check.extra_since });
        let extras = extras.collect();
        let contents = here.contents.get(&leaves).map(|(contents, _)| Box::new(contents.clone()));
        Some(Wish {
            asked: self.validations,
            followed,
            billed_day,
            billed_on_day,
            counted_at,
            bytes_billed,
            first_id,
            extras,
            contents_asked: self.comparisons,
            contents,
        })
    }

    /// Returns those of some workers whose nodes were removed.
    fn of_removed_nodes<'a>(&self, workers: impl Iterator<Item = &'a String>) -> Vec<String> {
        let removed = self.nodes.iter().enumerate().filter(|(_, node)| node.is_removed);
        let prefixes: Vec<String> = removed.map(|(number, _)| format!("node{number}-")).collect();
        let is_of = |worker: &&String| prefixes.iter().any(|prefix| worker.starts_with(prefix));
        workers.filter(is_of).cloned().collect()
    }

    /// Stores what a worker counted, and tells the other nodes.
    pub fn take_leaves(&mut self, node: usize, leaves: Leaves) {
        if !self.faulty() {
            self.note(format!("{} counted up to {:?}", leaves.owner, leaves.until));
            self.publish(node, Transaction { leaves: Some(leaves), ..Transaction::default() });
        }
    }

    /// Stores how far a worker has compared the values of its rows, and tells the other nodes.
    pub fn take_contents(&mut self, node: usize, contents: Contents) {
        if !self.faulty() {
            let Contents { owner, up_to, until, rows, changed, .. } = &contents;
            self.note(format!(
                "{owner} compared {rows} rows up to {up_to:?} of {until:?}, {changed} differed"
            ));
            self.publish(node, Transaction { contents: Some(contents), ..Transaction::default() });
        }
    }
}
