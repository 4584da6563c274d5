//! The harness's own cost as a benchmark: scripts of known shape replayed with the null allocator, nothing touched.

mod line;

use crate::disturbance::{Disturbance, Watch};
use crate::error::Error;
use crate::exec::{self, Limits};
use crate::subject::{self, Subject};
use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{FLAG_SHARED, Op, OpKind, ScriptError};
use heaplab_worker::protocol::{Measure, Report, RunSpec, Touch};
use serde::Serialize;
use std::path::Path;

/// Ops of each thread, and of all threads together at most, so that scripts of many threads stay small.
const OPS: u32 = 2_000_000;
const ALL_OPS: u32 = 16_000_000;
/// Most threads that are tried: 1, 2, 4 and so on up to the CPUs there are.
const MOST_THREADS: u32 = 16;
/// Slots that a thread churns over.
const SLOTS: u32 = 4096;
/// Slots through which blocks are handed over: as many are on their way at most.
const HANDED: u32 = 1024;
/// Blocks of which each is freed before the next one is allocated.
const ANSWERED: u32 = 100_000;
/// Runs of each script; the fastest counts, because everything that disturbs a run makes it slower.
const RUNS: usize = 7;

/// Nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// A local op.
    pub local: Vec<LocalCost>,
    /// Handing a block from one thread to another, beside its two calls; waiting is not in it. Absent on one CPU, as the next three.
    pub hand_over_ns: Option<f64>,
    /// From one handed block to the next, by the clock on the wall, waiting and calls included.
    pub handed_wall_ns: Option<f64>,
    /// The same where each block must be freed by the other thread before the next one is allocated.
    pub answered_wall_ns: Option<f64>,
    /// The way of a cache line from one of the two CPUs to the other and back, right after the run that had this time.
    pub line_there_and_back_ns: Option<f64>,
    /// An empty pair of time stamps.
    pub timer_ns: f64,
    /// CPU time that other programs and the host took meanwhile, as a share of one CPU, where it was enough to matter.
    pub disturbed: Option<f64>,
}

/// What a local op costs each of some threads that run at a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LocalCost {
    /// Threads, each on a CPU of its own.
    pub threads: u32,
    /// Nanoseconds: the time from start to end by the ops of one thread.
    pub ns: f64,
}

/// Measures for about three seconds (ten with sixteen threads), once more if something else had the machine meanwhile.
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
    let failed = |error: ScriptError| Error::environment(error.to_string());
    let mut scripts = Vec::new();
    for threads in thread_counts(cpus) {
        let path = folder.path().join(format!("churn-{threads}"));
        churn(&path, threads).map_err(failed)?;
        scripts.push((threads, path));
    }
    let handed = folder.path().join("handed");
    let answering = folder.path().join("answered");
    if cpus >= 2 {
        hand_over(&handed, OPS / 2, HANDED).map_err(failed)?;
        hand_over(&answering, ANSWERED, 1).map_err(failed)?;
    }
    let mut local = vec![f64::INFINITY; scripts.len()];
    let (mut pair, mut timer) = (f64::INFINITY, f64::INFINITY);
    let mut handed_wall = f64::INFINITY;
    let mut answered = (f64::INFINITY, None);
    for _ in 0..RUNS {
        for ((threads, script), best) in scripts.iter().zip(&mut local) {
            let report = replay(&null, script)?;
            let own = report.wall_ns as f64 * f64::from(*threads) / report.calls as f64;
            *best = best.min(own);
            // It is measured in every run of the null allocator.
            timer = timer.min(report.timer_ns);
        }
        if cpus >= 2 {
            let report = replay(&null, &handed)?;
            // Both threads are there from the beginning to the end. Not CPU time: a thread that waits may sleep, and waiting is
            // stamped by the clock on the wall.
            let busy = (2 * report.wall_ns).saturating_sub(report.wait_ns);
            pair = pair.min(busy as f64 / (report.calls / 2) as f64);
            handed_wall = handed_wall.min(wall_of_a_block(&report));
            let wall = wall_of_a_block(&replay(&null, &answering)?);
            // The host may move the CPUs from one run to the next.
            let line = line::there_and_back_ns();
            if wall < answered.0 {
                answered = (wall, line);
            }
        }
    }
    Ok(Cost {
        hand_over_ns: (cpus >= 2).then(|| (pair - 2.0 * local[0]).max(0.0)),
        handed_wall_ns: (cpus >= 2).then_some(handed_wall),
        answered_wall_ns: (cpus >= 2).then_some(answered.0),
        line_there_and_back_ns: answered.1,
        local: (scripts.iter().zip(local))
            .map(|((threads, _), ns)| LocalCost {
                threads: *threads,
                ns,
            })
            .collect(),
        timer_ns: timer,
        disturbed: None,
    })
}

fn wall_of_a_block(report: &Report) -> f64 {
    report.wall_ns as f64 / (report.calls / 2) as f64
}

/// 1, 2, 4 … and no more than there are CPUs.
fn thread_counts(cpus: u32) -> impl Iterator<Item = u32> {
    let most = cpus.clamp(1, MOST_THREADS);
    std::iter::successors(Some(1), |threads: &u32| Some(threads * 2))
        .take_while(move |threads| *threads <= most)
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
    let ops = OPS.min(ALL_OPS / threads);
    for thread in 0..threads {
        let (mut sizes, mut state) = (vec![0u64; SLOTS as usize], u64::from(thread) + 1);
        for _ in 0..ops {
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
        script.order(thread, ops)?;
    }
    script.finish(ScriptInfo {
        private_slots: threads * SLOTS,
        ..ScriptInfo::default()
    })?;
    Ok(())
}

/// Thread 0 allocates, thread 1 frees; `slots` blocks are on their way at most.
fn hand_over(path: &Path, blocks: u32, slots: u32) -> Result<(), ScriptError> {
    let mut script = ScriptWriter::create(path, 2)?;
    for number in 0..blocks {
        let (slot, generation) = (number % slots, (number / slots) as u16);
        for (thread, kind) in [(0, OpKind::Malloc), (1, OpKind::Free)] {
            script.push(thread, Op::new(kind, FLAG_SHARED, generation, slot, 64, 0))?;
            script.order(thread, 1)?;
        }
    }
    script.finish(ScriptInfo {
        shared_slots: slots,
        ..ScriptInfo::default()
    })?;
    Ok(())
}
