//! Alarms for operators: raised when a problem has lasted for a while, and cleared when it is over.

use crate::log::{Level, Line};
use crate::time::Micros;
use serde::Serialize;
use std::collections::BTreeMap;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Concern {
    /// The same for as long as it lasts.
    pub key: String,
    /// What it is, and what to do.
    pub text: String,
}

/// A concern that lasts, for the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// What it is, and what to do.
    pub message: String,
    /// Since when it has lasted.
    pub since: String,
}

/// The concerns of now.
#[derive(Debug, Clone, Default)]
pub(super) struct Alarms(BTreeMap<String, Open>);

#[derive(Debug, Clone)]
struct Open {
    text: String,
    since: Micros,
    told: bool,
}

impl Alarms {
    /// Takes the concerns of now, and returns log lines for those that have lasted for some time.
    pub fn note(&mut self, concerns: Vec<Concern>, lasting_us: i64, now: Micros) -> Vec<Line> {
        let mut before = std::mem::take(&mut self.0);
        let mut lines = Vec::new();
        for Concern { key, text } in concerns {
            let mut open =
                before.remove(&key).unwrap_or(Open { text: String::new(), since: now, told: false });
            open.text = text;
            // A clock that was set back must not delay the alarm.
            open.since = open.since.min(now);
            if !open.told && now.since(open.since) >= lasting_us {
                open.told = true;
                lines.push(Line { level: Level::Error, text: open.text.clone() });
            }
            self.0.insert(key, open);
        }
        let over = before.into_values().filter(|open| open.told);
        lines.extend(over.map(|open| Line { level: Level::Info, text: format!("no longer: {}", open.text) }));
        lines
    }

    /// Tells since when a concern has lasted.
    pub fn since(&self, key: &str) -> Option<Micros> {
        self.0.get(key).map(|open| open.since)
    }

    /// Lists the concerns that were logged and still last.
    pub fn lasting(&self) -> Vec<Alarm> {
        let told = self.0.values().filter(|open| open.told);
        told.map(|open| Alarm { message: open.text.clone(), since: open.since.to_string() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND_US;

    #[test]
    fn what_lasts_is_told_once_and_so_is_its_end() {
        let mut alarms = Alarms::default();
        let mut levels = |concerns: &[&str], second: i64| -> Vec<Level> {
            let concern = |key: &&str| Concern { key: (*key).to_owned(), text: format!("{key} at {second}") };
            let (concerns, at) = (concerns.iter().map(concern).collect(), Micros(second * SECOND_US));
            let lines = alarms.note(concerns, 60 * SECOND_US, at);
            lines.into_iter().map(|line| line.level).collect()
        };
        assert_eq!(levels(&["a"], 0), []);
        assert_eq!(levels(&["a", "b"], 59), []);
        assert_eq!(levels(&["a"], 60), [Level::Error]);
        assert_eq!(levels(&["a"], 500), []);
        assert_eq!(levels(&[], 501), [Level::Info]);
        assert_eq!(levels(&["a"], 502), []);
    }
}
