//! Which columns of a source table are read, and the role of each one.

use super::diff::same_name as same;
use super::form;
use super::version::SchemaVersion;
use crate::bigquery::cursor::CursorType;
use crate::bigquery::schema::{Field, Type};
use crate::bigquery::sql;
use crate::bigquery::table::{Description, Storage};
use crate::bigquery::value::{NameTag, name_tag};
use crate::config::{Columns, HarperType, IdType, SchemaOverride, TableConfig, nearest};
use crate::error::{Failure, Kind};

/// The attribute that holds the row's id.
pub const ID: &str = "id";
/// The attribute with the time at which the row was written.
pub const SYNCED_AT: &str = "_syncedAt";
/// Attributes that Harper may add by itself.
const HARPERS_OWN: [&str; 2] = ["__createdtime__", "__updatedtime__"];
/// Names with a special meaning in JavaScript: Harper 4.7 renames the first, and loses records with the second.
const JAVASCRIPTS_OWN: [&str; 2] = ["__proto__", "toJSON"];
/// One more such name, but only for columns: Harper 4.7 can neither create nor search a table that has one.
const PROMISES_OWN: &str = "then";

/// The columns that are read, in the order of the result's cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// The columns.
    pub fields: Vec<Field>,
    /// Index of the cursor column.
    pub cursor: usize,
    /// The cursor column's type.
    pub cursor_type: CursorType,
    /// Indexes of the key columns; empty when rows are identified by content.
    pub key: Vec<usize>,
    /// Per column: the form of its values.
    forms: Vec<HarperType>,
    /// Per column: the attribute in Harper, and the era since which its values have their present form.
    attributes: Vec<(String, u32)>,
    /// Whether all columns of a table are read, including those that were added after it was described, so that a
    /// result shows them. It is false for a view, whose description may be older than its content.
    pub reads_all: bool,
    /// Attributes that hold only values of dropped or changed columns.
    pub retired: Vec<String>,
    /// The era of ids of rows without a key. It changes when columns are lost.
    pub era: u32,
    /// The type of records' ids.
    pub id_type: IdType,
    /// Columns ordered by name, with the tags that name them in the canonical encoding.
    pub by_name: Vec<(usize, NameTag)>,
}

impl Projection {
    /// Finds the configured columns in the source table's schema. Columns that the version `known` has may be missing.
    ///
    /// # Errors
    /// When a configured column is missing or unfit, or a column collides with one of the component's own.
    pub fn resolve(
        config: &TableConfig,
        description: &Description,
        known: Option<&SchemaVersion>,
    ) -> Result<Projection, Failure> {
        let was_there = |name: &str| known.is_some_and(|known| known.knows(name));
        let schema = &description.fields;
        let key = config.key.as_ref().unwrap_or(&description.primary_key);
        let must = std::iter::once(&config.cursor).chain(key);
        let fields: Vec<Field> = match &config.columns {
            Columns::All => schema.clone(),
            Columns::Named(names) => {
                for name in names.iter().filter(|name| !was_there(name)) {
                    find(schema, name, config)?;
                }
                let wanted =
                    |field: &&Field| names.iter().chain(must.clone()).any(|name| same(name, &field.name));
                schema.iter().filter(wanted).cloned().collect()
            }
        };
        for name in must {
            let found = find(schema, name, config);
            found.map_err(|failure| if was_there(name) { gone(name, &failure) } else { failure })?;
        }
        let cursor = find(&fields, &config.cursor, config)?;
        let key: Result<Vec<usize>, Failure> = key.iter().map(|name| find(&fields, name, config)).collect();
        let key = key?;
        let cursor_type = cursor_type(fields.get(cursor), config)?;
        refuse_reserved(&fields, &key)?;
        refuse_unfit_keys(&fields, &key)?;
        refuse_unfit_ids(&fields, config.id_type)?;
        let overrides: Vec<&SchemaOverride> = config
            .schema_overrides
            .iter()
            .filter(|one| {
                schema.iter().any(|field| same(&field.name, &one.column)) || !was_there(&one.column)
            })
            .collect();
        refuse_unread_overrides(schema, &fields, &overrides, config)?;
        let forms = resolve_forms(&fields, &overrides, config, (!key.is_empty()).then_some(cursor))?;
        let mut by_name: Vec<(usize, NameTag)> =
            fields.iter().enumerate().map(|(index, field)| (index, name_tag(&field.name))).collect();
        by_name.sort_by_key(|(index, _)| fields.get(*index).map(|field| field.name.as_str()));
        let attributes = fields.iter().map(|field| (field.name.clone(), 0)).collect();
        let id_type = config.id_type;
        let (retired, era) = (Vec::new(), 0);
        let reads_all = config.columns == Columns::All && description.storage == Storage::Own;
        Ok(Projection {
            fields,
            cursor,
            cursor_type,
            key,
            forms,
            attributes,
            reads_all,
            retired,
            era,
            id_type,
            by_name,
        })
    }

