//! Which cursor range to read next.

use crate::bigquery::projection::CursorType;
use crate::bigquery::sql::Window;
use crate::config::Pace;
use crate::time::{DAY_US, Micros, SECOND_US};

/// Rows may become visible this much later than their cursor says without being late.
const SETTLING_US: i64 = 2 * SECOND_US;

/// Plans the next window: from the watermark, less the time in which rows may arrive late, up to BigQuery's
/// own clock, less a settling time. Returns none when there is nothing to read yet.
pub fn plan(
    watermark: Option<Micros>,
    server_time: Micros,
    cursor_type: CursorType,
    pace: &Pace,
) -> Option<Window> {
    let until = server_time.plus(-SETTLING_US);
    if watermark.is_some_and(|watermark| until <= watermark) {
        return None;
    }
    Some(Window { after: lower_bound(watermark, cursor_type, pace), until })
}

/// Returns the bound after which rows are read when everything up to `watermark` is in Harper.
pub fn lower_bound(watermark: Option<Micros>, cursor_type: CursorType, pace: &Pace) -> Option<Micros> {
    let start = pace.start.map(|start| start.plus(-1));
    let lateness_us = i64::try_from(pace.lateness_s).unwrap_or(i64::MAX).saturating_mul(SECOND_US);
    let reread = watermark.map(|watermark| {
        let from = watermark.plus(-lateness_us);
        match cursor_type {
            CursorType::Timestamp | CursorType::DateTime => from,
            // A day's rows share one cursor value: the day is read again whole.
            CursorType::Date => Micros(from.0.div_euclid(DAY_US) * DAY_US).plus(-1),
        }
    });
    let bound = match (start, reread) {
        (Some(start), Some(reread)) => Some(start.max(reread)),
        (start, reread) => start.or(reread),
    };
    bound.filter(|bound| *bound > Micros::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    fn pace(start: Option<&str>) -> Pace {
        let root = serde_json::json!({
            "bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"},
            "sync": {"startTimestamp": start}
        });
        Config::parse(&root, &Environment::default()).unwrap().tables.remove(0).pace
    }

    fn at(text: &str) -> Micros {
        Micros::parse(text).unwrap()
    }

    const TIMESTAMP: CursorType = CursorType::Timestamp;

    #[test]
    fn the_first_window_has_no_lower_bound_unless_a_start_is_configured() {
        let now = at("2024-01-02");
        assert_eq!(
            plan(None, now, TIMESTAMP, &pace(None)),
            Some(Window { after: None, until: at("2024-01-01T23:59:58Z") })
        );
        let window = plan(None, now, TIMESTAMP, &pace(Some("2024-01-01"))).unwrap();
        assert_eq!(window.after, Some(at("2023-12-31T23:59:59.999999Z")));
    }

    #[test]
    fn a_later_window_reads_the_late_range_again_but_nothing_before_the_start() {
        let watermark = Some(at("2024-01-01T12:00:00Z"));
        let now = at("2024-01-01T12:01:00Z");
        let window = plan(watermark, now, TIMESTAMP, &pace(None)).unwrap();
        assert_eq!(
            window,
            Window { after: Some(at("2024-01-01T11:50:00Z")), until: at("2024-01-01T12:00:58Z") }
        );
        let window = plan(watermark, now, TIMESTAMP, &pace(Some("2024-01-01T11:55:00Z"))).unwrap();
        assert_eq!(window.after, Some(at("2024-01-01T11:54:59.999999Z")));
    }

    #[test]
    fn nothing_is_planned_before_time_has_passed() {
        let watermark = Some(at("2024-01-01T12:00:00Z"));
        assert_eq!(plan(watermark, at("2024-01-01T12:00:02Z"), TIMESTAMP, &pace(None)), None);
        assert_eq!(plan(watermark, at("2024-01-01T11:00:00Z"), TIMESTAMP, &pace(None)), None);
    }

    #[test]
    fn the_current_day_of_a_date_cursor_is_read_again_whole() {
        let watermark = Some(at("2024-01-02T12:00:00Z"));
        let window = plan(watermark, at("2024-01-02T12:01:00Z"), CursorType::Date, &pace(None)).unwrap();
        assert_eq!(window.after, Some(at("2024-01-01T23:59:59.999999Z")));
    }
}
