//! Keeps Harper tables continuously equal to BigQuery tables.

#[cfg(target_arch = "wasm32")]
pub mod wasm;
