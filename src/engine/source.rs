//! What is known of the source: BigQuery's clock, whether the table's version shows changes, and under which version it
//! was read.

use crate::bigquery::table::{Description, Version};
use crate::engine::phase::Phase;
use crate::mapping::projection::Projection;
use crate::time::{Micros, SECOND_US};
use std::sync::Arc;

/// An unchanged table is queried nevertheless after this time, in case its version does not show a change.
const TRUST_US: i64 = 3_600 * SECOND_US;
/// Rows without a cursor are counted again at most this often.
const COUNT_INTERVAL_US: i64 = 3_600 * SECOND_US;

/// A source table as it was last described.
#[derive(Debug)]
pub struct Described {
    /// Its description by BigQuery.
    pub description: Description,
    /// The columns that are read.
    pub projection: Arc<Projection>,
}

/// What is known of the source beyond its description.
#[derive(Debug)]
pub struct Source {
    /// BigQuery's clock when the table was last described.
    server_time: Micros,
    /// How far it is ahead of the worker's clock.
    ahead_us: i64,
    /// When the table was last polled; none if a poll is due at once.
    polled_at: Option<Micros>,
    queried_at: Option<Micros>,
    /// Whether the version can be trusted, because it has never stayed the same over a change.
    is_version_trusted: bool,
    /// The version under which the table was read to its end; none if it was not, or if that does not count any more.
    read: Option<ReadVersion>,
    without_cursor: Option<WithoutCursor>,
    /// When, by BigQuery's clock, a poll found the source unchanged and so made no query.
    unchanged_at: Option<Micros>,
    /// When, by BigQuery's clock, the last query was made that read the table to its end.
    read_to_end_at: Option<Micros>,
    /// Whether one day of a source whose partitions are not told bills less than all of it; none before that was asked.
    is_billed_by_day: Option<bool>,
}

#[derive(Debug)]
struct ReadVersion {
    version: Version,
    /// Whether rows of the future were read as well.
    with_future: bool,
}

/// Rows that have no cursor.
#[derive(Debug)]
struct WithoutCursor {
    rows: u64,
    counted_at: Micros,
    version: Option<Version>,
}

impl Default for Source {
    fn default() -> Source {
        Source {
            server_time: Micros(0),
            ahead_us: 0,
            polled_at: None,
            queried_at: None,
            is_version_trusted: true,
            read: None,
            without_cursor: None,
            unchanged_at: None,
            read_to_end_at: None,
            is_billed_by_day: None,
        }
    }
}

impl Source {
    /// Returns BigQuery's clock.
    pub fn server_time(&self) -> Micros {
        self.server_time
    }

    /// Sets BigQuery's clock. If an answer does not tell it, the worker's clock is used.
    pub fn set_clock(&mut self, server_time: Option<Micros>, now: Micros) {
        self.server_time = server_time.unwrap_or(now);
        self.ahead_us = self.server_time.since(now);
    }

    /// Returns the seconds from the watermark, or from when the table was last read to its end or found unchanged, to now
    /// by BigQuery's clock.
    pub fn lag_s(&self, watermark: Option<Micros>, now: Micros) -> Option<u64> {
        let proven = watermark.max(self.unchanged_at).max(self.read_to_end_at)?;
        let lag_us = now.plus(self.ahead_us).since(proven);
        Some(u64::try_from(lag_us).unwrap_or(0) / 1_000_000)
    }

    /// Notes that a window is queried.
    pub fn query(&mut self, now: Micros) {
        self.queried_at = Some(now);
        self.polled_at = Some(now);
    }

    /// Notes that there is nothing to query.
    pub fn skip_query(&mut self, now: Micros) {
        self.polled_at = Some(now);
    }

    /// Notes that there is nothing to query because nothing changed.
    pub fn stay_unchanged(&mut self, now: Micros) {
        self.polled_at = Some(now);
        self.unchanged_at = Some(self.server_time);
    }

