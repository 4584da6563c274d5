//! `heaplab report RESULT… [-o DIR]`: HTML, charts and summary again from stored results; nothing is measured.

use crate::cli::ReportArgs;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal};
use crate::render;
use heaplab_reports::RESULT_FILE;
use std::path::{Path, PathBuf};

/// Writes the report and prints its path.
///
/// # Errors
/// If a result cannot be read, several do not belong together, or the folder cannot be written.
pub fn run(args: &ReportArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let mut sets = Vec::new();
    for path in &args.results {
        sets.push(heaplab_reports::load(path).map_err(render::error)?);
    }
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => home_of(&args.results[0]),
    };
    let (result, verdict) = match <[_; 1]>::try_from(sets) {
        Ok([only]) => (only, render::verdict_in(&home_of(&args.results[0]))),
        Err(several) => {
            let joined = heaplab_reports::merge(&several).map_err(render::error)?;
            (joined, None)
        }
    };
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, &e))?;
    let report = render::write_judged(&result, &folder, verdict)?;
    terminal.detail(&format!(
        "{} cells of {}",
        result.cells.len(),
        result.started
    ));
    out::print(&report.display().to_string())?;
    Ok(Outcome::Done)
}

/// The folder of a result: itself, or where its result.json lies.
fn home_of(result: &Path) -> PathBuf {
    match result.file_name() {
        Some(name) if name == RESULT_FILE => result
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_path_buf(),
        _ if result.is_dir() => result.to_path_buf(),
        _ => result.with_extension("report"),
    }
}
