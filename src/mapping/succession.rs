//! Which stored row is the former self of which new one, once the ids of rows have changed.
//!
//! Rows without key are known by their content alone. When a column is gone, or has another type, they get other ids,
//! and those that are stored are found again by their cursor and by what both have in common. Rows that have all of it
//! in common form a group, and of a group only the number matters: once all its rows are stored under new ids, none may
//! stay under an older one, whoever wrote it and whenever it arrived.

use super::id::{ContentHash, content_hash};
use super::layout::Layout;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// A row as it is compared: its id, and each column's value in the order of the layout, as any text that is equal for
/// equal values; none for NULL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Comparable(pub String, pub Vec<Option<String>>);

/// A row, and the stored rows that it takes the place of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Heir {
    /// The row's place among those that are being written; none if it is stored already, and stays as it is.
    pub record: Option<usize>,
    /// The row's place among those that are stored, where it is.
    pub stored: Option<usize>,
    /// The places of its former selves among those that are stored.
    pub former: Vec<usize>,
}

/// The stored rows that share their cursors with rows that are being written.
#[derive(Debug)]
pub struct Succession {
    era: u32,
    /// Per column: the era since which its values are as they are.
    since: Vec<u32>,
    /// Whether all rows of these cursors have their new ids, once those that are being written are stored.
    is_whole: bool,
    rows: usize,
    renewed: BTreeMap<String, Renewed>,
    /// Rows of each former era, by what they have in common with those of now.
    former: BTreeMap<u32, BTreeMap<ContentHash, VecDeque<usize>>>,
}

/// A row that is stored under a new id.
#[derive(Debug)]
struct Renewed {
    place: usize,
    values: Vec<Option<String>>,
}

impl Succession {
    /// Starts without any row.
    pub fn new(layout: &Layout, is_whole: bool) -> Succession {
        let since = layout.columns.iter().map(|column| column.since).collect();
        Succession::among(since, layout.era, is_whole)
    }

    /// Starts without any row, for columns whose values are as they are since these eras.
    pub fn among(since: Vec<u32>, era: u32, is_whole: bool) -> Succession {
        Succession { era, since, is_whole, rows: 0, renewed: BTreeMap::new(), former: BTreeMap::new() }
    }

    /// Adds stored rows, behind those that were added before.
    pub fn add(&mut self, stored: Vec<Comparable>) {
        for Comparable(id, values) in stored {
            let (place, era) = (self.rows, era_of(&id));
            self.rows += 1;
            if era >= self.era {
                let values = if self.is_whole { values } else { Vec::new() };
                self.renewed.insert(id, Renewed { place, values });
                continue;
            }
            let content = self.content(&values, era);
            self.former.entry(era).or_default().entry(content).or_default().push_back(place);
        }
    }

    /// Finds the heirs of the rows that were added: the rows that are being written, and, once all rows of a group have
    /// their new ids, those that are stored.
    pub fn settle(mut self, records: &[Comparable]) -> Vec<Heir> {
        let mut heirs: Vec<Heir> = Vec::with_capacity(records.len());
        for (place, Comparable(id, values)) in records.iter().enumerate() {
            let stored = self.renewed.remove(id).map(|renewed| renewed.place);
            // A Harper that ended itself may have kept the new row, and the former one with it.
            let former = self.take(values);
            heirs.push(Heir { record: Some(place), stored, former });
        }
        if self.is_whole {
            self.take_rest(records, &mut heirs);
        }
        heirs.retain(|heir| !heir.former.is_empty() || (heir.record.is_some() && heir.stored.is_some()));
        heirs
    }

    /// Takes a row of each era, the latest first: nodes that did not hear of each other may have written one row in
    /// several of them.
    fn take(&mut self, values: &[Option<String>]) -> Vec<usize> {
        let eras: Vec<u32> = self.former.keys().rev().copied().collect();
        let take_of = |era: u32| {
            let content = self.content(values, era);
            self.former.get_mut(&era)?.get_mut(&content)?.pop_front()
        };
        eras.into_iter().filter_map(take_of).collect()
    }

    /// Gives the rows that are left to rows of their groups.
    fn take_rest(&mut self, records: &[Comparable], heirs: &mut Vec<Heir>) {
        let mut contents: Vec<&[Option<String>]> = records.iter().map(|record| record.1.as_slice()).collect();
        let renewed = std::mem::take(&mut self.renewed);
        for Renewed { place, values } in renewed.values() {
            heirs.push(Heir { stored: Some(*place), ..Heir::default() });
            contents.push(values);
        }
        for (era, groups) in std::mem::take(&mut self.former) {
            let mut members: BTreeMap<ContentHash, Vec<usize>> = BTreeMap::new();
            for (heir, values) in contents.iter().enumerate() {
                members.entry(self.content(values, era)).or_default().push(heir);
            }
            for (content, left) in groups {
                // Rows of which the source has none any more stay.
                let Some(group) = members.get(&content) else { continue };
                for (place, heir) in left.into_iter().zip(group.iter().rev().cycle()) {
                    if let Some(heir) = heirs.get_mut(*heir) {
                        heir.former.push(place);
                    }
                }
            }
        }
    }

    /// Returns what a row has in common with rows of an era. A column that a former row does not have at all was NULL.
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

/// Returns the era that is written in an id.
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

    fn settle(stored: &[Comparable], records: &[Comparable], is_whole: bool) -> Vec<Heir> {
        let mut succession = Succession::among(SINCE.to_vec(), 1, is_whole);
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
        let stored = [row("a", [Some("1"), None]), row("b", [Some("1"), None]), row("c", [None, None])];
        let records = [row("x~0~1", [Some("1"), Some("new")]), row("y~0~1", [Some("2"), None])];
        assert_eq!(settle(&stored, &records, false), [heir(Some(0), None, &[0])]);
        let records = [row("x~0~1", [Some("1"), None]), row("x~1~1", [Some("1"), None])];
        let expected = [heir(Some(0), None, &[0]), heir(Some(1), None, &[1])];
        assert_eq!(settle(&stored, &records, true), expected);
    }

    #[test]
    fn a_row_that_is_stored_under_its_new_id_takes_a_place_too() {
        let stored = [row("x~0~1", [Some("1"), None]), row("a", [Some("1"), None])];
        let records = [row("x~0~1", [Some("1"), None])];
        assert_eq!(settle(&stored, &records, false), [heir(Some(0), Some(0), &[1])]);
    }

    #[test]
    fn a_whole_group_leaves_nothing_under_former_ids_whoever_is_being_written() {
        let stored = [
            row("x~0~1", [Some("1"), Some("n")]),
            row("a", [Some("1"), None]),
            row("b", [Some("1"), None]),
            row("c", [Some("2"), None]),
        ];
        assert_eq!(settle(&stored, &[], false), []);
        assert_eq!(settle(&stored, &[], true), [heir(None, Some(0), &[1, 2])]);
    }

    #[test]
    fn rows_of_several_former_eras_are_taken_together_and_of_two_nodes_each_once() {
        let mut succession = Succession::among(vec![0], 2, true);
        let rows = ["a", "a~0~1", "b~0~1"].map(|id| Comparable(id.to_owned(), vec![Some("1".to_owned())]));
        succession.add(rows.to_vec());
        let heirs = succession.settle(&[Comparable("x~0~2".to_owned(), vec![Some("1".to_owned())])]);
        assert_eq!(heirs, [heir(Some(0), None, &[1, 0, 2])]);
    }
}
