//! Latency percentile curves, one chart an op kind.

use super::chart::{Axis, Chart, Lines, Series, Spec};
use super::subjects::{legend_name, look, ok_cells, stem};
use crate::schema::{Latency, ResultSet};
use crate::units;
use crate::view::Group;

/// Percentile curves of every op kind that at least one subject has.
pub(super) fn curves(result: &ResultSet, group: &Group) -> Vec<Chart> {
    let cells = ok_cells(result, group);
    let mut kinds: Vec<&String> = cells.iter().flat_map(|c| c.latency.keys()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
        .into_iter()
        .filter_map(|op| {
            let mut series = Vec::new();
            let mut floor = 0.0_f64;
            for cell in &cells {
                let Some(l) = cell.latency.get(op) else {
                    continue;
                };
                floor = floor.max(l.floor_ns);
                let points = curve(l);
                if points.len() > 1 {
                    series.push(Series {
                        name: legend_name(result, &cell.subject),
                        look: look(result, &cell.subject),
                        points,
                    });
                }
            }
            chart(group, op, series, floor)
        })
        .collect()
}

/// Points (1 / (1 − q), nanoseconds) with at least ten calls beyond each and none below the floor.
fn curve(latency: &Latency) -> Vec<(f64, f64)> {
    let Ok(h) = latency.histogram() else {
        return Vec::new();
    };
    let steps_per_decade = 8;
    (0..)
        .map(|i| 10_f64.powf(f64::from(i) / f64::from(steps_per_decade)))
        .take_while(|beyond| h.len() as f64 / beyond >= 10.0 && *beyond <= 1e7)
        .map(|beyond| (beyond, h.value_at_quantile(1.0 - 1.0 / beyond) as f64))
        .filter(|(_, ns)| *ns >= latency.floor_ns.max(1.0))
        .collect()
}

fn chart(group: &Group, op: &str, series: Vec<Series>, floor: f64) -> Option<Chart> {
    let points = || series.iter().flat_map(|s| s.points.iter());
    let right = points().map(|p| p.0).max_by(f64::total_cmp)?;
    let top = points().map(|p| p.1).max_by(f64::total_cmp)?;
    let low = points()
        .map(|p| p.1)
        .fold(f64::INFINITY, f64::min)
        .min(floor.max(1.0));
    Some(Chart {
        stem: stem(group, &format!("latency-{op}")),
        title: format!("{}: latency of {op}", group.workload),
        caption: format!(
            "Latency of {op} by percentile, both axes logarithmic: how long the slowest 10 %, 1 %, 0.1 % … of \
             the calls take at least. Nothing is drawn below the clock's floor ({}) or with fewer than ten \
             calls beyond.",
            units::nanoseconds(floor)
        ),
        group: Some(group.id.clone()),
        size: (600, 300),
        footer: String::new(),
        spec: Spec::Lines(Lines {
            x: Axis {
                label: "percentile",
                low: 1.0,
                high: right.max(10.0),
                log: true,
                text: percentile,
            },
            y: Axis {
                label: "time of one call",
                low: low * 0.8,
                high: top.max(low * 10.0) * 1.3,
                log: true,
                text: units::nanoseconds_short,
            },
            series,
            floor: (floor > 0.0).then(|| (floor, "clock's floor".to_owned())),
        }),
    })
}

/// `1 / (1 − q)` as the percentile that people know.
fn percentile(beyond: f64) -> String {
    match beyond.log10().round() as i32 {
        i32::MIN..=0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        n => format!("99.{} %", "9".repeat(n as usize - 2)),
    }
}
