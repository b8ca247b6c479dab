//! One world: a source, nodes with workers, a clock, and what goes wrong.

use crate::copies::Flaw;
use crate::node::{Node, Stamp, Transaction};
use crate::random::Random;
use crate::sabotage::{self, Sabotage};
use crate::source::{Row, Source};
use bigquery_sync::bigquery::cursor::CursorType;
use bigquery_sync::bigquery::request::{Purpose, Request};
use bigquery_sync::engine::checkpoint::Checkpoint;
use bigquery_sync::engine::delivery::Commit;
use bigquery_sync::engine::resync::Resync;
use bigquery_sync::engine::retention::places;
use bigquery_sync::engine::retry::Jitter;
use bigquery_sync::engine::{Answer, Command, Event, Moment, Receipt, WriteOrder};
use bigquery_sync::error::{Failure, Kind};
use bigquery_sync::mapping::id::CURSOR_CHARACTERS;
use bigquery_sync::mapping::succession::{Comparable, Renewed, Succession};
use bigquery_sync::time::{Micros, SECOND_US};
use bigquery_sync::validation::Deletion;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub struct World {
    pub random: Random,
    pub now: i64,
    pub source: Source,
    pub nodes: Vec<Node>,
    /// Pairs of nodes: of what the first one says, the second one hears nothing.
    pub splits: BTreeSet<(usize, usize)>,
    /// One in so many answers and commits fails; none when 0.
    pub faults: u64,
    /// How far a node's clock is ahead of the world's.
    pub skews_us: Vec<i64>,
    /// How far the clock in BigQuery's answers is ahead of the world's.
    pub server_skew_us: i64,
    pub sabotage: Option<Sabotage>,
    /// How validation is broken on purpose.
    pub flaw: Option<Flaw>,
    pub trace: Vec<String>,
    pub faults_seen: u64,
    pub violation: Option<String>,
    /// How many rows were put, on whichever node.
    pub rows_put: u64,
    /// The last stamp of each node.
    last_stamps: BTreeMap<usize, i64>,
    /// By worker: which commits in doubt, by worker, it has read of.
    known_doubts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Whether there is one worker, of one node.
    pub is_lone: bool,
    /// Whether copies lack rows, of which no watermark can know.
    pub is_spoilt: bool,
    /// How often operators wanted the table to be validated.
    pub validations: u64,
    /// How often they wanted the values of all rows to be compared.
    pub comparisons: u64,
    /// The last command to read the table again.
    pub resync: Option<Resync>,
    /// Whether nodes compare their copies with each other.
    pub compares_copies: bool,
    /// How many rows they put again.
    pub put_again: u64,
    /// How often somebody made the target.
    pub incarnations: u64,
    only: Actor,
}

/// One of a transaction's writes.
enum Write {
    Head(Box<Commit>),
    Opening(Box<Commit>),
    Put(String, Row),
    Delete(String),
    Witness(Box<Commit>),
    Proof(Box<Commit>),
    Progress(Box<Checkpoint>),
}

/// A worker, as the world sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Actor {
    pub node: usize,
    pub index: u32,
    /// The era of the schema that it loaded last.
    pub era: Option<u32>,
    /// When the query was made of which it was served rows last.
    pub served_made_at: i64,
}

impl Actor {
    pub fn name(&self) -> String {
        format!("node{}-{}", self.node, self.index)
    }
}

impl World {
    pub fn new(random: Random, now: i64, source: Source, sabotage: Option<Sabotage>) -> World {
        World {
            random,
            now,
            source,
            nodes: vec![Node { is_up: true, ..Node::default() }],
            splits: BTreeSet::new(),
            faults: 0,
            skews_us: vec![0],
            server_skew_us: 0,
            sabotage,
            flaw: None,
            trace: Vec::new(),
            faults_seen: 0,
            violation: None,
            rows_put: 0,
            last_stamps: BTreeMap::new(),
            known_doubts: BTreeMap::new(),
            is_lone: false,
            is_spoilt: false,
            validations: 0,
            comparisons: 0,
            resync: None,
            compares_copies: false,
            put_again: 0,
            incarnations: 0,
            only: Actor::default(),
        }
    }

