//! The comparison of a node's copy with the source.

use super::{TableSync, convert, driver};
use crate::error::Failure;
use crate::validation::{Check, Comparison, KeyComparison, Leaves, Place, Progress, UnknownRule};
use std::borrow::Cow;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

/// Compares a node's copy of some rows with what was counted of them.
///
/// All pages that are requested are added, then all rows of the copy. That is done again as long as it has to look closer.
#[wasm_bindgen]
pub struct CopyComparison {
    comparison: Kind,
}

enum Kind {
    Times(Box<Comparison>),
    Keys(Box<KeyComparison>),
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
        let unknown = |UnknownRule| {
            JsError::new("the leaves were counted by a version that divides tables in another way")
        };
        let comparison = match leaves.listing.clone() {
            Some(listing) => Kind::Keys(Box::new(KeyComparison::new(leaves, listing).map_err(unknown)?)),
            None => Kind::Times(Box::new(Comparison::new(leaves).map_err(unknown)?)),
        };
        Ok(CopyComparison { comparison })
    }

    /// Returns the inclusive bounds of the ids to compare, `[first, last]`; nothing if these are all.
    pub fn bounds(&self) -> Option<Vec<String>> {
        match &self.comparison {
            Kind::Times(comparison) => comparison.bounds().map(|(first, last)| vec![first, last]),
            Kind::Keys(_) => None,
        }
    }

    /// Returns the attribute whose values are wanted besides the ids, if there is one.
    #[wasm_bindgen(js_name = cursorAttribute)]
    pub fn cursor_attribute(&self) -> Option<String> {
        self.leaves().cursor.as_ref().map(|cursor| cursor.attribute.clone())
    }

    /// Takes what the table's sync has read again, before any row is added. `before` is the node's row of SyncCheck, or
    /// null.
    ///
    /// # Errors
    /// When `before` is something else.
    pub fn vet(&mut self, sync: &TableSync, before: JsValue) -> Result<(), JsValue> {
        let before: Option<Check> = serde_wasm_bindgen::from_value(before)?;
        if let Kind::Times(comparison) = &mut self.comparison {
            comparison.vet(&sync.driver.vetted(), before.as_ref());
        }
        Ok(())
    }

    /// Takes the ids of rows that cannot be written, as a JSON array.
    ///
    /// # Errors
    /// When it is something else.
    pub fn excuse(&mut self, ids: &str) -> Result<(), JsError> {
        let ids: Vec<Cow<'_, str>> = serde_json::from_str(ids)?;
        match &mut self.comparison {
            Kind::Times(comparison) => comparison.excuse(ids.iter().map(|id| &**id)),
            Kind::Keys(comparison) => comparison.excuse(&ids),
        }
        Ok(())
    }

    /// Returns the next request to BigQuery, if there is one.
    ///
    /// # Errors
    /// None that is known.
    pub fn request(&self) -> Result<JsValue, JsValue> {
        match &self.comparison {
            Kind::Keys(comparison) => comparison.request().as_ref().map_or(Ok(JsValue::NULL), convert::to_js),
            Kind::Times(_) => Ok(JsValue::NULL),
        }
    }

    /// Adds the answer to it.
    ///
    /// # Errors
    /// When it is something else.
    #[wasm_bindgen(js_name = addPage)]
    pub fn add_page(&mut self, body: Vec<u8>) -> Result<(), JsError> {
        let unfit = |failure: Failure| JsError::new(&failure.message);
        match &mut self.comparison {
            Kind::Keys(comparison) => comparison.add_page(body).map_err(unfit),
            Kind::Times(_) => Ok(()),
        }
    }

    /// Adds rows of the copy, as a JSON array of their ids or, if a cursor is wanted too, of an id and its cursor in turn.
    ///
    /// # Errors
    /// When it is something else.
    pub fn add(&mut self, rows: &str) -> Result<(), JsError> {
        let has_cursors = self.leaves().cursor.is_some();
        let rows: Vec<Option<Cow<'_, str>>> = serde_json::from_str(rows)?;
        let pairs = rows.chunks_exact(2).filter_map(|pair| match pair {
            [Some(id), Some(cursor)] => Some((&**id, &**cursor)),
            _ => None,
        });
        match &mut self.comparison {
            Kind::Keys(comparison) => comparison.add_stored(&rows),
            Kind::Times(comparison) if has_cursors => comparison.add_stored(pairs),
            Kind::Times(comparison) => comparison.add(rows.iter().flatten().map(|text| &**text)),
        }
        Ok(())
    }

    /// Ends a round. Returns whether all pages and rows have to be added once more.
    #[wasm_bindgen(js_name = looksCloser)]
    pub fn looks_closer(&mut self) -> bool {
        match &mut self.comparison {
            Kind::Keys(comparison) => comparison.looks_closer(),
            Kind::Times(_) => false,
        }
    }

    /// Concludes from what was added. `before` is the node's row of SyncCheck, or null; `rank` the node's place among all
    /// nodes; `haste` divides the waiting times; `is_certain` tells whether a difference counts at first sight. Returns
    /// `{check, repair, deletion, note}`: the row to store, what to read again and what to delete, and `{kind, reason}` for
    /// the audit; the last three may be null.
    ///
    /// # Errors
    /// When `before` is something else.
    pub fn conclude(
        &self,
        before: JsValue,
        node: &str,
        rank: u32,
        haste: u32,
        is_certain: bool,
    ) -> Result<JsValue, JsValue> {
        let before: Option<Check> = serde_wasm_bindgen::from_value(before)?;
        let place = Place { node, rank, haste, is_certain, now: driver::now() };
        let conclusion = match &self.comparison {
            Kind::Times(found) => {
                let finding = found.finding(before.as_ref());
                Check::conclude(before, &finding, |leaves| found.windows(leaves), place)
            }
            Kind::Keys(found) => {
                let finding = found.finding(before.as_ref(), node);
                Check::conclude(before, &finding, |leaves| found.windows(leaves), place)
            }
        };
        convert::to_js(&conclusion)
    }

    fn leaves(&self) -> &Leaves {
        match &self.comparison {
            Kind::Times(comparison) => comparison.leaves(),
            Kind::Keys(comparison) => comparison.leaves(),
        }
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
