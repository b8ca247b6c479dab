//! What the core asks of JavaScript.

use js_sys::Promise;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

#[wasm_bindgen]
extern "C" {
    /// Input and output for one table. Promises are never rejected: a failure is `{failure: {code, message}}`.
    pub type Host;

    /// Reads the checkpoint with an id: `{checkpoint}`, null if there is none.
    #[wasm_bindgen(method, js_name = loadCheckpoint)]
    pub fn load_checkpoint(this: &Host) -> Promise;

    /// Makes the target table ready for rows of a layout: `{created}`, whether it had to be made.
    #[wasm_bindgen(method, js_name = ensureTarget)]
    pub fn ensure_target(this: &Host, layout: JsValue) -> Promise;

    /// Sends an HTTP request to BigQuery: `{status, date, retryAfter, body}`.
    #[wasm_bindgen(method)]
    pub fn send(this: &Host, request: JsValue) -> Promise;

    /// Commits rows and checkpoint in one transaction: `{refused, elapsedMs}`.
    #[wasm_bindgen(method)]
    pub fn write(this: &Host, order: JsValue) -> Promise;

    /// Calls back [`super::TableSync::step`] and tells whether it came back: a panic in it ends this instance of the
    /// core, and must not end the worker.
    #[wasm_bindgen(method)]
    pub fn guard(this: &Host) -> bool;

    /// Learns that the table's state or its last error changed.
    #[wasm_bindgen(method)]
    pub fn report(this: &Host, status: JsValue);
}
