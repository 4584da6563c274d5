//! `heaplab gate`: measures base and head in one job, or takes stored results, and prints the verdict.
//!
//! Judging itself is the package `heaplab-ci`'s; here only measuring, printing and the exit status are.

mod baseline;
mod compare;
mod paired;
mod replaying;
mod self_test;

use crate::cli::options::Format;
use crate::cli::{BaselineCommand, GateCommand};
use crate::error::{Error, Outcome, lower_first};
use crate::out::{self, Terminal};
use heaplab_ci::{GateReport, Policy, render as faces};
use std::path::Path;

/// Measures and judges, or only judges.
///
/// # Errors
/// Wrong usage, unreadable policy or results, or an environment in which nothing can be measured or kept.
pub fn run(command: &GateCommand, terminal: &Terminal) -> Result<Outcome, Error> {
    match command {
        GateCommand::Run(args) => paired::run(args, terminal),
        GateCommand::Compare(args) => compare::run(args, terminal),
        GateCommand::Baseline(BaselineCommand::Update(args)) => baseline::update(args, terminal),
        GateCommand::Baseline(BaselineCommand::Check(args)) => baseline::check(args, terminal),
        GateCommand::SelfTest(args) => self_test::run(args, terminal),
    }
}

fn policy(path: Option<&Path>) -> Result<Policy, Error> {
    match path {
        None => Ok(Policy::default()),
        Some(path) => Policy::load(path).map_err(|e| Error::usage(lower_first(&e.to_string()))),
    }
}

/// Prints the verdict. A reader that has gone (`| head -1`) changes nothing in it: the exit status stays the verdict's.
fn print(
    report: &GateReport,
    format: Format,
    strict: bool,
    terminal: &Terminal,
) -> Result<(), Error> {
    let printed = match format {
        Format::Table => {
            let look = faces::Look {
                color: terminal.color,
                all: terminal.verbose,
                strict,
            };
            out::print(&faces::terminal(report, look))
        }
        Format::Markdown => out::print(&faces::markdown(report, strict)),
        Format::Json => out::print(&faces::json(report, strict)),
        Format::Csv => {
            let mut text = String::from("cell,metric,verdict,base,head,change\n");
            let number = |n: Option<f64>| n.map_or_else(String::new, |n| n.to_string());
            for row in report.rows.iter().chain(&report.controls) {
                let e = &row.evidence;
                text.push_str(&format!(
                    "\"{}\",{},{},{},{},{}\n",
                    row.cell.replace('"', "\"\""),
                    row.metric,
                    row.verdict.word(),
                    number(e.base),
                    number(e.head),
                    number(e.change)
                ));
            }
            out::print(&text)
        }
    };
    match printed {
        Err(Error::ClosedOutput) => Ok(()),
        other => other,
    }
}

fn outcome(report: &GateReport, strict: bool) -> Outcome {
    match report.exit_status(strict) {
        0 => Outcome::Done,
        1 => Outcome::Found,
        5 => Outcome::Inconclusive,
        6 => Outcome::Contaminated,
        _ => Outcome::Incomplete,
    }
}
