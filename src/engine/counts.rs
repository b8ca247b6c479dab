//! The number of rows in each partition of the source. One worker counts them and tells the others.

use super::window::PartitionCount;
use crate::time::{Micros, SECOND_US};
use serde::{Deserialize, Serialize};

/// What is stored in the table SyncCounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// The table's id in the configuration.
    pub id: String,
    /// The options under which they were counted, to notice a configuration that no longer fits.
    pub identity: String,
    /// When they were counted, in seconds since the epoch, by BigQuery's clock.
    pub counted_at: i64,
    /// The command to read the table again that was being followed when they were counted.
    #[serde(default)]
    pub resync: u64,
    /// The partitions that have rows: the start, in seconds since the epoch, and the number of rows.
    pub partitions: Vec<(i64, u64)>,
}

impl Counts {
    /// Returns the partitions, in order.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionCount> {
        self.partitions.iter().map(|(starts_s, rows)| PartitionCount {
            starts: Micros(starts_s.saturating_mul(SECOND_US)),
            rows: *rows,
        })
    }
}
