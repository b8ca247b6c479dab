//! Ways to break the engine on purpose, at its boundary, to see whether the worlds notice.

use bigquery_sync::bigquery::request::Request;
use bigquery_sync::engine::WriteOrder;
use bigquery_sync::time::{Micros, SECOND_US};

use crate::run::LATENESS_S;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The watermark and the progress are committed before the rows.
    CheckpointWithoutRows,
    /// `<` instead of `<=` at a window's end.
    EndsExclusive,
    /// Late rows are not looked for.
    NoLateRange,
    /// A result is taken for complete one page early.
    LastPageLost,
    /// Identical rows get the same id.
    NoOccurrence,
    /// Whatever comes last is kept.
    OlderOverwrites,
    /// A row gets another id when it is read again.
    UnstableIds,
}

/// Changes a request before it is sent.
pub fn request(sabotage: Option<Sabotage>, request: &mut Request) {
    let Some(body) = &mut request.body else { return };
    match sabotage {
        Some(Sabotage::EndsExclusive) => *body = body.replace("`ts` <= TIMESTAMP", "`ts` < TIMESTAMP"),
        Some(Sabotage::NoLateRange) => *body = start_later(body),
        _ => {}
    }
}

/// Changes ids before they are committed.
pub fn id(sabotage: Option<Sabotage>, id: &str, order: &WriteOrder) -> String {
    match sabotage {
        Some(Sabotage::NoOccurrence) => id.split('~').next().unwrap_or_default().to_owned(),
        Some(Sabotage::UnstableIds) => {
            let job = order.checkpoint.window.as_ref().map_or("", |window| window.job.job_id.as_str());
            format!("{id}{job}")
        }
        _ => id.to_owned(),
    }
}

/// Moves a query's lower bound to the watermark.
fn start_later(body: &str) -> String {
    const BOUND: &str = "`ts` > TIMESTAMP '";
    let Some((before, rest)) = body.split_once(BOUND) else { return body.to_owned() };
    let Some((bound, after)) = rest.split_once("+00'") else { return body.to_owned() };
    let Some(bound) = Micros::parse(bound) else { return body.to_owned() };
    let mut text = Vec::new();
    bound.plus(LATENESS_S * SECOND_US).write_civil(&mut text, b' ');
    format!("{before}{BOUND}{}+00'{after}", String::from_utf8_lossy(&text))
}
