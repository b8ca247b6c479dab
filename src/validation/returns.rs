//! When nodes have to compare their copies: when one of them has returned.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A node that was silent for so long, and is heard again, has returned.
const AWAY_MS: f64 = 20_000.0;
/// Harper may also lose what is written so shortly after that. So it is compared too.
const LAG_MS: f64 = 20_000.0;
/// If clocks differ much, what was written then is not waited for any longer.
const PATIENCE_MS: f64 = 120_000.0;

/// Another node, as its heartbeat is known here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Neighbour {
    /// Its name.
    pub node: String,
    /// Whether it is alive.
    pub alive: bool,
    /// Its last heartbeat, in ms by its clock.
    pub beat: f64,
    /// When it started, by its clock.
    pub started: f64,
}

/// Notices that nodes return. Times are in ms.
#[derive(Debug)]
pub struct Returns {
    node: String,
    haste: f64,
    /// The last return.
    returned_at: f64,
    others: Vec<Neighbour>,
    /// When each beat of another node was first seen.
    seen_at: BTreeMap<String, f64>,
    tables: BTreeMap<String, Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The return for which a comparison was begun.
    begun_for: f64,
    /// How often operators had wanted it to be validated.
    asked: u64,
    asked_at: f64,
}

impl Returns {
    /// Begins when the node itself has returned. `haste` divides the waiting times.
    pub fn new(node: &str, haste: u32, now: f64) -> Returns {
        Returns {
            node: node.to_owned(),
            haste: f64::from(haste.max(1)),
            returned_at: now,
            others: Vec::new(),
            seen_at: BTreeMap::new(),
            tables: BTreeMap::new(),
        }
    }

    /// Looks at the other nodes.
    pub fn observe(&mut self, others: Vec<Neighbour>, now: f64) {
        let before = std::mem::replace(&mut self.others, others);
        let mut is_back = false;
        for other in &self.others {
            let before = before.iter().find(|before| before.node == other.node);
            if before.is_some_and(|before| before.beat == other.beat) {
                continue;
            }
            let seen_at = self.seen_at.insert(other.node.clone(), now);
            // One that has started begins a comparison itself.
            let is_same = before.is_some_and(|before| before.started == other.started);
            is_back |= is_same && seen_at.is_some_and(|at| now - at > AWAY_MS / self.haste);
        }
        if is_back && self.is_first() {
            self.returned_at = now;
        }
    }

    /// Whether it is this node that begins a comparison that concerns all.
    fn is_first(&self) -> bool {
        self.others.iter().all(|other| !other.alive || self.node < other.node)
    }

    /// Returns the other nodes that are alive.
    pub fn alive(&self) -> Vec<String> {
        self.others.iter().filter(|other| other.alive).map(|other| other.node.clone()).collect()
    }

    /// Returns up to when all that living nodes have written is there, or lost: what a node writes arrives in its order.
    pub fn heard(&self, now: f64) -> f64 {
        self.others.iter().filter(|other| other.alive).map(|other| other.beat).fold(now, f64::min)
    }

    /// Tells whether to begin a comparison of a table. `asked` is how often operators wanted it to be validated, and
    /// `compared_until` what the last comparison took in.
    pub fn begins(&mut self, table: &str, asked: u64, compared_until: f64, now: f64) -> bool {
        let (is_first, heard) = (self.is_first(), self.heard(now));
        let first = || Table { asked, ..Table::default() };
        let known = self.tables.entry(table.to_owned()).or_insert_with(first);
        if asked > known.asked {
            known.asked_at = if is_first { now } else { known.asked_at };
            known.asked = asked;
        }
        let wanted = self.returned_at.max(known.asked_at);
        let until = wanted + LAG_MS / self.haste;
        let is_late = now < wanted || now - wanted > PATIENCE_MS / self.haste;
        let is_due = known.begun_for < wanted && compared_until < until && (heard >= until || is_late);
        if is_due {
            known.begun_for = wanted;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(node: &str, beat: f64) -> Neighbour {
        Neighbour { node: node.to_owned(), alive: true, beat, started: 1.0 }
    }

    #[test]
    fn a_node_that_has_started_begins_when_what_was_written_shortly_after_has_arrived() {
        let mut returns = Returns::new("b", 1, 1_000_000.0);
        returns.observe(vec![neighbour("a", 1_010_000.0)], 1_015_000.0);
        assert!(!returns.begins("t", 0, 0.0, 1_015_000.0));
        returns.observe(vec![neighbour("a", 1_020_000.0)], 1_025_000.0);
        assert!(returns.begins("t", 0, 0.0, 1_025_000.0));
        assert!(!returns.begins("t", 0, 0.0, 1_030_000.0));
        // Each table has its own comparison.
        assert!(returns.begins("u", 0, 0.0, 1_030_000.0));
        assert!(
            !returns.begins("v", 0, 1_020_000.0, 1_030_000.0),
            "another node has begun one that takes it in"
        );
    }

    #[test]
    fn clocks_that_differ_delay_it_for_two_minutes() {
        let mut returns = Returns::new("b", 1, 1_000_000.0);
        for now in [1_060_000.0, 1_119_000.0, 1_121_000.0] {
            returns.observe(vec![neighbour("a", now - 600_000.0)], now);
            assert_eq!(returns.begins("t", 0, 0.0, now), now > 1_120_000.0);
        }
    }

    #[test]
    fn the_first_node_begins_when_another_one_was_away_or_operators_want_it() {
        for (node, begins) in [("a", true), ("c", false)] {
            let mut returns = Returns::new(node, 1, 1.0);
            let mut look = |beat: f64, asked: u64, now: f64| {
                returns.observe(vec![neighbour("b", beat)], now);
                returns.begins("t", asked, 0.0, now)
            };
            assert!(look(30_000.0, 0, 30_000.0));
            assert!(!look(35_000.0, 0, 35_000.0));
            // It is silent for longer than usual.
            assert!(!look(35_000.0, 0, 60_000.0));
            assert!(!look(65_000.0, 0, 65_000.0));
            assert_eq!(look(85_000.0, 0, 85_000.0), begins);
            assert!(!look(90_000.0, 1, 90_000.0));
            assert_eq!(look(110_000.0, 1, 110_000.0), begins);
            assert!(!look(130_000.0, 1, 130_000.0));
        }
    }

    #[test]
    fn what_a_dead_node_has_written_is_not_waited_for() {
        let mut returns = Returns::new("a", 1, 0.0);
        let dead = Neighbour { alive: false, ..neighbour("b", 5.0) };
        returns.observe(vec![dead, neighbour("c", 90_000.0)], 100_000.0);
        assert_eq!(returns.heard(100_000.0), 90_000.0);
        assert_eq!(returns.alive(), ["c"]);
    }
}
