//! Drives a plan: blocks are added round by round until there are enough or the time is used up, every finished run is
//! written down at once, and a subject that fails is not run again while the others go on.
//!
//! What a run is made of is behind [`Executor`]; time is handed in, so that the schedule is tested without measuring.

use crate::error::Error;
use crate::plan::{self, Comparison, Item, Kind};
use crate::progress::Progress;
use heaplab_reports::schema::{RunLine, Sample, Status};
use heaplab_reports::stats;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// Blocks that a budget always buys, so that at least a range can be shown.
pub const LEAST_BLOCKS: u32 = 3;
/// No stream grows beyond this; what has not settled by then will not.
pub const MOST_BLOCKS: u32 = 60;
/// Half the width of a paired interval that counts as narrow: speed and programs, memory and counts.
const NARROW_TIME: f64 = 0.02;
const NARROW_BYTES: f64 = 0.01;
/// The harness's own cost is measured in this many blocks of each comparison.
const CALIBRATION_BLOCKS: u32 = 3;

/// When there are enough blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Repetition {
    /// Exactly so many.
    Blocks(u32),
    /// Until intervals are narrow or the time is used up.
    Budget(Duration),
}

/// Makes one run.
pub trait Executor {
    /// Runs `item`; the answer is what goes into `runs.jsonl`, an error is the reason of a failed row.
    ///
    /// # Errors
    /// One lower-case sentence.
    fn run(&mut self, item: &Item) -> Result<Value, String>;

    /// These runs, all of the same kind [`Kind::Idle`], are asked for next, one by one: they mostly sleep, so they may be
    /// made together.
    fn ahead(&mut self, items: &[Item]) {
        let _ = items;
    }

    /// Runs the null allocator on a comparison (measure speed). `None`: this plan needs none.
    fn calibrate(&mut self, comparison: usize) -> Option<Result<Value, String>>;

    /// The figure by which the stream of `kind` is judged narrow, from a run's answer.
    fn figure(&self, comparison: usize, kind: Kind, answer: &Value) -> Option<f64>;
}

/// Everything the engine needs beside the executor.
pub struct Drive<'a> {
    /// Comparisons of the plan.
    pub comparisons: &'a [Comparison],
    /// Labels of the subjects.
    pub subjects: &'a [String],
    /// Subject that ratios are taken against, where it takes part.
    pub baseline: Option<usize>,
    /// Seed of the order.
    pub seed: u64,
    /// How often.
    pub repetition: Repetition,
    /// Blocks that a budget always buys, at least [`LEAST_BLOCKS`] to show a range.
    pub least_blocks: u32,
    /// Runs that are finished already (a resumed session).
    pub done: Vec<RunLine>,
    /// Whether an orderly end was asked for.
    pub stop: &'a dyn Fn() -> bool,
    /// Time since the start.
    pub clock: &'a dyn Fn() -> Duration,
    /// Display.
    pub progress: &'a Progress,
}

/// What came out.
#[derive(Debug)]
pub struct Driven {
    /// Every run, the earlier ones of a resumed session included.
    pub lines: Vec<RunLine>,
    /// The plan was finished.
    pub complete: bool,
}

/// Label of calibration runs in `runs.jsonl`.
pub const NULL: &str = "null";

struct Stream {
    comparison: usize,
    kind: Kind,
    blocks: u32,
    cost: Duration,
    /// Figures by subject, for the width of the intervals.
    samples: Vec<Vec<Sample>>,
}