    pub fn moment(&mut self, node: usize) -> Moment {
        Moment { now: Micros(self.now + self.skews_us[node]), jitter: Jitter(self.random.next() as u32) }
    }

    pub fn note(&mut self, line: String) {
        self.trace.push(format!("{} {line}", Micros(self.now)));
    }

    pub fn faulty(&mut self) -> bool {
        let faulty = self.random.one_in(self.faults);
        self.faults_seen += u64::from(faulty);
        faulty
    }

    /// Does what a worker of the first node asks for, and lets the time pass that it takes.
    pub fn run(&mut self, command: Command) -> Option<Event> {
        let mut only = self.only;
        let outcome = self.execute(&mut only, command);
        self.only = only;
        let (duration_us, event) = outcome?;
        self.now += duration_us;
        Some(event)
    }

    /// Deletes rows that the source no longer has, unless they were stored too late.
    pub fn delete_rows(&mut self, node: usize, deletion: &Deletion) {
        for id in &deletion.ids {
            let here = &self.nodes[node];
            let Some(((_, (at, _)), stored_at)) = here.target.get(id).zip(here.stored_at.get(id)) else {
                continue;
            };
            if deletion.stored_before.is_some_and(|before| stored_at + self.skews_us[node] < before.0) {
                let deleted = Transaction { replaced: vec![id.clone()], ..Transaction::default() };
                let stamp = at + 1;
                self.publish_at(node, deleted, Some(stamp));
            }
        }
    }

    /// Does what a worker of a node asks for; its outcome comes after some time. None when the engine has halted.
    pub fn execute(&mut self, actor: &mut Actor, command: Command) -> Option<(i64, Event)> {
        let node = actor.node;
        let splits = self.splits.clone();
        let up: Vec<bool> = self.nodes.iter().map(|node| node.is_up).collect();
        self.nodes[node].take_arrivals(self.now, |sender| up[sender] && !splits.contains(&(sender, node)));
        match command {
            Command::Load if self.faulty() => {
                Some((1_000, Event::Loaded(Err(Failure::new(Kind::HarperRead, "no checkpoints")))))
            }
            Command::Load => {
                let stored = self.stored(actor);
                let doubts =
                    stored.heads.iter().filter_map(|head| Some((head.owner.clone(), head.doubt?.number)));
                self.known_doubts.insert(actor.name(), doubts.collect());
                actor.era = stored.schema.as_ref().map(|schema| schema.era);
                Some((1_000, Event::Loaded(Ok(Box::new(stored)))))
            }
            Command::EnsureTarget { .. } => {
                let found = self.nodes[node].target_exists;
                if !found {
                    self.incarnations += 1;
                    let incarnation = Some(format!("made{}", self.incarnations));
                    self.note(format!("node {node} makes the target, {}", self.incarnations));
                    self.publish(node, Transaction { incarnation, ..Transaction::default() });
                }
                Some((1_000, Event::TargetReady(Ok(self.nodes[node].incarnation.0.clone()))))
            }
            Command::AdoptSchema(schema) => {
                if !self.nodes[node].schemas.contains_key(&schema.version) {
                    self.note(format!(
                        "schema version {}, era {}: {:?}",
                        schema.version, schema.era, schema.changes
                    ));
                    self.publish(node, Transaction { schema: Some(*schema), ..Transaction::default() });
                }
                Some((1_000, Event::SchemaAdopted(Ok(()))))
            }
            Command::Send(request) => {
                let duration_us = 1_000 + self.random.below(50_000) as i64;
                let (waited_us, answer) = self.answer(node, request);
                actor.served_made_at = self.source.served_made_at.take().unwrap_or(actor.served_made_at);
                Some((duration_us + waited_us, Event::Answered(answer)))
            }
            Command::Write(order) => {
                let duration_us = 1_000 + self.random.below(60_000) as i64;
                Some((duration_us, Event::Written(self.commit(*actor, *order))))
            }
            Command::ShareCounts(counts) => {
                if !self.faulty() {
                    self.publish(node, Transaction { counts: Some(*counts), ..Transaction::default() });
                }
                Some((1_000, Event::Shared))
            }
            Command::ShareLeaves(leaves) => {
                self.take_leaves(node, *leaves);
                Some((1_000, Event::Shared))
            }
            Command::ShareContents(contents) => {
                self.take_contents(node, *contents);
                Some((1_000, Event::Shared))
            }
            Command::Rest { delay_ms } => Some((delay_ms as i64 * 1_000, Event::Rested)),
            Command::Halt => None,
        }
    }

