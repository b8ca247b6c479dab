//! The late range: the span before the watermark that is read again, and its rows that are known to be in Harper.

use super::fingerprints::{Fingerprint, Fingerprints, PARTS};
use crate::time::{Micros, SECOND_US};

/// The memory for its rows, unless another limit is set.
pub const BYTES_MAX: usize = 256 << 20;

/// What the next window needs to know about the windows before it.
///
/// A row is recognised if the last completed window had it. Each reading of a window has a number. A row's note has the
/// number of the reading that saw the row last, whether the completed reading before that had seen it too, and the
/// row's approximate cursor.
#[derive(Debug)]
pub struct LateRange {
    rows: Fingerprints,
    bytes_max: usize,
    /// The number of the window that is being read, or will be next.
    reading: u8,
    is_reading: bool,
    /// Whether the last window had more rows of the late range than fit in memory. Some are then in Harper, but not
    /// remembered.
    is_incomplete: bool,
    /// Whether the window that is being read has more rows than fit in memory.
    overflows: bool,
    /// The part of the table that is swept next.
    sweeps: usize,
    /// Whether the next window reads the late range again.
    is_reread: bool,
    /// The partitions of the last window.
    partitions: Vec<u32>,
}

/// A row's note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    /// The reading that saw it last.
    reading: u8,
    /// Whether the completed reading before that had seen it too.
    was_known: bool,
    /// Its cursor in units, saturated.
    cursor: u32,
}

/// The unit of cursors in notes: 23 bits cover 272 years around 1970. A row may be remembered for so much longer than
/// needed.
const UNIT_US: i64 = 1_024 * SECOND_US;
const CURSOR_BITS: u32 = 23;
/// The parts that are swept with each reading. All parts have been swept long before a number is used again.
const SWEEPS_PER_READING: usize = PARTS / 64;

impl Sight {
    fn of(note: u32) -> Sight {
        let cursor = note & ((1 << CURSOR_BITS) - 1);
        Sight { reading: (note >> 24) as u8, was_known: note >> CURSOR_BITS & 1 == 1, cursor }
    }

    fn note(self) -> u32 {
        u32::from(self.reading) << 24 | u32::from(self.was_known) << CURSOR_BITS | self.cursor
    }

    fn unit(cursor: Micros) -> u32 {
        let middle = 1_i64 << (CURSOR_BITS - 1);
        (cursor.0.div_euclid(UNIT_US) + middle).clamp(0, 2 * middle - 1) as u32
    }
}

impl Default for LateRange {
    fn default() -> LateRange {
        LateRange {
            rows: Fingerprints::default(),
            bytes_max: BYTES_MAX,
            reading: 1,
            is_reading: false,
            is_incomplete: false,
            overflows: false,
            sweeps: 0,
            is_reread: true,
            partitions: Vec::new(),
        }
    }
}

