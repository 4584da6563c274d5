//! `heaplab trace merge`: several traces in one.

use super::{make, open, other_file};
use crate::cli::trace::{StartArg, TraceMerge};
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use heaplab_workloads::trace::{self, MergeOptions, MergeStart};

/// Does it.
///
/// # Errors
/// A file that cannot be read or written.
pub fn run(args: &TraceMerge, terminal: &Terminal) -> Result<Outcome, Error> {
    let mut sources = Vec::new();
    for file in &args.files {
        sources.push(open(file)?);
        other_file(file, &args.out)?;
    }
    let options = MergeOptions {
        start: match args.start {
            StartArg::Together => MergeStart::Together,
            StartArg::After => MergeStart::After,
        },
        one_process: args.one_process,
    };
    make(terminal, &args.out, |progress| {
        trace::merge(&sources, &args.out, &options, progress)
    })
}