    /// Answers a request to BigQuery; also says how long that took besides.
    pub fn answer(&mut self, node: usize, mut request: Request) -> (i64, Result<Answer, Failure>) {
        sabotage::request(self.sabotage, &mut request);
        let fault = self.faulty().then(|| self.random.below(8));
        // What fails at once may have been done all the same.
        let is_done = fault.is_none_or(|fault| fault > 4) || self.random.one_in(2);
        let (mut status, mut body) =
            if is_done { self.carry_out(node, &request) } else { (200, "{}".to_owned()) };
        let mut cut = None;
        if let Some(fault) = fault {
            self.note(format!("fault {fault}, {}", if is_done { "done" } else { "not done" }));
            match fault {
                0 => return (60 * SECOND_US, Err(Failure::new(Kind::Timeout, "no answer"))),
                1 => return (0, Err(Failure::new(Kind::Unreachable, "reset"))),
                2 => (status, body) = (503, error("backendError")),
                3 => (status, body) = (429, error("rateLimitExceeded")),
                4 => (status, body) = (401, "{}".to_owned()),
                5 => self.source.lose_results(),
                6 => body = json!({"error": "a page of a proxy"}).to_string(),
                _ => cut = Some(self.random.next() as usize),
            }
        }
        sabotage::answer(self.sabotage, request.purpose, &mut body);
        if self.sabotage == Some(Sabotage::LastPageLost) {
            lose_last_page(&mut body);
        }
        let mut bytes = body.into_bytes();
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        let retry_after_ms = (status == 429).then_some(2_000);
        let server_time = Some(Micros(self.now + self.server_skew_us));
        (0, Ok(Answer { status, server_time, retry_after_ms, body: bytes }))
    }

    fn carry_out(&mut self, node: usize, request: &Request) -> (u16, String) {
        let sent: Value =
            request.body.as_deref().map_or(Value::Null, |body| serde_json::from_str(body).unwrap());
        let text = |(status, body): (u16, Value)| (status, body.to_string());
        let job = || request.path.split(['/', '?']).nth(4).unwrap();
        match request.purpose {
            Purpose::DescribeTable => (200, self.source.describe(self.now).to_string()),
            Purpose::StartQuery => {
                self.note(format!("query {}", sent["query"].as_str().unwrap().replace('\n', " ")));
                match self.source.start_query(&sent, self.now, &mut self.random) {
                    Ok(page) => (200, page),
                    Err(refusal) => (400, refusal.to_string()),
                }
            }
            Purpose::MakeJob => {
                let sql = sent["configuration"]["query"]["query"].as_str().unwrap().replace('\n', " ");
                let id = sent["jobReference"]["jobId"].as_str().unwrap();
                self.note(format!("job {id}: query {sql}"));
                self.check_job(node, id);
                text(self.source.make_job(&sent, self.now, &mut self.random))
            }
            Purpose::LookAtJob => text(self.source.look_at_job(job())),
            Purpose::CancelJob => {
                self.note(format!("cancel {}", job()));
                text(self.source.cancel_job(job()))
            }
            Purpose::ReadResult => self.read_result(&request.path),
        }
    }

    /// A job is stored before it is made; and a worker that is alone makes none while the result of another one lives that
    /// it could read.
    fn check_job(&mut self, node: usize, id: &str) {
        let is_known = self.source.jobs.contains_key(id);
        let mut windows = self.nodes[node].checkpoints.values().filter_map(|(one, _)| one.window.as_ref());
        // What one of several nodes stores, another one may replace before it hears of it.
        if self.nodes.len() == 1 && !windows.any(|window| window.job.job_id == id) {
            self.violation = Some(format!("the job {id} is made before it is stored"));
        }
        let left = self.source.jobs_left(self.now);
        if self.is_lone && !is_known && !left.is_empty() {
            self.violation = Some(format!("the job {id} is made while {left:?} can be read"));
        }
    }

