//! Rows that only a copy has: the source had them once.

use crate::config::Deletes;
use crate::partition::Span;
use crate::time::{Micros, instant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A partition of the source, if the source is partitioned by the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// From hour to hour.
    Hour,
    /// From midnight to midnight.
    Day,
    /// A month of the calendar.
    Month,
    /// A year of the calendar.
    Year,
}

/// What may be done with the rows that only a copy has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consent {
    /// What the configuration wants.
    #[serde(default)]
    pub deletes: Deletes,
    /// So many are deleted at most.
    #[serde(default)]
    pub rows_max: u64,
    /// The source's partitions; none if it has none, or not by the cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// Partitions that ended by then have expired, by the source's own setting.
    #[serde(with = "instant", default)]
    pub expired: Option<Micros>,
    /// Which nodes had told of such rows before BigQuery listed the keys.
    #[serde(default)]
    pub seen: Vec<Seen>,
}

/// What a node told of rows that only its copy has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The node.
    pub node: String,
    /// When it found the first one, by its own clock.
    #[serde(with = "instant", default)]
    pub since: Option<Micros>,
}

/// Rows that are to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// The ids of the records.
    pub ids: Vec<String>,
    /// Only records are deleted that the node had stored before this time, by its own clock: later ones may be news.
    #[serde(with = "instant")]
    pub stored_before: Option<Micros>,
}

/// The rows of a copy by the source's partitions, and which of them only the copy has.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// By partition: how many rows the copy has, and how many of them only the copy has.
    partitions: BTreeMap<Option<i64>, Tally>,
    ids: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    rows: u64,
    extra: u64,
}

impl Period {
    fn number(self, cursor: Micros) -> i64 {
        match self {
            Period::Hour => Span::Hour.number(cursor),
            Period::Day => Span::Day.number(cursor),
            Period::Month => Span::Month.number(cursor),
            Period::Year => Span::Month.number(cursor).div_euclid(12),
        }
    }

    fn start(self, number: i64) -> Micros {
        match self {
            Period::Hour => Span::Hour.start(number),
            Period::Day => Span::Day.start(number),
            Period::Month => Span::Month.start(number),
            Period::Year => Span::Month.start(number.saturating_mul(12)),
        }
    }
}

impl Consent {
    /// When a node had found its rows that BigQuery was then asked for again; none if it had told of none.
    pub fn seen_since(&self, node: &str) -> Option<Micros> {
        self.seen.iter().find(|seen| seen.node == node)?.since
    }

    fn partition(&self, cursor: Option<Micros>) -> Option<i64> {
        Some(self.period?.number(cursor?))
    }

    fn has_expired(&self, partition: i64) -> bool {
        let end = self.period.map(|period| period.start(partition.saturating_add(1)));
        self.deletes == Deletes::MirrorExpired && end.is_some_and(|end| self.expired >= Some(end))
    }
}

impl Extras {
    /// Counts a row of the copy.
    pub fn count(&mut self, consent: &Consent, cursor: Option<Micros>) {
        self.partitions.entry(consent.partition(cursor)).or_default().rows += 1;
    }

    /// Takes a row that only the copy has, and that was counted.
    pub fn add(&mut self, consent: &Consent, id: &str, cursor: Option<Micros>) {
        self.partitions.entry(consent.partition(cursor)).or_default().extra += 1;
        if self.ids.len() as u64 <= consent.rows_max {
            self.ids.push(id.to_owned());
        }
    }

    /// Returns the rows that only the copy has: all of them, unless there are more than may be deleted.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// How many rows only the copy has.
    pub fn rows(&self) -> u64 {
        self.partitions.values().map(|tally| tally.extra).sum()
    }

    /// Says why these rows must not be deleted.
    pub fn refusal(&self, consent: &Consent) -> Option<String> {
        let (extra, max) = (self.rows(), consent.rows_max);
        let all: u64 = self.partitions.values().map(|tally| tally.rows).sum();
        if extra == all {
            return Some(format!(
                "the source has none of the {all} rows any more; if that is right, delete them by hand"
            ));
        }
        if extra > max {
            return Some(format!("{extra} rows are more than limits.maxDeletesPerRun, which is {max}"));
        }
        let is_gone = |(partition, tally): &(&Option<i64>, &Tally)| {
            tally.extra == tally.rows && partition.is_some_and(|partition| !consent.has_expired(partition))
        };
        let (partition, tally) = self.partitions.iter().find(is_gone)?;
        let start = consent.period.zip(*partition).map(|(period, number)| period.start(number))?;
        Some(format!(
            "the source's partition from {start} is gone with all its {} rows; `deletes: mirrorExpired` allows that for \
             partitions that have expired",
            tally.rows
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::DAY_US;

    fn consent(deletes: Deletes, period: Option<Period>) -> Consent {
        Consent { deletes, rows_max: 3, period, expired: Some(Micros(2 * DAY_US)), seen: Vec::new() }
    }

    /// Rows by days; a negative number is a row that only the copy has.
    fn refusal(consent: &Consent, days: &[(i64, bool)]) -> Option<String> {
        let mut extras = Extras::default();
        for (number, (day, is_extra)) in days.iter().enumerate() {
            let cursor = Some(Micros(day * DAY_US + 5));
            extras.count(consent, cursor);
            if *is_extra {
                extras.add(consent, &number.to_string(), cursor);
            }
        }
        extras.refusal(consent)
    }

    #[test]
    fn a_table_of_which_nothing_is_left_is_not_emptied() {
        let reason = refusal(&consent(Deletes::MirrorExpired, None), &[(0, true), (1, true)]).unwrap();
        assert!(reason.contains("none of the 2 rows"), "{reason}");
        assert_eq!(refusal(&consent(Deletes::Mirror, None), &[(0, true), (1, false)]), None);
    }

    #[test]
    fn no_more_rows_are_deleted_than_is_allowed() {
        let consent = consent(Deletes::Mirror, None);
        let rows: Vec<(i64, bool)> = (0..10).map(|row| (0, row < 4)).collect();
        assert!(refusal(&consent, &rows).unwrap().contains("4 rows are more than limits.maxDeletesPerRun"));
        assert_eq!(refusal(&consent, rows.get(1..).unwrap()), None);
    }

    #[test]
    fn a_partition_that_is_gone_is_kept_unless_it_has_expired_and_that_is_wanted() {
        let old = [(0, true), (1, true), (1, false), (3, false)];
        let young = [(0, false), (3, true)];
        let mirror = consent(Deletes::Mirror, Some(Period::Day));
        let reason = refusal(&mirror, &old).unwrap();
        assert!(reason.starts_with("the source's partition from 1970-01-01T00:00:00"), "{reason}");
        assert!(refusal(&mirror, &young).is_some());
        let expired = consent(Deletes::MirrorExpired, Some(Period::Day));
        assert_eq!(refusal(&expired, &old), None);
        assert!(refusal(&expired, &young).is_some());
        // In a table that is not partitioned, a day is nothing.
        assert_eq!(refusal(&consent(Deletes::Mirror, None), &old), None);
    }

    #[test]
    fn periods_begin_where_their_numbers_change() {
        for period in [Period::Hour, Period::Day, Period::Month, Period::Year] {
            for at in [Micros(-1), Micros(0), Micros(1_700_000_000_000_000)] {
                let number = period.number(at);
                assert!(period.start(number) <= at && at < period.start(number + 1), "{period:?} {at}");
            }
        }
    }
}
