//! Compares a source table's columns with what is stored, and tells what will be done.

use crate::bigquery::table::Description;
use crate::config::TableConfig;
use crate::error::Failure;
use crate::mapping::attributes::attributes;
use crate::mapping::evolution::next_version;
use crate::mapping::projection::Projection;
use crate::mapping::version::{Change, SchemaVersion};
use serde::{Deserialize, Serialize};

/// An attribute of the target, as Harper describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Declared {
    /// The name.
    pub name: String,
    /// Whether it has an index.
    pub indexed: bool,
}

/// The differences, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The table's id in the configuration.
    pub table: String,
    /// The table in BigQuery.
    pub source: String,
    /// The table in Harper.
    pub target: String,
    /// The version of the schema that is in use; none before the first start.
    pub version: Option<u32>,
    /// The fingerprint of that version.
    pub fingerprint: Option<String>,
    /// The fingerprint of the source's columns now.
    pub source_fingerprint: Option<String>,
    /// Columns, and fields of records, that are new.
    pub added: Vec<Change>,
    /// Columns that have another type.
    pub type_changes: Vec<Change>,
    /// Columns, and fields of records, that are gone.
    pub removed: Vec<Change>,
    /// Indexes that the target lacks, and those that the component did not ask for.
    pub indexes: Indexes,
    /// Attributes that hold only values of dropped or changed columns, and why.
    pub retired: Vec<String>,
    /// What will be done, in words.
    pub plan: Vec<String>,
    /// Why the table cannot be synced.
    pub error: Option<Problem>,
}

/// Differences in indexes, by attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Indexes {
    /// Indexes that will be created.
    pub missing: Vec<String>,
    /// Indexes that the component did not ask for; they stay.
    pub extra: Vec<String>,
}

/// A failure, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// Its stable code.
    pub code: &'static str,
    /// What happened and what to do.
    pub message: String,
}

/// The outcome of a check of a source table's schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// For people.
    pub report: Report,
    /// The version to store, if something has changed.
    pub next: Option<SchemaVersion>,
}

/// Compares a source table with the version of its schema that is in use, and with its target as it is declared.
pub fn look(
    config: &TableConfig,
    description: &Description,
    version: Option<&SchemaVersion>,
    declared: Option<&[Declared]>,
) -> Findings {
    let source = &config.source;
    let mut report = Report {
        table: config.id.clone(),
        source: format!("{}.{}.{}", source.project_id, source.dataset, source.table),
        target: config.target_table.clone(),
        version: version.map(|version| version.version),
        fingerprint: version.map(|version| version.fingerprint.clone()),
        source_fingerprint: None,
        added: Vec::new(),
        type_changes: Vec::new(),
        removed: Vec::new(),
        indexes: Indexes::default(),
        retired: version.map(SchemaVersion::warnings).unwrap_or_default(),
        plan: Vec::new(),
        error: None,
    };
    let outcome = Projection::resolve(config, description, version)
        .and_then(|projection| Ok((next_version(config, &projection, version, false)?, projection)));
    let next = match outcome {
        Ok((next, mut projection)) => {
            let newest = next.as_ref().or(version);
            if let Some(newest) = newest {
                projection.follow(newest);
            }
            report.source_fingerprint = newest.map(|newest| newest.fingerprint.clone());
            report.compare_indexes(config, &projection, description, declared);
            next
        }
        Err(Failure { kind, message, .. }) => {
            report.plan.push("nothing is read until this is resolved; what is in Harper stays".to_owned());
            report.error = Some(Problem { code: kind.code(), message });
            None
        }
    };
    report.list_changes(next.as_ref());
    Findings { report, next }
}

impl Report {
    fn list_changes(&mut self, next: Option<&SchemaVersion>) {
        for change in next.iter().flat_map(|next| &next.changes) {
            self.plan.push(change.sentence());
            let list = match change {
                Change::Added { .. } | Change::FieldAdded { .. } => &mut self.added,
                Change::Removed { .. } | Change::FieldRemoved { .. } => &mut self.removed,
                Change::TypeChanged { .. } => &mut self.type_changes,
            };
            list.push(change.clone());
        }
    }

