//! The boundary to JavaScript: conversions and a thin driver, no decisions.

use wasm_bindgen::prelude::wasm_bindgen;

/// Returns the version of the component.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
