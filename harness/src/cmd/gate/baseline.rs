//! `heaplab gate baseline`: the stored counts, measured and written, or measured and compared with.

use super::compare;
use super::replaying::{Replaying, SUITE};
use crate::campaign::Finished;
use crate::cli::{BaselineArgs, BaselineCheckArgs, BaselineUpdateArgs};
use crate::cmd::run::subjects;
use crate::engine::Repetition;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal};
use crate::plan::{self, Kind};
use crate::session::Start;
use crate::{interrupt, render, workload};
use heaplab_ci::baseline::{Baseline, BaselineError};
use heaplab_ci::render as faces;
use heaplab_reports::{shell, write_atomic};

/// Two runs of each figure show whether it repeats.
const BLOCKS: u32 = 2;

/// Rewrites the file.
///
/// # Errors
/// Wrong usage; a figure that does not repeat or a cell that failed, as a baseline with holes would let changes pass; a file
/// that cannot be written.
pub fn update(args: &BaselineUpdateArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let policy = super::policy(args.shared.policy.as_deref())?;
    let old = match Baseline::read(&args.shared.file) {
        Ok(old) => Some(old),
        Err(BaselineError::Absent(_)) => None,
        // A damaged one is made anew, as its own message says; whatever else stands under that name is not overwritten.
        Err(BaselineError::Line { line, .. }) if line > 1 => None,
        Err(BaselineError::Line { .. }) => {
            return Err(Error::usage(format!(
                "'{}' is no baseline and is not overwritten; choose another name with --file",
                args.shared.file.display()
            )));
        }
        Err(error) => return Err(compare::error(error)),
    };
    let result = match &args.from {
        Some(path) => compare::load(path)?,
        None => {
            let finished = measure(&args.shared, old.as_ref(), terminal)?;
            if finished.outcome == Outcome::Interrupted {
                return Ok(interrupted(&finished, terminal));
            }
            finished.result
        }
    };
    let new = Baseline::from_result(&result, &policy).map_err(compare::error)?;
    new.write(&args.shared.file).map_err(compare::error)?;
    out::print(&format!(
        "{} in {}{}\n",
        figures(new.values.len()),
        shell::path(&args.shared.file),
        old.map_or_else(String::new, |old| format!(": {}", difference(&old, &new)))
    ))?;
    Ok(Outcome::Done)
}

/// Measures the same and judges it by the file.
///
/// # Errors
/// As [`update`], and where there is no file.
pub fn check(args: &BaselineCheckArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let policy = super::policy(args.shared.policy.as_deref())?;
    let stored = Baseline::read(&args.shared.file).map_err(compare::error)?;
    let finished = measure(&args.shared, Some(&stored), terminal)?;
    if finished.outcome == Outcome::Interrupted {
        return Ok(interrupted(&finished, terminal));
    }
    let mut report = stored.compare(&finished.result, &policy);
    report.base = shell::path(&args.shared.file);
    for (name, text) in faces::files(&report, args.strict) {
        write_atomic(&finished.folder.join(name), text.as_bytes()).map_err(render::error)?;
    }
    super::print(&report, args.format, args.strict, terminal)?;
    terminal.say(&format!("results: {}", shell::path(&finished.folder)));
    Ok(super::outcome(&report, args.strict))
}

fn interrupted(finished: &Finished, terminal: &Terminal) -> Outcome {
    terminal.say(&format!(
        "interrupted; finished runs are in {}",
        shell::path(&finished.folder)
    ));
    Outcome::Interrupted
}

/// Memory and counts of the subjects, with the seed of the stored ones where none was given.
fn measure(
    args: &BaselineArgs,
    stored: Option<&Baseline>,
    terminal: &Terminal,
) -> Result<Finished, Error> {
    interrupt::install();
    let kinds = workload::kinds(&args.workload, &[Kind::Memory, Kind::Counts]);
    if kinds
        .iter()
        .any(|k| matches!(k, Kind::Speed | Kind::Latency))
    {
        return Err(Error::usage(
            "--measure: a baseline holds memory and counts; times are compared in one job only, by `heaplab gate run`",
        ));
    }
    if args.workload.idle.is_some() {
        return Err(Error::usage(
            "--idle: a baseline holds no idle tails; `heaplab run --idle` shows them",
        ));
    }
    let subjects = subjects(&args.subjects.specs())?;
    let kept = stored.and_then(|stored| stored.header.get("seed")?.parse().ok());
    let seed = (args.workload.seed)
        .or(kept)
        .unwrap_or_else(plan::draw_seed);
    let suite = args.suite.as_deref().unwrap_or(SUITE);
    let replaying = Replaying {
        workloads: &args.workloads,
        suite,
        parameters: &args.workload,
        kinds: &kinds,
        only: None,
        repetition: Repetition::Blocks(BLOCKS),
        least_blocks: BLOCKS,
        timeout: args.timeout,
        out: args.out.as_deref(),
        name: "gate-baseline",
        report: false,
    };
    replaying.go(&Start::now(seed), &subjects, terminal)
}

fn figures(count: usize) -> String {
    format!("{count} figure{}", if count == 1 { "" } else { "s" })
}

/// What a reader looks for in the file's diff, in words.
fn difference(old: &Baseline, new: &Baseline) -> String {
    let (mut same, mut changed, mut added) = (0, 0, 0);
    for (key, stored) in &new.values {
        match old.values.get(key) {
            Some(before) if before == stored => same += 1,
            Some(_) => changed += 1,
            None => added += 1,
        }
    }
    let gone = (old.values.keys())
        .filter(|key| !new.values.contains_key(key))
        .count();
    let parts = [
        (changed, "changed"),
        (added, "new"),
        (gone, "gone"),
        (same, "as before"),
    ];
    let said: Vec<String> = (parts.iter())
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    said.join(", ")
}
