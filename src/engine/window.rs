//! Which cursor range to read next.

use crate::bigquery::cursor::CursorType;
use crate::bigquery::sql::Window;
use crate::config::Pace;
use crate::time::{DAY_US, Micros, SECOND_US};

/// Rows may become visible this much later than their cursor says without being late.
const SETTLING_US: i64 = 2 * SECOND_US;
/// Windows are cut so as to have about this many bytes at most, well below what BigQuery returns for one query.
pub const WINDOW_BYTES_MAX: u64 = 4 << 30;
/// A window has this many of the source's partitions at most, each of which may become a condition of its query.
const WINDOW_PARTITIONS_MAX: usize = 500;

/// A window to read, and what is known once it is in Harper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What to read.
    pub window: Window,
    /// Where the watermark is then; of a window to the end of the table, the latest that it can be.
    pub watermark: Micros,
}

impl Plan {
    /// Returns where the watermark is once the window is in Harper, if `newest` is the latest cursor that is known of the
    /// table. None leaves it where it was.
    ///
    /// The end of the table is where its rows end, not where the clock is: rows may come hours after their cursor's time,
    /// by the load of each hour or day, or in the time of another zone.
    pub fn reached(&self, newest: Option<Micros>) -> Option<Micros> {
        newest.map(|newest| newest.min(self.watermark))
    }
}

/// Plans the next window: from the watermark, less the time in which rows may arrive late, to the end of the table,
/// or to `until` if the backlog is read in several windows; `reread` is false between those, for nothing was late when
/// the one before was read. The watermark is never later than BigQuery's own clock less a settling time,
/// for later rows may still be on their way. Returns none when nothing can have come since the watermark.
pub fn plan(
    watermark: Option<Micros>,
    until: Option<Micros>,
    reread: bool,
    server_time: Micros,
    cursor_type: CursorType,
    pace: &Pace,
) -> Option<Plan> {
    let settled = server_time.plus(-SETTLING_US);
    let target = until.map_or(settled, |until| until.min(settled));
    if watermark.is_some_and(|watermark| target <= watermark) {
        return None;
    }
    // Beyond what has settled there is nothing to leave for later.
    let until = until.filter(|until| *until < settled);
    let after = if reread { lower_bound(watermark, cursor_type, pace) } else { watermark };
    Some(Plan { window: Window { after, until }, watermark: target })
}

/// Returns the bound after which rows are read when everything up to `watermark` is in Harper.
pub fn lower_bound(watermark: Option<Micros>, cursor_type: CursorType, pace: &Pace) -> Option<Micros> {
    LowerBound::new(cursor_type, pace).of(watermark)
}

/// Tells from where the next window reads.
#[derive(Debug, Clone, Copy)]
pub struct LowerBound {
    start: Option<Micros>,
    lateness_us: i64,
    cursor_type: CursorType,
}

impl LowerBound {
    /// For a table.
    pub fn new(cursor_type: CursorType, pace: &Pace) -> LowerBound {
        let lateness_us = i64::try_from(pace.lateness_s).unwrap_or(i64::MAX).saturating_mul(SECOND_US);
        LowerBound { start: pace.start.map(|start| start.plus(-1)), lateness_us, cursor_type }
    }

    /// Returns the bound after which rows are read when everything up to `watermark` is in Harper; none without one.
    pub fn of(self, watermark: Option<Micros>) -> Option<Micros> {
        let reread = watermark.map(|watermark| {
            let from = watermark.plus(self.lateness_us.saturating_neg());
            match self.cursor_type {
                CursorType::Timestamp | CursorType::DateTime => from,
                // Rows of the current day, or unit, share one cursor value: it is read again whole.
                CursorType::Date => Micros(from.0.div_euclid(DAY_US) * DAY_US).plus(-1),
                CursorType::Integer(unit) => Micros(from.0.div_euclid(unit.us()) * unit.us()).plus(-1),
            }
        });
        let bound = match (self.start, reread) {
            (Some(start), Some(reread)) => Some(start.max(reread)),
            (start, reread) => start.or(reread),
        };
        bound.filter(|bound| *bound > Micros::MIN)
    }
}

/// The rows of one of the source table's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCount {
    /// Where the partition starts.
    pub starts: Micros,
    /// Its rows.
    pub rows: u64,
}

