//! `heaplab trace …`: looks at traces, checks them, makes others of them. One file a subcommand.

mod anonymise;
mod cut;
mod export;
mod import;
mod info;
mod merge;
mod model;
mod processes;
mod repack;
mod rows;
mod scale;
mod stats;
mod symbolise;
mod verify;

use crate::cli::trace::TraceCommand;
use crate::error::{Error, Outcome};
use crate::out::{Terminal, human_bytes, human_count};
use crate::watch::Watch;
use crate::workload::trace_error;
use heaplab_reports::shell;
use heaplab_workloads::trace::{Trace, TraceError, TraceSummary};
use std::path::{Path, PathBuf};

/// Does it.
///
/// # Errors
/// A file that cannot be read or written; for `verify` a broken rule, with exit status 1.
pub fn run(command: &TraceCommand, terminal: &Terminal) -> Result<Outcome, Error> {
    match command {
        TraceCommand::Info(args) => info::run(args),
        TraceCommand::Verify(args) => verify::run(args, terminal),
        TraceCommand::Stats(args) => stats::run(args, terminal),
        TraceCommand::Cut(args) => cut::run(args, terminal),
        TraceCommand::Scale(args) => scale::run(args, terminal),
        TraceCommand::Merge(args) => merge::run(args, terminal),
        TraceCommand::Anonymise(args) => anonymise::run(args, terminal),
        TraceCommand::Model(args) => model::run(args, terminal),
        TraceCommand::Repack(args) => repack::run(args, terminal),
        TraceCommand::Symbolise(args) => symbolise::run(args, terminal),
        TraceCommand::Import(args) => import::run(args, terminal),
        TraceCommand::Export(args) => export::run(args, terminal),
    }
}

fn open(path: &Path) -> Result<Trace, Error> {
    match of_process(path) {
        None => Trace::open(path).map_err(trace_error),
        Some((file, process)) => Err(Error::usage(format!(
            "'{}' is no file, and here '{}' is taken as a whole; `heaplab trace cut {} -o OUT` makes a trace of process {process} alone",
            path.display(),
            file.display(),
            shell::path(path)
        ))),
    }
}

/// The process of a trace that a word names.
pub(super) fn chosen(trace: &Trace, word: &str, shown: &Path) -> Result<u32, Error> {
    trace.find_process(word).map_err(|reason| {
        Error::usage(format!(
            "'{}' cannot be chosen: {reason}; `heaplab trace info` lists the processes of a trace",
            shown.display()
        ))
    })
}

/// `FILE#PROCESS` where that is no file and FILE is one.
pub(super) fn of_process(path: &Path) -> Option<(PathBuf, String)> {
    let named = path.to_str()?;
    let (file, process) = named.rsplit_once('#')?;
    let file = PathBuf::from(file);
    (!process.is_empty() && !path.exists() && file.exists()).then(|| (file, process.to_owned()))
}

/// Makes the trace `out` by `work`, which gets a progress function: watched, and with a line about the result.
fn make(
    terminal: &Terminal,
    out: &Path,
    work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> Result<TraceSummary, TraceError>,
) -> Result<Outcome, Error> {
    let mut watch = Watch::new(terminal, "writing").removing(out);
    let made = work(&mut watch.events());
    watch.clear();
    let summary = made.map_err(trace_error)?;
    terminal.say(&format!(
        "wrote {}: {} events, peak live {}",
        out.display(),
        human_count(summary.events),
        human_bytes(summary.peak_live_bytes)
    ));
    for what in &summary.missing {
        terminal.say(&format!("! missing: {what}"));
    }
    if summary.foreign_frees + summary.lost_frees > 0 {
        terminal.say(&format!(
            "! {} frees of unknown blocks were dropped, {} missing ones made up",
            summary.foreign_frees, summary.lost_frees
        ));
    }
    Ok(Outcome::Done)
}

/// A trace cannot be read and replaced at the same time.
fn other_file(from: &Path, to: &Path) -> Result<(), Error> {
    match (from.canonicalize(), to.canonicalize()) {
        (Ok(from), Ok(to)) if from == to => Err(Error::usage(format!(
            "'{}' would replace itself; choose another file with --out",
            to.display()
        ))),
        _ => Ok(()),
    }
}
