//! Watches the columns of the sources: which node checks them, and how changes are reported.

pub mod lock;
pub mod report;
