//! Collects what the worker threads of one node run, and sums it up for the other nodes.

use super::roster::Running;
use super::{STALE_US, WORKERS_MAX};
use crate::time::{Micros, SECOND_US};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A worker that has failed for so long without a success cannot proceed.
const RETRYING_US: i64 = 60 * SECOND_US;
/// A worker that could not proceed gets no share for so long afterwards, if others can proceed.
const TROUBLE_US: i64 = 300 * SECOND_US;

/// What a thread tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hello {
    /// The worker's index.
    pub index: u32,
    /// A fingerprint of its configuration.
    #[serde(default)]
    pub configuration: String,
    /// The tables that its configuration has, an empty list if that is refused; none if nothing has changed since it last
    /// told them.
    pub tables: Option<Vec<Work>>,
}

/// How a worker proceeds with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// It has just been started.
    Begins,
    /// It reads what it owns.
    Reads,
    /// It tries again after a failure.
    Retries,
    /// Somebody has to remove the cause of a failure.
    Blocked,
    /// It does nothing more after a failure.
    GaveUp,
    /// It owns nothing, or was stopped.
    Waits,
}

/// What a thread does for a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The table's id.
    pub id: String,
    /// How it proceeds; none if the table was not started, because the operators want it so.
    pub effort: Option<Effort>,
    /// Whether the operators have started or stopped the table, wherever in the cluster.
    pub commanded: bool,
    /// How many partitions the table has, if that is known.
    pub of: u32,
    /// The partitions that the worker owns.
    pub partitions: Vec<u32>,
}

/// The threads of this node.
#[derive(Debug, Clone)]
pub struct Threads {
    count: u32,
    started_at: Micros,
    /// The tables that threads will run when they have taken the configuration below.
    assumed: BTreeSet<String>,
    configuration: String,
    heard: BTreeMap<u32, Heard>,
    /// Since when a worker has been failing, and when it last could not proceed; by table and worker.
    retrying_since: BTreeMap<(String, u32), Micros>,
    troubled_at: BTreeMap<(String, u32), Micros>,
    now: Micros,
}

/// What a thread told last.
#[derive(Debug, Clone)]
struct Heard {
    at: Micros,
    configuration: String,
    /// When it first said that it has this configuration.
    since: Micros,
    tables: Vec<Work>,
}

impl Threads {
    /// Starts with `count` threads, and expects all of them to run the same tables.
    pub fn new(count: u32, now: Micros) -> Threads {
        Threads {
            count: count.clamp(1, WORKERS_MAX),
            started_at: now,
            assumed: BTreeSet::new(),
            configuration: String::new(),
            heard: BTreeMap::new(),
            retrying_since: BTreeMap::new(),
            troubled_at: BTreeMap::new(),
            now,
        }
    }

    /// Assumes the tables of the own configuration for threads that have not yet said that they have it.
    pub fn assume(&mut self, tables: impl IntoIterator<Item = String>, configuration: String) {
        self.assumed = tables.into_iter().collect();
        self.configuration = configuration;
    }

    /// Takes what a thread tells.
    pub fn hear(&mut self, hello: Hello, now: Micros) {
        let Hello { index, configuration, tables } = hello;
        let before = self.heard.get(&index).filter(|before| before.configuration == configuration);
        let since = before.map_or(now, |before| before.since);
        let Some(tables) = tables.or_else(|| before.map(|before| before.tables.clone())) else { return };
        for work in &tables {
            let key = (work.id.clone(), index);
            let retrying = work.effort == Some(Effort::Retries);
            if !retrying {
                self.retrying_since.remove(&key);
            }
            let since = retrying.then(|| *self.retrying_since.entry(key.clone()).or_insert(now));
            let in_vain = since.is_some_and(|since| now.since(since) >= RETRYING_US);
            if in_vain || work.effort == Some(Effort::Blocked) {
                self.troubled_at.insert(key, now);
            } else if work.effort == Some(Effort::Begins) {
                // A new run may have another configuration.
                self.troubled_at.remove(&key);
            }
        }
        self.heard.insert(index, Heard { at: now, configuration, since, tables });
    }

    /// Tells whether a worker speaks for its node. The first worker does; another one does if those before it are
    /// silent.
    pub fn is_speaker(&self, index: u32, now: Micros) -> bool {
        let starting = now.since(self.started_at) < STALE_US;
        let is_before = |(other, heard): (&u32, &Heard)| *other < index && is_fresh(heard.at, now);
        index == 0 || (!starting && !self.heard.iter().any(is_before))
    }

