//! Determines what a column of the source becomes in the target: which columns are read, the forms and attributes of
//! their values, the ids of rows, the versions of the schema, and the batches in which rows travel.

pub mod attributes;
pub mod batch;
pub mod diff;
pub mod evolution;
pub mod form;
pub mod id;
pub mod layout;
pub mod projection;
pub mod row;
pub mod succession;
pub mod target;
pub mod version;