    fn compare_indexes(
        &mut self,
        config: &TableConfig,
        projection: &Projection,
        description: &Description,
        declared: Option<&[Declared]>,
    ) {
        let wanted = attributes(projection, description, &config.schema_overrides);
        let Some(declared) = declared else {
            let step = match config.may_create {
                true => format!("the table {} is made", config.target_table),
                false => format!("the table {} is missing, and schema.create is false", config.target_table),
            };
            return self.plan.push(step);
        };
        let is_wanted = |name: &str| wanted.iter().any(|one| one.indexed && one.name == name);
        let is_there = |name: &str| declared.iter().any(|one| one.indexed && one.name == name);
        let missing = wanted.iter().filter(|one| one.indexed && !is_there(&one.name));
        self.indexes.missing = missing.map(|one| one.name.clone()).collect();
        let extra = declared.iter().filter(|one| one.indexed && !is_wanted(&one.name));
        self.indexes.extra = extra.map(|one| one.name.clone()).collect();
        for name in &self.indexes.missing {
            self.plan.push(match config.may_create {
                true => format!("an index on {name} is made, unless the table was declared by its owner"),
                false => format!("no index on {name} is made, for schema.create is false"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};
    use crate::mapping::evolution::evolve;
    use serde_json::{Value, json};

    fn config() -> TableConfig {
        let root = json!({"bigquery": {
            "projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts", "key": ["k_id"]
        }});
        Config::parse(&root, &Environment::default()).unwrap().tables.remove(0)
    }

    fn described(fields: &[(&str, &str)]) -> Description {
        let fields: Vec<Value> =
            fields.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
        Description::read(json!({"schema": {"fields": fields}}).to_string().as_bytes()).unwrap()
    }

    const BEFORE: [(&str, &str); 4] =
        [("ts", "TIMESTAMP"), ("k_id", "STRING"), ("speed", "FLOAT64"), ("port", "STRING")];

    fn declared(names: &[(&str, bool)]) -> Vec<Declared> {
        names.iter().map(|(name, indexed)| Declared { name: (*name).to_owned(), indexed: *indexed }).collect()
    }

    #[test]
    fn a_report_tells_what_changed_and_what_will_be_done() {
        let first = evolve(None, "t", &described(&BEFORE).fields).unwrap();
        let after = described(&[
            ("ts", "TIMESTAMP"),
            ("k_id", "STRING"),
            ("speed", "STRING"),
            ("draught", "NUMERIC"),
        ]);
        let target = declared(&[("ts", true), ("k_id", false), ("speed", true)]);
        let Findings { report, next } = look(&config(), &after, Some(&first), Some(&target));
        let count = (report.added.len(), report.type_changes.len(), report.removed.len());
        assert_eq!((count, next.map(|next| next.version)), ((1, 1, 1), Some(2)));
        assert_eq!(report.indexes.missing, ["k_id"]);
        assert_eq!(report.indexes.extra, ["speed"]);
        assert_ne!(report.fingerprint, report.source_fingerprint);
        assert_eq!(
            report.plan,
            [
                "an index on k_id is made, unless the table was declared by its owner",
                "the column speed has changed from FLOAT64 to STRING; its values go to the attribute speed_v2, and speed \
                 keeps the old ones",
                "the source has the new column draught (NUMERIC); it is stored as draught",
                "the column port is gone from the source, or is no longer read; the attribute port keeps its values",
            ]
        );
    }

    #[test]
    fn a_report_of_what_stops_the_table_says_why() {
        let first = evolve(None, "t", &described(&BEFORE).fields).unwrap();
        let without_cursor = described(&[("k_id", "STRING")]);
        let findings = look(&config(), &without_cursor, Some(&first), None);
        assert_eq!(findings.report.error.map(|error| error.code), Some("column_missing"));
        assert_eq!(findings.next, None);
        let other_key = described(&[("ts", "TIMESTAMP"), ("k_id", "INT64")]);
        let findings = look(&config(), &other_key, Some(&first), None);
        assert_eq!(findings.report.error.map(|error| error.code), Some("schema_changed"));
    }
}
