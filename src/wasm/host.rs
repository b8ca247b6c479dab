//! The functions that JavaScript provides to the core.

use js_sys::Promise;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

#[wasm_bindgen]
extern "C" {
    /// Input and output for one table. Promises are never rejected: a failure is `{failure: {code, message}}`.
    pub type Host;

    /// Reads the table's progress: `{checkpoints, counts, incarnation, schema, forgivenRows}`.
    #[wasm_bindgen(method)]
    pub fn load(this: &Host) -> Promise;

    /// Makes the target table ready for rows, `target` tells how: `{incarnation}`. Who is not first waits for another to make it.
    #[wasm_bindgen(method, js_name = ensureTarget)]
    pub fn ensure_target(this: &Host, target: JsValue, is_first: bool) -> Promise;

    /// Stores `{version, notes}`, unless a version with its number is there.
    #[wasm_bindgen(method, js_name = adoptSchema)]
    pub fn adopt_schema(this: &Host, adoption: JsValue) -> Promise;

    /// Stores what was counted, for the other workers.
    #[wasm_bindgen(method, js_name = shareCounts)]
    pub fn share_counts(this: &Host, counts: JsValue) -> Promise;

    /// Sends an HTTP request to BigQuery: `{status, date, retryAfter, body}`.
    #[wasm_bindgen(method)]
    pub fn send(this: &Host, request: JsValue) -> Promise;

    /// Commits rows and checkpoints in one transaction: `{refused, rejected, unchanged, busyMs}`.
    #[wasm_bindgen(method)]
    pub fn write(this: &Host, order: JsValue) -> Promise;

    /// Calls back [`super::TableSync::step`] and tells whether it came back: a panic in it ends this instance of the
    /// core, and must not end the worker.
    #[wasm_bindgen(method)]
    pub fn guard(this: &Host) -> bool;

    /// Learns that the table's state or its last error changed, and what is to be logged of it: `[{level, text}]`.
    #[wasm_bindgen(method)]
    pub fn report(this: &Host, status: JsValue, news: JsValue);
}
