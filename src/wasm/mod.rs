//! The boundary to JavaScript: conversions and a thin driver, no decisions.

mod convert;
mod driver;
mod host;
mod neighbours;
mod pool;
mod schema;
mod sweep;
mod validation;

use crate::cluster::{Heartbeat, Hello, Observer, Standing, Threads};
use crate::config::{self, Config, Deletes, Environment};
use crate::engine::{Engine, Worker};
use crate::mapping::succession::Comparable;
use driver::Driver;
use host::Host;
use js_sys::Promise;
use pool::Pool;
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
    /// The memory that its tables share.
    pool: Rc<Pool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Surroundings {
    emulator_host: Option<String>,
    shared_root: bool,
    #[serde(default)]
    time_zones: convert::WireZones,
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
    audit_retention_days: u64,
    warnings: &'c [crate::config::Problem],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TableSummary<'c> {
    id: &'c str,
    target_table: &'c str,
    auto_start: bool,
    may_create: bool,
    poll_interval_ms: u64,
    is_validated: bool,
    is_mirrored: bool,
}

/// Returns the names of the time zones that a configuration, an object as parsed from YAML, needs the rules of.
///
/// # Errors
/// When the conversion fails.
#[wasm_bindgen(js_name = zoneNames)]
pub fn zone_names(root: JsValue) -> Result<Vec<String>, JsValue> {
    let root: serde_json::Value = serde_wasm_bindgen::from_value(root)?;
    Ok(config::zone_names(&root).into_iter().collect())
}

#[wasm_bindgen]
impl Configuration {
    /// Checks the configuration `root`, an object as parsed from YAML. `surroundings` is
    /// `{emulatorHost, sharedRoot, timeZones: {rules, names}}`. `rules` has the pairs of each known zone by its name: from
    /// when on (in ms) its clocks are how far ahead of UTC (in ms). `names` are those to propose for a zone that is not
    /// known. Without `timeZones`, UTC alone is known.
    ///
    /// # Errors
    /// With a list of problems, `[{key, message}]`.
    #[wasm_bindgen(constructor)]
    pub fn new(root: JsValue, surroundings: JsValue) -> Result<Configuration, JsValue> {
        let root: serde_json::Value = serde_wasm_bindgen::from_value(root)?;
        let Surroundings { emulator_host, shared_root, time_zones } =
            serde_wasm_bindgen::from_value(surroundings)?;
        match Config::parse(&root, &Environment { emulator_host, shared_root, zones: time_zones.read() }) {
            Ok(config) => {
                let pool = Rc::new(Pool::new(config.memory_bytes_max));
                Ok(Configuration { config, pool })
            }
            Err(problems) => Err(convert::to_js(&problems)?),
        }
    }

    /// Returns `{connection, tables: [{id, targetTable, autoStart, mayCreate, pollIntervalMs, isValidated, isMirrored}], controlRoles,
    /// auditRetentionDays, warnings}`.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn summary(&self) -> Result<JsValue, JsValue> {
        let Config { connection, tables, control_roles, audit_retention_days, warnings, .. } = &self.config;
        let tables = tables
            .iter()
            .map(|table| TableSummary {
                id: &table.id,
                target_table: &table.target_table,
                auto_start: table.pace.auto_start,
                may_create: table.may_create,
                poll_interval_ms: table.pace.poll_interval_ms,
                is_validated: table.pace.validation.is_regular,
                is_mirrored: table.pace.validation.deletes != Deletes::Keep,
            })
            .collect();
        let audit_retention_days = *audit_retention_days;
        convert::to_js(&Summary { connection, tables, control_roles, audit_retention_days, warnings })
    }

    /// Creates the sync of one table, for the worker `{node, index}`. `standing` is its place in the cluster; without
    /// it, the worker is alone.
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
        Ok(TableSync { driver: Rc::new(Driver::new(engine, Rc::clone(&self.pool))) })
    }
}

/// What this worker knows of the cluster: the threads of its own node, and the other nodes.
#[wasm_bindgen]
pub struct Cluster {
    index: u32,
    observer: RefCell<Observer>,
    threads: RefCell<Threads>,
}

