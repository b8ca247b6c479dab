//! What BigQuery counted of a worker's rows.

use super::digest::Digest;
use super::extras::Consent;
use crate::bigquery::page::JobReference;
use crate::bigquery::sql::Window;
use crate::config::IdType;
use crate::partition::Rule;
use crate::time::{DAY_US, Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The rows that a leaf has if rows are spread evenly. Fewer would make more leaves to tell the other nodes of.
const LEAF_ROWS: u64 = 2_000;
/// A table has about so many leaves at most.
const LEAVES_MAX: u64 = 4_000;
/// The lengths that leaves may have. As few as possible, so that the leaves of two countings can be compared.
const LENGTHS_US: [i64; 7] = [
    SECOND_US,
    10 * SECOND_US,
    60 * SECOND_US,
    600 * SECOND_US,
    3_600 * SECOND_US,
    6 * 3_600 * SECOND_US,
    DAY_US,
];

/// Divides cursor time into leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// The length of a leaf.
    pub length_us: i64,
}

impl Span {
    /// Chooses leaves for so many rows in a span of time.
    pub fn for_rows(rows: u64, extent_us: i64) -> Span {
        let leaves = i64::try_from((rows / LEAF_ROWS).clamp(1, LEAVES_MAX)).unwrap_or(1);
        let wanted_us = extent_us / leaves;
        let length_us = LENGTHS_US.into_iter().find(|length_us| *length_us >= wanted_us);
        let days = wanted_us.saturating_add(DAY_US - 1).div_euclid(DAY_US);
        Span { length_us: length_us.unwrap_or_else(|| days.saturating_mul(DAY_US)) }
    }

    /// Returns the number of the leaf that a cursor lies in.
    pub fn leaf(self, cursor: Micros) -> i64 {
        cursor.0.div_euclid(self.length_us.max(1))
    }

    /// Returns the window that is exactly a leaf.
    pub fn window(self, leaf: i64) -> Window {
        let starts = leaf.saturating_mul(self.length_us);
        let bound = |at: i64| Some(Micros(at).plus(-1));
        Window { after: bound(starts), until: bound(starts.saturating_add(self.length_us)) }
    }
}

/// A leaf: its number, its rows and their two sums.
pub type Leaf = (i64, u64, u32, u32);

/// The leaves of the partitions that a worker owns, as they are stored in the table SyncLeaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaves {
    /// `tableId:owner`.
    pub id: String,
    /// The table's id in the configuration.
    pub table_id: String,
    /// The worker, `node-index`.
    pub owner: String,
    /// The last command that it follows; zero if it follows none.
    #[serde(default)]
    pub asked: u64,
    /// When they were counted, by BigQuery's clock.
    #[serde(with = "instant", default)]
    pub counted_at: Option<Micros>,
    /// The rule that divides the table.
    pub rule: String,
    /// The partitions whose rows were counted, in order.
    pub partitions: Vec<u32>,
    /// Rows at or before this cursor were left out.
    #[serde(with = "instant", default)]
    pub after: Option<Micros>,
    /// Rows after this cursor were left out: they may still be on their way.
    #[serde(with = "instant", default)]
    pub until: Option<Micros>,
    /// The length of a leaf.
    pub length_us: i64,
    /// What the counting billed.
    pub bytes_billed: u64,
    /// The day, since the epoch, on which all countings of the worker billed `billed_on_day`.
    #[serde(default)]
    pub billed_day: i64,
    /// Those bytes.
    #[serde(default)]
    pub billed_on_day: u64,
    /// The leaves that have rows, in order. There are none if there is a list of keys.
    pub leaves: Vec<Leaf>,
    /// Where a record has its cursor; none if its id begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<StoredCursor>,
    /// The keys of rows with a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<Listing>,
    /// What may be done with rows that only a copy has.
    #[serde(default)]
    pub consent: Consent,
    /// Why nothing was counted; none if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// How records hold their cursors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredCursor {
    /// The attribute.
    pub attribute: String,
    /// The microseconds that an integer counts.
    pub unit_us: i64,
}

