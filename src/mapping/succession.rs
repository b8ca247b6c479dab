//! Finds the stored row that a new row replaces, after the ids of rows have changed.
//!
//! Rows without a key are identified by their content. When a column is dropped or its type changes, they get other
//! ids. The stored rows are then found by their cursor and by the columns that both versions have in common. Rows that
//! are equal in all of these form a group. Within a group only the number of rows matters: once all of its rows are
//! stored under new ids, none may keep a former id, whichever node wrote it and whenever it arrived.

use super::id::{ContentHash, bounds, content_hash, cursor_of};
use super::layout::Layout;
use crate::partition::Rule;
use crate::time::Micros;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A row for comparison: its id, and its values in the order of the layout, as texts that are equal for equal values;
/// none for NULL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Comparable(pub String, pub Vec<Option<String>>);

/// A row, and the stored rows that it replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Heir {
    /// The row's index among the rows that are being written; none if it is stored already, and stays as it is.
    pub record: Option<usize>,
    /// The row's index among the stored rows, if it is stored.
    pub stored: Option<usize>,
    /// The indexes of the stored rows that it replaces.
    pub former: Vec<usize>,
}

/// The range of cursors in which all rows have their newest ids, in some partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Rows at or before this instant do not belong to it.
    pub after: Option<Micros>,
    /// Rows after this instant do not belong to it.
    pub until: Option<Micros>,
    /// How the table is divided.
    pub rule: Rule,
    /// The partitions, in order.
    pub partitions: Vec<u32>,
}

impl Renewed {
    /// Returns the range of all rows of a window.
    pub fn all_of(after: Option<Micros>, until: Option<Micros>) -> Renewed {
        Renewed { after, until, rule: Rule::WHOLE, partitions: vec![0] }
    }

    /// Returns the inclusive bounds of the ids in the range.
    pub fn bounds(&self) -> (String, String) {
        bounds(self.after, self.until)
    }

    fn has(&self, id: &str) -> bool {
        cursor_of(id).is_some_and(|cursor| {
            self.after.is_none_or(|after| cursor > after)
                && self.until.is_none_or(|until| cursor <= until)
                && self.partitions.binary_search(&self.rule.partition(cursor)).is_ok()
        })
    }
}

/// The stored rows that have the same cursors as rows that are being written.
#[derive(Debug)]
pub struct Succession {
    era: u32,
    /// Per column: the era since which its values have their present form.
    since: Vec<u32>,
    /// The range in which all rows have their new ids once the rows that are being written are stored.
    whole: Option<Renewed>,
    /// The indexes of rows outside that range.
    partial: BTreeSet<usize>,
    rows: usize,
    renewed: BTreeMap<String, Successor>,
    /// The rows of each former era, by the content that they have in common with present rows.
    former: BTreeMap<u32, BTreeMap<ContentHash, VecDeque<usize>>>,
}

/// A row that is stored under a new id.
#[derive(Debug)]
struct Successor {
    place: usize,
    values: Vec<Option<String>>,
}

impl Succession {
    /// Starts without any row.
    pub fn new(layout: &Layout, whole: Option<Renewed>) -> Succession {
        let since = layout.columns.iter().map(|column| column.since).collect();
        Succession::among(since, layout.era, whole)
    }

    /// Starts without any row, for columns whose values have had their present form since these eras.
    pub fn among(since: Vec<u32>, era: u32, whole: Option<Renewed>) -> Succession {
        Succession {
            era,
            since,
            whole,
            partial: BTreeSet::new(),
            rows: 0,
            renewed: BTreeMap::new(),
            former: BTreeMap::new(),
        }
    }

    /// Adds stored rows after those that were added before.
    pub fn add(&mut self, stored: Vec<Comparable>) {
        for Comparable(id, values) in stored {
            let (place, era) = (self.rows, era_of(&id));
            self.rows += 1;
            if era >= self.era {
                let values = if self.whole.is_some() { values } else { Vec::new() };
                self.renewed.insert(id, Successor { place, values });
                continue;
            }
            if self.whole.as_ref().is_some_and(|whole| !whole.has(&id)) {
                self.partial.insert(place);
            }
            let content = self.content(&values, era);
            self.former.entry(era).or_default().entry(content).or_default().push_back(place);
        }
    }

    /// Finds the rows that replace the added rows: rows that are being written and, once all rows of a group have their
    /// new ids, rows that are stored.
    pub fn settle(mut self, records: &[Comparable]) -> Vec<Heir> {
        let mut heirs: Vec<Heir> = Vec::with_capacity(records.len());
        for (place, Comparable(id, values)) in records.iter().enumerate() {
            let stored = self.renewed.remove(id).map(|renewed| renewed.place);
            // A row that is stored already has replaced a row before, or never had one here to replace. Its group
            // decides.
            let former = if stored.is_none() { self.take(values).into_iter().collect() } else { Vec::new() };
            heirs.push(Heir { record: Some(place), stored, former });
        }
        if self.whole.is_some() {
            self.take_rest(records, &mut heirs);
        }
        heirs.retain(|heir| !heir.former.is_empty() || (heir.record.is_some() && heir.stored.is_some()));
        heirs
    }

    /// Takes one former row, of the latest era that has one. It takes only one, because the others may belong to rows
    /// that may still be read.
    fn take(&mut self, values: &[Option<String>]) -> Option<usize> {
        let eras: Vec<u32> = self.former.keys().rev().copied().collect();
        let take_of = |era: u32| {
            let content = self.content(values, era);
            self.former.get_mut(&era)?.get_mut(&content)?.pop_front()
        };
        eras.into_iter().find_map(take_of)
    }

