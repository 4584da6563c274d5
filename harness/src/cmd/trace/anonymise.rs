//! `heaplab trace anonymise`: a copy that can be shared.

use super::{make, open, other_file};
use crate::cli::trace::TraceAnonymise;
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use heaplab_workloads::trace;

/// Does it.
///
/// # Errors
/// A file that cannot be read or written.
pub fn run(args: &TraceAnonymise, terminal: &Terminal) -> Result<Outcome, Error> {
    let source = open(&args.file)?;
    other_file(&args.file, &args.out)?;
    make(terminal, &args.out, |progress| {
        trace::anonymise(&source, &args.out, progress)
    })
}
