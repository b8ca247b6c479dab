//! The comparison of nodes' copies with each other.

use super::{convert, driver};
use crate::log::Note;
use crate::validation::{
    Neighbour, Put, Reading, Returns, Situation, Step, Summary, forgotten_until, mended, next, stamp_after,
};
use serde::Serialize;
use std::borrow::Cow;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

/// Decides when a node compares its copies with those of other nodes, and what it tells them.
#[wasm_bindgen]
pub struct Neighbours {
    node: String,
    haste: u32,
    returns: Returns,
    summaries: Vec<Summary>,
}

/// What a node does next.
#[wasm_bindgen]
pub struct CopyStep {
    reading: Option<Box<Reading>>,
    told: Option<Box<Summary>>,
    note: Option<Note>,
}

#[derive(Serialize)]
struct WireEnd {
    summary: Option<Summary>,
    puts: Vec<WirePut>,
    note: Option<Note>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WirePut {
    written_at: f64,
    stamp: f64,
    ids: Vec<String>,
    lacking: Vec<String>,
}

#[wasm_bindgen]
impl Neighbours {
    /// Begins when the node itself has returned. `haste` divides the waiting times.
    #[wasm_bindgen(constructor)]
    pub fn new(node: &str, haste: u32) -> Neighbours {
        let returns = Returns::new(node, haste, now_ms());
        Neighbours { node: node.to_owned(), haste, returns, summaries: Vec::new() }
    }

    /// Looks at the other nodes: `[{node, alive, beat, started}]`.
    ///
    /// # Errors
    /// When they are something else.
    pub fn observe(&mut self, others: JsValue) -> Result<(), JsValue> {
        let others: Vec<Neighbour> = serde_wasm_bindgen::from_value(others)?;
        self.returns.observe(others, now_ms());
        Ok(())
    }

    /// Takes the rows of SyncCopy, as a JSON array: as objects, the largest ones would take ten times as long.
    ///
    /// # Errors
    /// When it is something else.
    pub fn hear(&mut self, summaries: &str) -> Result<(), JsError> {
        self.summaries = serde_json::from_str(summaries)?;
        Ok(())
    }

    /// Decides what to do next for a table, if there is something to do. `asked` is how often operators wanted it to be
    /// validated. Harper has removed deletions up to `removed_until`, and the node runs the table since `began_at`, in ms
    /// since 1970.
    pub fn next(&mut self, table: &str, asked: f64, removed_until: f64, began_at: f64) -> Option<CopyStep> {
        let of_table = self.summaries.iter().filter(|one| one.table_id == table);
        let summaries: Vec<Summary> = of_table.cloned().collect();
        let now = now_ms();
        let own = summaries.iter().find(|one| one.node == self.node);
        let compared_until = own.map_or(0.0, |own| own.until);
        let begins = self.returns.begins(table, asked as u64, compared_until, now);
        let situation = Situation {
            table_id: table,
            node: &self.node,
            others: &self.returns.alive(),
            heard: self.returns.heard(now),
            forgotten: forgotten_until(removed_until, began_at),
            now,
            haste: self.haste,
            begins,
            mended: own.map_or(0, |own| own.mended),
        };
        next(&summaries, &situation).map(|step| match step {
            Step::Read(reading) => CopyStep { reading: Some(reading), told: None, note: None },
            Step::Tell(summary, note) => CopyStep { reading: None, told: Some(summary), note },
        })
    }
}

#[wasm_bindgen]
impl CopyStep {
    /// Returns the times between which the records were written that are to be read, `[after, until]`; nothing if none are.
    pub fn bounds(&self) -> Option<Vec<f64>> {
        self.reading.as_ref().map(|reading| reading.bounds()).map(|(after, until)| vec![after, until])
    }

    /// Adds records: their ids as a JSON array, and when each was written.
    ///
    /// # Errors
    /// When the ids are something else.
    pub fn add(&mut self, ids: &str, written_at: &[f64]) -> Result<(), JsError> {
        let ids: Vec<Cow<'_, str>> = serde_json::from_str(ids)?;
        if let Some(reading) = &mut self.reading {
            reading.add(ids.iter().map(|id| &**id).zip(written_at.iter().copied()));
        }
        Ok(())
    }

    /// Ends the step. Returns `{summary, puts, note}` as JSON: the row of SyncCopy to store, after rows were put again with
    /// a stamp, and a note for the audit, or null.
    ///
    /// # Errors
    /// None that is known.
    pub fn end(self) -> Result<String, JsError> {
        let (summary, puts) = match (self.reading, self.told) {
            (Some(reading), _) => {
                let (summary, puts) = reading.end();
                (Some(summary), puts)
            }
            (None, told) => (told.map(|told| *told), Vec::new()),
        };
        let wire = |Put { written_at, ids, lacking }: Put| WirePut {
            written_at,
            stamp: stamp_after(written_at),
            ids,
            lacking: lacking.into_iter().collect(),
        };
        let puts = puts.into_iter().map(wire).collect();
        Ok(serde_json::to_string(&WireEnd { summary, puts, note: self.note })?)
    }
}

/// Returns `{kind, reason}` for the audit: a node has put rows of a commit again.
///
/// # Errors
/// None that is known.
#[wasm_bindgen(js_name = copyMended)]
pub fn copy_mended(node: &str, lacking: Vec<String>, written_at: f64, rows: f64) -> Result<JsValue, JsValue> {
    convert::to_js(&mended(node, &lacking, written_at, rows as u64))
}

fn now_ms() -> f64 {
    driver::now().0 as f64 / 1_000.0
}
