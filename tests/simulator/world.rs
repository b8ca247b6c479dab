//! One world: a source, a target, a clock, and what goes wrong.

use crate::random::Random;
use crate::sabotage::{self, Sabotage};
use crate::source::{Row, Source};
use bigquery_sync::bigquery::request::{Purpose, Request};
use bigquery_sync::engine::checkpoint::Checkpoint;
use bigquery_sync::engine::retry::Jitter;
use bigquery_sync::engine::{Answer, Command, Event, Moment, Receipt, Target, WriteOrder};
use bigquery_sync::error::{Failure, Kind};
use bigquery_sync::time::Micros;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub struct World {
    pub random: Random,
    pub now: i64,
    pub source: Source,
    pub target: BTreeMap<String, Row>,
    pub target_exists: bool,
    pub checkpoint: Option<Checkpoint>,
    /// One in so many answers and commits fails; none when 0.
    pub faults: u64,
    /// How far the worker's clock is ahead of the world's.
    pub skew_us: i64,
    /// How far the clock in BigQuery's answers is ahead of the world's.
    pub server_skew_us: i64,
    pub sabotage: Option<Sabotage>,
    pub trace: Vec<String>,
    pub faults_seen: u64,
    pub violation: Option<String>,
}

impl World {
    pub fn new(random: Random, now: i64, source: Source, sabotage: Option<Sabotage>) -> World {
        World {
            random,
            now,
            source,
            target: BTreeMap::new(),
            target_exists: false,
            checkpoint: None,
            faults: 0,
            skew_us: 0,
            server_skew_us: 0,
            sabotage,
            trace: Vec::new(),
            faults_seen: 0,
            violation: None,
        }
    }

    pub fn moment(&mut self) -> Moment {
        Moment { now: Micros(self.now + self.skew_us), jitter: Jitter(self.random.next() as u32) }
    }

    pub fn note(&mut self, line: String) {
        self.trace.push(format!("{} {line}", Micros(self.now)));
    }

    fn faulty(&mut self) -> bool {
        let faulty = self.random.one_in(self.faults);
        self.faults_seen += u64::from(faulty);
        faulty
    }

