//! Watches the columns of the sources: who looks for changes, and what is told of them.

pub mod lock;
pub mod report;
