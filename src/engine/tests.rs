//! The engine against a BigQuery and a Harper that behave, and misbehave, in memory.

use super::*;
use crate::config::{Config, Environment};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// 2024-01-01T00:00:00Z.
const BASE_US: i64 = 1_704_067_200_000_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
    }

    fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.next().is_multiple_of(n)
    }
}

/// A source table, its query results, and a target table.
struct World {
    random: Random,
    now: Micros,
    source: Vec<(i64, String)>,
    results: BTreeMap<String, Vec<(i64, String)>>,
    target: BTreeMap<String, (i64, String)>,
    checkpoint: Option<Checkpoint>,
    queries: u64,
    page_rows_max: usize,
    /// One in so many answers and commits fails; none when zero.
    faults: u64,
    commits: Vec<usize>,
}

impl World {
    fn new(seed: u64, faults: u64) -> World {
        World {
            random: Random(seed),
            now: Micros(BASE_US),
            source: Vec::new(),
            results: BTreeMap::new(),
            target: BTreeMap::new(),
            checkpoint: None,
            queries: 0,
            page_rows_max: 1_000,
            faults,
            commits: Vec::new(),
        }
    }

    fn moment(&mut self) -> Moment {
        Moment { now: self.now, jitter: Jitter(self.random.next() as u32) }
    }