    /// Answers a request for a page of a result.
    pub fn read_result(&mut self, path: &str) -> (u16, String) {
        let number = |name: &str| {
            let (_, rest) = path.split_once(name).unwrap();
            rest.split('&').next().unwrap().parse::<usize>().unwrap()
        };
        let job = path.split(['/', '?']).nth(4).unwrap();
        let (offset, wanted) = (number("startIndex="), number("maxResults="));
        match self.source.page(job, offset, wanted, self.now) {
            Some(page) => (200, page),
            None => (404, error("notFound")),
        }
    }

    /// Drops the target with all its rows, as an operator does.
    pub fn drop_target(&mut self, node: usize) {
        self.note(format!("the target of node {node} is dropped"));
        self.nodes[node].target.clear();
        self.nodes[node].target_exists = false;
        // Whoever read on in one of them would miss the rows that went with the target.
        self.source.excuse_jobs();
    }

    /// Commits an order, or not; the confirmation may be lost either way.
    fn commit(&mut self, actor: Actor, order: WriteOrder) -> Result<Receipt, Failure> {
        let node = actor.node;
        let lost = Err(Failure::new(Kind::HarperWrite, "no confirmation"));
        if !self.nodes[node].target_exists {
            return lost;
        }
        let newest_era = self.nodes[node].schemas.values().map(|(schema, _)| schema.era).max();
        let is_guarded = !self.source.habits.keyed;
        if is_guarded && newest_era > order.checkpoints.first().map(|first| first.era).or(actor.era) {
            return Err(Failure::new(Kind::HarperWrite, "ids have another form now"));
        }
        let fails = self.faulty();
        if fails && self.sabotage == Some(Sabotage::CheckpointWithoutRows) {
            let checkpoints = order.checkpoints;
            self.publish(node, Transaction { checkpoints, ..Transaction::default() });
            return lost;
        }
        if fails && self.random.one_in(2) {
            self.note("commit failed".to_owned());
            return lost;
        }
        let unchanged = self.unchanged(node, &order).len() as u64;
        self.apply(actor, order, false);
        if fails {
            lost
        } else {
            Ok(Receipt { unchanged, busy_ms: self.random.below(60), ..Receipt::default() })
        }
    }

    /// Makes rows and progress durable; if the node ends itself meanwhile, only the first of the writes.
    pub fn apply(&mut self, actor: Actor, order: WriteOrder, is_cut: bool) {
        if is_cut {
            let writes = self.writes(actor, &order).len() as u64;
            let kept = self.random.below(writes + 1) as usize;
            self.apply_first(kept, actor, order);
        } else {
            self.apply_first(usize::MAX, actor, order);
        }
    }

    /// Makes the first of the writes durable.
    pub fn apply_first(&mut self, kept: usize, actor: Actor, mut order: WriteOrder) {
        for checkpoint in &mut order.checkpoints {
            sabotage::late_checkpoint(self.sabotage, checkpoint, Micros(self.now));
        }
        let mut writes = self.writes(actor, &order);
        if order.compares_values && !writes.iter().any(|write| matches!(write, Write::Put(..))) {
            return;
        }
        writes.truncate(kept);
        let mut transaction = Transaction::default();
        for write in writes {
            match write {
                Write::Head(mut head) => {
                    if self.source.habits.forgets {
                        head.kept_from = 0;
                    }
                    transaction.head = Some(*head);
                }
                Write::Opening(opening) => transaction.opening = Some(*opening),
                Write::Put(id, row) => transaction.rows.push((id, row)),
                Write::Delete(id) => transaction.replaced.push(id),
                Write::Witness(mut witness) => {
                    if self.source.habits.forgets {
                        [witness.place, _] = places(witness.number);
                        witness.kept_from = 0;
                        transaction.opening = transaction.opening.map(|_| (*witness).clone());
                    }
                    transaction.witness = Some(*witness);
                }
                Write::Proof(proof) => {
                    let now = Micros(self.now + self.skews_us[actor.node]);
                    self.nodes[actor.node].known.mended_at = Some(now);
                    transaction.proof = Some((actor.node, *proof));
                }
                Write::Progress(checkpoint) => {
                    transaction.checkpoints.push(sabotage::checkpoint(self.sabotage, *checkpoint));
                }
            }
        }
        let (rows, checkpoints) = (transaction.rows.len(), transaction.checkpoints.len());
        self.rows_put += rows as u64;
        let told = order.stamp.map(|stamp| stamp.0);
        let Some(first) = order.checkpoints.first() else {
            self.note(format!("{} commits {rows} of {} rows again", actor.name(), order.batch.rows));
            return self.publish_at(actor.node, transaction, told);
        };
        self.note(format!(
            "{} commits {rows} of {} rows, {checkpoints} of {} checkpoints from {} to {:?}, window {:?}",
            first.owner,
            order.batch.rows,
            order.checkpoints.len(),
            first.id,
            first.last_timestamp.map(|at| at.to_string()),
            first.window.as_ref().map(|window| (window.offset, window.total_rows))
        ));
        let is_complete = first.window.is_none();
        let moved: Vec<Checkpoint> = transaction.checkpoints.clone();
        let moved =
            moved.into_iter().filter(|one| self.moves(actor.node, one) && is_complete).collect::<Vec<_>>();
        self.publish_at(actor.node, transaction, told);
        self.check_watermarks(actor, &moved);
    }

