//! Sums up a node's copy by the times at which its records were written.

use super::digest::Digest;
use super::keys::hash_of;
use super::neighbours::{Stage, Summary, leaf_of};
use std::collections::{BTreeMap, BTreeSet};

/// So many commits are told of at a time.
const COMMITS_MAX: usize = 4_000;
/// Hashes of ids have so many bits, which a JavaScript number holds exactly.
const HASH_BITS: u32 = 53;

/// A row, by its time of writing, which is positive, and by the hash of its id.
pub(super) type Row = (u64, u64);

/// Rows that one commit wrote, and that are to be put again.
#[derive(Debug, Clone, PartialEq)]
pub struct Put {
    /// When they were written, in ms.
    pub written_at: f64,
    /// Their ids.
    pub ids: Vec<String>,
    /// The nodes that lack them, or have older versions.
    pub lacking: BTreeSet<String>,
}

/// What a reading of the copy is to find out.
#[derive(Debug)]
pub(super) enum Scope {
    /// Sums over spans of time.
    Leaves,
    /// Sums over the commits of some spans.
    Commits(BTreeSet<i64>),
    /// The rows of some commits.
    Rows(BTreeSet<u64>),
    /// The ids of some rows, each with the nodes that lack it.
    Ids(BTreeMap<Row, BTreeSet<String>>),
}

/// A reading of a node's copy: takes all of its records, and ends with what is to be told of them.
#[derive(Debug)]
pub struct Reading {
    summary: Summary,
    scope: Scope,
    leaves: BTreeMap<i64, Digest>,
    commits: BTreeMap<u64, Digest>,
    rows: Vec<Row>,
    puts: BTreeMap<u64, Put>,
    text: Vec<u8>,
}

impl Reading {
    pub(super) fn new(summary: Summary, scope: Scope) -> Reading {
        Reading {
            summary,
            scope,
            leaves: BTreeMap::new(),
            commits: BTreeMap::new(),
            rows: Vec::new(),
            puts: BTreeMap::new(),
            text: Vec::new(),
        }
    }

    /// Returns the times between which records were written that are wanted, in ms; the first one is left out.
    pub fn bounds(&self) -> (f64, f64) {
        (self.summary.after, self.summary.until)
    }

    /// Adds records by their ids and their times of writing. A deleted record has them too.
    pub fn add<'t>(&mut self, records: impl IntoIterator<Item = (&'t str, f64)>) {
        let (after, until) = self.bounds();
        for (id, written_at) in records.into_iter().filter(|(_, at)| *at > after && *at <= until) {
            let at = written_at.to_bits();
            match &self.scope {
                Scope::Leaves => {
                    write_record(&mut self.text, id, at);
                    self.leaves.entry(leaf_of(written_at)).or_default().add(&self.text);
                }
                Scope::Commits(leaves) if leaves.contains(&leaf_of(written_at)) => {
                    write_record(&mut self.text, id, at);
                    self.commits.entry(at).or_default().add(&self.text);
                }
                Scope::Rows(commits) if commits.contains(&at) => self.rows.push((at, short_hash(id))),
                Scope::Ids(wanted) => {
                    let Some(lacking) = wanted.get(&(at, short_hash(id))) else { continue };
                    let empty = || Put { written_at, ids: Vec::new(), lacking: BTreeSet::new() };
                    let put = self.puts.entry(at).or_insert_with(empty);
                    put.ids.push(id.to_owned());
                    put.lacking.extend(lacking.iter().cloned());
                }
                Scope::Commits(_) | Scope::Rows(_) => {}
            }
        }
    }

    /// Ends the reading. Returns what to tell, and what to put again before.
    pub fn end(self) -> (Summary, Vec<Put>) {
        let mut summary = self.summary;
        let puts: Vec<Put> = self.puts.into_values().collect();
        match self.scope {
            Scope::Leaves => {
                summary.stage = Stage::Leaves;
                summary.leaves = entries(self.leaves);
            }
            Scope::Commits(leaves) => {
                summary.stage = Stage::Commits;
                summary.suspects = few_leaves(leaves, &self.commits);
                let commits = entries(self.commits);
                let commits =
                    commits.into_iter().map(|(at, rows, one, two)| (f64::from_bits(at), rows, one, two));
                let is_told = |at: f64| summary.suspects.binary_search(&leaf_of(at)).is_ok();
                summary.commits = commits.filter(|(at, ..)| is_told(*at)).collect();
            }
            Scope::Rows(commits) => {
                summary.stage = Stage::Rows;
                summary.close = commits.into_iter().map(f64::from_bits).collect();
                summary.rows = self.rows.into_iter().map(|(at, hash)| (f64::from_bits(at), hash)).collect();
            }
            Scope::Ids(_) => {
                summary.stage = Stage::Done;
                summary.put = puts.iter().map(|put| put.ids.len() as u64).sum();
                summary.mended += summary.put;
            }
        }
        (summary, puts)
    }
}

/// Returns as many of the leaves, in order, as have few commits together, but one at least.
fn few_leaves(leaves: BTreeSet<i64>, commits: &BTreeMap<u64, Digest>) -> Vec<i64> {
    let mut counts: BTreeMap<i64, usize> = leaves.into_iter().map(|leaf| (leaf, 0)).collect();
    for at in commits.keys() {
        *counts.entry(leaf_of(f64::from_bits(*at))).or_default() += 1;
    }
    let mut sum = 0;
    let mut is_few = |(place, (leaf, count)): (usize, (i64, usize))| {
        sum += count;
        (place == 0 || sum <= COMMITS_MAX).then_some(leaf)
    };
    counts.into_iter().enumerate().map_while(&mut is_few).collect()
}

fn entries<K>(digests: BTreeMap<K, Digest>) -> Vec<(K, u64, u32, u32)> {
    digests
        .into_iter()
        .map(|(key, Digest { rows, sums: [first, second] })| (key, rows, first, second))
        .collect()
}

fn short_hash(id: &str) -> u64 {
    hash_of(id.as_bytes()) >> (u64::BITS - HASH_BITS)
}

fn write_record(text: &mut Vec<u8>, id: &str, at: u64) {
    text.clear();
    text.extend_from_slice(id.as_bytes());
    text.extend_from_slice(&at.to_be_bytes());
}
