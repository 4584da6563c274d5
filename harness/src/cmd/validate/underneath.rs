//! The program recorded with a subject underneath, and replayed on it: whether a row is off because the program asks otherwise there, or
//! because the replay is wrong.

use super::recordings::{Recordings, compiled};
use super::{Trial, replayed, rounds};
use crate::engine::Executor;
use crate::plan::Kind;
use crate::subject::Subject;
use crate::validation::{self, Asked, Row};
use crate::{interrupt, recording};
use heaplab_worker::protocol::RecordedClock;
use heaplab_workloads::trace::TraceSummary;

/// What the program asks for under a subject whose row is off or has no verdict, and what a replay makes of it; nothing under the one
/// that was recorded. `in_place` is the subject as it is put into the program.
pub fn asked(
    row: &Row,
    subject: &Subject,
    in_place: &Subject,
    recordings: &Recordings,
    trial: &Trial<'_>,
) -> Option<Asked> {
    let recorded = trial.brought.as_ref().map(|brought| &brought.libc);
    let told = row.within_goal == Some(true) && row.decided != Some(false);
    if told || row.error.is_none() || in_place.library.as_ref() == recorded {
        return None;
    }
    let mut under = Recordings::default();
    for number in 0..trial.args.first_runs() {
        if interrupt::requested() {
            return None;
        }
        (trial.progress).started(&format!("recording under {}", subject.label));
        if let Err(why) = record(&mut under, number, in_place, trial) {
            trial.progress.detail(&format!("{}: {why}", subject.label));
            return None;
        }
    }
    let goal = validation::least_goal(recordings.threads());
    let asked = Asked::new(&under.traces, &recordings.traces, goal)?;
    let peaks = peaks(&under, subject, trial).unwrap_or_else(|why| {
        trial.progress.detail(&format!("{}: {why}", subject.label));
        Vec::new()
    });
    Some(asked.replayed_as(&peaks, row.actual_peak_bytes))
}

/// One more recording, with its script.
fn record(
    under: &mut Recordings,
    number: u32,
    in_place: &Subject,
    trial: &Trial<'_>,
) -> Result<(), String> {
    let command = &trial.args.command;
    let service = trial.args.service.service();
    let service = service.map_err(|error| error.to_string())?;
    let out = trial.folder.join(format!("under-{number}.hltrace"));
    let trace = recording::recorded_under(in_place, command, service, true, &out)?;
    let script = compiled(&out, trial).map_err(|error| error.to_string());
    // It may be large, and only its script is needed.
    let _ = std::fs::remove_file(&out);
    under.clocks.push(clock(&trace));
    under.comparisons.push(script?);
    under.traces.push(trace);
    Ok(())
}

/// The subject's own time is in what was recorded; only the recorder's is taken off.
fn clock(trace: &TraceSummary) -> RecordedClock {
    RecordedClock {
        recorder_ns: super::recordings::recorder_ns(trace),
        ..RecordedClock::default()
    }
}

/// Peak resident bytes of a replay of each.
fn peaks(under: &Recordings, subject: &Subject, trial: &Trial<'_>) -> Result<Vec<f64>, String> {
    let comparisons = &under.comparisons;
    let subjects = std::slice::from_ref(subject);
    let mut replays = replayed::replays(comparisons, subjects, &trial.limits, None);
    replays.clocks = under.clocks.clone();
    let mut found = Vec::new();
    for block in 0..comparisons.len() as u32 {
        if interrupt::requested() {
            break;
        }
        (trial.progress).started(&format!("replay of what it asks under {}", subject.label));
        let item = rounds::item(comparisons, 0, Kind::Memory, block);
        let answer = replays.run(&item)?;
        found.extend(replays.figure(item.comparison, Kind::Memory, &answer));
    }
    Ok(found)
}