/// Returns where the next window has to end so as not to become too large: between partitions, so that each one is
/// scanned once. None when all that is known fits in.
pub fn next_bound(
    partitions: impl Iterator<Item = PartitionCount>,
    watermark: Option<Micros>,
    bytes_per_row: u64,
    rows_max: u64,
) -> Option<Micros> {
    let rows_max = rows_max.min(WINDOW_BYTES_MAX / bytes_per_row.max(1)).max(1);
    let mut rows = 0_u64;
    let behind = partitions.filter(|one| watermark.is_none_or(|watermark| one.starts > watermark));
    for (count, partition) in behind.enumerate() {
        let is_full = rows.saturating_add(partition.rows) > rows_max || count >= WINDOW_PARTITIONS_MAX;
        if count > 0 && is_full {
            return Some(partition.starts.plus(-1));
        }
        rows = rows.saturating_add(partition.rows);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::{at, table_with};
    use serde_json::json;

    fn pace(start: Option<&str>) -> Pace {
        table_with(json!({"sync": {"startTimestamp": start}})).pace
    }

    const TIMESTAMP: CursorType = CursorType::Timestamp;

    #[test]
    fn the_first_window_is_the_whole_table_unless_a_start_is_configured() {
        let now = at("2024-01-02");
        let whole = plan(None, None, true, now, TIMESTAMP, &pace(None)).unwrap();
        assert_eq!(whole.window, Window { after: None, until: None });
        assert_eq!(whole.watermark, at("2024-01-01T23:59:58Z"));
        let started = plan(None, None, true, now, TIMESTAMP, &pace(Some("2024-01-01"))).unwrap();
        assert_eq!(started.window.after, Some(at("2023-12-31T23:59:59.999999Z")));
    }

    #[test]
    fn a_later_window_reads_the_late_range_again_but_nothing_before_the_start() {
        let watermark = Some(at("2024-01-01T12:00:00Z"));
        let now = at("2024-01-01T12:01:00Z");
        let next = plan(watermark, None, true, now, TIMESTAMP, &pace(None)).unwrap();
        assert_eq!(next.window, Window { after: Some(at("2024-01-01T11:50:00Z")), until: None });
        assert_eq!(next.watermark, at("2024-01-01T12:00:58Z"));
        let next = plan(watermark, None, true, now, TIMESTAMP, &pace(Some("2024-01-01T11:55:00Z"))).unwrap();
        assert_eq!(next.window.after, Some(at("2024-01-01T11:54:59.999999Z")));
    }

    #[test]
    fn a_backlog_is_read_up_to_a_bound_but_never_beyond_what_has_settled() {
        let now = at("2024-01-02");
        let part = plan(None, Some(at("2023-06-01")), true, now, TIMESTAMP, &pace(None)).unwrap();
        assert_eq!((part.window.until, part.watermark), (Some(at("2023-06-01")), at("2023-06-01")));
        let last = plan(None, Some(at("2024-06-01")), true, now, TIMESTAMP, &pace(None)).unwrap();
        assert_eq!((last.window.until, last.watermark), (None, at("2024-01-01T23:59:58Z")));
    }

    #[test]
    fn nothing_is_planned_before_time_has_passed() {
        let watermark = Some(at("2024-01-01T12:00:00Z"));
        assert_eq!(plan(watermark, None, true, at("2024-01-01T12:00:02Z"), TIMESTAMP, &pace(None)), None);
        assert_eq!(plan(watermark, None, true, at("2024-01-01T11:00:00Z"), TIMESTAMP, &pace(None)), None);
    }

    #[test]
    fn the_current_day_of_a_date_cursor_is_read_again_whole() {
        let watermark = Some(at("2024-01-02T12:00:00Z"));
        let next =
            plan(watermark, None, true, at("2024-01-02T12:01:00Z"), CursorType::Date, &pace(None)).unwrap();
        assert_eq!(next.window.after, Some(at("2024-01-01T23:59:59.999999Z")));
    }

    #[test]
    fn windows_are_cut_between_partitions() {
        let day = |day: i64, rows| PartitionCount { starts: Micros(day * DAY_US), rows };
        let third = 100_000;
        let days = [day(0, third), day(1, third), day(5, third), day(6, third), day(7, 9_000_000), day(8, 1)];
        let bound = |watermark, bytes_per_row, rows_max| {
            next_bound(days.into_iter(), watermark, bytes_per_row, rows_max)
        };
        let before = |day: i64| Some(Micros(day * DAY_US).plus(-1));
        assert_eq!(bound(None, 10, 300_000), before(6));
        assert_eq!(bound(before(6), 10, 300_000), before(7));
        assert_eq!(bound(before(7), 10, 300_000), before(8));
        assert_eq!(bound(before(8), 10, 300_000), None);
        assert_eq!(bound(None, 10, u64::MAX), None);
        assert_eq!(bound(None, 1 << 16, 300_000), before(1));
    }
}
