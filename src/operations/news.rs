//! Decides what is logged about a table: what operators should know, but not each poll or attempt.

use crate::engine::status::{Activity, Status};
use crate::error::Kind;
use crate::log::{Level, Line};

/// What was last logged about a run of a table.
#[derive(Debug, Default)]
pub struct News {
    told: Option<Topic>,
    warned: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    State(Activity),
    Failure(Kind),
}

impl News {
    /// Returns what has to be logged about a status; nothing if it was logged before.
    pub fn of(&mut self, status: &Status) -> Vec<Line> {
        match status.state {
            // A worker without a share of a table logs nothing about it.
            Activity::Standby => return Vec::new(),
            Activity::Starting => {
                self.told = None;
                return Vec::new();
            }
            Activity::Running
            | Activity::Idle
            | Activity::Retrying
            | Activity::Blocked
            | Activity::Failed
            | Activity::Stopped => {}
        }
        self.warning(status).into_iter().chain(self.change(status)).collect()
    }

    fn warning(&mut self, status: &Status) -> Option<Line> {
        let warning = status.warning.as_ref()?;
        if self.warned.as_ref() == Some(warning) {
            return None;
        }
        self.warned = Some(warning.clone());
        Some(Line { level: Level::Warn, text: format!("{}: {warning}", status.id) })
    }

    fn change(&mut self, status: &Status) -> Option<Line> {
        let Some(error) = &status.last_error else { return self.progress(status) };
        let topic = Topic::Failure(error.code);
        if self.told.replace(topic) == Some(topic) {
            return None;
        }
        let level = if status.state == Activity::Retrying { Level::Warn } else { Level::Error };
        let text =
            format!("{}: {} after {}: {}", status.id, word(status.state), error.code.code(), error.message);
        Some(Line { level, text })
    }

    fn progress(&mut self, status: &Status) -> Option<Line> {
        // A poll that finds rows begins and ends like any other poll.
        let is_poll = status.state == Activity::Running && self.told == Some(Topic::State(Activity::Idle));
        if is_poll || self.told == Some(Topic::State(status.state)) {
            return None;
        }
        self.told = Some(Topic::State(status.state));
        let watermark = status.watermark.as_deref().unwrap_or("none yet");
        let what = word(status.state);
        let text = format!("{}: {what}, {} rows, watermark {watermark}", status.id, status.rows);
        Some(Line { level: Level::Info, text })
    }
}

fn word(state: Activity) -> &'static str {
    match state {
        Activity::Starting => "starting",
        Activity::Running => "running",
        Activity::Idle => "up to date",
        Activity::Retrying => "retrying",
        Activity::Blocked => "blocked",
        Activity::Failed => "failed",
        Activity::Standby => "without a share",
        Activity::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};
    use crate::engine::status::LastError;
    use crate::engine::{Engine, Worker};
    use crate::time::Micros;

    fn status(state: Activity) -> Status {
        let root = serde_json::json!({
            "bigquery": {"projectId": "p", "dataset": "d", "table": "t", "timestampColumn": "ts"}
        });
        let environment = Environment::default();
        let config = Config::parse(&root, &environment).expect("a configuration");
        let table = config.tables.into_iter().next().expect("a table");
        let worker = Worker { node: "n".to_owned(), index: 0 };
        let engine = Engine::new(table, config.connection, worker, crate::cluster::Standing::ALONE);
        Status { state, ..engine.status(Micros(0)) }
    }

    fn failing(state: Activity, code: Kind) -> Status {
        let last_error = Some(LastError { code, message: "it was so".to_owned(), attempts: 1 });
        Status { last_error, ..status(state) }
    }

    fn told(news: &mut News, status: &Status) -> Vec<(Level, String)> {
        news.of(status).into_iter().map(|line| (line.level, line.text)).collect()
    }

    #[test]
    fn polls_of_a_table_that_is_up_to_date_are_told_once() {
        let mut news = News::default();
        let expected = |what: &str| vec![(Level::Info, format!("t: {what}, 0 rows, watermark none yet"))];
        assert_eq!(told(&mut news, &status(Activity::Starting)), []);
        assert_eq!(told(&mut news, &status(Activity::Running)), expected("running"));
        assert_eq!(told(&mut news, &status(Activity::Idle)), expected("up to date"));
        for state in [Activity::Running, Activity::Idle, Activity::Standby, Activity::Idle] {
            assert_eq!(told(&mut news, &status(state)), []);
        }
        assert_eq!(told(&mut news, &status(Activity::Stopped)), expected("stopped"));
    }

    #[test]
    fn a_failure_is_told_once_by_its_code_and_its_end_as_well() {
        let mut news = News::default();
        told(&mut news, &status(Activity::Idle));
        let timeout = failing(Activity::Retrying, Kind::Timeout);
        let line = (Level::Warn, "t: retrying after timeout: it was so".to_owned());
        assert_eq!(told(&mut news, &timeout), [line]);
        assert_eq!(told(&mut news, &timeout), []);
        let gone = failing(Activity::Blocked, Kind::NotFound);
        let line = (Level::Error, "t: blocked after not_found: it was so".to_owned());
        assert_eq!(told(&mut news, &gone), [line]);
        assert_eq!(told(&mut news, &status(Activity::Idle)).len(), 1);
    }

    #[test]
    fn a_warning_is_told_until_it_changes() {
        let mut news = News::default();
        let warned = |text: &str| Status { warning: Some(text.to_owned()), ..status(Activity::Idle) };
        assert_eq!(told(&mut news, &warned("dear"))[0], (Level::Warn, "t: dear".to_owned()));
        assert_eq!(told(&mut news, &warned("dear")), []);
        assert_eq!(told(&mut news, &warned("dearer")), [(Level::Warn, "t: dearer".to_owned())]);
    }

    #[test]
    fn a_run_that_begins_anew_has_news_of_its_own() {
        let mut news = News::default();
        assert_eq!(told(&mut news, &status(Activity::Idle)).len(), 1);
        told(&mut news, &status(Activity::Starting));
        assert_eq!(told(&mut news, &status(Activity::Idle)).len(), 1);
    }
}
