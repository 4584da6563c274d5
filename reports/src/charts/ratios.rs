//! Comparisons with the baseline: ratios with intervals, and time against memory.

use super::chart::{Chart, DotRow, Dots, Scatter, ScatterPoint, Spec};
use super::subjects::{legend_name, look, ok_cells};
use crate::builder::BASELINE;
use crate::schema::{Cell, IntervalKind, Ratio, ResultSet};
use crate::stats;
use crate::view::{View, common_time_word, memory_metric, time_metric};

fn ratio(cell: &Cell, metric: Option<&str>) -> Option<Ratio> {
    cell.metrics.get(metric?)?.ratio_to_system
}

/// A word that begins a sentence.
fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// The baseline in a sentence.
fn in_words(base: &str) -> &str {
    match base {
        BASELINE => "the system allocator",
        label => label,
    }
}

/// Ratios of time and peak memory with their ends, every subject on every workload.
pub(super) fn dots(result: &ResultSet, view: &View) -> Option<Chart> {
    type Get = fn(&Cell) -> Option<Ratio>;
    let base = result.baseline();
    let word = common_time_word(&result.cells).unwrap_or("time");
    let panels: [(String, Get); 2] = [
        (format!("{word} / {base}'s"), |c| ratio(c, time_metric(c))),
        (format!("peak memory / {base}'s"), |c| {
            ratio(c, memory_metric(c))
        }),
    ];
    let comparable = |g: &crate::view::Group| -> Vec<&Cell> {
        ok_cells(result, g)
            .into_iter()
            .filter(|c| c.subject != base)
            .collect()
    };
    let used: Vec<(String, Get)> = panels
        .into_iter()
        .filter(|(_, get)| {
            view.groups
                .iter()
                .any(|g| comparable(g).into_iter().any(|c| get(c).is_some()))
        })
        .collect();
    if used.is_empty() {
        return None;
    }
    let groups: Vec<(String, Vec<DotRow>)> = view
        .groups
        .iter()
        .map(|g| {
            let rows = comparable(g).into_iter().map(|c| DotRow {
                name: legend_name(result, &c.subject),
                look: look(result, &c.subject),
                ratios: used
                    .iter()
                    .map(|(_, get)| {
                        let r = get(c)?;
                        Some((
                            r.median,
                            r.low,
                            r.high,
                            stats::ratio_kind(&r) == IntervalKind::Ci95,
                        ))
                    })
                    .collect(),
            });
            (
                g.workload.clone(),
                rows.filter(|r| r.ratios.iter().any(Option::is_some))
                    .collect::<Vec<_>>(),
            )
        })
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let rows: usize = groups.iter().map(|g| g.1.len() + 1).sum();
    Some(Chart {
        stem: "ratios".to_owned(),
        title: format!("Against {} (left of 1: less)", in_words(base)),
        caption: format!(
            "{} and peak memory of each subject as a ratio to {}'s, with 95 % \
             intervals; a hollow point has fewer than six blocks and its ends are a range.",
            capitalised(word),
            in_words(base)
        ),
        group: None,
        size: (620, 110 + 18 * rows as u32),
        footer: String::new(),
        spec: Spec::Dots(Dots {
            panels: used.into_iter().map(|p| p.0).collect(),
            groups,
        }),
    })
}

/// Time against peak memory: one point a subject and workload, the baseline at (1, 1).
pub(super) fn scatter(result: &ResultSet, view: &View) -> Option<Chart> {
    let named = view.groups.len() == 1;
    let word = common_time_word(&result.cells).unwrap_or("time");
    let base = result.baseline();
    let mut points = Vec::new();
    for group in &view.groups {
        for cell in ok_cells(result, group) {
            let pair = if cell.subject == base {
                Some(((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)))
            } else {
                ratio(cell, time_metric(cell))
                    .zip(ratio(cell, memory_metric(cell)))
                    .map(|(t, m)| ((t.median, t.low, t.high), (m.median, m.low, m.high)))
            };
            let Some((x, y)) = pair else { continue };
            let name = legend_name(result, &cell.subject);
            if cell.subject == base && points.iter().any(|p: &ScatterPoint| p.name == name) {
                continue;
            }
            points.push(ScatterPoint {
                name,
                look: look(result, &cell.subject),
                x,
                y,
            });
        }
    }
    if points.len() < 2 {
        return None;
    }
    let what = match view.groups.as_slice() {
        [only] => only.workload.clone(),
        _ => format!("{} workloads", view.groups.len()),
    };
    Some(Chart {
        stem: "time-memory".to_owned(),
        title: format!("{} against memory, {what}", capitalised(word)),
        caption: format!(
            "Each point is one subject on one workload: {word} (across) and peak memory (up) as ratios to \
             {}'s at 1, 1. Down and left is better.",
            in_words(base)
        ),
        group: None,
        size: (620, 400),
        footer: String::new(),
        spec: Spec::Scatter(Scatter {
            points,
            named,
            across: word,
            baseline: base.to_owned(),
        }),
    })
}
