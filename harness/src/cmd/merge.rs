//! `heaplab merge RESULT… -o DIR`: joins the result sets of shards into one, as if one machine had run the plan.

use crate::cli::MergeArgs;
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use crate::{render, session};
use heaplab_reports::schema::Status;
use heaplab_reports::units;

/// Joins, writes and reports.
///
/// # Errors
/// If a result cannot be read, they do not belong together, or the folder cannot be written.
pub fn run(args: &MergeArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let mut shards = Vec::new();
    for path in &args.results {
        shards.push(heaplab_reports::load(path).map_err(render::error)?);
    }
    let joined = heaplab_reports::merge(&shards).map_err(render::error)?;
    session::claim(&args.out)?;
    heaplab_reports::save_atomic(&joined, &args.out).map_err(render::error)?;
    let count = units::counted(shards.len() as f64, "result set");
    terminal.say(&format!("joined {count}: {}", args.out.display()));
    if !args.no_report {
        let report = render::write_report(&joined, &args.out)?;
        terminal.say(&format!("report: {}", report.display()));
    }
    let failed = joined.cells.iter().any(|c| c.status != Status::Ok);
    Ok(if failed || !joined.complete {
        Outcome::Incomplete
    } else {
        Outcome::Done
    })
}
