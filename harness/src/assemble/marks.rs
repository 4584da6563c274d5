//! Remarks on rows whose time is not mainly the allocator's: one sentence a cause, naming the worst cell.

use super::{DISTURBANCE_KEY, HUGE_COLLAPSED_KEY, HUGE_REFUSED_KEY, NOT_COUNTED_KEY};
use crate::disturbance::Disturbance;
use crate::plan::Comparison;
use crate::program::not_sampled;
use crate::tools::STRACE;
use heaplab_reports::schema::{Calibration, Cell, HARNESS_SHARE, RunLine};
use heaplab_reports::units;

/// Waiting for other threads above this share of the op's time marks a row.
const WAIT_SHARE: f64 = 0.10;
/// Largest by smallest own cost of a workload, and nanoseconds between them, above which it counts as not well known.
const SCATTER: f64 = 1.5;
const SCATTER_NS: f64 = 2.0;

/// Remarks on rows whose time is not mainly the allocator's.
pub(super) fn marks(
    cells: &[Cell],
    comparisons: &[Comparison],
    calibration: &Calibration,
) -> Vec<String> {
    let (mut timed, mut harness, mut waiting) = (0, Vec::new(), Vec::new());
    for cell in cells {
        // At the recorded pace the time is mostly waiting for it, the harness's as well.
        let time = (cell.metrics.get("ns_per_op")).filter(|m| m.mode != "paced");
        let Some(time) = time.map(|m| m.median) else {
            continue;
        };
        let comparison = comparisons.iter().find(|c| {
            c.workload == cell.workload && c.threads == cell.threads && c.api_name() == cell.api
        });
        let Some(comparison) = comparison else {
            continue;
        };
        timed += 1;
        let name = format!("{}/{}", comparison.title(), cell.subject);
        if let Some(null) = calibration.null_by_workload.get(&comparison.title())
            && *null > HARNESS_SHARE * time
        {
            harness.push((null / time, name.clone()));
        }
        // Waiting is summed over threads, wall time is not.
        if let Some(wait) = cell.metrics.get("wait_ns_per_op").map(|m| m.median) {
            let share = wait / (time * f64::from(cell.threads.max(1)));
            if share > WAIT_SHARE {
                waiting.push((share.min(1.0), name));
            }
        }
    }
    // Every cell's own value is in the result (`null_by_workload`, `wait_ns_per_op`); a sentence names the worst.
    let sentence = |mut cells: Vec<(f64, String)>, what: &str, meaning: &str| {
        cells.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (share, name) = cells.first()?;
        let share = match share {
            // It is measured in runs of its own, whose threads may wait longer for each other, and at another moment.
            share if *share > 1.0 => "as much as all of it".to_owned(),
            share => format!("{:.0} %", 100.0 * share),
        };
        Some(format!(
            "{what} in {} of {timed} cells, most in {name}: {share}{meaning}",
            cells.len(),
        ))
    };
    [
        sentence(
            harness,
            "the replay's own work is more than a quarter of the time per op",
            "; it is the same for all allocators: the order stands, and they differ by more than the ratios say",
        ),
        sentence(
            waiting,
            "threads waited for other threads' blocks for more than 10 % of their time",
            "; the time per op is not the allocator's alone",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A remark on workloads whose own cost is not well known, as the runs of the null allocator lie far apart.
pub(super) fn scattered(runs: &[(String, Vec<f64>)]) -> Option<String> {
    let ends = |costs: &[f64]| {
        let low = costs.iter().copied().reduce(f64::min)?;
        Some((low, costs.iter().copied().reduce(f64::max)?))
    };
    let mut far: Vec<(&str, f64, f64)> = (runs.iter())
        .filter_map(|(title, costs)| {
            let (low, high) = ends(costs)?;
            (high > SCATTER * low && high - low > SCATTER_NS).then_some((title.as_str(), low, high))
        })
        .collect();
    far.sort_by(|a, b| (b.2 - b.1).total_cmp(&(a.2 - a.1)));
    let (title, low, high) = far.first()?;
    Some(format!(
        "the replay's own cost is not well known in {} of {} workloads: its runs lie furthest apart in {title}, {low:.1} to {high:.1} ns",
        far.len(),
        runs.len()
    ))
}

/// A remark on the whole measurement: what else had the machine while it went on, runs too short to be watched included.
pub(crate) fn throughout(found: &Disturbance) -> Option<String> {
    found.matters().then(|| {
        format!(
            "over the whole measurement other programs took {:.0} % and the host {:.0} % of a CPU: times scatter more than on a \
             quiet machine, and figures of several threads are too high",
            100.0 * found.others,
            100.0 * found.steal
        )
    })
}

/// Remarks on counts: what was counted and how well it repeats.
pub(super) fn counts(cells: &[Cell]) -> Vec<String> {
    let mut notes = Vec::new();
    let spread = |name: &str| {
        let spreads: Vec<f64> = (cells.iter().filter_map(|cell| cell.metrics.get(name)))
            .filter(|metric| metric.samples.len() > 1)
            .map(|metric| (metric.high - metric.low) / metric.median.max(1.0))
            .collect();
        let same = spreads.iter().filter(|spread| **spread == 0.0).count();
        let largest = spreads.iter().copied().fold(0.0, f64::max);
        (!spreads.is_empty()).then(|| {
            let all = spreads.len();
            match all - same {
                0 if all == 1 => format!("{name} repeated exactly"),
                0 => format!("{name} repeated exactly in all {all} cells"),
                _ => format!(
                    "{name} repeated exactly in {same} of {all} cells, in the others within {:.3} %",
                    100.0 * largest
                ),
            }
        })
    };
    let of_programs = ["allocations", "bytes_allocated", "peak_live_bytes"];
    if cells
        .iter()
        .any(|cell| cell.metrics.contains_key("allocations"))
    {
        let spreads: Vec<String> = of_programs.into_iter().filter_map(spread).collect();
        let repeated = match spreads.is_empty() {
            true => String::new(),
            false => format!("; {}", spreads.join("; ")),
        };
        notes.push(format!(
            "allocations and bytes are those of runs that were recorded, each with its subject underneath{repeated}"
        ));
    }
    if cells
        .iter()
        .any(|cell| cell.metrics.contains_key("instructions"))
    {
        notes.push(
            "instructions were counted with threads one after the other and without restartable sequences: what an allocator \
             does for each CPU counts as its fallback"
                .to_owned(),
        );
        let names = [
            "instructions",
            "instructions_in_subject",
            "syscalls",
            "minor_faults",
        ];
        let spreads: Vec<String> = names.into_iter().filter_map(spread).collect();
        if !spreads.is_empty() {
            notes.push(spreads.join("; "));
        }
        if !cells
            .iter()
            .any(|cell| cell.metrics.contains_key("syscalls"))
        {
            notes.push(format!(
                "system calls were not counted: {}",
                STRACE.missing()
            ));
        }
    }
    notes
}

/// Remarks on single runs: what disturbed them, how exact memory was sampled, what limited it, how late paced ops were.
pub(super) fn runs(lines: &[RunLine]) -> Vec<String> {
    let mut notes = Vec::new();
    let watched: Vec<(Disturbance, &RunLine)> = (lines.iter())
        .filter_map(|line| {
            let found = serde_json::from_value(line.answer.get(DISTURBANCE_KEY)?.clone());
            Some((found.ok()?, line))
        })
        .collect();
    let mut disturbed: Vec<_> = watched
        .iter()
        .filter(|(found, _)| found.matters())
        .collect();
    disturbed.sort_by(|a, b| (b.0.others + b.0.steal).total_cmp(&(a.0.others + a.0.steal)));
    if let Some((worst, line)) = disturbed.first() {
        notes.push(format!(
            "{} of {} timed runs were disturbed{}, most {}/{} block {}: other programs took {:.0} %, the host {:.0} % of a CPU{}",
            disturbed.len(),
            watched.len(),
            match worst.repeated {
                true => " although they were made twice",
                false => "",
            },
            short(&line.workload),
            line.subject,
            line.block + 1,
            100.0 * worst.others,
            100.0 * worst.steal,
            match worst.frequency {
                0.0 => String::new(),
                change => format!(", its frequency changed by {:.0} %", 100.0 * change),
            }
        ));
    }
    let number = |line: &RunLine, path: &str| line.answer.pointer(path)?.as_u64();
    let sampled = (lines.iter()).filter_map(|line| number(line, "/memory/sampling_error_bytes"));
    if let Some(error) = sampled.max() {
        notes.push(format!(
            "resident bytes were sampled with statm; smaps_rollup {}",
            match error {
                0 => "was the same to the byte wherever both were read".to_owned(),
                error => format!("differed by at most {}", units::bytes(error as f64)),
            }
        ));
    }
    let together = (lines.iter())
        .filter(|line| number(line, "/processes").is_some_and(|most| most > 1))
        .filter_map(|line| Some((number(line, "/peak_pss_uncertain_bytes")?, line)));
    if let Some((uncertain, line)) = together
        .filter(|(uncertain, _)| *uncertain > 0)
        .max_by_key(|(uncertain, _)| *uncertain)
    {
        notes.push(format!(
            "memory of all processes of a program may be off by {} at most ({} under {}): what they had between two looks",
            units::bytes(uncertain as f64),
            short(&line.workload),
            line.subject
        ));
    }
    let left = (lines.iter())
        .filter_map(|line| Some((number(line, "/left_behind").filter(|left| *left > 0)?, line)));
    if let Some((left, line)) = left.max_by_key(|(left, _)| *left) {
        notes.push(format!(
            "when the first process of {} had ended, {left} others of it still ran ({}) and were killed: a script that starts a server \
             should replace itself by it (exec), so that the server gets the stop signal",
            short(&line.workload),
            line.subject
        ));
    }
    notes.extend(moved_by_huge_pages(lines));
    let not_counted = (lines.iter())
        .find_map(|line| Some((line.answer[NOT_COUNTED_KEY].as_str()?, &line.subject)));
    if let Some((why, subject)) = not_counted {
        notes.push(format!(
            "the allocations of {subject} were not counted: {why}"
        ));
    }
    if let Some(why) = (lines.iter()).find_map(|line| line.answer["not_sampled"].as_str()) {
        notes.push(not_sampled(why));
    }
    let limited =
        (lines.iter()).find_map(|line| Some((line.answer["memory_limit_by"].as_str()?, line)));
    if let Some((by, line)) = limited {
        notes.push(match by {
            "RLIMIT_DATA" => "the memory limit is RLIMIT_DATA, because no control group can be made here: it counts private \
                              writable mappings, touched or not"
                .to_owned(),
            by if line.measure == "program" => {
                format!("the memory limit is that of a {by}: it counts pages of all processes, cached files among them")
            }
            by => format!("the memory limit is that of a {by}: it counts pages, those of the worker's own tables as well"),
        });
    }
    let late = |line: &RunLine, name: &str| number(line, &format!("/lateness/{name}"));
    let latest = (lines.iter())
        .filter_map(|line| Some((late(line, "p99_ns")?, late(line, "max_ns")?)))
        .max();
    if let Some((p99, max)) = latest {
        notes.push(format!(
            "paced: in the run with the latest ops 99 % of them were at most {} late, the latest {}",
            units::nanoseconds(p99 as f64),
            units::nanoseconds(max as f64)
        ));
        let late = |measure: &str| {
            (lines.iter()).any(|l| l.measure == measure && !l.answer["lateness"].is_null())
        };
        if late("latency") {
            notes.push(
                "paced: latency counts from the time at which the call was to be made, so that its lateness is in it; a larger --pace leaves \
                 more time"
                    .to_owned(),
            );
        }
        if late("speed") {
            notes.push(
                "paced: the time per op is the recording's and is not compared; --mode fast is for that"
                    .to_owned(),
            );
        }
    }
    if lines.iter().any(|line| line.answer["windowed"] == true) {
        notes.push("scripts were larger than a quarter of the memory and were read in windows of at most 4 MiB".to_owned());
    }
    notes
}

/// Remarks on memory runs during which the kernel did with huge pages what no subject asked of it.
fn moved_by_huge_pages(lines: &[RunLine]) -> impl Iterator<Item = String> {
    let refused = (
        HUGE_REFUSED_KEY,
        "had no huge page when one was due",
        "lower",
    );
    let collapsed = (
        HUGE_COLLAPSED_KEY,
        "put a huge page where small ones lay",
        "higher",
    );
    [refused, collapsed].into_iter().filter_map(|(key, did, moved)| {
        let watched: Vec<(u64, &RunLine)> = (lines.iter())
            .filter_map(|line| Some((line.answer[key].as_u64()?, line)))
            .collect();
        let met = watched.iter().filter(|(count, _)| *count > 0);
        let (most, line) = met.clone().max_by_key(|(count, _)| *count)?;
        Some(format!(
            "the kernel {did} in {} of {} memory runs although they were made twice, most {}/{} block {}: {most} times, \
             other programs' included; resident bytes may be {moved} by up to 2 MiB for each (--thp never measures without them)",
            met.count(),
            watched.len(),
            short(&line.workload),
            line.subject,
            line.block + 1,
        ))
    })
}

/// What a note calls a workload; of a program's command line the beginning, the whole stands at the head of its table.
fn short(workload: &str) -> String {
    const MOST: usize = 32;
    match workload.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", workload[..end].trim_end()),
        None => workload.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_cost_whose_runs_lie_far_apart_is_called_uncertain() {
        let runs = |costs: &[(&str, &[f64])]| {
            let named = costs
                .iter()
                .map(|(name, costs)| (name.to_string(), costs.to_vec()));
            scattered(&named.collect::<Vec<_>>())
        };
        assert_eq!(runs(&[("a t1", &[5.0, 5.2, 6.0]), ("b t1", &[])]), None);
        assert_eq!(runs(&[("a t1", &[0.5, 1.5])]), None, "one nanosecond");
        let said = runs(&[
            ("a t1", &[6.0, 68.0]),
            ("b t1", &[5.0, 9.0]),
            ("c t1", &[5.0]),
        ]);
        let said = said.unwrap();
        assert!(
            said.contains("in 2 of 3 workloads") && said.contains("a t1, 6.0 to 68.0 ns"),
            "{said}"
        );
    }
}
