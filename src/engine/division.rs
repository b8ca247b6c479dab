//! Chooses the rule that divides a table, and selects the part of a window that belongs to a group of partitions.

use crate::bigquery::sql::{Segment, Selection, Window};
use crate::bigquery::table::{Description, PartitionUnit};
use crate::config::{PartitionBy, TableConfig};
use crate::error::{Failure, Kind};
use crate::mapping::projection::Projection;
use crate::partition::{Division, Rule, Span};
use crate::time::Micros;
use std::collections::BTreeSet;

/// The most spans of time, up to now, that are told apart without counts.
const SPANS_MAX: i64 = 1_000;

/// Returns the unit of the source's partitions, if the source is partitioned by the cursor.
pub fn partitioned_on_cursor(projection: &Projection, description: &Description) -> Option<PartitionUnit> {
    let (unit, column) = description.partitioning.as_ref()?;
    let by_cursor =
        column.as_ref().is_some_and(|column| column.eq_ignore_ascii_case(projection.cursor_name()));
    by_cursor.then_some(*unit)
}

/// Finds the rule of a table.
///
/// # Errors
/// When the configured rule would let several workers write versions of the same row.
pub fn resolve(
    config: &TableConfig,
    projection: &Projection,
    description: &Description,
) -> Result<Rule, Failure> {
    // Different workers, perhaps on different nodes, would write versions of one row with different cursors. The last
    // write would win, which need not be the newest version.
    let scatters_versions = !projection.key.is_empty() && !projection.key.contains(&projection.cursor);
    let unit = partitioned_on_cursor(projection, description);
    let division = match config.partition_by {
        PartitionBy::Auto if scatters_versions => Division::Whole,
        PartitionBy::Auto => match unit {
            Some(PartitionUnit::Hour) => Division::Spans(Span::Hour),
            Some(PartitionUnit::Day) => Division::Spans(Span::Day),
            Some(PartitionUnit::Month) => Division::Spans(Span::Month),
            Some(PartitionUnit::Year) | None => Division::Whole,
        },
        PartitionBy::Table => Division::Whole,
        PartitionBy::Timestamp => Division::Value,
        PartitionBy::Minute => Division::Spans(Span::Minute),
        PartitionBy::Hour => Division::Spans(Span::Hour),
        PartitionBy::Day => Division::Spans(Span::Day),
        PartitionBy::Month => Division::Spans(Span::Month),
    };
    if division != Division::Whole && scatters_versions {
        let message = format!(
            "partitionBy divides the table by {cursor}, but versions of one key have different ones, and several workers \
             would write them: use partitionBy: auto or table, or take {cursor} into the key",
            cursor = projection.cursor_name()
        );
        return Err(Failure::new(Kind::Configuration, message));
    }
    if division == Division::Whole {
        return Ok(Rule::WHOLE);
    }
    let partitions = u32::try_from(config.partitions).unwrap_or(u32::MAX);
    Ok(Rule { division, partitions, pruned: is_pruned(division, unit) })
}

fn is_pruned(division: Division, unit: Option<PartitionUnit>) -> bool {
    match (division, unit) {
        (Division::Spans(span), Some(unit)) => matches!(
            (span, unit),
            (Span::Hour, PartitionUnit::Hour)
                | (Span::Day, PartitionUnit::Hour | PartitionUnit::Day)
                | (Span::Month, PartitionUnit::Hour | PartitionUnit::Day | PartitionUnit::Month)
        ),
        (Division::Whole | Division::Value | Division::Spans(_), _) => false,
    }
}

/// Selects the rows of some partitions within a window. `counted` has the starts of the known spans with rows; `now` is
/// BigQuery's clock.
///
/// If spans are whole partitions of the source, known spans are selected by bounds, so that each worker scans only its
/// own. Between known spans there should be no rows; if there are some, a condition selects them. The owner of the
/// present also reads rows of the future.
///
/// Returns none if the partitions have nothing in the window.
pub fn select(
    rule: Rule,
    partitions: &[u32],
    window: Window,
    counted: &[Micros],
    now: Micros,
) -> Option<Selection> {
    if partitions.len() as u64 >= u64::from(rule.partitions) {
        return Some(Selection::All);
    }
    match rule.division {
        Division::Spans(span) if rule.pruned => {
            let segments = segments(rule, span, partitions, window, counted, now);
            (!segments.is_empty()).then(|| Selection::Segments(rule, partitions.to_vec(), segments))
        }
        Division::Whole | Division::Value | Division::Spans(_) => {
            Some(Selection::Partitions(rule, partitions.to_vec()))
        }
    }
}

/// Returns whether there are so many spans between two instants that they have to be counted before they can be told
/// apart.
pub fn needs_counting(rule: Rule, after: Option<Micros>, now: Micros) -> bool {
    match rule.division {
        Division::Spans(span) if rule.pruned => {
            after.is_none_or(|after| span.number(now) - span.number(after) >= SPANS_MAX)
        }
        Division::Whole | Division::Value | Division::Spans(_) => false,
    }
}

fn segments(
    rule: Rule,
    span: Span,
    partitions: &[u32],
    window: Window,
    counted: &[Micros],
    now: Micros,
) -> Vec<Segment> {
    let is_own = |instant: Micros| partitions.binary_search(&rule.partition(instant)).is_ok();
    let first = window.after.map(|after| after.plus(1));
    let end = window.until.map(|until| until.plus(1));
    let mut found: Vec<Segment> = Vec::new();
    let mut from = first;
    for number in known_spans(span, window, counted, now) {
        let (starts, ends) = (span.start(number), span.start(number + 1));
        if end.is_some_and(|end| starts >= end) {
            break;
        }
        if first.is_some_and(|first| ends <= first) {
            continue;
        }
        if from.is_none_or(|from| from < starts) {
            found.push(Segment { from, to: Some(starts), is_mixed: true });
        }
        if is_own(starts) {
            found.push(Segment { from: Some(starts), to: Some(ends), is_mixed: false });
        }
        from = Some(ends);
    }
    match end {
        Some(end) if from.is_none_or(|from| from < end) => {
            found.push(Segment { from, to: Some(end), is_mixed: true });
        }
        None if is_own(now) => found.push(Segment { from, to: None, is_mixed: false }),
        Some(_) | None => {}
    }
    joined(found)
}

/// Returns the numbers of the spans that may have rows: those that were counted, and, if they are not too many, all up
/// to tomorrow.
fn known_spans(span: Span, window: Window, counted: &[Micros], now: Micros) -> BTreeSet<i64> {
    let mut known: BTreeSet<i64> = counted.iter().map(|starts| span.number(*starts)).collect();
    let last = span.number(now) + 1;
    let first = window.after.map_or(i64::MIN, |after| span.number(after));
    let behind_counted = known.range(..=last).next_back().map_or(i64::MIN, |number| number + 1);
    let first = first.max(behind_counted).max(last - SPANS_MAX);
    known.extend(first..=last);
    known
}

/// Joins segments that touch.
fn joined(segments: Vec<Segment>) -> Vec<Segment> {
    let mut result: Vec<Segment> = Vec::new();
    for segment in segments {
        match result.last_mut() {
            Some(last)
                if last.is_mixed == segment.is_mixed && last.to.is_some() && last.to == segment.from =>
            {
                last.to = segment.to;
            }
            _ => result.push(segment),
        }
    }
    result
}
