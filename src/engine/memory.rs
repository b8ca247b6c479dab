//! Divides the memory of a worker among its tables: for pages of results, and for hashes of rows.

use std::collections::{BTreeMap, VecDeque};

/// The size of the largest page of BigQuery.
pub const PAGE_BYTES_MAX: usize = 20 << 20;
/// Pages get this part of all memory. It is small because a page is in memory twice for a while: as it came, and in the
/// core.
const PAGES_PART: usize = 4;
/// Hashes of rows get this part.
const ROWS_PART: usize = 2;
/// Each table may have so many bytes of hashes, whatever the others have.
const ROWS_BYTES_MIN: usize = 1 << 20;

/// What a table holds in memory, and what its next page will take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes of the page that is being read.
    pub page: usize,
    /// Bytes that the next page takes, as an estimate.
    pub next_page: usize,
    /// Bytes of hashes of rows.
    pub rows: usize,
}

/// The memory of a worker. A table that waits for a page holds none, so that tables never wait for each other in a
/// circle.
#[derive(Debug)]
pub struct Budget {
    pages_max: usize,
    rows_max: usize,
    tables: BTreeMap<u32, Held>,
    /// Tables that wait for room, the first one first, with the bytes that they need.
    waiting: VecDeque<(u32, usize)>,
    joined: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    page: usize,
    /// Pages that are fetched ahead.
    ahead: usize,
    rows: usize,
}

impl Budget {
    /// Divides so many bytes.
    pub fn new(bytes_max: usize) -> Budget {
        Budget {
            pages_max: bytes_max / PAGES_PART,
            rows_max: bytes_max / ROWS_PART,
            tables: BTreeMap::new(),
            waiting: VecDeque::new(),
            joined: 0,
        }
    }

    /// Adds a table, and returns its number.
    pub fn join(&mut self) -> u32 {
        self.joined += 1;
        self.tables.insert(self.joined, Held::default());
        self.joined
    }

    /// Releases everything that a table holds. Returns the tables that got room by that.
    pub fn leave(&mut self, table: u32) -> Vec<u32> {
        self.tables.remove(&table);
        self.withdraw(table)
    }

    /// Takes room for a page that a table needs to continue. Returns false if the table has to wait, until it is among
    /// the tables that got room.
    pub fn ask(&mut self, table: u32, bytes: usize) -> bool {
        self.waiting.push_back((table, bytes));
        self.grant();
        !self.is_waiting(table)
    }

    /// Takes room for a page that a table will need soon, if there is room and nobody waits for it.
    pub fn ask_ahead(&mut self, table: u32, bytes: usize) -> bool {
        let has_room = self.waiting.is_empty() && self.pages() + bytes <= self.pages_max;
        if let Some(held) = self.tables.get_mut(&table).filter(|_| has_room) {
            held.ahead += bytes;
        }
        has_room
    }

    /// Makes a page that was fetched ahead, for which so much room was taken, the one that is read.
    pub fn use_ahead(&mut self, table: u32, bytes: usize) {
        if let Some(held) = self.tables.get_mut(&table) {
            held.page = bytes;
            held.ahead = held.ahead.saturating_sub(bytes);
        }
    }

    /// Gives up the pages that were fetched ahead. Returns the tables that got room by that.
    pub fn forget_ahead(&mut self, table: u32) -> Vec<u32> {
        if let Some(held) = self.tables.get_mut(&table) {
            held.ahead = 0;
        }
        self.grant()
    }

    /// Notes what a table holds now. Returns the tables that got room by that.
    pub fn hold(&mut self, table: u32, need: Need) -> Vec<u32> {
        if let Some(held) = self.tables.get_mut(&table) {
            (held.page, held.rows) = (need.page, need.rows);
        }
        self.grant()
    }

    /// Removes a table from those that wait. Returns the tables that got room by that.
    pub fn withdraw(&mut self, table: u32) -> Vec<u32> {
        self.waiting.retain(|(other, _)| *other != table);
        self.grant()
    }

    /// Whether a table waits for room.
    pub fn is_waiting(&self, table: u32) -> bool {
        self.waiting.iter().any(|(other, _)| *other == table)
    }

