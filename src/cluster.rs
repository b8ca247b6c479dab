//! Who does what among workers.

/// Tells whether the worker with index `worker` of `workers` runs the table at `position` of the configuration.
///
/// Tables are dealt out in turn; a node without workers of its own (a single thread) runs them all.
pub fn runs_table(position: usize, worker: u32, workers: u32) -> bool {
    let workers = workers.max(1) as usize;
    position % workers == worker as usize % workers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_exactly_one_worker() {
        for workers in 0..9_u32 {
            for position in 0..20 {
                let owners =
                    (0..workers.max(1)).filter(|worker| runs_table(position, *worker, workers)).count();
                assert_eq!(owners, 1);
            }
        }
    }
}
