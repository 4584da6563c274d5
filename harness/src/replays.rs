//! Runs of the plan as replays in worker processes: what a run's specification is, and what is put into its answer.

use crate::assemble::{
    self, BASELINE_KEY, DISTURBANCE_KEY, HUGE_COLLAPSED_KEY, HUGE_REFUSED_KEY, IDLE_KEY,
};
use crate::counts;
use crate::disturbance::Watch;
use crate::engine::Executor;
use crate::exec::{self, Limits};
use crate::plan::{Comparison, Item, Kind};
use crate::subject::Subject;
use crate::tails::Tails;
use crate::{calibrate, huge_pages, tails};
use heaplab_script::file::Script;
use heaplab_worker::protocol::{Machine, Measure, Mode, RecordedClock, RunSpec, Thp, Touch};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Calls that a speed run should have in all, and of each of up to so many threads, so that starting it does not matter (waking a
/// thread takes some 10 µs); short scripts are repeated.
const SPEED_CALLS: u64 = 2_000_000;
const SPEED_CALLS_BY_THREAD: u64 = 500_000;
const AT_A_TIME: u32 = 16;
/// Threads that a speed run starts at most by being repeated: each takes some 20 µs, and a short script of thousands of threads would
/// else take minutes.
const SPEED_THREADS: u64 = 20_000;
/// Repetitions at most, and at most of those that write to every page: scripts of few calls have large blocks.
const MOST_REPEATS: u64 = 100;
const MOST_WRITING: u64 = 4;
/// Points of the memory curve.
const CURVE_POINTS: u32 = 240;

/// Makes replays.
pub struct Replays<'a> {
    /// Comparisons of the plan.
    pub comparisons: &'a [Comparison],
    /// Subjects of the plan.
    pub subjects: &'a [Subject],
    /// The null allocator; `None` where speed is not measured.
    pub null: Option<Subject>,
    /// Mode and touch of a measure.
    pub shape: &'a dyn Fn(Kind) -> (Mode, Touch),
    /// When a run counts as hanging.
    pub limits: Limits,
    /// Bare worker's bytes by number of threads, once measured.
    pub baselines: HashMap<u32, u64>,
    /// Addresses at random in every measure, as a program has them: what a prediction must hold for (`validate`). Elsewhere memory
    /// and counts are measured at fixed ones, which repeat better.
    pub random_addresses: bool,
    /// How the clock that a subject reads follows the recorded times, by comparison (`validate`); empty: it shows them.
    pub clocks: Vec<RecordedClock>,
    /// Length of the idle tail and of the trickle behind it.
    pub idle: Duration,
    /// Idle runs that were made together and have not been asked for yet.
    pub tails: Tails,
}

/// How often a run goes through the script.
pub fn repeats(comparison: &Comparison, kind: Kind, (mode, touch): (Mode, Touch)) -> u32 {
    match kind {
        // A paced replay takes as long as the program did.
        Kind::Speed if mode != Mode::Paced => {
            let by_thread = u64::from(comparison.threads.min(AT_A_TIME)) * SPEED_CALLS_BY_THREAD;
            let by_calls = SPEED_CALLS.max(by_thread) / comparison.calls.max(1);
            let by_threads = SPEED_THREADS / u64::from(comparison.started_threads.max(1));
            let most = match touch {
                Touch::Page | Touch::All => MOST_WRITING,
                _ => MOST_REPEATS,
            };
            by_calls.min(by_threads).clamp(1, most) as u32
        }
        _ => 1,
    }
}

/// The specification of a run.
pub fn spec(
    comparison: &Comparison,
    kind: Kind,
    shape: (Mode, Touch),
    library: Option<&Path>,
    null: bool,
) -> RunSpec {
    let measure = kind.measure().unwrap_or(Measure::Speed);
    let repeat = repeats(comparison, kind, shape);
    RunSpec {
        mode: shape.0,
        touch: shape.1,
        api: comparison.api,
        integrity: measure == Measure::Memory,
        repeat,
        samples: CURVE_POINTS,
        expect_library: library.map(Path::to_path_buf),
        null,
        pin: matches!(kind, Kind::Speed | Kind::Latency),
        pace: comparison.pace,
        // A quarter of a limit for what is mapped of the script: the rest is the subject's.
        whole_script_bytes: comparison.machine.memory_limit / 4,
        machine: Machine {
            fixed_addresses: matches!(kind, Kind::Memory | Kind::Idle | Kind::Counts),
            ..comparison.machine
        },
        ..RunSpec::new(comparison.script.clone(), measure)
    }
}

/// Most bytes of blocks that live at a time in a script; 0 where it cannot be read, as the run itself then says.
fn peak_live(script: &Path) -> u64 {
    Script::open_windowed(script).map_or(0, |script| script.info().peak_live_bytes)
}

impl Replays<'_> {
    fn baseline(&mut self, threads: u32) -> Result<u64, String> {
        if let Some(bytes) = self.baselines.get(&threads) {
            return Ok(*bytes);
        }
        let bytes =
            calibrate::baseline_bytes(threads, &self.limits).map_err(|failure| failure.reason)?;
        self.baselines.insert(threads, bytes);
        Ok(bytes)
    }
}

