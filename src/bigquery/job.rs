//! The state of a job, as `jobs.get` and `jobs.cancel` describe it.

use crate::error::{Failure, Kind};
use serde::Deserialize;

/// A job that runs, or has run, a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whether it has ended, successfully or not.
    pub is_done: bool,
    /// The reason of its failure, in BigQuery's short form; none if it did not fail.
    pub failed_for: Option<String>,
    /// The bytes that it billed; final once it is done.
    pub bytes_billed: u64,
}

#[derive(Deserialize)]
struct WireAnswer {
    /// In the answer of `jobs.cancel`.
    job: Option<WireJob>,
    #[serde(flatten)]
    itself: WireJob,
}

#[derive(Deserialize)]
struct WireJob {
    status: Option<WireStatus>,
    #[serde(default)]
    statistics: WireStatistics,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatus {
    state: String,
    error_result: Option<WireError>,
}

#[derive(Deserialize)]
struct WireError {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize, Default)]
struct WireStatistics {
    query: Option<WireQuery>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireQuery {
    total_bytes_billed: Option<String>,
}

impl Job {
    /// Reads an answer of `jobs.get` or `jobs.cancel`.
    ///
    /// # Errors
    /// When it is cut or is not what BigQuery documents.
    pub fn read(body: &[u8]) -> Result<Job, Failure> {
        let malformed =
            || Failure::new(Kind::ResponseMalformed, "BigQuery's answer about a job is cut or malformed");
        let WireAnswer { job, itself } = serde_json::from_slice(body).map_err(|_| malformed())?;
        let WireJob { status, statistics } = job.unwrap_or(itself);
        let status = status.ok_or_else(malformed)?;
        let billed = statistics.query.and_then(|query| query.total_bytes_billed);
        Ok(Job {
            is_done: status.state == "DONE",
            failed_for: status.error_result.map(|error| error.reason),
            bytes_billed: billed.and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_tells_whether_it_is_done_why_it_failed_and_what_it_billed() {
        let running = Job::read(br#"{"status":{"state":"RUNNING"},"statistics":{"query":{}}}"#).unwrap();
        assert_eq!(running, Job { is_done: false, failed_for: None, bytes_billed: 0 });
        let cancelled = br#"{"kind":"x","job":{"status":{"state":"DONE","errorResult":{"reason":"stopped"}},
            "statistics":{"query":{"totalBytesBilled":"10485760"}}}}"#;
        let failed_for = Some("stopped".to_owned());
        let expected = Job { is_done: true, failed_for, bytes_billed: 10_485_760 };
        assert_eq!(Job::read(cancelled).unwrap(), expected);
    }

    #[test]
    fn an_answer_that_is_about_no_job_is_malformed() {
        for body in ["{}", "[]", r#"{"job":{}}"#, r#"{"status":{"state":"DO"#] {
            assert_eq!(Job::read(body.as_bytes()).unwrap_err().kind, Kind::ResponseMalformed, "{body}");
        }
    }
}