#[wasm_bindgen]
impl Cluster {
    /// Starts to observe the cluster from worker `index` of `node`, which has `count` workers. `haste` divides the
    /// waiting times.
    #[wasm_bindgen(constructor)]
    pub fn new(node: &str, index: u32, count: u32, haste: u32) -> Cluster {
        let now = driver::now();
        Cluster {
            index,
            observer: RefCell::new(Observer::new(node, now).in_haste(haste)),
            threads: RefCell::new(Threads::new(count, now)),
        }
    }

    /// Assumes these tables for threads that have not yet said that they have this configuration.
    pub fn assume(&self, tables: Vec<String>, configuration: String) {
        self.threads.borrow_mut().assume(tables, configuration);
    }

    /// Takes a message of a thread of this node: `{index, configuration, tables: [{id, effort, commanded, of,
    /// partitions}]}`. With `tables: null`, it tells that nothing has changed.
    ///
    /// # Errors
    /// When it is not what it should be.
    pub fn hear(&self, hello: JsValue) -> Result<(), JsValue> {
        let hello: Hello = serde_wasm_bindgen::from_value(hello)?;
        self.threads.borrow_mut().hear(hello, driver::now());
        Ok(())
    }

    /// Tells whether this worker speaks for its node.
    #[wasm_bindgen(js_name = isSpeaker)]
    pub fn is_speaker(&self) -> bool {
        self.threads.borrow().is_speaker(self.index, driver::now())
    }

    /// Takes the rows of SyncNode, each with its `roster` from SyncRoster, and the names of the cluster's nodes.
    ///
    /// # Errors
    /// When they are not what they should be.
    pub fn observe(&self, heartbeats: JsValue, members: Vec<String>) -> Result<(), JsValue> {
        let heartbeats: Vec<Heartbeat> = serde_wasm_bindgen::from_value(heartbeats)?;
        self.observer.borrow_mut().observe(heartbeats.iter(), members.into_iter().collect(), driver::now());
        Ok(())
    }

    /// Returns this node's row for SyncRoster, `{sees, tables}`; null if it is stored already.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn roster(&self) -> Result<JsValue, JsValue> {
        let (observer, now) = (self.observer.borrow(), driver::now());
        let is_elsewhere = |table: &str| observer.is_read_elsewhere(table, now);
        let roster = observer.roster(self.threads.borrow_mut().running(is_elsewhere, now), now);
        if observer.is_told(&roster) { Ok(JsValue::NULL) } else { convert::to_js(&roster) }
    }

    /// Returns this worker's place for a table: `{share: {position, workers}, isSettled, seenAt}`.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn standing(&self, table: &str) -> Result<JsValue, JsValue> {
        convert::to_js(&self.observer.borrow().standing(table, self.index, driver::now()))
    }

    /// Tells a sync this worker's place for its table, as [`Cluster::standing`] returns it.
    pub fn place(&self, table: &str, sync: &TableSync) {
        sync.driver.place(self.observer.borrow().standing(table, self.index, driver::now()));
    }

    /// Returns the nodes: `[{node, workers, alive, silentSince, unheardBy}]`.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn nodes(&self) -> Result<JsValue, JsValue> {
        convert::to_js(&self.observer.borrow().nodes(driver::now()))
    }

    /// Looks for problems. `wanted` are the tables that should be read. Returns what has to be logged: `[{level,
    /// text}]`.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn watch(&self, wanted: Vec<String>) -> Result<JsValue, JsValue> {
        convert::to_js(&self.observer.borrow_mut().watch(&wanted, driver::now()))
    }

    /// Lists the problems that have lasted for a while: `[{message, since}]`.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn alarms(&self) -> Result<JsValue, JsValue> {
        convert::to_js(&self.observer.borrow().alarms())
    }

    /// Returns the partitions of a table that no worker reads, `{partitions, of, since}`; null if there are none.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn unread(&self, table: &str) -> Result<JsValue, JsValue> {
        convert::to_js(&self.observer.borrow().unread(table))
    }
}

/// The sync of one table.
#[wasm_bindgen]
pub struct TableSync {
    driver: Rc<Driver>,
}

