//! `heaplab trace cut`: a part that replays.

use super::{make, open, other_file};
use crate::cli::trace::TraceCut;
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use heaplab_workloads::trace::{self, CutOptions};

/// Does it.
///
/// # Errors
/// An empty part; a thread that is not in the trace.
pub fn run(args: &TraceCut, terminal: &Terminal) -> Result<Outcome, Error> {
    let options = CutOptions {
        from_event: args.from_event,
        to_event: args.to_event,
        from_ns: args.from.map(|d| d.as_nanos() as u64),
        to_ns: args.to.map(|d| d.as_nanos() as u64),
        threads: args.threads.clone(),
    };
    if options == CutOptions::default() {
        return Err(Error::usage(
            "no part is named; use '--from', '--to', '--from-event', '--to-event' or '--thread'",
        ));
    }
    let source = open(&args.file)?;
    other_file(&args.file, &args.out)?;
    make(terminal, &args.out, |progress| {
        trace::cut(&source, &args.out, &options, progress)
    })
}