    /// Takes the attributes, the eras and the spellings of the columns from a version of the schema.
    pub fn follow(&mut self, version: &SchemaVersion) {
        self.era = if self.key.is_empty() { version.era } else { 0 };
        self.retired = version.retired().map(|column| column.attribute.clone()).collect();
        for (index, field) in self.fields.iter().enumerate() {
            let Some(column) = version.current(&field.name) else { continue };
            if let Some(place) = self.attributes.get_mut(index) {
                *place = (column.attribute.clone(), column.since);
            }
            if let Some((_, tag)) = self.by_name.iter_mut().find(|(of, _)| *of == index) {
                // The first spelling stays.
                *tag = name_tag(column.name());
            }
        }
        let spelled = |index: usize| {
            let field = self.fields.get(index).map_or("", |field| field.name.as_str());
            version.current(field).map_or(field, |column| column.name())
        };
        self.by_name.sort_by(|(one, _), (other, _)| spelled(*one).cmp(spelled(*other)));
    }

    /// Returns what queries need to know of the columns.
    pub fn columns(&self) -> sql::Columns<'_> {
        sql::Columns {
            fields: &self.fields,
            cursor: self.cursor_name(),
            cursor_type: self.cursor_type,
            reads_all: self.reads_all,
        }
    }

    /// Returns the attribute that holds a column's values.
    pub fn attribute(&self, index: usize) -> &str {
        self.attributes.get(index).map_or("", |(attribute, _)| attribute.as_str())
    }

    /// Returns the era since which a column's values have their present form.
    pub fn since(&self, index: usize) -> u32 {
        self.attributes.get(index).map_or(0, |(_, since)| *since)
    }

    /// Tells whether the source column `index` is itself the record's id.
    pub fn is_id(&self, index: usize) -> bool {
        self.fields.get(index).is_some_and(|field| field.name == ID)
    }

    /// Returns the form of a column's values; `Any` for the default form.
    pub fn form(&self, index: usize) -> HarperType {
        self.forms.get(index).copied().unwrap_or(HarperType::Any)
    }

    /// Returns a column's name.
    pub fn name(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |field| field.name.as_str())
    }

    /// Tells whether ids begin with the cursor.
    pub fn has_cursor_in_id(&self) -> bool {
        self.key.is_empty() && self.id_type == IdType::Text
    }

    /// Returns the attribute that holds the cursor, if it holds exactly the cursor in all records. Those of tables without
    /// key are never written again, so they may have it in another attribute, or in another form.
    pub fn exact_cursor_attribute(&self) -> Option<&str> {
        let field = self.fields.get(self.cursor)?;
        let is_exact = form::ordered_types(field).contains(&self.form(self.cursor));
        let is_in_all = !self.key.is_empty() || self.since(self.cursor) == 0;
        let name = if self.is_id(self.cursor) { ID } else { self.attribute(self.cursor) };
        (is_exact && is_in_all).then_some(name)
    }

    /// Returns the column that tells which of two versions of a row is newer; none if rows have no key.
    pub fn newer_by(&self) -> Option<usize> {
        (!self.key.is_empty()).then_some(self.cursor)
    }

    /// Returns the names of the key columns.
    pub fn key_names(&self) -> Vec<String> {
        self.key.iter().filter_map(|index| self.fields.get(*index)).map(|field| field.name.clone()).collect()
    }

    /// Returns the name of the cursor column.
    pub fn cursor_name(&self) -> &str {
        self.name(self.cursor)
    }
}

