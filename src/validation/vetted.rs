//! Which rows without a key were in the source when a node read them again.

use crate::bigquery::sql::Window;
use crate::time::Micros;
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::rc::Rc;

/// The ids of more rows are not kept. Each takes some 16 bytes.
const ROWS_MAX: usize = 400_000;

/// The ids of all rows of some windows.
#[derive(Debug, Clone, Default)]
pub struct Vetted {
    windows: Vec<VettedWindow>,
}

/// A window that was read as a whole.
#[derive(Debug, Clone)]
pub struct VettedWindow {
    window: Window,
    /// When its rows began to be read, by the node's clock.
    begun: Micros,
    ids: Rc<HashSet<u64>>,
}

/// A window that is being read.
#[derive(Debug, Clone)]
pub struct Vetting {
    window: Window,
    begun: Micros,
    ids: HashSet<u64>,
    is_too_large: bool,
}

impl Vetting {
    /// Begins to read.
    pub fn begin(window: Window, begun: Micros) -> Vetting {
        Vetting { window, begun, ids: HashSet::new(), is_too_large: false }
    }

    /// Takes rows of the window.
    pub fn add<'t>(&mut self, ids: impl IntoIterator<Item = &'t [u8]>) {
        if !self.is_too_large {
            self.ids.extend(ids.into_iter().map(hash_of));
        }
        if self.ids.len() > ROWS_MAX {
            self.is_too_large = true;
            self.ids = HashSet::new();
        }
    }
}

impl Vetted {
    /// Takes a window that was read to its end. Others are forgotten if they are the same, or too many.
    pub fn take(&mut self, Vetting { window, begun, ids, is_too_large }: Vetting) {
        self.windows.retain(|one| one.window != window);
        if is_too_large {
            return;
        }
        self.windows.push(VettedWindow { window, begun, ids: Rc::new(ids) });
        while self.windows.iter().map(|one| one.ids.len()).sum::<usize>() > ROWS_MAX {
            self.windows.remove(0);
        }
    }

    /// Returns the windows that were read since a time.
    #[must_use]
    pub fn since(&self, time: Option<Micros>) -> Vetted {
        let is_new = |one: &&VettedWindow| time.is_some_and(|time| one.begun >= time);
        Vetted { windows: self.windows.iter().filter(is_new).cloned().collect() }
    }

    /// How many windows there are.
    pub fn count(&self) -> usize {
        self.windows.len()
    }

    /// When the first of the windows began to be read.
    pub fn begun(&self) -> Option<Micros> {
        self.windows.iter().map(|one| one.begun).min()
    }

    /// Returns the place of the window that has a cursor.
    pub fn place_of(&self, cursor: Micros) -> Option<usize> {
        self.windows.iter().position(|one| has(one.window, cursor))
    }

    /// Returns the place of the window that has all rows of another one.
    pub fn place_around(&self, window: Window) -> Option<usize> {
        let reaches = |one: &VettedWindow| {
            let starts = one.window.after.is_none_or(|after| window.after.is_some_and(|at| at >= after));
            let ends = one.window.until.is_none_or(|until| window.until.is_some_and(|at| at <= until));
            starts && ends
        };
        self.windows.iter().position(reaches)
    }

    /// How many rows a window had.
    pub fn rows(&self, place: usize) -> Option<u64> {
        self.windows.get(place).map(|one| one.ids.len() as u64)
    }

    /// Tells whether a window had a row.
    pub fn has(&self, place: usize, id: &str) -> bool {
        self.windows.get(place).is_some_and(|one| one.ids.contains(&hash_of(id.as_bytes())))
    }
}

fn has(window: Window, cursor: Micros) -> bool {
    window.after.is_none_or(|after| cursor > after) && window.until.is_none_or(|until| cursor <= until)
}

fn hash_of(id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(after: i64, until: i64) -> Window {
        Window { after: Some(Micros(after)), until: Some(Micros(until)) }
    }

    fn vetting(window: Window, begun: i64, ids: &[u64]) -> Vetting {
        let mut vetting = Vetting::begin(window, Micros(begun));
        let ids: Vec<[u8; 8]> = ids.iter().map(|id| id.to_be_bytes()).collect();
        vetting.add(ids.iter().map(<[u8; 8]>::as_slice));
        vetting
    }

    #[test]
    fn what_was_read_is_known_by_windows_and_ids() {
        let mut vetted = Vetted::default();
        let mut first = Vetting::begin(window(0, 10), Micros(7));
        first.add([&b"a"[..], b"b", b"a"]);
        vetted.take(first);
        vetted.take(vetting(window(20, 30), 8, &[]));
        assert_eq!((vetted.count(), vetted.rows(0), vetted.begun()), (2, Some(2), Some(Micros(7))));
        let places = [0, 1, 10, 11, 21].map(|at| vetted.place_of(Micros(at)));
        assert_eq!(places, [None, Some(0), Some(0), None, Some(1)]);
        assert_eq!(vetted.place_around(window(20, 29)), Some(1));
        assert_eq!(vetted.place_around(window(9, 21)), None);
        assert_eq!(
            [(0, "a"), (0, "c"), (1, "a")].map(|(place, id)| vetted.has(place, id)),
            [true, false, false]
        );
        let later = vetted.since(Some(Micros(8)));
        assert_eq!((later.count(), later.begun(), vetted.since(None).count()), (1, Some(Micros(8)), 0));
    }

    #[test]
    fn a_window_that_is_read_again_is_known_as_it_is_now() {
        let mut vetted = Vetted::default();
        vetted.take(vetting(window(0, 10), 1, &[1, 2]));
        vetted.take(vetting(window(0, 10), 2, &[1]));
        assert_eq!((vetted.count(), vetted.rows(0), vetted.begun()), (1, Some(1), Some(Micros(2))));
    }

    #[test]
    fn too_many_rows_are_not_kept() {
        let ids: Vec<u64> = (0..=ROWS_MAX as u64).collect();
        let mut vetted = Vetted::default();
        vetted.take(vetting(window(0, 10), 0, &[7]));
        vetted.take(vetting(window(20, 30), 0, &ids));
        assert_eq!((vetted.count(), vetted.has(0, "a")), (1, false));
        vetted.take(vetting(window(40, 50), 0, ids.get(1..).unwrap()));
        assert_eq!((vetted.count(), vetted.place_of(Micros(45))), (1, Some(0)));
    }
}
