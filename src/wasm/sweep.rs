//! The boundary to JavaScript for removing what is gone from the source.

use super::{TableSync, convert, driver};
use crate::engine::checkpoint::Checkpoint;
use crate::engine::delivery::Commit;
use crate::engine::resync::Resync;
use crate::engine::sweep::{Known, Sweep, Swept, Written};
use crate::log::Note;
use crate::time::Micros;
use crate::validation::Place;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

/// What a node removes from its copy of a table.
#[wasm_bindgen]
pub struct CopySweep {
    sweep: Sweep,
}

/// A record: its id, the time of its last writing in ms, when it was synced, and the wanted attribute.
#[derive(Deserialize)]
struct WireRecord<'r>(
    #[serde(borrow)] Cow<'r, str>,
    f64,
    #[serde(borrow)] Option<Cow<'r, str>>,
    #[serde(borrow)] Option<Cow<'r, str>>,
);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireRemoval {
    /// The time of writing.
    stamp_ms: f64,
    /// The places of the records among those that were added.
    places: Vec<usize>,
}

#[derive(Serialize)]
struct WireEnd {
    swept: Swept,
    note: Note,
    sequel: Option<Resync>,
}

#[derive(Deserialize)]
struct WirePlace {
    node: String,
    rank: u32,
    haste: u32,
}

#[wasm_bindgen]
impl TableSync {
    /// Takes the operators' last command to read the table again: `{number, given, from}`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn resync(&self, resync: JsValue) -> Result<(), JsValue> {
        self.driver.hear_resync(serde_wasm_bindgen::from_value(resync)?);
        Ok(())
    }

    /// Tells what the node has to remove from its copy now; nothing if nothing is due. `told` has what other workers tell
    /// of their last commits, `checkpoints` the node's rows of SyncCheckpoint for the table; `known` is `{swept,
    /// mendedAt}`, `place` is `{node, rank, haste}`.
    ///
    /// # Errors
    /// When they are something else.
    pub fn sweep(
        &self,
        told: JsValue,
        checkpoints: JsValue,
        known: JsValue,
        place: JsValue,
    ) -> Result<Option<CopySweep>, JsValue> {
        let told: Vec<Commit> = serde_wasm_bindgen::from_value(told)?;
        let checkpoints: Vec<Checkpoint> = serde_wasm_bindgen::from_value(checkpoints)?;
        let known: Known = serde_wasm_bindgen::from_value(known)?;
        let WirePlace { node, rank, haste } = serde_wasm_bindgen::from_value(place)?;
        let place = Place { node: &node, rank, haste, is_certain: false, now: driver::now() };
        Ok(self.driver.sweep(told, &checkpoints, known, place).map(|sweep| CopySweep { sweep }))
    }
}

#[wasm_bindgen]
impl CopySweep {
    /// Whether this node may remove something.
    #[wasm_bindgen(js_name = mayRemove)]
    pub fn may_remove(&self) -> bool {
        self.sweep.may_remove()
    }

    /// Returns a time in ms: records that were written then or later stay in any case.
    #[wasm_bindgen(js_name = staysFromMs)]
    pub fn stays_from_ms(&self) -> f64 {
        to_ms(self.sweep.stays_from())
    }

    /// Returns the attribute whose values are wanted, if there is one.
    pub fn attribute(&self) -> Option<String> {
        self.sweep.attribute().map(str::to_owned)
    }

    /// Takes the ids of rows that cannot be written, as a JSON array: a former version of them stays.
    ///
    /// # Errors
    /// When it is something else.
    pub fn excuse(&mut self, ids: &str) -> Result<(), JsError> {
        let ids: Vec<String> = serde_json::from_str(ids)?;
        self.sweep.excuse(ids);
        Ok(())
    }

    /// Returns which records are gone from the source: `[{stampMs, places}, …]`, each with the time of writing at which
    /// they have to be removed. `records` is a JSON array of `[id, stampMs, syncedAt, cursor]`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn taken(&self, records: &str) -> Result<JsValue, JsValue> {
        let records: Vec<WireRecord<'_>> = serde_json::from_str(records).map_err(JsError::from)?;
        let mut removals: BTreeMap<Micros, Vec<usize>> = BTreeMap::new();
        for (place, WireRecord(id, stamp_ms, synced_at, cursor)) in records.iter().enumerate() {
            let record = Written {
                id,
                stamp: Micros((stamp_ms * 1_000.0).round() as i64),
                synced_at: synced_at.as_deref().and_then(Micros::parse),
                cursor: cursor.as_deref(),
            };
            if let Some(stamp) = self.sweep.takes(record) {
                removals.entry(stamp).or_default().push(place);
            }
        }
        let removals: Vec<WireRemoval> = removals
            .into_iter()
            .map(|(stamp, places)| WireRemoval { stamp_ms: to_ms(stamp), places })
            .collect();
        convert::to_js(&removals)
    }

    /// Notes that so many records were removed.
    pub fn removed(&mut self, records: u32) {
        self.sweep.remove(u64::from(records));
    }

    /// Returns the row of SyncSweep that is to be stored meanwhile.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn swept(&self) -> Result<JsValue, JsValue> {
        convert::to_js(&self.sweep.swept(driver::now()))
    }

    /// Returns a time in ms, if that is of interest: records that stay, and say that they were synced before it, are to be
    /// counted.
    #[wasm_bindgen(js_name = outdatedBeforeMs)]
    pub fn outdated_before_ms(&self) -> Option<f64> {
        self.sweep.outdated_before().map(to_ms)
    }

    /// Notes that there are so many such records.
    #[wasm_bindgen(js_name = foundOutdated)]
    pub fn found_outdated(&mut self, records: u32) {
        self.sweep.find_outdated(u64::from(records));
    }

    /// Ends. Returns `{swept, note, sequel}`: the row of SyncSweep, `{kind, reason}` for the audit, and the command that
    /// has to follow, or null.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn end(&self) -> Result<JsValue, JsValue> {
        let (swept, note) = self.sweep.end(driver::now());
        convert::to_js(&WireEnd { swept, note, sequel: self.sweep.sequel(driver::now()) })
    }
}

fn to_ms(stamp: Micros) -> f64 {
    stamp.0 as f64 / 1_000.0
}
