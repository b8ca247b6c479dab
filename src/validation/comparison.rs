//! Compares a node's copy with the leaves of a worker.

use super::digest::Digest;
use super::leaves::{Leaves, Span, UnknownRule};
use crate::bigquery::sql::Window;
use crate::mapping::id;
use crate::partition::Rule;
use crate::time::Micros;
use std::collections::{BTreeMap, BTreeSet};

/// Rows are read again in so many windows at most.
const WINDOWS_MAX: usize = 16;

/// A leaf in which the two sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Its number.
    pub leaf: i64,
    /// How many of its rows are missing on this node, or are an older version there, at least.
    pub missing: u64,
    /// How many of its rows only this node has, at least.
    pub extra: u64,
}

/// What came of a comparison.
#[derive(Debug, Clone)]
pub struct Finding<'c> {
    /// What the copy was compared with.
    pub leaves: &'c Leaves,
    /// Rows in BigQuery.
    pub counted: u64,
    /// Rows on this node.
    pub stored: u64,
    /// The leaves that differ, in order.
    pub differences: Vec<Difference>,
}

/// Digests the rows of a node's copy by their cursors.
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
    /// Begins without rows.
    ///
    /// # Errors
    /// When the table is divided by a rule that is not known.
    pub fn new(leaves: Leaves) -> Result<Comparison, UnknownRule> {
        let rule = leaves.rule()?;
        Ok(Comparison { leaves, rule, stored: BTreeMap::new(), rows: 0, text: String::new() })
    }

    /// Returns what the rows are compared with.
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Returns the inclusive bounds of the ids to add; none if ids do not tell the cursor.
    pub fn bounds(&self) -> Option<(String, String)> {
        self.leaves.cursor.is_none().then(|| id::bounds(self.leaves.after, self.leaves.until))
    }

    /// Adds rows by their ids. Others than those that were counted are left out.
    pub fn add<'t>(&mut self, ids: impl IntoIterator<Item = &'t str>) {
        for cursor in ids.into_iter().filter_map(id::cursor_of) {
            self.add_cursor(cursor);
        }
    }

    /// Takes the ids of rows that cannot be written, though they were counted.
    pub fn excuse<'t>(&mut self, ids: impl IntoIterator<Item = &'t str>) {
        if self.leaves.cursor.is_none() {
            self.add(ids);
        }
    }

    /// Adds rows by their cursors, as they are stored.
    pub fn add_stored<'t>(&mut self, cursors: impl IntoIterator<Item = &'t str>) {
        for text in cursors {
            if let Some(cursor) = self.leaves.cursor_of(text) {
                self.add_cursor(cursor);
            }
        }
    }

    fn add_cursor(&mut self, cursor: Micros) {
        if !self.leaves.is_settled(cursor) || !self.leaves.has(self.rule, cursor) {
            return;
        }
        use std::fmt::Write as _;
        self.text.clear();
        // Writing to a text does not fail.
        let _ = write!(self.text, "{}", cursor.0);
        self.rows += 1;
        self.stored.entry(self.leaves.span().leaf(cursor)).or_default().add(self.text.as_bytes());
    }

    /// Returns what was found.
    pub fn finding(&self) -> Finding<'_> {
        let counted: BTreeMap<i64, Digest> = self.leaves.digests().collect();
        let mut all: Vec<i64> = counted.keys().chain(self.stored.keys()).copied().collect();
        all.sort_unstable();
        all.dedup();
        let differing = all.into_iter().filter_map(|leaf| {
            let (counted, stored) = (counted.get(&leaf), self.stored.get(&leaf));
            let rows = |digest: Option<&Digest>| digest.map_or(0, |digest| digest.rows);
            let (there, here) = (rows(counted), rows(stored));
            let (missing, extra) = (there.saturating_sub(here), here.saturating_sub(there));
            (counted != stored).then_some(Difference { leaf, missing, extra })
        });
        let differences = differing.collect();
        let counted = counted.values().map(|digest| digest.rows).sum();
        Finding { leaves: &self.leaves, counted, stored: self.rows, differences }
    }

    /// Returns windows that have all rows of some leaves, in order; neighbours are one.
    pub fn windows(&self, leaves: &[i64]) -> Vec<Window> {
        windows(self.leaves.span(), leaves, self.leaves.window())
    }
}

