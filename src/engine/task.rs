//! The next piece of work: the window to read, and its partitions.

use super::counts::Counts;
use super::division;
use super::holding::Holding;
use super::late::LateRange;
use super::loss::Loss;
use super::sizes::Sizes;
use super::source::{Described, Source};
use super::window::{self, Plan};
use crate::bigquery::sql::{Selection, Window};
use crate::config::Pace;
use crate::mapping::succession::Renewed;
use crate::partition::Rule;
use crate::time::Micros;

/// A window to read for some partitions.
#[derive(Debug, Clone)]
pub struct Task {
    /// The window.
    pub plan: Plan,
    /// In order.
    pub partitions: Vec<u32>,
    /// Their watermark.
    pub started_from: Option<Micros>,
    /// The latest cursor of the table that was known when it was planned, in whichever partition.
    pub newest: Option<Micros>,
    /// Which rows of the window.
    pub selection: Selection,
    /// Whether nobody else writes for these partitions, and everything that others may have written is read again.
    pub is_sole: bool,
    /// Whether rows are read again because others may have overwritten them.
    pub rereads_unsettled: bool,
    /// Whether its rows may be in Harper with ids of a former era.
    pub replaces: bool,
    /// Whether it also reads rows of the future, as far as is known.
    pub reads_future: bool,
    /// The lost commits whose rows it reads again. It then makes no progress.
    pub mends: Option<Box<Loss>>,
}

impl Task {
    /// Plans the next window of the partitions that are furthest behind; none when there is nothing to read yet.
    ///
    /// While nodes come and go, two workers may write versions of one row without seeing each other's. The last write
    /// then wins, which need not be the newest version. When rows without a key get other ids, one worker may write
    /// them under the new ids, and another one under the former ids. Once the cluster has settled, everything that was
    /// read meanwhile is read again.
    pub fn next(
        holding: &mut Holding,
        described: &Described,
        late: &LateRange,
        source: &Source,
        sizes: &Sizes,
        pace: &Pace,
        now: Micros,
    ) -> Option<Task> {
        let Described { description, projection } = described;
        let (server_time, cursor_type, rule) = (source.server_time(), projection.cursor_type, holding.rule());
        let present = pace.zone.local(server_time);
        let bytes_per_row = description.bytes.unwrap_or(0) / description.rows.unwrap_or(0).max(1);
        let starts: Vec<Micros> =
            holding.counts().into_iter().flat_map(Counts::partitions).map(|one| one.starts).collect();
        // Partitions of the source that were counted have rows at their start or later.
        let last_counted = starts.iter().copied().filter(|starts| *starts <= present).max();
        let newest = holding.ledger.newest_of_all().max(last_counted);
        let mut rereads_unsettled = false;
        // Each round moves partitions without rows in their window to the watermark of the next ones.
        for _ in 0..=holding.own().len() {
            let group = holding.ledger.furthest_behind(holding.own());
            let own_counts = holding.counts().into_iter().flat_map(Counts::partitions).filter(|one| {
                !rule.pruned || group.partitions.binary_search(&rule.partition(one.starts)).is_ok()
            });
            rereads_unsettled |= holding.is_unsettled(projection, &group.partitions, now);
            let from = match rereads_unsettled {
                true => holding.ledger.settled(&group.partitions),
                false => group.watermark,
            };
            let bound = window::next_bound(own_counts, from, bytes_per_row, sizes.window_rows_max());
            let until = [group.next, bound].into_iter().flatten().min();
            let reread = rereads_unsettled || late.is_reread_for(&group.partitions);
            let plan = window::plan(from, until, reread, server_time, cursor_type, pace)?;
            let selected = division::select(rule, &group.partitions, plan.window, &starts, present);
            let Some(selection) = selected else {
                if plan.window.until.is_none() {
                    holding.ledger.end(&group.partitions, plan.watermark);
                }
                if let Some(proven) = plan.reached(newest) {
                    holding.ledger.prove(&group.partitions, proven);
                }
                continue;
            };
            // Spans of the future that were counted are left to the owners of their partitions.
            let none_counted = starts.iter().all(|starts| *starts <= present);
            let after = plan.window.after;
            return Some(Task {
                plan,
                started_from: group.watermark,
                newest,
                is_sole: holding.is_sole_at(now),
                rereads_unsettled,
                replaces: holding.ledger.may_have_old_ids(&group.partitions, projection.era, after),
                reads_future: reaches_the_future(&selection) && none_counted,
                mends: None,
                partitions: group.partitions,
                selection,
            });
        }
        None
    }

