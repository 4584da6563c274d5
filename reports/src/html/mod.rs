//! `report.html`: one self-contained file, readable without script and without network.

use crate::charts::{Chart, FONT};
use crate::error::ReportError;
use crate::latency::CAUSES;
use crate::report::ReportOptions;
use crate::schema::ResultSet;
use crate::view::View;
use crate::{shell, units};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest timeline that travels in the page's data; the whole one is in `result.json`.
const TIMELINE_POINTS: usize = 40;

#[derive(Serialize)]
struct Figure {
    stem: String,
    caption: String,
    group: Option<String>,
    /// Drawn by us: the only markup that is not escaped.
    svg: String,
    /// JSON for the page's script.
    hover: Option<String>,
}

#[derive(Serialize)]
struct Bar {
    subject: String,
    resident: String,
    live: String,
    rounding: String,
    unused: String,
    /// Widths in percent of the largest subject.
    live_width: f64,
    rounding_width: f64,
    unused_width: f64,
}

#[derive(Serialize)]
struct LatencyRow {
    subject: String,
    op: String,
    part: String,
    values: Vec<String>,
}

#[derive(Serialize)]
struct Section {
    #[serde(flatten)]
    group: crate::view::Group,
    bars: Vec<Bar>,
    latency: Vec<LatencyRow>,
    /// Paragraphs.
    analysis: Vec<String>,
    /// The command that measures this alone.
    again: String,
}

/// Everything the template may name.
#[derive(Serialize)]
struct Page<'a> {
    title: String,
    verdict: Option<&'a str>,
    view: &'a View,
    sections: Vec<Section>,
    figures: Vec<Figure>,
    machine: &'a crate::schema::Machine,
    memory: String,
    subjects: &'a [crate::schema::Subject],
    ours: bool,
    looks: Vec<(String, String)>,
    calibration: &'a crate::schema::Calibration,
    baseline: String,
    tool: &'a crate::schema::Tool,
    seed: u64,
    started: &'a str,
    finished: &'a str,
    complete: bool,
    style: &'a str,
    script: &'a str,
    font: String,
    data: String,
}

/// The page.
pub(crate) fn render(
    result: &ResultSet,
    view: &View,
    charts: &[Chart],
    options: &ReportOptions,
) -> Result<String, ReportError> {
    let fail = |e: minijinja::Error| ReportError::Template {
        message: format!("{e}"),
    };
    let figures: Vec<Figure> = charts
        .par_iter()
        .map(|c| {
            let (svg, hover) = c.svg()?;
            Ok(Figure {
                stem: c.stem.clone(),
                caption: c.caption.clone(),
                group: c.group.clone(),
                svg,
                hover: hover.and_then(|h| serde_json::to_string(&h).ok()),
            })
        })
        .collect::<Result<_, ReportError>>()?;
    let sections: Vec<Section> = view
        .groups
        .iter()
        .map(|g| Section {
            bars: bars(g),
            latency: latency_rows(result, g),
            analysis: (options.analysis.get(&g.key.workload).into_iter())
                .flat_map(|text| text.split("\n\n"))
                .map(|part| part.trim().to_owned())
                .collect(),
            again: {
                let only = shell::command(&["--only", &g.key.workload]);
                shell::with_option(&view.again, &only)
            },
            group: g.clone(),
        })
        .collect();
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.add_template("report", include_str!("report.html"))
        .map_err(fail)?;
    let looks: Vec<(String, String)> = result
        .subjects
        .iter()
        .enumerate()
        .map(|(i, s)| (s.name.clone(), crate::charts::colour_of(i)))
        .collect();
    env.get_template("report")
        .map_err(fail)?
        .render(Value::from(minijinja::value::Serde(Page {
            title: title(result),
            verdict: options.verdict.as_deref().map(str::trim_end),
            view,
            sections,
            figures,
            machine: &result.machine,
            memory: units::bytes(result.machine.memory_bytes as f64),
            subjects: &result.subjects,
            ours: result.subjects.iter().any(crate::schema::Subject::is_ours),
            looks,
            calibration: &result.calibration,
            baseline: units::bytes(result.calibration.worker_baseline_bytes as f64),
            tool: &result.heaplab,
            seed: result.seed,
            started: &result.started,
            finished: &result.finished,
            complete: result.complete,
            style: include_str!("report.css"),
            script: include_str!("report.js"),
            font: STANDARD.encode(FONT),
            data: data(result)?,
        })))
        .map_err(fail)
}

