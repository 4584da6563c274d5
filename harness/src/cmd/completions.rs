//! `heaplab completions SHELL`: the completion script on standard output.

use crate::cli::{CompletionsArgs, help};
use crate::error::{Error, Outcome};
use crate::out;

/// Prints the script.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<Outcome, Error> {
    // Into memory first: the generator panics when its writer fails, and a pipe may be closed early.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut help::unfolded(), "heaplab", &mut script);
    out::print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}
