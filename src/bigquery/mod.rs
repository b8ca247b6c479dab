//! Requests to BigQuery and its answers; knows nothing of Harper.

pub mod cursor;
pub mod failure;
pub mod job;
pub mod json;
pub mod page;
pub mod request;
pub mod schema;
pub mod sql;
pub mod table;
pub mod value;
