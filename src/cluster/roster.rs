//! What a node tells the others: the nodes it receives heartbeats from, and the tables its workers really run.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;

/// The last roster of a node, from the table SyncRoster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// The nodes that it sees alive, including itself; none while it does not know yet.
    pub sees: BTreeSet<String>,
    /// The tables that some of its workers run, by their ids.
    pub tables: Vec<Running>,
}

/// What a node's workers do for a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The table's id.
    pub id: String,
    /// The indices of the workers that run it, or would if it were started.
    pub workers: BTreeSet<u32>,
    /// Those among them that cannot proceed. They have a share only if no other worker has one.
    pub troubled: BTreeSet<u32>,
    /// How many partitions the table has; zero as long as nobody on the node knows.
    pub of: u32,
    /// The partitions that they read.
    pub reads: Partitions,
}

/// Partitions of a table, as the bits of hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partitions(BTreeSet<u32>);

impl Roster {
    /// Finds the entry of a table.
    pub fn table(&self, id: &str) -> Option<&Running> {
        self.tables.iter().find(|table| table.id == id)
    }
}

impl Partitions {
    /// Adds partitions.
    pub fn extend(&mut self, others: impl IntoIterator<Item = u32>) {
        self.0.extend(others);
    }

    /// Returns them in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn from_hex(text: &str) -> Partitions {
        let digits = text.chars().filter_map(|digit| digit.to_digit(16));
        let bits = (0_u32..).zip(digits).flat_map(|(place, digit)| {
            (0..4).filter(move |bit| digit & (1 << bit) != 0).map(move |bit| place * 4 + bit)
        });
        Partitions(bits.collect())
    }

    fn to_hex(&self) -> String {
        let digits = self.0.last().map_or(0, |last| last / 4 + 1);
        let digit = |place: u32| {
            let bits = (0..4).filter(|bit| self.0.contains(&(place * 4 + bit)));
            char::from_digit(bits.map(|bit| 1 << bit).sum(), 16).unwrap_or('0')
        };
        (0..digits).map(digit).collect()
    }
}

impl FromIterator<u32> for Partitions {
    fn from_iter<I: IntoIterator<Item = u32>>(partitions: I) -> Partitions {
        Partitions(partitions.into_iter().collect())
    }
}

impl Serialize for Partitions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Partitions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Partitions, D::Error> {
        Ok(Partitions::from_hex(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn partitions_are_written_as_the_bits_of_digits() {
        let partitions: Partitions = [0, 1, 5, 11].into_iter().collect();
        assert_eq!(serde_json::to_string(&partitions).unwrap(), r#""328""#);
    }

    proptest! {
        #[test]
        fn partitions_are_read_as_they_were_written(found in prop::collection::btree_set(0..4_096_u32, 0..200)) {
            let partitions = Partitions(found);
            prop_assert_eq!(Partitions::from_hex(&partitions.to_hex()), partitions);
        }
    }
}
