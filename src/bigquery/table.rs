//! The description of a source table by `tables.get`, which is free of charge.

use super::schema::{Field, WireField};
use crate::error::{Failure, Kind};
use serde::{Deserialize, Serialize};

/// The unit of a table's time partitioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionUnit {
    /// One partition an hour.
    Hour,
    /// One partition a day.
    Day,
    /// One partition a month.
    Month,
    /// One partition a year.
    Year,
}

/// Whether the answer of `tables.get` describes the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// BigQuery stores the rows, and describes their number, size and changes.
    Own,
    /// The rows come from elsewhere (a view, an external table), so only the definition is described.
    Elsewhere,
}

/// A source table's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The columns.
    pub fields: Vec<Field>,
    /// Its location, if the endpoint tells.
    pub location: Option<String>,
    /// Where the rows are.
    pub storage: Storage,
    /// The columns of the declared primary key; empty when none is declared.
    pub primary_key: Vec<String>,
    /// The unit and the column of time partitioning; no column if it is partitioned by the time of ingestion.
    pub partitioning: Option<(PartitionUnit, Option<String>)>,
    /// How long partitions live; none if they do not expire.
    pub partitions_live_ms: Option<i64>,
    /// The column of integer-range partitioning.
    pub range_column: Option<String>,
    /// The columns that rows are clustered by.
    pub clustering: Vec<String>,
    /// The number of rows, if the endpoint tells; rows in the streaming buffer do not count.
    pub rows: Option<u64>,
    /// The logical bytes, if the endpoint tells.
    pub bytes: Option<u64>,
    /// Changes when the table's content changes, if the endpoint keeps track of that.
    pub version: Option<Version>,
    /// When the table was created, in milliseconds since 1970, if the endpoint tells.
    pub created: Option<String>,
    /// Whether there are rows in the streaming buffer. Neither the number of rows nor the time of change reflects them.
    pub streaming: bool,
}

/// The values by which a change of the table is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    modified: String,
    rows: Option<u64>,
    bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTable {
    schema: Option<WireSchema>,
    num_rows: Option<String>,
    num_bytes: Option<String>,
    last_modified_time: Option<String>,
    creation_time: Option<String>,
    location: Option<String>,
    streaming_buffer: Option<serde::de::IgnoredAny>,
    time_partitioning: Option<WirePartitioning>,
    range_partitioning: Option<WireRangePartitioning>,
    clustering: Option<WireClustering>,
    #[serde(rename = "type")]
    kind: Option<String>,
    table_constraints: Option<WireConstraints>,
}

#[derive(Deserialize)]
struct WireSchema {
    #[serde(default)]
    fields: Vec<WireField>,
}

#[derive(Deserialize)]
struct WirePartitioning {
    #[serde(rename = "type")]
    unit: Option<String>,
    field: Option<String>,
    #[serde(rename = "expirationMs")]
    expiration_ms: Option<String>,
}

#[derive(Deserialize)]
struct WireRangePartitioning {
    field: Option<String>,
}

