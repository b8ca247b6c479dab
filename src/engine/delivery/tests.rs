use super::*;

const OWNER: &str = "a-0";

fn portion(job: &str, total_rows: u64, from: u64, to: u64) -> Portion {
    let job = Some(JobReference { project_id: "p".to_owned(), job_id: job.to_owned(), location: None });
    Portion { job, numbered: false, schema: 1, after: None, until: None, total_rows, from, to }
}

/// The commits of a worker that reads these portions, one after the other.
fn commits(portions: &[Portion]) -> Vec<Commit> {
    let mut outbox = Outbox::default();
    let of = |(number, rows): (usize, &Portion)| {
        let commit = outbox.next(
            "t",
            OWNER.to_owned(),
            Some(Micros(number as i64 * 1_000)),
            rows.clone(),
            false,
            false,
        );
        outbox.made(commit.clone(), seconds(number as i64 * 10));
        commit
    };
    portions.iter().enumerate().map(of).collect()
}

/// A window of 30 rows in three commits, and one of 20 in two.
fn two_results() -> Vec<Commit> {
    let of = |job: &str, total, from| portion(job, total, from, from + 10);
    commits(&[of("one", 30, 0), of("one", 30, 10), of("one", 30, 20), of("two", 20, 0), of("two", 20, 10)])
}

fn seconds(seconds: i64) -> Micros {
    Micros(seconds * SECOND_US)
}

/// What a node knows that keeps nothing yet.
fn new_node() -> Deliveries {
    let mut deliveries = Deliveries::default();
    deliveries.load(Vec::new(), false);
    deliveries
}

/// Lets a node look at what has arrived of them: all but some numbers.
fn look(deliveries: &mut Deliveries, commits: &[Commit], lost: &[u64]) {
    let mut before = Vec::new();
    loop {
        let wanted = deliveries.wanted(commits.last().cloned().into_iter().collect());
        let is_there = |commit: &&Commit| !lost.contains(&commit.number);
        let is_wanted = |commit: &&Commit| wanted.contains(&(commit.owner.clone(), commit.number));
        deliveries.take(commits.iter().filter(is_there).filter(is_wanted).cloned().collect(), seconds(0));
        if wanted == before {
            return;
        }
        before = wanted;
    }
}

/// Returns what a node that misses some numbers reads again, as job, from and to.
fn read_again(commits: &[Commit], lost: &[u64]) -> Vec<(String, u64, u64)> {
    let mut deliveries = new_node();
    look(&mut deliveries, commits, lost);
    let mut found = Vec::new();
    for second in 0..100 {
        let Some(loss) = deliveries.loss(seconds(second)) else { continue };
        let Piece::Rows(rows) = &loss.piece else { panic!("{loss:?}") };
        found.push((rows.job.clone().unwrap().job_id, rows.from, rows.to));
        deliveries.mended(&loss);
    }
    found
}

fn rows(job: &str, from: u64, to: u64) -> (String, u64, u64) {
    (job.to_owned(), from, to)
}

#[test]
fn rows_of_a_commit_that_did_not_arrive_are_read_again_whichever_it_is() {
    let commits = two_results();
    assert_eq!(read_again(&commits, &[]), []);
    assert_eq!(read_again(&commits, &[1]), [rows("one", 0, 10)]);
    assert_eq!(read_again(&commits, &[2]), [rows("one", 10, 20)]);
    assert_eq!(read_again(&commits, &[3]), [rows("one", 20, 30)]);
    assert_eq!(read_again(&commits, &[4]), [rows("two", 0, 10)]);
    assert_eq!(read_again(&commits, &[2, 3, 4]), [rows("one", 10, 30), rows("two", 0, 10)]);
    assert_eq!(read_again(&commits, &[1, 2, 3, 4]), [rows("one", 0, 30), rows("two", 0, 10)]);
    assert_eq!(read_again(&commits, &[2, 4]), [rows("one", 10, 20), rows("two", 0, 10)]);
}

