//! A chart as data, before it is drawn.

use super::theme::Look;
use serde::Serialize;

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
    /// What the ratios across are of: time, or instructions.
    pub across: &'static str,
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
