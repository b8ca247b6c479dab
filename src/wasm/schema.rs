//! What worker 0 of each node calls to check the sources' schemas for changes.

use super::{Configuration, convert, driver};
use crate::bigquery::request;
use crate::bigquery::table::Description;
use crate::config::TableConfig;
use crate::mapping::version::SchemaVersion;
use crate::schema::indexing::{self, Build, Sight};
use crate::schema::lock::{self, Lock};
use crate::schema::report::{self, Declared, Findings};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

#[wasm_bindgen]
impl Configuration {
    /// Decides what `node` does about a table's lock, `null` if there is none: `{turn: 'rest' | 'claim' | 'check', lock}`.
    ///
    /// # Errors
    /// When the configuration has no such table, or the lock is not what [`Configuration::schema_checked`] returned.
    #[wasm_bindgen(js_name = schemaTurn)]
    pub fn schema_turn(
        &self,
        id: &str,
        node: &str,
        lock: JsValue,
        others: Vec<String>,
    ) -> Result<JsValue, JsValue> {
        let polling = self.find(id)?.polling;
        let lock: Option<Lock> = optional(lock)?;
        convert::to_js(&lock::turn(lock.as_ref(), id, node, &others, polling, driver::now()))
    }

    /// Returns the lock to store after a check of the schema. There is no fingerprint if the check failed.
    ///
    /// # Errors
    /// When the configuration has no such table, or the lock is none.
    #[wasm_bindgen(js_name = schemaChecked)]
    pub fn schema_checked(
        &self,
        id: &str,
        lock: JsValue,
        fingerprint: Option<String>,
    ) -> Result<JsValue, JsValue> {
        let polling = self.find(id)?.polling;
        let lock: Lock = serde_wasm_bindgen::from_value(lock)?;
        convert::to_js(&lock::checked(&lock, fingerprint.as_deref(), polling, driver::now()))
    }

    /// Decides what worker 0 of a node does about an index: `{turn: 'rest' | 'declare' | 'continue' | 'compare' | 'doubt',
    /// build}`. The build, `null` when the index is complete, has to be stored before.
    ///
    /// # Errors
    /// When the build is not what this returned, or the sight is none.
    #[wasm_bindgen(js_name = indexTurn)]
    pub fn index_turn(&self, build: JsValue, sight: JsValue) -> Result<JsValue, JsValue> {
        let build: Option<Build> = optional(build)?;
        let sight: Sight = serde_wasm_bindgen::from_value(sight)?;
        let (turn, build) = indexing::turn(build.as_ref(), &sight, driver::now());
        convert::to_js(&IndexTurn { turn, build })
    }

    /// Returns the request for a source table's description.
    ///
    /// # Errors
    /// When the configuration has no such table.
    #[wasm_bindgen(js_name = describeRequest)]
    pub fn describe_request(&self, id: &str) -> Result<JsValue, JsValue> {
        convert::to_js(&request::describe_table(&self.find(id)?.source))
    }

    /// Compares a description with the newest version of the schema and with the target's attributes, and returns the
    /// differences. The version and the attributes may be `null`.
    ///
    /// # Errors
    /// When the configuration has no such table, or the description is malformed.
    #[wasm_bindgen(js_name = schemaReport)]
    pub fn schema_report(
        &self,
        id: &str,
        body: &[u8],
        version: JsValue,
        declared: JsValue,
    ) -> Result<JsValue, JsValue> {
        let declared: Option<Vec<Declared>> = optional(declared)?;
        let version: Option<SchemaVersion> = optional(version)?;
        convert::to_js(&self.look(id, body, version.as_ref(), declared.as_deref())?.report)
    }

    /// Returns the version to store, `{version, notes}`, if a description differs from the newest version of the
    /// schema; otherwise `null`. It is also `null` for a table that was never read.
    ///
    /// # Errors
    /// When the configuration has no such table, or the description is malformed.
    #[wasm_bindgen(js_name = schemaAdoption)]
    pub fn schema_adoption(
        &self,
        id: &str,
        body: &[u8],
        version: JsValue,
        worker: String,
    ) -> Result<JsValue, JsValue> {
        let version: Option<SchemaVersion> = optional(version)?;
        let next = self.look(id, body, version.as_ref(), None)?.next.filter(|_| version.is_some());
        match next {
            None => Ok(JsValue::NULL),
            Some(next) => convert::adoption(&SchemaVersion { at: Some(driver::now()), by: worker, ..next }),
        }
    }
}

#[derive(Serialize)]
struct IndexTurn {
    turn: indexing::Turn,
    build: Option<Build>,
}

impl Configuration {
    fn find(&self, id: &str) -> Result<&TableConfig, JsValue> {
        let table = self.config.tables.iter().find(|table| table.id == id);
        Ok(table.ok_or_else(|| JsError::new(&format!("no table has the id {id}")))?)
    }

    fn look(
        &self,
        id: &str,
        body: &[u8],
        version: Option<&SchemaVersion>,
        declared: Option<&[Declared]>,
    ) -> Result<Findings, JsValue> {
        let config = self.find(id)?;
        let description = Description::read(body).map_err(|failure| JsError::new(&failure.message))?;
        Ok(report::look(config, &description, version, declared))
    }
}

fn optional<T: DeserializeOwned>(value: JsValue) -> Result<Option<T>, JsValue> {
    if value.is_null() || value.is_undefined() {
        return Ok(None);
    }
    Ok(Some(serde_wasm_bindgen::from_value(value)?))
}