#[test]
fn the_last_commit_is_told_of_twice_more_and_so_missed() {
    let commits = two_results();
    assert_eq!(read_again(&commits, &[5]), [rows("two", 10, 20)]);
    let outbox = &mut Outbox::default();
    outbox.made(commits[0].clone(), seconds(0));
    assert_eq!((outbox.closes_in_ms(seconds(0)), outbox.closes_in_ms(seconds(9))), (Some(5_000), Some(0)));
    outbox.close();
    assert_eq!((outbox.closes_in_ms(seconds(9)), outbox.closes_in_ms(seconds(60))), (Some(51_000), Some(0)));
    outbox.close();
    assert_eq!(outbox.closes_in_ms(seconds(99)), None);
    outbox.open(seconds(100));
    assert_eq!(outbox.closes_in_ms(seconds(100)), Some(5_000));
}

#[test]
fn a_result_that_got_lost_as_a_whole_between_two_others_is_read_again() {
    let commits = commits(&[portion("one", 9, 0, 9), portion("two", 5, 0, 5), portion("three", 7, 0, 7)]);
    assert_eq!(read_again(&commits, &[2]), [rows("two", 0, 5)]);
    assert_eq!(read_again(&commits, &[1]), [rows("one", 0, 9)]);
}

#[test]
fn of_several_results_that_got_lost_the_whole_stretch_is_read_again() {
    let at = |day: i64| Some(Micros(day));
    let window = |job: &str, day| Portion { after: at(day), until: at(day + 1), ..portion(job, 5, 0, 5) };
    let commits = commits(&[window("a", 0), window("b", 1), window("c", 2), window("d", 3), window("e", 4)]);
    let mut deliveries = new_node();
    look(&mut deliveries, &commits, &[2, 3, 4]);
    deliveries.loss(seconds(0));
    let loss = deliveries.loss(seconds(10)).unwrap();
    assert_eq!(loss.piece, Piece::Window(Window { after: at(0), until: at(5) }));
    assert_eq!((loss.first, loss.count, loss.is_last), (2, 3, true));
}

#[test]
fn of_several_results_that_got_lost_those_of_a_partition_that_was_taken_over_are_read_again_too() {
    let at = |day: i64| Some(Micros(day));
    let window = |job: &str, after, until| Portion { after, until, ..portion(job, 5, 0, 5) };
    let recent = |job: &str, day| window(job, at(day), None);
    // The worker that owned it has read nothing.
    let taken_over = window("b", None, at(4));
    let commits = commits(&[recent("a", 4), taken_over, recent("c", 5), recent("d", 5)]);
    let mut deliveries = new_node();
    look(&mut deliveries, &commits, &[2, 3]);
    deliveries.loss(seconds(0));
    let loss = deliveries.loss(seconds(10)).unwrap();
    assert_eq!((loss.first, loss.count, loss.piece), (2, 2, Piece::Window(Window::ALL)));
}

#[test]
fn what_was_read_long_before_a_gap_is_not_read_again() {
    let at = |day: i64| Some(Micros(day));
    let first = Portion { until: at(1), ..portion("first", 5, 0, 5) };
    let poll = |number: u64| {
        let job = format!("poll {number}");
        Portion { after: at(number as i64), ..portion(&job, 5, 0, 5) }
    };
    let polls: Vec<Portion> = std::iter::once(first).chain((1..1_000).map(poll)).collect();
    let commits = commits(&polls);
    let piece = |lost: &[u64]| {
        let mut deliveries = new_node();
        deliveries.load(vec![commits[lost[0] as usize - 2].clone()], true);
        look(&mut deliveries, &commits, lost);
        deliveries.loss(seconds(0));
        deliveries.loss(seconds(10)).unwrap().piece
    };
    let Piece::Window(Window { after: Some(after), until: None }) = piece(&[990, 991, 992]) else { panic!() };
    assert!((Micros(500)..Micros(990)).contains(&after), "{after:?}");
}

#[test]
fn what_comes_late_is_no_loss() {
    let commits = two_results();
    let mut deliveries = new_node();
    look(&mut deliveries, &commits, &[2]);
    assert_eq!(deliveries.loss(seconds(0)), None);
    assert_eq!(deliveries.loss(seconds(9)), None);
    look(&mut deliveries, &commits, &[]);
    assert_eq!(deliveries.loss(seconds(60)), None);
}

