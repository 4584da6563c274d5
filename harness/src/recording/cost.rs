//! What the recorder costs on this machine: measured once, remembered beside the library.

use super::failure::{failed, ours};
use super::library;
use crate::error::{Error, reason_of};
use crate::fingerprint;
use heaplab_workloads::record::{self, StackMode};
use std::process::Command;

/// First argument of the process in which the recorder's cost is measured; no command of a user's.
const CALIBRATION: &str = "--recorder-calibration";

/// What this process prints if it was started to measure the recorder's cost.
pub fn calibration(mut arguments: impl Iterator<Item = String>) -> Option<String> {
    if arguments.nth(1)? != CALIBRATION {
        return None;
    }
    let pairs = arguments.next()?.parse().ok()?;
    Some(record::calibration_loop(pairs).to_string())
}

/// Nanoseconds that the recorder adds to an event on this machine: measured once for a boot and a build, then remembered.
pub(super) fn cost() -> Result<f64, Error> {
    let recorder = library::recorder(StackMode::Off)?;
    let remembered = recorder.parent().map(|folder| {
        let host = fingerprint::read().host_id;
        folder.join(format!("recorder-cost-{host}"))
    });
    let known = remembered
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok())
        .and_then(|text| text.trim().parse::<f64>().ok())
        .filter(|cost| cost.is_finite());
    if let Some(cost) = known {
        return Ok(cost);
    }
    let program = std::env::current_exe().map_err(|e| ours(reason_of(&e)))?;
    let cost = record::measure_cost(&recorder, || {
        let mut command = Command::new(&program);
        command.arg(CALIBRATION);
        command
    })
    .map_err(failed)?;
    if let Some(path) = remembered {
        // Only a memory: where it cannot be kept it is measured again.
        let _ = std::fs::write(path, format!("{cost}\n"));
    }
    Ok(cost)
}
