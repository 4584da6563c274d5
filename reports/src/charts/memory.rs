//! Memory over progress: resident and live bytes, and their quotient.

use super::chart::{Axis, Chart, Lines, Series, Spec};
use super::subjects::{legend_name, look, ok_cells, stem};
use super::theme::Look;
use crate::schema::{ResultSet, Timeline};
use crate::units;
use crate::view::Group;

/// Points drawn per line; more would be thinner than a pixel.
const POINTS: usize = 100;
/// Below this many live bytes a quotient says nothing.
const LIVE_FLOOR: u64 = 65_536;

/// Resident bytes of every subject and live bytes, over calls done.
pub(super) fn resident(result: &ResultSet, group: &Group) -> Option<Chart> {
    let cells = with_timeline(result, group);
    let (_, first) = cells.first()?;
    let top = cells
        .iter()
        .flat_map(|(_, t)| &t.resident_bytes)
        .chain(&first.live_bytes)
        .max()?;
    let (unit, label) = match *top as f64 {
        b if b >= 2e9 => (1_073_741_824.0, "GiB"),
        b if b >= 2e6 => (1_048_576.0, "MiB"),
        _ => (1024.0, "KiB"),
    };
    let line = |t: &Timeline, bytes: &[u64]| -> Vec<(f64, f64)> {
        thin(t, |i| bytes.get(i).map(|b| *b as f64 / unit))
    };
    let mut series = vec![Series {
        name: "live".to_owned(),
        look: Look::live(),
        points: line(first, &first.live_bytes),
    }];
    for (subject, t) in &cells {
        series.push(Series {
            name: legend_name(result, subject),
            look: look(result, subject),
            points: line(t, &t.resident_bytes),
        });
    }
    Some(chart(
        group,
        "memory",
        format!("{}: resident and live bytes", group.workload),
        format!(
            "Resident memory of each subject over the calls done, with the live bytes (dotted) that all share. \
             Highest point: {}.",
            units::bytes(*top as f64)
        ),
        Lines {
            x: progress(&series),
            y: axis(label, 0.0, *top as f64 / unit * 1.05, tick),
            series,
            floor: None,
        },
    ))
}

/// Resident / live over calls done.
pub(super) fn footprint(result: &ResultSet, group: &Group) -> Option<Chart> {
    let cells = with_timeline(result, group);
    let mut series = Vec::new();
    for (subject, t) in &cells {
        let points = thin(t, |i| {
            let live = *t.live_bytes.get(i)?;
            (live >= LIVE_FLOOR)
                .then(|| *t.resident_bytes.get(i).unwrap_or(&0) as f64 / live as f64)
        });
        if !points.is_empty() {
            series.push(Series {
                name: legend_name(result, subject),
                look: look(result, subject),
                points,
            });
        }
    }
    // A few instants with almost nothing alive would flatten all the rest: the scale ends at the 95th
    // percentile's double, and lines leave the picture above it.
    let mut values: Vec<f64> = series
        .iter()
        .flat_map(|s| s.points.iter().map(|p| p.1))
        .collect();
    values.sort_by(f64::total_cmp);
    let typical = *values.get(values.len().saturating_sub(1) * 95 / 100)?;
    let highest = *values.last()?;
    let top = highest.min(typical * 2.0).max(1.2) * 1.05;
    let left = match highest > top {
        true => format!(
            " Lines that leave the picture at the top reach up to {}.",
            units::value("ratio", highest)
        ),
        false => String::new(),
    };
    Some(chart(
        group,
        "footprint",
        format!("{}: footprint", group.workload),
        format!(
            "Footprint (resident / live bytes) over the calls done; 1.0 would be perfect. Instants with less \
             than {} alive are left out.{left}",
            units::bytes(LIVE_FLOOR as f64)
        ),
        Lines {
            x: progress(&series),
            y: axis("resident / live", 0.0, top, |v| format!("{v:.1}x")),
            series,
            floor: None,
        },
    ))
}

/// A label of an axis: `5`, not `5.00`.
fn tick(v: f64) -> String {
    let text = units::significant(v);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn with_timeline<'a>(result: &'a ResultSet, group: &Group) -> Vec<(&'a str, &'a Timeline)> {
    ok_cells(result, group)
        .into_iter()
        .filter_map(|c| {
            Some((
                c.subject.as_str(),
                c.timeline.as_ref().filter(|t| t.ops.len() > 1)?,
            ))
        })
        .collect()
}

/// At most [`POINTS`] points: of each stretch the highest, so that no peak disappears.
fn thin(t: &Timeline, value: impl Fn(usize) -> Option<f64>) -> Vec<(f64, f64)> {
    let stretch = t.ops.len().div_ceil(POINTS).max(1);
    (0..t.ops.len())
        .step_by(stretch)
        .filter_map(|start| {
            (start..(start + stretch).min(t.ops.len()))
                .filter_map(|i| Some((t.ops[i] as f64, value(i)?)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
        })
        .collect()
}

fn progress(series: &[Series]) -> Axis {
    let top = series
        .iter()
        .flat_map(|s| s.points.iter().map(|p| p.0))
        .fold(1.0, f64::max);
    axis("calls done", 0.0, top, units::count)
}

fn axis(label: &'static str, low: f64, high: f64, text: fn(f64) -> String) -> Axis {
    Axis {
        label,
        low,
        high,
        log: false,
        text,
    }
}

fn chart(group: &Group, what: &str, title: String, caption: String, lines: Lines) -> Chart {
    Chart {
        stem: stem(group, what),
        title,
        caption,
        group: Some(group.id.clone()),
        size: (600, 300),
        footer: String::new(),
        spec: Spec::Lines(lines),
    }
}
