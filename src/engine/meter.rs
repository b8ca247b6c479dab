//! Measures of the current run.

use crate::time::{Micros, SECOND_US};

/// Measures of the current run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Meter {
    rows: u64,
    first_us: i64,
    last_us: i64,
    rows_per_second: f64,
}

/// The time over which rows per second are measured.
const RATE_SPAN_US: i64 = 5 * SECOND_US;

impl Meter {
    /// Notes that rows are about to be written.
    pub fn wrote(&mut self, rows: u64, now: Micros) {
        if now.0.saturating_sub(self.last_us) > 2 * RATE_SPAN_US {
            self.first_us = now.0;
            self.rows = 0;
            self.rows_per_second = 0.0;
        }
        self.rows += rows;
        self.last_us = now.0;
        let span_us = now.0.saturating_sub(self.first_us);
        if span_us >= RATE_SPAN_US {
            self.rows_per_second = self.rows as f64 * SECOND_US as f64 / span_us as f64;
            self.rows = 0;
            self.first_us = now.0;
        }
    }

    /// Returns the rows that were written per second lately; zero if there were none.
    pub fn rows_per_second(&self, now: Micros) -> f64 {
        if now.0.saturating_sub(self.last_us) > 2 * RATE_SPAN_US {
            return 0.0;
        }
        let span_us = self.last_us.saturating_sub(self.first_us);
        let first_span = self.rows_per_second == 0.0 && span_us > 0;
        let rate = if first_span {
            self.rows as f64 * SECOND_US as f64 / span_us as f64
        } else {
            self.rows_per_second
        };
        (rate * 10.0).round() / 10.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_per_second_are_those_of_late() {
        let mut meter = Meter::default();
        for second in 100..=110 {
            meter.wrote(50, Micros(second * SECOND_US));
        }
        assert_eq!(meter.rows_per_second(Micros(110 * SECOND_US)), 50.0);
        assert_eq!(meter.rows_per_second(Micros(121 * SECOND_US)), 0.0);
    }
}
