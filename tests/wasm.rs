//! The boundary as JavaScript sees it, in Node.
#![cfg(target_arch = "wasm32")]
// Clippy does not take these functions for tests, in which a panic is the way to fail.
#![allow(clippy::unwrap_used)]

use bigquery_sync::wasm::{Configuration, version};
use js_sys::{Array, JSON, Reflect};
use std::rc::Rc;
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::wasm_bindgen_test;

fn parse(json: &str) -> JsValue {
    JSON::parse(json).unwrap()
}

fn configuration() -> Configuration {
    let root = r#"{"bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"}}"#;
    Configuration::new(parse(root), parse(r#"{"emulatorHost": "localhost:1", "sharedRoot": true}"#)).unwrap()
}

fn get(object: &JsValue, key: &str) -> JsValue {
    Reflect::get(object, &key.into()).unwrap()
}

#[wasm_bindgen_test]
fn the_version_is_that_of_the_package() {
    assert_eq!(version(), env!("CARGO_PKG_VERSION"));
}

#[wasm_bindgen_test]
fn problems_are_an_array_of_objects() {
    let refused = Configuration::new(parse("{}"), parse(r#"{"sharedRoot": true}"#)).err().unwrap();
    let problems: Array = refused.dyn_into().unwrap();
    assert_eq!(get(&problems.get(0), "key").as_string().as_deref(), Some("bigquery"));
}

#[wasm_bindgen_test]
fn a_summary_is_a_plain_object() {
    let summary = configuration().summary().unwrap();
    let table = get(&summary, "tables").dyn_into::<Array>().unwrap().get(0);
    assert_eq!(get(&table, "targetTable").as_string().as_deref(), Some("BigQueryData"));
    assert!(get(&get(&summary, "connection"), "credentials").is_null());
}

#[wasm_bindgen_test]
fn an_unknown_table_is_an_error() {
    let worker = parse(r#"{"node": "n", "index": 0}"#);
    assert!(configuration().table("nope", worker, JsValue::UNDEFINED).is_err());
}

#[wasm_bindgen_test]
async fn a_run_can_be_asked_for_its_status_and_stopped_while_it_waits_for_the_host() {
    let sync = Rc::new(
        configuration().table("t", parse(r#"{"node": "n", "index": 0}"#), JsValue::UNDEFINED).unwrap(),
    );
    // This host takes its time.
    let host = js_sys::Function::new_no_args(
        "return {load: () => new Promise((resolve) => setTimeout(() => resolve({checkpoints: [], counts: null, incarnation: ''}), 50)),
            report() {}, guard() { this.sync.step(); return true }}",
    );
    let host = host.call0(&JsValue::UNDEFINED).unwrap();
    let step = Closure::<dyn Fn()>::new({
        let sync = sync.clone();
        move || sync.step()
    });
    let stepper = js_sys::Object::new();
    Reflect::set(&stepper, &"step".into(), step.as_ref()).unwrap();
    Reflect::set(&host, &"sync".into(), &stepper).unwrap();
    let ended = sync.run(host.unchecked_into());
    let state = get(&sync.status().unwrap(), "state").as_string();
    assert_eq!(state.as_deref(), Some("starting"));
    sync.stop();
    JsFuture::from(ended).await.unwrap();
    assert_eq!(get(&sync.status().unwrap(), "state").as_string().as_deref(), Some("stopped"));
}
