//! Compares a node's copy with the newest cursors of all keys.
//!
//! A row with a key may get a newer version at any time, and then the former one is nowhere any more. So the sums of many
//! rows tell only which of them may differ. These are looked at one by one.

use super::check::{Check, Kept};
use super::comparison::{Difference, Finding, few};
use super::digest::Digest;
use super::extras::Extras;
use super::leaves::{Leaves, Listing, UnknownRule};
use crate::bigquery::page::{Cell, Page};
use crate::bigquery::request::{self, Request};
use crate::bigquery::schema::Field;
use crate::bigquery::sql::Window;
use crate::bigquery::value::Value;
use crate::config::IdType;
use crate::error::{Failure, Kind};
use crate::mapping::batch::write_key_parts;
use crate::mapping::projection::ID;
use crate::partition::Rule;
use crate::time::Micros;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Rows of a page. They are handled at once, so the thread is busy for a few milliseconds.
const PAGE_ROWS: u64 = 4_000;
/// The keys of a leaf, about.
const LEAF_ROWS: u64 = 1_000;
const LEAVES_MAX: u64 = 1 << 16;
/// So many keys are looked at one by one at a time. Each takes some 40 bytes.
const ROWS_AT_ONCE: u64 = 200_000;

/// Compares keys and their cursors: first by sums over leaves, which are parts of the keys by their hashes, and then those
/// of the leaves that differ one by one.
#[derive(Debug)]
pub struct KeyComparison {
    leaves: Leaves,
    listing: Listing,
    rule: Option<Rule>,
    next_row: u64,
    fields: Vec<Field>,
    sums: Vec<Sums>,
    counted: u64,
    /// Rows that cannot be written, by the hashes of their ids.
    excused: HashSet<u64>,
    /// The leaves that are still to be looked at one by one, in order.
    suspects: Vec<u32>,
    /// The leaves that are being looked at.
    close: BTreeSet<u32>,
    /// The keys of these leaves that were not found in the copy yet, with their cursors.
    expected: HashMap<u64, Micros>,
    found: BTreeMap<u32, Found>,
    extras: Extras,
}

/// The keys of a leaf, on both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    counted: Digest,
    stored: Digest,
}

/// What differs in a leaf.
#[derive(Debug, Clone, Default)]
struct Found {
    /// The cursors of the rows that are missing, or there with an older one.
    missing: Vec<Micros>,
    /// Rows that only the copy has.
    extra: u64,
}

impl KeyComparison {
    /// Begins a comparison with a list of keys.
    ///
    /// # Errors
    /// When the table is divided by a rule that is not known.
    pub fn new(leaves: Leaves, listing: Listing) -> Result<KeyComparison, UnknownRule> {
        let rule = leaves.rule()?;
        let count = (listing.rows / LEAF_ROWS).clamp(1, LEAVES_MAX);
        let sums = vec![Sums::default(); usize::try_from(count).unwrap_or(1)];
        Ok(KeyComparison {
            leaves,
            listing,
            rule,
            next_row: 0,
            fields: Vec::new(),
            sums,
            counted: 0,
            excused: HashSet::new(),
            suspects: Vec::new(),
            close: BTreeSet::new(),
            expected: HashMap::new(),
            found: BTreeMap::new(),
            extras: Extras::default(),
        })
    }

