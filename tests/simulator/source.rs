//! The source: a BigQuery table with behaviour, as the API shows it.

use crate::query;
use crate::random::Random;
use crate::zones::Clock;
use bigquery_sync::bigquery::schema::{Field, WireField};
use bigquery_sync::partition::Rule;
use bigquery_sync::time::DAY_US;
use bigquery_sync::validation::Digest;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A row of the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    pub cursor: Option<i64>,
    pub key: String,
    pub text: String,
}

/// How this world's BigQuery behaves.
pub struct Habits {
    pub keyed: bool,
    pub partitioned: bool,
    /// Whether tables.get tells rows and the time of change, and whether truthfully.
    pub version: VersionHabit,
    /// Pages have at most so many rows, whatever is asked for.
    pub page_rows_max: usize,
    /// How old rows are when they come, beyond what makes them late.
    pub age_us: i64,
    /// Queries are not done when first asked for.
    pub slow_queries: bool,
    /// What a row weighs, as tables.get tells.
    pub bytes_per_row: usize,
    /// Transactions that are on their way to a node get lost when it ends or starts.
    pub loses: bool,
    /// No witness is kept for long.
    pub forgets: bool,
    pub clock: Clock,
    /// The rule by which the engine is expected to divide the table.
    pub rule: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionHabit {
    Told,
    Untold,
    /// The table is said to be as it was, although it changed.
    Stale,
}

/// A column that the source has for some time, with one type or another. It is no part of what copies are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    Absent,
    Integer,
    Text,
}

/// A row that is or will be visible.
struct Entry {
    visible_at: i64,
    row: Row,
    extra: Option<i64>,
}

/// A query's result; it belongs to its job for a day.
struct QueryResult {
    fields: Value,
    /// Each as the text that stands for it in a page.
    rows: Vec<String>,
    made_at: i64,
    polls_left: u64,
}

/// A job under an id of the engine's own. BigQuery knows it for longer than its result lives.
#[derive(Debug)]
pub struct Job {
    pub made_at: i64,
    /// How often the columns had changed before.
    changes: u64,
    /// Whether somebody was served the end of its result.
    pub is_read: bool,
    pub cancels: u64,
}

pub struct Source {
    pub habits: Habits,
    pub extra: Extra,
    /// How often the columns changed.
    changes: u64,
    entries: Vec<Entry>,
    results: BTreeMap<String, QueryResult>,
    requests: BTreeMap<String, String>,
    pub jobs: BTreeMap<String, Job>,
    pub queries: u64,
    /// Rows of all results of windows.
    pub rows_returned: usize,
    /// What each query bills.
    pub bytes_billed: u64,
    /// What each query bills that has a job under an id of the engine's own.
    pub job_bytes_billed: u64,
    /// When the query was made of which rows were served last.
    pub served_made_at: Option<i64>,
    stale_version: Option<(usize, i64)>,
    /// Larger results are refused.
    pub result_rows_max: Option<usize>,
    /// Whether queries bill those partitions alone that their conditions need.
    pub is_pruned: bool,
    /// Where it lies, if that is told.
    pub location: Option<String>,
    /// When the table was made.
    pub created_at: i64,
    /// The page at this offset has one row.
    pub short_page_at: Option<usize>,
}

const RESULT_LIFE_US: i64 = DAY_US;

impl Source {
    pub fn new(habits: Habits) -> Source {
        Source {
            is_pruned: habits.partitioned,
            habits,
            extra: Extra::Absent,
            changes: 0,
            entries: Vec::new(),
            results: BTreeMap::new(),
            requests: BTreeMap::new(),
            jobs: BTreeMap::new(),
            queries: 0,
            rows_returned: 0,
            bytes_billed: 1_000,
            job_bytes_billed: 1_000,
            served_made_at: None,
            stale_version: None,
            result_rows_max: None,
            location: None,
            created_at: 0,
            short_page_at: None,
        }
    }

    pub fn add(&mut self, row: Row, visible_at: i64) {
        let extra = (self.extra != Extra::Absent).then_some(self.entries.len() as i64 % 3);
        self.entries.push(Entry { visible_at, row, extra });
    }

