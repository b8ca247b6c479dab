//! The sizes of pages, batches and windows. They adapt to the lag, to what BigQuery returns, and to Harper's speed.

use super::memory::PAGE_BYTES_MAX;
use super::phase::Phase;
use crate::bigquery::table::PartitionUnit;
use crate::config::{Manner, Pace};

/// The sizes that an engine works with.
#[derive(Debug)]
pub struct Sizes {
    phase: Phase,
    /// Rows to ask for per page.
    page_rows: u64,
    /// Pages do not grow above this: BigQuery would cut them again.
    page_rows_max: u64,
    /// What a row takes on a page, as far as is known.
    row_bytes: Option<u64>,
    /// Whether BigQuery is to number identical rows, because they could not be counted here.
    is_numbered: bool,
    /// Rows to write per transaction.
    pub batch: BatchSize,
    window: WindowSize,
}

/// How many rows a window may have, for BigQuery to return them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WindowSize {
    rows_max: u64,
    /// How often it was made smaller.
    halvings: u32,
}

/// Pages of large rows are made about this large: if BigQuery cuts a page, those fetched ahead were fetched in vain.
const PAGE_BYTES: u64 = PAGE_BYTES_MAX as u64 / 4 * 3;
/// A page that came with fewer rows than wanted, and with so many bytes, was cut for its bytes.
const CUT_BYTES_MIN: u64 = 1 << 20;
/// More pages are not fetched ahead, however small they are.
const PAGES_AHEAD_MAX: usize = 3;
/// Less is not reckoned for a page.
const PAGE_BYTES_MIN: usize = 64 << 10;
/// Windows are not made smaller than this.
const WINDOW_ROWS_MIN: u64 = 1_000;
/// Days that are still too large are divided into hours after so many attempts.
const HALVINGS_BY_DAY: u32 = 3;

/// Rows per Harper transaction, adapted to how long a commit keeps the event loop busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    rows: usize,
    bounds: BatchBounds,
}

/// Between which sizes transactions stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchBounds {
    rows_min: usize,
    rows_max: usize,
    /// Commits that keep the event loop busy for longer than this are made smaller.
    slow_ms: u64,
    /// Commits that keep it busy for less than this may grow.
    fast_ms: u64,
}

/// Harper encodes all rows of a transaction at once, and other requests wait for so long.
const GENTLE: BatchBounds = BatchBounds { rows_min: 100, rows_max: 250, slow_ms: 25, fast_ms: 15 };
const FAST: BatchBounds = BatchBounds { rows_min: 250, rows_max: 1_000, slow_ms: 120, fast_ms: 80 };

impl Sizes {
    /// Starts as one does who has read nothing.
    pub fn new(pace: &Pace) -> Sizes {
        let window = WindowSize { rows_max: pace.window_rows_max, halvings: 0 };
        Sizes {
            phase: Phase::Initial,
            page_rows: pace.page_rows.initial,
            page_rows_max: u64::MAX,
            row_bytes: None,
            is_numbered: false,
            batch: BatchSize::new(pace.manner),
            window,
        }
    }

    /// Returns how many rows a window may have.
    pub fn window_rows_max(&self) -> u64 {
        self.window.rows_max
    }

    /// Makes windows half as large: BigQuery could not return one that had about so many rows, if that is known.
    pub fn halve_window(&mut self, rows: Option<u64>) {
        let rows = rows.unwrap_or(u64::MAX).min(self.window.rows_max);
        self.window = WindowSize {
            rows_max: (rows / 2).max(WINDOW_ROWS_MIN.min(self.window.rows_max)),
            halvings: self.window.halvings.saturating_add(1),
        };
    }

    /// Returns the unit by which the rows of any table have to be counted, to cut windows that BigQuery can return.
    pub fn unit_to_cut(&self) -> Option<PartitionUnit> {
        match self.window.halvings {
            0 => None,
            1..=HALVINGS_BY_DAY => Some(PartitionUnit::Day),
            _ => Some(PartitionUnit::Hour),
        }
    }

    /// Returns how far behind the table is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the rows to ask for per page.
    pub fn page_rows(&self) -> u64 {
        self.page_rows
    }