impl Replays<'_> {
    /// The specification of an item's run, and the baseline that is subtracted from what it answers.
    fn prepared(&mut self, item: &Item) -> Result<RunSpec, String> {
        let comparison = &self.comparisons[item.comparison];
        let subject = &self.subjects[item.subject];
        let mut spec = spec(
            comparison,
            item.kind,
            (self.shape)(item.kind),
            subject.library.as_deref(),
            false,
        );
        spec.machine.fixed_addresses &= !self.random_addresses;
        if spec.measure == Measure::Memory {
            spec.baseline_bytes = self.baseline(comparison.started_threads)?;
        }
        spec.recorded_clock = self.clocks.get(item.comparison).cloned();
        if item.kind == Kind::Idle {
            spec.idle_tail_ms = self.idle.as_millis() as u64;
            spec.trickle_ms = spec.idle_tail_ms;
        }
        Ok(spec)
    }
}

impl Executor for Replays<'_> {
    fn ahead(&mut self, items: &[Item]) {
        let mut runs = Vec::new();
        for item in items {
            // What cannot be prepared is prepared again when it is asked for, and fails there.
            if let Ok(spec) = self.prepared(item) {
                runs.push((*item, &self.subjects[item.subject], spec));
            }
        }
        self.tails = tails::together(runs, &self.limits);
    }

    fn run(&mut self, item: &Item) -> Result<Value, String> {
        let subject = &self.subjects[item.subject];
        let spec = self.prepared(item)?;
        if item.kind == Kind::Counts {
            return counts::run(subject, &spec, &self.limits);
        }
        let run = || exec::run_worker(subject, &spec, &self.limits).map_err(|f| f.reason);
        let mut huge_pages = None;
        let (report, disturbance) = match self.tails.take(item) {
            Some(result) => (result?, None),
            None if matches!(item.kind, Kind::Speed | Kind::Latency) => Watch::over_replay(run)?,
            None if item.kind == Kind::Memory && spec.machine.thp != Thp::Never => {
                let (report, whims) = huge_pages::over(peak_live(&spec.script), run)?;
                huge_pages = Some(whims);
                (report, None)
            }
            None => (run()?, None),
        };
        let mut answer =
            serde_json::to_value(report).map_err(|e| format!("the answer cannot be kept: {e}"))?;
        if spec.measure == Measure::Memory {
            answer[BASELINE_KEY] = json!(spec.baseline_bytes);
        }
        if let Some(disturbance) = disturbance {
            answer[DISTURBANCE_KEY] = json!(disturbance);
        }
        if let Some(whims) = huge_pages {
            answer[HUGE_REFUSED_KEY] = json!(whims.refused);
            answer[HUGE_COLLAPSED_KEY] = json!(whims.collapsed);
        }
        if item.kind == Kind::Idle {
            answer[IDLE_KEY] = json!(spec.idle_tail_ms);
        }
        Ok(answer)
    }

    fn calibrate(&mut self, comparison: usize) -> Option<Result<Value, String>> {
        let null = self.null.as_ref()?;
        let mut spec = spec(
            &self.comparisons[comparison],
            Kind::Speed,
            (self.shape)(Kind::Speed),
            null.library.as_deref(),
            true,
        );
        spec.recorded_clock = self.clocks.get(comparison).cloned();
        Some(calibrate::null(null, &spec, &self.limits).map_err(|failure| failure.reason))
    }

    fn figure(&self, comparison: usize, kind: Kind, answer: &Value) -> Option<f64> {
        assemble::figure(kind, self.comparisons[comparison].calls, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::comparison;

    #[test]
    fn short_scripts_are_repeated_but_not_those_of_many_threads() {
        let times = |calls, started_threads, mode| {
            let comparison = Comparison {
                calls,
                started_threads,
                ..comparison("churn", &[Kind::Speed])
            };
            repeats(&comparison, Kind::Speed, (mode, Touch::First))
        };
        assert_eq!(times(1_000_000, 1, Mode::Fast), 2);
        assert_eq!(times(1_000, 1, Mode::Fast), 100);
        assert_eq!(times(1_000, 1, Mode::Paced), 1);
        assert_eq!(times(12_000, 6_000, Mode::Fast), 3);
        assert_eq!(times(12_000, 60_000, Mode::Fast), 1);
        let of_threads = |threads| {
            let comparison = Comparison {
                threads,
                started_threads: threads,
                calls: 100_000,
                ..comparison("churn", &[Kind::Speed])
            };
            repeats(&comparison, Kind::Speed, (Mode::Fast, Touch::First))
        };
        assert_eq!([1, 4, 16, 32].map(of_threads), [20, 20, 80, 80]);
        let few = Comparison {
            calls: 800,
            ..comparison("malloc-large", &[Kind::Speed])
        };
        assert_eq!(repeats(&few, Kind::Speed, (Mode::Fast, Touch::Page)), 4);
    }
}
