use super::*;
use crate::cluster::Standing;
use crate::config::Connection;
use crate::engine::boundary::Worker;
use crate::engine::resync::Resync;
use crate::engine::samples::{at, checkpoint, keyed, projection, table};
use crate::mapping::id::{content_hash, write_keyless};
use crate::partition::{Division, Span};
use std::sync::Arc;

const BY_DAY: Rule = Rule { division: Division::Spans(Span::Day), partitions: 2, pruned: true };
const EVEN_DAY: &str = "2024-01-01T06:00:00Z";
const ODD_DAY: &str = "2024-01-02T06:00:00Z";
const END: &str = "2024-01-10T00:00:00Z";

/// The checkpoint of a partition that was read again from a mark on, some rows of five.
fn row(partition: u32, mark: &str, reread: Reread) -> Checkpoint {
    let resync = Resync { number: 1, ..Resync::default() };
    let reread =
        Reread { resync, mark: Some(at(mark)), began: Some(at(mark)), done: true, rows: 5, ..reread };
    Checkpoint { reread: Some(reread), source_rows: Some(5), ..checkpoint(partition, END, END) }
}

fn sweep_of(rows: &[Checkpoint], projection: &Projection) -> Sweep {
    let rows: Vec<&Checkpoint> = rows.iter().collect();
    Sweep::new(&table(), "n", &rows, BY_DAY, projection).unwrap()
}

fn id(cursor: &str) -> String {
    let mut id = Vec::new();
    write_keyless(&mut id, at(cursor), &content_hash(b"row"), 0, 0);
    String::from_utf8(id).unwrap()
}

fn takes(sweep: &Sweep, cursor: &str, stamp: &str) -> bool {
    let id = id(cursor);
    sweep.takes(Written { id: &id, stamp: at(stamp), synced_at: None, cursor: None }).is_some()
}

/// Partitions that began one after the other.
fn one_after_the_other(reread: Reread) -> [Checkpoint; 2] {
    [row(0, "2024-02-01", reread), row(1, "2024-02-02", reread)]
}

#[test]
fn a_record_is_gone_if_it_was_not_written_since_its_own_partition_began() {
    let sweep = sweep_of(&one_after_the_other(Reread::default()), &projection(&["ts"]));
    let (even, odd) = match BY_DAY.partition(at(EVEN_DAY)) {
        0 => (EVEN_DAY, ODD_DAY),
        _ => (ODD_DAY, EVEN_DAY),
    };
    assert!(takes(&sweep, even, "2024-01-31T23:59:59Z") && !takes(&sweep, even, "2024-02-01"));
    assert!(takes(&sweep, odd, "2024-02-01") && !takes(&sweep, odd, "2024-02-02"));
    assert_eq!(sweep.stays_from(), at("2024-02-02"));
}

#[test]
fn a_removal_has_the_time_of_the_beginning_so_that_whatever_was_written_since_stays() {
    let sweep = sweep_of(&one_after_the_other(Reread::default()), &projection(&["ts"]));
    let id = id(EVEN_DAY);
    let stamp = sweep.takes(Written { id: &id, stamp: at("2024-01-03"), synced_at: None, cursor: None });
    assert!(stamp == Some(at("2024-02-01")) || stamp == Some(at("2024-02-02")));
}

#[test]
fn a_record_that_was_written_after_the_beginning_stays_whatever_its_time_of_writing() {
    let sweep = sweep_of(&one_after_the_other(Reread::default()), &projection(&["ts"]));
    let id = id(EVEN_DAY);
    let written = |synced_at: &str| Written {
        id: &id,
        stamp: at("2024-01-03"),
        synced_at: Some(at(synced_at)),
        cursor: None,
    };
    assert!(sweep.takes(written("2024-01-31")).is_some());
    assert!(sweep.takes(written("2024-02-03")).is_none());
}

#[test]
fn nothing_goes_outside_of_what_was_read() {
    let reread = Reread { after: Some(at("2023-12-01")), until: Some(at(END)), ..Reread::default() };
    let sweep = sweep_of(&one_after_the_other(reread), &projection(&["ts"]));
    let old = "2024-01-15";
    assert!(takes(&sweep, EVEN_DAY, old) && takes(&sweep, END, old));
    assert!(!takes(&sweep, "2023-12-01", old) && !takes(&sweep, "2024-01-10T00:00:00.000001Z", old));
    let with_future = Reread { future_after: Some(at("2024-01-11")), ..reread };
    let sweep = sweep_of(&one_after_the_other(with_future), &projection(&["ts"]));
    assert!(takes(&sweep, "2024-01-12", old) && !takes(&sweep, "2024-01-10T12:00:00Z", old));
}