    fn execute(&mut self, command: Command) -> Event {
        match command {
            Command::LoadCheckpoint => Event::Loaded(Ok(self.checkpoint.clone().map(Box::new))),
            Command::EnsureTarget(_) => Event::TargetReady(Ok(())),
            Command::Send(request) => Event::Answered(self.answer(&request)),
            Command::Write(order) => Event::Written(self.commit(*order)),
            Command::Rest { delay_ms } => {
                self.now = self.now.plus(delay_ms as i64 * 1_000);
                Event::Rested
            }
            Command::Halt => panic!("halted"),
        }
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Failure> {
        self.now = self.now.plus(20_000);
        let (mut status, mut body) = match request.purpose {
            Purpose::DescribeTable => (200, json!({"schema": {"fields": fields()}})),
            Purpose::StartQuery => self.start_query(request),
            Purpose::ReadResult => self.read_result(&request.path),
        };
        let mut cut = usize::MAX;
        if self.random.one_in(self.faults) {
            match self.random.next() % 6 {
                0 => return Err(Failure::new(Kind::Timeout, "no answer")),
                1 => return Err(Failure::new(Kind::Unreachable, "reset")),
                2 => (status, body) = (503, json!({"error": {"errors": [{"reason": "backendError"}]}})),
                3 => (status, body) = (401, json!({})),
                4 if request.purpose == Purpose::ReadResult => (status, body) = (404, json!({})),
                _ => cut = self.random.next() as usize,
            }
        }
        let mut body = body.to_string().into_bytes();
        if cut != usize::MAX {
            body.truncate(cut % body.len());
        }
        Ok(Answer { status, server_time: Some(self.now), retry_after_ms: None, body })
    }

    fn start_query(&mut self, request: &Request) -> (u16, Value) {
        let body: Value = serde_json::from_str(request.body.as_deref().unwrap()).unwrap();
        let sql = body["query"].as_str().unwrap();
        let bound = |operator: &str| {
            let (_, rest) = sql.split_once(&format!("`ts` {operator} TIMESTAMP '"))?;
            Micros::parse(rest.split('\'').next()?)
        };
        let (after, until) = (bound(">").map_or(i64::MIN, |after| after.0), bound("<=").unwrap().0);
        let rows = self.source.iter().filter(|(ts, _)| *ts > after && *ts <= until && *ts <= self.now.0);
        let id = format!("job{}", self.queries);
        self.queries += 1;
        self.results.insert(id.clone(), rows.cloned().collect());
        let wanted = body["maxResults"].as_u64().unwrap() as usize;
        (200, self.page(&id, 0, wanted))
    }

    fn read_result(&mut self, path: &str) -> (u16, Value) {
        let number = |name: &str| {
            let (_, rest) = path.split_once(name).unwrap();
            rest.split('&').next().unwrap().parse::<usize>().unwrap()
        };
        let id = path.split(['/', '?']).nth(4).unwrap();
        (200, self.page(id, number("startIndex="), number("maxResults=")))
    }

    fn page(&mut self, id: &str, offset: usize, wanted: usize) -> Value {
        let rows = &self.results[id];
        // Pages may be shorter than asked for.
        let most = wanted.min(self.page_rows_max).min(if self.faults > 0 { 700 } else { usize::MAX });
        let page: Vec<Value> = rows
            .iter()
            .skip(offset)
            .take(most)
            .map(|(ts, text)| json!({"f": [{"v": ts.to_string()}, {"v": text}]}))
            .collect();
        json!({
            "jobReference": {"projectId": "p", "jobId": id}, "schema": {"fields": fields()},
            "totalRows": rows.len().to_string(), "rows": page, "totalBytesProcessed": "1000", "jobComplete": true
        })
    }

    fn commit(&mut self, order: WriteOrder) -> Result<Receipt, Failure> {
        self.now = self.now.plus(5_000);
        let lost = Err(Failure::new(Kind::HarperWrite, "no commit"));
        if self.random.one_in(self.faults) {
            return lost;
        }
        let columns: Value = serde_json::from_slice(&order.batch.text).unwrap();
        for row in 0..order.batch.rows {
            let ts = Micros::parse(columns[1][row].as_str().unwrap()).unwrap().0;
            let record = (ts, columns[2][row].as_str().unwrap().to_owned());
            self.target.insert(columns[0][row].as_str().unwrap().to_owned(), record);
        }
        self.commits.push(order.batch.rows);
        self.checkpoint = Some(order.checkpoint);
        // The commit may happen and its confirmation be lost.
        if self.random.one_in(self.faults) { lost } else { Ok(Receipt::default()) }
    }

    /// Runs an engine until the world's clock shows `until`, or it dies after `steps_max` steps.
    fn run(&mut self, until: Micros, steps_max: usize) {
        let mut engine = engine();
        let mut command = engine.step(Event::Start, self.moment());
        for _ in 0..steps_max {
            if self.now >= until {
                break;
            }
            let event = self.execute(command);
            command = engine.step(event, self.moment());
        }
    }

    fn check(&self) {
        let mut expected = self.source.clone();
        expected.sort();
        let mut found: Vec<(i64, String)> = self.target.values().cloned().collect();
        found.sort();
        assert_eq!(found.len(), expected.len());
        assert_eq!(found, expected);
    }
}

fn fields() -> Value {
    json!([{"name": "ts", "type": "TIMESTAMP"}, {"name": "text", "type": "STRING"}])
}

fn engine() -> Engine {
    let root = json!({"bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"}});
    let config = Config::parse(&root, &Environment::default()).unwrap();
    let worker = Worker { node: "n".to_owned(), index: 0 };
    Engine::new(config.tables.into_iter().next().unwrap(), config.connection, worker)
}

fn seconds(count: i64) -> Micros {
    Micros(BASE_US).plus(count * 1_000_000)
}

/// Rows of the day before: many per second, some identical.
fn history(rows: usize) -> Vec<(i64, String)> {
    (0..rows)
        .map(|row| (BASE_US - 86_400_000_000 + (row as i64 / 7) * 1_000_000, format!("row {}", row / 3)))
        .collect()
}

#[test]
fn a_table_arrives_whole_with_its_ties_and_identical_rows() {
    let mut world = World::new(1, 0);
    world.source = history(5_000);
    world.run(seconds(60), 1_000);
    world.check();
    let checkpoint = world.checkpoint.as_ref().unwrap();
    assert_eq!(checkpoint.records_ingested, 5_000);
    assert!(checkpoint.window.is_none());
    assert_eq!(checkpoint.bytes_billed, 1_000 * world.queries);
}