    /// Returns the leaves that the copy is compared with.
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Takes the ids of rows that the copy need not have.
    pub fn excuse(&mut self, ids: &[Cow<'_, str>]) {
        self.excused.extend(ids.iter().map(|id| hash_of(id.as_bytes())));
    }

    /// Returns the request for the next page of keys; none if all were read.
    pub fn request(&self) -> Option<Request> {
        let job = &self.listing.job;
        (self.next_row < self.listing.rows).then(|| request::read_result(job, self.next_row, PAGE_ROWS))
    }

    /// Takes a page of keys.
    ///
    /// # Errors
    /// When the page is no part of the list.
    pub fn add_page(&mut self, body: Vec<u8>) -> Result<(), Failure> {
        let page = Page::open(body)?;
        if page.envelope().total_rows != Some(self.listing.rows) {
            return Err(malformed("the list of keys is not complete any more"));
        }
        let mut fields = std::mem::take(&mut self.fields);
        if let Some(schema) = page.envelope().schema.as_ref().filter(|_| fields.is_empty()) {
            fields = Field::from_wire(&schema.fields)?;
        }
        let (mut rows, mut cells, mut id) = (page.rows(), Vec::new(), Vec::new());
        let first = self.next_row;
        while rows.next(&mut cells)?.is_some() {
            let cursor = read_key(&cells, &fields, self.listing.id_type, &mut id)?;
            // A key that cannot be an id is refused whenever it is read.
            if !id.is_empty() {
                self.add_key(&id, cursor);
            }
            self.next_row += 1;
        }
        self.fields = fields;
        if self.next_row == first { Err(malformed("a page of keys has none")) } else { Ok(()) }
    }

    fn add_key(&mut self, id: &[u8], cursor: Micros) {
        let hash = hash_of(id);
        let leaf = self.leaf_of(hash);
        if self.close.contains(&leaf) {
            self.expected.insert(hash, cursor);
        } else if self.close.is_empty() && self.leaves.is_settled(cursor) {
            self.counted += 1;
            if let Some(sums) = self.sums.get_mut(leaf as usize) {
                sums.counted.add(&with_cursor(id, cursor));
            }
        }
    }

    /// Takes rows of the copy: their ids and, after each, its cursor as it is stored; none if it has no cursor.
    pub fn add_stored(&mut self, ids_and_cursors: &[Option<Cow<'_, str>>]) {
        for pair in ids_and_cursors.chunks_exact(2) {
            if let [Some(id), cursor] = pair {
                let cursor = cursor.as_ref().and_then(|text| self.leaves.cursor_of(text));
                self.add_record(id.as_bytes(), cursor);
            }
        }
    }

    fn add_record(&mut self, id: &[u8], cursor: Option<Micros>) {
        if !cursor.map_or(self.rule.is_none(), |cursor| self.leaves.has(self.rule, cursor)) {
            return;
        }
        let is_settled = cursor.is_none_or(|cursor| self.leaves.is_settled(cursor));
        let hash = hash_of(id);
        let leaf = self.leaf_of(hash);
        if self.close.is_empty() {
            let Some(sums) = self.sums.get_mut(leaf as usize).filter(|_| is_settled) else { return };
            self.extras.count(&self.leaves.consent, cursor);
            sums.stored.add(&with_cursor(id, cursor.unwrap_or(Micros::MIN)));
        } else if self.close.contains(&leaf) {
            match self.expected.remove(&hash) {
                // A newer version may have come meanwhile.
                Some(wanted) if cursor < Some(wanted) && self.leaves.is_settled(wanted) => {
                    self.miss(leaf, hash, wanted);
                }
                Some(_) => {}
                None if is_settled => {
                    self.found.entry(leaf).or_default().extra += 1;
                    self.extras.add(&self.leaves.consent, &String::from_utf8_lossy(id), cursor);
                }
                None => {}
            }
        }
    }

    fn miss(&mut self, leaf: u32, hash: u64, cursor: Micros) {
        if !self.excused.contains(&hash) {
            self.found.entry(leaf).or_default().missing.push(cursor);
        }
    }

    /// Ends a round, in which all keys and all rows of the copy were taken. Returns whether there has to be another one.
    pub fn looks_closer(&mut self) -> bool {
        if self.close.is_empty() {
            let differing = |(leaf, Sums { counted, stored }): (usize, &Sums)| {
                (counted != stored).then(|| u32::try_from(leaf).ok()).flatten()
            };
            self.suspects = self.sums.iter().enumerate().filter_map(differing).collect();
        }
        for (hash, cursor) in std::mem::take(&mut self.expected) {
            if self.leaves.is_settled(cursor) {
                self.miss(self.leaf_of(hash), hash, cursor);
            }
        }
        let at_once = usize::try_from(ROWS_AT_ONCE / LEAF_ROWS).unwrap_or(1);
        let rest = self.suspects.split_off(at_once.min(self.suspects.len()));
        self.close = std::mem::replace(&mut self.suspects, rest).into_iter().collect();
        self.next_row = 0;
        !self.close.is_empty()
    }

    fn leaf_of(&self, hash: u64) -> u32 {
        u32::try_from(hash % (self.sums.len() as u64).max(1)).unwrap_or(0)
    }

    /// Returns what was found. `before` is what was found last time.
    pub fn finding(&self, before: Option<&Check>, node: &str) -> Finding<'_> {
        let differences = self.found.iter().filter(|(_, found)| found.extra > 0 || !found.missing.is_empty());
        let differences: Vec<Difference> = differences
            .map(|(leaf, found)| Difference {
                leaf: i64::from(*leaf),
                missing: found.missing.len() as u64,
                extra: found.extra,
                is_explained: found.missing.is_empty(),
            })
            .collect();
        let sum = |count: fn(&Difference) -> u64| -> u64 { differences.iter().map(count).sum() };
        let stored = (self.counted + sum(|one| one.extra)).saturating_sub(sum(|one| one.missing));
        // Later rows may be in the source, though the list does not have them.
        let seen = self.leaves.consent.seen_since(node);
        let stored_before = seen.filter(|_| before.is_some_and(|before| before.extra_since == seen));
        Finding {
            leaves: &self.leaves,
            counted: self.counted,
            stored,
            differences,
            extras: &self.extras,
            stored_before,
            known: Kept::default(),
            kept: Kept::default(),
        }
    }

    /// Returns windows that have the missing rows of some leaves.
    pub fn windows(&self, leaves: &[i64]) -> Vec<Window> {
        let found = leaves.iter().filter_map(|leaf| self.found.get(&u32::try_from(*leaf).ok()?));
        let mut cursors: Vec<Micros> = found.flat_map(|found| found.missing.iter().copied()).collect();
        cursors.sort_unstable();
        cursors.dedup();
        let window = |cursor: Micros| Window { after: Some(cursor.plus(-1)), until: Some(cursor) };
        few(cursors.into_iter().map(window))
    }
}

/// Reads a row of the list, whose last cell is the cursor in microseconds. Writes the id, or nothing if the key cannot be
/// one.
fn read_key(
    cells: &[Cell<'_>],
    fields: &[Field],
    id_type: IdType,
    id: &mut Vec<u8>,
) -> Result<Micros, Failure> {
    let unreadable = || malformed("a key is unreadable");
    if cells.len() != fields.len() {
        return Err(unreadable());
    }
    let values: Result<Vec<Value<'_>>, _> =
        cells.iter().zip(fields).map(|(cell, field)| Value::parse(*cell, field)).collect();
    let values = values.map_err(|_| unreadable())?;
    let Some((Value::Int(cursor), key)) = values.split_last() else { return Err(unreadable()) };
    id.clear();
    let parts: Vec<&Value<'_>> = key.iter().collect();
    let is_id = fields.first().is_some_and(|field| field.name == ID);
    if write_key_parts(id, id_type, is_id, &parts).is_err() {
        id.clear();
    }
    Ok(Micros(*cursor))
}

pub(super) fn hash_of(id: &[u8]) -> u64 {
    let hash = Sha256::digest(id);
    hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

fn with_cursor(id: &[u8], cursor: Micros) -> Vec<u8> {
    [id, &cursor.0.to_be_bytes()].concat()
}

fn malformed(message: &str) -> Failure {
    Failure::new(Kind::ResponseMalformed, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigquery::page::JobReference;
    use crate::time::SECOND_US;
    use crate::validation::StoredCursor;
    use crate::validation::{Consent, Place, Seen};
    use serde_json::json;

    fn at(second: i64) -> Micros {
        Micros(second * SECOND_US)
    }

    /// A comparison of keys whose rows count up to the hundredth second.
    fn comparison(rows: usize) -> KeyComparison {
        let job = JobReference { project_id: "p".to_owned(), job_id: "j".to_owned(), location: None };
        let listing = Listing { job, rows: rows as u64, id_type: IdType::Text, stamp: None };
        let leaves = Leaves {
            id: "t:n-0".to_owned(),
            table_id: "t".to_owned(),
            owner: "n-0".to_owned(),
            asked: 0,
            counted_at: Some(Micros(0)),
            rule: "table/1".to_owned(),
            partitions: vec![0],
            after: None,
            until: Some(at(100)),
            length_us: 0,
            bytes_billed: 0,
            billed_day: 0,
            billed_on_day: 0,
            leaves: Vec::new(),
            cursor: Some(StoredCursor { attribute: "ts".to_owned(), unit_us: SECOND_US }),
            listing: Some(listing.clone()),
            consent: Consent::default(),
            refusal: None,
        };
        KeyComparison::new(leaves, listing).unwrap()
    }

    fn page(keys: &[(String, i64)], total: usize) -> Vec<u8> {
        let cell = |value: &str| json!({"v": value});
        let row = |(key, second): &(String, i64)| json!({"f": [cell(key), cell(&at(*second).0.to_string())]});
        let rows: Vec<serde_json::Value> = keys.iter().map(row).collect();
        let fields = json!([{"name": "k", "type": "STRING"}, {"name": "newest", "type": "INTEGER"}]);
        json!({"jobComplete": true, "totalRows": total.to_string(), "schema": {"fields": fields}, "rows": rows})
            .to_string()
            .into_bytes()
    }

    fn add(comparison: &mut KeyComparison, there: &[(String, i64)], here: &[(String, Option<i64>)]) {
        while comparison.request().is_some() {
            let first = usize::try_from(comparison.next_row).unwrap();
            let end = (first + 700).min(there.len());
            comparison.add_page(page(&there[first..end], there.len())).unwrap();
        }
        let record = |(id, second): &(String, Option<i64>)| {
            [Some(Cow::Owned(id.clone())), second.map(|second| Cow::Owned(second.to_string()))]
        };
        let records: Vec<Option<Cow<'_, str>>> = here.iter().flat_map(record).collect();
        comparison.add_stored(&records);
    }

    /// Compares, with rows that cannot be written. Returns rows there and here, how many are missing, and how many are extra.
    fn compared(
        there: &[(&str, i64)],
        here: &[(&str, Option<i64>)],
        excused: &[&str],
    ) -> ((u64, u64), (u64, u64), Vec<Window>) {
        let there: Vec<(String, i64)> = there.iter().map(|(key, at)| ((*key).to_owned(), *at)).collect();
        let here: Vec<(String, Option<i64>)> =
            here.iter().map(|(key, at)| ((*key).to_owned(), *at)).collect();
        let mut comparison = comparison(there.len());
        let excused: Vec<Cow<'_, str>> = excused.iter().map(|id| Cow::Borrowed(*id)).collect();
        comparison.excuse(&excused);
        loop {
            add(&mut comparison, &there, &here);
            if !comparison.looks_closer() {
                break;
            }
        }
        let finding = comparison.finding(None, "n");
        let missing = finding.differences.iter().map(|one| one.missing).sum();
        let extra = finding.differences.iter().map(|one| one.extra).sum();
        let leaves: Vec<i64> = finding.differences.iter().map(|one| one.leaf).collect();
        ((finding.counted, finding.stored), (missing, extra), comparison.windows(&leaves))
    }

    #[test]
    fn missing_and_older_rows_are_found_and_newer_ones_are_not() {
        let there = [("a", 1), ("b", 2), ("c", 3)];
        let equal = compared(&there, &[("c", Some(3)), ("a", Some(1)), ("b", Some(2))], &[]);
        assert_eq!(equal, ((3, 3), (0, 0), vec![]));
        let newer = compared(&there, &[("a", Some(50)), ("b", Some(101)), ("c", Some(3))], &[]);
        assert_eq!(newer, ((3, 3), (0, 0), vec![]));
        let window = |second: i64| Window { after: Some(at(second).plus(-1)), until: Some(at(second)) };
        let (rows, found, windows) =
            compared(&there, &[("a", Some(1)), ("b", Some(1)), ("d", Some(101))], &[]);
        assert_eq!((rows, found, windows), ((3, 1), (2, 0), vec![window(2), window(3)]));
        // A row without a cursor is older than any other.
        assert_eq!(compared(&there, &[("a", None), ("b", Some(2)), ("c", Some(3))], &[]).1, (1, 0));
    }

    #[test]
    fn rows_that_only_the_copy_has_are_found_unless_they_are_new() {
        let found =
            compared(&[("a", 1)], &[("a", Some(1)), ("b", Some(2)), ("c", None), ("d", Some(101))], &[]);
        assert_eq!(found, ((1, 3), (0, 2), vec![]));
        // The source has a version that was not to be read yet.
        assert_eq!(compared(&[("a", 101)], &[("a", Some(1))], &[]).1, (0, 0));
        assert_eq!(compared(&[("a", 101)], &[], &[]), ((0, 0), (0, 0), vec![]));
        assert_eq!(compared(&[], &[("a", Some(1))], &[]).1, (0, 1));
    }

    #[test]
    fn rows_that_cannot_be_written_are_not_missed() {
        let found = compared(&[("a", 1), ("b", 2)], &[("b", Some(1))], &["a", "b"]);
        assert_eq!(found, ((2, 2), (0, 0), vec![]));
    }

    #[test]
    fn many_differences_are_found_in_several_rounds() {
        let rows = usize::try_from(ROWS_AT_ONCE).unwrap() * 2 + 5_000;
        let there: Vec<(String, i64)> = (0..rows).map(|key| (format!("k{key}"), 7)).collect();
        let here: Vec<(String, Option<i64>)> =
            there.iter().step_by(3).map(|(key, second)| (key.clone(), Some(*second))).collect();
        let mut comparison = comparison(rows);
        let mut rounds = 0;
        loop {
            add(&mut comparison, &there, &here);
            rounds += 1;
            if !comparison.looks_closer() {
                break;
            }
        }
        let finding = comparison.finding(None, "n");
        let missing: u64 = finding.differences.iter().map(|one| one.missing).sum();
        assert_eq!((rounds, missing), (4, (rows - here.len()) as u64));
        assert_eq!((finding.counted, finding.stored), (rows as u64, here.len() as u64));
    }

    #[test]
    fn a_list_that_is_not_complete_is_refused() {
        let mut comparison = comparison(2);
        assert!(comparison.add_page(page(&[("a".to_owned(), 1)], 1)).is_err());
        assert!(comparison.add_page(page(&[], 2)).is_err());
        comparison.add_page(page(&[("a".to_owned(), 1)], 2)).unwrap();
        assert!(comparison.request().unwrap().path.contains("startIndex=1&"));
    }

    #[test]
    fn rows_may_be_deleted_only_if_the_list_was_made_after_the_node_had_told_of_them() {
        let since = Some(Micros(5));
        let known_since = |told: Option<Micros>, seen: Vec<Seen>| {
            let mut comparison = comparison(0);
            comparison.leaves.consent.seen = seen;
            comparison.add_stored(&[Some(Cow::Borrowed("a")), Some(Cow::Borrowed("1"))]);
            while comparison.looks_closer() {
                comparison.add_stored(&[Some(Cow::Borrowed("a")), Some(Cow::Borrowed("1"))]);
            }
            assert_eq!(comparison.finding(None, "n").extras.ids(), ["a"]);
            let place = Place { node: "n", rank: 0, haste: 1, is_certain: false, now: Micros(9) };
            let check = Check::conclude(None, &comparison.finding(None, "n"), |_| Vec::new(), place).check;
            assert_eq!(check.extra_since, Some(Micros(9)));
            let before = Check { extra_since: told, ..check };
            comparison.finding(Some(&before), "n").stored_before
        };
        let seen = |node: &str, since| vec![Seen { node: node.to_owned(), since }];
        assert_eq!(known_since(since, seen("n", since)), since);
        assert_eq!(known_since(since, seen("m", since)), None);
        assert_eq!(known_since(since, Vec::new()), None);
        assert_eq!(known_since(None, seen("n", since)), None);
        assert_eq!(known_since(Some(Micros(6)), seen("n", since)), None);
    }
}
