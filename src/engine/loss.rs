//! Rows that are to be read again, whoever found that out.

use super::delivery::{Commit, Portion};
use crate::bigquery::sql::Window;
use crate::time::Micros;

/// Rows that have to be read again.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Rows of a result.
    Rows(Portion),
    /// Whatever the table has now in a window.
    Window(Window),
}

/// Commits of a worker of another node that did not arrive.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// The worker.
    pub owner: String,
    /// The first one's number.
    pub first: u64,
    /// How many they are.
    pub count: u64,
    /// What is to be read again next.
    pub piece: Piece,
    /// Whether that is all.
    pub is_last: bool,
    /// The time of writing that the rows get: whatever was written later stays.
    pub stamp: Option<Micros>,
    /// How far the worker had come with the last of them.
    pub end: Commit,
    /// Whether the values are compared with those that are stored.
    pub compares: bool,
}

impl Loss {
    /// Makes what is to be read again because this node's copy differs from the source, whoever committed it. Rows with a
    /// key get `stamp` as the time of writing.
    pub fn of_difference(table_id: &str, window: Window, stamp: Option<Micros>) -> Loss {
        Loss {
            owner: String::new(),
            first: 0,
            count: 0,
            piece: Piece::Window(window),
            is_last: true,
            stamp,
            end: Commit::none(table_id, String::new()),
            compares: false,
        }
    }

    /// Makes rows of a result whose values are compared with those that this node has stored.
    pub fn of_values(table_id: &str, rows: Portion, stamp: Option<Micros>) -> Loss {
        let window = rows.window();
        let piece = Piece::Rows(rows);
        Loss { piece, compares: true, ..Loss::of_difference(table_id, window, stamp) }
    }

    /// Returns the row behind the last one, if it is known which rows of a result they are.
    pub fn end_of_rows(&self) -> Option<u64> {
        match &self.piece {
            Piece::Rows(rows) => Some(rows.to),
            Piece::Window(_) => None,
        }
    }

    /// Whether no commit is known to be lost.
    pub fn is_difference(&self) -> bool {
        self.count == 0
    }

    /// Returns what this node keeps once the rows are there: up to this commit of the worker, nothing is missing.
    pub fn proof(&self) -> Commit {
        Commit { number: self.first + self.count - 1, ..self.end.clone() }
    }
}