/// A result of a query that has all keys, each with the newest cursor of its rows in microseconds. It can be read for a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// The query's job.
    pub job: JobReference,
    /// How many keys it has.
    pub rows: u64,
    /// What the ids of records are.
    pub id_type: IdType,
    /// The time of writing that rows get which are read again: whatever was written later stays.
    #[serde(with = "instant", default)]
    pub stamp: Option<Micros>,
}

/// The table is divided by a rule that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownRule;

/// How far a node has the rows of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The partition.
    pub partition: u32,
    /// Every row with a cursor up to this is stored.
    #[serde(with = "instant", default)]
    pub last_timestamp: Option<Micros>,
}

impl Leaves {
    /// Tells whether a node has got all rows that had been stored when they were counted.
    pub fn are_stored_up_to(&self, progress: &[Progress]) -> bool {
        let is_there = |one: &&Progress| one.last_timestamp.is_some() && one.last_timestamp >= self.until;
        let stored: BTreeSet<u32> = progress.iter().filter(is_there).map(|one| one.partition).collect();
        self.refusal.is_some() || self.partitions.iter().all(|partition| stored.contains(partition))
    }

    /// Returns the rule that tells which rows were counted: none if all were.
    ///
    /// # Errors
    /// When the table is divided by a rule that is not known.
    pub fn rule(&self) -> Result<Option<Rule>, UnknownRule> {
        let rule = Rule::named(&self.rule).ok_or(UnknownRule)?;
        let has_all = self.partitions.len() >= rule.partitions as usize;
        Ok((!has_all).then_some(rule))
    }

    /// Tells whether a row belongs to the partitions that were counted, and is not too old.
    pub fn has(&self, rule: Option<Rule>, cursor: Micros) -> bool {
        let is_own = |rule: Rule| self.partitions.binary_search(&rule.partition(cursor)).is_ok();
        self.after.is_none_or(|after| cursor > after) && rule.is_none_or(is_own)
    }

    /// Tells whether all rows with such a cursor had been read.
    pub fn is_settled(&self, cursor: Micros) -> bool {
        self.until.is_none_or(|until| cursor <= until)
    }

    /// Reads a cursor as it is stored.
    pub fn cursor_of(&self, stored: &str) -> Option<Micros> {
        let unit_us = self.cursor.as_ref()?.unit_us;
        let count: Option<i64> = stored.parse().ok();
        count.map_or_else(|| Micros::parse(stored), |count| Some(Micros(count.saturating_mul(unit_us))))
    }

    /// Returns how cursor time is divided.
    pub fn span(&self) -> Span {
        Span { length_us: self.length_us }
    }

    /// Returns the rows that were counted.
    pub fn window(&self) -> Window {
        Window { after: self.after, until: self.until }
    }

    /// Returns the leaves that have rows.
    pub fn digests(&self) -> impl Iterator<Item = (i64, Digest)> {
        self.leaves
            .iter()
            .map(|(leaf, rows, first, second)| (*leaf, Digest { rows: *rows, sums: [*first, *second] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_long_enough_to_be_few() {
        let length_s = |rows, days: i64| Span::for_rows(rows, days * DAY_US).length_us / SECOND_US;
        assert_eq!(length_s(0, 30), 30 * 86_400);
        assert_eq!(length_s(1_000_000, 30), 6 * 3_600);
        assert_eq!(length_s(100_000_000, 30), 3_600);
        assert_eq!(length_s(20_000, 1), 3 * 3_600 * 2);
        assert_eq!(length_s(10_000_000_000, 3_650), 86_400);
        assert_eq!(length_s(1_000_000, 0), 1);
    }

    #[test]
    fn a_leaf_and_its_window_are_the_same_rows() {
        let span = Span { length_us: 10 * SECOND_US };
        for leaf in [-2, -1, 0, 1, 7] {
            let Window { after: Some(after), until: Some(until) } = span.window(leaf) else { panic!("open") };
            assert_eq!(
                (span.leaf(after), span.leaf(after.plus(1)), span.leaf(until)),
                (leaf - 1, leaf, leaf)
            );
        }
    }
}
