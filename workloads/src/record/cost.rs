//! What recording costs an event: the same loop in a child process with and without the recorder.

use super::session::{Session, SessionOptions};
use super::sink::Discard;
use super::{DrainSummary, RecordError};
use std::ffi::OsString;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Pairs of one round: with two events a pair some ten milliseconds, short enough to lie between two disturbances.
const PAIRS: u32 = 300_000;
/// Of the rounds of either kind so many must agree: be no further than [`APART`] from the least of them.
pub const AGREEING: usize = 4;
const APART: f64 = 0.08;

/// What the recorder adds to an event: nanoseconds of CPU time with and without it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Of an event that is not recorded.
    pub bare: f64,
    /// Of one that is.
    pub recorded: f64,
    /// Several rounds agree on both. Where they do not, something else ran all the time.
    pub settled: bool,
}

impl Cost {
    /// The difference.
    pub fn ns(&self) -> f64 {
        (self.recorded - self.bare).max(0.0)
    }

    /// The best of two figures of which neither is settled. Whatever else runs only adds, to either kind.
    pub fn least(self, other: Self) -> Self {
        Self {
            bare: self.bare.min(other.bare),
            recorded: self.recorded.min(other.recorded),
            settled: false,
        }
    }
}

/// The loop that is timed: allocates and frees 64 bytes `pairs` times through the global allocator,
/// which must be the system's. Nanoseconds of CPU time an event (a pair has two): what runs in between does not count.
pub fn calibration_loop(pairs: u32) -> f64 {
    let run = |pairs: u32| {
        for _ in 0..pairs {
            drop(black_box(Vec::<u8>::with_capacity(black_box(64))));
        }
    };
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    run(pairs / 10);
    let start = now();
    run(pairs);
    (now() - start).as_nanos() as f64 / f64::from(pairs.max(1)) / 2.0
}

/// Measures what the recorder adds to an event. Rounds without and with it take turns, and the least of each is taken, because whatever
/// else runs on the machine only adds; they end when the least [`AGREEING`] of either kind agree (on an idle machine in a quarter of a
/// second), and after `most` at the latest. `command` must build a command that runs [`calibration_loop`] with the number
/// given (the last argument is appended here) and prints its result on standard output: a hidden mode of the caller's own binary.
///
/// # Errors
/// When the child cannot be run, prints no number, or was not recorded.
pub fn measure_cost(
    recorder: &Path,
    most: usize,
    command: impl Fn() -> Command,
) -> Result<Cost, RecordError> {
    rounds(most, |recorded| {
        if !recorded {
            return run(&mut command(), &[], None);
        }
        let mut session = Session::create(&SessionOptions::default())?;
        let environment = session.environment_before(recorder, "".as_ref());
        run(&mut command(), &environment, Some(&mut session))
    })
}

/// Rounds of `run`, without and with the recorder.
fn rounds(
    most: usize,
    mut run: impl FnMut(bool) -> Result<f64, RecordError>,
) -> Result<Cost, RecordError> {
    let (mut bare, mut recorded) = (Vec::new(), Vec::new());
    let mut settled = false;
    while !settled && bare.len() < most {
        for (recorded, found) in [(false, &mut bare), (true, &mut recorded)] {
            found.push(run(recorded)?);
            found.sort_by(f64::total_cmp);
        }
        settled = agree(&bare) && agree(&recorded);
    }
    Ok(Cost {
        bare: bare[0],
        recorded: recorded[0],
        settled,
    })
}

/// Whether the first of sorted figures are nearly the same.
fn agree(sorted: &[f64]) -> bool {
    sorted
        .get(AGREEING - 1)
        .is_some_and(|last| *last <= sorted[0] * (1.0 + APART))
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: usize = 24;

    /// The cost that is found where the recorder adds 10 to 4, and the machine adds `more(n)` to the n-th run.
    fn found(more: impl Fn(usize) -> f64) -> (Cost, usize) {
        let mut runs = 0;
        let cost = rounds(ROUNDS, |recorded| {
            runs += 1;
            Ok(if recorded { 14.0 } else { 4.0 } + more(runs))
        });
        (cost.unwrap(), runs)
    }

    #[test]
    fn the_least_counts_and_is_settled_only_where_several_agree() {
        // An idle machine, and one on which two runs of three were held up.
        let (cost, runs) = found(|_| 0.0);
        assert_eq!((cost.ns(), cost.settled, runs), (10.0, true, 2 * AGREEING));
        let (cost, runs) = found(|run| if run % 3 == 0 { 0.0 } else { 150.0 });
        assert_eq!((cost.ns(), cost.settled), (10.0, true), "{runs} runs");
        assert!(runs < 2 * ROUNDS, "{runs} runs");
        // One run was left alone: nobody knows whether that one was.
        let (cost, runs) = found(|run| match run {
            6 => 0.0,
            run => 50.0 + 7.0 * run as f64,
        });
        assert!(!cost.settled && runs == 2 * ROUNDS, "{cost:?}, {runs} runs");
        // Another time the other kind was: together they are right.
        let (other, _) = found(|run| match run {
            9 => 0.0,
            run => 50.0 + 7.0 * run as f64,
        });
        assert!(cost.ns() < 10.0 && other.ns() > 10.0, "{cost:?} {other:?}");
        assert_eq!(cost.least(other).ns(), 10.0);
    }
}