#[test]
fn ids_of_a_former_key_go_unless_some_rows_were_not_read() {
    let old = Written { id: "a", stamp: at("2024-01-15"), synced_at: None, cursor: None };
    let bounded = Reread { until: Some(at(END)), ..Reread::default() };
    assert!(sweep_of(&one_after_the_other(bounded), &projection(&["ts"])).takes(old).is_some());
    let later = Reread { after: Some(at("2023-12-01")), ..bounded };
    assert!(sweep_of(&one_after_the_other(later), &projection(&["ts"])).takes(old).is_none());
}

#[test]
fn a_stored_cursor_may_lack_its_microseconds() {
    let reread = Reread { after: Some(at("2023-12-01")), until: Some(at(END)), ..Reread::default() };
    let sweep = sweep_of(&one_after_the_other(reread), &keyed(1).projection);
    assert_eq!(sweep.attribute(), Some("ts"));
    let takes = |cursor: Option<&str>| {
        sweep.takes(Written { id: "k", stamp: at("2024-01-15"), synced_at: None, cursor }).is_some()
    };
    assert!(takes(Some("2024-01-09T23:59:59.000Z")) && !takes(Some("2024-01-10T00:00:00.000Z")));
    assert!(!takes(None));
}

#[test]
fn rows_that_cannot_be_written_keep_what_is_stored_of_them() {
    let mut sweep = sweep_of(&one_after_the_other(Reread::default()), &projection(&["ts"]));
    sweep.excuse([id(EVEN_DAY)]);
    assert!(!takes(&sweep, EVEN_DAY, "2024-01-15") && takes(&sweep, ODD_DAY, "2024-01-15"));
}

#[test]
fn of_a_source_that_has_lost_its_rows_nothing_is_removed() {
    let without_rows = |rows: Vec<Checkpoint>| {
        let sweep = sweep_of(&rows, &projection(&["ts"]));
        let (swept, note) = sweep.end(at(END));
        (sweep.may_remove(), takes(&sweep, EVEN_DAY, "2024-01-15"), swept.state, note.kind)
    };
    let mut none = one_after_the_other(Reread::default());
    none.iter_mut().for_each(|row| row.reread.as_mut().unwrap().rows = 0);
    let refused = (false, false, State::Refused, "resync_refused");
    assert_eq!(without_rows(none.to_vec()), refused);
    let shrunk = one_after_the_other(Reread { source_rows: Some(11), ..Reread::default() });
    assert_eq!(without_rows(shrunk.to_vec()), refused);
    let smaller = one_after_the_other(Reread { source_rows: Some(10), ..Reread::default() });
    assert_eq!(without_rows(smaller.to_vec()), (true, true, State::Done, "resync_ended"));
}

/// An engine that knows a table which is divided by day, and its checkpoints.
fn engine(rows: &mut [Checkpoint]) -> Engine {
    let connection = sample_connection();
    let worker = Worker { node: "n".to_owned(), index: 0 };
    let mut engine = Engine::new(table(), connection, worker, Standing::ALONE);
    let (projection, _) = engine.schema.follow(projection(&["ts", "text"]));
    let identity = table().identity(&projection.key_names());
    rows.iter_mut().for_each(|row| row.identity.clone_from(&identity));
    engine.holding.take(rows.to_vec(), BY_DAY, 0);
    engine.deliveries.load(Vec::new(), false);
    engine
}

fn sample_connection() -> Connection {
    let root = serde_json::json!({
        "bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"}
    });
    crate::config::Config::parse(&root, &crate::config::Environment::default()).unwrap().connection
}

fn place(seconds: i64) -> Place<'static> {
    Place { node: "n", rank: 0, haste: 1, is_certain: false, now: Micros(seconds * SECOND_US) }
}

/// Whether a sweep is due at last.
fn is_due(engine: &mut Engine, rows: &[Checkpoint], known: Known) -> bool {
    assert!(engine.sweep(Vec::new(), rows, known, place(0)).is_none(), "at once");
    assert!(engine.sweep(Vec::new(), rows, known, place(29)).is_none(), "before the delay is over");
    engine.sweep(Vec::new(), rows, known, place(30)).is_some()
}

#[test]
fn a_sweep_comes_some_time_after_all_partitions_were_read_and_once() {
    let mut rows = one_after_the_other(Reread::default());
    assert!(is_due(&mut engine(&mut rows), &rows, Known::default()));
    assert!(!is_due(&mut engine(&mut rows), &rows, Known { swept: 1, ..Known::default() }));
    assert!(!is_due(&mut engine(&mut rows), &rows[..1], Known::default()));
    rows[1].reread.as_mut().unwrap().done = false;
    assert!(!is_due(&mut engine(&mut rows), &rows, Known::default()));
}

