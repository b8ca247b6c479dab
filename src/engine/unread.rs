//! Notices that rows came which nobody read, by numbers that cost nothing: how many rows the source has, and how many of
//! them were read.

use super::Engine;
use super::boundary::Moment;
use super::source::Described;
use crate::time::{Micros, SECOND_US};

/// What other workers have read may not have arrived before.
const SURE_US: i64 = 60 * SECOND_US;
/// The shortest time from one find to the next. It doubles whenever nothing was missing.
const PAUSE_US: i64 = 600 * SECOND_US;
const DOUBLINGS_MAX: u32 = 8;

/// How many rows the source has beyond those that were read. It need not be none: versions of a row are read once each, and
/// rows may be deleted. But it does not grow unless rows come unread.
#[derive(Debug, Default)]
pub struct Unread {
    /// As it was when the rows were counted, or less.
    known: Option<i64>,
    /// Since when it is more.
    more_since: Option<Micros>,
    found_at: Option<Micros>,
    /// How often nothing was missing.
    in_vain: u32,
    is_found: bool,
}

impl Unread {
    /// Takes how many rows the source has beyond those that were read; none if that cannot be told.
    pub fn look(&mut self, beyond: Option<i64>, now: Micros) {
        let Some(beyond) = beyond else {
            self.more_since = None;
            return;
        };
        let known = self.known.map_or(beyond, |known| known.min(beyond));
        self.known = Some(known);
        if beyond == known {
            self.more_since = None;
            return;
        }
        let since = *self.more_since.get_or_insert(now);
        let pause_us = PAUSE_US << self.in_vain;
        let is_rested = self.found_at.is_none_or(|at| now.since(at).abs() >= pause_us);
        self.is_found |= is_rested && now.since(since) >= SURE_US;
    }

    /// Whether rows came that nobody read, and were not counted since.
    pub fn is_found(&self) -> bool {
        self.is_found
    }

    /// Notes that all rows are counted now.
    pub fn count(&mut self, now: Micros) {
        if std::mem::take(&mut self.is_found) {
            self.found_at = Some(now);
            self.in_vain = (self.in_vain + 1).min(DOUBLINGS_MAX);
        }
        (self.known, self.more_since) = (None, None);
    }

    /// Notes that rows were missing.
    pub fn miss(&mut self) {
        self.in_vain = 0;
    }
}

impl Engine {
    /// Looks whether rows came that nobody read: late ones, for example.
    pub(super) fn look_for_unread(&mut self, described: &Described, moment: Moment) {
        let beyond = self.rows_beyond(described, moment);
        self.unread.look(beyond, moment.now);
    }

    fn rows_beyond(&self, described: &Described, moment: Moment) -> Option<i64> {
        let description = &described.description;
        // Rows in the streaming buffer are read, and not in the number.
        let is_told =
            !description.streaming && self.config.filter.is_none() && self.config.pace.start.is_none();
        let rows = description.rows.filter(|_| is_told && self.has_read_all(described, moment))?;
        let read = self.holding.ledger.sum(|row| row.records_ingested.saturating_add(row.records_rejected));
        let read = read.saturating_add(self.rows_without_cursor());
        i64::try_from(rows).ok()?.checked_sub(i64::try_from(read).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::moment;

    /// When rows were found that nobody read, by the seconds at which it was looked for so many.
    fn found(unread: &mut Unread, looks: &[(i64, i64)]) -> Vec<i64> {
        let is_new = |(second, beyond): &(i64, i64)| {
            let was_found = unread.is_found();
            unread.look(Some(*beyond), moment(*second).now);
            (!was_found && unread.is_found()).then_some(*second)
        };
        looks.iter().filter_map(is_new).collect()
    }

    #[test]
    fn rows_that_nobody_read_are_noticed_after_a_minute() {
        let looks = [(0, -7), (10, -5), (30, -5), (69, -5), (70, -5), (80, -5)];
        assert_eq!(found(&mut Unread::default(), &looks), [70]);
        // The rows of another worker arrived, or rows are deleted and others come.
        assert_eq!(
            found(&mut Unread::default(), &[(0, 0), (10, 3), (50, 0), (100, -3), (110, 0), (170, 0)]),
            [170]
        );
        assert_eq!(
            found(&mut Unread::default(), &[(0, 0), (10, 3), (50, 0), (100, 3), (150, 3)]),
            Vec::<i64>::new()
        );
    }

    #[test]
    fn who_looks_in_vain_looks_less_often() {
        let mut unread = Unread::default();
        let mut times = Vec::new();
        for second in (0..40_000).step_by(30) {
            // More rows come all the time.
            unread.look(Some(second), moment(second).now);
            if unread.is_found() {
                times.push(second);
                unread.count(moment(second).now);
            }
        }
        assert_eq!(times, [90, 1_290, 3_690, 8_490, 18_090, 37_290]);
        unread.miss();
        unread.look(Some(50_000), moment(50_000).now);
        unread.look(Some(50_001), moment(50_030).now);
        unread.look(Some(50_001), moment(50_090).now);
        assert!(unread.is_found());
    }

    #[test]
    fn what_cannot_be_told_is_no_sign() {
        let mut unread = Unread::default();
        for (second, beyond) in [(0, Some(0)), (10, Some(5)), (60, None), (75, Some(5))] {
            unread.look(beyond, moment(second).now);
        }
        assert!(!unread.is_found());
    }
}