    /// Notes that the result of an earlier query was found. `made_at` is when the query was made, by BigQuery's clock,
    /// if that is known. The next poll is due at once.
    pub fn find_result(&mut self, made_at: Option<Micros>, now: Micros) {
        self.polled_at = None;
        self.queried_at = made_at.map(|at| now.plus(at.since(self.server_time))).max(self.queried_at);
    }

    /// Returns how long to wait until the next poll. Each window reads up to BigQuery's clock, or is part of a backlog.
    /// So polling more often than configured would gain nothing.
    pub fn poll_delay_ms(&self, interval_ms: u64, now: Micros) -> u64 {
        let since_ms = self.polled_at.map(|at| u64::try_from(now.since(at)).unwrap_or(0) / 1_000);
        interval_ms.saturating_sub(since_ms.unwrap_or(interval_ms))
    }

    /// Returns when a poll last found the source unchanged.
    pub fn unchanged_at(&self) -> Option<Micros> {
        self.unchanged_at
    }

    /// Whether all rows of the table have been read, to judge by its version.
    pub fn is_unchanged(&self, description: &Description, owns_the_future: bool, now: Micros) -> bool {
        let Some(read) = &self.read else { return false };
        let same = description.version.as_ref() == Some(&read.version);
        let recently = self.queried_at.is_some_and(|at| now.since(at) < TRUST_US);
        let nothing_new_to_own = read.with_future || !owns_the_future;
        same && recently && self.is_version_trusted && !description.streaming && nothing_new_to_own
    }

    /// Learns whether the version shows changes, from a window that was queried under a version and read to its end. A
    /// version that stayed the same while rows came does not.
    pub fn learn_trust(&mut self, version: &Version, has_news: bool) {
        let is_same = self.read.as_ref().is_some_and(|read| read.version == *version);
        self.is_version_trusted &= !(is_same && has_news);
    }

    /// Notes the version under which the table was read to its end; none if it is not known.
    pub fn conclude(&mut self, version: Option<Version>, with_future: bool) {
        self.read = version.map(|version| ReadVersion { version, with_future });
    }

    /// Learns what queries of one day and of many would bill.
    pub fn learn_price(&mut self, day_bytes: u64, bytes: u64) {
        self.is_billed_by_day = Some(day_bytes <= bytes / 2);
    }

    /// Whether it is known what a query of one day bills.
    pub fn knows_price(&self) -> bool {
        self.is_billed_by_day.is_some()
    }

    /// Whether each day of a source whose partitions are not told can be read without billing all others, and all of them
    /// are too large for one query.
    pub fn is_billed_by_day(&self) -> bool {
        self.is_billed_by_day == Some(true)
    }

    /// Notes that the table was read to its end, and when the query for that was made.
    pub fn read_to_end(&mut self, at: Option<Micros>) {
        self.read_to_end_at = self.read_to_end_at.max(at);
    }

    /// Notes that the table has to be read to its end again.
    pub fn forget_conclusions(&mut self) {
        self.read = None;
    }

    /// Returns how many rows have no cursor, if that was counted.
    pub fn rows_without_cursor(&self) -> Option<u64> {
        self.without_cursor.as_ref().map(|counted| counted.rows)
    }

    /// Notes how many rows have no cursor.
    pub fn count_without_cursor(&mut self, rows: u64, description: &Description, now: Micros) {
        let version = description.version.clone();
        self.without_cursor = Some(WithoutCursor { rows, counted_at: now, version });
    }

