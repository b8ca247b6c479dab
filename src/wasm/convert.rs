//! Conversions between the core's types and JavaScript's: buffers for data, small objects for control.

use crate::engine::{Answer, Incarnation, Note, Receipt, Stored, WriteOrder};
use crate::error::{Failure, Kind};
use crate::mapping::succession::Renewed;
use crate::mapping::version::{Change, SchemaVersion};
use crate::time::Micros;
use crate::time::zone::{Zone, Zones};
use js_sys::{Float64Array, JsString, Object, Reflect, Uint8Array, Uint32Array};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wasm_bindgen::{JsCast, JsValue};

/// Converts control data.
pub fn to_js<T: Serialize>(value: &T) -> Result<JsValue, JsValue> {
    Ok(value.serialize(&serde_wasm_bindgen::Serializer::json_compatible())?)
}

#[derive(Deserialize)]
struct WireFailure {
    code: String,
    message: String,
}

/// Converts an outcome. One that has a `failure` becomes an error; `fallback` is its kind if the host names no known
/// one.
pub fn outcome(value: Result<JsValue, JsValue>, fallback: Kind) -> Result<JsValue, Failure> {
    let value = value.map_err(|_| Failure::new(fallback, "the host failed without saying why"))?;
    let failure = Reflect::get(&value, &"failure".into()).unwrap_or(JsValue::UNDEFINED);
    if failure.is_undefined() {
        return Ok(value);
    }
    match serde_wasm_bindgen::from_value::<WireFailure>(failure) {
        Ok(wire) => Err(Failure::new(Kind::from_code(&wire.code).unwrap_or(fallback), wire.message)),
        Err(_) => Err(Failure::new(fallback, "the host failed without saying why")),
    }
}

/// The time zones that the host knows.
#[derive(Deserialize, Default)]
pub struct WireZones {
    /// Pairs of milliseconds, by names.
    rules: BTreeMap<String, Vec<(f64, f64)>>,
    names: Vec<String>,
}

impl WireZones {
    /// Reads the rules. Such as make no zone are left out.
    pub fn read(self) -> Zones {
        let zone = |(name, rules): (String, Vec<(f64, f64)>)| {
            let spell = |(from_ms, ahead_ms)| (Micros::from_millis(from_ms as i64), ahead_ms as i64 * 1_000);
            Zone::new(&name, rules.into_iter().map(spell)).map(|zone| (name, zone))
        };
        Zones { named: self.rules.into_iter().filter_map(zone).collect(), names: self.names }
    }
}

/// Reads `{checkpoints, counts, incarnation, schema, forgivenRows, lastCommit, proofs, heads, removed,
/// validation, resync}`.
pub fn stored(value: &JsValue) -> Result<Box<Stored>, Failure> {
    let stored: Result<Box<Stored>, _> = serde_wasm_bindgen::from_value(value.clone());
    stored.map_err(|error| {
        let message = format!(
            "the SyncCheckpoint, SyncBatch or SchemaVersion rows of the table cannot be read ({error}): repair them, \
             or delete them to read the table anew"
        );
        Failure::new(Kind::CheckpointMismatch, message)
    })
}

#[derive(Serialize)]
struct WireAdoption<'v> {
    version: &'v SchemaVersion,
    notes: Vec<Note>,
}

/// Makes `{version, notes}`.
pub fn adoption(version: &SchemaVersion) -> Result<JsValue, JsValue> {
    let note = |change: &Change| Note { kind: "schema_changed", reason: change.sentence() };
    to_js(&WireAdoption { version, notes: version.changes.iter().map(note).collect() })
}

/// Reads `{status, date, retryAfter, body}`.
pub fn answer(value: &JsValue) -> Result<Answer, Failure> {
    let get = |key: &str| Reflect::get(value, &key.into()).unwrap_or(JsValue::UNDEFINED);
    let malformed =
        || Failure::new(Kind::ResponseMalformed, "the host gave an answer without status or body");
    let server_time = get("date").as_string().and_then(|text| Micros::parse_http_date(&text));
    let retry_after = get("retryAfter").as_string();
    let body = get("body").dyn_into::<Uint8Array>().map_err(|_| malformed())?;
    Ok(Answer {
        status: get("status").as_f64().ok_or_else(malformed)? as u16,
        server_time,
        retry_after_ms: retry_after.and_then(|text| delay_ms(&text, server_time)),
        body: body.to_vec(),
    })
}

/// Reads a `Retry-After` header: seconds, or an instant by the server's clock.
fn delay_ms(text: &str, server_time: Option<Micros>) -> Option<u64> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return seconds.checked_mul(1_000);
    }
    let until = Micros::parse_http_date(text)?;
    u64::try_from(until.since(server_time?) / 1_000).ok()
}

/// Reads `{incarnation}`.
pub fn incarnation(value: &JsValue) -> Incarnation {
    let incarnation = Reflect::get(value, &"incarnation".into()).ok();
    incarnation.and_then(|incarnation| incarnation.as_string()).unwrap_or_default()
}

/// Reads `{refused, rejected, unchanged, busyMs}`.
pub fn receipt(value: &JsValue) -> Receipt {
    let get =
        |key: &str| Reflect::get(value, &key.into()).ok().and_then(|count| count.as_f64()).unwrap_or(0.0);
    Receipt {
        refused: get("refused") as u64,
        rejected: get("rejected") as u64,
        unchanged: get("unchanged") as u64,
        busy_ms: get("busyMs") as u64,
    }
}

/// Makes `{rows, text, numbers, nulls, superseded, patches, rejections, replaces, mayBeStored,
/// comparesValues, renewed, notes, checkpoints,
/// stampMs, rewritesBeforeMs, goneBeforeMs, head, witness, proof}`.
pub fn order(order: &WriteOrder) -> Result<JsValue, JsValue> {
    let batch = &order.batch;
    let text = std::str::from_utf8(&batch.text).map_err(|_| JsValue::from_str("a batch is not UTF-8"))?;
    let object = Object::new();
    let set = |key: &str, value: JsValue| Reflect::set(&object, &key.into(), &value);
    set("rows", JsValue::from_f64(batch.rows as f64))?;
    set("text", JsString::from(text).into())?;
    set("numbers", Float64Array::from(batch.numbers.as_slice()).into())?;
    set("nulls", Uint32Array::from(batch.nulls.as_slice()).into())?;
    set("superseded", Uint32Array::from(batch.superseded.as_slice()).into())?;
    set("replaces", JsValue::from_bool(order.replaces))?;
    set("mayBeStored", JsValue::from_bool(order.may_be_stored))?;
    set("comparesValues", JsValue::from_bool(order.compares_values))?;
    let range = order.renewed.as_ref().map(Renewed::bounds);
    set("renewed", to_js(&range)?)?;
    set("notes", to_js(&order.notes)?)?;
    set("patches", to_js(&batch.patches)?)?;
    set("rejections", to_js(&batch.rejections)?)?;
    set("checkpoints", to_js(&order.checkpoints)?)?;
    set("head", to_js(&order.head)?)?;
    set("witness", to_js(&order.witness)?)?;
    set("proof", to_js(&order.proof)?)?;
    let ms = |stamp: Option<Micros>| {
        stamp.map_or(JsValue::UNDEFINED, |stamp| JsValue::from_f64(stamp.0 as f64 / 1_000.0))
    };
    set("stampMs", ms(order.stamp))?;
    set("rewritesBeforeMs", ms(order.rewrites_before))?;
    set("goneBeforeMs", ms(order.gone_before))?;
    Ok(object.into())
}
