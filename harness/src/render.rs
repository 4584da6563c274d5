//! Prints a result set on standard output in the chosen format, and says on standard error where it lies.

use crate::cli::options::Format;
use crate::error::Error;
use crate::out::{self, Terminal};
use heaplab_ci::render::VERDICT_FILE;
use heaplab_reports::schema::{Cell, ResultSet};
use heaplab_reports::{ReportError, ReportOptions, Style, export, shell, table};
use heaplab_workloads::{Model, Workload};
use std::path::{Path, PathBuf};

/// Prints `result`; `report` is the HTML report where one was written.
///
/// # Errors
/// If standard output cannot be written.
pub fn result(
    result: &ResultSet,
    format: Format,
    terminal: &Terminal,
    report: Option<&Path>,
) -> Result<(), Error> {
    let shown = report.map(|p| p.display().to_string());
    match format {
        Format::Table => out::print(&table::render_within(
            result,
            style(terminal),
            shown.as_deref(),
            out::width(),
        )),
        Format::Markdown => out::print(&export::markdown(result)),
        Format::Json => out::print(&export::json(result)),
        Format::Csv => out::print(&export::csv(result)),
    }?;
    if format != Format::Table
        && let Some(report) = shown
    {
        terminal.say(&format!("report: {report}"));
    }
    Ok(())
}

/// Writes the report's files into `folder`; the path of the HTML page.
///
/// # Errors
/// If a file cannot be written.
pub fn write_report(result: &ResultSet, folder: &Path) -> Result<PathBuf, Error> {
    write_judged(result, folder, None)
}

/// What a gate said of the result in `folder`, if one did.
pub fn verdict_in(folder: &Path) -> Option<String> {
    heaplab_bounded::read_text(&folder.join(VERDICT_FILE), heaplab_bounded::MIB).ok()
}

/// As [`write_report`], under the verdict of a gate.
///
/// # Errors
/// If a file cannot be written.
pub fn write_judged(
    result: &ResultSet,
    folder: &Path,
    verdict: Option<String>,
) -> Result<PathBuf, Error> {
    let mut options = ReportOptions {
        verdict,
        ..ReportOptions::default()
    };
    // Models of the user's own are files that the command names, if they are still there.
    let own: Vec<Model> = (result.command.iter())
        .filter(|word| word.ends_with(".toml"))
        .filter_map(|word| Model::load(Path::new(word)).ok())
        .collect();
    for cell in &result.cells {
        let known = Model::builtin(&cell.workload)
            .or_else(|| own.iter().find(|m| m.name() == cell.workload).cloned());
        let told = match known {
            Some(model) => Some(of_model(&model)),
            None => recorded(result, cell),
        };
        if let Some(told) = told {
            options.analysis.insert(cell.workload.clone(), told);
        }
    }
    let files = heaplab_reports::write_report(result, folder, &options).map_err(error)?;
    Ok(files
        .into_iter()
        .next()
        .unwrap_or_else(|| folder.to_path_buf()))
}

/// What a model stresses, what a change of it means, and where it is described.
fn of_model(model: &Model) -> String {
    let definition = model.definition();
    let analysis = definition.analysis.trim();
    match definition.sources.as_slice() {
        [] => analysis.to_owned(),
        [source] => format!("{analysis}\n\nSource: {source}."),
        sources => format!("{analysis}\n\nSources: {}.", sources.join("; ")),
    }
}

/// What a built-in trace is of, and how it was recorded.
fn recorded(result: &ResultSet, cell: &Cell) -> Option<String> {
    let trace = Workload::resolve(&cell.workload).ok()?;
    let mut purpose = trace.info().ok()?.purpose;
    if let Some(first) = purpose.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let facts = (result.workloads.iter()).find(|facts| facts.workload_hash == cell.workload_hash);
    let command = facts
        .and_then(|facts| facts.recorded.as_ref())
        .map(|recorded| shell::command(&recorded.command))
        .filter(|command| !command.is_empty());
    Some(match command {
        Some(command) => format!("{purpose}.\n\nRecorded from: {command}"),
        None => format!("{purpose}."),
    })
}

/// Colour or none.
pub fn style(terminal: &Terminal) -> Style {
    if terminal.color {
        Style::Ansi
    } else {
        Style::Plain
    }
}

/// An error of the reports package with its exit status: what is not a result set is wrong usage, what the file system
/// refuses is the environment. Never 1: for a gate that is a regression, and a damaged baseline is none.
pub fn error(error: ReportError) -> Error {
    match error {
        ReportError::Read { path, source } => Error::io("read", &path, &source),
        ReportError::Write { path, source } => Error::io("write", &path, &source),
        ReportError::NoResult { .. }
        | ReportError::Unfinished { .. }
        | ReportError::Schema { .. }
        | ReportError::Merge { .. }
        | ReportError::Malformed { .. }
        | ReportError::Histogram { .. } => Error::Usage(error.to_string()),
        _ => Error::Environment(error.to_string()),
    }
}
