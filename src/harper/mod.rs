//! What is written to Harper: ids, and batches of rows.

pub mod batch;
pub mod id;