    /// Drops the table, and makes it anew without rows.
    pub fn make_anew(&mut self, now: i64) {
        self.created_at = now;
        self.empty();
    }

    /// Deletes a row with all its versions, unless its day would be left without a row, or nothing would tell that the
    /// newest version is gone. Returns whether it did.
    pub fn remove_one(&mut self, row: &Row) -> bool {
        let day = |row: &Row| row.cursor.map(|cursor| cursor.div_euclid(DAY_US));
        let is_it = |one: &Row| if self.habits.keyed { one.key == row.key } else { one == row };
        let before = self.entries.len();
        let is_left = self.entries.iter().any(|entry| day(&entry.row) == day(row) && !is_it(&entry.row));
        if is_left {
            self.entries.retain(|entry| !is_it(&entry.row));
            self.changes += 1;
        }
        self.entries.len() < before
    }

    /// Gives a row another text and leaves its cursor. Returns whether there was such a row.
    pub fn change_one(&mut self, row: &Row, text: String) -> bool {
        let is_keyed = self.habits.keyed;
        let mut found = false;
        for entry in &mut self.entries {
            // Versions of one instant are the same.
            if entry.row == *row && (is_keyed || !found) {
                entry.row.text.clone_from(&text);
                found = true;
            }
        }
        self.changes += u64::from(found);
        found
    }

    /// Deletes all rows.
    pub fn empty(&mut self) {
        self.entries.clear();
    }

