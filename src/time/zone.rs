//! Time zones: what the clocks of a place show at an instant.
//!
//! A cursor of type DATETIME or DATE holds what such a clock showed. The core treats these values as if they were UTC,
//! and calls them local. A zone converts between local times and instants. In autumn clocks are set back, so that an
//! hour is shown twice. In spring they are set forward, so that an hour is never shown.

use super::{DAY_US, Micros, SECOND_US};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The clocks of two places never differ by more than this, nor those of one place at two times.
pub const DIFFERENCE_US_MAX: i64 = 27 * 3_600 * SECOND_US;

/// A time zone, with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: Arc<str>,
    /// In the order of time. The first one also holds for all times before it.
    spells: Arc<[Spell]>,
}

/// A span without a change of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spell {
    from: Micros,
    /// How far the clocks are ahead of UTC.
    ahead_us: i64,
}

/// The zones that the host knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zones {
    /// The zones that the configuration names, by these names.
    pub named: BTreeMap<String, Zone>,
    /// The names of all zones.
    pub names: Vec<String>,
}

impl Default for Zone {
    fn default() -> Zone {
        Zone { name: Zone::UTC.into(), spells: [Spell { from: Micros::MIN, ahead_us: 0 }].into() }
    }
}

impl Zone {
    /// The name of the zone whose clocks show UTC.
    pub const UTC: &str = "UTC";

