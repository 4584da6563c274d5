//! `heaplab trace repack`: the same trace, small and whole.

use super::{make, open, other_file};
use crate::cli::trace::TraceRepack;
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use heaplab_workloads::trace;

/// Does it.
///
/// # Errors
/// A file that cannot be read or written.
pub fn run(args: &TraceRepack, terminal: &Terminal) -> Result<Outcome, Error> {
    let source = open(&args.file)?;
    other_file(&args.file, &args.out)?;
    make(terminal, &args.out, |progress| {
        trace::repack(&source, &args.out, args.level, &args.notes, progress)
    })
}