    /// Deletes the rows of which this is wanted; it gets each row and when it became visible.
    pub fn remove(&mut self, mut is_gone: impl FnMut(&Row, i64) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry| !is_gone(&entry.row, entry.visible_at));
        self.changes += u64::from(self.entries.len() < before);
    }

    /// Adds, drops or retypes the extra column.
    pub fn alter(&mut self, extra: Extra) {
        self.extra = extra;
        self.changes += 1;
        if extra == Extra::Absent {
            for entry in &mut self.entries {
                entry.extra = None;
            }
        }
    }

    /// All rows that have a cursor and are visible.
    pub fn visible(&self, now: i64) -> impl Iterator<Item = &Row> {
        self.entries.iter().filter(move |entry| entry.visible_at <= now).map(|entry| &entry.row)
    }

    pub fn everything_is_visible_at(&self) -> i64 {
        self.entries.iter().map(|entry| entry.visible_at).max().unwrap_or(0)
    }

    pub fn fields(&self) -> Value {
        let kind = self.habits.clock.type_name();
        let mut fields = json!([
            {"name": "ts", "type": kind}, {"name": "k", "type": "STRING"}, {"name": "text", "type": "STRING"}
        ]);
        let kind = match self.extra {
            Extra::Absent => return fields,
            Extra::Integer => "INTEGER",
            Extra::Text => "STRING",
        };
        fields.as_array_mut().unwrap().push(json!({"name": "extra", "type": kind}));
        fields
    }

    /// The columns, as the engine reads them.
    pub fn columns(&self) -> Vec<Field> {
        let wire: Vec<WireField> = serde_json::from_value(self.fields()).unwrap();
        Field::from_wire(&wire).unwrap()
    }

    pub fn describe(&mut self, now: i64) -> Value {
        let mut table = json!({"schema": {"fields": self.fields()}});
        if self.habits.partitioned {
            table["timePartitioning"] = json!({"type": "DAY", "field": "ts"});
        }
        if self.habits.keyed {
            table["tableConstraints"] = json!({"primaryKey": {"columns": ["k"]}});
        }
        if let Some(location) = &self.location {
            table["location"] = json!(location);
        }
        let rows = self.visible(now).count();
        let modified =
            self.entries.iter().map(|entry| entry.visible_at).filter(|at| *at <= now).max().unwrap_or(0);
        let (rows, modified) = match self.habits.version {
            VersionHabit::Untold => return table,
            VersionHabit::Told => (rows, modified),
            VersionHabit::Stale => *self.stale_version.get_or_insert((rows, modified)),
        };
        table["creationTime"] = json!((self.created_at / 1_000).to_string());
        table["numRows"] = json!(rows.to_string());
        table["numBytes"] = json!((rows * self.habits.bytes_per_row).to_string());
        table["lastModifiedTime"] = json!((modified / 1_000).to_string());
        table
    }

    /// Runs a query, once for each request id.
    pub fn start_query(&mut self, body: &Value, now: i64, random: &mut Random) -> Result<String, Value> {
        if body["dryRun"] == true {
            let conditions = query::conditions(body["query"].as_str().unwrap(), &self.habits);
            let is_scanned = |row: &&Row| !self.is_pruned || conditions.iter().all(|one| one.is_met_by(row));
            let bytes = self.visible(now).filter(is_scanned).count() * self.habits.bytes_per_row;
            return Ok(json!({"jobComplete": true, "totalBytesProcessed": bytes.to_string()}).to_string());
        }
        let request_id = body["requestId"].as_str().unwrap().to_owned();
        assert!(request_id.is_ascii() && request_id.len() <= 36, "{request_id}");
        let known = self.requests.get(&request_id).filter(|job| self.results.contains_key(*job));
        let job = match known {
            Some(job) => job.clone(),
            None => {
                let job = format!("job{}", self.queries + 1);
                self.run(&job, body["query"].as_str().unwrap(), now, random)?;
                self.requests.insert(request_id, job.clone());
                job
            }
        };
        // A result that was too old when it was asked for again looks empty, as one without rows would not.
        let wanted = body["maxResults"].as_u64().unwrap() as usize;
        Ok(self.page(&job, 0, wanted, now).unwrap_or_else(|| "{}".to_owned()))
    }

    fn run(&mut self, job: &str, sql: &str, now: i64, random: &mut Random) -> Result<(), Value> {
        self.queries += 1;
        if sql.contains("`extra`") && self.extra == Extra::Absent {
            return Err(refusal("invalidQuery"));
        }
        let (fields, rows) = self.execute(sql, now, random);
        if fields[0]["name"] == "ts" {
            self.rows_returned += rows.len();
        }
        if self.result_rows_max.is_some_and(|most| rows.len() > most) {
            return Err(refusal("responseTooLarge"));
        }
        let polls_left = if self.habits.slow_queries { random.below(3) } else { 0 };
        self.results.insert(job.to_owned(), QueryResult { fields, rows, made_at: now, polls_left });
        Ok(())
    }

    /// Makes a job under an id that the engine gives, once.
    pub fn make_job(&mut self, body: &Value, now: i64, random: &mut Random) -> (u16, Value) {
        let job = body["jobReference"]["jobId"].as_str().unwrap();
        let is_legal = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
        assert!((1..=1_024).contains(&job.len()) && job.chars().all(is_legal), "{job}");
        if self.jobs.contains_key(job) {
            return (409, refusal("duplicate"));
        }
        let sql = body["configuration"]["query"]["query"].as_str().unwrap();
        if let Err(refusal) = self.run(job, sql, now, random) {
            return (400, refusal);
        }
        self.jobs
            .insert(job.to_owned(), Job { made_at: now, changes: self.changes, is_read: false, cancels: 0 });
        (200, self.look_at_job(job).1)
    }

    /// How a job fares.
    pub fn look_at_job(&mut self, job: &str) -> (u16, Value) {
        let Some(known) = self.jobs.get(job) else { return (404, refusal("notFound")) };
        let runs = self.results.get_mut(job).filter(|result| result.polls_left > 0);
        let state = if runs.is_some() { "RUNNING" } else { "DONE" };
        runs.into_iter().for_each(|result| result.polls_left -= 1);
        let mut answer = json!({
            "status": {"state": state},
            "statistics": {"query": {"totalBytesBilled": self.job_bytes_billed.to_string()}}
        });
        if known.cancels > 0 && !self.results.contains_key(job) {
            answer["status"]["errorResult"] = json!({"reason": "stopped"});
        }
        (200, answer)
    }

    /// Ends a job, if it runs.
    pub fn cancel_job(&mut self, job: &str) -> (u16, Value) {
        let Some(known) = self.jobs.get_mut(job) else { return (404, refusal("notFound")) };
        known.cancels += 1;
        if self.results.get(job).is_some_and(|result| result.polls_left > 0) {
            self.results.remove(job);
        }
        (200, json!({"job": self.look_at_job(job).1}))
    }

    /// Whether what such jobs bill stands apart from what all other queries have billed together.
    pub fn tells_jobs_apart(&self) -> bool {
        self.job_bytes_billed > self.bytes_billed * self.queries
    }

    /// The jobs under ids of the engine's own of which nobody read the result, though it lives and has the columns of now,
    /// and that nobody cancelled.
    pub fn jobs_left(&self, now: i64) -> Vec<&String> {
        let lives =
            |id: &String, job: &Job| self.results.contains_key(id) && now - job.made_at < RESULT_LIFE_US;
        let is_left = |(id, job): &(&String, &Job)| {
            !job.is_read && job.cancels == 0 && job.changes == self.changes && lives(id, job)
        };
        self.jobs.iter().filter(is_left).map(|(id, _)| id).collect()
    }

    /// Nobody has to read any result that is there now.
    pub fn excuse_jobs(&mut self) {
        self.jobs.values_mut().for_each(|job| job.is_read = true);
    }

    /// A page of a result, none if there is no such result (any more).
    pub fn page(&mut self, job: &str, offset: usize, wanted: usize, now: i64) -> Option<String> {
        let is_short = self.short_page_at == Some(offset);
        let page_rows = if is_short { 1 } else { wanted.min(self.habits.page_rows_max) };
        let result = self.results.get_mut(job).filter(|result| now - result.made_at < RESULT_LIFE_US)?;
        let reference = json!({"projectId": "p", "jobId": job});
        if result.polls_left > 0 {
            result.polls_left -= 1;
            return Some(json!({"jobReference": reference, "jobComplete": false}).to_string());
        }
        if result.fields[0]["name"] == "ts" {
            self.served_made_at = Some(result.made_at);
        }
        let rows = result.rows.get(offset..).unwrap_or_default();
        let rows = &rows[..page_rows.min(rows.len())];
        let mut bytes_billed = self.bytes_billed;
        if let Some(job) = self.jobs.get_mut(job) {
            job.is_read |= offset + rows.len() >= result.rows.len();
            bytes_billed = self.job_bytes_billed;
        }
        // Most of what the worlds do is to make such pages.
        let (rows, fields, total) = (rows.join(","), &result.fields, result.rows.len());
        Some(format!(
            concat!(
                r#"{{"jobComplete":true,"jobReference":{},"rows":[{}],"schema":{{"fields":{}}},"#,
                r#""totalBytesProcessed":"{}","totalRows":"{}"}}"#
            ),
            reference, rows, fields, bytes_billed, total
        ))
    }

    pub fn lose_results(&mut self) {
        self.results.clear();
    }

    fn execute(&self, sql: &str, now: i64, random: &mut Random) -> (Value, Vec<String>) {
        if sql.contains("`ts` IS NULL") {
            let count = self.visible(now).filter(|row| row.cursor.is_none()).count();
            return (integers(&["row_count"]), vec![record([Some(count.to_string())])]);
        }
        let conditions = query::conditions(sql, &self.habits);
        let is_met = |entry: &&Entry| {
            entry.visible_at <= now
                && entry.row.cursor.is_some()
                && conditions.iter().all(|one| one.is_met_by(&entry.row))
        };
        let mut rows: Vec<&Entry> = self.entries.iter().filter(is_met).collect();
        if sql.contains("GROUP BY starts") {
            let mut days = BTreeMap::new();
            for Entry { row, .. } in rows {
                let unit_us = if sql.contains(", HOUR)") { DAY_US / 24 } else { DAY_US };
                *days.entry(row.cursor.unwrap().div_euclid(unit_us) * unit_us).or_insert(0) += 1;
            }
            let counted = days.iter().map(|(start, count): (&i64, &i32)| {
                record([Some(start.to_string()), Some(count.to_string())])
            });
            return (integers(&["starts", "row_count"]), counted.collect());
        }
        if sql.contains("GROUP BY span") || sql.contains("GROUP BY `k`") {
            return count_for_validation(sql, &rows);
        }
        // A result has an order of its own, another one for each query.
        for place in (1..rows.len()).rev() {
            rows.swap(place, random.below(place as u64 + 1) as usize);
        }
        let mut fields = self.fields();
        let with_extra = self.extra != Extra::Absent && sql.contains("SELECT *");
        if self.extra != Extra::Absent && !with_extra {
            fields.as_array_mut().unwrap().pop();
        }
        let numbered = sql.contains("_bigquery_sync_occurrence");
        let mut seen = BTreeMap::new();
        if numbered {
            fields
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "_bigquery_sync_occurrence", "type": "INTEGER"}));
        }
        let records = rows.into_iter().map(|Entry { row, extra, .. }| {
            let extra = extra.filter(|_| with_extra);
            let occurrence = numbered.then(|| {
                let count = seen.entry((row, extra)).or_insert(0);
                *count += 1;
                Some((*count - 1).to_string())
            });
            let cursor = self.habits.clock.cell(row.cursor.unwrap());
            let known = [Some(cursor), Some(row.key.clone()), Some(row.text.clone())];
            let extra = with_extra.then(|| extra.map(|extra| extra.to_string()));
            record(known.into_iter().chain(extra).chain(occurrence))
        });
        let records = records.collect();
        (fields, records)
    }
}

