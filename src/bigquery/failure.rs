//! Classifies BigQuery's errors by status and reason, never by their text.

use super::request::Purpose;
use crate::config::{Connection, SourceTable};
use crate::error::{Failure, Kind};
use serde::Deserialize;

/// BigQuery's own words are quoted up to this length.
const QUOTE_CHARACTERS_MAX: usize = 300;

#[derive(Deserialize, Default)]
struct WireAnswer {
    #[serde(default)]
    error: WireError,
}

#[derive(Deserialize, Default)]
struct WireError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<WireReason>,
}

#[derive(Deserialize)]
struct WireReason {
    #[serde(default)]
    reason: String,
}

/// What the request was about, to tell the user.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'s> {
    /// Where it was sent.
    pub connection: &'s Connection,
    /// The table it concerns.
    pub source: &'s SourceTable,
}

/// Turns an answer that is not 2xx into a failure.
pub fn from_answer(
    purpose: Purpose,
    status: u16,
    body: &[u8],
    retry_after_ms: Option<u64>,
    subject: Subject<'_>,
) -> Failure {
    let error = serde_json::from_slice::<WireAnswer>(body).unwrap_or_default().error;
    let reason = error.errors.first().map_or("", |first| first.reason.as_str());
    let kind = classify(purpose, status, reason);
    let said: String = error.message.chars().take(QUOTE_CHARACTERS_MAX).collect();
    let message = explain(kind, purpose, subject, status, reason, &said);
    Failure { kind, message, retry_after_ms }
}

/// Turns the reason why a query's job failed into a failure.
pub fn of_job(reason: &str, subject: Subject<'_>) -> Failure {
    // It counts as a refusal, unless the reason says otherwise.
    let status = 400;
    let kind = classify(Purpose::ReadResult, status, reason);
    Failure::new(kind, explain(kind, Purpose::ReadResult, subject, status, reason, ""))
}

fn classify(purpose: Purpose, status: u16, reason: &str) -> Kind {
    match (status, reason) {
        (401, _) => Kind::Unauthenticated,
        (_, "rateLimitExceeded" | "jobRateLimitExceeded") => Kind::RateLimited,
        (_, "quotaExceeded") => Kind::QuotaExceeded,
        (_, "responseTooLarge" | "resourcesExceeded") => Kind::WindowTooLarge,
        (_, "billingNotEnabled") => Kind::BillingDisabled,
        (_, "blocked") => Kind::Blocked,
        (_, "bytesBilledLimitExceeded") => Kind::BytesBilledLimit,
        (
            _,
            "backendError" | "internalError" | "jobBackendError" | "jobInternalError" | "tableUnavailable",
        ) => Kind::Unavailable,
        // Somebody has cancelled the query's job.
        (_, "stopped") => Kind::ResultLost,
        (403, _) => Kind::PermissionDenied,
        (404, _) => match purpose {
            Purpose::ReadResult | Purpose::LookAtJob | Purpose::CancelJob => Kind::ResultLost,
            Purpose::DescribeTable | Purpose::StartQuery | Purpose::MakeJob => Kind::NotFound,
        },
        (408, _) => Kind::Timeout,
        (429, _) => Kind::RateLimited,
        (400..=499, _) => Kind::QueryInvalid,
        _ => Kind::Unavailable,
    }
}

