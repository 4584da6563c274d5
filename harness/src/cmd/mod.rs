//! One file a subcommand; this one only dispatches.

mod commands;
mod completions;
mod diff;
mod doctor;
mod gate;
mod licenses;
mod list;
mod man;
mod merge;
mod profile;
mod record;
mod report;
mod run;
mod trace;
mod validate;

use crate::cli::{Cli, Command};
use crate::error::{Error, Outcome};
use crate::out::Terminal;

/// Runs the command.
///
/// # Errors
/// What stopped it; the exit status is the error's.
pub fn dispatch(cli: Cli) -> Result<Outcome, Error> {
    let terminal = Terminal::new(&cli.global);
    match cli.command {
        Command::Run(args) => run::run(&args, &terminal),
        Command::Record(args) => record::run(&args, &terminal),
        Command::Profile(args) => profile::run(&args, &terminal),
        Command::Trace(command) => trace::run(&command, &terminal),
        Command::Validate(args) => validate::run(&args, &terminal),
        Command::Diff(args) => diff::run(&args, &terminal),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Report(args) => report::run(&args, &terminal),
        Command::Merge(args) => merge::run(&args, &terminal),
        Command::Gate(args) => gate::run(&args, &terminal),
        Command::List(args) => list::run(&args),
        Command::Man => man::run(),
        Command::Licenses => licenses::run(),
    }
}
