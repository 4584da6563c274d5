//! What must be said beside the figures: shape, modes, smallest visible change, warnings.

use super::{
    cells, common_time_word, facts_of, group_name, keys, memory_metric, recorded, time_metric,
};
use crate::builder::{BASELINE, WorkloadKey};
use crate::schema::{Cell, HARNESS_SHARE, ResultSet, Status, Subject};
use crate::{shell, stats, units};
use std::collections::BTreeSet;

/// Shape, blocks and modes of a group.
pub(super) fn facts(result: &ResultSet, key: &WorkloadKey, cells: &[&Cell]) -> Vec<String> {
    let plural = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut facts = Vec::new();
    if let Some(known) = facts_of(result, key) {
        facts.push(format!("{} ops", units::count(known.ops as f64)));
    }
    if key.api != "program" {
        facts.push(plural(key.threads, "thread"));
    }
    let here = result.machine.cpus;
    facts.push(match recorded(result, key).map(|r| r.cpus) {
        Some(then) if then == key.cpus && key.cpus == here => {
            format!("{}, as recorded", plural(here, "CPU"))
        }
        Some(then) if then == key.cpus => {
            format!(
                "recorded on {} (emulated; here {here})",
                plural(then, "CPU")
            )
        }
        Some(then) if key.cpus == here => {
            format!("recorded on {} (here {here})", plural(then, "CPU"))
        }
        Some(then) => format!(
            "recorded on {} (here {here}, told to be {})",
            plural(then, "CPU"),
            key.cpus
        ),
        None if key.cpus == here => plural(here, "CPU"),
        None => format!("{} (emulated)", plural(key.cpus, "CPU")),
    });
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
        let how = (cells.iter())
            .find_map(|c| metric(c).and_then(|name| Some((name, c.metrics.get(name)?))));
        if let Some((name, m)) = how.filter(|(_, m)| m.mode != "program") {
            // Where nothing was timed, what was counted stands for time.
            let word = if name == "instructions" {
                "counts"
            } else {
                word
            };
            facts.push(format!("{word}: {}, touch {}", m.mode, m.touch));
        }
    }
    facts.extend(harness(result, key, cells));
    if keys(result).len() == 1
        && let Some(seconds) = units::seconds_between(&result.started, &result.finished)
    {
        facts.push(units::elapsed(seconds));
    }
    facts
}

/// The replay's own cost of a workload, nanoseconds per op.
fn harness_ns(result: &ResultSet, key: &WorkloadKey) -> Option<f64> {
    let null = &result.calibration.null_by_workload;
    let title = format!("{} t{}", key.workload, key.threads);
    [format!("{title} {}", key.api), title, key.workload.clone()]
        .iter()
        .find_map(|title| null.get(title))
        .copied()
}

/// The replay's own cost, and of whose time it is too much.
fn harness(result: &ResultSet, key: &WorkloadKey, cells: &[&Cell]) -> Option<String> {
    let cost = harness_ns(result, key)?;
    // It waits as long as any subject's then.
    let paced = |cell: &&Cell| cell.metrics.get("ns_per_op").is_some_and(super::paced);
    if cells.iter().any(paced) {
        return None;
    }
    let much: Vec<&str> = (cells.iter())
        .filter(|cell| {
            let time = cell.metrics.get("ns_per_op").map(|m| m.median);
            time.is_some_and(|time| cost > HARNESS_SHARE * time)
        })
        .map(|cell| cell.subject.as_str())
        .collect();
    let timed = (cells.iter())
        .filter(|cell| cell.metrics.contains_key("ns_per_op"))
        .count();
    let whose = match much.len() {
        0 => String::new(),
        all if all == timed => ", over a quarter of every time here".to_owned(),
        _ => format!(", over a quarter of the time of {}", much.join(", ")),
    };
    Some(format!("harness {}{whose}", units::value("ns", cost)))
}