    /// Returns the rows of an order, with their ids.
    fn records(&self, order: &WriteOrder) -> Vec<(String, Row)> {
        let columns: Value = serde_json::from_slice(&order.batch.text).unwrap();
        let text = |column: usize, row: usize| columns[column][row].as_str().unwrap().to_owned();
        let unit_us = match self.source.habits.clock.cursor {
            CursorType::Integer(unit) => Some(unit.us()),
            CursorType::Timestamp | CursorType::DateTime | CursorType::Date => None,
        };
        let cursor_of = |row: usize| match unit_us {
            Some(unit_us) => order.batch.numbers[row] as i64 * unit_us,
            None => Micros::parse(&text(1, row)).unwrap().0,
        };
        // Numbers stand apart from texts.
        let key_place = if unit_us.is_some() { 1 } else { 2 };
        let record = |row| {
            let (key, text_of_row) = (text(key_place, row), text(key_place + 1, row));
            let record = Row { cursor: Some(cursor_of(row)), key, text: text_of_row };
            (sabotage::id(self.sabotage, &text(0, row), order), record)
        };
        let superseded = &order.batch.superseded;
        (0..order.batch.rows).filter(|row| !superseded.contains(&(*row as u32))).map(record).collect()
    }

    /// Returns the ids of the rows that are stored as they are, of an order that asks for that.
    fn unchanged(&self, node: usize, order: &WriteOrder) -> BTreeSet<String> {
        let target = &self.nodes[node].target;
        let by_id = self.sabotage == Some(Sabotage::StoredById);
        let counts_as_read = self.sabotage == Some(Sabotage::StoredCountsAsRead);
        let is_later = |(id, row): &(String, Row)| {
            let stamp = order.stamp.map_or(i64::MAX, |stamp| stamp.0);
            let is_later = |stored: &Row, at: i64| stored.cursor > row.cursor || at >= stamp;
            // Of rows without a key, there are no versions.
            let stored = target.get(id).filter(|_| self.source.habits.keyed);
            stored.is_some_and(|(stored, (at, _))| is_later(stored, *at))
        };
        let is_stored = |(id, row): &(String, Row)| {
            if order.compares_values && is_later(&(id.clone(), row.clone())) {
                return true;
            }
            let same = target.get(id).filter(|(stored, _)| by_id || stored == row);
            same.is_some_and(|(_, at)| counts_as_read || !is_to_be_rewritten(order, *at))
        };
        let records = if order.may_be_stored { self.records(order) } else { Vec::new() };
        records.into_iter().filter(is_stored).map(|(id, _)| id).collect()
    }

