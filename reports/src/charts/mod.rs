//! Charts as data ([`Chart`]) and their rendering to PNG and SVG by one piece of code.
//!
//! A font travels with the package, so that no machine needs fonts and bytes are the same everywhere.

mod draw;
mod latency;
mod memory;
mod pieces;
mod ratios;
mod theme;

use crate::error::ReportError;
use crate::schema::ResultSet;
use crate::units;
use crate::view::{self, Group, View};
use draw::Frame;
use plotters::prelude::*;
use serde::Serialize;
pub(crate) use theme::FONT;
use theme::{INK_PNG, INK_SVG, Look};

/// A chart before it is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// File name without extension.
    pub stem: String,
    /// Headline within the picture.
    pub title: String,
    /// What to see, for the caption and for readers who cannot see it.
    pub caption: String,
    /// Fragment id of its group; `None` for charts over all workloads.
    pub group: Option<String>,
    /// Size in CSS pixels.
    pub size: (u32, u32),
    /// Small print: where and how it was measured.
    pub footer: String,
    pub spec: Spec,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(crate) enum Spec {
    Lines(Lines),
    Dots(Dots),
    Scatter(Scatter),
}

/// Lines over a common axis.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// Horizontal dashed line with its name: the clock's floor.
    pub floor: Option<(f64, String)>,
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub label: &'static str,
    pub low: f64,
    pub high: f64,
    pub log: bool,
    /// Text of a tick.
    pub text: fn(f64) -> String,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub name: String,
    pub look: Look,
    pub points: Vec<(f64, f64)>,
}

/// Ratios with their intervals, one line each.
#[derive(Clone, Debug)]
pub(crate) struct Dots {
    /// Heads of the panels beside each other.
    pub panels: Vec<String>,
    pub groups: Vec<(String, Vec<DotRow>)>,
}

/// One subject in [`Dots`].
#[derive(Clone, Debug)]
pub(crate) struct DotRow {
    pub name: String,
    pub look: Look,
    /// By panel: median, low, high, whether the ends are an interval.
    pub ratios: Vec<Option<(f64, f64, f64, bool)>>,
}

/// Time against memory.
#[derive(Clone, Debug)]
pub(crate) struct Scatter {
    pub points: Vec<ScatterPoint>,
    /// Whether points carry names (one workload) or only the legend does.
    pub named: bool,
    /// Label of the subject at 1, 1.
    pub baseline: String,
}

/// One cell in [`Scatter`]: ratios to the baseline with ends.
#[derive(Clone, Debug)]
pub(crate) struct ScatterPoint {
    pub name: String,
    pub look: Look,
    pub x: (f64, f64, f64),
    pub y: (f64, f64, f64),
}

/// What the page's script needs to show values under the pointer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Hover {
    /// Plot area in pixels: left, right, top, bottom.
    pub px: [i32; 4],
    /// Range and whether it is logarithmic.
    pub x: (f64, f64, bool),
    pub y_label: String,
    pub x_label: String,
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

impl Chart {
    /// SVG text: ink is `currentColor`, no background, so that it follows the page it is put into.
    pub fn svg(&self) -> Result<(String, Option<Hover>), ReportError> {
        theme::register_font();
        let mut text = String::new();
        let hover;
        {
            let root = SVGBackend::with_string(&mut text, self.size).into_drawing_area();
            hover = draw::chart(
                &root,
                self,
                Frame {
                    ink: INK_SVG,
                    scale: 1.0,
                },
            )
            .and_then(|h| root.present().map(|()| h))
            .map_err(|e| self.fail(e))?;
        }
        Ok((theme::follow_page(&text), hover))
    }

    /// SVG as a file of its own: light or dark as the reader's system is.
    pub fn svg_file(&self) -> Result<String, ReportError> {
        Ok(theme::stand_alone(&self.svg()?.0, &self.caption))
    }

    /// PNG, light, twice the size of the SVG's pixels horizontally and vertically where that is useful.
    pub fn png(&self) -> Result<Vec<u8>, ReportError> {
        theme::register_font();
        let scale = 1.6_f64;
        let (w, h) = (
            (f64::from(self.size.0) * scale) as u32,
            (f64::from(self.size.1) * scale) as u32,
        );
        let mut pixels = vec![255_u8; (w * h * 3) as usize];
        {
            let root = BitMapBackend::with_buffer(&mut pixels, (w, h)).into_drawing_area();
            root.fill(&WHITE).map_err(|e| self.fail(e))?;
            draw::chart(
                &root,
                self,
                Frame {
                    ink: INK_PNG,
                    scale,
                },
            )
            .and_then(|h| root.present().map(|()| h))
            .map_err(|e| self.fail(e))?;
        }
        theme::encode_png(&pixels, w, h).map_err(|e| self.fail(e))
    }

    fn fail(&self, e: impl std::fmt::Display) -> ReportError {
        ReportError::Chart {
            name: self.stem.clone(),
            message: e.to_string(),
        }
    }
}

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

/// Look of a subject: the same in every chart of a result set.
fn look(result: &ResultSet, subject: &str) -> Look {
    Look::of(
        result
            .subjects
            .iter()
            .position(|s| s.name == subject)
            .unwrap_or(0),
    )
}

/// Colour of the n-th subject, as CSS.
pub(crate) fn colour_of(n: usize) -> String {
    Look::of(n).css()
}

/// Name of a subject in legends.
fn legend_name(result: &ResultSet, subject: &str) -> String {
    let ours = result
        .subjects
        .iter()
        .any(|s| s.name == subject && s.is_ours());
    if ours {
        format!("{subject} (ours)")
    } else {
        subject.to_owned()
    }
}

/// Cells of a group that have figures.
fn ok_cells<'a>(result: &'a ResultSet, group: &Group) -> Vec<&'a crate::schema::Cell> {
    let mut cells = view::cells(result, &group.key);
    cells.retain(|c| c.status == crate::schema::Status::Ok);
    cells
}

fn stem(group: &Group, what: &str) -> String {
    units::file_stem(&format!("{}-{what}", group.id))
}
