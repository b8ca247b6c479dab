//! The comparison of a node's copy with the source.

use super::{convert, driver};
use crate::bigquery::sql::Window;
use crate::log::Note;
use crate::validation::{Check, Comparison, Conclusion, Leaves, Progress};
use serde::Serialize;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

/// Compares a node's copy of some rows with what was counted of them.
#[wasm_bindgen]
pub struct CopyComparison {
    comparison: Comparison,
}

#[derive(Serialize)]
struct WireConclusion {
    check: Check,
    windows: Vec<Window>,
    note: Option<Note>,
}

#[wasm_bindgen]
impl CopyComparison {
    /// Begins a comparison with a row of SyncLeaves.
    ///
    /// # Errors
    /// When it is something else.
    #[wasm_bindgen(constructor)]
    pub fn new(leaves: JsValue) -> Result<CopyComparison, JsValue> {
        let leaves: Leaves = serde_wasm_bindgen::from_value(leaves)?;
        let unknown =
            || JsError::new("the leaves were counted by a version that divides tables in another way");
        Ok(CopyComparison { comparison: Comparison::new(leaves).ok_or_else(unknown)? })
    }

    /// Returns the inclusive bounds of the ids to compare, `[first, last]`.
    pub fn bounds(&self) -> Vec<String> {
        let (first, last) = self.comparison.bounds();
        vec![first, last]
    }

    /// Adds rows of the copy: ids, of which each ends with a line feed.
    pub fn add(&mut self, ids: &str) {
        self.comparison.add(ids);
    }

    /// Concludes from what was added. `before` is the node's row of SyncCheck, or null; `rank` the node's place among all
    /// nodes; `haste` divides the waiting times. Returns `{check, windows, note}`: the row to store, the windows to read again, and `{kind, reason}` for the
    /// audit, or null.
    ///
    /// # Errors
    /// When `before` is something else.
    pub fn conclude(&self, before: JsValue, node: &str, rank: u32, haste: u32) -> Result<JsValue, JsValue> {
        let before: Option<Check> = serde_wasm_bindgen::from_value(before)?;
        let Conclusion { check, windows, note } =
            Check::conclude(before, &self.comparison, node, rank, haste, driver::now());
        convert::to_js(&WireConclusion { check, windows, note })
    }
}

/// Tells whether a node has to compare its copy with a row of SyncLeaves. `before` is its row of SyncCheck, or null;
/// `progress` are its rows of SyncCheckpoint for the table.
///
/// # Errors
/// When they are something else.
#[wasm_bindgen(js_name = isCheckDue)]
pub fn is_check_due(before: JsValue, leaves: JsValue, progress: JsValue) -> Result<bool, JsValue> {
    let before: Option<Check> = serde_wasm_bindgen::from_value(before)?;
    let leaves: Leaves = serde_wasm_bindgen::from_value(leaves)?;
    let progress: Vec<Progress> = serde_wasm_bindgen::from_value(progress)?;
    Ok(Check::is_due(before.as_ref(), &leaves, &progress, driver::now()))
}
