//! Harper nodes: each one holds a copy; transactions reach the others whole and in order, but late.

use crate::source::Row;
use bigquery_sync::bigquery::schema::Field;
use bigquery_sync::cluster::Heartbeat;
use bigquery_sync::engine::checkpoint::Checkpoint;
use bigquery_sync::engine::contents::Contents;
use bigquery_sync::engine::counts::Counts;
use bigquery_sync::engine::delivery::Commit;
use bigquery_sync::engine::retention::places;
use bigquery_sync::engine::sweep::Known;
use bigquery_sync::mapping::version::SchemaVersion;
use bigquery_sync::validation::{Check, Leaves, Summary};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// When and where something was written; of two versions the one with the larger stamp wins.
pub type Stamp = (i64, usize);

/// What one transaction wrote.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub stamp: Stamp,
    pub rows: Vec<(String, Row)>,
    /// The ids of rows that were replaced by others.
    pub replaced: Vec<String>,
    pub schema: Option<SchemaVersion>,
    pub head: Option<Commit>,
    /// What comes before the rows of a commit.
    pub opening: Option<Commit>,
    /// What comes behind them.
    pub witness: Option<Commit>,
    /// With the node that keeps it.
    pub proof: Option<(usize, Commit)>,
    pub checkpoints: Vec<Checkpoint>,
    pub counts: Option<Counts>,
    pub leaves: Option<Leaves>,
    pub contents: Option<Contents>,
    pub copy: Option<Summary>,
    pub incarnation: Option<String>,
    pub heartbeat: Option<Heartbeat>,
}

/// One node.
#[derive(Clone, Default)]
pub struct Node {
    pub target: BTreeMap<String, (Row, Stamp)>,
    /// When it stored its rows, by the true time.
    pub stored_at: BTreeMap<String, i64>,
    pub deleted: BTreeMap<String, Stamp>,
    pub schemas: BTreeMap<u32, (SchemaVersion, Stamp)>,
    pub checkpoints: BTreeMap<String, (Checkpoint, Stamp)>,
    /// What each worker told of its last commit.
    pub heads: BTreeMap<String, (Commit, Stamp)>,
    pub openings: BTreeMap<(String, u64), (Commit, Stamp)>,
    pub witnesses: BTreeMap<(String, u64), (Commit, Stamp)>,
    /// Those of them that arrived in former lives, by owner and number.
    pub former: BTreeSet<(String, u64)>,
    pub proofs: BTreeMap<(usize, String), Commit>,
    /// The commits that got lost on their way to it, by owner and number.
    pub missed: Vec<(String, u64)>,
    pub counts: Option<(Counts, Stamp)>,
    pub leaves: BTreeMap<String, (Leaves, Stamp)>,
    /// How far workers have compared the values of their rows.
    pub contents: BTreeMap<String, (Contents, Stamp)>,
    /// The last command to read the table again after which it has removed what is gone, and when it last mended a loss.
    pub known: Known,
    /// What it found when it compared its copy with them.
    pub checks: BTreeMap<String, Check>,
    /// What the nodes told each other of their copies.
    pub copies: BTreeMap<String, (Summary, Stamp)>,
    pub incarnation: (String, Stamp),
    pub target_exists: bool,
    pub heartbeats: BTreeMap<String, (Heartbeat, Stamp)>,
    pub is_up: bool,
    /// How often it has started.
    pub lives: u64,
    /// Whether it left the cluster for good.
    pub is_removed: bool,
    /// Of each sender, what has not arrived yet, and when it may.
    pub inbox: BTreeMap<usize, VecDeque<(i64, Arc<Transaction>)>>,
}

impl Node {
    /// Whether the newest version of the schema has just these columns.
    pub fn has_columns(&self, fields: &[Field]) -> bool {
        self.schemas.values().next_back().is_some_and(|(schema, _)| {
            let current = schema.columns.iter().filter(|column| !column.retired);
            current.clone().count() == fields.len()
                && fields.iter().all(|field| {
                    current
                        .clone()
                        .any(|one| one.name() == field.name && one.type_text() == field.type_text())
                })
        })
    }

