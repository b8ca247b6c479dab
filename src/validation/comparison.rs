//! Compares a node's copy with the leaves of a worker.

use super::check::{Check, Kept};
use super::digest::Digest;
use super::extras::Extras;
use super::leaves::{Leaves, Span, UnknownRule};
use super::vetted::Vetted;
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
    /// Whether nothing differs but rows that only this node has, each of which is known.
    pub is_explained: bool,
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
    /// The rows that only this node has, as far as they are known.
    pub extras: &'c Extras,
    /// Since when this node has had these, if each of them was compared with what the source has.
    pub stored_before: Option<Micros>,
    /// Rows that only this node has, as it knew before.
    pub known: Kept,
    /// All rows of which that is known now. If they stay, they are no difference next time.
    pub kept: Kept,
}

/// Digests the rows of a node's copy by their cursors.
#[derive(Debug)]
pub struct Comparison {
    leaves: Leaves,
    /// Which partition a row is in; none if all were counted.
    rule: Option<Rule>,
    stored: BTreeMap<i64, Digest>,
    rows: u64,
    /// What this node has read again.
    vetted: Vetted,
    /// How many of the rows of each window that was read again are stored.
    matched: Vec<u64>,
    extras: Extras,
    /// The rows of leaves that only this node has.
    extra: BTreeMap<i64, Digest>,
    text: String,
}

impl Comparison {
    /// Begins without rows.
    ///
    /// # Errors
    /// When the table is divided by a rule that is not known.
    pub fn new(leaves: Leaves) -> Result<Comparison, UnknownRule> {
        let rule = leaves.rule()?;
        Ok(Comparison {
            leaves,
            rule,
            stored: BTreeMap::new(),
            rows: 0,
            vetted: Vetted::default(),
            matched: Vec::new(),
            extras: Extras::default(),
            extra: BTreeMap::new(),
            text: String::new(),
        })
    }

    /// Returns what the rows are compared with.
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Takes what this node has read again, before any row is added. Only what it has read since it found these leaves to
    /// differ tells anything. `before` is what was found last time.
    pub fn vet(&mut self, vetted: &Vetted, before: Option<&Check>) {
        self.vetted = vetted.since(before.and_then(|before| before.repaired_since(&self.leaves)));
        self.matched = vec![0; self.vetted.count()];
    }

    /// Returns the inclusive bounds of the ids to add; none if ids do not tell the cursor.
    pub fn bounds(&self) -> Option<(String, String)> {
        self.leaves.cursor.is_none().then(|| id::bounds(self.leaves.after, self.leaves.until))
    }

