//! What is written to Harper: ids, forms of values, and batches of rows.

pub mod batch;
pub mod form;
pub mod id;