#[test]
fn a_number_that_no_commit_got_is_no_loss() {
    let mut commits = two_results();
    for commit in &mut commits[2..] {
        commit.number += 1;
    }
    assert_eq!(read_again(&commits, &[]), []);
}

#[test]
fn a_result_that_is_gone_is_queried_again_and_what_cannot_be_had_is_tried_seldom() {
    let commits = two_results();
    let mut deliveries = new_node();
    look(&mut deliveries, &commits, &[2]);
    deliveries.loss(seconds(0));
    let loss = deliveries.loss(seconds(10)).unwrap();
    deliveries.attempt(&loss.owner, seconds(10));
    assert_eq!(deliveries.loss(seconds(69)), None);
    deliveries.lose_result(&loss.owner);
    let again = deliveries.loss(seconds(69)).unwrap();
    assert_eq!(again.piece, Piece::Window(Window { after: None, until: None }));
    deliveries.attempt(&again.owner, seconds(69));
    assert_eq!(deliveries.loss(seconds(188)), None);
    assert!(deliveries.loss(seconds(189)).is_some());
}

#[test]
fn lost_rows_get_a_time_of_writing_before_which_nothing_later_was_written() {
    let commits = two_results();
    let mut deliveries = new_node();
    look(&mut deliveries, &commits, &[2, 3]);
    deliveries.loss(seconds(0));
    let loss = deliveries.loss(seconds(10)).unwrap();
    assert_eq!(loss.stamp, Some(Micros(1)));
}

#[test]
fn what_was_mended_is_not_read_again_after_a_restart() {
    let commits = two_results();
    let mut deliveries = new_node();
    look(&mut deliveries, &commits, &[2]);
    deliveries.loss(seconds(0));
    let proof = deliveries.loss(seconds(10)).unwrap().proof();
    let mut restarted = new_node();
    restarted.load(vec![proof], true);
    look(&mut restarted, &commits, &[2]);
    restarted.loss(seconds(0));
    assert_eq!(restarted.loss(seconds(10)), None);
}

/// A node that has seen the first hundred of many commits, and returns.
fn returned(commits: &[Commit]) -> Deliveries {
    let mut deliveries = new_node();
    look(&mut deliveries, &commits[..100], &[]);
    let mut kept = |second| deliveries.proofs(seconds(second));
    assert_eq!(kept(0), []);
    let proofs = kept(1);
    assert_eq!(proofs.iter().map(|proof| proof.number).collect::<Vec<_>>(), [100]);
    assert_eq!(kept(2), []);
    let mut deliveries = new_node();
    deliveries.load(proofs, true);
    deliveries
}

fn loss_after_a_while(deliveries: &mut Deliveries) -> Option<(u64, u64)> {
    deliveries.loss(seconds(0));
    deliveries.loss(seconds(10)).map(|loss| (loss.first, loss.count))
}

fn many_commits() -> Vec<Commit> {
    let portions: Vec<Portion> = (0..2_000).map(|at| portion("one", 20_000, at * 10, at * 10 + 10)).collect();
    commits(&portions)
}

#[test]
fn a_node_that_was_away_for_long_misses_what_did_not_arrive_and_nothing_else() {
    let commits = many_commits();
    let mut deliveries = returned(&commits);
    look(&mut deliveries, &commits, &[]);
    assert_eq!(loss_after_a_while(&mut deliveries), None);
    let mut deliveries = returned(&commits);
    look(&mut deliveries, &commits, &[1_500]);
    assert_eq!(loss_after_a_while(&mut deliveries), Some((1_500, 1)));
}

#[test]
fn a_node_that_was_away_misses_what_was_overwritten_meanwhile_and_a_new_one_does_not() {
    let commits = many_commits();
    let overwritten: Vec<u64> = (1..1_745).collect();
    let mut deliveries = returned(&commits);
    look(&mut deliveries, &commits, &overwritten);
    assert_eq!(loss_after_a_while(&mut deliveries), Some((101, 1_744 - 100)));
    let mut new = new_node();
    look(&mut new, &commits, &overwritten);
    assert_eq!(loss_after_a_while(&mut new), None);
    let mut new = new_node();
    look(&mut new, &commits, &[1_800]);
    assert_eq!(loss_after_a_while(&mut new), Some((1_800, 1)));
}