    /// Adds rows by their ids. Others than those that were counted are left out.
    pub fn add<'t>(&mut self, ids: impl IntoIterator<Item = &'t str>) {
        for (id, cursor) in ids.into_iter().filter_map(|id| Some((id, id::cursor_of(id)?))) {
            self.add_row(id, cursor);
        }
    }

    /// Takes the ids of rows that cannot be written, though they were counted.
    pub fn excuse<'t>(&mut self, ids: impl IntoIterator<Item = &'t str>) {
        if self.leaves.cursor.is_some() {
            return;
        }
        for (id, cursor) in ids.into_iter().filter_map(|id| Some((id, id::cursor_of(id)?))) {
            self.match_row(id, cursor);
            if self.leaves.is_settled(cursor) && self.leaves.has(self.rule, cursor) {
                self.digest(cursor, false);
            }
        }
    }

    /// Adds rows by their ids and, after each, its cursor as it is stored.
    pub fn add_stored<'t>(&mut self, rows: impl IntoIterator<Item = (&'t str, &'t str)>) {
        for (id, text) in rows {
            if let Some(cursor) = self.leaves.cursor_of(text) {
                self.add_row(id, cursor);
            }
        }
    }

    fn add_row(&mut self, id: &str, cursor: Micros) {
        let is_extra = self.match_row(id, cursor);
        if !self.leaves.is_settled(cursor) || !self.leaves.has(self.rule, cursor) {
            return;
        }
        self.extras.count(&self.leaves.consent, Some(cursor));
        if is_extra {
            self.extras.add(&self.leaves.consent, id, Some(cursor));
        }
        self.digest(cursor, is_extra);
    }

    /// Looks for a row among those that were read again. Returns whether it is none of them, although it should be.
    fn match_row(&mut self, id: &str, cursor: Micros) -> bool {
        let Some(place) = self.vetted.place_of(cursor) else { return false };
        let has_row = self.vetted.has(place, id);
        if let Some(matched) = self.matched.get_mut(place).filter(|_| has_row) {
            *matched += 1;
        }
        !has_row
    }

    fn digest(&mut self, cursor: Micros, is_extra: bool) {
        use std::fmt::Write as _;
        self.text.clear();
        // Writing to a text does not fail.
        let _ = write!(self.text, "{}", cursor.0);
        self.rows += 1;
        let leaf = self.leaves.span().leaf(cursor);
        self.stored.entry(leaf).or_default().add(self.text.as_bytes());
        if is_extra {
            self.extra.entry(leaf).or_default().add(self.text.as_bytes());
        }
    }

    /// Returns what was found. `before` is what was found last time.
    pub fn finding(&self, before: Option<&Check>) -> Finding<'_> {
        let counted: BTreeMap<i64, Digest> = self.leaves.digests().collect();
        let known = before.map(|before| before.kept.of(&self.leaves)).unwrap_or_default();
        let (mut still_known, mut kept) = (BTreeMap::new(), BTreeMap::new());
        let mut differences = Vec::new();
        let mut all: Vec<i64> = counted.keys().chain(self.stored.keys()).copied().collect();
        all.sort_unstable();
        all.dedup();
        for leaf in all {
            let of = |digests: &BTreeMap<i64, Digest>| digests.get(&leaf).copied().unwrap_or_default();
            let (there, here, known) = (of(&counted), of(&self.stored), of(&known));
            if here.without(known) == there {
                still_known.insert(leaf, known);
                kept.insert(leaf, known);
                continue;
            }
            let extra = of(&self.extra);
            let is_explained = self.has_all_rows_of(leaf);
            if is_explained {
                kept.insert(leaf, extra);
            }
            // What was read again is newer than what was counted.
            let (missing, extra) = match is_explained {
                true => (0, extra.rows),
                false => (there.rows.saturating_sub(here.rows), here.rows.saturating_sub(there.rows)),
            };
            if !is_explained || extra > 0 {
                differences.push(Difference { leaf, missing, extra, is_explained });
            }
        }
        Finding {
            leaves: &self.leaves,
            counted: counted.values().map(|digest| digest.rows).sum(),
            stored: self.rows,
            differences,
            extras: &self.extras,
            stored_before: self.vetted.begun(),
            known: Kept::new(&self.leaves, still_known),
            kept: Kept::new(&self.leaves, kept),
        }
    }

    /// Whether all rows of a leaf were read again, and are stored.
    fn has_all_rows_of(&self, leaf: i64) -> bool {
        let window = within(self.leaves.span().window(leaf), self.leaves.window());
        let place = self.vetted.place_around(window);
        place.is_some_and(|place| self.vetted.rows(place) == self.matched.get(place).copied())
    }

    /// Returns windows that have all rows of some leaves, in order; neighbours are one.
    pub fn windows(&self, leaves: &[i64]) -> Vec<Window> {
        windows(self.leaves.span(), leaves, self.leaves.window())
    }
}

fn windows(span: Span, leaves: &[i64], within: Window) -> Vec<Window> {
    let mut windows = few(leaves.iter().map(|leaf| span.window(*leaf)));
    for window in &mut windows {
        *window = self::within(*window, within);
    }
    windows
}

