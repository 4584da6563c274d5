//! `heaplab trace scale`: more or less load, threads, time.

use super::{make, open, other_file};
use crate::cli::trace::TraceScale;
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use heaplab_workloads::trace::{self, ScaleOptions};

/// Does it.
///
/// # Errors
/// Nothing to scale; a file that cannot be read or written.
pub fn run(args: &TraceScale, terminal: &Terminal) -> Result<Outcome, Error> {
    let options = ScaleOptions {
        time: args.time,
        copies: args.copies,
        stagger_ns: args.stagger.map_or(0, |d| d.as_nanos() as u64),
        load: args.load,
    };
    if (options.time, options.copies, options.load) == (1.0, 1, 1.0) {
        return Err(Error::usage(
            "nothing is scaled; use '--time', '--copies' or '--load'",
        ));
    }
    let source = open(&args.file)?;
    other_file(&args.file, &args.out)?;
    make(terminal, &args.out, |progress| {
        trace::scale(&source, &args.out, &options, progress)
    })
}
