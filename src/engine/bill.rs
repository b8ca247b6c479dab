//! The bill for a table: bytes billed so far, budgets, and the projected cost.

use super::ledger::Ledger;
use crate::config::Pace;
use crate::error::{Failure, Kind};
use crate::time::{DAY_US, Micros};

/// The price of a tebibyte that a query scans, in US dollars, on demand, in most regions by Google's price list.
const DOLLARS_PER_TEBIBYTE: f64 = 6.25;
/// The status warns of a table that would cost more than this in a day.
const DOLLARS_PER_DAY_MAX: f64 = 10.0;

/// The bytes that this worker's queries have billed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bill {
    /// Bytes that are not yet in a checkpoint.
    pub unsaved_bytes: u64,
    /// Bytes of a job whose id we chose, for the commit that is being made. The stored checkpoint tells whether that
    /// commit succeeded.
    pub job_bytes: u64,
    /// The bytes that the last query outside a backlog billed.
    pub poll_bytes: Option<u64>,
}

/// Returns the number of the day, by UTC, that an instant lies in.
pub fn day_of(instant: Micros) -> i64 {
    instant.0.div_euclid(DAY_US)
}

impl Bill {
    /// Adds what a query billed.
    pub fn add(&mut self, bytes: u64) {
        self.unsaved_bytes = self.unsaved_bytes.saturating_add(bytes);
    }

    /// Returns the bytes that the next checkpoint has to add.
    pub fn due_bytes(&self) -> u64 {
        self.unsaved_bytes.saturating_add(self.job_bytes)
    }

    /// Notes that a checkpoint contains all bytes that were added.
    pub fn save(&mut self) {
        self.unsaved_bytes = 0;
        self.job_bytes = 0;
    }

    /// Notes that a commit may have failed. A job's bill is added again if the stored checkpoint does not contain it.
    pub fn doubt_commit(&mut self) {
        self.job_bytes = 0;
    }

    /// Returns the bytes billed on a day: those of all checkpoints, and those of this worker that are not yet in one.
    pub fn on_day(&self, day: i64, ledger: &Ledger) -> u64 {
        let billed = ledger.sum(|row| if row.billed_day == day { row.billed_on_day } else { 0 });
        billed.saturating_add(self.unsaved_bytes)
    }

    /// Checks that a day's budget is not used up, after `billed` bytes.
    ///
    /// # Errors
    /// When it is.
    pub fn check_day(billed: u64, pace: &Pace) -> Result<(), Failure> {
        match pace.day_bytes_billed_max {
            Some(limit) if billed >= limit => Err(over_budget(limit, billed, 0)),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that a query of so many bytes is allowed, on a day that has `billed` bytes already.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_query(bytes: u64, billed: u64, pace: &Pace) -> Result<(), Failure> {
        if let Some(limit) = pace.bytes_billed_max.filter(|limit| bytes > *limit) {
            let message = format!(
                "the next query would bill {bytes} bytes, limits.maxBytesBilledPerQuery allows {limit}: raise the \
                 limit, or partition the source table on the cursor column"
            );
            return Err(Failure::new(Kind::BytesBilledLimit, message));
        }
        match pace.day_bytes_billed_max {
            Some(limit) if bytes > 0 && billed.saturating_add(bytes) > limit => {
                Err(over_budget(limit, billed, bytes))
            }
            Some(_) | None => Self::check_day(billed, pace),
        }
    }

    /// Returns the bytes that this worker's polls would bill in a day, if the table changed all the time.
    pub fn projected_bytes_per_day(&self, pace: &Pace) -> Option<u64> {
        let polls = DAY_US.unsigned_abs() / 1_000 / pace.poll_interval_ms.max(1);
        self.poll_bytes.map(|bytes| bytes.saturating_mul(polls))
    }

    /// Warns of a table whose polls cost much.
    pub fn warning(&self, pace: &Pace) -> Option<String> {
        let bytes = self.projected_bytes_per_day(pace)?;
        let dollars = bytes as f64 / (1_u64 << 40) as f64 * DOLLARS_PER_TEBIBYTE;
        (dollars > DOLLARS_PER_DAY_MAX).then(|| {
            format!(
                "if the table changes all the time, this worker's polls bill about {dollars:.0} US dollars a day on \
                 demand: raise pollInterval, list fewer columns, or partition the source table on the cursor column"
            )
        })
    }
}

fn over_budget(limit: u64, billed: u64, next_bytes: u64) -> Failure {
    let next = match next_bytes {
        0 => String::new(),
        bytes => format!(" and the next query would add {bytes}"),
    };
    let message = format!(
        "limits.maxBytesBilledPerDay is {limit}; {billed} bytes were billed today{next}: the table goes on at \
         midnight UTC, or when the limit is raised"
    );
    Failure::new(Kind::DayBudget, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::samples::{table, table_with};
    use serde_json::json;

    fn kind(outcome: Result<(), Failure>) -> Option<Kind> {
        outcome.err().map(|failure| failure.kind)
    }

    #[test]
    fn a_day_s_budget_may_be_used_up_but_not_exceeded() {
        let pace = table_with(json!({"limits": {"maxBytesBilledPerDay": 100}})).pace;
        assert_eq!(kind(Bill::check_day(99, &pace)), None);
        assert_eq!(kind(Bill::check_query(1, 99, &pace)), None);
        assert_eq!(kind(Bill::check_query(2, 99, &pace)), Some(Kind::DayBudget));
        assert_eq!(kind(Bill::check_day(100, &pace)), Some(Kind::DayBudget));
        assert_eq!(kind(Bill::check_query(0, 100, &pace)), Some(Kind::DayBudget));
    }

    #[test]
    fn a_query_over_its_own_limit_is_refused_whatever_the_day_has_left() {
        let pace = table_with(json!({"limits": {"maxBytesBilledPerQuery": 10}})).pace;
        assert_eq!(kind(Bill::check_query(10, u64::MAX, &pace)), None);
        assert_eq!(kind(Bill::check_query(11, 0, &pace)), Some(Kind::BytesBilledLimit));
        assert_eq!(kind(Bill::check_query(u64::MAX, u64::MAX, &table().pace)), None);
    }

    #[test]
    fn what_is_not_in_a_checkpoint_counts_for_today() {
        let mut bill = Bill::default();
        bill.add(7);
        bill.add(u64::MAX);
        assert_eq!(bill.on_day(3, &Ledger::default()), u64::MAX);
        bill.save();
        assert_eq!(bill.on_day(3, &Ledger::default()), 0);
    }
}
