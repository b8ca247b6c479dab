//! Points in time as microseconds since the Unix epoch, and their texts.

pub mod zone;

use std::fmt;

/// A point in time: microseconds since 1970-01-01T00:00:00Z, negative before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds in a day.
pub const DAY_US: i64 = 86_400 * SECOND_US;

impl Micros {
    /// The first instant that BigQuery can hold, 0001-01-01T00:00:00Z.
    pub const MIN: Micros = Micros(-62_135_596_800 * SECOND_US);
    /// The last instant that BigQuery can hold, 9999-12-31T23:59:59.999999Z.
    pub const MAX: Micros = Micros(253_402_300_800 * SECOND_US - 1);

    /// Converts from milliseconds, as JavaScript's clocks give them.
    pub fn from_millis(millis: i64) -> Micros {
        Micros(millis.saturating_mul(1_000))
    }

    /// Returns the instant `us` microseconds later (earlier when negative), kept within `i64`.
    pub fn plus(self, us: i64) -> Micros {
        Micros(self.0.saturating_add(us))
    }

    /// Returns the microseconds from `earlier` to `self`, negative when `earlier` is later.
    pub fn since(self, earlier: Micros) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Tells whether BigQuery can hold the instant.
    pub fn in_range(self) -> bool {
        (Micros::MIN..=Micros::MAX).contains(&self)
    }

    /// Parses RFC 3339 (`2024-01-31T10:20:30.5+02:00`), a bare date, or a civil date and time taken as UTC.
    pub fn parse(text: &str) -> Option<Micros> {
        let (date, rest) = take(text, 10)?;
        let day_us = parse_date(date)?.checked_mul(DAY_US)?;
        if rest.is_empty() {
            return Some(Micros(day_us));
        }
        let rest = rest.strip_prefix(['T', 't', ' '])?;
        let (time, zone) = match rest.find(['Z', 'z', '+', '-']) {
            Some(at) => rest.split_at_checked(at)?,
            None => (rest, "Z"),
        };
        let offset_us = parse_zone(zone)?;
        let instant = Micros(day_us.checked_add(parse_time_of_day(time)?)?.checked_sub(offset_us)?);
        instant.in_range().then_some(instant)
    }

    /// Tells whether such a text has an offset from UTC, so that it means the same in every zone.
    pub fn names_offset(text: &str) -> bool {
        text.get(10..).is_some_and(|rest| rest.contains(['Z', 'z', '+', '-']))
    }

    /// Parses the `Date` header of an HTTP answer (`Sun, 06 Nov 1994 08:49:37 GMT`).
    pub fn parse_http_date(text: &str) -> Option<Micros> {
        let (_, rest) = text.split_once(", ")?;
        let mut words = rest.split(' ');
        let day: u8 = words.next()?.parse().ok()?;
        let month_name = words.next()?;
        let month = MONTHS.iter().position(|name| *name == month_name)? as u8 + 1;
        let year: i64 = words.next()?.parse().ok()?;
        let time_us = parse_time_of_day(words.next()?)?;
        Some(Micros(days_from_civil(year, month, day)? * DAY_US + time_us))
    }

    /// Appends RFC 3339 in UTC with six fractional digits, so that texts sort like instants.
    pub fn write_rfc3339(self, out: &mut Vec<u8>) {
        self.write_civil(out, b'T');
        out.push(b'Z');
    }

    /// Appends `YYYY-MM-DD` + `separator` + `HH:MM:SS.ffffff` in UTC.
    pub fn write_civil(self, out: &mut Vec<u8>, separator: u8) {
        let day = self.0.div_euclid(DAY_US);
        let micros_of_day = self.0.rem_euclid(DAY_US);
        let seconds = micros_of_day / SECOND_US;
        write_date(out, day);
        out.push(separator);
        write_digits(out, seconds / 3_600, 2);
        out.push(b':');
        write_digits(out, seconds / 60 % 60, 2);
        out.push(b':');
        write_digits(out, seconds % 60, 2);
        out.push(b'.');
        write_digits(out, micros_of_day % SECOND_US, 6);
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(27);
        self.write_rfc3339(&mut text);
        formatter.write_str(&String::from_utf8_lossy(&text))
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Parses `YYYY-MM-DD` to days since the epoch.
pub fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let year = fixed_digits(parts.next()?, 4)?;
    let month = fixed_digits(parts.next()?, 2)?;
    let day = fixed_digits(parts.next()?, 2)?;
    if year == 0 {
        return None;
    }
    days_from_civil(year, month as u8, day as u8)
}

/// Parses `HH:MM:SS` with up to six fractional digits to microseconds since midnight.
pub fn parse_time_of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.splitn(3, ':');
    let hour = fixed_digits(parts.next()?, 2)?;
    let minute = fixed_digits(parts.next()?, 2)?;
    let second = fixed_digits(parts.next()?, 2)?;
    if hour > 23 || minute > 59 || second > 60 || fraction.is_empty() || fraction.len() > 6 {
        return None;
    }
    let scale = 10_i64.pow(6 - fraction.len() as u32);
    let fraction_us = fixed_digits(fraction, fraction.len())? * scale;
    Some((hour * 3_600 + minute * 60 + second) * SECOND_US + fraction_us)
}

