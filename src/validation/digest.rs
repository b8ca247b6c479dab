//! Tells two sets of rows apart without comparing them row by row.

use sha2::{Digest as _, Sha256};

/// The words of a text's SHA-256 that are summed up: where their hexadecimal digits begin, counted from one.
pub const WORDS: [u32; 2] = [1, 9];

/// The number of some rows, and two sums over the hashes of their texts. The order of the rows does not matter, and a text
/// that is there twice counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many rows.
    pub rows: u64,
    /// The sums of the first and the second 32 bits of the hashes, modulo 2³².
    pub sums: [u32; 2],
}

impl Digest {
    /// Adds a row.
    pub fn add(&mut self, text: &[u8]) {
        let hash = Sha256::digest(text);
        self.rows += 1;
        for (sum, word) in self.sums.iter_mut().zip(hash.chunks(4)) {
            *sum = sum.wrapping_add(word.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)));
        }
    }

    /// Returns what is left without some of the rows.
    #[must_use]
    pub fn without(self, some: Digest) -> Digest {
        let [one, other] = self.sums;
        let [less, and_less] = some.sums;
        Digest {
            rows: self.rows.saturating_sub(some.rows),
            sums: [one.wrapping_sub(less), other.wrapping_sub(and_less)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Digest {
        let mut digest = Digest::default();
        texts.iter().for_each(|text| digest.add(text.as_bytes()));
        digest
    }

    #[test]
    fn it_sums_the_first_two_words_of_the_hashes() {
        // printf 1704067200000000 | sha256sum
        let one = of(&["1704067200000000"]);
        assert_eq!(one, Digest { rows: 1, sums: [0x793b_e174, 0x3608_d84d] });
        let two = of(&["1704067200000000", "1704067200000000"]);
        assert_eq!(two, Digest { rows: 2, sums: [0xf277_c2e8, 0x6c11_b09a] });
    }

    #[test]
    fn sets_are_told_apart_whatever_their_order() {
        assert_eq!(of(&["1", "2", "3"]), of(&["3", "1", "2"]));
        assert_ne!(of(&["1", "2", "3"]), of(&["1", "2", "4"]));
        assert_ne!(of(&["1", "1", "2"]), of(&["1", "2", "2"]));
        assert_ne!(of(&["1"]), of(&[]));
    }
}
