//! What recording costs an event: the same loop in a child process with and without the recorder.

use super::session::{Session, SessionOptions};
use super::sink::Discard;
use super::{DrainSummary, RecordError};
use std::ffi::OsString;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Pairs of one round: with two events a pair some ten milliseconds, short enough to lie between two disturbances.
const PAIRS: u32 = 300_000;
/// Rounds of each kind, interleaved; the least is taken, because whatever else runs on the machine only adds.
const ROUNDS: usize = 8;

/// The loop that is timed: allocates and frees 64 bytes `pairs` times through the global allocator,
/// which must be the system's. Nanoseconds an event (a pair has two).
pub fn calibration_loop(pairs: u32) -> f64 {
    let run = |pairs: u32| {
        for _ in 0..pairs {
            drop(black_box(Vec::<u8>::with_capacity(black_box(64))));
        }
    };
    run(pairs / 10);
    let start = Instant::now();
    run(pairs);
    start.elapsed().as_nanos() as f64 / f64::from(pairs.max(1)) / 2.0
}

/// Measures nanoseconds an event that the recorder adds. `command` must build a command that runs
/// [`calibration_loop`] with the number given (the last argument is appended here) and prints its
/// result on standard output: a hidden mode of the caller's own binary.
///
/// # Errors
/// When the child cannot be run, prints no number, or was not recorded.
pub fn measure_cost(recorder: &Path, command: impl Fn() -> Command) -> Result<f64, RecordError> {
    let (mut bare, mut recorded) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        bare = bare.min(run(&mut command(), &[], None)?);
        let mut session = Session::create(&SessionOptions::default())?;
        let environment = session.environment_before(recorder, "".as_ref());
        recorded = recorded.min(run(&mut command(), &environment, Some(&mut session))?);
    }
    Ok((recorded - bare).max(0.0))
}

fn run(
    command: &mut Command,
    environment: &[(OsString, OsString)],
    session: Option<&mut Session>,
) -> Result<f64, RecordError> {
    let failed = |reason: String| RecordError::Cost(reason);
    command
        .env_remove("LD_PRELOAD")
        .envs(environment.iter().cloned())
        .arg(PAIRS.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("the calibration program does not start: {error}")))?;
    if let Some(session) = session {
        let alive = || matches!(child.try_wait(), Ok(None));
        let summary: DrainSummary = session.drain(alive, &mut Discard)?;
        if summary.events < u64::from(PAIRS) * 2 {
            return Err(failed(format!(
                "only {} events of the calibration program were recorded",
                summary.events
            )));
        }
    }
    let output = child.wait_with_output().map_err(|error| {
        failed(format!(
            "the calibration program cannot be waited for: {error}"
        ))
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(|_| failed(format!("the calibration program printed '{}'", text.trim())))
}
