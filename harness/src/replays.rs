//! Runs of the plan as replays in worker processes: what a run's specification is, and what is put into its answer.

use crate::assemble::{self, BASELINE_KEY};
use crate::calibrate;
use crate::counts;
use crate::engine::Executor;
use crate::exec::{self, Limits};
use crate::plan::{Comparison, Item, Kind};
use crate::subject::Subject;
use heaplab_worker::protocol::{Measure, Mode, RunSpec, Touch};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Calls that a speed run should have, so that starting it does not matter; short scripts are repeated.
const SPEED_CALLS: u64 = 2_000_000;
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
    let repeat = match kind {
        Kind::Speed => (SPEED_CALLS / comparison.calls.max(1)).clamp(1, 100) as u32,
        _ => 1,
    };
    RunSpec {
        script: comparison.script.clone(),
        measure,
        mode: shape.0,
        touch: shape.1,
        api: comparison.api,
        integrity: kind == Kind::Memory,
        repeat,
        samples: CURVE_POINTS,
        idle_tail_ms: 0,
        expect_library: library.map(Path::to_path_buf),
        null,
        baseline_bytes: 0,
    }
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

impl Executor for Replays<'_> {
    fn run(&mut self, item: &Item) -> Result<Value, String> {
        let comparison = &self.comparisons[item.comparison];
        let subject = &self.subjects[item.subject];
        let mut spec = spec(
            comparison,
            item.kind,
            (self.shape)(item.kind),
            subject.library.as_deref(),
            false,
        );
        if item.kind == Kind::Counts {
            return counts::run(subject, &spec, &self.limits);
        }
        let mut baseline = None;
        if item.kind == Kind::Memory {
            spec.baseline_bytes = self.baseline(comparison.started_threads)?;
            baseline = Some(spec.baseline_bytes);
        }
        let report =
            exec::run_worker(subject, &spec, &self.limits).map_err(|failure| failure.reason)?;
        let mut answer =
            serde_json::to_value(report).map_err(|e| format!("the answer cannot be kept: {e}"))?;
        if let Some(bytes) = baseline {
            answer[BASELINE_KEY] = json!(bytes);
        }
        Ok(answer)
    }

    fn calibrate(&mut self, comparison: usize) -> Option<Result<Value, String>> {
        let null = self.null.as_ref()?;
        let spec = spec(
            &self.comparisons[comparison],
            Kind::Speed,
            (self.shape)(Kind::Speed),
            null.library.as_deref(),
            true,
        );
        Some(
            exec::run_worker(null, &spec, &self.limits)
                .map_err(|failure| failure.reason)
                .and_then(|r| serde_json::to_value(r).map_err(|e| e.to_string())),
        )
    }

    fn figure(&self, comparison: usize, kind: Kind, answer: &Value) -> Option<f64> {
        assemble::figure(kind, self.comparisons[comparison].calls, answer)
    }
}
