//! Drives a plan: blocks are added round by round until there are enough or the time is used up, every finished run is
//! written down at once, and a subject that fails is not run again while the others go on.
//!
//! What a run is made of is behind [`Executor`]; time is handed in, so that the schedule is tested without measuring.

mod schedule;

use crate::error::Error;
use crate::plan::{self, Comparison, Item, Kind};
use crate::progress::Progress;
use heaplab_reports::schema::{RunLine, Sample, Status};
use schedule::Stream;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

pub use schedule::MOST_BLOCKS;

/// Blocks that a budget always buys, so that at least a range can be shown.
pub const LEAST_BLOCKS: u32 = 3;
/// The harness's own cost is measured in this many blocks of each comparison.
const CALIBRATION_BLOCKS: u32 = 3;

/// When there are enough blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Repetition {
    /// Exactly so many.
    Blocks(u32),
    /// Until intervals are narrow or the time is used up.
    Budget(Duration),
    /// A budget that nobody asked for: it is exceeded, up to [`Repetition::STRETCH`] times, where it buys too few blocks for an interval,
    /// as without one no difference is claimed and the whole time was for nothing.
    Usual(Duration),
}

impl Repetition {
    /// See [`Repetition::Usual`].
    pub const STRETCH: u32 = 2;

    /// A budget that was asked for or not.
    pub fn within(asked: Option<Duration>, usual: Duration) -> Self {
        asked.map_or(Self::Usual(usual), Self::Budget)
    }
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
mod tests;