    /// Returns the rows of the next transaction, if so many are left on the page. They are divided evenly, because Harper
    /// handles a small transaction at the end of each page worse than two of about the same size.
    pub fn batch_rows(&self, left: u64) -> usize {
        let most = self.batch.rows() as u64;
        let parts = left.div_ceil(most).max(1);
        usize::try_from(left.div_ceil(parts).clamp(1, most)).unwrap_or(usize::MAX)
    }

    /// Returns about how many bytes the next page will have.
    pub fn page_bytes(&self) -> usize {
        let expected = self.row_bytes.map(|bytes| bytes.saturating_mul(self.page_rows) / 4 * 5);
        let expected = expected.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(PAGE_BYTES_MAX);
        expected.clamp(PAGE_BYTES_MIN, PAGE_BYTES_MAX)
    }

    /// Returns how many pages to ask for while one is being read, so that BigQuery's answers are never waited for.
    pub fn pages_ahead(&self) -> usize {
        (PAGE_BYTES_MAX / self.page_bytes()).clamp(1, PAGES_AHEAD_MAX)
    }

    /// Learns what a row takes on a page.
    pub fn learn_row(&mut self, bytes: Option<u64>) {
        self.row_bytes = bytes.or(self.row_bytes);
    }

    /// Has BigQuery number identical rows from now on.
    pub fn number_identical(&mut self) {
        self.is_numbered = true;
    }

    /// Returns of how many rows the identical ones may be counted here, if memory is enough for so many.
    pub fn countable_rows(&self, in_memory: u64, pace: &Pace) -> u64 {
        if self.is_numbered { 0 } else { in_memory.min(2 * pace.window_rows_max) }
    }

    /// Takes the phase that a lag stands for.
    pub fn follow_lag(&mut self, lag_s: Option<u64>, pace: &Pace) {
        self.phase = Phase::of_lag(lag_s, pace);
    }

    /// Asks for pages as large as the phase has them.
    pub fn restore_page(&mut self, pace: &Pace) {
        self.page_rows_max = u64::MAX;
        self.page_rows = self.phase.page_rows(pace).min(self.rows_within(PAGE_BYTES));
    }

    /// Learns how many rows came on a page that is not the last one, and what each took there. Asks for no more rows than
    /// BigQuery put into it, or pages that are fetched ahead would miss their starts; and for more again once pages come
    /// full.
    pub fn learn_page(&mut self, rows: u64, row_bytes: Option<u64>, pace: &Pace) {
        self.learn_row(row_bytes);
        let bytes = rows.saturating_mul(row_bytes.unwrap_or(0));
        if rows > 0 && rows < self.page_rows {
            self.page_rows = rows;
            if bytes >= CUT_BYTES_MIN {
                self.page_rows_max = rows;
            }
        } else if rows > 0 && self.page_rows * 2 <= self.rows_within(PAGE_BYTES) {
            self.page_rows = (self.page_rows * 2).min(self.phase.page_rows(pace)).min(self.page_rows_max);
        }
        // The sizes of rows vary, so pages are made smaller only where they are too large, and then by more than that.
        if self.page_rows > self.rows_within(PAGE_BYTES_MAX as u64) {
            self.page_rows = self.rows_within(PAGE_BYTES);
        }
    }

    /// Returns how many rows fit in so many bytes, as far as is known.
    fn rows_within(&self, bytes: u64) -> u64 {
        self.row_bytes.map_or(u64::MAX, |row_bytes| (bytes / row_bytes.max(1)).max(1))
    }
}

impl BatchSize {
    fn new(manner: Manner) -> BatchSize {
        let bounds = match manner {
            Manner::Gentle => GENTLE,
            Manner::Fast => FAST,
        };
        BatchSize { rows: bounds.rows_max / 2, bounds }
    }

