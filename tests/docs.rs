//! What the documentation says of the code.

use bigquery_sync::error::{Kind, Recovery};
use std::fs;

#[test]
fn the_page_of_errors_lists_each_code_once_with_what_happens_next() {
    let page = fs::read_to_string("docs/errors.md").unwrap();
    let listed: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(code, rest)| (code, rest.split(['|', ' ']).find(|word| !word.is_empty()).unwrap_or_default()))
        .collect();
    let expected: Vec<(&str, &str)> = Kind::ALL
        .iter()
        .map(|kind| {
            let next = match kind.recovery() {
                Recovery::Retry => "retries",
                Recovery::Recheck => "rechecks",
                Recovery::Halt => "halts",
            };
            (kind.code(), next)
        })
        .collect();
    assert_eq!(listed, expected);
}
