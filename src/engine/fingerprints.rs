//! Fingerprints of rows, each with a note of 32 bits, in a compact hash table.

use crate::mapping::row::RowKey;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The table consists of parts, because a small part grows quickly. One large table would be copied at once, and Harper
/// could not answer meanwhile.
pub const PARTS: usize = 256;
const ENTRY_BYTES: usize = size_of::<u128>();
const SLOTS_MIN: usize = 8;

/// 96 bits of a row's hash, never zero. A row with the same fingerprint as another one would be lost: among 6,000,000
/// others, the odds are 1 to 10^22.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u128);

/// Fingerprints, each with a note.
#[derive(Debug, Clone, Default)]
pub struct Fingerprints {
    parts: Vec<Part>,
    count: usize,
    slots: usize,
}

/// A hash table with linear probing: an entry has a fingerprint in its upper 96 bits and the note in the lower 32, and is
/// zero if the slot is free.
#[derive(Debug, Clone, Default)]
struct Part {
    slots: Vec<u128>,
    used: usize,
    /// For how many more fingerprints no attempt is made to find room.
    refusals_left: usize,
}

impl Fingerprint {
    /// Returns the fingerprint of a row's text that has occurred `occurrence` times before.
    pub fn of_text(text: &str, occurrence: u32) -> Fingerprint {
        let half = |number: u64| {
            let mut hasher = DefaultHasher::new();
            (number, text, occurrence).hash(&mut hasher);
            hasher.finish()
        };
        Fingerprint::of_bits(u128::from(half(0)) << 64 | u128::from(half(1)))
    }

    /// Returns the fingerprint of a row that is recognised by its content.
    pub fn of_content(key: &RowKey) -> Fingerprint {
        let hash = key.hash.iter().take(12).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let cursor = (key.cursor.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Fingerprint::of_bits(hash << 32 ^ u128::from(cursor) << 64)
    }

    fn of_bits(bits: u128) -> Fingerprint {
        Fingerprint((bits >> 32).max(1))
    }

    fn part(self) -> usize {
        self.0 as usize % PARTS
    }

    /// The slot at which its probing starts.
    fn start(self, slots: usize) -> usize {
        (((self.0 >> 8) as u32 as u64 * slots as u64) >> 32) as usize
    }
}

impl Fingerprints {
    /// Tells how many bytes so many fingerprints take at most.
    pub fn bytes_for(count: u64) -> u64 {
        count.saturating_mul(ENTRY_BYTES as u64 * 10 / 7)
    }

    /// Tells how many fingerprints so many bytes are enough for.
    pub fn count_within(bytes: usize) -> u64 {
        (bytes / ENTRY_BYTES) as u64 * 7 / 10
    }

    /// Returns the bytes that the table takes.
    pub fn bytes(&self) -> usize {
        self.slots * ENTRY_BYTES
    }

    /// Returns how many fingerprints it holds.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns a fingerprint's note.
    pub fn note(&self, fingerprint: Fingerprint) -> Option<u32> {
        self.parts.get(fingerprint.part())?.note(fingerprint)
    }

    /// Sets a fingerprint's note to what `next` makes of its former note. Fingerprints whose notes `keeps` rejects are
    /// removed to make room. Returns false if there is no room within `bytes_max`.
    pub fn set(
        &mut self,
        fingerprint: Fingerprint,
        bytes_max: usize,
        keeps: impl Fn(u32) -> bool,
        next: impl FnOnce(Option<u32>) -> u32,
    ) -> bool {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, Part::default);
        }
        let slots_left = (bytes_max / ENTRY_BYTES).saturating_sub(self.slots);
        let Some(part) = self.parts.get_mut(fingerprint.part()) else { return false };
        let before = part.note(fingerprint);
        let (slots, used) = (part.slots.len(), part.used);
        let has_room = before.is_some() || part.make_room(slots_left, keeps);
        if has_room {
            part.put(fingerprint, next(before));
        }
        self.slots = self.slots + part.slots.len() - slots;
        self.count = self.count + part.used - used;
        has_room
    }

    /// Looks for room again in all parts that had none.
    pub fn look_for_room(&mut self) {
        for part in &mut self.parts {
            part.refusals_left = 0;
        }
    }

    /// Removes the fingerprints of a part whose notes `keeps` rejects.
    pub fn sweep(&mut self, part: usize, keeps: impl Fn(u32) -> bool) {
        let Some(part) = self.parts.get_mut(part) else { return };
        let (slots, used) = (part.slots.len(), part.used);
        let kept = part.count(&keeps);
        if kept < used {
            part.rebuild(slots_for(kept), keeps);
        }
        self.slots = self.slots + part.slots.len() - slots;
        self.count = self.count + part.used - used;
    }
}

/// The slots that so many entries fill by 70 %.
fn slots_for(entries: usize) -> usize {
    (entries * 10).div_ceil(7).max(SLOTS_MIN)
}

impl Part {
    fn note(&self, fingerprint: Fingerprint) -> Option<u32> {
        self.slots.get(self.slot(fingerprint)?).filter(|entry| **entry != 0).map(|entry| *entry as u32)
    }