    /// Whether the newest version of the schema has a column, be it under a later name.
    pub fn knows_column(&self, name: &str) -> bool {
        let newest = self.schemas.values().next_back();
        newest.is_some_and(|(schema, _)| {
            schema.columns.iter().any(|one| one.attribute.starts_with(name) && !one.retired)
        })
    }

    pub fn apply(&mut self, transaction: &Transaction, now: i64) {
        let stamp = transaction.stamp;
        for id in &transaction.replaced {
            if self.target.get(id).is_some_and(|(_, before)| *before < stamp) {
                self.target.remove(id);
            }
            let before = self.deleted.entry(id.clone()).or_insert(stamp);
            *before = stamp.max(*before);
        }
        if let Some(schema) = &transaction.schema
            && self.schemas.get(&schema.version).is_none_or(|(_, before)| *before < stamp)
        {
            self.schemas.insert(schema.version, (schema.clone(), stamp));
        }
        self.apply_rows(transaction, now);
        if let Some(head) = &transaction.head
            && self.heads.get(&head.owner).is_none_or(|(_, before)| *before < stamp)
        {
            self.heads.insert(head.owner.clone(), (head.clone(), stamp));
        }
        let places =
            [(&transaction.opening, &mut self.openings), (&transaction.witness, &mut self.witnesses)];
        for (told, known) in places {
            let Some(told) = told else { continue };
            let place = (told.owner.clone(), told.place);
            if known.get(&place).is_none_or(|(_, before)| *before < stamp) {
                known.insert(place, (told.clone(), stamp));
                self.former.remove(&(told.owner.clone(), told.number));
            }
        }
        if let Some((node, proof)) = &transaction.proof {
            self.proofs.insert((*node, proof.owner.clone()), proof.clone());
        }
        for checkpoint in &transaction.checkpoints {
            if self.checkpoints.get(&checkpoint.id).is_none_or(|(_, before)| *before < stamp) {
                self.checkpoints.insert(checkpoint.id.clone(), (checkpoint.clone(), stamp));
            }
        }
        if let Some(counts) = &transaction.counts
            && self.counts.as_ref().is_none_or(|(_, before)| *before < stamp)
        {
            self.counts = Some((counts.clone(), stamp));
        }
        if let Some(leaves) = &transaction.leaves
            && self.leaves.get(&leaves.id).is_none_or(|(_, before)| *before < stamp)
        {
            self.leaves.insert(leaves.id.clone(), (leaves.clone(), stamp));
        }
        if let Some(contents) = &transaction.contents
            && self.contents.get(&contents.id).is_none_or(|(_, before)| *before < stamp)
        {
            self.contents.insert(contents.id.clone(), (contents.clone(), stamp));
        }
        if let Some(copy) = &transaction.copy
            && self.copies.get(&copy.id).is_none_or(|(_, before)| *before < stamp)
        {
            self.copies.insert(copy.id.clone(), (copy.clone(), stamp));
        }
        if let Some(incarnation) = &transaction.incarnation
            && self.incarnation.1 < stamp
        {
            self.incarnation = (incarnation.clone(), stamp);
            self.target_exists = true;
        }
        if let Some(heartbeat) = &transaction.heartbeat
            && self.heartbeats.get(&heartbeat.node).is_none_or(|(_, before)| *before < stamp)
        {
            self.heartbeats.insert(heartbeat.node.clone(), (heartbeat.clone(), stamp));
        }
    }

    fn apply_rows(&mut self, Transaction { stamp, rows, .. }: &Transaction, now: i64) {
        for (id, row) in rows {
            let is_deleted = self.deleted.get(id).is_some_and(|deleted| deleted > stamp);
            if !is_deleted && self.target.get(id).is_none_or(|(_, before)| before < stamp) {
                self.target.insert(id.clone(), (row.clone(), *stamp));
                self.stored_at.insert(id.clone(), now);
            }
        }
    }

