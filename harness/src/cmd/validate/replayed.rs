//! What replays predict: the peak of resident bytes, and the time of the calls.

use super::Trial;
use super::recordings::Recordings;
use super::rounds::{Rounds, item};
use crate::engine::Executor;
use crate::error::Error;
use crate::exec::Limits;
use crate::plan::{Comparison, Kind};
use crate::replays::Replays;
use crate::subject::{self, Subject};
use crate::validation::{Samples, Seen};
use heaplab_worker::protocol::{Mode, RecordedClock, Touch};
use std::collections::HashMap;

/// Replays of each subject for time.
pub const TIMED: u32 = 3;

/// Peak resident bytes of replays, of one recording after the other, until each subject has as many as `wanted` says. The clock
/// that a subject reads there counts recorded times and its own CPU time: a replay that is held up has the same peak.
pub fn peaks(
    found: &mut Rounds<Seen>,
    recordings: &Recordings,
    subjects: &[Subject],
    wanted: &[u32],
    trial: &Trial<'_>,
) {
    let comparisons = &recordings.comparisons;
    let mut replays = replays(comparisons, subjects, &trial.limits, None);
    let what = "replay for memory";
    found.up_to(wanted, subjects, what, &trial.progress, |at, block| {
        // The recorded allocator's own time is in what was recorded.
        replays.clocks = (recordings.clocks.iter().cloned())
            .map(|clock| RecordedClock {
                recorded: clock.recorded.filter(|_| subjects[at].library.is_some()),
                ..clock
            })
            .collect();
        let item = item(comparisons, at, Kind::Memory, block);
        let answer = replays.run(&item)?;
        let peak = replays.figure(item.comparison, Kind::Memory, &answer);
        Ok(Seen {
            value: peak.ok_or_else(|| "the replay measured no memory".to_string())?,
            disturbed: recordings.disturbed(block),
        })
    });
}

/// CPU seconds of all calls of the trace, and the part of them that is the harness's own (the null allocator's).
///
/// # Errors
/// None but ours.
pub fn times(
    recordings: &Recordings,
    subjects: &[Subject],
    trial: &Trial<'_>,
) -> Result<(Vec<Samples<f64>>, Option<f64>), Error> {
    let comparisons = &recordings.comparisons;
    let null = subject::parse("null")?.pop();
    let mut replays = replays(comparisons, subjects, &trial.limits, null);
    // What an allocator does by the clock takes time as well: 17 ms of nothing but calls are over before mimalloc gives back
    // what it does ten times a second in a program of 5 s.
    replays.clocks = vec![RecordedClock::default(); comparisons.len()];
    let seconds = |comparison: usize, answer: &serde_json::Value| {
        let (cpu, calls) = (answer["cpu_ns"].as_f64()?, answer["calls"].as_f64()?);
        let all = comparisons[comparison].calls as f64;
        (calls > 0.0).then(|| cpu / calls * all / 1e9)
    };
    let mut costs = Vec::new();
    for block in 0..TIMED {
        trial.progress.started("replay for time null");
        let comparison = item(comparisons, 0, Kind::Speed, block).comparison;
        if let Some(Ok(answer)) = replays.calibrate(comparison) {
            costs.extend(seconds(comparison, &answer));
        }
        trial.progress.finished("replay for time null: done");
    }
    let mut found = Rounds::new(subjects.len());
    let (what, wanted) = ("replay for time", vec![TIMED; subjects.len()]);
    found.up_to(&wanted, subjects, what, &trial.progress, |at, block| {
        let item = item(comparisons, at, Kind::Speed, block);
        let answer = replays.run(&item)?;
        seconds(item.comparison, &answer).ok_or_else(|| "the replay measured no time".to_string())
    });
    Ok((found.samples, heaplab_reports::stats::median(&costs)))
}

/// Mode and touch of a measure.
pub fn shape(kind: Kind) -> (Mode, Touch) {
    (kind.default_mode(), kind.default_touch())
}

/// Replays as a program has it: addresses at random.
pub fn replays<'a>(
    comparisons: &'a [Comparison],
    subjects: &'a [Subject],
    limits: &Limits,
    null: Option<Subject>,
) -> Replays<'a> {
    Replays {
        comparisons,
        subjects,
        null,
        shape: &shape,
        limits: limits.clone(),
        baselines: HashMap::new(),
        random_addresses: true,
        clocks: Vec::new(),
        idle: std::time::Duration::ZERO,
        tails: crate::tails::Tails::default(),
    }
}
