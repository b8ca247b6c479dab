//! The boundary to JavaScript: conversions and a thin driver, no decisions.

mod convert;
mod driver;
mod host;
mod schema;

use crate::cluster::{Heartbeat, Observer, Standing};
use crate::config::{Config, Environment};
use crate::engine::{Engine, Worker};
use crate::mapping::succession::Comparable;
use driver::Driver;
use host::Host;
use js_sys::Promise;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

/// Returns the version of the component.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// A checked configuration.
#[wasm_bindgen]
pub struct Configuration {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Surroundings {
    emulator_host: Option<String>,
    shared_root: bool,
}

#[derive(Deserialize)]
struct WorkerName {
    node: String,
    index: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'c> {
    connection: &'c crate::config::Connection,
    tables: Vec<TableSummary<'c>>,
    control_roles: &'c [String],
    warnings: &'c [crate::config::Problem],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TableSummary<'c> {
    id: &'c str,
    target_table: &'c str,
    auto_start: bool,
    may_create: bool,
}

#[wasm_bindgen]
impl Configuration {
    /// Checks the configuration `root`, an object as parsed from YAML.
    ///
    /// # Errors
    /// With a list of problems, `[{key, message}]`.
    #[wasm_bindgen(constructor)]
    pub fn new(root: JsValue, surroundings: JsValue) -> Result<Configuration, JsValue> {
        let root: serde_json::Value = serde_wasm_bindgen::from_value(root)?;
        let Surroundings { emulator_host, shared_root } = serde_wasm_bindgen::from_value(surroundings)?;
        match Config::parse(&root, &Environment { emulator_host, shared_root }) {
            Ok(config) => Ok(Configuration { config }),
            Err(problems) => Err(convert::to_js(&problems)?),
        }
    }

    /// Returns `{connection, tables: [{id, targetTable, autoStart, mayCreate}], controlRoles, warnings}`.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn summary(&self) -> Result<JsValue, JsValue> {
        let Config { connection, tables, control_roles, warnings } = &self.config;
        let tables = tables
            .iter()
            .map(|table| TableSummary {
                id: &table.id,
                target_table: &table.target_table,
                auto_start: table.pace.auto_start,
                may_create: table.may_create,
            })
            .collect();
        convert::to_js(&Summary { connection, tables, control_roles, warnings })
    }

    /// Makes the sync of one table, for the worker `{node, index}`, which stands where `standing` tells; alone if it is
    /// not given.
    ///
    /// # Errors
    /// When the configuration has no such table.
    pub fn table(
        &self,
        id: &str,
        worker: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "any")] standing: JsValue,
    ) -> Result<TableSync, JsValue> {
        let standing = match standing.is_undefined() {
            true => Standing::ALONE,
            false => serde_wasm_bindgen::from_value(standing)?,
        };
        let WorkerName { node, index } = serde_wasm_bindgen::from_value(worker)?;
        let table = self.config.tables.iter().find(|table| table.id == id);
        let table = table.ok_or_else(|| JsError::new(&format!("no table has the id {id}")))?;
        let engine =
            Engine::new(table.clone(), self.config.connection.clone(), Worker { node, index }, standing);
        Ok(TableSync { driver: Rc::new(Driver::new(engine)) })
    }
}

/// What this worker knows of the cluster.
#[wasm_bindgen]
pub struct Cluster {
    observer: RefCell<Observer>,
}

#[wasm_bindgen]
impl Cluster {
    /// Starts to look around from `node`.
    #[wasm_bindgen(constructor)]
    pub fn new(node: &str) -> Cluster {
        Cluster { observer: RefCell::new(Observer::new(node, driver::now())) }
    }

    /// Takes the rows of SyncNode, and the names of the cluster's nodes.
    ///
    /// # Errors
    /// When they are not what they should be.
    pub fn observe(&self, heartbeats: JsValue, members: Vec<String>) -> Result<(), JsValue> {
        let heartbeats: Vec<Heartbeat> = serde_wasm_bindgen::from_value(heartbeats)?;
        self.observer.borrow_mut().observe(&heartbeats, members.into_iter().collect(), driver::now());
        Ok(())
    }

