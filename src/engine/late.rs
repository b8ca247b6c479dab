//! The late range: the stretch before the watermark that is read again, and the rows of it that are in Harper.

use crate::time::Micros;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

/// Rows of the late range that are remembered; what is beyond is written again, which does no harm.
const RECENT_ROWS_MAX: usize = 1_000_000;

/// What the windows that were read leave for the next one.
#[derive(Debug)]
pub struct LateRange {
    /// Its rows that are in Harper.
    recent: Recent,
    /// Whether the next window reads it again.
    is_reread: bool,
    /// The partitions of the last window.
    partitions: Vec<u32>,
}

/// The rows of the late range, by the fingerprints of their texts, with their cursors. Kept in parts, none of which takes
/// long to grow.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    parts: Vec<HashMap<u64, Micros, BuildHasherDefault<Identity>>>,
    count: usize,
}

/// A set of hashes in parts, none of which takes long to grow: one large table would be moved at once, and keep Harper
/// from answering for that time.
#[derive(Debug, Clone)]
pub struct Fingerprints {
    parts: Vec<HashSet<u64, BuildHasherDefault<Identity>>>,
    count: usize,
}

impl Default for Fingerprints {
    fn default() -> Fingerprints {
        Fingerprints { parts: vec![HashSet::default(); Self::PARTS], count: 0 }
    }
}

impl Fingerprints {
    const PARTS: usize = 64;

    /// Adds a fingerprint; tells whether it is new.
    pub fn insert(&mut self, fingerprint: u64) -> bool {
        let is_new =
            self.parts.get_mut(Self::place(fingerprint)).is_some_and(|part| part.insert(fingerprint));
        self.count += usize::from(is_new);
        is_new
    }

    /// The tables themselves use the lowest and the highest bits.
    fn place(fingerprint: u64) -> usize {
        (fingerprint >> 40) as usize % Self::PARTS
    }
}

/// A hasher for keys that are hashes already.
#[derive(Debug, Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl Recent {
    /// Returns the fingerprint of a row's text, of which there were `occurrence` before.
    pub fn fingerprint(text: &str, occurrence: u32) -> u64 {
        let mut hasher = DefaultHasher::new();
        (text, occurrence).hash(&mut hasher);
        hasher.finish()
    }

    /// Remembers a row. Those up to `bound` need not be remembered any longer: they make room before more is taken.
    pub fn remember(&mut self, fingerprint: u64, cursor: Micros, bound: Option<Micros>) {
        if self.parts.is_empty() {
            self.parts.resize_with(Fingerprints::PARTS, HashMap::default);
        }
        let Some(part) = self.parts.get_mut(Fingerprints::place(fingerprint)) else { return };
        let before = part.len();
        if part.len() == part.capacity()
            && let Some(bound) = bound
        {
            part.retain(|_, cursor| *cursor > bound);
        }
        if part.len() < RECENT_ROWS_MAX / Fingerprints::PARTS {
            part.insert(fingerprint, cursor);
        }
        self.count = self.count + part.len() - before;
    }

    /// Tells whether a row is remembered.
    pub fn knows(&self, fingerprint: u64) -> bool {
        let part = self.parts.get(Fingerprints::place(fingerprint));
        part.is_some_and(|part| part.contains_key(&fingerprint))
    }

    /// Tells whether no row is remembered.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Default for LateRange {
    fn default() -> LateRange {
        LateRange { recent: Recent::default(), is_reread: true, partitions: Vec::new() }
    }
}

impl LateRange {
    /// Returns its rows that are in Harper.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Whether the next window of some partitions reads it again. Partitions that were read by other windows than the
    /// last one may have had late rows since.
    pub fn is_reread_for(&self, partitions: &[u32]) -> bool {
        self.is_reread || self.partitions != partitions
    }

    /// Makes the next window read it again.
    pub fn reread(&mut self) {
        self.is_reread = true;
    }

    /// Forgets its rows: they may have changed in Harper, or are looked at otherwise.
    pub fn forget_rows(&mut self) {
        self.recent = Recent::default();
    }

    /// Takes what a window left that is in Harper now. Unless it is reread, nothing of it can have been late.
    pub fn follow(&mut self, recent: Recent, partitions: Vec<u32>, is_reread: bool) {
        *self = LateRange { recent, is_reread, partitions };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_rows_are_told_apart_by_how_many_came_before() {
        let mut recent = Recent::default();
        recent.remember(Recent::fingerprint("row", 0), Micros(0), None);
        assert!(recent.knows(Recent::fingerprint("row", 0)));
        assert!(!recent.knows(Recent::fingerprint("row", 1)));
    }

    #[test]
    fn rows_that_fell_behind_the_late_range_make_room_for_those_in_it() {
        let mut recent = Recent::default();
        let fingerprint = |number: i64| Recent::fingerprint(&number.to_string(), 0);
        let rows = 3 * RECENT_ROWS_MAX as i64;
        for number in 0..rows {
            recent.remember(fingerprint(number), Micros(number), Some(Micros(number - 1_000)));
        }
        assert!(recent.count < 200_000, "{}", recent.count);
        assert!((rows - 1_000..rows).all(|number| recent.knows(fingerprint(number))));
    }

    #[test]
    fn between_two_windows_of_a_backlog_nothing_is_late_but_for_other_partitions() {
        let mut late = LateRange::default();
        assert!(late.is_reread_for(&[]));
        late.follow(Recent::default(), vec![1, 2], false);
        assert!(!late.is_reread_for(&[1, 2]) && late.is_reread_for(&[1]));
        late.reread();
        assert!(late.is_reread_for(&[1, 2]));
    }
}
