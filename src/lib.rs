//! Keeps Harper tables continuously equal to BigQuery tables.
//!
//! The core decides and never acts: [`engine::Engine::step`] takes one event and returns one command. Only
//! `wasm` knows JavaScript, a clock, randomness or input and output.

pub mod bigquery;
pub mod cluster;
pub mod config;
pub mod engine;
pub mod error;
pub mod log;
pub mod mapping;
pub mod operations;
pub mod partition;
pub mod schema;
pub mod time;
pub mod validation;
#[cfg(target_arch = "wasm32")]
pub mod wasm;
