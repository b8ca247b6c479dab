//! Divides the rows of a table into partitions. The number of partitions is fixed: when the cluster changes, partitions
//! move between workers, but no row changes its partition.

use crate::time::{self, DAY_US, Micros, SECOND_US};

/// A span of cursor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Sixty seconds.
    Minute,
    /// Sixty minutes.
    Hour,
    /// From midnight to midnight, in UTC.
    Day,
    /// A month of the calendar.
    Month,
}

/// What determines the partition of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// Nothing: the table is one partition.
    Whole,
    /// The cursor's value.
    Value,
    /// The span of time that the cursor lies in.
    Spans(Span),
}

/// The rule that a table follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What determines the partition.
    pub division: Division,
    /// The number of partitions.
    pub partitions: u32,
    /// Whether spans consist of whole partitions of the source, so that reading a span scans no other one.
    pub pruned: bool,
}

impl Span {
    const ALL: [Span; 4] = [Span::Minute, Span::Hour, Span::Day, Span::Month];

    /// Returns the number of the span that an instant lies in.
    pub fn number(self, instant: Micros) -> i64 {
        match self.length_us() {
            Some(length_us) => instant.0.div_euclid(length_us),
            None => time::month_of(instant),
        }
    }

    /// Returns where a span starts.
    pub fn start(self, number: i64) -> Micros {
        match self.length_us() {
            Some(length_us) => Micros(number.saturating_mul(length_us)),
            None => time::month_start(number),
        }
    }

    /// Returns the length of a span; none if spans have different lengths.
    pub fn length_us(self) -> Option<i64> {
        match self {
            Span::Minute => Some(60 * SECOND_US),
            Span::Hour => Some(3_600 * SECOND_US),
            Span::Day => Some(DAY_US),
            Span::Month => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Span::Minute => "minute",
            Span::Hour => "hour",
            Span::Day => "day",
            Span::Month => "month",
        }
    }
}

impl Rule {
    /// The rule of a table that is not divided.
    pub const WHOLE: Rule = Rule { division: Division::Whole, partitions: 1, pruned: false };

    /// Returns the partition of the rows with a cursor.
    pub fn partition(self, cursor: Micros) -> u32 {
        let count = self.partitions.max(1);
        match self.division {
            Division::Whole => 0,
            Division::Value => {
                let bits = fingerprint(cursor.0.to_string().as_bytes()) & (i64::MAX as u64);
                (bits % u64::from(count)) as u32
            }
            Division::Spans(span) => span.number(cursor).rem_euclid(i64::from(count)) as u32,
        }
    }

    /// Returns the rule with a name; none if there is no such rule. Whether spans are pruned is not in a name.
    pub fn named(name: &str) -> Option<Rule> {
        let (division, partitions) = name.split_once('/')?;
        let division = match division {
            "table" => Division::Whole,
            "timestamp" => Division::Value,
            span => Division::Spans(Span::ALL.into_iter().find(|one| one.name() == span)?),
        };
        Some(Rule { division, partitions: partitions.parse().ok()?, pruned: false })
    }

    /// Returns the rule's name, for checkpoints and the status.
    pub fn name(self) -> String {
        let division = match self.division {
            Division::Whole => "table",
            Division::Value => "timestamp",
            Division::Spans(span) => span.name(),
        };
        format!("{division}/{}", self.partitions)
    }
}

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;

