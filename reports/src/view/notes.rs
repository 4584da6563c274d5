//! What must be said beside the figures: shape, modes, smallest visible change, warnings.

use super::{cells, group_name, keys, memory_metric, time_metric};
use crate::builder::WorkloadKey;
use crate::schema::{Cell, ResultSet, Status, Subject};
use crate::{stats, units};
use std::collections::BTreeSet;

/// Shape, blocks and modes of a group.
pub(super) fn facts(result: &ResultSet, key: &WorkloadKey, cells: &[&Cell]) -> Vec<String> {
    let plural = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut facts = vec![plural(key.threads, "thread")];
    let here = if key.cpus == result.machine.cpus {
        ""
    } else {
        " (emulated)"
    };
    facts.push(format!("{}{here}", plural(key.cpus, "CPU")));
    facts.push(match key.thp.as_str() {
        "default" if result.machine.thp.is_empty() => "THP default".to_owned(),
        "default" => format!("THP {}", result.machine.thp),
        other => format!("THP {other} (set)"),
    });
    if let Some(limit) = key.memory_limit {
        facts.push(format!("memory limit {}", units::bytes(limit as f64)));
    }
    if key.api != "program" {
        facts.push(format!("api {}", key.api));
    }
    let blocks: BTreeSet<usize> = cells
        .iter()
        .filter(|c| c.status == Status::Ok)
        .flat_map(|c| c.metrics.values())
        .map(|m| {
            m.samples
                .iter()
                .map(|s| s.block)
                .collect::<BTreeSet<_>>()
                .len()
        })
        .collect();
    match (blocks.first(), blocks.last()) {
        (Some(a), Some(b)) if a != b => facts.push(format!("{a} to {b} blocks")),
        (Some(a), _) => facts.push(plural(*a as u32, "block")),
        _ => {}
    }
    if let Some(live) = cells.iter().find_map(|c| c.metrics.get("peak_live_bytes")) {
        facts.push(format!("peak live {}", units::bytes(live.median)));
    }
    for (word, metric) in [
        ("speed", time_metric as fn(&Cell) -> Option<&'static str>),
        ("memory", memory_metric),
    ] {
        let how = cells.iter().find_map(|c| c.metrics.get(metric(c)?));
        if let Some(m) = how.filter(|m| m.mode != "program") {
            facts.push(format!("{word}: {}, touch {}", m.mode, m.touch));
        }
    }
    facts
}

/// `Could have been shown: time 2.8 %, peak 1.9 %.`
pub(super) fn could_have_been_shown(cells: &[&Cell]) -> Option<String> {
    let largest = |metric: fn(&Cell) -> Option<&'static str>| {
        cells
            .iter()
            .filter_map(|c| c.metrics.get(metric(c)?)?.ratio_to_system)
            .filter_map(|r| stats::detectable(&r))
            .max_by(f64::total_cmp)
    };
    let parts: Vec<String> = [
        ("time", largest(time_metric)),
        ("peak", largest(memory_metric)),
    ]
    .into_iter()
    .filter_map(|(word, d)| Some(format!("{word} {}", units::percent(d?))))
    .collect();
    (!parts.is_empty()).then(|| format!("Could have been shown: {}.", parts.join(", ")))
}

/// How a subject gives memory back, in the words of its own settings.
pub(super) fn purge(subject: &Subject) -> String {
    let get = |key: &str| subject.settings.get(key);
    let known = [
        ("purge", ""),
        ("opt.dirty_decay_ms", "decay"),
        ("dirty_decay_ms", "decay"),
        ("opt.purge_delay", "delay"),
        ("purge_delay", "delay"),
        ("decay_ms", "decay"),
    ];
    for (key, word) in known {
        if let Some(v) = get(key) {
            return match (word, v.parse::<f64>()) {
                ("", _) => v.clone(),
                (_, Ok(ms)) if ms < 0.0 => "never".to_owned(),
                (_, Ok(ms)) if ms >= 1000.0 => format!("{word} {} s", ms / 1e3),
                (_, Ok(ms)) => format!("{word} {ms} ms"),
                _ => format!("{word} {v}"),
            };
        }
    }
    String::new()
}

/// Sentences about the whole set.
pub(super) fn warnings(result: &ResultSet) -> Vec<String> {
    let mut warnings = Vec::new();
    if !result.complete {
        warnings.push(
            "the plan was not finished; the rows show what was measured until then".to_owned(),
        );
    }
    for key in keys(result) {
        let shares: Vec<f64> = cells(result, &key)
            .into_iter()
            .filter(|c| c.status == Status::Ok)
            .filter_map(|c| {
                let get = |name: &str| c.metrics.get(name).map(|m| m.median);
                Some(get("wait_ns_per_op")? / get("ns_per_op").filter(|op| *op > 0.0)?)
            })
            .filter(|share| *share > 0.1)
            .collect();
        let range = shares
            .iter()
            .fold((f64::INFINITY, 0.0_f64), |r, s| (r.0.min(*s), r.1.max(*s)));
        if !shares.is_empty() {
            warnings.push(format!(
                "{}: {:.0} to {:.0} % of the time was spent waiting for other threads' blocks; its ns/op is \
                 not the allocator's alone",
                group_name(result, &key),
                100.0 * range.0,
                100.0 * range.1
            ));
        }
    }
    let floors: Vec<f64> = result
        .cells
        .iter()
        .flat_map(|c| c.latency.values())
        .filter(|l| l.p50_ns.is_none() && l.count >= 20)
        .map(|l| l.floor_ns)
        .collect();
    if let Some(floor) = floors.iter().copied().max_by(f64::total_cmp) {
        warnings.push(format!(
            "percentiles below the clock's floor ({}) are not shown",
            units::nanoseconds(floor)
        ));
    }
    for subject in &result.subjects {
        warnings.extend(
            subject
                .notes
                .iter()
                .map(|n| format!("{}: {n}", subject.name)),
        );
    }
    warnings.extend(result.notes.iter().cloned());
    warnings
}
