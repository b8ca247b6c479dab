use super::*;
use crate::engine::samples::at;

/// The ends of all pieces that are tried one after the other, in days after the first of January.
fn tried(after: Option<&str>, goal: &str, unit_us: i64) -> Vec<f64> {
    let (after, goal) = (after.map(at), at(goal));
    let days = |end: Micros| end.plus(1).since(at("2024-01-01")) as f64 / DAY_US as f64;
    let mut window = Window { after, until: Some(goal) };
    let mut ends = Vec::new();
    while let Some(end) = shorter(window, goal, unit_us) {
        ends.push(days(end));
        window.until = Some(end);
    }
    ends
}

#[test]
fn pieces_become_shorter_until_they_are_one_partition_of_the_source() {
    let by_day = tried(Some("2024-01-01T06:00:00Z"), "2024-01-17T12:00:00Z", DAY_US);
    assert_eq!(by_day, [8.0, 4.0, 2.0, 1.0]);
    let by_hour = tried(Some("2024-01-01T06:00:00Z"), "2024-01-01T09:30:00Z", DAY_US / 24);
    assert_eq!(by_hour.iter().map(|day| day * 24.0).collect::<Vec<_>>(), [7.0]);
}

#[test]
fn the_oldest_rows_are_looked_for_further_and_further_back() {
    assert_eq!(tried(None, "2024-01-01T12:00:00Z", DAY_US), [-1.0, -10.0, -100.0, -1_000.0, -10_000.0]);
}

#[test]
fn a_day_s_bill_counts_for_that_day_and_is_corrected() {
    let mut contents = Contents::default();
    contents.bill(7, 100);
    contents.unbill(100);
    contents.bill(7, 60);
    assert_eq!((contents.billed_on(7), contents.billed_on(8), contents.bytes_billed), (60, 0, 60));
    contents.bill(8, 5);
    assert_eq!((contents.billed_on(7), contents.billed_on(8), contents.bytes_billed), (0, 5, 65));
}

#[test]
fn a_round_is_due_on_command_at_its_interval_or_if_it_was_begun() {
    let at_hour = |hour: i64| Micros(hour * 3_600 * SECOND_US);
    let due = |contents: Contents, asked, interval_s, hour| {
        Comparing { contents, asked, ..Comparing::default() }.is_due(interval_s, at_hour(hour))
    };
    let ended = || Contents { began: Some(at_hour(0)), ended: Some(at_hour(1)), ..Contents::default() };
    assert!(!due(ended(), 0, Some(7_200), 2) && due(ended(), 0, Some(7_200), 3));
    assert!(!due(ended(), 0, None, 999) && due(ended(), 1, None, 2));
    assert!(due(Contents { began: Some(at_hour(0)), ..Contents::default() }, 0, None, 1));
}

#[test]
fn rows_that_are_stored_as_they_are_were_not_written() {
    let mut comparing = Comparing::default();
    comparing.begin_batch(5, None);
    assert!(comparing.end_batch(5, 0).is_some_and(|mending| mending.is_none()));
    comparing.begin_batch(5, None);
    assert!(comparing.end_batch(2, 1).is_none());
    assert_eq!(comparing.portion, (10, 2));
    assert!(comparing.end_batch(5, 0).is_none());
    comparing.begin_batch(0, None);
    comparing.forget_batch();
    assert!(comparing.end_batch(0, 0).is_none());
}