/// Returns BigQuery's FARM_FINGERPRINT of a text of at most 32 bytes. The texts here are integers of at most 20 bytes.
///
/// These are two of the four cases of Google's FarmHash (`farmhashna::Hash64`). The published crate has all four, one
/// of them wrong, and is not maintained.
pub fn fingerprint(text: &[u8]) -> u64 {
    let length = text.len() as u64;
    let factor = K2.wrapping_add(length.wrapping_mul(2));
    match text.len() {
        0 => K2,
        1..=3 => {
            let byte = |at: usize| u64::from(text.get(at).copied().unwrap_or(0));
            let y = byte(0).wrapping_add(byte(text.len() >> 1) << 8);
            let z = length.wrapping_add(byte(text.len() - 1) << 2);
            shift_mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
        }
        4..=7 => {
            let first = little_endian(text, 0, 4);
            let last = little_endian(text, text.len() - 4, 4);
            mix(length.wrapping_add(first << 3), last, factor)
        }
        8..=16 => {
            let a = little_endian(text, 0, 8).wrapping_add(K2);
            let b = little_endian(text, text.len() - 8, 8);
            let c = b.rotate_right(37).wrapping_mul(factor).wrapping_add(a);
            let d = a.rotate_right(25).wrapping_add(b).wrapping_mul(factor);
            mix(c, d, factor)
        }
        _ => {
            let a = little_endian(text, 0, 8).wrapping_mul(K1);
            let b = little_endian(text, 8, 8);
            let c = little_endian(text, text.len() - 8, 8).wrapping_mul(factor);
            let d = little_endian(text, text.len() - 16, 8).wrapping_mul(K2);
            let u = a.wrapping_add(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
            let v = a.wrapping_add(b.wrapping_add(K2).rotate_right(18)).wrapping_add(c);
            mix(u, v, factor)
        }
    }
}

fn little_endian(text: &[u8], at: usize, length: usize) -> u64 {
    let bytes = text.get(at..at + length).unwrap_or_default();
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn mix(u: u64, v: u64, factor: u64) -> u64 {
    let a = shift_mix((u ^ v).wrapping_mul(factor));
    shift_mix((v ^ a).wrapping_mul(factor)).wrapping_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Share;
    use proptest::prelude::*;

    const BY_VALUE: Rule = Rule { division: Division::Value, partitions: 64, pruned: false };
    const BY_DAY: Rule = Rule { division: Division::Spans(Span::Day), partitions: 64, pruned: true };

    /// 2024-01-01T00:00:00Z.
    const BASE_US: i64 = 1_704_067_200 * SECOND_US;

    #[test]
    fn fingerprints_are_those_of_bigquery() {
        assert_eq!(fingerprint(b"foo") as i64, 6_150_913_649_986_995_171);
        assert_eq!(fingerprint(b"1footrue") as i64, -1_541_654_101_129_638_711);
    }

    #[test]
    fn instants_of_any_granularity_spread_evenly_over_any_number_of_workers() {
        for step_us in [1, 1_000, SECOND_US, 60 * SECOND_US] {
            for workers in [2, 3, 4, 5, 8, 12] {
                let mut counts = vec![0_u32; workers as usize];
                for bucket in 0..10_000 {
                    let partition = BY_VALUE.partition(Micros(BASE_US + bucket * step_us));
                    let owner = (0..workers)
                        .find(|position| Share { position: *position, workers }.owns(partition, 0));
                    counts[owner.unwrap() as usize] += 1;
                }
                let mean = 10_000.0 / f64::from(workers);
                let largest = f64::from(*counts.iter().max().unwrap());
                assert!(largest <= 1.3 * mean, "step {step_us} µs, {workers} workers: {counts:?}");
            }
        }
    }

    #[test]
    fn of_thirty_days_nobody_among_twelve_workers_has_more_than_four() {
        for first in 0..400 {
            for position in 0..12 {
                let share = Share { position, workers: 12 };
                let days = (first..first + 30)
                    .filter(|day| share.owns(BY_DAY.partition(Micros(BASE_US + day * DAY_US)), 0));
                assert!(days.count() <= 4);
            }
        }
    }

    proptest! {
        #[test]
        fn every_instant_has_one_partition_and_lies_in_its_span(us in Micros::MIN.0..=Micros::MAX.0, partitions in 1..4_096_u32) {
            for span in [Span::Minute, Span::Hour, Span::Day, Span::Month] {
                let number = span.number(Micros(us));
                prop_assert!(span.start(number) <= Micros(us) && Micros(us) < span.start(number + 1));
                let rule = Rule { division: Division::Spans(span), partitions, pruned: true };
                prop_assert!(rule.partition(Micros(us)) < partitions);
                prop_assert_eq!(rule.partition(Micros(us)), rule.partition(span.start(number)));
            }
            let by_value = Rule { division: Division::Value, partitions, pruned: false };
            prop_assert!(by_value.partition(Micros(us)) < partitions);
        }
    }
}