    /// Returns the slot of a fingerprint, or the free one where it would be; none if there are no slots.
    fn slot(&self, fingerprint: Fingerprint) -> Option<usize> {
        let mut at = fingerprint.start(self.slots.len());
        for _ in 0..self.slots.len() {
            match self.slots.get(at) {
                Some(entry) if *entry != 0 && entry >> 32 != fingerprint.0 => at += 1,
                Some(_) => return Some(at),
                None => return None,
            }
            if at == self.slots.len() {
                at = 0;
            }
        }
        None
    }

    fn put(&mut self, fingerprint: Fingerprint, note: u32) {
        let Some(slot) = self.slot(fingerprint) else { return };
        let Some(entry) = self.slots.get_mut(slot) else { return };
        self.used += usize::from(*entry == 0);
        *entry = fingerprint.0 << 32 | u128::from(note);
    }

    fn count(&self, keeps: &impl Fn(u32) -> bool) -> usize {
        self.slots.iter().filter(|entry| **entry != 0 && keeps(**entry as u32)).count()
    }

    /// Makes room for one more entry. At most 7/8 of the slots are used.
    fn make_room(&mut self, slots_left: usize, keeps: impl Fn(u32) -> bool) -> bool {
        if (self.used + 1) * 8 <= self.slots.len() * 7 {
            return true;
        }
        if self.refusals_left > 0 {
            self.refusals_left -= 1;
            return false;
        }
        let kept = self.count(&keeps);
        let slots = slots_for(kept + 1).max(self.slots.len());
        let has_room = slots - self.slots.len() <= slots_left || (kept + 1) * 8 <= self.slots.len() * 7;
        if has_room {
            let slots = if slots - self.slots.len() <= slots_left { slots } else { self.slots.len() };
            self.rebuild(slots, keeps);
        } else {
            // Another look for each row would take longer than all other work.
            self.refusals_left = kept / 8;
        }
        has_room
    }

    fn rebuild(&mut self, slots: usize, keeps: impl Fn(u32) -> bool) {
        let before = std::mem::replace(&mut self.slots, vec![0; slots]);
        self.used = 0;
        for entry in before.into_iter().filter(|entry| *entry != 0 && keeps(*entry as u32)) {
            self.put(Fingerprint(entry >> 32), entry as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: usize = usize::MAX;

    fn numbered(number: u32) -> Fingerprint {
        Fingerprint::of_text(&number.to_string(), 0)
    }

    fn filled(count: u32) -> Fingerprints {
        let mut table = Fingerprints::default();
        for number in 0..count {
            assert!(table.set(numbered(number), NO_LIMIT, |_| true, |_| number));
        }
        table
    }

    #[test]
    fn what_was_noted_is_found_again_and_nothing_else() {
        let table = filled(100_000);
        assert_eq!(table.count(), 100_000);
        assert!((0..100_000).all(|number| table.note(numbered(number)) == Some(number)));
        assert!((100_000..200_000).all(|number| table.note(numbered(number)).is_none()));
        assert!(table.bytes() as u64 <= Fingerprints::bytes_for(100_000) + (PARTS * SLOTS_MIN * 16) as u64);
    }

    #[test]
    fn a_note_is_made_of_the_one_before() {
        let mut table = filled(10);
        table.set(numbered(3), NO_LIMIT, |_| true, |before| before.unwrap_or_default() + 100);
        assert_eq!((table.note(numbered(3)), table.count()), (Some(103), 10));
    }

    #[test]
    fn what_need_not_be_kept_makes_room_before_the_table_grows() {
        let mut table = filled(50_000);
        for number in 50_000..500_000_u32 {
            let keeps = |note: u32| note + 30_000 > number;
            assert!(table.set(numbered(number), NO_LIMIT, keeps, |_| number));
        }
        assert!(table.bytes() as u64 <= Fingerprints::bytes_for(50_000), "{}", table.bytes());
        assert!((470_001..500_000).all(|number| table.note(numbered(number)).is_some()));
    }

    #[test]
    fn nothing_is_noted_beyond_the_bytes_that_are_allowed() {
        let mut table = Fingerprints::default();
        let bytes_max = 1 << 20;
        let noted: Vec<bool> =
            (0..200_000).map(|number| table.set(numbered(number), bytes_max, |_| true, |_| number)).collect();
        assert!(table.bytes() <= bytes_max);
        assert!(table.count() > bytes_max / 16 / 2, "{}", table.count());
        let is_found = |number: u32| table.note(numbered(number)) == Some(number);
        assert!((0..200_000).zip(noted).all(|(number, was_noted)| is_found(number) == was_noted));
        assert!(!Fingerprints::default().set(numbered(1), 0, |_| true, |_| 1));
    }

    #[test]
    fn a_sweep_gives_back_what_is_not_kept() {
        let mut table = filled(100_000);
        let bytes = table.bytes();
        for part in 0..PARTS {
            table.sweep(part, |note| note < 10_000);
        }
        assert_eq!(table.count(), 10_000);
        assert!(table.bytes() < bytes / 5, "{} of {bytes}", table.bytes());
        assert!((0..10_000).all(|number| table.note(numbered(number)) == Some(number)));
    }

    #[test]
    fn the_same_content_at_another_time_is_another_row() {
        let key = |cursor, byte| RowKey { cursor: crate::time::Micros(cursor), hash: [byte; 32] };
        let all = [key(1, 1), key(2, 1), key(1, 2)].map(|key| Fingerprint::of_content(&key));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
        assert_eq!(all[0], Fingerprint::of_content(&key(1, 1)));
    }
}