#[wasm_bindgen]
impl TableSync {
    /// Runs until it is stopped, cannot continue, or the instance is dead. Must be called once. The promise is never
    /// rejected.
    pub fn run(&self, host: Host) -> Promise {
        let driver = Rc::clone(&self.driver);
        wasm_bindgen_futures::future_to_promise(async move {
            driver.run(&host).await;
            Ok(JsValue::UNDEFINED)
        })
    }

    /// Passes the waiting event to the engine. Only for the host's `guard`, within [`TableSync::run`].
    pub fn step(&self) {
        self.driver.step();
    }

    /// Decodes the next batch. Only for the host's `write`, while the database works and this thread does not.
    pub fn prepare(&self) {
        self.driver.prepare();
    }

    /// Says why a table `{name, primaryKey, sealed, attributes: [{name, type, required}]}` cannot be the target;
    /// `undefined` if it can. Only for the host's `ensureTarget`.
    ///
    /// # Errors
    /// When the table is not described like that.
    pub fn refusal(&self, table: JsValue) -> Result<Option<String>, JsValue> {
        Ok(self.driver.refusal(&serde_wasm_bindgen::from_value(table)?))
    }

    /// Begins a search for the stored rows that the rows being written replace. Only for the host's `write`, like the
    /// next two functions.
    #[wasm_bindgen(js_name = seekFormer)]
    pub fn seek_former(&self) {
        self.driver.seek_former();
    }

    /// Adds stored rows with the same cursors as the rows being written: JSON, `[[id, [value, …]], …]`. Values are
    /// texts that are equal for equal values, null for NULL.
    ///
    /// # Errors
    /// When it is something else.
    #[wasm_bindgen(js_name = addStored)]
    pub fn add_stored(&self, rows: &str) -> Result<(), JsError> {
        self.driver.add_stored(serde_json::from_str(rows)?);
        Ok(())
    }

    /// Returns which rows replace which stored rows: `[{record, stored, former}]`, the indexes of rows. `records` has
    /// the rows being written, in the form of [`TableSync::add_stored`].
    ///
    /// # Errors
    /// When it is something else.
    pub fn settle(&self, records: &str) -> Result<JsValue, JsValue> {
        let records: Vec<Comparable> = serde_json::from_str(records).map_err(JsError::from)?;
        convert::to_js(&self.driver.settle(&records))
    }

    /// Returns what the worker does, for [`Cluster::hear`]. `commanded` tells whether operators have started or stopped
    /// the table.
    ///
    /// # Errors
    /// When the conversion fails.
    pub fn work(&self, commanded: bool) -> Result<JsValue, JsValue> {
        convert::to_js(&self.driver.work(commanded))
    }

    /// Takes the heads of other nodes' workers for this table. Returns the commits that may not have arrived, whose
    /// witnesses should be looked for: `[[owner, number], …]`.
    ///
    /// # Errors
    /// When they are something else.
    pub fn missing(&self, heads: JsValue) -> Result<JsValue, JsValue> {
        convert::to_js(&self.driver.missing(serde_wasm_bindgen::from_value(heads)?))
    }

    /// Takes the witnesses that were found. The rows of commits that are missing behind later ones are read again.
    /// Returns the proofs that the node should store: the commits up to which nothing is missing.
    ///
    /// # Errors
    /// When they are something else.
    pub fn arrived(&self, witnesses: JsValue) -> Result<JsValue, JsValue> {
        convert::to_js(&self.driver.arrived(serde_wasm_bindgen::from_value(witnesses)?))
    }

    /// Takes rows in which this node's copy differs from the source, `{windows, stamp}`, and reads them again.
    ///
    /// # Errors
    /// When they are something else.
    pub fn repair(&self, repair: JsValue) -> Result<(), JsValue> {
        self.driver.repair(serde_wasm_bindgen::from_value(repair)?);
        Ok(())
    }

    /// Tells whether rows are still to be read again.
    #[wasm_bindgen(js_name = isRepairing)]
    pub fn is_repairing(&self) -> bool {
        self.driver.is_repairing()
    }

    /// Ends a rest until the next poll: the table has changed.
    pub fn wake(&self) {
        self.driver.wake_for_poll();
    }

    /// Ends the run at the next safe point. The host should abort requests at the same time.
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