fn find(fields: &[Field], name: &str, config: &TableConfig) -> Result<usize, Failure> {
    fields.iter().position(|field| same(&field.name, name)).ok_or_else(|| {
        let table = &config.source.table;
        let hint = nearest(name, fields.iter().map(|field| field.name.as_str()))
            .map(|found| format!(" (did you mean {found}?)"));
        let message = format!("the table {table} has no column {name}{}", hint.unwrap_or_default());
        Failure::new(Kind::ColumnMissing, message)
    })
}

fn gone(name: &str, failure: &Failure) -> Failure {
    let message = format!(
        "the column {name}, which tells rows apart, is gone from the source: {}. Bring it back, or configure another \
         column and read the table again (the action resync of /SyncControl)",
        failure.message
    );
    Failure::new(Kind::ColumnMissing, message)
}

fn cursor_type(field: Option<&Field>, config: &TableConfig) -> Result<CursorType, Failure> {
    let name = &config.cursor;
    let found = match (field.map(|field| (&field.kind, field.repeated)), config.cursor_unit) {
        (Some((kind @ (Type::Timestamp | Type::Int64), false)), _) if !config.pace.zone.is_utc() => {
            let message = format!(
                "timeZone is {}, but the column {name} is {}, which tells the same instant in every zone: leave timeZone \
                 out, it is for DATETIME and DATE",
                config.pace.zone.name(),
                kind.name()
            );
            return Err(Failure::new(Kind::CursorType, message));
        }
        (Some((Type::Timestamp, false)), _) => return Ok(CursorType::Timestamp),
        (Some((Type::DateTime, false)), _) => return Ok(CursorType::DateTime),
        (Some((Type::Date, false)), _) => return Ok(CursorType::Date),
        (Some((Type::Int64, false)), Some(unit)) => return Ok(CursorType::Integer(unit)),
        (Some((Type::Int64, false)), None) => {
            let message = format!(
                "the column {name} is INT64: say with timestampUnit whether it counts seconds, milliseconds or \
                 microseconds since 1970"
            );
            return Err(Failure::new(Kind::CursorType, message));
        }
        (Some((kind, _)), _) => kind.name(),
        (None, _) => "absent",
    };
    let message = format!(
        "the column {name} is {found}; timestampColumn must name a column of type TIMESTAMP, DATETIME, DATE or INT64"
    );
    Err(Failure::new(Kind::CursorType, message))
}

fn refuse_reserved(fields: &[Field], key: &[usize]) -> Result<(), Failure> {
    for (index, field) in fields.iter().enumerate() {
        let is_whole_key = key == [index];
        let name = field.name.as_str();
        if let Some(unfit) = Some(name).filter(|name| *name == PROMISES_OWN).or_else(|| unfit_name(field)) {
            let message = format!(
                "Harper cannot store a column or field called {unfit}: list the columns to read without {name}, or read \
                 a view that renames it"
            );
            return Err(Failure::new(Kind::ColumnReserved, message));
        }
        let is_taken = name == SYNCED_AT || HARPERS_OWN.contains(&name);
        if is_taken || (field.name == ID && !is_whole_key) {
            let way_out = if name == ID { "make it the key (key: [id]), or " } else { "" };
            let message = format!(
                "the source column {name} has the name of an attribute that the component or Harper adds: {way_out}\
                 list the columns to read without it, or read a view that renames it"
            );
            return Err(Failure::new(Kind::ColumnReserved, message));
        }
    }
    Ok(())
}

/// Returns the name of a column, or of a field within it, that Harper cannot store.
fn unfit_name(field: &Field) -> Option<&str> {
    if JAVASCRIPTS_OWN.contains(&field.name.as_str()) {
        return Some(&field.name);
    }
    match &field.kind {
        Type::Record(fields) => fields.iter().find_map(unfit_name),
        _ => None,
    }
}

