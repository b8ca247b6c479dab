//! What a target table is like in Harper, and what becomes of it when the source table changes.

pub mod attributes;
pub mod diff;
pub mod evolution;
pub mod lock;
pub mod report;
