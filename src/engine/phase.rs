//! The phase of a table, by its lag. It determines the size of pages.

use crate::config::Pace;
use serde::{Deserialize, Serialize};

/// The phase of a table's sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing was read yet, or the table is far behind.
    Initial,
    /// Behind, but not far.
    Catchup,
    /// Up to date.
    Steady,
}

impl Phase {
    /// Returns the phase for a lag. Without a watermark, there is no lag yet.
    pub fn of_lag(lag_s: Option<u64>, pace: &Pace) -> Phase {
        match lag_s {
            None => Phase::Initial,
            Some(lag_s) if lag_s > pace.catchup_threshold_s => Phase::Initial,
            Some(lag_s) if lag_s < pace.steady_threshold_s => Phase::Steady,
            Some(_) => Phase::Catchup,
        }
    }

    /// Returns the rows to request per page.
    pub fn page_rows(self, pace: &Pace) -> u64 {
        match self {
            Phase::Initial => pace.page_rows.initial,
            Phase::Catchup => pace.page_rows.catchup,
            Phase::Steady => pace.page_rows.steady,
        }
    }
}