#[test]
fn nothing_counts_as_lost_that_was_not_looked_for_yet() {
    let portions: Vec<Portion> = (0..3_000).map(|at| portion("one", 3_000, at, at + 1)).collect();
    let commits = commits(&portions);
    let mut deliveries = returned(&commits);
    let wanted = deliveries.wanted(commits.last().cloned().into_iter().collect());
    let arrived: Vec<Commit> = commits[100..].iter().take(wanted.len()).cloned().collect();
    assert!(arrived.last().unwrap().number < 3_000);
    deliveries.take(arrived, seconds(0));
    assert_eq!(loss_after_a_while(&mut deliveries), None);
}

#[test]
fn a_node_keeps_what_it_trusts_every_few_seconds() {
    let commits = many_commits();
    let mut deliveries = new_node();
    let mut kept = |until: usize, second| {
        look(&mut deliveries, &commits[..until], &[]);
        deliveries.proofs(seconds(second)).iter().map(|proof| proof.number).collect::<Vec<_>>()
    };
    assert_eq!(kept(0, 0), [] as [u64; 0]);
    // What has just arrived is kept at the next look: a node that is ending may look as well.
    assert_eq!((kept(1, 1), kept(2, 2)), (vec![], vec![1]));
    assert_eq!((kept(3, 3), kept(4, 4), kept(5, 7), kept(5, 8)), (vec![], vec![], vec![4], vec![]));
    assert_eq!(kept(5, 12), [5]);
}

#[test]
fn a_node_trusts_nothing_of_its_former_life_but_what_it_kept() {
    let commits = two_results();
    let former = |commit: &Commit| Commit { is_former: commit.number <= 3, ..commit.clone() };
    let all: Vec<Commit> = commits.iter().map(former).collect();
    let lost = |proofs: Vec<Commit>, has_former_life| {
        let mut deliveries = Deliveries::default();
        deliveries.load(proofs, has_former_life);
        look(&mut deliveries, &all, &[]);
        loss_after_a_while(&mut deliveries)
    };
    assert_eq!(lost(vec![commits[0].clone()], true), Some((2, 2)));
    assert_eq!(lost(Vec::new(), true), Some((1, 3)));
    // What it has in its first life is a copy of another node's rows.
    assert_eq!(lost(Vec::new(), false), None);
}