/// How much of the program's CPU time the allocator has, and with it how much of that time the best subject can save. Of
/// a program it was sampled; of a trace it is the calls times their replayed time over the program's recorded CPU time.
pub(super) fn promise(
    result: &ResultSet,
    key: &WorkloadKey,
    cells: &[&Cell],
    best: Option<&str>,
) -> Option<String> {
    let baseline = result.baseline();
    let base = cells
        .iter()
        .find(|c| c.subject == baseline && c.status == Status::Ok)?;
    let median = |name: &str| base.metrics.get(name).map(|m| m.median);
    let percent = |share: f64| match 100.0 * share {
        p if p < 0.95 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    };
    if let Some(share) = median("allocator_cpu_share") {
        return Some(format!(
            "the allocator has {} of the program's CPU time (sampled under {baseline}): another can save no more than that in \
             its own code",
            percent(share)
        ));
    }
    // At the recorded pace its CPU time is mostly waiting.
    if base.metrics.get("cpu_ns_per_op").is_some_and(super::paced) {
        return None;
    }
    let recorded = recorded(result, key)?;
    let cpu_ns = recorded.cpu_s? * 1e9;
    let harness = harness_ns(result, key).unwrap_or(0.0);
    // Beside other programs the harness's own cost is measured at another moment and can be the larger: nothing is known then.
    let per_op = Some(median("cpu_ns_per_op")? - harness).filter(|ns| *ns > 0.0)?;
    let replayed = per_op * facts_of(result, key)?.ops as f64;
    // A replay without the program's work between the calls can take longer than they took.
    let share = (replayed / cpu_ns).min(1.0);
    let saved = best
        .filter(|best| *best != baseline)
        .and_then(|best| cells.iter().find(|c| c.subject == best))
        .and_then(|c| c.metrics.get(time_metric(c)?)?.ratio_to_system)
        .filter(stats::shown_different)
        .map(|r| share * (1.0 - r.median))
        .filter(|saved| *saved > 0.0);
    let expect = match saved {
        Some(saved) => format!("expect at most {} less", percent(saved)),
        None => "no time to be saved was shown".to_owned(),
    };
    let confirm = match recorded.command.is_empty() {
        true => String::new(),
        false => format!(
            "   Confirm: heaplab validate -- {}",
            shell::command(&recorded.command)
        ),
    };
    Some(format!(
        "the allocator has about {} of the program's CPU time (calls x replayed time): {expect}.{confirm}",
        percent(share)
    ))
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
    let word = common_time_word(cells.iter().copied()).unwrap_or("time");
    let parts: Vec<String> = [
        (word, largest(time_metric)),
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
    // The C library's has no such setting. A program's own allocator, which stands in the same row, is asked for its settings.
    let is_system = subject.name.split(':').next() == Some(BASELINE);
    match is_system && subject.path.is_empty() {
        true => "trim".to_owned(),
        false => String::new(),
    }
}

/// Said where a ratio and the two medians beside it point in opposite directions, about the widest of them: a ratio compares runs
/// of one block, a median is over all blocks, and a machine that got slower meanwhile moves only the medians.
fn contradictions(result: &ResultSet) -> Option<String> {
    let mut found = Vec::new();
    for key in keys(result) {
        let cells = cells(result, &key);
        let base = cells.iter().find(|c| c.subject == result.baseline());
        for cell in &cells {
            for name in [time_metric(cell), memory_metric(cell)]
                .into_iter()
                .flatten()
            {
                let both = base
                    .and_then(|base| base.metrics.get(name))
                    .zip(cell.metrics.get(name));
                let Some((before, metric)) = both else {
                    continue;
                };
                let Some(ratio) = metric.ratio_to_system else {
                    continue;
                };
                let (paired, medians) = (ratio.median - 1.0, metric.median / before.median - 1.0);
                // As they are printed: what rounds to nothing points nowhere.
                let seen = |share: f64| share.abs() >= 0.005;
                if paired * medians < 0.0 && (seen(paired) || seen(medians)) {
                    found.push((
                        (paired - medians).abs(),
                        format!(
                            "{}/{}: {} against {} by medians, {paired:+.1} % by pairs",
                            group_name(result, &key),
                            cell.subject,
                            units::value(&metric.unit, metric.median),
                            units::value(&metric.unit, before.median),
                            paired = 100.0 * paired,
                        ),
                    ));
                }
            }
        }
    }
    let count = found.len();
    let (_, widest) = found.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!(
        "the ratio to {} compares runs of the same block, the figure before it is the median of all blocks: where the \
         machine's speed changed meanwhile they point in opposite directions, and the ratio counts ({} of the rows, most {widest})",
        result.baseline(),
        count
    ))
}

/// Sentences about the whole set.
pub(super) fn warnings(result: &ResultSet) -> Vec<String> {
    let mut warnings = Vec::new();
    if !result.complete {
        warnings.push(
            "the plan was not finished; the rows show what was measured until then".to_owned(),
        );
    }
    warnings.extend(contradictions(result));
    warnings.extend(floors(result));
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

/// What an empty pair of clock reads took, in each row's own runs: it bounds that row's percentiles and no other's.
fn floors(result: &ResultSet) -> Option<String> {
    let floors = (result.cells.iter()).flat_map(|c| c.latency.values().map(|l| l.floor_ns));
    let (least, most) = floors.fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), floor| {
        (least.min(floor), most.max(floor))
    });
    if least > most {
        return None;
    }
    let (least, most) = (units::nanoseconds(least), units::nanoseconds(most));
    let takes = match least == most {
        true => format!("takes {least}, and no percentile below that is shown"),
        false => format!(
            "takes {least} to {most}, and no percentile below that of its own row's runs is shown"
        ),
    };
    Some(format!(
        "latency: the clock's two reads are in every call's time; an empty pair {takes}"
    ))
}
