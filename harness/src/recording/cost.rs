//! What the recorder costs on this machine: remembered beside the library once it was measured undisturbed. A figure of a busy
//! machine is measured again by the next recording, and the least of both kept.

use super::failure::{failed, ours};
use super::library;
use crate::disturbance::Watch;
use crate::error::{Error, reason_of};
use crate::fingerprint;
use heaplab_workloads::record::{self, AGREEING, Cost, StackMode};
use heaplab_workloads::trace::FinishInfo;
use std::path::Path;
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

/// What the recorder added to an event, in words.
pub fn told(finish: &FinishInfo) -> Option<String> {
    let ns = finish.recorder_ns_per_event?;
    Some(if finish.recorder_ns_uncertain {
        format!("perhaps {ns:.0} ns per event (repeated measurements of that differ)")
    } else {
        format!("about {ns:.0} ns per event")
    })
}

/// Behind a remembered figure: whether it was measured undisturbed.
const SETTLED: &str = "settled";
const UNCERTAIN: &str = "uncertain";

/// Rounds of a first measurement at most, and of one that may only better a figure: each recording on a busy machine makes one.
const ROUNDS: usize = 4 * AGREEING;
const ROUNDS_AGAIN: usize = AGREEING + 1;

/// What the recorder adds to an event on this machine.
pub(super) fn cost() -> Result<Cost, Error> {
    let recorder = library::recorder(StackMode::Off)?;
    let host = fingerprint::read().host_id;
    let program = std::env::current_exe().map_err(|e| ours(reason_of(&e)))?;
    remembered(
        &recorder.with_file_name(format!("recorder-cost-{host}")),
        |again| {
            let watch = Watch::new();
            let most = if again { ROUNDS_AGAIN } else { ROUNDS };
            let cost = record::measure_cost(&recorder, most, || {
                let mut command = Command::new(&program);
                command.arg(CALIBRATION);
                command
            })
            .map_err(failed)?;
            let disturbed = watch.end().is_some_and(|found| found.matters());
            Ok(Cost {
                settled: cost.settled && !disturbed,
                ..cost
            })
        },
    )
}

/// The cost that `file` keeps. Where it keeps none, or (`true`) one that is not settled, it is measured, and the least of the two kept: only
/// a memory, and where nothing can be written it is measured again.
fn remembered(
    file: &Path,
    measure: impl FnOnce(bool) -> Result<Cost, Error>,
) -> Result<Cost, Error> {
    let known = std::fs::read_to_string(file)
        .ok()
        .and_then(|text| read(&text));
    if let Some(cost) = known.filter(|cost| cost.settled) {
        return Ok(cost);
    }
    let now = measure(known.is_some())?;
    let best = match known {
        Some(known) if !now.settled => now.least(known),
        _ => now,
    };
    let word = if best.settled { SETTLED } else { UNCERTAIN };
    let _ = std::fs::write(file, format!("{} {} {word}\n", best.bare, best.recorded));
    Ok(best)
}

/// Remembered figures; none where the file is another build's or damaged.
fn read(text: &str) -> Option<Cost> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [bare, recorded, word] = words[..] else {
        return None;
    };
    let number = |word: &str| word.parse().ok().filter(|ns: &f64| ns.is_finite());
    Some(Cost {
        bare: number(bare)?,
        recorded: number(recorded)?,
        settled: match word {
            SETTLED => true,
            UNCERTAIN => false,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_of_a_busy_machine_is_replaced_by_a_better_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cost");
        let cost = |bare, recorded, settled| Cost {
            bare,
            recorded,
            settled,
        };
        let next = |found: Cost| remembered(&file, |_| Ok(found)).unwrap();
        let busy = cost(5.0, 170.0, false);
        let first = remembered(&file, |again| {
            assert!(!again);
            Ok(busy)
        });
        assert_eq!(first.unwrap(), busy);
        assert_eq!(next(cost(9.0, 40.0, false)), cost(5.0, 40.0, false));
        assert_eq!(next(busy), cost(5.0, 40.0, false), "the least stays");
        // A settled one counts even where it is higher, and is not measured again.
        assert_eq!(next(cost(6.0, 41.0, true)), cost(6.0, 41.0, true));
        assert_eq!(next(cost(4.0, 14.0, true)), cost(6.0, 41.0, true));
        // What earlier versions kept does not say how it was measured.
        for damaged in ["165.0\n", "", "4 NaN settled\n", "4 12 perhaps\n"] {
            std::fs::write(&file, damaged).unwrap();
            let good = cost(4.0, 13.0, true);
            assert_eq!(next(good), good, "{damaged:?}");
        }
    }
}