impl LateRange {
    /// Sets how much memory the rows may take. Rows that are remembered already stay.
    pub fn allow_memory(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Returns the bytes that its rows take.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Begins to read a window of some partitions. If the window before was not completed, all rows are forgotten,
    /// because it is not known which of its rows are in Harper.
    pub fn begin(&mut self, partitions: &[u32]) {
        if self.is_reading {
            self.forget_rows();
        }
        self.is_reading = true;
        self.rows.look_for_room();
        self.is_incomplete &= self.partitions == partitions;
    }

    /// Whether a row of a window has to be looked up or remembered.
    pub fn concerns(&self, is_read_again: bool) -> bool {
        is_read_again || self.rows.count() > 0
    }

    /// Tells whether a row is remembered to be in Harper. If the next window will read the row again, the row is
    /// remembered for that. Rows with cursors up to `bound` need not be remembered any longer.
    pub fn recognise(
        &mut self,
        row: Fingerprint,
        cursor: Micros,
        is_read_again: bool,
        bound: Option<Micros>,
    ) -> bool {
        let reading = self.reading;
        if !is_read_again {
            return self.rows.note(row).is_some_and(|note| is_known(note, reading));
        }
        let bound = bound.map(Sight::unit);
        let keeps = |note| {
            let sight = Sight::of(note);
            is_known(note, reading)
                || sight.reading == reading && bound.is_none_or(|bound| sight.cursor >= bound)
        };
        let mut was_known = false;
        let is_noted = self.rows.set(row, self.bytes_max, keeps, |before| {
            was_known = before.is_some_and(|note| is_known(note, reading));
            Sight { reading, was_known, cursor: Sight::unit(cursor) }.note()
        });
        self.overflows |= !is_noted;
        was_known
    }

    /// Whether rows that are not recognised may still be in Harper, because they did not fit in memory. This is not
    /// about rows that were read before the worker started. Such rows are written again, because nobody knows whether
    /// the last commits of a Harper that ended have reached the other nodes.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// Whether its rows do not fit in memory.
    pub fn has_overflowed(&self) -> bool {
        self.is_incomplete || self.overflows
    }

    /// Whether the next window of some partitions reads the late range again. It does if the last window was one of
    /// other partitions, because these partitions may have got late rows since they were read.
    pub fn is_reread_for(&self, partitions: &[u32]) -> bool {
        self.is_reread || self.partitions != partitions
    }

    /// Makes the next window read the late range again.
    pub fn reread(&mut self) {
        self.is_reread = true;
    }

    /// Forgets its rows, because they may have changed in Harper, or are recognised in another way.
    pub fn forget_rows(&mut self) {
        self.rows = Fingerprints::default();
        (self.is_reading, self.is_incomplete, self.overflows) = (false, false, false);
    }

    /// Notes that a window is completely in Harper. `is_reread` tells whether the next window has to read the late
    /// range again. It need not if no row can have been late.
    pub fn follow(&mut self, partitions: Vec<u32>, is_reread: bool) {
        (self.partitions, self.is_reread) = (partitions, is_reread);
        (self.is_reading, self.is_incomplete, self.overflows) = (false, self.overflows, false);
        self.reading = self.reading.wrapping_add(1);
        let reading = self.reading;
        for _ in 0..SWEEPS_PER_READING {
            self.rows.sweep(self.sweeps, |note| is_known(note, reading));
            self.sweeps = (self.sweeps + 1) % PARTS;
        }
    }
}

/// Whether the last completed reading before this one has seen a row.
fn is_known(note: u32, reading: u8) -> bool {
    let sight = Sight::of(note);
    sight.reading == reading.wrapping_sub(1) || sight.reading == reading && sight.was_known
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn numbered(number: i64) -> Fingerprint {
        Fingerprint::of_text(&number.to_string(), 0)
    }

    /// Reads rows with the cursors of their numbers, in seconds, and tells how many of them were recognised.
    fn read(late: &mut LateRange, rows: impl Iterator<Item = i64>, bound: Option<i64>) -> usize {
        late.begin(&[0]);
        let bound = bound.map(|bound| Micros(bound * SECOND_US));
        let known = rows
            .filter(|number| late.recognise(numbered(*number), Micros(number * SECOND_US), true, bound))
            .count();
        late.follow(vec![0], true);
        known
    }

    #[test]
    fn a_row_is_recognised_if_the_window_before_had_it_and_else_not() {
        let mut late = LateRange::default();
        assert_eq!(read(&mut late, 0..10, None), 0);
        assert_eq!(read(&mut late, 5..20, None), 5);
        // Another version may be in Harper by now.
        assert_eq!(read(&mut late, 0..20, None), 15);
        assert_eq!(read(&mut late, 0..20, None), 20);
    }

    #[test]
    fn a_row_that_a_window_has_twice_is_recognised_twice() {
        let mut late = LateRange::default();
        assert_eq!(read(&mut late, [1, 1].into_iter(), None), 0);
        assert_eq!(read(&mut late, [1, 1].into_iter(), None), 2);
    }

    #[test]
    fn of_a_window_that_did_not_end_nothing_is_recognised() {
        let mut late = LateRange::default();
        read(&mut late, 0..10, None);
        late.begin(&[0]);
        late.recognise(numbered(11), Micros(0), true, None);
        assert_eq!(read(&mut late, 0..12, None), 0);
    }

    #[test]
    fn rows_that_fell_behind_the_late_range_make_room_for_those_in_it() {
        let mut late = LateRange::default();
        late.begin(&[0]);
        let rows = 3_000_000;
        for number in 0..rows {
            let cursor = Micros(number * SECOND_US);
            late.recognise(numbered(number), cursor, true, Some(cursor.plus(-10_000 * SECOND_US)));
        }
        late.follow(vec![0], true);
        assert!(late.rows.count() < 50_000, "{}", late.rows.count());
        assert_eq!(read(&mut late, rows - 10_000..rows, None), 10_000);
    }

    #[test]
    fn nothing_of_former_readings_stays_however_many_there_were() {
        let mut late = LateRange::default();
        for round in 0..600 {
            assert_eq!(read(&mut late, round..round + 1_000, None), if round == 0 { 0 } else { 999 });
        }
        assert!(late.rows.count() < 1_200, "{}", late.rows.count());
    }

    #[test]
    fn more_rows_than_memory_make_it_incomplete_and_those_that_fit_are_recognised() {
        let mut late = LateRange::default();
        late.allow_memory(1 << 20);
        read(&mut late, 0..100_000, None);
        assert!(late.is_incomplete() && late.has_overflowed() && late.bytes() <= 1 << 20);
        let known = read(&mut late, 0..100_000, None);
        assert!((20_000..65_536).contains(&known), "{known}");
        late.allow_memory(BYTES_MAX);
        read(&mut late, 0..100_000, None);
        assert!(!late.is_incomplete() && !late.has_overflowed());
        assert_eq!(read(&mut late, 0..100_000, None), 100_000);
    }

    /// Ten minutes at 10,000 rows a second, of which the next poll brings another half minute.
    #[test]
    fn six_million_rows_are_recognised_in_25_bytes_each() {
        const PER_SECOND: i64 = 10_000;
        const ROWS: i64 = 600 * PER_SECOND;
        let mut late = LateRange::default();
        let mut poll = |seconds: i64| {
            late.begin(&[0]);
            let began = Instant::now();
            let bound = Some(Micros(seconds * SECOND_US));
            let first = seconds * PER_SECOND;
            let known = (first..first + ROWS)
                .filter(|number| {
                    let cursor = Micros(number * SECOND_US / PER_SECOND);
                    late.recognise(numbered(*number), cursor, true, bound)
                })
                .count() as i64;
            let took = began.elapsed().as_secs_f64() * 1e6 / ROWS as f64;
            late.follow(vec![0], true);
            let bytes = late.bytes() as f64 / ROWS as f64;
            println!("{ROWS} rows, {known} of them known: {bytes:.1} bytes and {took:.2} µs a row");
            assert!(bytes <= 25.0 && !late.is_incomplete());
            known
        };
        assert_eq!([poll(0), poll(30), poll(60)], [0, ROWS - 30 * PER_SECOND, ROWS - 30 * PER_SECOND]);
    }

    #[test]
    fn between_two_windows_of_a_backlog_nothing_is_late_but_for_other_partitions() {
        let mut late = LateRange::default();
        assert!(late.is_reread_for(&[]));
        late.follow(vec![1, 2], false);
        assert!(!late.is_reread_for(&[1, 2]) && late.is_reread_for(&[1]));
        late.reread();
        assert!(late.is_reread_for(&[1, 2]));
    }
}
