//! `heaplab validate`: records a program, replays it under each subject, runs it under each subject, each as often, and puts
//! predicted and actual peak heap side by side. Where the runs lie too far apart for a verdict, that subject is run further.

mod programs;
mod recordings;
mod replayed;
mod rounds;
mod sides;
mod underneath;

use crate::cli::ValidateArgs;
use crate::cmd::run::{add_variants, all_there, subjects};
use crate::disturbance::Watch;
use crate::embed::Embedded;
use crate::error::{Error, Outcome};
use crate::exec::Limits;
use crate::out::Terminal;
use crate::progress::Progress;
use crate::subject::Subject;
use crate::validation::{self, Facts, Row, Run, Samples, Seen};
use crate::{embed, interrupt, readback};
use recordings::Recordings;
use rounds::Rounds;
use sides::Sides;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What stays the same over a validation.
struct Trial<'a> {
    args: &'a ValidateArgs,
    terminal: &'a Terminal,
    /// Of recordings, scripts and times.
    folder: &'a Path,
    limits: Limits,
    progress: Progress,
    /// What is run, by the place of the subject: the program under each allocator, then builds of it with one linked in.
    commands: Vec<Vec<OsString>>,
    brought: Option<Brought>,
}

impl Trial<'_> {
    /// What the program is called in messages.
    fn name(&self) -> String {
        let program = Path::new(&self.args.command[0]);
        let name = program.file_name().unwrap_or(program.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

/// An allocator that the program brings in a library, and the C library to put in its place.
struct Brought {
    allocator: String,
    libc: PathBuf,
}

/// Measures and prints.
///
/// # Errors
/// A program that cannot be recorded (3) or fails by itself (4).
pub fn run(args: &ValidateArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let subjects = subjects(&args.subjects.specs())?;
    let mut remarks = readback::check(&subjects, &Limits::seconds(60))?;
    let (first, most) = (args.first_runs(), args.most_runs());
    if most < first {
        return Err(Error::usage(format!(
            "--most-runs {most} is less than --runs {first}; leave one of them out"
        )));
    }
    let mut all = subjects.clone();
    let mut commands = vec![args.command.clone(); all.len()];
    add_variants(&mut all, &mut commands, &args.variants.variants)?;
    all_there(&commands)?;
    // Written to the cache before the first run is timed or sampled.
    embed::path(Embedded::Worker)?;
    let folder = tempfile::tempdir().map_err(|e| Error::io("create", &std::env::temp_dir(), &e))?;
    let limits = Limits {
        timeout: args.timeout,
        cancel: Some(interrupt::flag()),
    };
    let count = subjects.len() as u64;
    let recorded = args.recordings.unwrap_or(first);
    let mut expected = count * u64::from(first + replayed::TIMED)
        + all.len() as u64 * u64::from(first)
        + u64::from(2 * recorded + programs::own_runs(args) + replayed::TIMED);
    let trial = Trial {
        args,
        terminal,
        folder: folder.path(),
        brought: programs::brought(args, &limits),
        limits,
        progress: Progress::new(terminal, expected),
        commands,
    };
    interrupt::install();
    let watch = Watch::new();
    let mut recordings = Recordings::default();
    recordings.up_to(1, &trial)?;
    // Without a recording there is nothing to go on with.
    if interrupt::requested() {
        return interrupted(&trial);
    }
    let in_place = programs::in_place(&all, trial.brought.as_ref(), &mut remarks);
    let mut sides = Sides {
        subjects: &subjects,
        in_place: &in_place,
        own: programs::own_mappings(&trial),
        recordings,
        peaks: Rounds::new(subjects.len()),
        runs: Rounds::new(all.len()),
    };
    let mut wanted = vec![first; all.len()];
    sides.up_to(&wanted, &trial, &mut remarks)?;
    let (times, harness_s) = replayed::times(&sides.recordings, &subjects, &trial)?;
    loop {
        let threads = sides.recordings.threads();
        let (peaks, runs) = (&sides.peaks.samples, &sides.runs.samples);
        let further = further(&wanted, most, threads, peaks, runs);
        let added: u32 = further
            .iter()
            .zip(&wanted)
            .map(|(new, old)| new - old)
            .sum();
        if added == 0 || interrupt::requested() {
            break;
        }
        wanted = further;
        let longest = wanted.iter().copied().max().unwrap_or(first);
        let recorded = args.recordings.unwrap_or(longest);
        let new = u64::from(recorded).saturating_sub(sides.recordings.traces.len() as u64);
        expected += 2 * new + 2 * u64::from(added);
        trial.progress.expect(expected);
        sides.up_to(&wanted, &trial, &mut remarks)?;
    }
    if interrupt::requested() {
        return interrupted(&trial);
    }
    trial.progress.clear();
    let beside = watch.end();
    let Sides {
        recordings,
        peaks,
        runs,
        own,
        ..
    } = sides;
    let threads = recordings.threads();
    let metrics = &args.metrics.metrics;
    let measured = validation::measured(&all, metrics, &runs.samples);
    let mut rows = rows(&all, threads, peaks.samples, times, runs.samples);
    for (row, metrics) in rows.iter_mut().zip(measured) {
        row.metrics = metrics;
    }
    for ((row, subject), in_place) in rows.iter_mut().zip(&subjects).zip(&in_place) {
        row.asked = underneath::asked(row, subject, in_place, &recordings, &trial);
    }
    trial.progress.clear();
    let facts = Facts {
        command: args
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        runs: first,
        most_runs: most,
        recordings: recordings.traces.len() as u32,
        disturbed_recordings: recordings.all_disturbed(),
        events: recordings.middle(|trace| trace.events),
        threads,
        peak_live_bytes: recordings.middle(|trace| trace.peak_live_bytes),
        complete: recordings.traces.iter().all(|trace| trace.complete),
        own_mappings_bytes: own.all(),
        harness_s,
        beside,
        remarks,
    };
    validation::print(&rows, &facts, args.format)?;
    if let Some(kept) = &args.keep_trace {
        terminal.say(&format!("trace: {}", kept.display()));
    }
    let whole = rows.iter().all(Row::is_whole);
    Ok(if whole {
        Outcome::Done
    } else {
        Outcome::Incomplete
    })
}

fn interrupted(trial: &Trial<'_>) -> Result<Outcome, Error> {
    trial.progress.clear();
    (trial.terminal).say("interrupted; nothing is kept of a validation");
    Ok(Outcome::Interrupted)
}

/// How often each subject is to be run: twice as often, at most `most` times, where its runs do not suffice for a verdict and
/// more of them might.
fn further(
    wanted: &[u32],
    most: u32,
    threads: u64,
    peaks: &[Samples<Seen>],
    runs: &[Samples<Run>],
) -> Vec<u32> {
    (wanted.iter().zip(runs).enumerate())
        .map(|(at, (wanted, runs))| {
            // Of a variant there is nothing to predict.
            let (Some(Ok(peaks)), Ok(runs)) = (peaks.get(at), runs) else {
                return *wanted;
            };
            let actual: Vec<Seen> = runs.iter().map(Run::peak).collect();
            // A machine on which most are disturbed would disturb most of the next ones.
            let busy = |samples: &[Seen]| 2 * validation::disturbed(samples) > samples.len();
            let hopeless = busy(peaks) || busy(&actual);
            match hopeless || validation::decided(threads, peaks, &actual) {
                true => *wanted,
                false => (2 * wanted).min(most).max(*wanted),
            }
        })
        .collect()
}

fn rows(
    subjects: &[Subject],
    threads: u64,
    peaks: Vec<Samples<Seen>>,
    times: Vec<Samples<f64>>,
    runs: Vec<Samples<Run>>,
) -> Vec<Row> {
    let (mut peaks, mut times) = (peaks.into_iter(), times.into_iter());
    (subjects.iter().zip(runs))
        .map(|(subject, runs)| {
            // Variants, behind the others, are not replayed.
            let peaks = peaks.next().unwrap_or(Ok(Vec::new()));
            let times = times.next().unwrap_or(Ok(Vec::new()));
            Row {
                variant: subject.is_variant(),
                ..Row::new(&subject.label, threads, peaks, times, runs)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_subjects_whose_runs_lie_too_far_apart_are_run_further_and_at_most_so_often() {
        let runs = |peaks: &[f64]| -> Samples<Run> {
            let run = |peak: &f64| Run {
                peak_bytes: *peak,
                ..Run::default()
            };
            Ok(peaks.iter().map(run).collect())
        };
        let steady = [100.0, 100.1, 100.2, 100.3];
        let wide = [80.0, 81.0, 120.0, 121.0];
        let seen = |values: &[f64], disturbed| -> Vec<Seen> {
            let one = |value: &f64| Seen {
                value: *value,
                disturbed,
            };
            values.iter().map(one).collect()
        };
        let peaks = [
            Ok(seen(&steady, false)),
            Ok(seen(&wide, false)),
            Err("it hangs".into()),
        ];
        let held_up = [Ok(seen(&wide, true)), Ok(seen(&steady, true)), Ok(vec![])];
        let runs = [runs(&steady), runs(&wide), runs(&wide)];
        let go = |wanted: &[u32], most| further(wanted, most, 1, &peaks, &runs);
        assert_eq!(go(&[4, 4, 4], 24), [4, 8, 4]);
        assert_eq!(go(&[4, 16, 4], 24), [4, 24, 4]);
        assert_eq!(go(&[4, 24, 4], 24), [4, 24, 4]);
        let on_a_busy_machine = further(&[4, 4, 4], 24, 1, &held_up, &runs);
        assert_eq!(on_a_busy_machine, [4, 4, 8], "more of them would not tell");
    }
}
