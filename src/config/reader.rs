//! Reads members of a section and collects what is wrong with them.

use super::Problem;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::ops::RangeInclusive;

/// A section of the configuration: a map with a path, and the list that problems go to.
pub struct Section<'a> {
    path: String,
    members: &'a Map<String, Value>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Section<'a> {
    /// Wraps a map; `path` is empty at the root.
    pub fn new(
        path: &str,
        members: &'a Map<String, Value>,
        problems: &'a RefCell<Vec<Problem>>,
    ) -> Section<'a> {
        Section { path: path.to_owned(), members, problems }
    }

    /// Notes a problem with a member.
    pub fn problem(&self, key: &str, message: String) {
        let key = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        self.problems.borrow_mut().push(Problem { key, message });
    }

    /// Tells whether a member is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.members.get(key).filter(|value| !value.is_null())
    }

    /// Returns the names of the members, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.members.keys().map(String::as_str)
    }

    /// Notes unknown members, each with the nearest known name.
    pub fn refuse_unknown(&self, known: &[&str]) {
        for key in self.members.keys().filter(|key| !known.contains(&key.as_str())) {
            let hint = match nearest(key, known.iter().copied()) {
                Some(name) => format!("did you mean {name}?"),
                None => format!("known are {}", known.join(", ")),
            };
            self.problem(key, format!("is not a known key: {hint}"));
        }
    }

    /// Returns the member whose name is nearest to `wanted`, if one is near.
    pub fn nearest_present(&self, wanted: &str) -> Option<&'a str> {
        nearest(wanted, self.members.keys().map(String::as_str))
    }

    /// Returns a member that is a section of its own.
    pub fn section(&self, key: &str) -> Option<Section<'a>> {
        let value = self.get(key)?;
        match value.as_object() {
            Some(members) => Some(Section { path: self.path_of(key), members, problems: self.problems }),
            None => {
                self.wrong(key, value, "a section with keys of its own");
                None
            }
        }
    }

    /// Returns a member that is a list of sections.
    pub fn sections(&self, key: &str) -> Option<Vec<Section<'a>>> {
        let value = self.get(key)?;
        let Some(items) = value.as_array() else {
            self.wrong(key, value, "a list");
            return None;
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            match item.as_object() {
                Some(members) => sections.push(Section { path, members, problems: self.problems }),
                None => self.wrong(&format!("{key}[{index}]"), item, "a section with keys of its own"),
            }
        }
        Some(sections)
    }

    /// Returns a member that is a text.
    pub fn text(&self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        match value.as_str() {
            Some("") => {
                self.problem(key, "is empty".to_owned());
                None
            }
            Some(text) => Some(text.to_owned()),
            None => {
                self.wrong(key, value, "a text");
                None
            }
        }
    }

    /// Returns a member that is a text and must be there.
    pub fn required_text(&self, key: &str) -> Option<String> {
        if !self.has(key) {
            let hint =
                self.nearest_present(key).map(|name| format!(" (there is {name})")).unwrap_or_default();
            self.problem(key, format!("is missing{hint}"));
            return None;
        }
        self.text(key)
    }

    /// Returns a member that is a list of texts.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let texts: Option<Vec<String>> = value
            .as_array()
            .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        match texts {
            Some(texts) if texts.iter().all(|text| !text.is_empty()) => Some(texts),
            _ => {
                self.wrong(key, value, "a list of names, like [a, b]");
                None
            }
        }
    }

    /// Returns a member that is a boolean.
    pub fn flag(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        if value.as_bool().is_none() {
            self.wrong(key, value, "true or false");
        }
        value.as_bool()
    }

    /// Returns a member that is a whole number within limits.
    pub fn whole(&self, key: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let whole = value.as_u64().or_else(|| whole_float(value));
        match whole.filter(|number| allowed.contains(number)) {
            Some(number) => Some(number),
            None => {
                self.wrong(
                    key,
                    value,
                    &format!("a whole number from {} to {}", allowed.start(), allowed.end()),
                );
                None
            }
        }
    }

    /// Returns a member that is a number within limits.
    pub fn number(&self, key: &str, allowed: RangeInclusive<f64>) -> Option<f64> {
        let value = self.get(key)?;
        let number = value.as_f64().filter(|number| allowed.contains(number));
        if number.is_none() {
            self.wrong(key, value, &format!("a number from {} to {}", allowed.start(), allowed.end()));
        }
        number
    }

    /// Returns a member that is one of a few words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let word = value.as_str().unwrap_or_default();
        let chosen = choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let hint = nearest(word, names.iter().copied()).map(|name| format!(" (did you mean {name}?)"));
            self.wrong(key, value, &format!("one of {}{}", names.join(", "), hint.unwrap_or_default()));
        }
        chosen
    }

    /// Notes that a member's value is not allowed.
    pub fn wrong(&self, key: &str, found: &Value, allowed: &str) {
        self.problem(key, format!("is {}, allowed is {allowed}", describe(found)));
    }

    /// Returns the raw member, for forms of its own.
    pub fn raw(&self, key: &str) -> Option<&'a Value> {
        self.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// JavaScript has one kind of number: 1000 may arrive as 1000.0.
fn whole_float(value: &Value) -> Option<u64> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && (0.0..=9e15).contains(&number)).then_some(number as u64)
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() <= 60 => format!("the text \"{text}\""),
        Value::String(_) => "a long text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a section".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Returns the candidate that is most like `word`, if it is like it at all.
pub fn nearest<'n>(word: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = word.to_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&lower, &name.to_lowercase());
    candidates
        .into_iter()
        .map(|name| (likeness(name), name))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}