    /// Returns what a commit writes, in its order.
    fn writes(&self, actor: Actor, order: &WriteOrder) -> Vec<Write> {
        let node = actor.node;
        let unchanged = self.unchanged(node, order);
        let mut rows: Vec<(String, Row)> = Vec::new();
        for (id, record) in self.records(order) {
            if unchanged.contains(&id) {
                continue;
            }
            let stored = self.nodes[node].target.get(&id);
            let newer_stored = stored.filter(|(stored, _)| stored.cursor > record.cursor);
            if let Some((newer, at)) = newer_stored
                && self.source.habits.keyed
                && self.sabotage != Some(Sabotage::OlderOverwrites)
            {
                if is_to_be_rewritten(order, *at) && self.sabotage != Some(Sabotage::NewerNotRewritten) {
                    rows.push((id, newer.clone()));
                }
                continue;
            }
            rows.push((id, record));
        }
        let mut former: BTreeMap<Option<usize>, Vec<String>> = BTreeMap::new();
        let seeks_former = order.replaces || order.renewed.is_some();
        if seeks_former && self.sabotage != Some(Sabotage::OldIdsStay) {
            former = self.former_ids(actor, &rows, order);
        }
        // Of rows that are stored, and not written again.
        let late: Vec<Write> = former.remove(&None).into_iter().flatten().map(Write::Delete).collect();
        let writes = rows.into_iter().enumerate().flat_map(|(place, (id, row))| {
            let former = former.remove(&Some(place)).unwrap_or_default();
            std::iter::once(Write::Put(id, row)).chain(former.into_iter().map(Write::Delete))
        });
        let (first, others) = order.checkpoints.split_at(order.checkpoints.len().min(1));
        let counted = first.iter().cloned().map(|mut first| {
            first.records_ingested -= unchanged.len() as u64;
            first
        });
        let progress = others.iter().cloned().chain(counted).map(|one| Write::Progress(Box::new(one)));
        let head = order.head.iter().map(|head| Write::Head(Box::new(head.clone())));
        let opening = order.witness.iter().map(|witness| Write::Opening(Box::new(witness.clone())));
        let witness = order.witness.iter().map(|witness| Write::Witness(Box::new(witness.clone())));
        let proof = order.proof.iter().map(|proof| Write::Proof(Box::new(proof.clone())));
        let writes = head.chain(opening).chain(writes).chain(late).chain(witness).chain(proof);
        if self.sabotage == Some(Sabotage::ProgressFirst) {
            return progress.chain(writes).collect();
        }
        writes.chain(progress).collect()
    }

    /// Finds the ids of former eras under which rows are stored, by the places of the rows.
    fn former_ids(
        &self,
        actor: Actor,
        rows: &[(String, Row)],
        order: &WriteOrder,
    ) -> BTreeMap<Option<usize>, Vec<String>> {
        let target = &self.nodes[actor.node].target;
        let cursors: BTreeSet<&str> = rows.iter().map(|(id, _)| &id[..CURSOR_CHARACTERS]).collect();
        let of_rows = cursors.into_iter().map(|cursor| (cursor.to_owned(), format!("{cursor}~")));
        let renewed = order.renewed.clone().filter(|_| self.sabotage != Some(Sabotage::GroupsNotCounted));
        let range = renewed.as_ref().map(Renewed::bounds);
        let stored: BTreeMap<&String, &Row> = of_rows
            .chain(range)
            .flat_map(|(first, last)| target.range(first..=last))
            .map(|(id, (row, _))| (id, row))
            .collect();
        let stored: Vec<(&String, &Row)> = stored.into_iter().collect();
        // All that is compared here is as it always was.
        let era = order.checkpoints.first().map_or(actor.era.unwrap_or(0), |first| first.era);
        let mut succession = Succession::among(vec![0; 3], era, renewed);
        succession.add(stored.iter().map(|(id, row)| comparable(id, row)).collect());
        let records: Vec<Comparable> = rows.iter().map(|(id, row)| comparable(id, row)).collect();
        let mut former: BTreeMap<Option<usize>, Vec<String>> = BTreeMap::new();
        for heir in succession.settle(&records) {
            let ids = heir.former.into_iter().map(|place| stored[place].0.clone());
            former.entry(heir.record).or_default().extend(ids);
        }
        former
    }

    /// Commits on one node and sends to the others.
    pub fn publish(&mut self, node: usize, transaction: Transaction) {
        self.publish_at(node, transaction, None);
    }

    /// Removes records on all nodes, at a time of writing.
    pub fn remove(&mut self, node: usize, gone: Transaction, stamp: i64) {
        self.publish_at(node, gone, Some(stamp));
    }

