//! How long a measurement will take, said before it begins: all of it, and replays in the script's order, which are the dear ones.

use crate::engine::{LEAST_BLOCKS, MOST_BLOCKS, Repetition};
use crate::out::Terminal;
use crate::plan::{Comparison, Kind};
use crate::replays;
use heaplab_reports::stats;
use heaplab_worker::protocol::{Mode, Touch};
use std::time::Duration;

/// What a replay in the script's order costs, nanoseconds: a call with its checks, and a change of the thread (measured
/// on a virtual machine of 2 CPUs: 0.25 and 4 µs).
const ORDERED_CALL_NS: u64 = 250;
const SWITCH_NS: u64 = 4_000;
/// A call of a free replay, and one whose time is taken, nanoseconds: the mean of four allocators on all workloads.
const CALL_NS: u64 = 30;
const TIMED_CALL_NS: u64 = 90;
/// Starting a thread and waiting for its end, nanoseconds.
const THREAD_NS: u64 = 20_000;
/// Starting a worker, and what lies between two runs.
const START: Duration = Duration::from_millis(120);
/// Idle tails that pass together; each is followed by a trickle of the same length.
const TAILS_TOGETHER: u64 = 32;
/// Replays that are expected to take longer are announced.
const LONG: Duration = Duration::from_secs(3);

/// Mode and touch of a measure.
type Shape<'a> = &'a dyn Fn(Kind) -> (Mode, Touch);

/// Says how long the whole will take, and what replays in the script's order cost. Of programs nothing is known beforehand.
pub fn say(
    comparisons: &[Comparison],
    subjects: usize,
    shape: Shape<'_>,
    repetition: Repetition,
    idle: Duration,
    terminal: &Terminal,
) {
    if comparisons.iter().any(|comparison| comparison.program) {
        return;
    }
    let whole = whole(comparisons, subjects, shape, repetition, idle);
    if whole > LONG {
        let plural = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        terminal.say(&format!(
            "{}, {}: {} {}",
            plural(comparisons.len(), "workload"),
            plural(subjects, "allocator"),
            match repetition {
                Repetition::Blocks(_) => "about",
                Repetition::Budget(_) | Repetition::Usual(_) => "up to about",
            },
            words(whole)
        ));
    }
    ordered(comparisons, shape, terminal);
}

/// Says what a replay in the script's order costs where one is asked for: short ones only to those who want to know more.
pub fn ordered(comparisons: &[Comparison], shape: Shape<'_>, terminal: &Terminal) {
    for comparison in comparisons {
        let Some((expected, line)) = cost(comparison, shape) else {
            continue;
        };
        match expected > LONG {
            true => terminal.say(&line),
            false => terminal.detail(&line),
        }
    }
}

/// Time of one replay in the script's order, and the sentence that says it; nothing where there is none.
fn cost(comparison: &Comparison, shape: Shape<'_>) -> Option<(Duration, String)> {
    (comparison.kinds.iter()).find(|kind| shape(**kind).0 == Mode::Lockstep)?;
    let expected = lockstep(comparison);
    let order = match comparison.started_threads {
        1 => "in one thread".to_owned(),
        _ => format!("and {} changes of the thread", comparison.switches),
    };
    let line = format!(
        "{}: a replay in lockstep takes about {} ({} calls {order})",
        comparison.title(),
        words(expected),
        comparison.calls,
    );
    Some((expected, line))
}

/// The whole run. A budget is used up at most, less where the most blocks take less, and exceeded where the least
/// number of blocks takes longer.
fn whole(
    comparisons: &[Comparison],
    subjects: usize,
    shape: Shape<'_>,
    repetition: Repetition,
    idle: Duration,
) -> Duration {
    let subjects = subjects as u64;
    let block: Duration = (comparisons.iter())
        .flat_map(|comparison| comparison.kinds.iter().map(move |kind| (comparison, *kind)))
        .filter(|(_, kind)| *kind != Kind::Idle)
        .map(|(comparison, kind)| run(comparison, kind, shape(kind)) * subjects as u32)
        .sum();
    let tails = (comparisons.iter())
        .filter(|comparison| comparison.kinds.contains(&Kind::Idle))
        .count() as u64;
    let tails = idle * 2 * (tails * subjects).div_ceil(TAILS_TOGETHER) as u32;
    match repetition {
        Repetition::Blocks(blocks) => block * blocks + tails,
        Repetition::Budget(budget) => budget
            .min(block * MOST_BLOCKS + tails)
            .max(block * LEAST_BLOCKS + tails),
        Repetition::Usual(budget) => {
            let interval = block * stats::MIN_BLOCKS as u32 + tails;
            budget
                .max(interval.min(budget * Repetition::STRETCH))
                .min(block * MOST_BLOCKS + tails)
                .max(block * LEAST_BLOCKS + tails)
        }
    }
}

