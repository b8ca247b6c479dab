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

/// Bytes that make an id of 32 characters.
const ID_BYTES: usize = 16;
/// The beginning of all ids of jobs, so that people find them among a project's jobs.
const JOB_ID_BEGIN: &str = "bigquery-sync";
/// Characters of a table's id that the ids of its jobs contain.
const JOB_ID_TABLE_CHARACTERS_MAX: usize = 64;

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
    /// To make a job under an id of our own.
    MakeJob,
    /// The state of a job.
    LookAtJob,
    /// To end a job that nobody will read.
    CancelJob,
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
    /// Turns the request for a query into a dry run, which tells for free what the query would bill.
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
    /// The same for all repetitions of a request, so that BigQuery runs the query once.
    pub request_id: &'q str,
    /// The query fails, free of charge, if it would bill more.
    pub bytes_billed_max: Option<u64>,
}

/// Makes an id for a request to start a query: BigQuery takes 36 ASCII characters at most.
pub fn id_of(worker: &str, now: Micros, random: u32) -> String {
    let digest = Sha256::digest(format!("{worker} {} {random}", now.0));
    digest.iter().take(ID_BYTES).fold(String::new(), |id, byte| format!("{id}{byte:02x}"))
}

/// Makes an id for a job, of the letters, digits, `_` and `-` that BigQuery accepts. Different clusters may share a
/// project, so most of the id is a hash of the worker and the time.
pub fn job_id_of(table_id: &str, target: &str, worker: &str, now: Micros, random: u32) -> String {
    let is_legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let legal = |character: char| if is_legal(character) { character } else { '_' };
    let table: String = table_id.chars().take(JOB_ID_TABLE_CHARACTERS_MAX).map(legal).collect();
    let id = id_of(&format!("{table_id} {target} {worker}"), now, random);
    format!("{JOB_ID_BEGIN}_{table}_{id}")
}

/// Makes a job that runs a query. A second one of the same id is refused as a duplicate, and bills nothing.
pub fn make_job(job: &JobReference, sql: &str, bytes_billed_max: Option<u64>) -> Request {
    let mut query = json!({"query": sql, "useLegacySql": false});
    if let (Some(members), Some(bytes)) = (query.as_object_mut(), bytes_billed_max) {
        members.insert("maximumBytesBilled".to_owned(), json!(bytes.to_string()));
    }
    let body = json!({"jobReference": job, "configuration": {"query": query}});
    let path = format!("/projects/{}/jobs", encode(&job.project_id));
    post(Purpose::MakeJob, path, Some(body.to_string()))
}

/// Asks for the state of a job, and for what it billed. Free of charge.
pub fn look_at_job(job: &JobReference) -> Request {
    let mut path = job_path(job);
    push_location(&mut path, '?', job);
    get(Purpose::LookAtJob, path)
}

/// Cancels a job if it still runs. The answer has the job's state.
pub fn cancel_job(job: &JobReference) -> Request {
    let mut path = format!("{}/cancel", job_path(job));
    push_location(&mut path, '?', job);
    post(Purpose::CancelJob, path, None)
}

fn job_path(job: &JobReference) -> String {
    format!("/projects/{}/jobs/{}", encode(&job.project_id), encode(&job.job_id))
}

fn push_location(path: &mut String, separator: char, job: &JobReference) {
    if let Some(location) = &job.location {
        path.push(separator);
        path.push_str("location=");
        path.push_str(&encode(location));
    }
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
    let path = format!("/projects/{}/queries", encode(&connection.project_id));
    post(Purpose::StartQuery, path, Some(body.to_string()))
}

/// Asks for rows of a query's result. Free of charge for as long as the result lives.
pub fn read_result(job: &JobReference, offset: u64, page_rows: u64) -> Request {
    let mut path = format!(
        "/projects/{}/queries/{}?startIndex={offset}&maxResults={page_rows}&timeoutMs={SERVER_WAIT_MS}\
         &formatOptions.useInt64Timestamp=true",
        encode(&job.project_id),
        encode(&job.job_id)
    );
    push_location(&mut path, '&', job);
    get(Purpose::ReadResult, path)
}

fn get(purpose: Purpose, path: String) -> Request {
    Request { purpose, method: "GET", path, body: None, timeout_ms: TIMEOUT_MS, renew_token: false }
}

fn post(purpose: Purpose, path: String, body: Option<String>) -> Request {
    Request { purpose, method: "POST", path, body, timeout_ms: TIMEOUT_MS, renew_token: false }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn job(location: Option<&str>) -> JobReference {
        let location = location.map(str::to_owned);
        JobReference { project_id: "my:project".to_owned(), job_id: "j_1-a".to_owned(), location }
    }

    #[test]
    fn the_id_of_a_job_is_legal_tells_the_table_and_differs_between_clusters_tables_and_moments() {
        let id = |table: &str, target: &str, worker: &str, now: i64, random: u32| {
            job_id_of(table, target, worker, Micros(now), random)
        };
        let one = id("größe.1", "T", "localhost-0", 1, 1);
        assert!(one.starts_with("bigquery-sync_gr__e_1_"), "{one}");
        assert!(one.chars().all(|character| character.is_ascii_alphanumeric() || "_-".contains(character)));
        assert!(id(&"x".repeat(5_000), "T", "w", 1, 1).len() <= 1_024);
        let others = [
            id("größe_1", "T", "localhost-0", 1, 1),
            id("größe.1", "U", "localhost-0", 1, 1),
            id("größe.1", "T", "localhost-1", 1, 1),
            id("größe.1", "T", "localhost-0", 2, 1),
            id("größe.1", "T", "localhost-0", 1, 2),
        ];
        assert!(!others.contains(&one));
    }

    #[test]
    fn a_job_is_made_with_its_id_its_place_and_the_limit_of_its_bill() {
        let request = make_job(&job(Some("EU")), "SELECT 1", Some(7));
        assert_eq!((request.method, request.path.as_str()), ("POST", "/projects/my:project/jobs"));
        let body: serde_json::Value = serde_json::from_str(&request.body.unwrap()).unwrap();
        let reference = json!({"projectId": "my:project", "jobId": "j_1-a", "location": "EU"});
        let query = json!({"query": "SELECT 1", "useLegacySql": false, "maximumBytesBilled": "7"});
        assert_eq!(body, json!({"jobReference": reference, "configuration": {"query": query}}));
        let request = make_job(&job(None), "SELECT 1", None);
        assert!(!request.body.unwrap().contains("maximumBytesBilled"));
    }

    #[test]
    fn a_job_is_looked_at_and_cancelled_where_it_runs() {
        let looked = look_at_job(&job(Some("asia-east1")));
        assert_eq!((looked.method, looked.body), ("GET", None));
        assert_eq!(looked.path, "/projects/my:project/jobs/j_1-a?location=asia-east1");
        let cancelled = cancel_job(&job(None));
        assert_eq!((cancelled.method, cancelled.body), ("POST", None));
        assert_eq!(cancelled.path, "/projects/my:project/jobs/j_1-a/cancel");
    }
}