    /// Whether rows without a cursor have to be counted: there may be new ones, and the table was read up to the
    /// watermark. After the first window, their number follows from the totals.
    pub fn must_count_without_cursor(
        &self,
        described: &Described,
        watermark: Option<Micros>,
        phase: Phase,
        now: Micros,
    ) -> bool {
        let Described { description, projection } = described;
        let nullable = projection.fields.get(projection.cursor).is_some_and(|field| !field.required);
        // A table in which no row has a cursor has no watermark.
        let is_read =
            watermark.is_some_and(|watermark| watermark <= self.server_time) || self.read_to_end_at.is_some();
        let is_outdated = self.without_cursor.as_ref().is_none_or(|counted| {
            let version_may_differ = counted.version.is_none() || counted.version != description.version;
            now.since(counted.counted_at) >= COUNT_INTERVAL_US && version_may_differ
        });
        nullable && is_read && phase == Phase::Steady && is_outdated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::{described, moment};

    fn description(modified: u32) -> Description {
        described(modified).description
    }

    fn version(modified: u32) -> Option<Version> {
        description(modified).version
    }

    fn read(modified: u32, with_future: bool) -> Source {
        let mut source = Source::default();
        source.query(moment(0).now);
        source.conclude(version(modified), with_future);
        source
    }

    #[test]
    fn a_table_counts_as_unchanged_while_its_version_is_the_one_that_was_read() {
        let now = moment(10).now;
        let source = read(1, true);
        assert!(source.is_unchanged(&description(1), true, now));
        assert!(!source.is_unchanged(&description(2), true, now));
        assert!(!source.is_unchanged(&description(1), true, moment(3_600).now));
        let streaming = Description { streaming: true, ..description(1) };
        assert!(!source.is_unchanged(&streaming, true, now));
        assert!(!Source::default().is_unchanged(&description(1), true, now));
        let untold = Description { version: None, ..description(1) };
        assert!(!source.is_unchanged(&untold, true, now));
    }

    #[test]
    fn whoever_comes_to_own_the_future_reads_it_though_nothing_changed() {
        let source = read(1, false);
        assert!(source.is_unchanged(&description(1), false, moment(10).now));
        assert!(!source.is_unchanged(&description(1), true, moment(10).now));
    }

    #[test]
    fn a_version_that_stayed_the_same_while_rows_came_is_not_relied_on_again() {
        let mut source = read(1, true);
        let Some(same) = version(1) else { panic!("no version") };
        source.learn_trust(&same, false);
        assert!(source.is_unchanged(&description(1), true, moment(1).now));
        source.learn_trust(&same, true);
        assert!(!source.is_unchanged(&description(1), true, moment(1).now));
    }

    #[test]
    fn rows_without_cursor_are_counted_once_the_table_is_read_and_then_hourly_if_it_changes() {
        let mut source = Source::default();
        source.set_clock(None, moment(100).now);
        let must = |source: &Source, modified, seconds| {
            let watermark = Some(moment(90).now);
            source.must_count_without_cursor(
                &described(modified),
                watermark,
                Phase::Steady,
                moment(seconds).now,
            )
        };
        assert!(must(&source, 1, 100));
        source.count_without_cursor(0, &description(1), moment(100).now);
        assert!(!must(&source, 2, 3_000));
        assert!(!must(&source, 1, 4_000));
        assert!(must(&source, 2, 4_000));
    }

    #[test]
    fn a_poll_is_due_an_interval_after_the_one_before_or_at_once() {
        let mut source = Source::default();
        assert_eq!(source.poll_delay_ms(30_000, moment(5).now), 0);
        source.skip_query(moment(5).now);
        assert_eq!(source.poll_delay_ms(30_000, moment(15).now), 20_000);
        source.find_result(None, moment(15).now);
        assert_eq!(source.poll_delay_ms(30_000, moment(15).now), 0);
    }

    #[test]
    fn what_was_read_of_a_found_result_stands_for_an_hour_from_when_its_query_was_made() {
        let mut source = Source::default();
        source.set_clock(Some(moment(1_000).now), moment(2_000).now);
        source.find_result(Some(moment(400).now), moment(2_000).now);
        source.conclude(version(1), true);
        assert!(source.is_unchanged(&description(1), true, moment(4_999).now));
        assert!(!source.is_unchanged(&description(1), true, moment(5_000).now));
    }
}