impl Drive<'_> {
    /// Runs the plan; `write` is called with every finished run.
    ///
    /// # Errors
    /// Only what `write` reports: when results cannot be kept there is no sense in measuring on. The runs before are
    /// on disk.
    pub fn go(
        mut self,
        executor: &mut dyn Executor,
        write: &mut dyn FnMut(&RunLine) -> Result<(), Error>,
    ) -> Result<Driven, (Driven, Error)> {
        let mut lines = std::mem::take(&mut self.done);
        let outcome = self.rounds(executor, write, &mut lines);
        self.progress.clear();
        match outcome {
            Ok(complete) => Ok(Driven { lines, complete }),
            Err(error) => Err((
                Driven {
                    lines,
                    complete: false,
                },
                error,
            )),
        }
    }

    fn rounds(
        &self,
        executor: &mut dyn Executor,
        write: &mut dyn FnMut(&RunLine) -> Result<(), Error>,
        lines: &mut Vec<RunLine>,
    ) -> Result<bool, Error> {
        let mut streams: Vec<Stream> = (self.comparisons.iter().enumerate())
            .flat_map(|(comparison, c)| c.kinds.iter().map(move |kind| (comparison, *kind)))
            .map(|(comparison, kind)| Stream {
                comparison,
                kind,
                blocks: 0,
                cost: Duration::ZERO,
                samples: vec![Vec::new(); self.subjects.len()],
            })
            .collect();
        let mut finished: HashMap<(usize, Kind, u32, String), usize> = HashMap::new();
        let mut failed = vec![vec![false; self.subjects.len()]; self.comparisons.len()];
        for (at, line) in lines.iter().enumerate() {
            let Some(comparison) = self.comparisons.iter().position(|c| c.owns(line)) else {
                continue;
            };
            let kinds = &self.comparisons[comparison].kinds;
            let Some(kind) = kinds.iter().copied().find(|k| k.name() == line.measure) else {
                continue;
            };
            finished.insert((comparison, kind, line.block, line.subject.clone()), at);
        }
        for round in 0.. {
            let due = self.due(&mut streams, round);
            if due.is_empty() {
                return Ok(true);
            }
            self.progress.expect(self.expected(&streams, &due));
            // What mostly sleeps comes last, all at a time.
            let (idle, mut due): (Vec<usize>, Vec<usize>) =
                (due.into_iter()).partition(|at| streams[*at].kind == Kind::Idle);
            let first_idle = due.len();
            due.extend(idle);
            for (place, at) in due.iter().copied().enumerate() {
                if place == first_idle && !(self.stop)() {
                    let missing = self.idle_items(&streams, &due[place..], &finished, &failed);
                    self.progress.started("idle tails");
                    executor.ahead(&missing);
                }
                let stream = &mut streams[at];
                let comparison = &self.comparisons[stream.comparison];
                let began = (self.clock)();
                let items = plan::block(
                    self.seed,
                    stream.comparison,
                    comparison,
                    stream.kind,
                    stream.blocks,
                    self.subjects.len(),
                );
                for item in items {
                    if (self.stop)() {
                        return Ok(false);
                    }
                    let label = &self.subjects[item.subject];
                    let key = (item.comparison, item.kind, item.block, label.clone());
                    let line = match finished.get(&key) {
                        Some(at) => lines[*at].clone(),
                        None if failed[item.comparison][item.subject] => continue,
                        None => {
                            let title =
                                format!("{} {} {label}", comparison.title(), item.kind.name());
                            self.progress.started(&title);
                            let result = executor.run(&item);
                            // A run that Ctrl-C ended says nothing about the subject.
                            if (self.stop)() && result.is_err() {
                                return Ok(false);
                            }
                            let line = self.line(&item, label, result);
                            self.progress.finished(&summary(&title, &line));
                            write(&line)?;
                            lines.push(line.clone());
                            line
                        }
                    };
                    if line.status == Status::Failed {
                        failed[item.comparison][item.subject] = true;
                    } else if let Some(value) =
                        executor.figure(item.comparison, item.kind, &line.answer)
                    {
                        stream.samples[item.subject].push(Sample {
                            block: item.block,
                            order: line.order,
                            value,
                        });
                    }
                }
                let null_key = (
                    stream.comparison,
                    stream.kind,
                    stream.blocks,
                    NULL.to_string(),
                );
                if stream.kind == Kind::Speed
                    && stream.blocks < CALIBRATION_BLOCKS
                    && !finished.contains_key(&null_key)
                {
                    if (self.stop)() {
                        return Ok(false);
                    }
                    let title = format!("{} {NULL}", comparison.title());
                    self.progress.started(&title);
                    if let Some(result) = executor.calibrate(stream.comparison) {
                        let item = Item {
                            comparison: stream.comparison,
                            subject: usize::MAX,
                            kind: Kind::Speed,
                            block: stream.blocks,
                            order: self.subjects.len() as u32,
                        };
                        if (self.stop)() && result.is_err() {
                            return Ok(false);
                        }
                        let line = self.line(&item, NULL, result);
                        self.progress.finished(&summary(&title, &line));
                        write(&line)?;
                        lines.push(line);
                    }
                }
                stream.cost = stream.cost.max((self.clock)().saturating_sub(began));
                stream.blocks += 1;
            }
        }
        Ok(true)
    }

    /// The runs of the streams of idle tails that are still to be made.
    fn idle_items(
        &self,
        streams: &[Stream],
        due: &[usize],
        finished: &HashMap<(usize, Kind, u32, String), usize>,
        failed: &[Vec<bool>],
    ) -> Vec<Item> {
        due.iter()
            .map(|at| &streams[*at])
            .flat_map(|stream| {
                let comparison = &self.comparisons[stream.comparison];
                let count = self.subjects.len();
                let (kind, at) = (stream.kind, stream.comparison);
                plan::block(self.seed, at, comparison, kind, stream.blocks, count)
            })
            .filter(|item| {
                let label = self.subjects[item.subject].clone();
                !finished.contains_key(&(item.comparison, item.kind, item.block, label))
                    && !failed[item.comparison][item.subject]
            })
            .collect()
    }

    /// The streams that get another block in this round, in random order.
    fn due(&self, streams: &mut [Stream], round: u32) -> Vec<usize> {
        let mut due: Vec<usize> = match self.repetition {
            Repetition::Blocks(n) => (0..streams.len())
                .filter(|i| streams[*i].blocks < self.blocks_of(&streams[*i], n))
                .collect(),
            Repetition::Budget(limit) => {
                let mut wanting: Vec<usize> = (0..streams.len())
                    .filter(|i| self.wants(&streams[*i]))
                    .collect();
                // Those with the fewest blocks first; of equals, speed first: it needs the most blocks.
                wanting.sort_by_key(|i| (streams[*i].blocks, streams[*i].kind, *i));
                let mut time = (self.clock)();
                wanting.retain(|i| {
                    let least = self.blocks_of(&streams[*i], self.least_blocks);
                    let fits = streams[*i].blocks < least || time + streams[*i].cost <= limit;
                    if fits {
                        time += streams[*i].cost;
                    }
                    fits
                });
                wanting
            }
        };
        plan::shuffle_round(self.seed, round, &mut due);
        due
    }

    /// How many blocks of a stream `wanted` are: a tail is looked at once.
    fn blocks_of(&self, stream: &Stream, wanted: u32) -> u32 {
        match stream.kind {
            Kind::Idle => wanted.min(1),
            _ => wanted,
        }
    }

    fn wants(&self, stream: &Stream) -> bool {
        if stream.blocks < self.blocks_of(stream, self.least_blocks) {
            return true;
        }
        let limit = match stream.kind {
            Kind::Idle => return false,
            // Histograms of three blocks hold more calls than any percentile needs.
            Kind::Latency => return false,
            Kind::Speed | Kind::Program => NARROW_TIME,
            Kind::Memory | Kind::Counts => NARROW_BYTES,
        };
        stream.blocks < MOST_BLOCKS && !self.narrow(stream, limit)
    }

    /// Whether every subject's interval is narrow: of the ratio to the baseline where there is one, else of its own
    /// median. Subjects without figures (failed) do not hold up the others.
    fn narrow(&self, stream: &Stream, limit: f64) -> bool {
        let base = self
            .baseline
            .map(|b| &stream.samples[b])
            .filter(|b| !b.is_empty());
        stream
            .samples
            .iter()
            .enumerate()
            .filter(|(_, s)| !s.is_empty())
            .all(|(at, samples)| match base {
                Some(base) if self.baseline != Some(at) => stats::paired_ratio(samples, base)
                    .and_then(|r| stats::detectable(&r))
                    .is_some_and(|width| width <= limit),
                Some(_) if stream.samples.iter().filter(|s| !s.is_empty()).count() > 1 => true,
                _ => stats::summarise(samples).is_some_and(|i| {
                    samples.len() >= stats::MIN_BLOCKS
                        && (i.high - i.low) / 2.0 <= limit * i.median.abs()
                }),
            })
    }

    fn expected(&self, streams: &[Stream], due: &[usize]) -> u64 {
        let so_far: u64 = streams.iter().map(|s| u64::from(s.blocks)).sum();
        let to_come = match self.repetition {
            Repetition::Blocks(n) => streams
                .iter()
                .map(|s| u64::from(self.blocks_of(s, n).saturating_sub(s.blocks)))
                .sum(),
            Repetition::Budget(_) => {
                let least: u64 = streams
                    .iter()
                    .map(|s| {
                        let least = self.blocks_of(s, self.least_blocks);
                        u64::from(least.saturating_sub(s.blocks))
                    })
                    .sum();
                least.max(due.len() as u64)
            }
        };
        (so_far + to_come) * self.subjects.len() as u64
    }

    fn line(&self, item: &Item, label: &str, result: Result<Value, String>) -> RunLine {
        let comparison = &self.comparisons[item.comparison];
        let (status, reason, answer) = match result {
            Ok(answer) => (Status::Ok, None, answer),
            Err(reason) => (Status::Failed, Some(reason), Value::Null),
        };
        RunLine {
            workload: comparison.workload.clone(),
            subject: label.to_string(),
            measure: item.kind.name().into(),
            block: item.block,
            order: item.order,
            api: comparison.api_name().into(),
            threads: comparison.threads,
            workload_hash: comparison.hash.clone(),
            status,
            reason,
            answer,
        }
    }
}

fn summary(title: &str, line: &RunLine) -> String {
    match &line.reason {
        Some(reason) => format!("block {} {title}: FAILED {reason}", line.block),
        None => format!("block {} {title}: done", line.block),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::comparison;
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
}
