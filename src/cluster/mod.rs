//! Divides the work among the live workers of all nodes, in one order and without a coordinator.

mod alarms;
mod observer;
mod roster;
mod threads;

pub use alarms::Alarm;
pub use observer::{NodeStatus, Observer, Unread};
pub use roster::{Partitions, Roster, Running};
pub use threads::{Effort, Hello, Threads, Work};

use crate::time::{Micros, SECOND_US, instant};
use serde::{Deserialize, Serialize};

/// Older observations are stale.
const STALE_US: i64 = 15 * SECOND_US;
/// The most threads of a node that count.
const WORKERS_MAX: u32 = 1_024;

/// A node's heartbeat, from the table SyncNode, with its last roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The node's name.
    #[serde(rename = "id")]
    pub node: String,
    /// How many workers it has.
    pub workers: u32,
    /// Changes with each heartbeat.
    pub beat: u64,
    /// When the node started, by its clock: another value in each of its lives. Zero if it does not tell.
    #[serde(default)]
    pub started: u64,
    /// Whether another node says that this one was removed from the cluster. Harper may not tell it to all nodes.
    #[serde(default)]
    pub removed: bool,
    /// Its roster; none if that has not arrived.
    #[serde(default)]
    pub roster: Option<Roster>,
}

/// A worker's place in the order of all workers that run a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Counted from 0.
    pub position: u32,
    /// How many there are; zero if the worker is not among them, or if nobody knows yet.
    pub workers: u32,
}

/// What a worker has to know of the cluster, for one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Its share of the work.
    pub share: Share,
    /// Whether all members have been alive for a while, so that nobody else can still write for the same partitions.
    pub is_settled: bool,
    /// When that was observed, by the worker's clock; none if there is nobody else.
    #[serde(with = "instant")]
    pub seen_at: Option<Micros>,
    /// Another number whenever some other node has started.
    #[serde(default)]
    pub lives: u64,
}

impl Share {
    /// Of one who is alone.
    pub const WHOLE: Share = Share { position: 0, workers: 1 };

    /// Of a worker that has no share, or does not know its share yet.
    pub const NONE: Share = Share { position: 0, workers: 0 };

    /// Tells whether the worker owns a partition. Tables that are one partition have different `offset`s, so that they
    /// go to different workers.
    pub fn owns(self, partition: u32, offset: u32) -> bool {
        let turn = (u64::from(partition) + u64::from(offset)).checked_rem(u64::from(self.workers));
        turn == Some(u64::from(self.position))
    }
}

impl Standing {
    /// Of one who is alone.
    pub const ALONE: Standing = Standing { share: Share::WHOLE, is_settled: true, seen_at: None, lives: 0 };

    /// Tells whether the cluster is settled, as far as is known now. After a pause, the worker knows only how it was
    /// before.
    pub fn is_settled_at(self, now: Micros) -> bool {
        self.is_settled && self.seen_at.is_none_or(|at| (0..STALE_US).contains(&now.since(at)))
    }
}