/// Appends the day, counted from the epoch, as `YYYY-MM-DD`.
pub fn write_date(out: &mut Vec<u8>, day: i64) {
    let (year, month, day_of_month) = civil_from_days(day);
    write_digits(out, year, 4);
    out.push(b'-');
    write_digits(out, month, 2);
    out.push(b'-');
    write_digits(out, day_of_month, 2);
}

/// Parses `Z`, `+02`, `+02:00` or `+0200` to the microseconds east of UTC.
fn parse_zone(zone: &str) -> Option<i64> {
    let sign = match zone.get(..1)? {
        "Z" | "z" => return zone.get(1..)?.is_empty().then_some(0),
        "+" => 1,
        _ => -1,
    };
    let digits = zone.get(1..)?.replace(':', "");
    let hours = fixed_digits(digits.get(..2)?, 2)?;
    let minutes = match digits.get(2..)? {
        "" => 0,
        text => fixed_digits(text, 2)?,
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60) * SECOND_US)
}

fn take(text: &str, length: usize) -> Option<(&str, &str)> {
    text.split_at_checked(length)
}

fn fixed_digits(text: &str, length: usize) -> Option<i64> {
    let all_digits = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten()
}

fn write_digits(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut rest = value.unsigned_abs();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let start = digits.len().saturating_sub(width);
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// Returns the month of an instant, counted from January of the year 0.
pub fn month_of(instant: Micros) -> i64 {
    let (year, month, _) = civil_from_days(instant.0.div_euclid(DAY_US));
    year * 12 + month - 1
}

/// Returns the start of a month, counted from January of the year 0.
pub fn month_start(month: i64) -> Micros {
    let day = days_from_civil(month.div_euclid(12), (month.rem_euclid(12) + 1) as u8, 1);
    Micros(day.unwrap_or(0).saturating_mul(DAY_US))
}

/// Days since the epoch of a date in the proleptic Gregorian calendar, `None` for days that do not exist.
fn days_from_civil(year: i64, month: u8, day: u8) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day == 0 || day > days_in_month {
        return None;
    }
    // Years start in March here, so that the leap day is a year's last day.
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let month_from_march = i64::from(month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The inverse of [`days_from_civil`]: year, month, day.
fn civil_from_days(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_month)
}

/// Instants as texts, as they are stored.
pub(crate) mod instant {
    use super::Micros;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(instant: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
        match instant {
            Some(instant) => serializer.serialize_str(&instant.to_string()),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Micros>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let invalid = || serde::de::Error::custom("not an instant");
        text.map(|text| Micros::parse(&text).ok_or_else(invalid)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_of_known_instants() {
        assert_eq!(Micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Micros::MIN.to_string(), "0001-01-01T00:00:00.000000Z");
        assert_eq!(Micros::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Micros(1_709_164_800_000_000).to_string(), "2024-02-29T00:00:00.000000Z");
    }

    #[test]
    fn many_forms_are_parsed() {
        let expected = Some(Micros(1_704_067_200_500_000));
        for text in [
            "2024-01-01T00:00:00.5Z",
            "2024-01-01 00:00:00.500",
            "2024-01-01T02:00:00.5+02:00",
            "2023-12-31T19:00:00.5-0500",
        ] {
            assert_eq!(Micros::parse(text), expected, "{text}");
        }
        assert_eq!(Micros::parse("2024-01-01"), Some(Micros(1_704_067_200_000_000)));
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in
            ["2023-02-29", "2024-13-01", "2024-00-10", "0000-01-01", "2024-1-1", "", "2024-01-01T25:00:00Z"]
        {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_http_date_is_parsed() {
        assert_eq!(
            Micros::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Micros::parse("1994-11-06T08:49:37Z")
        );
        assert_eq!(Micros::parse_http_date("yesterday"), None);
    }

    proptest! {
        #[test]
        fn text_and_instant_convert_both_ways(us in Micros::MIN.0..=Micros::MAX.0) {
            prop_assert_eq!(Micros::parse(&Micros(us).to_string()), Some(Micros(us)));
        }

        #[test]
        fn a_month_starts_at_or_before_its_instants_and_ends_behind_them(us in Micros::MIN.0..=Micros::MAX.0) {
            let month = month_of(Micros(us));
            prop_assert!(month_start(month) <= Micros(us) && Micros(us) < month_start(month + 1));
            prop_assert!(month_start(month).to_string().ends_with("-01T00:00:00.000000Z"));
        }

        #[test]
        fn texts_sort_as_the_instants_do(a in Micros::MIN.0..=Micros::MAX.0, b in Micros::MIN.0..=Micros::MAX.0) {
            prop_assert_eq!(a.cmp(&b), Micros(a).to_string().cmp(&Micros(b).to_string()));
        }
    }
}