    /// Returns what the threads run. `elsewhere` tells whether other nodes read a table that is not started here.
    pub fn running(&mut self, elsewhere: impl Fn(&str) -> bool, now: Micros) -> Vec<Running> {
        // A clock that was set back must not keep dead threads alive for long.
        for heard in self.heard.values_mut() {
            heard.at = heard.at.min(now);
            heard.since = heard.since.min(now);
        }
        self.started_at = self.started_at.min(now);
        self.now = now;
        let mut found: BTreeMap<String, Running> = BTreeMap::new();
        for (index, heard) in self.heard.iter().filter(|(_, heard)| is_fresh(heard.at, now)) {
            let others = match is_fresh(heard.since, now) {
                true => self.awaited(&heard.configuration, now),
                false => Vec::new(),
            };
            for work in heard.tables.iter().filter(|work| work.is_run(&elsewhere)) {
                let table = found.entry(work.id.clone()).or_default();
                table.workers.insert(*index);
                table.workers.extend(others.iter().copied());
                table.of = table.of.max(work.of);
                if work.reads() {
                    table.reads.extend(work.partitions.iter().copied());
                }
                let trouble = self.troubled_at.get(&(work.id.clone(), *index));
                if trouble.is_some_and(|at| now.since(*at) < TROUBLE_US) {
                    table.troubled.insert(*index);
                }
            }
        }
        if is_fresh(self.started_at, now) {
            let awaited = self.awaited(&self.configuration, now);
            for id in self.assumed.iter().filter(|_| !awaited.is_empty()) {
                found.entry(id.clone()).or_default().workers.extend(awaited.iter().copied());
            }
        }
        found.into_iter().map(|(id, running)| Running { id, ..running }).collect()
    }

    /// Returns the threads that should soon say that they have this configuration. Each thread takes an edited
    /// configuration at its own moment. The work should not be divided twice for that.
    fn awaited(&self, configuration: &str, now: Micros) -> Vec<u32> {
        let is_awaited = |index: &u32| match self.heard.get(index) {
            None => is_fresh(self.started_at, now),
            Some(heard) => is_fresh(heard.at, now) && heard.configuration != configuration,
        };
        (0..self.count).filter(is_awaited).collect()
    }
}

impl Work {
    /// Whether the worker runs the table, or would if the operators started it.
    fn is_run(&self, elsewhere: impl Fn(&str) -> bool) -> bool {
        match self.effort {
            Some(Effort::GaveUp) => false,
            Some(Effort::Begins | Effort::Reads | Effort::Retries | Effort::Blocked | Effort::Waits) => true,
            // A command reaches each node at its own moment. A configuration that says otherwise stays in force.
            None => self.commanded || !elsewhere(&self.id),
        }
    }

    fn reads(&self) -> bool {
        matches!(self.effort, Some(Effort::Reads | Effort::Retries))
    }
}