    /// Returns the bytes of hashes that a table may have.
    pub fn rows_allowed(&self, table: u32) -> usize {
        let others = self.tables.iter().filter(|(number, _)| **number != table);
        let held: usize = others.map(|(_, held)| held.rows).sum();
        self.rows_max.saturating_sub(held).max(ROWS_BYTES_MIN)
    }

    fn pages(&self) -> usize {
        self.tables.values().map(|held| held.page + held.ahead).sum()
    }

    /// Gives room to waiting tables, in their order. A page that is larger than the whole budget gets it alone.
    fn grant(&mut self) -> Vec<u32> {
        let mut granted = Vec::new();
        while let Some((table, bytes)) = self.waiting.front().copied() {
            let pages = self.pages();
            if pages > 0 && pages + bytes > self.pages_max {
                break;
            }
            self.waiting.pop_front();
            if let Some(held) = self.tables.get_mut(&table) {
                held.page = bytes;
                granted.push(table);
            }
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn page(bytes: usize) -> Need {
        Need { page: bytes, ..Need::default() }
    }

    #[test]
    fn who_asks_first_gets_room_first_and_nobody_overtakes() {
        let mut budget = Budget::new(4 * 40 * MB);
        let tables: Vec<u32> = (0..5).map(|_| budget.join()).collect();
        let asked: Vec<bool> = tables.iter().map(|table| budget.ask(*table, 20 * MB)).collect();
        assert_eq!(asked, [true, true, false, false, false]);
        let late = budget.join();
        assert!(!budget.ask(late, MB) && !budget.ask_ahead(tables[0], MB));
        assert_eq!(budget.hold(tables[1], page(0)), [tables[2]]);
        assert!(budget.withdraw(tables[3]).is_empty());
        assert_eq!(budget.leave(tables[0]), [tables[4]]);
        assert_eq!(budget.hold(tables[2], page(MB)), [late]);
        assert!(!budget.is_waiting(late));
    }

    #[test]
    fn a_page_that_is_larger_than_all_memory_is_fetched_alone() {
        let mut budget = Budget::new(4 * MB);
        let (one, other) = (budget.join(), budget.join());
        assert!(budget.ask(one, 20 * MB) && !budget.ask(other, 20 * MB));
        assert_eq!(budget.hold(one, page(0)), [other]);
    }

    #[test]
    fn a_page_is_fetched_ahead_into_room_that_nobody_waits_for() {
        let mut budget = Budget::new(4 * 40 * MB);
        let (one, other) = (budget.join(), budget.join());
        assert!(budget.ask(one, 20 * MB) && budget.ask_ahead(one, 20 * MB) && !budget.ask(other, MB));
        budget.use_ahead(one, 20 * MB);
        assert_eq!(budget.hold(one, page(20 * MB)), [other]);
        assert!(!budget.ask_ahead(one, 20 * MB) && budget.ask_ahead(one, 19 * MB));
        assert!(budget.forget_ahead(one).is_empty());
        assert!(budget.ask_ahead(other, 19 * MB));
    }

    #[test]
    fn several_pages_are_fetched_ahead_and_each_has_its_room() {
        let mut budget = Budget::new(4 * 40 * MB);
        let one = budget.join();
        assert!(budget.ask(one, 10 * MB) && budget.ask_ahead(one, 10 * MB) && budget.ask_ahead(one, 15 * MB));
        assert!(!budget.ask_ahead(one, 10 * MB));
        budget.use_ahead(one, 10 * MB);
        assert!(budget.ask_ahead(one, 10 * MB) && !budget.ask_ahead(one, 10 * MB));
    }

    #[test]
    fn tables_share_the_memory_for_rows_and_each_has_a_little() {
        let mut budget = Budget::new(100 * MB);
        let (one, other) = (budget.join(), budget.join());
        assert_eq!(budget.rows_allowed(one), 50 * MB);
        budget.hold(one, Need { rows: 49 * MB + 1, ..Need::default() });
        assert_eq!((budget.rows_allowed(one), budget.rows_allowed(other)), (50 * MB, MB));
    }
}
