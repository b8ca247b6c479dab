//! Watches the columns of the sources: which node checks them, and how changes are reported. Watches the indexes that
//! Harper builds.

pub mod indexing;
pub mod lock;
pub mod report;