fn title(result: &ResultSet) -> String {
    let mut names: Vec<&str> = result.cells.iter().map(|c| c.workload.as_str()).collect();
    names.dedup();
    match names.as_slice() {
        [] => "heaplab report".to_owned(),
        [one] => format!("heaplab: {one}"),
        [first, rest @ ..] => format!("heaplab: {first} and {} more", rest.len()),
    }
}

fn bars(group: &crate::view::Group) -> Vec<Bar> {
    let top = group.memory.iter().map(|p| p.resident).fold(1.0, f64::max);
    let width = |bytes: f64| (bytes / top * 1000.0).round() / 10.0;
    group
        .memory
        .iter()
        .map(|p| Bar {
            subject: p.subject.clone(),
            resident: p.resident_text.clone(),
            live: p.live_text.clone(),
            rounding: p.rounding_text.clone(),
            unused: p.unused_text.clone(),
            live_width: width(p.live),
            rounding_width: width(p.rounding),
            unused_width: width(p.unused),
        })
        .collect()
}

/// `12 fault, 3 allocator`: the calls over 1 µs.
fn slow(by_cause: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = (CAUSES.iter())
        .filter_map(|cause| {
            let calls = *by_cause.get(*cause).filter(|calls| **calls > 0)?;
            Some(format!("{} {cause}", units::count(calls as f64)))
        })
        .collect();
    match parts.is_empty() {
        true => "-".to_owned(),
        false => parts.join(", "),
    }
}

fn latency_rows(result: &ResultSet, group: &crate::view::Group) -> Vec<LatencyRow> {
    let ns = |v: Option<f64>| v.map_or("-".to_owned(), units::nanoseconds);
    let mut rows = Vec::new();
    for cell in crate::view::cells(result, &group.key) {
        for (op, l) in &cell.latency {
            rows.push(LatencyRow {
                subject: cell.subject.clone(),
                op: op.clone(),
                part: "all".to_owned(),
                values: vec![
                    units::count(l.count as f64),
                    ns(l.p50_ns),
                    ns(l.p90_ns),
                    ns(l.p99_ns),
                    ns(l.p999_ns),
                    ns(l.p9999_ns),
                    units::nanoseconds(l.max_ns),
                    slow(&l.slow),
                ],
            });
            if l.by.len() < 2 {
                continue;
            }
            for p in &l.by {
                let size = p.size_le.map_or("any larger size".to_owned(), |s| {
                    format!("to {}", units::bytes(s as f64))
                });
                let side = if p.remote {
                    ", freed by another thread"
                } else {
                    ""
                };
                rows.push(LatencyRow {
                    subject: cell.subject.clone(),
                    op: op.clone(),
                    part: format!("{size}{side}"),
                    values: vec![
                        units::count(p.count as f64),
                        ns(p.p50_ns),
                        String::new(),
                        ns(p.p99_ns),
                        ns(p.p999_ns),
                        String::new(),
                        units::nanoseconds(p.max_ns),
                        slow(&p.slow),
                    ],
                });
            }
        }
    }
    rows
}

/// The result set as JSON for a script element: timelines thinned, histograms left to the `.hlog` files, and
/// no `<` that could end the element.
fn data(result: &ResultSet) -> Result<String, ReportError> {
    let mut small = result.clone();
    for cell in &mut small.cells {
        for l in cell.latency.values_mut() {
            l.hdr.clear();
        }
        if let Some(t) = &mut cell.timeline {
            let step = t.ops.len().div_ceil(TIMELINE_POINTS).max(1);
            let thin = |v: &mut Vec<u64>| *v = v.iter().copied().step_by(step).collect();
            [
                &mut t.ops,
                &mut t.time_ns,
                &mut t.live_bytes,
                &mut t.usable_bytes,
                &mut t.resident_bytes,
            ]
            .into_iter()
            .for_each(thin);
            t.lazyfree_bytes.iter_mut().for_each(thin);
        }
    }
    let text = serde_json::to_string(&small).map_err(|e| ReportError::Template {
        message: e.to_string(),
    })?;
    Ok(text
        .replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029"))
}