/// Returns the part of a window that lies within another one.
fn within(window: Window, other: Window) -> Window {
    Window { after: window.after.max(other.after), until: window.until.min(other.until.or(window.until)) }
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
    use crate::config::Deletes;
    use crate::mapping::id::{content_hash, write_keyless};
    use crate::time::SECOND_US;
    use crate::validation::{Consent, Place, Vetting};

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
            consent: Consent { rows_max: 10, ..Consent::default() },
            refusal: None,
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
        comparison.finding(None).differences.into_iter().map(tuple).collect()
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
        let Finding { differences, counted, stored, .. } = comparison.finding(None);
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

    /// What is found once the leaves that differed have been read again, with so many seconds in the source by then.
    fn found_again(counted: &[i64], read: &[i64], stored: &[i64]) -> (Vec<Difference>, Vec<String>) {
        let leaves = leaves(counted, "table/1", &[0]);
        let mut first = Comparison::new(leaves.clone()).unwrap();
        first.add(ids(stored).lines());
        let place = |now| Place { node: "n", rank: 0, haste: 1, is_certain: false, now: Micros(now) };
        let mut before = None;
        for now in 1..3 {
            let finding = first.finding(None);
            let conclusion = Check::conclude(before, &finding, |some| first.windows(some), place(now));
            before = Some(conclusion.check);
        }
        let mut vetted = Vetted::default();
        for (begun, row) in [(1, 77), (3, -1)] {
            let mut vetting = Vetting::begin(Window { after: None, until: None }, Micros(begun));
            let rows: Vec<i64> = if row < 0 { read.to_vec() } else { vec![row] };
            vetting.add(ids(&rows).lines().map(str::as_bytes));
            vetted.take(vetting);
        }
        let mut again = Comparison::new(leaves).unwrap();
        again.vet(&vetted, before.as_ref());
        again.add(ids(stored).lines());
        let finding = again.finding(before.as_ref());
        assert_eq!(finding.stored_before, Some(Micros(3)));
        (finding.differences, again.extras.ids().to_vec())
    }

    #[test]
    fn rows_that_are_in_the_source_no_more_are_known_by_their_ids() {
        let extra = |leaf, extra| Difference { leaf, missing: 0, extra, is_explained: true };
        let (differences, extras) = found_again(&[1, 25], &[1, 25], &[1, 25, 26, 99]);
        assert_eq!(differences, [extra(2, 1), extra(9, 1)]);
        let all = ids(&[1, 25, 26, 99]);
        assert_eq!(extras, all.lines().skip(2).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_read_again_counts_more_than_what_was_counted() {
        // A row came after the count.
        assert_eq!(found_again(&[1], &[1, 2], &[1, 2]), (vec![], vec![]));
        // It did not arrive here.
        let (differences, extras) = found_again(&[1, 25], &[1, 25, 26], &[1, 25, 99]);
        assert!(differences.iter().all(|one| !one.is_explained), "{differences:?}");
        assert_eq!(extras.len(), 1);
    }

    #[test]
    fn known_rows_that_stay_are_no_difference_next_time() {
        let counted = leaves(&[1, 25], "table/1", &[0]);
        let kept = |seconds: &[i64]| {
            let mut digests = BTreeMap::<i64, Digest>::new();
            for second in seconds {
                digests.entry(second / 10).or_default().add((second * SECOND_US).to_string().as_bytes());
            }
            Kept::new(&counted, digests)
        };
        let mut comparison = Comparison::new(counted.clone()).unwrap();
        comparison.add(ids(&[1, 25, 26]).lines());
        let place = Place { node: "n", rank: 0, haste: 1, is_certain: false, now: Micros(1) };
        let check = Check::conclude(None, &comparison.finding(None), |_| Vec::new(), place).check;
        let found = |kept| comparison.finding(Some(&Check { kept, ..check.clone() })).differences.len();
        assert_eq!([found(kept(&[26])), found(kept(&[27])), found(Kept::default())], [0, 1, 1]);
        // With longer leaves, they are not told apart.
        let longer = Leaves { length_us: 60 * SECOND_US, ..counted.clone() };
        assert_eq!(kept(&[26]).of(&longer), BTreeMap::new());
        let mirrored = Consent { deletes: Deletes::Mirror, ..Consent::default() };
        assert_eq!(kept(&[26]).of(&Leaves { consent: mirrored, ..counted.clone() }), BTreeMap::new());
    }
}