    /// Does what the engine asks for; none when it has halted.
    pub fn execute(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::LoadCheckpoint if self.faulty() => {
                Some(Event::Loaded(Err(Failure::new(Kind::HarperRead, "no checkpoint"))))
            }
            Command::LoadCheckpoint => Some(Event::Loaded(Ok(self.checkpoint.clone().map(Box::new)))),
            Command::EnsureTarget(_) => {
                let found = std::mem::replace(&mut self.target_exists, true);
                Some(Event::TargetReady(Ok(if found { Target::Found } else { Target::Created })))
            }
            Command::Send(request) => Some(Event::Answered(self.answer(request))),
            Command::Write(order) => Some(Event::Written(self.commit(*order))),
            Command::Rest { delay_ms } => {
                self.now += delay_ms as i64 * 1_000;
                Some(Event::Rested)
            }
            Command::Halt => None,
        }
    }

    fn answer(&mut self, mut request: Request) -> Result<Answer, Failure> {
        self.now += 1_000 + self.random.below(50_000) as i64;
        sabotage::request(self.sabotage, &mut request);
        let (mut status, mut body) = match request.purpose {
            Purpose::DescribeTable => (200, self.source.describe(self.now)),
            Purpose::StartQuery => {
                let body: Value = serde_json::from_str(request.body.as_deref().unwrap()).unwrap();
                let sql = body["query"].as_str().unwrap().replace('\n', " ");
                self.note(format!("query {sql}"));
                (200, self.source.start_query(&body, self.now, &mut self.random))
            }
            Purpose::ReadResult => self.read_result(&request.path),
        };
        let mut cut = None;
        if self.faulty() {
            self.note("fault".to_owned());
            match self.random.below(8) {
                0 => {
                    self.now += 60_000_000;
                    return Err(Failure::new(Kind::Timeout, "no answer"));
                }
                1 => return Err(Failure::new(Kind::Unreachable, "reset")),
                2 => (status, body) = (503, json!({"error": {"errors": [{"reason": "backendError"}]}})),
                3 => (status, body) = (429, json!({"error": {"errors": [{"reason": "rateLimitExceeded"}]}})),
                4 => (status, body) = (401, json!({})),
                5 => self.source.lose_results(),
                6 => body = json!({"error": "a page of a proxy"}),
                _ => cut = Some(self.random.next() as usize),
            }
        }
        if self.sabotage == Some(Sabotage::LastPageLost) {
            lose_last_page(&mut body);
        }
        let mut bytes = body.to_string().into_bytes();
        if let Some(cut) = cut {
            bytes.truncate(cut % bytes.len());
        }
        let retry_after_ms = (status == 429).then_some(2_000);
        Ok(Answer {
            status,
            server_time: Some(Micros(self.now + self.server_skew_us)),
            retry_after_ms,
            body: bytes,
        })
    }

    fn read_result(&mut self, path: &str) -> (u16, Value) {
        let number = |name: &str| {
            let (_, rest) = path.split_once(name).unwrap();
            rest.split('&').next().unwrap().parse::<usize>().unwrap()
        };
        let job = path.split(['/', '?']).nth(4).unwrap();
        let (offset, wanted) = (number("startIndex="), number("maxResults="));
        match self.source.page(job, offset, wanted, self.now) {
            Some(page) => (200, page),
            None => (404, json!({"error": {"errors": [{"reason": "notFound"}]}})),
        }
    }

    /// Commits an order, or not; the confirmation may be lost either way.
    pub fn commit(&mut self, order: WriteOrder) -> Result<Receipt, Failure> {
        self.now += 1_000 + self.random.below(60_000) as i64;
        let lost = Err(Failure::new(Kind::HarperWrite, "no confirmation"));
        if !self.target_exists {
            return lost;
        }
        let fails = self.faulty();
        if fails && self.sabotage == Some(Sabotage::CheckpointWithoutRows) {
            self.checkpoint = Some(order.checkpoint);
            return lost;
        }
        if fails && self.random.one_in(2) {
            self.note("commit failed".to_owned());
            return lost;
        }
        self.apply(order);
        if fails { lost } else { Ok(Receipt { refused: 0, elapsed_ms: self.random.below(60) }) }
    }

    /// Makes rows and progress durable.
    pub fn apply(&mut self, order: WriteOrder) {
        let columns: Value = serde_json::from_slice(&order.batch.text).unwrap();
        let text = |column: usize, row: usize| columns[column][row].as_str().unwrap().to_owned();
        for row in 0..order.batch.rows {
            if order.batch.superseded.contains(&(row as u32)) {
                continue;
            }
            let cursor = Some(Micros::parse(&text(1, row)).unwrap().0);
            let record = Row { cursor, key: text(2, row), text: text(3, row) };
            let id = sabotage::id(self.sabotage, &text(0, row), &order);
            let newer_stored = self.target.get(&id).is_some_and(|stored| stored.cursor > record.cursor);
            if self.source.habits.keyed && newer_stored && self.sabotage != Some(Sabotage::OlderOverwrites) {
                continue;
            }
            self.target.insert(id, record);
        }
        let before = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.last_timestamp);
        self.note(format!(
            "commit {} rows, watermark {:?}, window {:?}",
            order.batch.rows,
            order.checkpoint.last_timestamp.map(|at| at.to_string()),
            order.checkpoint.window.as_ref().map(|window| (window.offset, window.total_rows))
        ));
        let after = order.checkpoint.last_timestamp;
        self.checkpoint = Some(order.checkpoint);
        if after < before {
            self.violation = Some("the watermark went back".to_owned());
        }
        if after != before {
            self.check_watermark(after);
        }
    }

    /// Everything up to the watermark that the query could see is in the target.
    fn check_watermark(&mut self, watermark: Option<Micros>) {
        let Some(Micros(watermark)) = watermark else { return };
        let due = |row: &&Row| row.cursor.is_some_and(|cursor| cursor <= watermark);
        let missing = if self.source.habits.keyed {
            let held: BTreeMap<&str, Option<i64>> =
                self.target.values().map(|row| (row.key.as_str(), row.cursor)).collect();
            let at_least = |row: &Row| held.get(row.key.as_str()).is_some_and(|cursor| *cursor >= row.cursor);
            self.source.visible(self.source.served_made_at).filter(due).filter(|row| !at_least(row)).count()
        } else {
            let mut held: BTreeMap<&Row, i64> = BTreeMap::new();
            for row in self.target.values() {
                *held.entry(row).or_insert(0) += 1;
            }
            for row in self.source.visible(self.source.served_made_at).filter(due) {
                *held.entry(row).or_insert(0) -= 1;
            }
            held.values().filter(|count| **count < 0).count()
        };
        if missing > 0 {
            let at = Micros(watermark);
            self.violation = Some(format!("{missing} rows up to the watermark {at} are not in the target"));
        }
    }

    /// Compares both sides.
    pub fn check_equality(&self) -> Option<String> {
        let mut found: Vec<&Row> = self.target.values().collect();
        let with_cursor = self.source.visible(self.now).filter(|row| row.cursor.is_some());
        let mut expected: Vec<&Row> = if self.source.habits.keyed {
            let mut newest: BTreeMap<&str, &Row> = BTreeMap::new();
            for row in with_cursor {
                let newer = newest.get(row.key.as_str()).is_none_or(|other| other.cursor < row.cursor);
                if newer {
                    newest.insert(&row.key, row);
                }
            }
            newest.into_values().collect()
        } else {
            with_cursor.collect()
        };
        found.sort();
        expected.sort();
        (found != expected).then(|| {
            let (have, want) = (found.len(), expected.len());
            let other = found.iter().zip(&expected).position(|(one, other)| one != other);
            format!("the target has {have} rows, the source {want}; they first differ at {other:?}")
        })
    }
}

/// Makes a result look as if its last page did not exist.
fn lose_last_page(body: &mut Value) {
    let total: usize = body["totalRows"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let Some(rows) = body["rows"].as_array_mut() else { return };
    if rows.len() > 1 && total > 1 && body["schema"]["fields"][0]["name"] == "ts" {
        let kept = total - 1;
        body["totalRows"] = json!(kept.to_string());
        if let Some(rows) = body["rows"].as_array_mut() {
            rows.truncate(kept);
        }
    }
}
