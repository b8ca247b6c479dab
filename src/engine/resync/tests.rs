use super::*;
use crate::cluster::{Share, Standing};
use crate::engine::holding::Holding;
use crate::engine::samples::{Books, at, checkpoint, described, moment, table, table_with};
use crate::partition::{Division, Rule, Span};
use serde_json::json;

const BY_DAY: Rule = Rule { division: Division::Spans(Span::Day), partitions: 2, pruned: true };
const FIRST: &str = "2024-01-01T00:00:00Z";
const LATER: &str = "2024-01-05T00:00:00Z";

fn resync(number: u64, from: Option<&str>) -> Resync {
    Resync { number, given: Some(moment(0).now), from: from.map(at), gone_before: None }
}

/// A worker that owns everything, and has heard of a command.
fn holding(rows: Vec<Checkpoint>, heard: Resync) -> Holding {
    let mut holding = Holding::new(Standing::ALONE);
    holding.hear_resyncs(std::iter::once(heard));
    holding.take(rows, BY_DAY, 0);
    holding
}

fn begun(number: u64) -> Checkpoint {
    let reread = Reread { resync: resync(number, None), ..Reread::default() };
    Checkpoint { reread: Some(reread), ..checkpoint(0, LATER, LATER) }
}

#[test]
fn to_begin_sets_the_progress_back_to_the_start_or_to_before_an_instant_but_never_forward() {
    let after = |from: Option<&str>, last: &str| {
        let mut row = checkpoint(0, last, last);
        row.begin_reread(resync(1, from), &table().pace, moment(9).now);
        (row.last_timestamp, row.settled, row.reread.and_then(|reread| reread.after))
    };
    let before_first = Some(at("2023-12-31T23:59:59.999999Z"));
    assert_eq!(after(None, LATER), (None, None, None));
    assert_eq!(after(Some(FIRST), LATER), (before_first, before_first, before_first));
    let earlier = Some(at("2023-06-01"));
    assert_eq!(after(Some(FIRST), "2023-06-01T00:00:00Z"), (earlier, earlier, before_first));
}

#[test]
fn rows_before_the_configured_start_are_not_among_those_that_are_read_again() {
    let pace = table_with(json!({"sync": {"startTimestamp": FIRST}})).pace;
    let mut row = checkpoint(0, LATER, LATER);
    row.begin_reread(resync(1, None), &pace, moment(9).now);
    assert_eq!(row.last_timestamp, None);
    assert_eq!(row.reread.unwrap().after, Some(at("2023-12-31T23:59:59.999999Z")));
}

#[test]
fn what_was_read_to_its_end_first_stays_so_until_it_starts_over() {
    let mut reread = Reread { mark: Some(at(FIRST)), rows: 5, ..Reread::default() };
    reread.reach_end(at(LATER), true, false);
    assert_eq!((reread.done, reread.until, reread.future_after), (true, Some(at(LATER)), None));
    reread.reach_end(at("2024-02-01"), false, true);
    assert_eq!(reread.until, Some(at(LATER)));
    reread.start_over();
    assert_eq!((reread.done, reread.until, reread.rows, reread.mark), (false, None, 0, Some(at(FIRST))));
}

#[test]
fn partitions_that_have_not_begun_are_due_also_those_without_a_checkpoint() {
    assert_eq!(holding(vec![begun(1)], Resync::default()).rereads_due(), [0; 0]);
    assert_eq!(holding(vec![begun(1)], resync(1, None)).rereads_due(), [1]);
    let second = holding(vec![begun(1), checkpoint(1, LATER, LATER)], resync(2, None));
    assert_eq!(second.rereads_due(), [0, 1]);
    assert!(second.is_outdated() && second.is_rereading());
}

#[test]
fn an_older_command_does_not_take_the_place_of_a_newer_one() {
    let mut holding = holding(Vec::new(), resync(3, None));
    holding.hear_resyncs([resync(2, Some(FIRST)), resync(1, None)].into_iter());
    assert_eq!(holding.resync(), resync(3, None));
}

#[test]
fn progress_of_before_counts_for_nothing_unless_only_later_rows_are_read_again() {
    let rows = || vec![begun(1), checkpoint(1, LATER, LATER)];
    let whole = holding(rows(), resync(2, None));
    assert_eq!((whole.ledger.newest_of_all(), whole.ledger.lowest_of_all()), (None, None));
    assert!(whole.is_voided(&begun(1)) && !whole.is_voided(&begun(2)));
    let part = holding(rows(), resync(2, Some(FIRST)));
    assert_eq!(part.ledger.newest_of_all(), Some(at(LATER)));
    assert!(!part.is_voided(&begun(1)));
}

#[test]
fn what_a_former_command_has_voided_stays_void_after_one_for_later_rows() {
    let mut row = begun(1);
    row.begin_reread(resync(2, None), &table().pace, moment(9).now);
    row.begin_reread(resync(3, Some(FIRST)), &table().pace, moment(9).now);
    let mut holding = Holding::new(Standing::ALONE);
    holding.hear_rereads(row.reread.iter());
    assert_eq!(holding.resync().number, 3);
    assert!(holding.is_voided(&begun(1)) && holding.is_voided(&checkpoint(0, LATER, LATER)));
    assert!(!holding.is_voided(&begun(2)) && !holding.is_voided(&row));
    let former = Checkpoint { rule: "hour/2".to_owned(), ..begun(1) };
    assert!(holding.voids_all(&[former.clone(), begun(1)], BY_DAY));
    assert!(holding.voids_all(std::slice::from_ref(&former), BY_DAY));
    assert!(!holding.voids_all(&[former, begun(2)], BY_DAY));
}

#[test]
fn partitions_that_have_nothing_to_be_read_end_as_well() {
    let mut holding = holding(vec![begun(1), Checkpoint { partition: 1, ..begun(1) }], resync(1, None));
    holding.ledger.end(&[1], at(LATER));
    let ended = holding.take_ended();
    assert_eq!(ended, [(1, at(LATER))]);
    assert_eq!(holding.take_ended(), []);
    let books = Books::open();
    let bookkeeper = books.keeper(&holding);
    let [row] = &bookkeeper.of_ended_rereads(&ended, true, &described(1))[..] else { panic!("not one row") };
    let reread = row.reread.unwrap();
    assert_eq!((row.partition, reread.done, reread.bytes_billed, row.bytes_billed), (1, true, 7, 7));
    let begun = bookkeeper.of_rereads(&[0], resync(2, None), &described(1)).remove(0);
    let reread = begun.reread.unwrap();
    assert_eq!((reread.mark, reread.source_rows, reread.rows), (begun.stamp, Some(5), 0));
    // What it wrote before is not written later than the mark.
    assert!(begun.stamp > row.stamp || begun.stamp >= Some(moment(5).now));
}

#[test]
fn a_worker_of_two_begins_its_own_partitions_alone() {
    let second = Standing { share: Share { position: 1, workers: 2 }, ..Standing::ALONE };
    let mut holding = Holding::new(second);
    holding.hear_resyncs(std::iter::once(resync(1, None)));
    holding.take(Vec::new(), BY_DAY, 0);
    assert_eq!(holding.rereads_due(), holding.own());
    assert_eq!(holding.own().len(), 1);
}
