//! Charts as data ([`Chart`]) and their rendering to PNG and SVG by one piece of code.
//!
//! A font travels with the package, so that no machine needs fonts and bytes are the same everywhere.

mod chart;
mod draw;
mod latency;
mod memory;
mod pieces;
mod ratios;
mod render;
mod subjects;
mod theme;

use crate::schema::ResultSet;
use crate::view::View;
pub(crate) use chart::Chart;
pub(crate) use theme::FONT;
use theme::Look;

/// All charts that the data allow, in the order of the report.
pub(crate) fn all(result: &ResultSet, view: &View) -> Vec<Chart> {
    let mut charts = Vec::new();
    let m = &result.machine;
    let footer = format!(
        "{} · {} CPUs · kernel {} · heaplab {} · seed {} · {}",
        m.cpu,
        m.cpus,
        m.kernel,
        result.heaplab.version,
        result.seed,
        result.started.get(..10).unwrap_or(&result.started)
    );
    charts.extend(ratios::dots(result, view));
    charts.extend(ratios::scatter(result, view));
    for group in &view.groups {
        charts.extend(memory::resident(result, group));
        charts.extend(memory::footprint(result, group));
        charts.extend(latency::curves(result, group));
    }
    for chart in &mut charts {
        chart.footer.clone_from(&footer);
    }
    charts
}

/// Colour of the n-th subject, as CSS.
pub(crate) fn colour_of(n: usize) -> String {
    Look::of(n).css()
}
