//! The schedule, without measuring: runs of a mock that take ten milliseconds of a mock clock.

use super::*;
use crate::plan::tests::comparison;
use heaplab_reports::stats;
use serde_json::json;
use std::cell::Cell;

/// Ten milliseconds a run; subject 1 fails in block 1 where asked to.
struct Mock<'a> {
    now: &'a Cell<u64>,
    fails: bool,
    noisy: bool,
    runs: Vec<Item>,
}

impl Executor for Mock<'_> {
    fn run(&mut self, item: &Item) -> Result<Value, String> {
        self.now.set(self.now.get() + 10);
        self.runs.push(*item);
        if self.fails && item.subject == 1 && item.block == 1 {
            return Err("overlapping blocks at op 5".into());
        }
        let wobble: f64 = if self.noisy {
            [1.0, 2.0, 0.5, 3.0][item.block as usize % 4]
        } else {
            1.0
        };
        Ok(json!({"value": (item.subject + 1) as f64 * wobble.powi(item.subject as i32)}))
    }
    fn calibrate(&mut self, _: usize) -> Option<Result<Value, String>> {
        Some(Ok(json!({"value": 1.0})))
    }
    fn figure(&self, _: usize, _: Kind, answer: &Value) -> Option<f64> {
        answer["value"].as_f64()
    }
}

fn drive(
    mock: &mut Mock<'_>,
    repetition: Repetition,
    done: Vec<RunLine>,
    stop: &dyn Fn() -> bool,
) -> Driven {
    let comparisons = [
        comparison("a", &[Kind::Speed, Kind::Memory]),
        comparison("b", &[Kind::Speed]),
    ];
    let subjects = ["system".to_string(), "x".to_string()];
    let now = mock.now;
    Drive {
        comparisons: &comparisons,
        subjects: &subjects,
        baseline: Some(0),
        seed: 7,
        repetition,
        least_blocks: LEAST_BLOCKS,
        done,
        stop,
        clock: &|| Duration::from_millis(now.get()),
        progress: &Progress::none(),
    }
    .go(mock, &mut |_| Ok(()))
    .map_err(|(_, e)| e)
    .unwrap()
}

fn mock(now: &Cell<u64>) -> Mock<'_> {
    Mock {
        now,
        fails: false,
        noisy: false,
        runs: Vec::new(),
    }
}

#[test]
fn exact_blocks_run_every_subject_in_every_stream() {
    let now = Cell::new(0);
    let mut m = mock(&now);
    let driven = drive(&mut m, Repetition::Blocks(4), Vec::new(), &|| false);
    assert!(driven.complete);
    assert_eq!(m.runs.len(), 3 * 2 * 4);
    assert_eq!(
        driven.lines.iter().filter(|l| l.subject == NULL).count(),
        2 * 3
    );
}

#[test]
fn a_failed_subject_is_not_run_again_and_the_other_completes() {
    let now = Cell::new(0);
    let mut m = Mock {
        fails: true,
        ..mock(&now)
    };
    let driven = drive(&mut m, Repetition::Blocks(4), Vec::new(), &|| false);
    let of = |s: &str| driven.lines.iter().filter(|l| l.subject == s).count();
    assert_eq!(of("system"), 12);
    assert!(of("x") < 12);
    assert_eq!(
        driven
            .lines
            .iter()
            .filter(|l| l.status == Status::Failed)
            .count(),
        2,
        "one for each comparison"
    );
}

#[test]
fn a_budget_stops_when_narrow_and_never_before_the_least() {
    let now = Cell::new(0);
    let mut m = mock(&now);
    drive(
        &mut m,
        Repetition::Budget(Duration::from_secs(3600)),
        Vec::new(),
        &|| false,
    );
    assert_eq!(
        m.runs.len(),
        3 * 2 * stats::MIN_BLOCKS,
        "steady figures need no more than an interval needs"
    );
    let now = Cell::new(0);
    let mut m = Mock {
        noisy: true,
        ..mock(&now)
    };
    drive(
        &mut m,
        Repetition::Budget(Duration::ZERO),
        Vec::new(),
        &|| false,
    );
    assert_eq!(m.runs.len(), 3 * 2 * LEAST_BLOCKS as usize);
    let now = Cell::new(0);
    let mut m = Mock {
        noisy: true,
        ..mock(&now)
    };
    drive(
        &mut m,
        Repetition::Budget(Duration::from_millis(1000)),
        Vec::new(),
        &|| false,
    );
    assert!(
        m.runs.len() > 60 && now.get() <= 1000,
        "{} runs in {} ms",
        m.runs.len(),
        now.get()
    );
}

#[test]
fn a_budget_that_nobody_asked_for_is_exceeded_for_an_interval() {
    let blocks = |repetition| {
        let now = Cell::new(0);
        let mut m = Mock {
            noisy: true,
            ..mock(&now)
        };
        drive(&mut m, repetition, Vec::new(), &|| false);
        (m.runs.len(), now.get())
    };
    let (all, taken) = blocks(Repetition::Blocks(stats::MIN_BLOCKS as u32));
    let time = |share: f64| Duration::from_millis(taken).mul_f64(share);
    assert!(blocks(Repetition::Budget(time(0.8))).0 < all);
    assert_eq!(blocks(Repetition::Usual(time(0.8))).0, all);
    let (few, taken_then) = blocks(Repetition::Usual(time(0.4)));
    assert!(
        few < all && u128::from(taken_then) <= time(0.8).as_millis(),
        "{few} runs in {taken_then} ms"
    );
}

#[test]
fn a_resumed_session_makes_only_the_missing_runs() {
    let now = Cell::new(0);
    let mut first = mock(&now);
    let stop = Cell::new(0_u32);
    let part = drive(&mut first, Repetition::Blocks(3), Vec::new(), &|| {
        stop.set(stop.get() + 1);
        stop.get() > 9
    });
    assert!(!part.complete);
    let kept = part.lines.len();
    let mut second = mock(&now);
    let whole = drive(
        &mut second,
        Repetition::Blocks(3),
        part.lines.clone(),
        &|| false,
    );
    let mut third = mock(&now);
    let fresh = drive(&mut third, Repetition::Blocks(3), Vec::new(), &|| false);
    assert_eq!(first.runs.len() + second.runs.len(), third.runs.len());
    assert_eq!(whole.lines.len(), fresh.lines.len());
    assert_eq!(whole.lines[..kept], part.lines[..]);
    let order = |d: &Driven| {
        d.lines
            .iter()
            .map(|l| format!("{l:?}"))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(
        order(&whole),
        order(&fresh),
        "the same runs in the same blocks and positions"
    );
}

#[test]
fn a_journal_that_cannot_be_written_ends_the_session() {
    let now = Cell::new(0);
    let mut m = mock(&now);
    let comparisons = [comparison("a", &[Kind::Speed])];
    let subjects = ["system".to_string()];
    let mut room = 2;
    let result = Drive {
        comparisons: &comparisons,
        subjects: &subjects,
        baseline: Some(0),
        seed: 1,
        repetition: Repetition::Blocks(9),
        least_blocks: LEAST_BLOCKS,
        done: Vec::new(),
        stop: &|| false,
        clock: &|| Duration::ZERO,
        progress: &Progress::none(),
    }
    .go(&mut m, &mut |_| {
        room -= 1;
        if room < 0 {
            Err(Error::environment("full"))
        } else {
            Ok(())
        }
    });
    let (driven, error) = result.unwrap_err();
    assert_eq!((driven.lines.len(), error.code()), (2, 3));
    assert!(!driven.complete);
}
