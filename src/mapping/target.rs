//! Checks whether an existing table can be the target.

use super::attributes::{Attribute, Target};
use crate::config::{HarperType, IdType};
use serde::Deserialize;

/// A table, as Harper describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// The name.
    pub name: String,
    /// The attribute that is its primary key.
    pub primary_key: String,
    /// Whether it takes only declared attributes.
    pub sealed: bool,
    /// The declared attributes.
    pub attributes: Vec<Declaration>,
}

/// An attribute, as Harper describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Declaration {
    /// The name.
    pub name: String,
    /// The type, which may be one that the user has defined; none if the attribute takes any value.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// Whether each record must have it.
    pub required: bool,
}

impl Target {
    /// Says why a table cannot take the rows; none if it can. A table with another declaration, or for ids of another
    /// type, would refuse each single row.
    pub fn refusal(&self, table: &Table) -> Option<String> {
        self.refusal_of_key(table)
            .or_else(|| self.attributes.iter().find_map(|wanted| self.refusal_of_attribute(table, wanted)))
            .or_else(|| self.refusal_of_required(table))
    }

    fn refusal_of_key(&self, table: &Table) -> Option<String> {
        let Table { name, primary_key, .. } = table;
        if primary_key != "id" {
            return Some(format!(
                "the table {name} has the primary key {primary_key}: the component needs id; choose another targetTable"
            ));
        }
        let (id_type, takes) = match self.layout.id_type {
            IdType::Text => ("text", ["ID", "String"]),
            IdType::Integer => ("integer", ["Long", "BigInt"]),
        };
        let declared = table.find(primary_key).and_then(|key| key.type_name.as_deref()).unwrap_or("Any");
        let fits = declared == "Any" || takes.contains(&declared);
        (!fits).then(|| {
            format!(
                "the primary key of the table {name} is {declared}, which cannot hold ids of the idType {id_type}: \
                 declare it as {}, change idType, or choose another targetTable",
                takes[0]
            )
        })
    }

    fn refusal_of_attribute(&self, table: &Table, wanted: &Attribute) -> Option<String> {
        let (name, attribute) = (&table.name, &wanted.name);
        let Some(declared) = table.find(attribute) else {
            return table.sealed.then(|| {
                format!(
                    "the table {name} is sealed and has no attribute {attribute}: declare it, or unseal the table"
                )
            });
        };
        let declared = declared.harper_type()?;
        if wanted.accepts.contains(&declared) {
            return None;
        }
        let accepted: Vec<&str> = wanted.accepts.iter().map(|accepted| accepted.name()).collect();
        let (declared_name, accepted) = (declared.name(), accepted.join(" or "));
        if declared == HarperType::Date && self.layout.newer_by.as_ref() == Some(attribute) {
            return Some(format!(
                "the attribute {attribute} of the table {name} is Date, which has no microseconds: of two versions of a \
                 row within one millisecond it could not be told which one is newer; declare it as {accepted}, or choose \
                 another targetTable"
            ));
        }
        Some(format!(
            "the attribute {attribute} of the table {name} is {declared_name}, which does not take what is stored: declare \
             it as {accepted}, have the column stored otherwise by schemaOverrides, choose another targetTable, or drop the \
             table if the component made it"
        ))
    }

    fn refusal_of_required(&self, table: &Table) -> Option<String> {
        let is_given = |name: &str| {
            name == table.primary_key || self.attributes.iter().any(|attribute| attribute.name == name)
        };
        let missing =
            table.attributes.iter().find(|declared| declared.required && !is_given(&declared.name))?;
        Some(format!(
            "the table {} requires the attribute {}, which the source does not have: drop the \"!\"",
            table.name, missing.name
        ))
    }
}

impl Table {
    fn find(&self, name: &str) -> Option<&Declaration> {
        self.attributes.iter().find(|declared| declared.name == name)
    }
}