    /// Returns the rows to write per transaction.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Learns how long the commit of a batch kept the event loop busy.
    pub fn learn(&mut self, rows: usize, busy_ms: u64) {
        let BatchBounds { rows_min, rows_max, slow_ms, fast_ms } = self.bounds;
        if busy_ms > slow_ms {
            self.rows = (self.rows * 3 / 4).max(rows_min);
        } else if busy_ms < fast_ms && rows >= self.rows {
            self.rows = (self.rows * 5 / 4).min(rows_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::table_with;
    use serde_json::json;

    #[test]
    fn batches_shrink_when_commits_are_slow_and_grow_when_they_are_fast_within_bounds() {
        for manner in [Manner::Gentle, Manner::Fast] {
            let mut size = BatchSize::new(manner);
            let BatchBounds { rows_min, rows_max, slow_ms, .. } = size.bounds;
            for _ in 0..20 {
                size.learn(size.rows, 500);
            }
            assert_eq!(size.rows, rows_min);
            for _ in 0..20 {
                size.learn(size.rows, 1);
            }
            assert_eq!(size.rows, rows_max);
            size.learn(3, 1);
            size.learn(rows_max, slow_ms);
            assert_eq!(size.rows, rows_max);
        }
    }

    #[test]
    fn the_rows_of_a_page_are_divided_evenly() {
        let mut sizes = Sizes::new(&table_with(json!({})).pace);
        sizes.batch.rows = 243;
        for (left, rows) in [(250, 125), (125, 125), (243, 243), (10_000, 239), (1, 1), (0, 1)] {
            assert_eq!(sizes.batch_rows(left), rows, "{left}");
        }
    }

    #[test]
    fn pages_follow_what_bigquery_gives_and_grow_again_up_to_the_phase_s_size() {
        let pace = table_with(json!({"sync": {"initialBatchSize": 1_000}})).pace;
        let mut sizes = Sizes::new(&pace);
        sizes.learn_page(300, Some(100), &pace);
        assert_eq!(sizes.page_rows(), 300);
        sizes.learn_page(0, None, &pace);
        assert_eq!(sizes.page_rows(), 300);
        sizes.learn_page(300, Some(100), &pace);
        sizes.learn_page(600, Some(100), &pace);
        assert_eq!(sizes.page_rows(), 1_000);
    }

    #[test]
    fn pages_that_bigquery_cut_for_their_bytes_do_not_grow_again_in_this_window() {
        let pace = table_with(json!({"sync": {"initialBatchSize": 10_000}})).pace;
        let mut sizes = Sizes::new(&pace);
        sizes.learn_page(4_000, Some(1_000), &pace);
        sizes.learn_page(4_000, Some(1_000), &pace);
        assert_eq!(sizes.page_rows(), 4_000);
        sizes.restore_page(&pace);
        assert_eq!(sizes.page_rows(), 10_000);
    }

    #[test]
    fn pages_of_large_rows_have_fewer_of_them_and_keep_their_size_while_rows_vary_a_little() {
        let pace = table_with(json!({"sync": {"initialBatchSize": 10_000}})).pace;
        let mut sizes = Sizes::new(&pace);
        sizes.learn_page(10_000, Some(4_000), &pace);
        let rows = sizes.page_rows();
        assert_eq!(rows, PAGE_BYTES / 4_000);
        for row_bytes in [4_100, 3_900, 4_800] {
            sizes.learn_page(rows, Some(row_bytes), &pace);
            assert_eq!(sizes.page_rows(), rows);
        }
        sizes.learn_page(rows, Some(900), &pace);
        assert_eq!(sizes.page_rows(), 2 * rows);
    }

    #[test]
    fn small_pages_are_fetched_three_ahead_and_large_ones_within_the_bytes_of_the_largest() {
        let pace = table_with(json!({"sync": {"initialBatchSize": 10_000}})).pace;
        let mut sizes = Sizes::new(&pace);
        assert_eq!(sizes.pages_ahead(), 1);
        for (row_bytes, pages) in [(150, 3), (700, 2), (1_500, 1), (1, 3), (1 << 30, 1)] {
            sizes.learn_row(Some(row_bytes));
            assert_eq!(sizes.pages_ahead(), pages, "{row_bytes}");
        }
    }

    #[test]
    fn a_page_is_reckoned_by_the_rows_before_and_as_the_largest_there_is_until_one_came() {
        let pace = table_with(json!({"sync": {"initialBatchSize": 1_000}})).pace;
        let mut sizes = Sizes::new(&pace);
        sizes.learn_row(None);
        assert_eq!(sizes.page_bytes(), PAGE_BYTES_MAX);
        sizes.learn_row(Some(400));
        assert_eq!(sizes.page_bytes(), 500_000);
        sizes.learn_row(Some(1));
        assert_eq!(sizes.page_bytes(), PAGE_BYTES_MIN);
        sizes.learn_row(Some(1 << 30));
        assert_eq!(sizes.page_bytes(), PAGE_BYTES_MAX);
    }
}