/// Digests spans of cursors, or lists keys with their newest cursors.
fn count_for_validation(sql: &str, entries: &[&Entry]) -> (Value, Vec<String>) {
    let number = |number: i64| Some(number.to_string());
    let rows = entries.iter().map(|entry| (&entry.row.key, entry.row.cursor.unwrap()));
    if sql.contains("GROUP BY `k`") {
        let mut newest = BTreeMap::<&String, i64>::new();
        for (key, cursor) in rows {
            let known = newest.entry(key).or_insert(cursor);
            *known = cursor.max(*known);
        }
        let fields =
            json!([{"name": "k", "type": "STRING"}, {"name": "_bigquery_sync_newest", "type": "INTEGER"}]);
        let cells = |(key, cursor): (&String, i64)| record([Some(key.clone()), number(cursor)]);
        return (fields, newest.into_iter().map(cells).collect());
    }
    let (_, length) = sql.split_once(")), ").unwrap();
    let length_us: i64 = length.split(')').next().unwrap().parse().unwrap();
    let mut spans = BTreeMap::<i64, Digest>::new();
    for (_, cursor) in rows {
        spans.entry(cursor.div_euclid(length_us)).or_default().add(cursor.to_string().as_bytes());
    }
    let cells = |(span, Digest { rows, sums: [one, two] })| {
        record([span, rows as i64, i64::from(one), i64::from(two)].map(number))
    };
    (integers(&["span", "row_count", "word_1", "word_9"]), spans.into_iter().map(cells).collect())
}

/// Returns a row as it stands in a page.
fn record(cells: impl IntoIterator<Item = Option<String>>) -> String {
    let mut text = String::from(r#"{"f":["#);
    for (place, cell) in cells.into_iter().enumerate() {
        text.push_str(if place > 0 { r#",{"v":"# } else { r#"{"v":"# });
        match cell {
            Some(cell) => {
                assert!(!cell.contains(['"', '\\']), "{cell} would have to be escaped");
                text.extend(["\"", cell.as_str(), "\""]);
            }
            None => text.push_str("null"),
        }
        text.push('}');
    }
    text.push_str("]}");
    text
}

fn refusal(reason: &str) -> Value {
    json!({"error": {"errors": [{"reason": reason}]}})
}

fn integers(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name, "type": "INTEGER"})).collect()
}
