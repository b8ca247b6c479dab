//! Failures: a kind with a stable code, and a message that tells what happened and what to do.

use serde::Serialize;
use std::fmt;

/// The kind of a failure. It decides whether another attempt can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The configuration is wrong.
    Configuration,
    /// The configuration does not fit the stored checkpoints, or these cannot be read.
    CheckpointMismatch,
    /// The project, dataset, table or job does not exist.
    NotFound,
    /// A configured column is not in the source table.
    ColumnMissing,
    /// The cursor column has a type that cannot order rows in time.
    CursorType,
    /// A source column has the name of an attribute that the component or Harper adds, or one that Harper cannot store.
    ColumnReserved,
    /// The source table changed in such a way that rows can no longer be recognised.
    SchemaChanged,
    /// The credentials lack a permission.
    PermissionDenied,
    /// The credentials are missing, malformed or refused.
    Credentials,
    /// The access token expired.
    Unauthenticated,
    /// BigQuery refused the query as invalid.
    QueryInvalid,
    /// The query would bill more than the configured limit.
    BytesBilledLimit,
    /// The table's daily budget of billed bytes is used up, or too small for the next query.
    DayBudget,
    /// The result of a query is too large for BigQuery to compute or to return.
    WindowTooLarge,
    /// The project may not run queries because billing is not enabled for it.
    BillingDisabled,
    /// Google has blocked the project or the user for a while.
    Blocked,
    /// A BigQuery quota is used up for now.
    QuotaExceeded,
    /// BigQuery asks for fewer requests.
    RateLimited,
    /// BigQuery failed or is overloaded.
    Unavailable,
    /// No answer came within the time limit.
    Timeout,
    /// The connection failed.
    Unreachable,
    /// The result of a query is gone.
    ResultLost,
    /// An answer of BigQuery was cut or is not what was asked for.
    ResponseMalformed,
    /// Harper did not commit the rows.
    HarperWrite,
    /// Harper could not be read.
    HarperRead,
    /// The target table could not be made ready.
    HarperTable,
    /// More rows were rejected than the configuration allows.
    TooManyRejectedRows,
}

/// What the engine does after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Try again soon, with growing delays.
    Retry,
    /// Somebody has to change something. Check again from time to time.
    Recheck,
    /// Only a new start (after a change) can help.
    Halt,
}

impl Kind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Kind; 27] = [
        Kind::Configuration,
        Kind::CheckpointMismatch,
        Kind::NotFound,
        Kind::ColumnMissing,
        Kind::CursorType,
        Kind::ColumnReserved,
        Kind::SchemaChanged,
        Kind::PermissionDenied,
        Kind::Credentials,
        Kind::Unauthenticated,
        Kind::QueryInvalid,
        Kind::BytesBilledLimit,
        Kind::DayBudget,
        Kind::WindowTooLarge,
        Kind::BillingDisabled,
        Kind::Blocked,
        Kind::QuotaExceeded,
        Kind::RateLimited,
        Kind::Unavailable,
        Kind::Timeout,
        Kind::Unreachable,
        Kind::ResultLost,
        Kind::ResponseMalformed,
        Kind::HarperWrite,
        Kind::HarperRead,
        Kind::HarperTable,
        Kind::TooManyRejectedRows,
    ];

    /// Returns the stable code of the kind, for logs, the status and the documentation.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Configuration => "configuration",
            Kind::CheckpointMismatch => "checkpoint_mismatch",
            Kind::NotFound => "not_found",
            Kind::ColumnMissing => "column_missing",
            Kind::CursorType => "cursor_type",
            Kind::ColumnReserved => "column_reserved",
            Kind::SchemaChanged => "schema_changed",
            Kind::PermissionDenied => "permission_denied",
            Kind::Credentials => "credentials",
            Kind::Unauthenticated => "unauthenticated",
            Kind::QueryInvalid => "query_invalid",
            Kind::BytesBilledLimit => "bytes_billed_limit",
            Kind::DayBudget => "day_budget",
            Kind::WindowTooLarge => "window_too_large",
            Kind::BillingDisabled => "billing_disabled",
            Kind::Blocked => "blocked",
            Kind::QuotaExceeded => "quota_exceeded",
            Kind::RateLimited => "rate_limited",
            Kind::Unavailable => "unavailable",
            Kind::Timeout => "timeout",
            Kind::Unreachable => "unreachable",
            Kind::ResultLost => "result_lost",
            Kind::ResponseMalformed => "response_malformed",
            Kind::HarperWrite => "harper_write",
            Kind::HarperRead => "harper_read",
            Kind::HarperTable => "harper_table",
            Kind::TooManyRejectedRows => "too_many_rejected_rows",
        }
    }

    /// Returns the kind that a code names.
    pub fn from_code(code: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Tells what the engine does after a failure of this kind.
    pub fn recovery(self) -> Recovery {
        match self {
            Kind::Unauthenticated
            | Kind::WindowTooLarge
            | Kind::RateLimited
            | Kind::Unavailable
            | Kind::Timeout
            | Kind::Unreachable
            | Kind::ResultLost
            | Kind::ResponseMalformed
            | Kind::HarperWrite
            | Kind::HarperRead => Recovery::Retry,
            Kind::NotFound
            | Kind::ColumnMissing
            | Kind::CursorType
            | Kind::ColumnReserved
            | Kind::SchemaChanged
            | Kind::PermissionDenied
            | Kind::Credentials
            | Kind::QueryInvalid
            | Kind::BytesBilledLimit
            | Kind::DayBudget
            | Kind::BillingDisabled
            | Kind::Blocked
            | Kind::QuotaExceeded
            | Kind::HarperTable => Recovery::Recheck,
            Kind::Configuration | Kind::CheckpointMismatch | Kind::TooManyRejectedRows => Recovery::Halt,
        }
    }
}

/// A failure: its kind and one sentence that says what happened and, where known, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides what happens next.
    pub kind: Kind,
    /// Never holds a value of a row, nor a secret.
    pub message: String,
    /// How long the other side asks us to wait.
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// Makes a failure without a requested delay.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), retry_after_ms: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.code(), self.message)
    }
}

impl std::error::Error for Failure {}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_convert_both_ways() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
    }
}