/// The losses that a node mends at once after ten seconds, as first number and count.
fn losses_at_once(lost: &[u64], is_keyless: bool) -> Vec<(u64, u64)> {
    let commits = many_commits();
    let mut deliveries = returned(&commits);
    deliveries.know_key(is_keyless);
    look(&mut deliveries, &commits, lost);
    deliveries.loss(seconds(0));
    let next = || {
        let loss = deliveries.loss(seconds(10))?;
        deliveries.mended(&loss);
        Some((loss.first, loss.count))
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn several_losses_are_mended_without_a_pause_and_near_ones_of_rows_without_key_as_one() {
    let lost = [150, 200, 201, 230, 1_000, 2_000];
    assert_eq!(losses_at_once(&lost, true), [(150, 81), (1_000, 1), (2_000, 1)]);
    assert_eq!(losses_at_once(&lost, false), [(150, 1), (200, 2), (230, 1), (1_000, 1), (2_000, 1)]);
}

#[test]
fn a_worker_that_reads_its_window_anew_is_no_reason_to_read_the_former_result_to_its_end() {
    let commits =
        commits(&[portion("one", 30, 0, 10), portion("two", 30, 0, 10), portion("two", 30, 10, 20)]);
    assert_eq!(read_again(&commits, &[2]), [rows("two", 0, 10)]);
}

#[test]
fn nothing_is_looked_for_before_it_is_known_what_the_node_keeps() {
    let commits = two_results();
    let mut deliveries = Deliveries::default();
    assert_eq!(deliveries.wanted(commits.clone()), []);
    deliveries.load(Vec::new(), false);
    assert!(!deliveries.wanted(commits).is_empty());
}

#[test]
fn doubt_lasts_from_the_first_window_that_it_was_cast_on_until_it_is_dispelled() {
    let mut outbox = Outbox::default();
    let commit = |outbox: &mut Outbox, after: i64, is_in_doubt: bool| {
        let rows = Portion { after: Some(seconds(after)), ..portion("one", 30, 0, 10) };
        let commit = outbox.next("t", OWNER.to_owned(), None, rows, is_in_doubt, false);
        outbox.made(commit.clone(), Micros(0));
        commit.doubt.map(|doubt| (doubt.number, doubt.after))
    };
    assert_eq!(commit(&mut outbox, 10, false), None);
    assert_eq!(commit(&mut outbox, 20, true), Some((2, Some(seconds(20)))));
    assert_eq!(commit(&mut outbox, 30, false), Some((2, Some(seconds(20)))));
    assert_eq!(commit(&mut outbox, 30, true), Some((4, Some(seconds(20)))));
    outbox.dispel_doubt();
    assert_eq!(commit(&mut outbox, 40, false), None);
    assert_eq!(commit(&mut outbox, 50, true), Some((6, Some(seconds(50)))));
}

#[test]
fn the_last_commit_of_a_life_before_is_told_of_again() {
    let last = two_results().pop();
    let mut outbox = Outbox::default();
    outbox.load(last.clone(), None, 0, seconds(0));
    assert_eq!(outbox.closes_in_ms(seconds(5)), Some(0));
    outbox.close();
    outbox.load(last, None, 0, seconds(10));
    assert_eq!(outbox.closes_in_ms(seconds(10)), Some(50_000));
}

#[test]
fn a_mending_that_was_interrupted_becomes_a_doubt_of_the_next_life() {
    let head = |outbox: &Outbox| outbox.head("t", OWNER.to_owned());
    let mut outbox = Outbox::default();
    outbox.load(None, None, 1, seconds(0));
    assert_eq!(head(&outbox), None);
    outbox.mend(seconds(10), Some(seconds(1)), 1);
    outbox.mend(seconds(11), Some(seconds(1)), 1);
    let told = head(&outbox).unwrap();
    let mending = Some(Doubt { number: 10_000_000, after: Some(seconds(1)) });
    assert_eq!((told.number, told.mending, told.doubt), (0, mending, None));
    // Whoever writes later has to take a later time.
    assert_eq!(told.stamp, Some(seconds(11)));
    for _restart in 0..2 {
        let told_before = head(&outbox).unwrap();
        outbox = Outbox::default();
        outbox.load(None, Some(&told_before), 1, seconds(40));
        assert_eq!(outbox.doubt(), mending);
        let told = head(&outbox).unwrap();
        assert_eq!((told.mending, told.doubt, told.stamp), (None, mending, Some(seconds(11))));
    }
}

#[test]
fn a_mending_is_told_until_it_is_known_whether_the_ids_were_those_of_a_former_era() {
    for (era, is_in_doubt) in [(1, false), (2, true)] {
        let mut outbox = Outbox::default();
        outbox.mend(seconds(10), Some(seconds(1)), 1);
        let told = outbox.head("t", OWNER.to_owned()).unwrap();
        outbox.mended(seconds(30));
        outbox.load(None, Some(&told), 1, seconds(89));
        assert_eq!((outbox.doubt(), outbox.closes_in_ms(seconds(89))), (None, None));
        assert!(outbox.head("t", OWNER.to_owned()).unwrap().mending.is_some());
        outbox.load(None, Some(&told), era, seconds(90));
        assert_eq!(
            (outbox.doubt(), outbox.closes_in_ms(seconds(90))),
            (told.mending.filter(|_| is_in_doubt), Some(5_000))
        );
        assert_eq!(outbox.head("t", OWNER.to_owned()).unwrap().mending, None);
    }
}

#[test]
fn what_a_worker_was_mending_that_is_gone_is_in_doubt_with_whatever_else_was() {
    let doubt = |number, after| Some(Doubt { number, after: Some(seconds(after)) });
    let mut commit =
        Commit { doubt: doubt(1, 5), mending: doubt(2, 7), ..Commit::none("t", OWNER.to_owned()) };
    commit.end();
    assert_eq!((commit.doubt, commit.mending), (doubt(2, 5), None));
    commit.end();
    assert_eq!(commit.doubt, doubt(2, 5));
}