    /// Returns the latest stamp of what a transaction replaces of the component's own records, but for checkpoints.
    pub fn replaced_at(&self, transaction: &Transaction) -> Option<i64> {
        let heartbeat = transaction.heartbeat.as_ref().and_then(|one| self.heartbeats.get(&one.node));
        let counts = transaction.counts.as_ref().and(self.counts.as_ref());
        let leaves = transaction.leaves.as_ref().and_then(|leaves| self.leaves.get(&leaves.id));
        let contents = transaction.contents.as_ref().and_then(|one| self.contents.get(&one.id));
        let copy = transaction.copy.as_ref().and_then(|copy| self.copies.get(&copy.id));
        let incarnation = transaction.incarnation.as_ref().map(|_| self.incarnation.1);
        let stamps = [
            heartbeat.map(|(_, stamp)| *stamp),
            counts.map(|(_, stamp)| *stamp),
            leaves.map(|(_, stamp)| *stamp),
            contents.map(|(_, stamp)| *stamp),
            copy.map(|(_, stamp)| *stamp),
            incarnation,
        ];
        stamps.into_iter().flatten().map(|(at, _)| at).max()
    }

    /// Returns the witness of a commit, if it is there.
    pub fn witness(&self, owner: &str, number: u64) -> Option<&Commit> {
        let at = |place: u64| self.witnesses.get(&(owner.to_owned(), place)).map(|(witness, _)| witness);
        places(number).into_iter().filter_map(at).find(|witness| witness.number == number)
    }

    /// Returns what workers are known to have committed last, but for those of a node: their heads or, where the first part
    /// of the last transactions got lost, their last witnesses.
    pub fn told(&self, own: &str) -> Vec<Commit> {
        let after = |owner: &str| (Bound::Excluded((owner.to_owned(), u64::MAX)), Bound::Unbounded);
        let next = |owner: &str| self.witnesses.range(after(owner)).next().map(|((next, _), _)| next);
        let mut others: BTreeSet<&String> = self.heads.keys().collect();
        others.extend(std::iter::successors(next(""), |owner| next(owner)));
        others.retain(|owner| !owner.starts_with(&format!("{own}-")));
        let last = |owner: &String| {
            let mut last = self.heads.get(owner).map(|(head, _)| head);
            while let Some(next) = self.witness(owner, last.map_or(0, |last| last.number) + 1) {
                last = Some(next);
            }
            last.cloned()
        };
        others.into_iter().filter_map(last).collect()
    }

    /// Returns the witness of a commit of another node, if all of it is there as far as that can be told.
    pub fn arrived(&self, owner: &str, number: u64) -> Option<Commit> {
        let witness = self.witness(owner, number)?;
        let (opening, _) = self.openings.get(&(owner.to_owned(), witness.place))?;
        let is_former = self.former.contains(&(owner.to_owned(), number));
        (opening.number == number && opening.stamp == witness.stamp)
            .then(|| Commit { is_former, ..witness.clone() })
    }

    /// Begins a life.
    pub fn begin(&mut self) {
        self.is_up = true;
        self.lives += 1;
        let witnesses = self.witnesses.values().map(|(witness, _)| (witness.owner.clone(), witness.number));
        self.former = witnesses.collect();
    }

    /// Returns a worker's last commit, also one that was cut short.
    pub fn last_commit(&self, owner: &str) -> Option<&Commit> {
        let (head, _) = self.heads.get(owner).filter(|(head, _)| head.number > 0)?;
        self.witness(owner, head.number).or(Some(head))
    }

    /// Returns what a node keeps of the losses that it mended.
    pub fn proofs_of(&self, node: usize) -> Vec<Commit> {
        self.proofs
            .iter()
            .filter(|((keeper, _), _)| *keeper == node)
            .map(|(_, proof)| proof.clone())
            .collect()
    }

    /// Tells which transactions the node would miss. Where witnesses are kept for a short time only, it has to have looked for
    /// that worker's commits before.
    pub fn misses(&self, node: usize, are_witnesses_short: bool) -> impl Fn(&Transaction) -> bool + use<> {
        let known: BTreeSet<String> = self
            .proofs
            .keys()
            .filter(|(keeper, _)| *keeper == node)
            .map(|(_, owner)| owner.clone())
            .collect();
        move |sent| sent.head.as_ref().is_some_and(|head| !are_witnesses_short || known.contains(&head.owner))
    }

