//! Lines for the log, and entries of the audit.

use serde::Serialize;

/// The urgency of a line: who has to look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nobody: the state has changed as expected.
    Info,
    /// Somebody, at some time: it works, but it is odd.
    Warn,
    /// Somebody, now: it does not work.
    Error,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// What it says, without values and secrets.
    pub text: String,
}

/// An entry of the audit that is not about a single row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Its kind, a stable word.
    pub kind: &'static str,
    /// What happened.
    pub reason: String,
}