#[test]
fn one_query_reads_the_whole_backlog() {
    let mut world = World::new(1, 0);
    world.source = history(20_000);
    world.run(seconds(5), 1_000);
    world.check();
    assert_eq!(world.queries, 1);
}

#[test]
fn late_rows_arrive_and_known_rows_are_not_written_again() {
    let mut world = World::new(1, 0);
    world.source =
        (0..1_000).map(|row| (BASE_US - 500_000_000 + row * 1_000, format!("row {row}"))).collect();
    world.run(seconds(5), 1_000);
    world.check();
    let mut engine = engine();
    let mut command = engine.step(Event::Start, world.moment());
    world.commits.clear();
    for round in 0..4 {
        let until = world.now.plus(30_000_000);
        while world.now < until {
            let event = world.execute(command);
            command = engine.step(event, world.moment());
        }
        world.source.push((BASE_US - 400_000_000, format!("late {round}")));
        world.source.push((BASE_US - 400_000_000, "late twin".to_owned()));
    }
    let until = world.now.plus(61_000_000);
    while world.now < until {
        let event = world.execute(command);
        command = engine.step(event, world.moment());
    }
    world.check();
    // After a start the late range is written once more; from then on, only what is new.
    let written: usize = world.commits.iter().sum();
    assert_eq!(written, 1_000 + 8);
}

#[test]
fn polls_follow_the_interval_however_fast_the_answers_come() {
    let mut world = World::new(1, 0);
    world.source = history(10);
    world.run(seconds(3_600), 100_000);
    assert!(world.queries <= 121, "{} queries in an hour", world.queries);
}

#[test]
fn the_watermark_never_runs_ahead_of_the_rows() {
    let mut world = World::new(7, 5);
    world.source = history(9_000);
    let mut engine = engine();
    let mut command = engine.step(Event::Start, world.moment());
    for _ in 0..3_000 {
        let event = world.execute(command);
        command = engine.step(event, world.moment());
        if let Some(watermark) = world.checkpoint.as_ref().and_then(|checkpoint| checkpoint.last_timestamp) {
            let due = world.source.iter().filter(|(ts, _)| *ts <= watermark.0).count();
            assert!(world.target.len() >= due);
        }
    }
    assert!(world.target.len() > 5_000, "only {} rows came through", world.target.len());
}

#[test]
fn faults_and_crashes_lose_and_double_nothing() {
    for seed in 0..100 {
        let mut world = World::new(seed, 4);
        world.source = history(3_000);
        for _ in 0..6 {
            let steps = world.random.next() % 40;
            world.run(Micros::MAX, steps as usize);
        }
        world.faults = 0;
        world.run(world.now.plus(120_000_000), 10_000);
        world.check();
    }
}

#[test]
fn a_changed_identity_stops_the_table_with_a_way_out() {
    let mut world = World::new(1, 0);
    world.source = history(10);
    world.run(seconds(5), 100);
    let mut checkpoint = world.checkpoint.clone().unwrap();
    checkpoint.identity = "other".to_owned();
    let mut engine = engine();
    assert!(matches!(engine.step(Event::Start, world.moment()), Command::LoadCheckpoint));
    let loaded = Event::Loaded(Ok(Some(Box::new(checkpoint))));
    assert!(matches!(engine.step(loaded, world.moment()), Command::Halt));
    let status = engine.status(world.now);
    assert_eq!(status.last_error.unwrap().code, Kind::CheckpointMismatch);
}

#[test]
fn a_stop_ends_the_engine_in_any_state() {
    for steps in 0..30 {
        let mut world = World::new(steps, 3);
        world.source = history(2_000);
        let mut engine = engine();
        let mut command = engine.step(Event::Start, world.moment());
        for _ in 0..steps {
            let event = world.execute(command);
            command = engine.step(event, world.moment());
        }
        assert!(matches!(engine.step(Event::Stop, world.moment()), Command::Halt));
    }
}
