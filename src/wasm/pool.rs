//! The memory that the tables of a worker share. A table that waits for memory is woken when there is some.

use crate::engine::memory::{Budget, Need};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The memory of a worker.
pub struct Pool {
    budget: RefCell<Budget>,
    wakers: RefCell<BTreeMap<u32, Waker>>,
}

impl Pool {
    /// Divides so many bytes.
    pub fn new(bytes_max: u64) -> Pool {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Pool { budget: RefCell::new(Budget::new(bytes_max)), wakers: RefCell::default() }
    }

    /// Adds a table, and returns its number.
    pub fn join(&self) -> u32 {
        self.budget.borrow_mut().join()
    }

    /// Releases everything that a table holds.
    pub fn leave(&self, table: u32) {
        self.wakers.borrow_mut().remove(&table);
        self.wake(self.budget.borrow_mut().leave(table));
    }

    /// Waits for room for a page. Returns false if `is_over` becomes true before. Call [`Pool::wake_one`] when that may
    /// have changed.
    pub async fn room(&self, table: u32, bytes: usize, is_over: impl Fn() -> bool) -> bool {
        self.budget.borrow_mut().ask(table, bytes);
        poll_fn(|context| {
            if is_over() {
                self.wake(self.budget.borrow_mut().withdraw(table));
                return Poll::Ready(false);
            }
            if !self.budget.borrow().is_waiting(table) {
                return Poll::Ready(true);
            }
            self.wakers.borrow_mut().insert(table, context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Makes a waiting table check again.
    pub fn wake_one(&self, table: u32) {
        self.wake(vec![table]);
    }

    /// Takes room for a page that is fetched ahead, if there is some.
    pub fn room_ahead(&self, table: u32, bytes: usize) -> bool {
        self.budget.borrow_mut().ask_ahead(table, bytes)
    }

    /// Makes a page that was fetched ahead, for which so much room was taken, the one that is read.
    pub fn use_ahead(&self, table: u32, bytes: usize) {
        self.budget.borrow_mut().use_ahead(table, bytes);
    }

    /// Gives up the pages that were fetched ahead.
    pub fn forget_ahead(&self, table: u32) {
        self.wake(self.budget.borrow_mut().forget_ahead(table));
    }

    /// Notes what a table holds now.
    pub fn hold(&self, table: u32, need: Need) {
        self.wake(self.budget.borrow_mut().hold(table, need));
    }

    /// Returns the bytes of hashes that a table may have.
    pub fn rows_allowed(&self, table: u32) -> usize {
        self.budget.borrow().rows_allowed(table)
    }

    fn wake(&self, tables: Vec<u32>) {
        for table in tables {
            if let Some(waker) = self.wakers.borrow_mut().remove(&table) {
                waker.wake();
            }
        }
    }
}