    /// Harper takes the node's clock for the stamp, unless it is told another one.
    fn publish_at(&mut self, node: usize, transaction: Transaction, told: Option<i64>) {
        let clock = self.now + self.skews_us[node];
        let later = self.nodes[node].replaced_at(&transaction).map(|before| clock.max(before + 1));
        let told = told.or(later).filter(|_| self.sabotage != Some(Sabotage::OwnClockOnly));
        let last = self.last_stamps.entry(node).or_insert(i64::MIN);
        let at = told.unwrap_or_else(|| clock.max(last.saturating_add(1)));
        *last = at.max(*last);
        self.publish_as(node, Transaction { stamp: (at, node), ..transaction });
    }

    /// Commits on one node and sends to the others, with the transaction's own stamp.
    pub fn publish_as(&mut self, node: usize, transaction: Transaction) {
        let transaction = Arc::new(transaction);
        self.nodes[node].apply(&transaction, self.now);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let slowness = if self.random.one_in(100) { 200 } else { 1 };
            let arrives_at = self.now + 1_000 + slowness * self.random.below(20_000) as i64;
            self.nodes[other].receive(node, arrives_at, Arc::clone(&transaction));
        }
    }

    /// Delivers what still is on its way, to all nodes.
    pub fn deliver_everything(&mut self) {
        self.splits.clear();
        for node in &mut self.nodes {
            node.take_arrivals(i64::MAX, |_| true);
        }
    }

    /// Tells whether a checkpoint moves the watermark. A worker that is alone never moves it back, unless the target
    /// is another one.
    fn moves(&mut self, node: usize, checkpoint: &Checkpoint) -> bool {
        let stored = self.nodes[node].checkpoints.get(&checkpoint.id);
        let before = stored.and_then(|(before, _)| before.last_timestamp);
        let incarnation = &self.nodes[node].incarnation.0;
        let is_same_target = stored.is_some_and(|(before, _)| before.incarnation == *incarnation);
        let begun = stored.map_or(0, |(before, _)| before.reread_number());
        // A command makes void what is known, also before its beginning is stored.
        let is_read_again = self.resync.is_some_and(|resync| resync.number > begun);
        if checkpoint.reread_number() > begun {
            self.source.excuse_jobs();
        }
        if self.nodes.len() == 1 && is_same_target && !is_read_again && checkpoint.last_timestamp < before {
            self.violation = Some("the watermark went back".to_owned());
        }
        checkpoint.last_timestamp != before
    }

    /// Whether a worker has read of whatever any worker wrote in doubt.
    fn knows_all_doubts(&self, actor: Actor) -> bool {
        let told = self.nodes.iter().flat_map(|node| node.heads.values());
        let doubts = told.filter_map(|(head, _)| Some((&head.owner, head.doubt?.number)));
        let known = self.known_doubts.get(&actor.name());
        let knows =
            |owner, number| known.and_then(|known| known.get(owner)).is_some_and(|known| *known >= number);
        doubts.into_iter().all(|(owner, number)| knows(owner, number))
    }

    /// Everything of a partition up to its watermark that the query could see is in the target of some node.
    fn check_watermarks(&mut self, actor: Actor, checkpoints: &[Checkpoint]) {
        let is_exact = self.nodes.len() == 1 || !self.source.habits.keyed;
        // What others wrote since the worker has read of them is noticed when it reads again.
        if self.is_spoilt || (!is_exact && !self.knows_all_doubts(actor)) {
            return;
        }
        let watermarks: BTreeMap<u32, i64> = checkpoints
            .iter()
            // Else another node may have overwritten a newer version; that is noticed once the cluster has settled.
            .filter(|checkpoint| is_exact || checkpoint.settled == checkpoint.last_timestamp)
            // Else it tells of rows of a target that was dropped.
            .filter(|checkpoint| self.nodes.iter().any(|node| node.incarnation.0 == checkpoint.incarnation))
            .filter_map(|checkpoint| Some((checkpoint.partition, checkpoint.last_timestamp?.0)))
            .collect();
        if watermarks.is_empty() {
            return;
        }
        let rule = self.source.habits.rule;
        let due = |row: &&Row| {
            let watermark = |cursor: i64| watermarks.get(&rule.partition(Micros(cursor)));
            row.cursor.is_some_and(|cursor| watermark(cursor).is_some_and(|watermark| cursor <= *watermark))
        };
        let seen = self.source.visible(actor.served_made_at).filter(due);
        let stored = self.nodes.iter().flat_map(|node| &node.target);
        let missing = if self.source.habits.keyed {
            let mut held: BTreeMap<&str, Option<i64>> = BTreeMap::new();
            for (_, (row, _)) in stored {
                let newest = held.entry(row.key.as_str()).or_default();
                *newest = (*newest).max(row.cursor);
            }
            let at_least = |row: &Row| held.get(row.key.as_str()).is_some_and(|cursor| *cursor >= row.cursor);
            seen.filter(|row| !at_least(row)).count()
        } else {
            let held: HashMap<&String, &Row> = stored.map(|(id, (row, _))| (id, row)).collect();
            let mut counts: HashMap<&Row, i64> = HashMap::new();
            for row in held.values() {
                *counts.entry(row).or_insert(0) += 1;
            }
            for row in seen {
                *counts.entry(row).or_insert(0) -= 1;
            }
            counts.values().filter(|count| **count < 0).count()
        };
        if missing > 0 {
            self.violation =
                Some(format!("{missing} rows up to the watermarks {watermarks:?} are not there"));
        }
    }

    /// What jobs under ids of the engine's own billed is counted once; of one node, which never loses what it committed.
    pub fn check_jobs_bill(&self) -> Option<String> {
        if self.nodes.len() > 1 || !self.source.tells_jobs_apart() {
            return None;
        }
        let bytes = |(one, _): &(Checkpoint, _)| one.bytes_billed;
        let counted =
            self.nodes[0].checkpoints.values().map(bytes).sum::<u64>() / self.source.job_bytes_billed;
        let made = self.source.jobs.len() as u64;
        (counted != made).then(|| format!("{made} jobs were made, and {counted} are on the bill"))
    }

    /// Compares the source with each node.
    pub fn check_equality(&self) -> Option<String> {
        let with_cursor = || self.source.visible(self.now).filter(|row| row.cursor.is_some());
        let mut expected: Vec<&Row> = if self.source.habits.keyed {
            let mut newest: BTreeMap<&str, &Row> = BTreeMap::new();
            for row in with_cursor() {
                let newer = newest.get(row.key.as_str()).is_none_or(|other| other.cursor < row.cursor);
                if newer {
                    newest.insert(&row.key, row);
                }
            }
            newest.into_values().collect()
        } else {
            with_cursor().collect()
        };
        expected.sort();
        self.nodes.iter().enumerate().filter(|(_, node)| !node.is_removed).find_map(|(number, node)| {
            let mut found: Vec<&Row> = node.target.values().map(|(row, _)| row).collect();
            found.sort();
            (found != expected).then(|| {
                let (have, want) = (found.len(), expected.len());
                let other = found.iter().zip(&expected).find(|(one, other)| one != other);
                format!("node {number} has {have} rows, the source {want}; they first differ at {other:?}")
            })
        })
    }
}

/// Whether a record that was written at some time has to be written again to show that it was read again.
fn is_to_be_rewritten(order: &WriteOrder, (at, _): Stamp) -> bool {
    order.rewrites_before.is_some_and(|before| at <= before.0)
}

fn comparable(id: &str, row: &Row) -> Comparable {
    let cursor = row.cursor.map(|cursor| cursor.to_string());
    Comparable(id.to_owned(), vec![cursor, Some(row.key.clone()), Some(row.text.clone())])
}

fn error(reason: &str) -> String {
    json!({"error": {"errors": [{"reason": reason}]}}).to_string()
}

/// Makes a result look as if its last page did not exist.
fn lose_last_page(text: &mut String) {
    let mut body: Value = serde_json::from_str(text).unwrap();
    let total: usize = body["totalRows"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let Some(rows) = body["rows"].as_array_mut() else { return };
    if rows.len() > 1 && total > 1 && body["schema"]["fields"][0]["name"] == "ts" {
        let kept = total - 1;
        body["totalRows"] = json!(kept.to_string());
        if let Some(rows) = body["rows"].as_array_mut() {
            rows.truncate(kept);
        }
        *text = body.to_string();
    }
}
