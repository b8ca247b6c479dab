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

/// What was seen so long ago tells nothing of now.
const STALE_US: i64 = 15 * SECOND_US;
/// Threads of a node that count, at most.
const WORKERS_MAX: u32 = 1_024;

/// A node's sign of life, in the table SyncNode, with what it told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The node's name.
    #[serde(rename = "id")]
    pub node: String,
    /// How many workers it has.
    pub workers: u32,
    /// Changes with each heartbeat.
    pub beat: u64,
    /// Whether another node tells that this one was removed from the cluster; Harper's own news of it may get lost.
    #[serde(default)]
    pub removed: bool,
    /// What it told of itself; none if that has not arrived.
    #[serde(default)]
    pub roster: Option<Roster>,
}

/// A worker's place in the order of all workers that run a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Counted from 0.
    pub position: u32,
    /// How many there are; none if the worker is not among them, or nobody knows yet.
    pub workers: u32,
}

/// What a worker has to know of the cluster, for one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Its share of the work.
    pub share: Share,
    /// Whether all members have been there for a while, so that nobody else may still write for the same partitions.
    pub is_settled: bool,
    /// When that was seen, by the worker's clock; none where there is nobody else.
    #[serde(with = "instant")]
    pub seen_at: Option<Micros>,
}

impl Share {
    /// Of one who is alone.
    pub const WHOLE: Share = Share { position: 0, workers: 1 };

    /// Of one who has none, or does not know it yet.
    pub const NONE: Share = Share { position: 0, workers: 0 };

    /// Tells whether the worker owns a partition. Tables that are one partition are told apart by `offset`, so that
    /// different ones go to different workers.
    pub fn owns(self, partition: u32, offset: u32) -> bool {
        let turn = (u64::from(partition) + u64::from(offset)).checked_rem(u64::from(self.workers));
        turn == Some(u64::from(self.position))
    }
}

impl Standing {
    /// Of one who is alone.
    pub const ALONE: Standing = Standing { share: Share::WHOLE, is_settled: true, seen_at: None };

    /// Tells whether the cluster is settled for all that can be known now. Whoever was paused knows only of before.
    pub fn is_settled_at(self, now: Micros) -> bool {
        self.is_settled && self.seen_at.is_none_or(|at| (0..STALE_US).contains(&now.since(at)))
    }
}
