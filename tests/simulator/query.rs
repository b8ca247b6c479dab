//! Evaluates the conditions of the engine's queries, as far as its SQL goes.

use crate::source::{Habits, Row};
use bigquery_sync::partition::Rule;
use bigquery_sync::time::Micros;

/// A condition of a WHERE clause.
pub enum Condition {
    HasCursor,
    After(i64),
    Until(i64),
    Before(i64),
    Partitions(Rule, Vec<u32>),
    /// One of several, of each of which all must hold.
    Either(Vec<Vec<Condition>>),
}

/// Reads the WHERE clause of a query.
pub fn conditions(sql: &str, habits: &Habits) -> Vec<Condition> {
    let Some((_, conditions)) = sql.split_once("\nWHERE ") else { return Vec::new() };
    let conditions = conditions.split("\nGROUP BY").next().unwrap();
    conditions.split("\n  AND ").map(|term| read(term, habits)).collect()
}

fn read(term: &str, habits: &Habits) -> Condition {
    if let Some(inner) = enclosed(term) {
        let ranges = inner.split("\n    OR ").map(|range| {
            let range = enclosed(range).unwrap_or(range);
            range.split(" AND ").map(|term| read(term, habits)).collect()
        });
        return Condition::Either(ranges.collect());
    }
    if term == "`ts` IS NOT NULL" {
        return Condition::HasCursor;
    }
    if let Some((_, list)) = term.rsplit_once(" IN (") {
        let partitions = list.trim_end_matches(')').split(", ").map(|number| number.parse().unwrap());
        return Condition::Partitions(habits.rule, partitions.collect());
    }
    let mut words = term.splitn(3, ' ');
    let (column, operator, literal) = (words.next(), words.next(), words.next());
    assert_eq!(column, Some("`ts`"), "{term}");
    let bound = habits.clock.read_literal(literal.unwrap());
    match operator {
        Some(">") => Condition::After(bound),
        Some("<=") => Condition::Until(bound),
        Some("<") => Condition::Before(bound),
        other => panic!("the operator {other:?} in {term}"),
    }
}

impl Condition {
    /// Tells whether a row meets the condition. Which partition a row is in is asked of the core; that the SQL says the
    /// same is tested on a real database.
    pub fn is_met_by(&self, row: &Row) -> bool {
        let Some(cursor) = row.cursor else { return false };
        match self {
            Condition::HasCursor => true,
            Condition::After(bound) => cursor > *bound,
            Condition::Until(bound) => cursor <= *bound,
            Condition::Before(bound) => cursor < *bound,
            Condition::Partitions(rule, partitions) => partitions.contains(&rule.partition(Micros(cursor))),
            Condition::Either(ranges) => {
                ranges.iter().any(|range| range.iter().all(|condition| condition.is_met_by(row)))
            }
        }
    }
}

/// Returns what is in the brackets if they enclose the whole text.
fn enclosed(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut depth = 0_i32;
    let balanced = inner.chars().all(|character| {
        depth += i32::from(character == '(') - i32::from(character == ')');
        depth >= 0
    });
    balanced.then_some(inner)
}