    /// Assigns the remaining former rows to rows of their groups.
    fn take_rest(&mut self, records: &[Comparable], heirs: &mut Vec<Heir>) {
        let mut contents: Vec<&[Option<String>]> = records.iter().map(|record| record.1.as_slice()).collect();
        let renewed = std::mem::take(&mut self.renewed);
        for Successor { place, values } in renewed.values() {
            heirs.push(Heir { stored: Some(*place), ..Heir::default() });
            contents.push(values);
        }
        for (era, groups) in std::mem::take(&mut self.former) {
            let mut members: BTreeMap<ContentHash, Vec<usize>> = BTreeMap::new();
            for (heir, values) in contents.iter().enumerate() {
                members.entry(self.content(values, era)).or_default().push(heir);
            }
            for (content, left) in groups {
                // If the source has no such rows any more, the stored ones stay.
                let Some(group) = members.get(&content) else { continue };
                let left = left.into_iter().filter(|place| !self.partial.contains(place));
                for (place, heir) in left.zip(group.iter().rev().cycle()) {
                    if let Some(heir) = heirs.get_mut(*heir) {
                        heir.former.push(place);
                    }
                }
            }
        }
    }

    /// Returns the content that a row has in common with rows of an era. A column that a former row does not have was
    /// NULL.
    fn content(&self, values: &[Option<String>], era: u32) -> ContentHash {
        let mut text = Vec::new();
        for (value, _) in values.iter().zip(&self.since).filter(|(_, since)| **since <= era) {
            match value {
                Some(value) => {
                    text.push(1);
                    text.extend_from_slice(&(value.len() as u64).to_le_bytes());
                    text.extend_from_slice(value.as_bytes());
                }
                None => text.push(0),
            }
        }
        content_hash(&text)
    }
}

/// Returns the era from an id.
fn era_of(id: &str) -> u32 {
    id.split('~').nth(2).and_then(|era| era.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns that stayed, and one that is new in era 1.
    const SINCE: [u32; 2] = [0, 1];

    fn row(id: &str, values: [Option<&str>; 2]) -> Comparable {
        Comparable(id.to_owned(), values.map(|value| value.map(str::to_owned)).to_vec())
    }

    fn everything() -> Renewed {
        Renewed { after: None, until: None, rule: Rule::WHOLE, partitions: vec![0] }
    }

    fn settle(stored: &[Comparable], records: &[Comparable], is_whole: bool) -> Vec<Heir> {
        let mut succession = Succession::among(SINCE.to_vec(), 1, is_whole.then(everything));
        for one in stored {
            succession.add(vec![one.clone()]);
        }
        succession.settle(records)
    }

    fn heir(record: Option<usize>, stored: Option<usize>, former: &[usize]) -> Heir {
        Heir { record, stored, former: former.to_vec() }
    }

    #[test]
    fn each_row_takes_the_place_of_one_that_has_all_in_common_with_it() {
        let stored = [
            row("7----------a", [Some("1"), None]),
            row("7----------b", [Some("1"), None]),
            row("7----------c", [None, None]),
        ];
        let records =
            [row("7----------x~0~1", [Some("1"), Some("new")]), row("7----------y~0~1", [Some("2"), None])];
        assert_eq!(settle(&stored, &records, false), [heir(Some(0), None, &[0])]);
        let records =
            [row("7----------x~0~1", [Some("1"), None]), row("7----------x~1~1", [Some("1"), None])];
        let expected = [heir(Some(0), None, &[0]), heir(Some(1), None, &[1])];
        assert_eq!(settle(&stored, &records, true), expected);
    }

    #[test]
    fn a_row_that_is_stored_under_its_new_id_takes_no_other_place_until_its_group_is_whole() {
        let stored = [row("7----------x~0~1", [Some("1"), None]), row("7----------a", [Some("1"), None])];
        let records = [row("7----------x~0~1", [Some("1"), None])];
        assert_eq!(settle(&stored, &records, false), [heir(Some(0), Some(0), &[])]);
        assert_eq!(settle(&stored, &records, true), [heir(Some(0), Some(0), &[1])]);
    }

    #[test]
    fn a_whole_group_leaves_nothing_under_former_ids_whoever_is_being_written() {
        let stored = [
            row("7----------x~0~1", [Some("1"), Some("n")]),
            row("7----------a", [Some("1"), None]),
            row("7----------b", [Some("1"), None]),
            row("7----------c", [Some("2"), None]),
        ];
        assert_eq!(settle(&stored, &[], false), []);
        assert_eq!(settle(&stored, &[], true), [heir(None, Some(0), &[1, 2])]);
    }

    #[test]
    fn a_row_takes_one_place_alone_until_its_group_is_whole_whatever_the_eras() {
        let settle = |is_whole: bool| {
            let mut succession = Succession::among(vec![0], 2, is_whole.then(everything));
            let rows = ["7----------a", "7----------a~0~1", "7----------b~0~1"]
                .map(|id| Comparable(id.to_owned(), vec![Some("1".to_owned())]));
            succession.add(rows.to_vec());
            succession.settle(&[Comparable("x~0~2".to_owned(), vec![Some("1".to_owned())])])
        };
        assert_eq!(settle(false), [heir(Some(0), None, &[1])]);
        assert_eq!(settle(true), [heir(Some(0), None, &[1, 0, 2])]);
    }
}
