//! `heaplab completions SHELL`: the completion script on standard output.

use crate::cli::{Cli, CompletionsArgs};
use crate::error::{Error, Outcome};
use crate::out;
use clap::CommandFactory;

/// Prints the script.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<Outcome, Error> {
    // Into memory first: the generator panics when its writer fails, and a pipe may be closed early.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "heaplab", &mut script);
    out::print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}