/// One run.
fn run(comparison: &Comparison, kind: Kind, shape: (Mode, Touch)) -> Duration {
    let repeats = replays::repeats(comparison, kind, shape);
    let replay = match (kind, shape.0) {
        (_, Mode::Lockstep) => lockstep(comparison),
        (Kind::Latency, _) => Duration::from_nanos(comparison.calls * TIMED_CALL_NS),
        _ => Duration::from_nanos(comparison.calls * CALL_NS) * repeats,
    };
    let threads =
        Duration::from_nanos(u64::from(comparison.started_threads.saturating_sub(1)) * THREAD_NS);
    START + replay + threads * repeats
}

/// One replay in lockstep.
fn lockstep(comparison: &Comparison) -> Duration {
    let switches = match comparison.started_threads {
        1 => 0,
        _ => comparison.switches,
    };
    Duration::from_nanos(
        (comparison.calls.saturating_mul(ORDERED_CALL_NS))
            .saturating_add(switches.saturating_mul(SWITCH_NS)),
    )
}

/// As people say it.
fn words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..100 => format!("{seconds} s"),
        seconds @ 100..6000 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::comparison;

    #[test]
    fn more_blocks_and_longer_orders_take_longer_and_a_budget_is_used_up() {
        let all = [comparison("churn", &[Kind::Speed, Kind::Memory])];
        let free = |_: Kind| (Mode::Fast, Touch::First);
        let blocks = |count| whole(&all, 2, &free, Repetition::Blocks(count), Duration::ZERO);
        assert!(blocks(1) >= START * 4);
        assert_eq!(blocks(6), blocks(1) * 6);
        let budget = |seconds| {
            let budget = Repetition::Budget(Duration::from_secs(seconds));
            whole(&all, 2, &free, budget, Duration::ZERO)
        };
        let most = blocks(MOST_BLOCKS);
        assert_eq!(budget(most.as_secs() - 1).as_secs(), most.as_secs() - 1);
        assert_eq!(budget(3600), most);
        assert_eq!(budget(0), blocks(LEAST_BLOCKS));
        let usual = |time| whole(&all, 2, &free, Repetition::Usual(time), Duration::ZERO);
        assert_eq!(usual(blocks(4)), blocks(6), "what an interval needs");
        assert_eq!(usual(blocks(2)), blocks(4), "twice the time at most");
        assert_eq!(usual(blocks(7)), blocks(7));
        let idle = [comparison("churn", &[Kind::Idle])];
        let tails = |subjects| {
            let once = Repetition::Blocks(8);
            whole(&idle, subjects, &free, once, Duration::from_secs(10)).as_secs()
        };
        assert_eq!((tails(4), tails(33)), (20, 40));
        assert_eq!(words(Duration::from_millis(89)), "89 ms");
        assert_eq!(words(Duration::from_secs(89)), "89 s");
        assert_eq!(words(Duration::from_secs(610)), "10 min");
        assert_eq!(words(Duration::from_secs(9000)), "2.5 h");
    }

    #[test]
    fn only_replays_in_the_scripts_order_have_a_cost_of_their_own() {
        let of = |kinds: &[Kind], switches| {
            let comparison = Comparison {
                calls: 4_000_000,
                switches,
                started_threads: 2,
                ..comparison("churn", kinds)
            };
            cost(&comparison, &|kind: Kind| {
                (kind.default_mode(), kind.default_touch())
            })
        };
        assert_eq!(of(&[Kind::Speed, Kind::Latency], 1_000_000), None);
        let (expected, line) = of(&[Kind::Speed, Kind::Memory], 1_000_000).unwrap();
        assert_eq!(expected, Duration::from_secs(5));
        assert_eq!(
            line,
            "churn t1: a replay in lockstep takes about 5 s (4000000 calls and 1000000 changes of the thread)"
        );
    }
}
