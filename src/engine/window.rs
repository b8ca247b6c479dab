//! Which cursor range to read next.

use crate::bigquery::cursor::CursorType;
use crate::bigquery::sql::Window;
use crate::config::Pace;
use crate::time::zone::Zone;
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
    let settled_at = server_time.plus(-SETTLING_US);
    // While an hour is shown for the first of two times, rows come whose watermark has to wait for the second.
    let (shown, settled) = (pace.zone.local(settled_at), pace.zone.passed(settled_at));
    let end = until.map_or(shown, |until| until.min(shown));
    if watermark.is_some_and(|watermark| end <= watermark) {
        return None;
    }
    // Beyond what has settled there is nothing to leave for later.
    let until = until.filter(|until| *until < settled);
    let bound = LowerBound::new(cursor_type, pace);
    let after = if reread { bound.of(watermark) } else { bound.of_backlog(watermark) };
    Some(Plan { window: Window { after, until }, watermark: until.unwrap_or(settled) })
}

/// Returns the bound after which rows are read when everything up to `watermark` is in Harper.
pub fn lower_bound(watermark: Option<Micros>, cursor_type: CursorType, pace: &Pace) -> Option<Micros> {
    LowerBound::new(cursor_type, pace).of(watermark)
}

/// Returns the cursor up to which rows were no longer late at an instant.
pub fn late_until(instant: Micros, pace: &Pace) -> Micros {
    pace.zone.passed(instant.plus(lateness_us(pace).saturating_neg()))
}

fn lateness_us(pace: &Pace) -> i64 {
    i64::try_from(pace.lateness_s).unwrap_or(i64::MAX).saturating_mul(SECOND_US)
}

/// Tells from where the next window reads.
#[derive(Debug, Clone)]
pub struct LowerBound {
    start: Option<Micros>,
    lateness_us: i64,
    cursor_type: CursorType,
    zone: Zone,
}

impl LowerBound {
    /// For a table.
    pub fn new(cursor_type: CursorType, pace: &Pace) -> LowerBound {
        let zone = pace.zone.clone();
        let start = pace.start.map(|start| zone.passed(start.plus(-1)));
        LowerBound { start, lateness_us: lateness_us(pace), cursor_type, zone }
    }

    /// Returns the bound after which rows are read when everything up to `watermark` is in Harper; none without one.
    pub fn of(&self, watermark: Option<Micros>) -> Option<Micros> {
        let reread = watermark.map(|watermark| {
            let from = self.before(watermark, self.lateness_us);
            match self.cursor_type {
                CursorType::Timestamp | CursorType::DateTime => from,
                // Rows of the current day, or unit, share one cursor value: it is read again whole.
                CursorType::Date => Micros(from.0.div_euclid(DAY_US) * DAY_US).plus(-1),
                CursorType::Integer(unit) => Micros(from.0.div_euclid(unit.us()) * unit.us()).plus(-1),
            }
        });
        self.not_before_start(reread)
    }

    /// Returns the bound of a window that follows another one of the same backlog, when nothing can be late.
    fn of_backlog(&self, watermark: Option<Micros>) -> Option<Micros> {
        watermark.map(|watermark| self.before(watermark, 0))
    }

    /// Returns the cursor behind which all rows lie that may come so long after the watermark's. If the watermark lies in
    /// an hour that is shown twice, its rows may be of the first time, and all of the second are yet to come.
    fn before(&self, watermark: Micros, lateness_us: i64) -> Micros {
        let back_us = lateness_us.saturating_neg();
        self.zone.passed(self.zone.first_instant(watermark).plus(back_us)).min(watermark.plus(back_us))
    }

    fn not_before_start(&self, bound: Option<Micros>) -> Option<Micros> {
        let bound = match (self.start, bound) {
            (Some(start), Some(bound)) => Some(start.max(bound)),
            (start, bound) => start.or(bound),
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

    /// Berlin, in the autumn of 2024: the hour from 02:00 on is shown from 00:00 to 02:00 UTC.
    fn berlin(lateness_s: u64) -> Pace {
        let hours = |hours: i64| hours * 3_600 * SECOND_US;
        let spells = [(Micros(0), hours(2)), (at("2024-10-27T01:00:00Z"), hours(1))];
        let zone = Zone::new("Europe/Berlin", spells).unwrap();
        Pace { zone, lateness_s, ..pace(None) }
    }

    #[test]
    fn the_watermark_waits_before_an_hour_that_is_shown_twice_while_its_rows_are_read() {
        for (now, watermark) in [
            ("2024-10-26T23:30:02Z", "2024-10-27T01:30:00"),
            ("2024-10-27T00:30:02Z", "2024-10-27T01:59:59.999999"),
            ("2024-10-27T01:30:02Z", "2024-10-27T02:30:00"),
        ] {
            let before = Some(at("2024-10-27T01:29:00"));
            let next = plan(before, None, true, at(now), CursorType::DateTime, &berlin(600)).unwrap();
            assert_eq!((next.watermark, next.window.until), (at(watermark), None), "{now}");
        }
        // Rows come although the watermark cannot move.
        let stands = Some(at("2024-10-27T01:59:59.999999"));
        assert!(
            plan(stands, None, true, at("2024-10-27T00:30:02Z"), CursorType::DateTime, &berlin(0)).is_some()
        );
    }

    #[test]
    fn behind_a_watermark_in_an_hour_that_is_shown_twice_the_whole_hour_is_read_again() {
        let bound = |watermark: &str, lateness_s| {
            lower_bound(Some(at(watermark)), CursorType::DateTime, &berlin(lateness_s)).unwrap()
        };
        let hour = at("2024-10-27T01:59:59.999999");
        for (watermark, lateness_s, expected) in [
            ("2024-10-27T01:30:00", 600, at("2024-10-27T01:20:00")),
            ("2024-10-27T02:05:00", 600, at("2024-10-27T01:55:00")),
            ("2024-10-27T02:54:00", 600, hour),
            ("2024-10-27T02:54:00", 0, hour),
            ("2024-10-27T03:05:00", 600, at("2024-10-27T02:55:00")),
        ] {
            assert_eq!(bound(watermark, lateness_s), expected, "{watermark}, {lateness_s} s");
        }
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