    /// Loses some of what is on its way from workers: rows, and what they tell of them.
    pub fn lose(
        &mut self,
        is_missed: impl Fn(&Transaction) -> bool,
        mut how_many: impl FnMut() -> u64,
    ) -> usize {
        let Node { inbox, missed, .. } = self;
        let mut lost = 0;
        for queue in inbox.values_mut() {
            for _ in 0..how_many() {
                let place = queue.iter().position(|(_, sent)| is_missed(sent));
                let Some((_, transaction)) = place.and_then(|place| queue.remove(place)) else { break };
                missed.extend(transaction.witness.iter().map(|one| (one.owner.clone(), one.number)));
                lost += 1;
            }
        }
        lost
    }

    /// Loses the first part of what comes next from each sender.
    pub fn lose_first_parts(
        &mut self,
        is_missed: impl Fn(&Transaction) -> bool,
        mut is_lost: impl FnMut() -> bool,
    ) {
        for queue in self.inbox.values_mut() {
            let next = queue.iter_mut().find(|(_, sent)| is_missed(sent));
            let Some((_, sent)) = next.filter(|_| is_lost()) else { continue };
            let rows: Vec<(String, Row)> = sent.rows.iter().skip_while(|_| is_lost()).cloned().collect();
            let replaced = if rows.len() == sent.rows.len() { sent.replaced.clone() } else { Vec::new() };
            self.missed.extend(sent.witness.iter().map(|one| (one.owner.clone(), one.number)));
            *sent = Arc::new(Transaction { head: None, opening: None, rows, replaced, ..(**sent).clone() });
        }
    }

    /// Takes in parts of what comes next, and nothing else of it ever. What it knows of commits it often takes in first.
    pub fn take_parts(
        &mut self,
        is_missed: impl Fn(&Transaction) -> bool,
        mut is_kept: impl FnMut() -> bool,
    ) {
        let is_of_commit = |(_, sent): &(i64, Arc<Transaction>)| sent.witness.is_some() && is_missed(sent);
        let next =
            self.inbox.values_mut().find_map(|queue| Some((queue.iter().position(is_of_commit)?, queue)));
        let before: Vec<_> = next.map_or_else(Vec::new, |(place, queue)| queue.drain(..=place).collect());
        let Some(((arrived_at, sent), before)) = before.split_last() else { return };
        before.iter().for_each(|(arrived_at, arrived)| self.apply(arrived, *arrived_at));
        let mut part = (**sent).clone();
        self.missed.extend(part.witness.iter().map(|one| (one.owner.clone(), one.number)));
        part.rows.retain(|_| is_kept());
        part.replaced.retain(|_| is_kept());
        part.checkpoints.retain(|_| is_kept());
        if is_kept() {
            part.head = part.head.filter(|_| is_kept());
            part.opening = part.opening.filter(|_| is_kept());
            part.witness = part.witness.filter(|_| is_kept());
        }
        self.apply(&part, *arrived_at);
    }

    /// Whether it has mended whatever it lost.
    pub fn misses_nothing(&self, node: usize) -> bool {
        let proven = |owner: &String| self.proofs.get(&(node, owner.clone())).map_or(0, |proof| proof.number);
        self.missed.iter().all(|(owner, number)| proven(owner) >= *number)
    }

    /// Takes a transaction of another node, which arrives behind those that it sent before.
    pub fn receive(&mut self, sender: usize, arrives_at: i64, transaction: Arc<Transaction>) {
        self.inbox.entry(sender).or_default().push_back((arrives_at, transaction));
    }

    /// Applies what has arrived from those senders that can be heard.
    pub fn take_arrivals(&mut self, now: i64, is_heard: impl Fn(usize) -> bool) {
        let mut inbox = std::mem::take(&mut self.inbox);
        for (_, queue) in inbox.iter_mut().filter(|(sender, _)| is_heard(**sender)) {
            while queue.front().is_some_and(|(arrives_at, _)| *arrives_at <= now) {
                if let Some((arrived_at, transaction)) = queue.pop_front() {
                    self.apply(&transaction, if now == i64::MAX { arrived_at } else { now });
                }
            }
        }
        self.inbox = inbox;
    }
}
