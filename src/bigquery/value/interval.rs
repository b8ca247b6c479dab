//! Intervals, from BigQuery's notation to ISO 8601.

use crate::time::SECOND_US;

/// An interval: its three parts have signs of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    months: i64,
    days: i64,
    micros: i64,
}
impl Interval {
    /// Parses `[-]Y-M [-]D [-]H:M:S[.F]`.
    pub fn parse(text: &str) -> Option<Interval> {
        let mut parts = text.splitn(3, ' ');
        let (year_sign, year_month) = signed(parts.next()?);
        let days: i64 = parts.next()?.parse().ok()?;
        let (time_sign, clock) = signed(parts.next()?);
        let (years, months) = year_month.split_once('-')?;
        let years: i64 = years.parse().ok()?;
        let months: i64 = months.parse().ok()?;
        let mut clock = clock.splitn(3, ':');
        let hours: i64 = clock.next()?.parse().ok()?;
        let minutes: i64 = clock.next()?.parse().ok()?;
        let (seconds, fraction) = clock.next().map(|text| text.split_once('.').unwrap_or((text, "0")))?;
        let seconds: i64 = seconds.parse().ok()?;
        if fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let fraction_us = fraction.parse::<i64>().ok()? * 10_i64.pow(6 - fraction.len() as u32);
        let whole_us =
            hours.checked_mul(3_600)?.checked_add(minutes * 60 + seconds)?.checked_mul(SECOND_US)?;
        Some(Interval {
            months: year_sign * (years.checked_mul(12)?.checked_add(months)?),
            days,
            micros: time_sign * whole_us.checked_add(fraction_us)?,
        })
    }

    /// Returns the ISO 8601 text.
    pub fn to_iso8601(self) -> String {
        let mut text = String::from("P");
        let mut part = |amount: i64, unit: char| {
            if amount != 0 {
                text.push_str(&amount.to_string());
                text.push(unit);
            }
        };
        part(self.months / 12, 'Y');
        part(self.months % 12, 'M');
        part(self.days, 'D');
        let seconds = self.micros / SECOND_US;
        let fraction_us = (self.micros % SECOND_US).unsigned_abs();
        if self.micros != 0 {
            text.push('T');
            let mut part = |amount: i64, unit: char| {
                if amount != 0 {
                    text.push_str(&amount.to_string());
                    text.push(unit);
                }
            };
            part(seconds / 3_600, 'H');
            part(seconds / 60 % 60, 'M');
            if fraction_us == 0 {
                part(seconds % 60, 'S');
            } else {
                let sign = if self.micros < 0 { "-" } else { "" };
                let fraction = format!("{fraction_us:06}");
                let fraction = fraction.trim_end_matches('0');
                text.push_str(&format!("{sign}{}.{fraction}S", (seconds % 60).unsigned_abs()));
            }
        }
        if text == "P" { "PT0S".to_owned() } else { text }
    }
}

fn signed(text: &str) -> (i64, &str) {
    text.strip_prefix('-').map_or((1, text), |rest| (-1, rest))
}
