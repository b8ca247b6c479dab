//! The functions that JavaScript provides to the core.

use js_sys::Promise;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

#[wasm_bindgen]
extern "C" {
    /// Input and output for one table. Promises are never rejected: a failure is `{failure: {code, message}}`.
    pub type Host;

    /// Reads the table's progress: `{checkpoints, counts, incarnation, schema, forgivenRows, lastCommit, proofs,
    /// lastStamp}`.
    #[wasm_bindgen(method)]
    pub fn load(this: &Host) -> Promise;

    /// Makes the target table ready for rows, as `target` describes it: `{incarnation}`. Only the first worker creates
    /// it at once; others wait a while for that.
    #[wasm_bindgen(method, js_name = ensureTarget)]
    pub fn ensure_target(this: &Host, target: JsValue, is_first: bool) -> Promise;

    /// Stores `{version, notes}`, unless a version with its number exists.
    #[wasm_bindgen(method, js_name = adoptSchema)]
    pub fn adopt_schema(this: &Host, adoption: JsValue) -> Promise;

    /// Stores the counts for the other workers.
    #[wasm_bindgen(method, js_name = shareCounts)]
    pub fn share_counts(this: &Host, counts: JsValue) -> Promise;

    /// Stores the worker's leaves for all nodes.
    #[wasm_bindgen(method, js_name = shareLeaves)]
    pub fn share_leaves(this: &Host, leaves: JsValue) -> Promise;

    /// Stores for all nodes how far the worker has compared the values of its rows.
    #[wasm_bindgen(method, js_name = shareContents)]
    pub fn share_contents(this: &Host, contents: JsValue) -> Promise;

    /// Sends an HTTP request to BigQuery: `{status, date, retryAfter, body}`.
    #[wasm_bindgen(method)]
    pub fn send(this: &Host, request: JsValue) -> Promise;

    /// Commits rows and checkpoints in one transaction: `{refused, rejected, unchanged, busyMs}`.
    #[wasm_bindgen(method)]
    pub fn write(this: &Host, order: JsValue) -> Promise;

    /// Calls [`super::TableSync::step`] back, and tells whether it returned. A panic in it ends this instance of the
    /// core, but must not end the worker.
    #[wasm_bindgen(method)]
    pub fn guard(this: &Host) -> bool;

    /// Learns that the table's state or last error has changed, and what has to be logged: `[{level, text}]`.
    #[wasm_bindgen(method)]
    pub fn report(this: &Host, status: JsValue, news: JsValue);
}