    /// Tells where worker `index` of the `workers` of the own node stands: `{share: {position, workers}, isSettled}`.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn standing(&self, index: u32, workers: u32) -> Result<JsValue, JsValue> {
        convert::to_js(&self.observer.borrow().standing(index, workers, driver::now()))
    }

    /// Tells of the nodes: `[{node, workers, alive, silentSince}]`.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn nodes(&self) -> Result<JsValue, JsValue> {
        convert::to_js(&self.observer.borrow().nodes(driver::now()))
    }
}

/// The sync of one table.
#[wasm_bindgen]
pub struct TableSync {
    driver: Rc<Driver>,
}

#[wasm_bindgen]
impl TableSync {
    /// Runs until it is stopped, cannot go on, or the instance is dead; to be called once. Never rejected.
    pub fn run(&self, host: Host) -> Promise {
        let driver = Rc::clone(&self.driver);
        wasm_bindgen_futures::future_to_promise(async move {
            driver.run(&host).await;
            Ok(JsValue::UNDEFINED)
        })
    }

    /// Lets the engine take the event that waits for it; only for the host's `guard`, within [`TableSync::run`].
    pub fn step(&self) {
        self.driver.step();
    }

    /// Decodes the next batch; only for the host's `write`, at a moment when Harper has nothing to do for it.
    pub fn prepare(&self) {
        self.driver.prepare();
    }

    /// Says why a table cannot be the target, `undefined` when it can: `{name, primaryKey, sealed, attributes: [{name,
    /// type, required}]}`. Only for the host's `ensureTarget`.
    ///
    /// # Errors
    /// When the table is not told like that.
    pub fn refusal(&self, table: JsValue) -> Result<Option<String>, JsValue> {
        Ok(self.driver.refusal(&serde_wasm_bindgen::from_value(table)?))
    }

    /// Begins to look for the former selves of rows that are being written; `is_whole` if all rows of their cursors have
    /// their new ids then. Only for the host's `write`, as the two that follow.
    #[wasm_bindgen(js_name = seekFormer)]
    pub fn seek_former(&self, is_whole: bool) {
        self.driver.seek_former(is_whole);
    }

    /// Adds stored rows that share their cursors with those: JSON, `[[id, [value, …]], …]`, the values as texts that are
    /// equal for equal values, null for NULL.
    ///
    /// # Errors
    /// When it is something else.
    #[wasm_bindgen(js_name = addStored)]
    pub fn add_stored(&self, rows: &str) -> Result<(), JsError> {
        self.driver.add_stored(serde_json::from_str(rows)?);
        Ok(())
    }

    /// Returns which of the stored rows are former selves of which: `[{record, stored, former}]`, the places of rows.
    /// `records` tells those that are being written, like [`TableSync::add_stored`].
    ///
    /// # Errors
    /// When it is something else.
    pub fn settle(&self, records: &str) -> Result<JsValue, JsValue> {
        let records: Vec<Comparable> = serde_json::from_str(records).map_err(JsError::from)?;
        convert::to_js(&self.driver.settle(&records))
    }

    /// Tells where the worker stands in the cluster now.
    ///
    /// # Errors
    /// When that is not what [`Cluster::standing`] returned.
    pub fn place(&self, standing: JsValue) -> Result<(), JsValue> {
        self.driver.place(serde_wasm_bindgen::from_value(standing)?);
        Ok(())
    }

    /// Ends the run at the next safe point; requests should be aborted by the host at the same time.
    pub fn stop(&self) {
        self.driver.stop();
    }

    /// Returns the table's status.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn status(&self) -> Result<JsValue, JsValue> {
        convert::to_js(&self.driver.status())
    }
}
