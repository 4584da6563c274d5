//! `heaplab trace verify`: every rule of the format.

use crate::cli::ListFormat;
use crate::cli::trace::TraceFile;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal, human_count};
use crate::watch::Watch;
use crate::workload::trace_error;
use heaplab_workloads::trace::{Trace, TraceError};
use serde_json::json;

/// Does it.
///
/// # Errors
/// A broken rule, or something that is missing: exit status 1.
pub fn run(args: &TraceFile, terminal: &Terminal) -> Result<Outcome, Error> {
    let checked = Trace::open(&args.file).and_then(|trace| {
        let mut watch = Watch::new(terminal, "checking");
        trace.verify(&mut watch.events())
    });
    let summary = match checked {
        Ok(summary) => summary,
        Err(error @ TraceError::Io { .. }) => return Err(trace_error(error)),
        Err(error) => {
            let why = crate::error::lower_first(&error.to_string());
            if args.format == ListFormat::Json {
                out::print_json(&json!({"valid": false, "complete": false, "reason": why}))?;
            }
            return Err(Error::Verification(why));
        }
    };
    match args.format {
        ListFormat::Json => out::print_json(&json!({
            "valid": true, "complete": summary.complete, "missing": summary.missing,
            "events": summary.events, "allocations": summary.allocations, "frees": summary.frees,
        }))?,
        ListFormat::Table if summary.complete => out::print(&format!(
            "{}: whole, {} events agree with the summary",
            args.file.display(),
            human_count(summary.events)
        ))?,
        ListFormat::Table => {}
    }
    if summary.complete {
        return Ok(Outcome::Done);
    }
    let rest = match summary.events {
        0 => "it holds no event; record again".to_string(),
        n => format!(
            "what is there ({} events) is consistent and can be replayed",
            human_count(n)
        ),
    };
    Err(Error::Verification(format!(
        "'{}' is not whole: {}; {rest}",
        args.file.display(),
        summary.missing.join("; ")
    )))
}
