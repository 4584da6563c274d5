//! Writing a report folder: HTML, charts, summary, histogram logs; each file whole or not there.

use crate::charts::{self, Chart};
use crate::error::ReportError;
use crate::schema::{ResultSet, Status};
use crate::view::View;
use crate::{export, html, latency, store, units};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a report contains beyond the result set.
#[derive(Clone, Debug, Default)]
pub struct ReportOptions {
    /// Analysis text by name of workload: what it stresses, what a change means, where it comes from; an empty line parts
    /// paragraphs.
    pub analysis: BTreeMap<String, String>,
    /// What a gate said of it, as it was printed; stands above everything else.
    pub verdict: Option<String>,
    /// Leave out the files under `charts/` (the HTML still holds its charts).
    pub no_chart_files: bool,
}

/// Writes `report.html`, `charts/*.png`, `charts/*.svg`, `summary.md` and `histograms/*.hlog` into `dir`.
/// Every file is written to a temporary name and renamed. Returns the paths, the HTML report first.
pub fn write_report(
    result: &ResultSet,
    dir: &Path,
    options: &ReportOptions,
) -> Result<Vec<PathBuf>, ReportError> {
    let view = View::new(result);
    let charts = charts::all(result, &view);
    let page = html::render(result, &view, &charts, options)?;
    let mut files: Vec<(PathBuf, Vec<u8>)> = vec![
        (dir.join("report.html"), page.into_bytes()),
        (
            dir.join("summary.md"),
            export::explained(result, &options.analysis).into_bytes(),
        ),
    ];
    if !options.no_chart_files {
        let drawn: Vec<_> = charts
            .par_iter()
            .map(|c| chart_files(c, dir))
            .collect::<Result<_, _>>()?;
        files.extend(drawn.into_iter().flatten());
    }
    for cell in result
        .cells
        .iter()
        .filter(|c| c.status == Status::Ok && !c.latency.is_empty())
    {
        let seconds = cell
            .timeline
            .as_ref()
            .and_then(|t| t.time_ns.last())
            .map_or(1.0, |ns| *ns as f64 / 1e9);
        let path = dir
            .join("histograms")
            .join(format!("{}.hlog", units::file_stem(&cell.id())));
        files.push((
            path,
            latency::interval_log(&cell.id(), &cell.latency, seconds)?,
        ));
    }
    for (path, bytes) in &files {
        store::write_atomic(path, bytes)?;
    }
    Ok(files.into_iter().map(|f| f.0).collect())
}

fn chart_files(chart: &Chart, dir: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, ReportError> {
    let base = dir.join("charts");
    Ok(vec![
        (base.join(format!("{}.png", chart.stem)), chart.png()?),
        (
            base.join(format!("{}.svg", chart.stem)),
            chart.svg_file()?.into_bytes(),
        ),
    ])
}
