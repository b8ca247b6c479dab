//! Compares a node's copy with the leaves of a worker.

use super::digest::Digest;
use super::leaves::{Leaves, Span};
use crate::bigquery::sql::Window;
use crate::mapping::id;
use crate::partition::Rule;
use crate::time::Micros;
use std::collections::BTreeMap;

/// A leaf in which the two sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Its number.
    pub leaf: i64,
    /// Its rows in BigQuery.
    pub counted: u64,
    /// Its rows on this node.
    pub stored: u64,
}

impl Difference {
    /// Returns how many rows are missing on this node, at least.
    pub fn missing(self) -> u64 {
        self.counted.saturating_sub(self.stored)
    }

    /// Returns how many rows only this node has, at least.
    pub fn extra(self) -> u64 {
        self.stored.saturating_sub(self.counted)
    }
}

/// Digests the rows of a node's copy by their ids.
#[derive(Debug)]
pub struct Comparison {
    leaves: Leaves,
    /// Which partition a row is in; none if all were counted.
    rule: Option<Rule>,
    stored: BTreeMap<i64, Digest>,
    rows: u64,
    text: String,
}

impl Comparison {
    /// Begins without rows. Returns none if the table is divided by a rule that is not known.
    pub fn new(leaves: Leaves) -> Option<Comparison> {
        let rule = Rule::named(&leaves.rule)?;
        let has_all = leaves.partitions.len() >= rule.partitions as usize;
        let rule = (!has_all).then_some(rule);
        Some(Comparison { leaves, rule, stored: BTreeMap::new(), rows: 0, text: String::new() })
    }

    /// Returns the inclusive bounds of the ids to add.
    pub fn bounds(&self) -> (String, String) {
        id::bounds(self.leaves.after, self.leaves.until)
    }

    /// Adds rows by their ids, of which each stands in a line of its own. Others than those that were counted are left out.
    pub fn add(&mut self, ids: &str) {
        for cursor in ids.lines().filter_map(id::cursor_of) {
            self.add_cursor(cursor);
        }
    }

    fn add_cursor(&mut self, cursor: Micros) {
        let Window { after, until } = self.leaves.window();
        let is_within = after.is_none_or(|after| cursor > after) && until.is_none_or(|until| cursor <= until);
        let is_of_others = || {
            self.rule
                .is_some_and(|rule| self.leaves.partitions.binary_search(&rule.partition(cursor)).is_err())
        };
        if !is_within || is_of_others() {
            return;
        }
        use std::fmt::Write as _;
        self.text.clear();
        // Writing to a text does not fail.
        let _ = write!(self.text, "{}", cursor.0);
        self.rows += 1;
        self.stored.entry(self.leaves.span().leaf(cursor)).or_default().add(self.text.as_bytes());
    }

    /// Returns the leaves that differ, in order.
    pub fn differences(&self) -> Vec<Difference> {
        let counted: BTreeMap<i64, Digest> = self.leaves.digests().collect();
        let mut all: Vec<i64> = counted.keys().chain(self.stored.keys()).copied().collect();
        all.sort_unstable();
        all.dedup();
        let differing = all.into_iter().filter_map(|leaf| {
            let (counted, stored) = (counted.get(&leaf), self.stored.get(&leaf));
            let rows = |digest: Option<&Digest>| digest.map_or(0, |digest| digest.rows);
            (counted != stored).then(|| Difference { leaf, counted: rows(counted), stored: rows(stored) })
        });
        differing.collect()
    }

    /// Returns the leaves that the rows are compared with.
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Returns how many rows were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns windows that have all rows of some leaves, in order; neighbours are one.
    pub fn windows(&self, leaves: &[i64]) -> Vec<Window> {
        windows(self.leaves.span(), leaves, self.leaves.window())
    }
}

