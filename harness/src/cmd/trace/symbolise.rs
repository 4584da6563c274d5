//! `heaplab trace symbolise`: stores names with a trace.

use crate::cli::trace::TraceSymbolise;
use crate::error::{Error, Outcome};
use crate::naming;
use crate::out::Terminal;

/// Writes the trace with the names that can be resolved here.
///
/// # Errors
/// A trace without stacks; a file that cannot be read or written.
pub fn run(args: &TraceSymbolise, terminal: &Terminal) -> Result<Outcome, Error> {
    let out = args.out.as_ref().unwrap_or(&args.trace);
    naming::embed(&args.trace, out)?;
    terminal.say(&format!("wrote {} with its names", out.display()));
    Ok(Outcome::Done)
}
