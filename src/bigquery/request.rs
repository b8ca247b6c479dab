//! Requests to BigQuery's REST API, as data.

use super::page::JobReference;
use crate::config::{Connection, SourceTable};
use crate::time::Micros;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

/// How long BigQuery may hold a request open while a query runs.
const SERVER_WAIT_MS: u64 = 10_000;
/// How long an answer may take, its body included, before the request counts as failed.
const TIMEOUT_MS: u64 = 60_000;

/// As many bytes as make an id of 32 characters.
const REQUEST_ID_BYTES: usize = 16;

/// What a request asks for; decides what its failures mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// The source table's description.
    DescribeTable,
    /// To start a query.
    StartQuery,
    /// A page of a query's result.
    ReadResult,
}

/// One HTTP request below the API's base address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// What it asks for.
    pub purpose: Purpose,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path with query, percent-encoded.
    pub path: String,
    /// JSON text.
    pub body: Option<String>,
    /// How long the answer may take.
    pub timeout_ms: u64,
    /// Whether to get a new access token first.
    pub renew_token: bool,
}

impl Request {
    /// Turns the request for a query into the question what it would bill, which is free of charge.
    pub fn make_dry_run(&mut self) {
        let body = self.body.as_deref().and_then(|body| serde_json::from_str(body).ok());
        if let Some(serde_json::Value::Object(mut members)) = body {
            members.insert("dryRun".to_owned(), json!(true));
            members.remove("maximumBytesBilled");
            self.body = Some(serde_json::Value::Object(members).to_string());
        }
    }
}

/// Asks for a table's schema, partitioning and size. Free of charge.
pub fn describe_table(source: &SourceTable) -> Request {
    let SourceTable { project_id, dataset, table } = source;
    let path =
        format!("/projects/{}/datasets/{}/tables/{}", encode(project_id), encode(dataset), encode(table));
    get(Purpose::DescribeTable, path)
}

/// A query to start.
#[derive(Debug, Clone, Copy)]
pub struct Query<'q> {
    /// The SQL text.
    pub sql: &'q str,
    /// Rows wanted with the first answer.
    pub page_rows: u64,
    /// The same for repetitions of one request, so that BigQuery runs the query once.
    pub request_id: &'q str,
    /// The query fails, free of charge, if it would bill more.
    pub bytes_billed_max: Option<u64>,
}

/// Makes an id for a request to start a query: BigQuery takes 36 ASCII characters at most.
pub fn id_of(worker: &str, now: Micros, random: u32) -> String {
    let digest = Sha256::digest(format!("{worker} {} {random}", now.0));
    digest.iter().take(REQUEST_ID_BYTES).fold(String::new(), |id, byte| format!("{id}{byte:02x}"))
}

/// Starts a query and asks for the first page of its result.
pub fn start_query(connection: &Connection, query: Query<'_>) -> Request {
    let mut body = json!({
        "query": query.sql,
        "useLegacySql": false,
        "maxResults": query.page_rows,
        "timeoutMs": SERVER_WAIT_MS,
        "requestId": query.request_id,
        "formatOptions": {"useInt64Timestamp": true},
    });
    if let Some(members) = body.as_object_mut() {
        if let Some(location) = &connection.location {
            members.insert("location".to_owned(), json!(location));
        }
        if let Some(bytes) = query.bytes_billed_max {
            members.insert("maximumBytesBilled".to_owned(), json!(bytes.to_string()));
        }
    }
    Request {
        purpose: Purpose::StartQuery,
        method: "POST",
        path: format!("/projects/{}/queries", encode(&connection.project_id)),
        body: Some(body.to_string()),
        timeout_ms: TIMEOUT_MS,
        renew_token: false,
    }
}

/// Asks for rows of a query's result. Free of charge for as long as the result lives.
pub fn read_result(job: &JobReference, offset: u64, page_rows: u64) -> Request {
    let mut path = format!(
        "/projects/{}/queries/{}?startIndex={offset}&maxResults={page_rows}&timeoutMs={SERVER_WAIT_MS}\
         &formatOptions.useInt64Timestamp=true",
        encode(&job.project_id),
        encode(&job.job_id)
    );
    if let Some(location) = &job.location {
        path.push_str("&location=");
        path.push_str(&encode(location));
    }
    get(Purpose::ReadResult, path)
}

fn get(purpose: Purpose, path: String) -> Request {
    Request { purpose, method: "GET", path, body: None, timeout_ms: TIMEOUT_MS, renew_token: false }
}

/// Percent-encodes a path segment or query value.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
