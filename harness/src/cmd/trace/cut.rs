//! `heaplab trace cut`: a part that replays.

use super::{chosen, make, of_process, open, other_file};
use crate::cli::trace::TraceCut;
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use heaplab_workloads::trace::{self, CutOptions};

/// Does it.
///
/// # Errors
/// An empty part; a thread or a process that is not in the trace.
pub fn run(args: &TraceCut, terminal: &Terminal) -> Result<Outcome, Error> {
    let options = CutOptions {
        from_event: args.from_event,
        to_event: args.to_event,
        from_ns: args.from.map(|d| d.as_nanos() as u64),
        to_ns: args.to.map(|d| d.as_nanos() as u64),
        threads: args.threads.clone(),
    };
    let bounded = options != CutOptions::default();
    if let Some((file, word)) = of_process(&args.file) {
        if bounded {
            return Err(Error::usage(format!(
                "a process is cut out whole: make a trace of process {word} first, and cut that"
            )));
        }
        let source = open(&file)?;
        other_file(&file, &args.out)?;
        let process = chosen(&source, &word, &args.file)?;
        return make(terminal, &args.out, |progress| {
            trace::one_process(&source, &args.out, process, progress)
        });
    }
    if !bounded {
        return Err(Error::usage(
            "no part is named; use '--from', '--to', '--from-event', '--to-event', '--thread' or FILE#PID",
        ));
    }
    let source = open(&args.file)?;
    other_file(&args.file, &args.out)?;
    make(terminal, &args.out, |progress| {
        trace::cut(&source, &args.out, &options, progress)
    })
}