    /// Makes a zone of pairs: from when on its clocks are how many microseconds ahead of UTC. Returns none if there are
    /// no pairs, if they are not in order, or if a difference is a day or more. A zone whose clocks always show UTC
    /// becomes UTC.
    pub fn new(name: &str, spells: impl IntoIterator<Item = (Micros, i64)>) -> Option<Zone> {
        let spells: Arc<[Spell]> =
            spells.into_iter().map(|(from, ahead_us)| Spell { from, ahead_us }).collect();
        let is_fit = |spell: &Spell| spell.from.in_range() && spell.ahead_us.abs() < DAY_US;
        let fits = !spells.is_empty() && spells.iter().all(is_fit) && spells.is_sorted_by_key(|one| one.from);
        let is_utc = spells.iter().all(|spell| spell.ahead_us == 0);
        fits.then(|| if is_utc { Zone::default() } else { Zone { name: name.into(), spells } })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its name if its clocks show anything but UTC.
    pub fn name_unless_utc(&self) -> Option<String> {
        (!self.is_utc()).then(|| self.name.to_string())
    }

    /// Whether its clocks always show UTC.
    pub fn is_utc(&self) -> bool {
        *self.name == *Zone::UTC
    }

    /// Returns what the clocks show at an instant.
    pub fn local(&self, instant: Micros) -> Micros {
        instant.plus(self.spell_at(instant).map_or(0, |spell| spell.ahead_us))
    }

    /// Returns the latest local time that the clocks have passed for good: after the instant, they show only later
    /// times.
    pub fn passed(&self, instant: Micros) -> Micros {
        let is_near = |spell: &&Spell| spell.from.since(instant) < DIFFERENCE_US_MAX;
        let later = self.spells.get(self.count_until(instant)..).unwrap_or_default();
        let starts = later.iter().take_while(is_near).map(|spell| spell.from.plus(spell.ahead_us - 1));
        starts.fold(self.local(instant), Micros::min)
    }

    /// Returns the first instant at which the clocks show a local time, or a later one.
    pub fn first_instant(&self, local: Micros) -> Micros {
        let first = self.count_until(local.plus(-DIFFERENCE_US_MAX)).saturating_sub(1);
        let spells = self.spells.get(first..).unwrap_or_default();
        let ends = spells.iter().skip(1).map(|next| next.from).chain([Micros(i64::MAX)]);
        let mut found = spells.iter().enumerate().zip(ends).map(|((place, spell), end)| {
            let shown_at = local.plus(-spell.ahead_us);
            (if place == 0 { shown_at } else { shown_at.max(spell.from) }, end)
        });
        found.find(|(shown_at, end)| shown_at < end).map_or(local, |(shown_at, _)| shown_at)
    }

    /// Writes a local time as RFC 3339, with the clocks' offset from UTC at that time.
    pub fn write(&self, local: Micros) -> String {
        if self.is_utc() {
            return local.to_string();
        }
        let mut text = Vec::with_capacity(32);
        local.write_civil(&mut text, b'T');
        let ahead_min = local.since(self.first_instant(local)).div_euclid(60 * SECOND_US);
        let sign = if ahead_min < 0 { '-' } else { '+' };
        let ahead_min = ahead_min.abs();
        format!("{}{sign}{:02}:{:02}", String::from_utf8_lossy(&text), ahead_min / 60, ahead_min % 60)
    }

    fn spell_at(&self, instant: Micros) -> Option<&Spell> {
        self.spells.get(self.count_until(instant).saturating_sub(1))
    }

    /// Counts the spells that have begun at an instant.
    fn count_until(&self, instant: Micros) -> usize {
        self.spells.partition_point(|spell| spell.from <= instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_US: i64 = 3_600 * SECOND_US;

    fn at(text: &str) -> Micros {
        Micros::parse(text).unwrap()
    }

    fn berlin() -> Zone {
        let changes = [("2023-10-29T01:00:00Z", 1), ("2024-03-31T01:00:00Z", 2), ("2024-10-27T01:00:00Z", 1)];
        let spells = changes.map(|(from, ahead_h)| (at(from), ahead_h * HOUR_US));
        Zone::new("Europe/Berlin", [(Micros(0), 2 * HOUR_US)].into_iter().chain(spells)).unwrap()
    }

    #[test]
    fn clocks_show_utc_unless_a_zone_is_told() {
        let (zone, noon) = (Zone::default(), at("2024-06-01T12:00:00Z"));
        assert_eq!((zone.local(noon), zone.passed(noon), zone.first_instant(noon)), (noon, noon, noon));
        assert!(zone.is_utc() && !berlin().is_utc());
        assert_eq!(zone.write(noon), "2024-06-01T12:00:00.000000Z");
    }

    #[test]
    fn an_hour_that_is_shown_twice_has_passed_only_when_it_was_shown_twice() {
        let zone = berlin();
        for (instant, local, passed) in [
            ("2024-10-26T23:59:00Z", "2024-10-27T01:59:00", "2024-10-27T01:59:00"),
            ("2024-10-27T00:00:00Z", "2024-10-27T02:00:00", "2024-10-27T01:59:59.999999"),
            ("2024-10-27T00:59:00Z", "2024-10-27T02:59:00", "2024-10-27T01:59:59.999999"),
            ("2024-10-27T01:00:00Z", "2024-10-27T02:00:00", "2024-10-27T02:00:00"),
            ("2024-10-27T01:59:00Z", "2024-10-27T02:59:00", "2024-10-27T02:59:00"),
            ("2024-10-27T02:00:00Z", "2024-10-27T03:00:00", "2024-10-27T03:00:00"),
        ] {
            assert_eq!(
                (zone.local(at(instant)), zone.passed(at(instant))),
                (at(local), at(passed)),
                "{instant}"
            );
        }
        assert_eq!(zone.first_instant(at("2024-10-27T02:30:00")), at("2024-10-27T00:30:00Z"));
        assert_eq!(zone.first_instant(at("2024-10-27T03:00:00")), at("2024-10-27T02:00:00Z"));
    }

    #[test]
    fn an_hour_that_is_never_shown_begins_when_the_clocks_skip_it() {
        let zone = berlin();
        assert_eq!(zone.local(at("2024-03-31T00:59:59Z")), at("2024-03-31T01:59:59"));
        assert_eq!(zone.local(at("2024-03-31T01:00:00Z")), at("2024-03-31T03:00:00"));
        assert_eq!(zone.first_instant(at("2024-03-31T02:30:00")), at("2024-03-31T01:00:00Z"));
        assert_eq!(zone.first_instant(at("2024-03-31T03:30:00")), at("2024-03-31T01:30:00Z"));
    }

    #[test]
    fn local_times_are_written_with_how_far_they_are_ahead() {
        assert_eq!(berlin().write(at("2024-06-01T12:00:00")), "2024-06-01T12:00:00.000000+02:00");
        let west = Zone::new("west", [(Micros(0), -7 * HOUR_US / 2)]).unwrap();
        assert_eq!(west.write(at("2024-06-01T12:00:00")), "2024-06-01T12:00:00.000000-03:30");
    }

    #[test]
    fn rules_that_make_no_zone_are_refused() {
        assert_eq!(Zone::new("none", []), None);
        assert_eq!(Zone::new("disordered", [(Micros(1), 0), (Micros(0), 0)]), None);
        assert_eq!(Zone::new("far", [(Micros(0), DAY_US)]), None);
        assert_eq!(Zone::new("beyond", [(Micros(i64::MAX), 0)]), None);
    }

    proptest! {
        #[test]
        fn what_has_passed_is_not_shown_again(from in 0..400 * 86_400_i64, later_s in 1..200_000_i64) {
            let zone = berlin();
            let instant = at("2023-10-01").plus(from * SECOND_US);
            let later = instant.plus(later_s * SECOND_US);
            prop_assert!(zone.local(later) > zone.passed(instant));
            prop_assert!(zone.passed(later) >= zone.passed(instant));
            prop_assert!(zone.passed(instant) <= zone.local(instant));
        }

        #[test]
        fn the_first_instant_shows_the_local_time_or_is_when_the_clocks_skip_it(from in 0..400 * 86_400_i64) {
            let zone = berlin();
            let local = at("2023-10-01").plus(from * SECOND_US);
            let first = zone.first_instant(local);
            prop_assert!(zone.local(first) >= local && zone.local(first.plus(-1)) < local);
            prop_assert!(zone.first_instant(local.plus(SECOND_US)) >= first);
            prop_assert!(zone.first_instant(zone.local(first)) == first);
        }
    }
}