#[test]
fn a_newer_command_or_another_configuration_puts_it_off() {
    let mut rows = one_after_the_other(Reread::default());
    let mut heard = engine(&mut rows);
    heard.holding.hear_resyncs(std::iter::once(Resync { number: 2, ..Resync::default() }));
    assert!(!is_due(&mut heard, &rows, Known::default()));
    let mut configured = engine(&mut rows);
    rows[0].identity = "with another target".to_owned();
    assert!(!is_due(&mut configured, &rows, Known::default()));
}

#[test]
fn commits_that_have_not_arrived_delay_it_but_not_for_ever() {
    let mut rows = one_after_the_other(Reread::default());
    let mut engine = engine(&mut rows);
    let told = Commit { number: 3, kept_from: 1, ..lone_commit() };
    let mut sweep = |seconds| engine.sweep(vec![told.clone()], &rows, Known::default(), place(seconds));
    assert!(sweep(0).is_none() && sweep(599).is_none() && sweep(600).is_some());
}

#[test]
fn a_node_that_lacks_a_commit_of_rows_that_were_read_again_removes_nothing() {
    let removes = |told: Vec<Commit>, by: &str| {
        let mut rows = one_after_the_other(Reread::default());
        rows[0].reread_by.insert(by.to_owned(), 1);
        let mut engine = engine(&mut rows);
        engine.sweep(told, &rows, Known::default(), place(0));
        engine.sweep(Vec::new(), &rows, Known::default(), place(600)).unwrap().may_remove()
    };
    // Nobody has told of it, for example because the worker has ended.
    assert!(!removes(Vec::new(), "m-0"));
    assert!(removes(vec![Commit { kept_from: 2, ..lone_commit() }], "m-0"));
    assert!(removes(Vec::new(), "n-0"));
}

fn lone_commit() -> Commit {
    serde_json::from_value(serde_json::json!({
        "tableId": "t", "owner": "m-0", "number": 1, "rows": {"totalRows": 1, "from": 0, "to": 1},
        "result": 1, "began": 0
    }))
    .unwrap()
}

#[test]
fn a_node_that_has_read_lost_rows_with_a_key_again_leaves_the_removal_to_others() {
    let mut rows = one_after_the_other(Reread::default());
    let mut engine = engine(&mut rows);
    let keyed = Arc::clone(&keyed(1).projection);
    let identity = table().identity(&keyed.key_names());
    rows.iter_mut().for_each(|row| row.identity.clone_from(&identity));
    engine.schema.follow((*keyed).clone());
    let known = |mended_at: &str| Known { mended_at: Some(at(mended_at)), ..Known::default() };
    let mut may_remove = |known| {
        engine.sweep(Vec::new(), &rows, known, place(0));
        engine.sweep(Vec::new(), &rows, known, place(30)).unwrap().may_remove()
    };
    assert!(may_remove(known("2024-01-31T22:00:00Z")));
    assert!(!may_remove(known("2024-01-31T23:30:00Z")) && !may_remove(known("2024-02-05")));
}

#[test]
fn older_versions_take_the_place_of_newer_ones_that_were_not_read_by_one_more_command() {
    let rows = one_after_the_other(Reread::default());
    let mut sweep = sweep_of(&rows, &keyed(1).projection);
    assert_eq!((sweep.outdated_before(), sweep.sequel(at(END))), (Some(at("2024-02-01")), None));
    sweep.find_outdated(3);
    let sequel = sweep.sequel(at(END)).unwrap();
    assert_eq!((sequel.number, sequel.gone_before), (2, Some(at("2024-02-01"))));
    let again =
        rows.map(|row| Checkpoint { reread: Some(Reread { resync: sequel, ..row.reread.unwrap() }), ..row });
    let mut sweep = sweep_of(&again, &keyed(1).projection);
    sweep.find_outdated(3);
    assert_eq!(sweep.sequel(at(END)), None);
    assert_eq!(sweep_of(&again, &projection(&["ts"])).outdated_before(), None);
}

#[test]
fn of_rows_with_a_key_nothing_goes_if_older_versions_may_lie_before_those_that_were_read() {
    let rows = one_after_the_other(Reread::default()).map(|row| {
        let resync = Resync { number: 1, from: Some(at(EVEN_DAY)), ..Resync::default() };
        Checkpoint { reread: Some(Reread { resync, ..row.reread.unwrap() }), ..row }
    });
    let (swept, note) = sweep_of(&rows, &keyed(1).projection).end(at(END));
    assert!(!sweep_of(&rows, &keyed(1).projection).may_remove());
    assert_eq!((swept.state, note.kind), (State::Done, "resync_ended"));
    assert!(note.reason.contains("older versions"), "{}", note.reason);
    assert!(sweep_of(&rows, &projection(&["ts"])).may_remove());
}