#[derive(Deserialize)]
struct WireClustering {
    #[serde(default)]
    fields: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireConstraints {
    primary_key: Option<WireKey>,
}

#[derive(Deserialize)]
struct WireKey {
    #[serde(default)]
    columns: Vec<String>,
}

impl Description {
    /// Reads an answer of `tables.get`.
    ///
    /// # Errors
    /// When it is cut or is not what BigQuery documents.
    pub fn read(body: &[u8]) -> Result<Description, Failure> {
        let malformed = || {
            Failure::new(Kind::ResponseMalformed, "BigQuery's description of the table is cut or malformed")
        };
        let table: WireTable = serde_json::from_slice(body).map_err(|_| malformed())?;
        let fields = Field::from_wire(&table.schema.ok_or_else(malformed)?.fields)?;
        let storage = storage(table.kind.as_deref());
        let own = |text: Option<String>| text.filter(|_| storage == Storage::Own);
        let number = |text: Option<String>| own(text).and_then(|text| text.parse().ok());
        let (rows, bytes) = (number(table.num_rows), number(table.num_bytes));
        let primary_key = table.table_constraints.and_then(|constraints| constraints.primary_key);
        let expiration = table.time_partitioning.as_ref().and_then(|one| one.expiration_ms.as_ref());
        let partitions_live_ms = expiration.and_then(|text| text.parse().ok());
        Ok(Description {
            partitions_live_ms,
            fields,
            location: table.location,
            storage,
            primary_key: primary_key.map(|key| key.columns).unwrap_or_default(),
            partitioning: table.time_partitioning.and_then(read_partitioning),
            range_column: table.range_partitioning.and_then(|partitioning| partitioning.field),
            clustering: table.clustering.map(|clustering| clustering.fields).unwrap_or_default(),
            rows,
            bytes,
            version: own(table.last_modified_time).map(|modified| Version { modified, rows, bytes }),
            created: own(table.creation_time),
            streaming: table.streaming_buffer.is_some(),
        })
    }

    /// Tells whether the table is partitioned or clustered by a column.
    pub fn is_laid_out_by(&self, column: &str) -> bool {
        let partitioned = self.partitioning.as_ref().and_then(|(_, column)| column.as_ref());
        let mut columns = partitioned.into_iter().chain(&self.range_column).chain(&self.clustering);
        columns.any(|name| name.eq_ignore_ascii_case(column))
    }
}

fn storage(kind: Option<&str>) -> Storage {
    match kind {
        None | Some("TABLE" | "SNAPSHOT") => Storage::Own,
        Some(_) => Storage::Elsewhere,
    }
}

fn read_partitioning(wire: WirePartitioning) -> Option<(PartitionUnit, Option<String>)> {
    let unit = match wire.unit.as_deref() {
        Some("HOUR") => PartitionUnit::Hour,
        Some("DAY") | None => PartitionUnit::Day,
        Some("MONTH") => PartitionUnit::Month,
        Some("YEAR") => PartitionUnit::Year,
        Some(_) => return None,
    };
    Some((unit, wire.field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_planning_needs_is_read() {
        let body = br#"{"schema":{"fields":[{"name":"a","type":"INTEGER"}]},"numRows":"7","numBytes":"99",
            "lastModifiedTime":"5","streamingBuffer":{"estimatedRows":"1"},
            "timePartitioning":{"type":"MONTH","field":"ts","expirationMs":"86400000"},
            "tableConstraints":{"primaryKey":{"columns":["a"]}}}"#;
        let description = Description::read(body).unwrap();
        assert_eq!(description.primary_key, ["a"]);
        assert_eq!(description.partitioning, Some((PartitionUnit::Month, Some("ts".to_owned()))));
        assert_eq!(description.partitions_live_ms, Some(86_400_000));
        assert_eq!((description.rows, description.bytes, description.streaming), (Some(7), Some(99), true));
    }

    #[test]
    fn what_a_view_tells_of_itself_says_nothing_about_its_rows() {
        let read = |kind: &str| {
            let body = format!(
                r#"{{"schema":{{}},"type":"{kind}","numRows":"0","numBytes":"0","lastModifiedTime":"5"}}"#
            );
            let description = Description::read(body.as_bytes()).unwrap();
            (description.rows, description.bytes, description.version.is_some())
        };
        for kind in ["TABLE", "SNAPSHOT"] {
            assert_eq!(read(kind), (Some(0), Some(0), true), "{kind}");
        }
        for kind in ["VIEW", "MATERIALIZED_VIEW", "EXTERNAL", "something new"] {
            assert_eq!(read(kind), (None, None, false), "{kind}");
        }
    }

    #[test]
    fn a_bare_description_is_enough() {
        let description = Description::read(br#"{"schema":{}}"#).unwrap();
        assert_eq!((description.version, description.rows), (None, None));
        assert_eq!(Description::read(b"{}").unwrap_err().kind, Kind::ResponseMalformed);
    }
}