    /// Makes a task that reads a window again whose rows did not all arrive on this node.
    pub fn mending(loss: Loss, window: Window, replaces: bool) -> Task {
        Task {
            // It tells nothing about the rest of the table.
            plan: Plan { window, watermark: Micros::MIN },
            partitions: Vec::new(),
            started_from: None,
            newest: None,
            selection: Selection::All,
            is_sole: false,
            rereads_unsettled: false,
            replaces,
            reads_future: false,
            mends: Some(Box::new(loss)),
        }
    }

    /// Whether nobody else has written, or may write, for these partitions.
    pub fn is_still_sole(&self, holding: &Holding, now: Micros) -> bool {
        self.is_sole && holding.is_sole_at(now)
    }

    /// Returns the range of cursors in which all rows have ids of the era once the window has been read to its end;
    /// none if others may be writing too.
    pub fn renewed(&self, era: u32, rule: Rule) -> Option<Renewed> {
        let Window { after, until } = self.plan.window;
        if era == 0 || !self.is_sole {
            None
        } else if self.replaces {
            Some(Renewed { after, until, rule, partitions: self.partitions.clone() })
        } else {
            // Rows of the future are read sometimes by one worker, sometimes by another.
            let after = Some(self.plan.watermark);
            self.is_open_ended().then(|| Renewed { after, until, rule, partitions: self.partitions.clone() })
        }
    }

    /// Whether the window reaches to the end of the table.
    pub fn is_open_ended(&self) -> bool {
        self.plan.window.until.is_none()
    }

    /// Whether the window has all rows of the table, of whatever time.
    pub fn is_whole_table(&self) -> bool {
        self.plan.window.after.is_none() && self.is_open_ended()
    }

    /// Whether it also reads rows again that were read before, and that nobody else can have overwritten.
    pub fn rereads(&self) -> bool {
        let is_behind = self.started_from.is_some_and(|from| self.plan.window.after < Some(from));
        is_behind && !self.rereads_unsettled
    }

    /// Whether its query reads rows of the future.
    pub fn reaches_the_future(&self) -> bool {
        reaches_the_future(&self.selection)
    }
}

fn reaches_the_future(selection: &Selection) -> bool {
    match selection {
        Selection::All | Selection::Partitions(..) => true,
        Selection::Segments(_, _, segments) => segments.iter().any(|segment| segment.to.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Standing;
    use crate::engine::checkpoint::Checkpoint;
    use crate::engine::samples::{at, checkpoint, described, keyed, table};
    use crate::partition::{Division, Span};

    const BY_DAY: Rule = Rule { division: Division::Spans(Span::Day), partitions: 2, pruned: true };
    const NOON: &str = "2024-01-05T12:00:00Z";

    fn next(holding: &mut Holding, described: &Described) -> Option<Task> {
        let mut source = Source::default();
        source.set_clock(Some(at(NOON)), at(NOON));
        let (late, pace) = (LateRange::default(), table().pace);
        Task::next(holding, described, &late, &source, &Sizes::new(&pace), &pace, at(NOON))
    }

    #[test]
    fn the_partitions_furthest_behind_come_first_and_are_read_up_to_the_next_ones() {
        let (first, third) = ("2024-01-01T00:00:00Z", "2024-01-03T00:00:00Z");
        let mut holding = Holding::new(Standing::ALONE);
        holding.take(vec![checkpoint(0, first, first), checkpoint(1, third, third)], BY_DAY, 0);
        let task = next(&mut holding, &described(1)).unwrap();
        assert_eq!((task.partitions, task.started_from), (vec![0], Some(at(first))));
        assert_eq!(task.plan.window.until, Some(at(third)));
        assert!(!task.reads_future);
    }

    #[test]
    fn the_whole_table_is_read_first_and_the_future_with_it() {
        let mut holding = Holding::new(Standing::ALONE);
        holding.take(Vec::new(), Rule::WHOLE, 0);
        let task = next(&mut holding, &described(1)).unwrap();
        assert!(task.is_whole_table() && task.reads_future && task.is_sole && !task.rereads_unsettled);
    }

    #[test]
    fn what_was_read_while_nodes_came_and_went_is_read_again_from_where_that_began() {
        let mut holding = Holding::new(Standing::ALONE);
        let (settled, read) = ("2024-01-01T00:00:00Z", "2024-01-03T00:00:00Z");
        let stored = Checkpoint { rule: Rule::WHOLE.name(), ..checkpoint(0, read, settled) };
        holding.take(vec![stored], Rule::WHOLE, 0);
        let task = next(&mut holding, &keyed(1)).unwrap();
        assert!(task.rereads_unsettled);
        assert_eq!(task.plan.window.after, Some(at("2023-12-31T23:50:00Z")));
    }
}
