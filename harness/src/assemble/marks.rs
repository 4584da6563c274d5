//! Remarks on rows whose time is not mainly the allocator's: one sentence a cause, naming the worst cell.

use crate::plan::Comparison;
use heaplab_reports::schema::{Calibration, Cell};

/// Waiting for other threads above this share of the op's time marks a row.
const WAIT_SHARE: f64 = 0.10;
/// The harness's own cost above this share of the op's time marks a row.
const NULL_SHARE: f64 = 0.25;

/// Remarks on rows whose time is not mainly the allocator's.
pub(super) fn marks(
    cells: &[Cell],
    comparisons: &[Comparison],
    calibration: &Calibration,
) -> Vec<String> {
    let (mut timed, mut harness, mut waiting) = (0, Vec::new(), Vec::new());
    for cell in cells {
        let Some(time) = cell.metrics.get("ns_per_op").map(|m| m.median) else {
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
            && *null > NULL_SHARE * time
        {
            harness.push((null / time, name.clone()));
        }
        // Waiting is summed over threads, wall time is not.
        if let Some(wait) = cell.metrics.get("wait_ns_per_op").map(|m| m.median) {
            let share = wait / (time * f64::from(cell.threads.clamp(1, cell.cpus.max(1))));
            if share > WAIT_SHARE {
                waiting.push((share.min(1.0), name));
            }
        }
    }
    // Every cell's own value is in the result (`null_by_workload`, `wait_ns_per_op`); a sentence names the worst.
    let sentence = |mut cells: Vec<(f64, String)>, what: &str| {
        cells.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (share, name) = cells.first()?;
        Some(format!(
            "{what} in {} of {timed} cells, most in {name}: {:.0} %",
            cells.len(),
            100.0 * share
        ))
    };
    [
        sentence(
            harness,
            "the harness's own cost is more than a quarter of the time per op",
        ),
        sentence(
            waiting,
            "threads waited for other threads' blocks for more than 10 % of the time",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