impl Declaration {
    /// Returns the type if it is one of Harper's own; others are defined by the user.
    fn harper_type(&self) -> Option<HarperType> {
        let name = self.type_name.as_deref()?;
        let name = if name == "ID" { "String" } else { name };
        HarperType::ALL.into_iter().find(|harper_type| harper_type.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bigquery::table::Description;
    use crate::config::{Config, Environment};
    use crate::mapping::attributes::attributes;
    use crate::mapping::layout::Layout;
    use crate::mapping::projection::Projection;
    use serde_json::{Value, json};

    fn target(cursor: &str, key: &[&str], id_type: &str) -> Target {
        let root = json!({"bigquery": {
            "projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts", "key": key, "idType": id_type
        }});
        let config = Config::parse(&root, &Environment::default()).unwrap().tables.remove(0);
        let fields = json!([
            {"name": "ts", "type": cursor}, {"name": "k", "type": "STRING"}, {"name": "speed", "type": "FLOAT64"}
        ]);
        let body = json!({"schema": {"fields": fields}}).to_string();
        let description = Description::read(body.as_bytes()).unwrap();
        let projection = Projection::resolve(&config, &description, None).unwrap();
        let attributes = attributes(&projection, &description, &[]);
        Target { layout: Layout::of(&projection), attributes, may_create: true, do_indexes_wait: false }
    }

    fn table(id: Value, attributes: &[(&str, &str)]) -> Table {
        let mut declared = vec![json!({"name": "id", "type": id, "required": false})];
        declared.extend(attributes.iter().map(|(name, kind)| {
            let required = kind.ends_with('!');
            json!({"name": name, "type": kind.trim_end_matches('!'), "required": required})
        }));
        let table = json!({"name": "T", "primaryKey": "id", "sealed": false, "attributes": declared});
        serde_json::from_value(table).unwrap()
    }

    fn refusal(target: &Target, attributes: &[(&str, &str)]) -> String {
        target.refusal(&table(json!("ID"), attributes)).unwrap_or_default()
    }

    #[test]
    fn a_table_that_takes_every_value_fits_and_whatever_it_leaves_open() {
        let target = target("TIMESTAMP", &[], "text");
        assert_eq!(refusal(&target, &[("ts", "Date"), ("speed", "Any"), ("k", "ID"), ("more", "Int")]), "");
        assert_eq!(refusal(&target, &[("speed", "Knots")]), "");
        assert_eq!(target.refusal(&table(Value::Null, &[])), None);
    }

    #[test]
    fn a_type_that_refuses_values_is_named_with_those_that_take_them() {
        let target = target("TIMESTAMP", &[], "text");
        let message = refusal(&target, &[("speed", "String")]);
        assert!(message.starts_with("the attribute speed of the table T is String"), "{message}");
        assert!(message.contains("declare it as Int or Long or Float or Any"), "{message}");
        let message = refusal(&target, &[("captain", "String!")]);
        assert!(message.starts_with("the table T requires the attribute captain"), "{message}");
        let sealed = Table { sealed: true, ..table(json!("ID"), &[("ts", "Date"), ("k", "String")]) };
        let message = target.refusal(&sealed).unwrap_or_default();
        assert_eq!(
            message,
            "the table T is sealed and has no attribute speed: declare it, or unseal the table"
        );
    }

    #[test]
    fn the_primary_key_is_id_and_holds_the_ids() {
        let (texts, integers) = (target("TIMESTAMP", &[], "text"), target("TIMESTAMP", &[], "integer"));
        let message = texts.refusal(&table(json!("Long"), &[])).unwrap_or_default();
        assert!(
            message.contains("is Long, which cannot hold ids of the idType text: declare it as ID"),
            "{message}"
        );
        let message = integers.refusal(&table(json!("ID"), &[])).unwrap_or_default();
        assert!(message.contains("ids of the idType integer: declare it as Long"), "{message}");
        assert_eq!(integers.refusal(&table(json!("BigInt"), &[])), None);
        let other = Table { primary_key: "k".to_owned(), ..table(json!("ID"), &[]) };
        let message = texts.refusal(&other).unwrap_or_default();
        assert!(message.starts_with("the table T has the primary key k"), "{message}");
    }

    #[test]
    fn a_cursor_that_tells_which_version_is_newer_may_not_lose_its_microseconds() {
        for cursor in ["TIMESTAMP", "DATETIME"] {
            let message = refusal(&target(cursor, &["k"], "text"), &[("ts", "Date")]);
            assert!(
                message.starts_with("the attribute ts of the table T is Date, which has no micros"),
                "{message}"
            );
            assert!(message.contains("declare it as String or Any"), "{message}");
            assert_eq!(refusal(&target(cursor, &["k"], "text"), &[("ts", "String")]), "");
            assert_eq!(refusal(&target(cursor, &[], "text"), &[("ts", "Date")]), "");
        }
        assert_eq!(refusal(&target("DATE", &["k"], "text"), &[("ts", "Date")]), "");
    }
}
