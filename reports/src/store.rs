//! Result sets on disk: load, save, merge. A file appears under its final name only when it is whole.

use crate::builder::fill_ratios;
use crate::error::ReportError;
use crate::schema::{Cell, Metric, ResultSet, SCHEMA, Status};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Name of the whole result within its folder.
pub const RESULT_FILE: &str = "result.json";
/// Name of the journal of finished runs within its folder.
pub const RUNS_FILE: &str = "runs.jsonl";

/// Bytes of a result set at most: a hundred times what the suite `full` has.
const MOST_BYTES: u64 = 512 * heaplab_bounded::MIB;

/// Reads a result set from its folder or directly from a file.
pub fn load(folder_or_file: &Path) -> Result<ResultSet, ReportError> {
    let path = if folder_or_file.is_dir() {
        let file = folder_or_file.join(RESULT_FILE);
        if !file.exists() {
            let path = folder_or_file.to_owned();
            return Err(if folder_or_file.join(RUNS_FILE).exists() {
                ReportError::Unfinished { path }
            } else {
                ReportError::NoResult { path }
            });
        }
        file
    } else {
        folder_or_file.to_owned()
    };
    let text = heaplab_bounded::read(&path, MOST_BYTES).map_err(|e| ReportError::read(&path, e))?;
    let malformed = |e: serde_json::Error| ReportError::Malformed {
        path: path.clone(),
        message: e.to_string(),
    };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(malformed)?;
    // The version first: a newer schema must not fail as "missing field".
    match value.get("schema").and_then(|s| s.as_str()) {
        Some(SCHEMA) => serde_json::from_value(value).map_err(malformed),
        found => Err(ReportError::Schema {
            path: path.clone(),
            found: found.unwrap_or("none").to_owned(),
        }),
    }
}

/// Writes `result` as `result.json` into `folder` (made if missing), atomically.
pub fn save_atomic(result: &ResultSet, folder: &Path) -> Result<(), ReportError> {
    let path = folder.join(RESULT_FILE);
    let mut text = serde_json::to_vec_pretty(result).map_err(|e| ReportError::Malformed {
        path: path.clone(),
        message: e.to_string(),
    })?;
    text.push(b'\n');
    write_atomic(&path, &text)
}

/// Writes `bytes` to a temporary name beside `path`, flushes it to disk and renames it.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let fail = |e| ReportError::write(path, e);
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|e| {
        // The cause matters to the reader, not a failure to tidy up after it.
        let _ = fs::remove_file(&temporary);
        fail(e)
    })
}

/// Joins the result sets of shards into one.
///
/// A cell that stands in one of them is taken as it is; identical copies count once; the same cell with samples of different
/// blocks is united; two different values for the same block are an error, as are different schemas, seeds
/// or machines. The result does not depend on the order of the shards.
pub fn merge(shards: &[ResultSet]) -> Result<ResultSet, ReportError> {
    let fail = |what: String| ReportError::Merge { what };
    let mut order: Vec<&ResultSet> = shards.iter().collect();
    order.sort_by(|a, b| {
        (&a.started, &a.finished, &a.command).cmp(&(&b.started, &b.finished, &b.command))
    });
    let Some((first, rest)) = order.split_first() else {
        return Err(fail("no result set was given".to_owned()));
    };
    let mut merged = (*first).clone();
    for shard in rest {
        if shard.seed != first.seed {
            return Err(fail(format!(
                "seeds {} and {} differ",
                first.seed, shard.seed
            )));
        }
        if shard.heaplab.version != first.heaplab.version {
            let (a, b) = (&first.heaplab.version, &shard.heaplab.version);
            return Err(fail(format!("heaplab {a} and {b} measured them")));
        }
        if shard.machine.host_id != first.machine.host_id {
            let note =
                "shards ran on different hosts: compare times only within a cell's own shard";
            push_once(&mut merged.notes, note.to_owned());
        }
        for subject in &shard.subjects {
            match merged.subjects.iter().find(|s| s.name == subject.name) {
                None => merged.subjects.push(subject.clone()),
                Some(s) if s.version != subject.version || s.sha256 != subject.sha256 => {
                    let (n, a, b) = (&s.name, &s.version, &subject.version);
                    return Err(fail(format!(
                        "subject {n} is {a} in one shard and {b} in another"
                    )));
                }
                Some(_) => {}
            }
        }
        for cell in &shard.cells {
            match merged
                .cells
                .iter_mut()
                .find(|c| c.subject == cell.subject && c.key() == cell.key())
            {
                None => merged.cells.push(cell.clone()),
                Some(existing) => unite(existing, cell).map_err(fail)?,
            }
        }
        for facts in &shard.workloads {
            if !merged.workloads.contains(facts) {
                merged.workloads.push(facts.clone());
            }
        }
        for note in &shard.notes {
            push_once(&mut merged.notes, note.clone());
        }
        merged.complete &= shard.complete;
        merged.started = merged.started.min(shard.started.clone());
        merged.finished = merged.finished.max(shard.finished.clone());
        let calibration = &mut merged.calibration;
        for (into, from) in [
            (
                &mut calibration.null_by_workload,
                &shard.calibration.null_by_workload,
            ),
            (
                &mut calibration.touching_by_workload,
                &shard.calibration.touching_by_workload,
            ),
        ] {
            for (workload, cost) in from {
                into.entry(workload.clone()).or_insert(*cost);
            }
        }
    }
    merged.subjects.sort_by_key(|s| s.name.clone());
    merged
        .subjects
        .sort_by_key(|s| s.name != crate::builder::BASELINE);
    merged.cells.sort_by_key(|c| (c.key(), c.subject.clone()));
    merged
        .workloads
        .sort_by(|a, b| a.workload_hash.cmp(&b.workload_hash));
    merged.notes.sort();
    fill_ratios(&mut merged);
    Ok(merged)
}

fn push_once(notes: &mut Vec<String>, note: String) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

fn unite(into: &mut Cell, from: &Cell) -> Result<(), String> {
    if into == from {
        return Ok(());
    }
    if from.status != Status::Ok && into.status == Status::Ok {
        into.status = from.status;
        into.reason.clone_from(&from.reason);
    }
    for (name, metric) in &from.metrics {
        let Some(old) = into.metrics.get(name) else {
            into.metrics.insert(name.clone(), metric.clone());
            continue;
        };
        if (&old.mode, &old.touch, &old.unit) != (&metric.mode, &metric.touch, &metric.unit) {
            return Err(format!("cell {} measured {name} in two ways", from.id()));
        }
        let mut samples = old.samples.clone();
        for s in &metric.samples {
            match samples.iter().find(|o| o.block == s.block) {
                None => samples.push(*s),
                Some(o) if o == s => {}
                Some(_) => {
                    let (id, block) = (from.id(), s.block);
                    return Err(format!(
                        "cell {id} has two values of {name} for block {block}"
                    ));
                }
            }
        }
        if let Some(m) = Metric::from_samples(&old.unit, old.better, &old.mode, &old.touch, samples)
        {
            into.metrics.insert(name.clone(), m);
        }
    }
    if into.latency.is_empty() {
        into.latency.clone_from(&from.latency);
    }
    if into.timeline.is_none() {
        into.timeline.clone_from(&from.timeline);
    }
    Ok(())
}