fn windows(span: Span, leaves: &[i64], within: Window) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for window in leaves.iter().map(|leaf| span.window(*leaf)) {
        match windows.last_mut() {
            Some(last) if last.until == window.after => last.until = window.until,
            _ => windows.push(window),
        }
    }
    for window in &mut windows {
        window.after = window.after.max(within.after);
        window.until = window.until.min(within.until.or(window.until));
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::id::{content_hash, write_keyless};
    use crate::time::SECOND_US;

    const LENGTH_US: i64 = 10 * SECOND_US;

    /// The ids of rows whose cursors are so many seconds.
    fn ids(seconds: &[i64]) -> String {
        let mut all = Vec::new();
        for (number, second) in seconds.iter().enumerate() {
            write_keyless(&mut all, Micros(second * SECOND_US), &content_hash(&[number as u8]), 0, 0);
            all.push(b'\n');
        }
        String::from_utf8(all).unwrap()
    }

    fn leaves(seconds: &[i64], rule: &str, partitions: &[u32]) -> Leaves {
        let mut leaves = Leaves {
            id: "t:n-0".to_owned(),
            table_id: "t".to_owned(),
            owner: "n-0".to_owned(),
            asked: 0,
            counted_at: Some(Micros(0)),
            rule: rule.to_owned(),
            partitions: partitions.to_vec(),
            after: None,
            until: Some(Micros(100 * SECOND_US)),
            length_us: LENGTH_US,
            bytes_billed: 0,
            billed_day: 0,
            billed_on_day: 0,
            leaves: Vec::new(),
        };
        let mut digests = BTreeMap::<i64, Digest>::new();
        for second in seconds {
            let cursor = Micros(second * SECOND_US);
            digests.entry(leaves.span().leaf(cursor)).or_default().add(cursor.0.to_string().as_bytes());
        }
        let list =
            digests.into_iter().map(|(leaf, Digest { rows, sums: [one, two] })| (leaf, rows, one, two));
        leaves.leaves = list.collect();
        leaves
    }

    fn differences(counted: &[i64], stored: &[i64]) -> Vec<(i64, u64, u64)> {
        let mut comparison = Comparison::new(leaves(counted, "table/1", &[0])).unwrap();
        comparison.add(&ids(stored));
        let tuple = |one: Difference| (one.leaf, one.counted, one.stored);
        comparison.differences().into_iter().map(tuple).collect()
    }

    #[test]
    fn equal_sides_do_not_differ_and_others_differ_where_their_rows_do() {
        let rows = [-15, 1, 2, 2, 25, 99];
        assert_eq!(differences(&rows, &[99, 2, 25, 1, 2, -15]), []);
        assert_eq!(differences(&rows, &[-15, 1, 2, 25, 99]), [(0, 3, 2)]);
        assert_eq!(differences(&rows, &[1, 2, 2, 25, 26, 99]), [(-2, 1, 0), (2, 1, 2)]);
        // As many rows, but not the same.
        assert_eq!(differences(&rows, &[-15, 1, 1, 2, 25, 99]), [(0, 3, 3)]);
    }

    #[test]
    fn rows_that_were_not_counted_do_not_count() {
        assert_eq!(differences(&[1, 100], &[1, 100, 101, 200]), []);
        let days = [1, 86_401, 2 * 86_400];
        let counted = Leaves { until: None, ..leaves(&[1, 2 * 86_400], "day/2", &[0]) };
        let mut comparison = Comparison::new(counted).unwrap();
        comparison.add(&ids(&days));
        assert_eq!((comparison.differences(), comparison.rows()), (vec![], 2));
        assert!(Comparison::new(leaves(&[], "week/7", &[0])).is_none());
    }

    #[test]
    fn neighbouring_leaves_are_read_again_together_and_only_what_was_counted() {
        let counted = leaves(&[1], "table/1", &[0]);
        let comparison = Comparison::new(Leaves { after: Some(Micros(5)), ..counted }).unwrap();
        let seconds = |window: &Window| [window.after, window.until].map(|at| at.unwrap().0 as f64 / 1e6);
        let windows = comparison.windows(&[0, 1, 4, 9, 10]);
        let windows: Vec<[f64; 2]> = windows.iter().map(seconds).collect();
        assert_eq!(windows, [[0.000_005, 19.999_999], [39.999_999, 49.999_999], [89.999_999, 100.0]]);
    }
}