fn refuse_unfit_keys(fields: &[Field], key: &[usize]) -> Result<(), Failure> {
    for field in key.iter().filter_map(|index| fields.get(*index)) {
        let fit = field.is_simple() && field.kind != Type::Float64;
        if !fit {
            let (name, kind) = (&field.name, field.kind.name());
            let message =
                format!("the column {name} is {kind}, which cannot identify rows: choose another key");
            return Err(Failure::new(Kind::Configuration, message));
        }
    }
    Ok(())
}

/// The source column `id` is stored only as the record's id, so the id must be the value itself.
fn refuse_unfit_ids(fields: &[Field], id_type: IdType) -> Result<(), Failure> {
    let id = fields.iter().find(|field| field.name == ID);
    match (id_type, id.map(|field| &field.kind)) {
        (IdType::Text, _) | (IdType::Integer, None | Some(Type::Int64)) => Ok(()),
        (IdType::Integer, Some(kind)) => {
            let message = format!(
                "the column id is {}, which idType: integer would replace by a hash: leave idType out, or read a view \
                 that renames the column",
                kind.name()
            );
            Err(Failure::new(Kind::Configuration, message))
        }
    }
}

fn refuse_unread_overrides(
    schema: &[Field],
    read: &[Field],
    overrides: &[&SchemaOverride],
    config: &TableConfig,
) -> Result<(), Failure> {
    for SchemaOverride { column, .. } in overrides {
        find(schema, column, config)?;
        if !read.iter().any(|field| same(column, &field.name)) {
            let message = format!("schemaOverrides names the column {column}, which columns leaves out");
            return Err(Failure::new(Kind::Configuration, message));
        }
    }
    Ok(())
}

