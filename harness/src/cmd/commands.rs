//! `--print-command`: what a plan would start, each command under a line that says what it measures.

use crate::error::{Error, Outcome};
use crate::plan::{Comparison, Kind};
use crate::program::program_command;
use crate::subject::Subject;
use crate::{exec, out, replays};
use heaplab_worker::protocol::{Mode, Touch};
use std::ffi::OsString;

/// The workers of replays.
///
/// # Errors
/// A worker or a library that cannot be written to the cache; a closed output.
pub fn replays(
    comparisons: &[Comparison],
    subjects: &[Subject],
    shape: &dyn Fn(Kind) -> (Mode, Touch),
) -> Result<Outcome, Error> {
    let mut text = String::new();
    for comparison in comparisons {
        for kind in &comparison.kinds {
            for subject in subjects {
                let library = subject.library.as_deref();
                let spec = replays::spec(comparison, *kind, shape(*kind), library, false);
                let command = exec::worker_command(subject, &spec)
                    .map_err(|failure| Error::environment(failure.reason))?;
                let (title, kind) = (comparison.title(), kind.name());
                text.push_str(&format!("# {title} {kind} {}\n{command}\n", subject.label));
            }
        }
    }
    out::print(&text)?;
    Ok(Outcome::Done)
}

/// A program under each subject; `commands` has one for each of them.
///
/// # Errors
/// A library that cannot be written to the cache; a closed output.
pub fn programs(
    comparison: &Comparison,
    subjects: &[Subject],
    commands: &[Vec<OsString>],
) -> Result<Outcome, Error> {
    let mut text = String::new();
    for (subject, command) in subjects.iter().zip(commands) {
        let (title, machine) = (&comparison.workload, &comparison.machine);
        let command = program_command(subject, command, machine)?;
        text.push_str(&format!("# {title} {}\n{command}\n", subject.label));
    }
    out::print(&text)?;
    Ok(Outcome::Done)
}