fn explain(
    kind: Kind,
    purpose: Purpose,
    subject: Subject<'_>,
    status: u16,
    reason: &str,
    said: &str,
) -> String {
    let SourceTable { project_id, dataset, table } = subject.source;
    let billed = &subject.connection.project_id;
    let advice = match (kind, purpose) {
        (Kind::NotFound, _) => format!(
            "the table {project_id}.{dataset}.{table} does not exist, or lies in another location: check \
             projectId, dataset, table and location"
        ),
        (Kind::PermissionDenied, Purpose::DescribeTable) => format!(
            "the credentials may not look at {project_id}.{dataset}.{table}: grant bigquery.tables.get (role \
             BigQuery Data Viewer) on the dataset"
        ),
        (Kind::PermissionDenied, _) => format!(
            "the credentials may not query {project_id}.{dataset}.{table}: grant bigquery.jobs.create (role \
             BigQuery Job User) on the project {billed} and bigquery.tables.getData (role BigQuery Data Viewer) \
             on the dataset"
        ),
        (Kind::Unauthenticated, _) => "BigQuery did not accept the access token".to_owned(),
        (Kind::QueryInvalid, _) => "BigQuery refused the request as invalid".to_owned(),
        (Kind::BytesBilledLimit, _) => {
            "the query would bill more than limits.maxBytesBilledPerQuery allows: raise the limit, or partition \
             the source table on the cursor column"
                .to_owned()
        }
        (Kind::QuotaExceeded, _) => format!(
            "a BigQuery quota of the project {billed} is used up: daily ones come back at midnight Pacific time, and can \
             be raised in the console under IAM, Quotas"
        ),
        (Kind::WindowTooLarge, _) => {
            "the query's result is too large for BigQuery: the table is read in smaller windows".to_owned()
        }
        (Kind::BillingDisabled, _) => {
            format!("billing is not enabled for the project {billed}: enable it in the Google Cloud console")
        }
        (Kind::Blocked, _) => format!(
            "Google has blocked queries of the project {billed} for a while: look into the console for the reason"
        ),
        (Kind::RateLimited, _) => "BigQuery asks for fewer requests".to_owned(),
        (Kind::ResultLost, _) => "the query's result is gone; it will be queried again".to_owned(),
        _ => "BigQuery could not answer".to_owned(),
    };
    let named = if reason.is_empty() { String::new() } else { format!(" {reason}") };
    let quoted = if said.is_empty() { String::new() } else { format!(": {said}") };
    format!("{advice} (HTTP {status}{named}{quoted})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_reason_decide() {
        for (purpose, status, reason, expected) in [
            (Purpose::StartQuery, 403, "rateLimitExceeded", Kind::RateLimited),
            (Purpose::StartQuery, 403, "quotaExceeded", Kind::QuotaExceeded),
            (Purpose::StartQuery, 403, "accessDenied", Kind::PermissionDenied),
            (Purpose::StartQuery, 400, "bytesBilledLimitExceeded", Kind::BytesBilledLimit),
            (Purpose::StartQuery, 400, "invalidQuery", Kind::QueryInvalid),
            (Purpose::StartQuery, 403, "responseTooLarge", Kind::WindowTooLarge),
            (Purpose::ReadResult, 403, "responseTooLarge", Kind::WindowTooLarge),
            (Purpose::StartQuery, 400, "resourcesExceeded", Kind::WindowTooLarge),
            (Purpose::StartQuery, 403, "billingNotEnabled", Kind::BillingDisabled),
            (Purpose::DescribeTable, 403, "blocked", Kind::Blocked),
            (Purpose::ReadResult, 403, "accessDenied", Kind::PermissionDenied),
            (Purpose::ReadResult, 404, "notFound", Kind::ResultLost),
            (Purpose::DescribeTable, 404, "notFound", Kind::NotFound),
            (Purpose::ReadResult, 401, "", Kind::Unauthenticated),
            (Purpose::ReadResult, 429, "", Kind::RateLimited),
            (Purpose::ReadResult, 500, "", Kind::Unavailable),
            (Purpose::ReadResult, 503, "backendError", Kind::Unavailable),
            (Purpose::ReadResult, 499, "stopped", Kind::ResultLost),
            (Purpose::LookAtJob, 404, "notFound", Kind::ResultLost),
            (Purpose::MakeJob, 404, "notFound", Kind::NotFound),
            (Purpose::MakeJob, 403, "accessDenied", Kind::PermissionDenied),
        ] {
            assert_eq!(classify(purpose, status, reason), expected, "{status} {reason}");
        }
    }
}