/// Finds the columns of `schemaOverrides`, and the forms for their types. `newer_by` is the cursor if newer rows
/// replace older ones.
fn resolve_forms(
    fields: &[Field],
    overrides: &[&SchemaOverride],
    config: &TableConfig,
    newer_by: Option<usize>,
) -> Result<Vec<HarperType>, Failure> {
    let mut forms = vec![HarperType::Any; fields.len()];
    for SchemaOverride { column, harper_type, .. } in overrides {
        let index = find(fields, column, config)?;
        let (Some(field), Some(harper_type)) = (fields.get(index), *harper_type) else { continue };
        let refuse = |allowed: &[HarperType], why: &str| {
            let (name, wanted) = (&field.name, harper_type.name());
            let array = if field.repeated { "ARRAY of " } else { "" };
            let names: Vec<&str> = allowed.iter().map(|allowed| allowed.name()).collect();
            let message = format!(
                "schemaOverrides wants the column {name} as {wanted}; it is {array}{kind}{why}, which can be stored as {names}",
                kind = field.kind.name(),
                names = names.join(", ")
            );
            Err(Failure::new(Kind::Configuration, message))
        };
        if field.name == ID {
            return refuse(&[HarperType::Any], " and the record's id");
        }
        let allowed = form::allowed_types(field);
        if !allowed.contains(&harper_type) {
            return refuse(allowed, "");
        }
        let ordered = form::ordered_types(field);
        if newer_by == Some(index) && !ordered.contains(&harper_type) {
            return refuse(ordered, " and tells which version of a row is newer");
        }
        if let Some(place) = forms.get_mut(index) {
            *place = form::resolve(harper_type, field);
        }
    }
    Ok(forms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};
    use serde_json::{Value, json};

    fn resolve(fields: &[(&str, Type)], bigquery: Value) -> Result<Projection, String> {
        let mut root = json!({"bigquery": {
            "projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts", "key": []
        }});
        for (key, value) in bigquery.as_object().unwrap() {
            root["bigquery"][key] = value.clone();
        }
        let config = Config::parse(&root, &Environment::default()).unwrap().tables.remove(0);
        let fields = fields
            .iter()
            .map(|(name, kind)| Field {
                name: (*name).to_owned(),
                kind: kind.clone(),
                repeated: name.ends_with("_list"),
                required: false,
            })
            .collect();
        let description = Description { fields, ..Description::read(br#"{"schema":{}}"#).unwrap() };
        Projection::resolve(&config, &description, None).map_err(|failure| failure.to_string())
    }

    fn refusal(fields: &[(&str, Type)], bigquery: Value) -> String {
        resolve(fields, bigquery).unwrap_err()
    }

    #[test]
    fn an_override_that_does_not_fit_names_column_type_and_what_would() {
        let fields = [("ts", Type::Timestamp), ("speed", Type::Float64), ("tags_list", Type::String)];
        let overrides = |column: &str, wanted: &str| json!({"schemaOverrides": {column: {"type": wanted}}});
        assert_eq!(
            refusal(&fields, overrides("speed", "Date")),
            "configuration: schemaOverrides wants the column speed as Date; it is FLOAT64, which can be stored as Int, \
             Long, Float, BigInt, String, Any"
        );
        assert_eq!(
            refusal(&fields, overrides("tags_list", "Int")),
            "configuration: schemaOverrides wants the column tags_list as Int; it is ARRAY of STRING, which can be \
             stored as String, Any"
        );
        assert_eq!(
            refusal(&fields, overrides("sped", "Int")),
            "column_missing: the table t has no column sped (did you mean speed?)"
        );
        let left_out = json!({"columns": ["ts"], "schemaOverrides": {"speed": {"type": "Int"}}});
        assert!(refusal(&fields, left_out).contains("which columns leaves out"));
        assert_eq!(resolve(&fields, overrides("SPEED", "Int")).unwrap().form(1), HarperType::Int);
        assert_eq!(resolve(&fields, overrides("speed", "Float")).unwrap().form(1), HarperType::Any);
    }

    #[test]
    fn a_cursor_that_tells_which_version_is_newer_stays_exact_and_in_order() {
        let wants = |kind: &Type, key: &[&str], wanted: &str| {
            let fields = [("ts", kind.clone()), ("k", Type::String)];
            let bigquery =
                json!({"key": key, "timestampUnit": "seconds", "schemaOverrides": {"ts": {"type": wanted}}});
            resolve(&fields, bigquery).map(drop)
        };
        for (kind, refused, accepted) in [
            (Type::Timestamp, vec!["Date"], vec!["Long", "BigInt", "String", "Any"]),
            (Type::DateTime, vec!["Date"], vec!["String", "Any"]),
            (Type::Int64, vec!["String"], vec!["Int", "Long", "Float", "BigInt", "Any"]),
            (Type::Date, vec![], vec!["Date", "String", "Any"]),
        ] {
            for wanted in refused {
                let refusal = wants(&kind, &["k"], wanted).unwrap_err();
                assert!(refusal.contains("tells which version of a row is newer"), "{refusal}");
                assert_eq!(wants(&kind, &[], wanted), Ok(()), "{wanted}");
            }
            for wanted in accepted {
                assert_eq!(wants(&kind, &["k"], wanted), Ok(()), "{wanted}");
            }
        }
    }

    #[test]
    fn the_column_that_is_the_id_keeps_its_value() {
        let with_id = |kind| [("ts", Type::Timestamp), ("id", kind)];
        let typed = json!({"key": ["id"], "schemaOverrides": {"id": {"type": "Long"}}});
        assert!(refusal(&with_id(Type::Int64), typed).contains("and the record's id"));
        let integers = json!({"key": ["id"], "idType": "integer"});
        assert!(refusal(&with_id(Type::String), integers.clone()).contains("replace by a hash"));
        assert!(resolve(&with_id(Type::Int64), integers).is_ok());
    }

    #[test]
    fn names_that_harper_cannot_store_are_refused_within_records_too() {
        let inner = |name: &str| {
            let fields =
                vec![Field { name: name.to_owned(), kind: Type::Int64, repeated: false, required: false }];
            [("ts", Type::Timestamp), ("record", Type::Record(fields))]
        };
        assert!(refusal(&inner("__proto__"), json!({})).contains("a column or field called __proto__"));
        assert!(resolve(&inner("then"), json!({})).is_ok());
        assert!(
            refusal(&[("ts", Type::Timestamp), ("then", Type::Int64)], json!({}))
                .starts_with("column_reserved")
        );
    }
}