fn windows(span: Span, leaves: &[i64], within: Window) -> Vec<Window> {
    let mut windows = few(leaves.iter().map(|leaf| span.window(*leaf)));
    for window in &mut windows {
        window.after = window.after.max(within.after);
        window.until = window.until.min(within.until.or(window.until));
    }
    windows
}

/// Returns a few windows that have all rows of some, which are in order. Between them lie the largest gaps: a query for each
/// would cost more.
pub fn few(windows: impl Iterator<Item = Window>) -> Vec<Window> {
    let windows: Vec<Window> = windows.collect();
    let gap_us = |(one, next): (&Window, &Window)| {
        let ends = one.until.zip(next.after);
        ends.map_or(0, |(until, after)| after.since(until))
    };
    let mut gaps: Vec<(i64, usize)> = windows
        .iter()
        .zip(windows.iter().skip(1))
        .enumerate()
        .map(|(place, pair)| (gap_us(pair), place))
        .filter(|(us, _)| *us > 0)
        .collect();
    gaps.sort_unstable_by_key(|(us, _)| std::cmp::Reverse(*us));
    let kept: BTreeSet<usize> = gaps.into_iter().take(WINDOWS_MAX - 1).map(|(_, place)| place).collect();
    let mut few: Vec<Window> = Vec::new();
    for (place, window) in windows.into_iter().enumerate() {
        match few.last_mut() {
            Some(last) if place > 0 && !kept.contains(&(place - 1)) => last.until = window.until,
            _ => few.push(window),
        }
    }
    few
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
            cursor: None,
            listing: None,
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

    /// The leaves that differ, with the numbers of rows that are missing and that are only here.
    fn differences(counted: &[i64], stored: &[i64]) -> Vec<(i64, u64, u64)> {
        let mut comparison = Comparison::new(leaves(counted, "table/1", &[0])).unwrap();
        comparison.add(ids(stored).lines());
        let tuple = |one: Difference| (one.leaf, one.missing, one.extra);
        comparison.finding().differences.into_iter().map(tuple).collect()
    }

    #[test]
    fn equal_sides_do_not_differ_and_others_differ_where_their_rows_do() {
        let rows = [-15, 1, 2, 2, 25, 99];
        assert_eq!(differences(&rows, &[99, 2, 25, 1, 2, -15]), []);
        assert_eq!(differences(&rows, &[-15, 1, 2, 25, 99]), [(0, 1, 0)]);
        assert_eq!(differences(&rows, &[1, 2, 2, 25, 26, 99]), [(-2, 1, 0), (2, 0, 1)]);
        // As many rows, but not the same.
        assert_eq!(differences(&rows, &[-15, 1, 1, 2, 25, 99]), [(0, 0, 0)]);
    }

    #[test]
    fn rows_that_were_not_counted_do_not_count() {
        assert_eq!(differences(&[1, 100], &[1, 100, 101, 200]), []);
        let days = [1, 86_401, 2 * 86_400];
        let counted = Leaves { until: None, ..leaves(&[1, 2 * 86_400], "day/2", &[0]) };
        let mut comparison = Comparison::new(counted).unwrap();
        comparison.add(ids(&days).lines());
        let Finding { differences, counted, stored, .. } = comparison.finding();
        assert_eq!((differences, counted, stored), (vec![], 2, 2));
        assert!(Comparison::new(leaves(&[], "week/7", &[0])).is_err());
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

    #[test]
    fn many_leaves_are_read_again_in_a_few_windows_with_the_largest_gaps_between_them() {
        let at = |second: i64| Micros(second * SECOND_US);
        let window = |second| Window { after: Some(at(second)), until: Some(at(second + 1)) };
        // Twenty windows in ten pairs, each pair a minute behind the one before, and twelve more a second apart.
        let pairs = (0..10).flat_map(|pair| [pair * 60, pair * 60 + 2]);
        let all = pairs.chain((0..12).map(|place| 1_000 + 2 * place));
        let few = few(all.map(window));
        assert_eq!(few.len(), WINDOWS_MAX);
        let starts: Vec<Option<Micros>> = few.iter().map(|window| window.after).collect();
        assert!((0..10).map(|pair| pair * 60).chain([1_000]).all(|start| starts.contains(&Some(at(start)))));
        assert_eq!(few.last().unwrap().until, Some(at(1_023)));
        assert!(few.is_sorted_by_key(|window| window.after));
        assert_eq!(super::few(std::iter::empty()), []);
    }
}
