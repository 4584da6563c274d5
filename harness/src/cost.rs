//! The harness's own cost as a benchmark: scripts of known shape replayed with the null allocator, nothing touched.

use crate::disturbance::{Disturbance, Watch};
use crate::error::Error;
use crate::exec::{self, Limits};
use crate::subject::{self, Subject};
use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{FLAG_SHARED, Op, OpKind, ScriptError};
use heaplab_worker::protocol::{Measure, Report, RunSpec, Touch};
use serde::Serialize;
use std::path::Path;

/// Ops of each thread.
const OPS: u32 = 2_000_000;
/// Slots that a thread churns over.
const SLOTS: u32 = 4096;
/// Slots through which blocks are handed over: as many are on their way at most.
const HANDED: u32 = 1024;
/// Runs of each script; the fastest counts, because everything that disturbs a run makes it slower.
const RUNS: usize = 7;

/// Nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// A local op, one thread.
    pub one_thread_ns: f64,
    /// A local op, for each of two threads; absent on one CPU.
    pub two_threads_ns: Option<f64>,
    /// Handing a block from one thread to another, beside its two calls; waiting is not in it. Absent on one CPU.
    pub hand_over_ns: Option<f64>,
    /// An empty pair of time stamps.
    pub timer_ns: f64,
    /// CPU time that other programs and the host took meanwhile, as a share of one CPU, where it was enough to matter.
    pub disturbed: Option<f64>,
}

/// Measures for about three seconds, once more if something else had the machine meanwhile.
///
/// # Errors
/// When scripts cannot be written or runs fail.
pub fn measure(cpus: u32) -> Result<Cost, Error> {
    let once = || rounds(cpus).map_err(|error| error.to_string());
    let (cost, disturbance) = Watch::over(once).map_err(Error::environment)?;
    Ok(Cost {
        disturbed: (disturbance.filter(Disturbance::matters))
            .map(|found| found.others + found.steal),
        ..cost
    })
}

/// Rounds over all scripts, so that what disturbs the machine for a second spoils one of each.
fn rounds(cpus: u32) -> Result<Cost, Error> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("create", &std::env::temp_dir(), &e))?;
    let null = subject::parse("null")?
        .pop()
        .ok_or_else(|| Error::environment("there is no null allocator; please report this"))?;
    let path = |name: &str| folder.path().join(name);
    let (one, two, handed) = (path("one"), path("two"), path("handed"));
    let failed = |error: ScriptError| Error::environment(error.to_string());
    churn(&one, 1).map_err(failed)?;
    if cpus >= 2 {
        churn(&two, 2).map_err(failed)?;
        hand_over(&handed).map_err(failed)?;
    }
    let mut best = [f64::INFINITY; 4];
    for _ in 0..RUNS {
        let report = replay(&null, &one)?;
        let by_call = |report: &Report| report.wall_ns as f64 / report.calls as f64;
        best[0] = best[0].min(by_call(&report));
        // It is measured in every run of the null allocator.
        best[3] = best[3].min(report.timer_ns);
        if cpus >= 2 {
            best[1] = best[1].min(2.0 * by_call(&replay(&null, &two)?));
            let report = replay(&null, &handed)?;
            // Both threads are there from the beginning to the end. Not CPU time: a thread that waits may sleep, and waiting is
            // stamped by the clock on the wall.
            let busy = (2 * report.wall_ns).saturating_sub(report.wait_ns);
            best[2] = best[2].min(busy as f64 / (report.calls / 2) as f64);
        }
    }
    let [one, two, pair, timer] = best;
    Ok(Cost {
        one_thread_ns: one,
        two_threads_ns: (cpus >= 2).then_some(two),
        hand_over_ns: (cpus >= 2).then(|| (pair - 2.0 * one).max(0.0)),
        timer_ns: timer,
        disturbed: None,
    })
}

fn replay(null: &Subject, script: &Path) -> Result<Report, Error> {
    let spec = RunSpec {
        touch: Touch::None,
        pin: true,
        ..RunSpec::new(script.to_path_buf(), Measure::Speed)
    };
    exec::run_worker(null, &spec, &Limits::seconds(60))
        .map_err(|failure| Error::environment(failure.reason))
}

/// Blocks of 16 to 1,024 bytes come and go at random in each thread.
fn churn(path: &Path, threads: u32) -> Result<(), ScriptError> {
    let mut script = ScriptWriter::create(path, threads)?;
    for thread in 0..threads {
        let (mut sizes, mut state) = (vec![0u64; SLOTS as usize], u64::from(thread) + 1);
        for _ in 0..OPS {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let index = (state >> 52) as u32;
            let slot = thread * SLOTS + index;
            let size = &mut sizes[index as usize];
            if *size == 0 {
                *size = 16 + (state >> 32) % 1009;
                script.push(thread, Op::new(OpKind::Malloc, 0, 0, slot, *size, 0))?;
            } else {
                script.push(thread, Op::new(OpKind::Free, 0, 0, slot, *size, 0))?;
                *size = 0;
            }
        }
        script.order(thread, OPS)?;
    }
    script.finish(ScriptInfo {
        private_slots: threads * SLOTS,
        ..ScriptInfo::default()
    })?;
    Ok(())
}

/// Thread 0 allocates, thread 1 frees.
fn hand_over(path: &Path) -> Result<(), ScriptError> {
    let mut script = ScriptWriter::create(path, 2)?;
    for number in 0..OPS / 2 {
        let (slot, generation) = (number % HANDED, (number / HANDED) as u16);
        for (thread, kind) in [(0, OpKind::Malloc), (1, OpKind::Free)] {
            script.push(thread, Op::new(kind, FLAG_SHARED, generation, slot, 64, 0))?;
            script.order(thread, 1)?;
        }
    }
    script.finish(ScriptInfo {
        shared_slots: HANDED,
        ..ScriptInfo::default()
    })?;
    Ok(())
}