fn is_fresh(at: Micros, now: Micros) -> bool {
    now.since(at) < STALE_US
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = "one";

    fn at(seconds: i64) -> Micros {
        Micros(seconds * SECOND_US)
    }

    fn work(id: &str, effort: Option<Effort>, partitions: &[u32]) -> Work {
        Work { id: id.to_owned(), effort, commanded: false, of: 4, partitions: partitions.to_vec() }
    }

    fn hello(index: u32, tables: &[Work]) -> Hello {
        hello_of(CONFIGURATION, index, tables)
    }

    fn hello_of(configuration: &str, index: u32, tables: &[Work]) -> Hello {
        Hello { index, configuration: configuration.to_owned(), tables: Some(tables.to_vec()) }
    }

    fn workers(threads: &mut Threads, id: &str, second: i64) -> Vec<u32> {
        let running = threads.running(|_| true, at(second));
        running.iter().filter(|table| table.id == id).flat_map(|table| table.workers.clone()).collect()
    }

    #[test]
    fn threads_are_expected_to_run_the_same_until_they_were_heard_of_or_had_the_time_to_be() {
        let mut threads = Threads::new(3, at(0));
        threads.assume(["a".to_owned()], CONFIGURATION.to_owned());
        threads.hear(hello(0, &[work("a", Some(Effort::Reads), &[0])]), at(0));
        assert_eq!(workers(&mut threads, "a", 1), [0, 1, 2]);
        // Its configuration is refused.
        threads.hear(hello(2, &[]), at(2));
        assert_eq!(workers(&mut threads, "a", 3), [0, 1]);
        threads.hear(hello(0, &[work("a", Some(Effort::Reads), &[0])]), at(14));
        assert_eq!(workers(&mut threads, "a", 16), [0]);
    }

    #[test]
    fn threads_that_have_not_taken_an_edited_configuration_yet_are_expected_to() {
        let (before, after) = ([work("a", Some(Effort::Reads), &[0])], ["a", "b"]);
        let edited = after.map(|id| work(id, Some(Effort::Begins), &[]));
        // The thread that has taken it starts anew.
        let mut quick = Threads::new(2, at(100));
        quick.assume(after.map(str::to_owned), "edited".to_owned());
        quick.hear(hello(1, &before), at(100));
        assert_eq!(workers(&mut quick, "b", 100), [0, 1]);
        quick.hear(hello_of("edited", 0, &edited), at(101));
        assert_eq!(workers(&mut quick, "b", 101), [0, 1]);
        // The other one hears of it.
        let mut slow = Threads::new(2, at(0));
        slow.assume(["a".to_owned()], CONFIGURATION.to_owned());
        slow.hear(hello(1, &before), at(100));
        slow.hear(hello_of("edited", 0, &edited), at(101));
        assert_eq!(workers(&mut slow, "b", 102), [0, 1]);
        // Somebody who does not take it does not take part in the end.
        for threads in [&mut quick, &mut slow] {
            threads.hear(hello(1, &before), at(115));
            threads.hear(hello_of("edited", 0, &edited), at(115));
            assert_eq!((workers(threads, "a", 117), workers(threads, "b", 117)), (vec![0, 1], vec![0]));
        }
    }

    #[test]
    fn threads_that_still_have_a_table_do_not_make_others_keep_it() {
        let mut threads = Threads::new(2, at(100));
        threads.assume([], "edited".to_owned());
        threads.hear(hello(1, &[work("a", Some(Effort::Reads), &[0])]), at(90));
        threads.hear(hello(1, &[work("a", Some(Effort::Reads), &[0])]), at(101));
        threads.hear(hello_of("edited", 0, &[]), at(102));
        assert_eq!(workers(&mut threads, "a", 106), [1]);
    }

    #[test]
    fn a_thread_that_fell_silent_or_gave_a_table_up_does_not_run_it() {
        let mut threads = Threads::new(2, at(0));
        threads.hear(hello(0, &[work("a", Some(Effort::Reads), &[0, 2])]), at(0));
        let tables = [work("a", Some(Effort::Reads), &[1, 3]), work("b", Some(Effort::GaveUp), &[])];
        threads.hear(hello(1, &tables), at(0));
        assert_eq!((workers(&mut threads, "a", 1), workers(&mut threads, "b", 1)), (vec![0, 1], vec![]));
        threads.hear(hello(0, &[work("a", Some(Effort::Reads), &[0, 2])]), at(10));
        assert_eq!(workers(&mut threads, "a", 16), [0]);
        let reads: Vec<u32> = threads.running(|_| true, at(16))[0].reads.iter().collect();
        assert_eq!(reads, [0, 2]);
    }

    #[test]
    fn a_thread_in_which_nothing_changes_need_not_repeat_what_it_runs() {
        let mut threads = Threads::new(1, at(0));
        let unchanged = |configuration: &str| Hello { tables: None, ..hello_of(configuration, 0, &[]) };
        threads.hear(unchanged(CONFIGURATION), at(0));
        threads.hear(hello(0, &[work("a", Some(Effort::Retries), &[0])]), at(1));
        threads.hear(unchanged(CONFIGURATION), at(62));
        assert_eq!(workers(&mut threads, "a", 70), [0]);
        // It still fails.
        assert!(!threads.running(|_| true, at(70))[0].troubled.is_empty());
        // Nobody knows what it runs with another configuration.
        threads.hear(unchanged("edited"), at(80));
        assert_eq!(workers(&mut threads, "a", 81), Vec::<u32>::new());
    }

    #[test]
    fn a_table_that_is_started_elsewhere_but_not_here_is_not_run_here() {
        let mut threads = Threads::new(1, at(0));
        threads.hear(hello(0, &[work("a", None, &[])]), at(0));
        assert_eq!(threads.running(|_| false, at(1)).len(), 1);
        assert_eq!(threads.running(|_| true, at(1)).len(), 0);
        // A command is about to be followed.
        threads.hear(hello(0, &[Work { commanded: true, ..work("a", None, &[]) }]), at(2));
        assert_eq!(threads.running(|_| true, at(3)).len(), 1);
    }

    #[test]
    fn who_gets_nowhere_is_in_trouble_for_a_while() {
        let mut threads = Threads::new(1, at(0));
        let mut troubled = |effort: Effort, second: i64| {
            threads.hear(hello(0, &[work("a", Some(effort), &[0])]), at(second));
            !threads.running(|_| true, at(second))[0].troubled.is_empty()
        };
        assert!(!troubled(Effort::Retries, 0));
        assert!(!troubled(Effort::Retries, 59));
        assert!(troubled(Effort::Retries, 61));
        assert!(troubled(Effort::Waits, 70));
        assert!(!troubled(Effort::Waits, 400));
        assert!(troubled(Effort::Blocked, 401));
        assert!(!troubled(Effort::Begins, 402));
    }

    #[test]
    fn another_thread_speaks_for_the_node_when_the_first_one_is_silent() {
        let mut threads = Threads::new(3, at(0));
        threads.hear(hello(0, &[]), at(0));
        assert!(threads.is_speaker(0, at(1)) && !threads.is_speaker(1, at(1)));
        threads.hear(hello(1, &[]), at(14));
        threads.hear(hello(2, &[]), at(14));
        assert!(threads.is_speaker(1, at(16)) && !threads.is_speaker(2, at(16)));
    }
}
