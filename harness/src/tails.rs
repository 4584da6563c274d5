//! Idle tails: memory runs that sleep for seconds after their last op. They are replayed one after the other and sleep
//! together, so that the tails of a whole suite take the time of one.

use crate::exec::{self, Limits};
use crate::plan::Item;
use crate::subject::Subject;
use heaplab_worker::protocol::{Report, RunSpec};
use std::collections::HashMap;
use std::thread;
use std::time::Duration;

/// Sleepers at a time: each holds the memory of its workload.
const TOGETHER: usize = 32;
/// How often the sign of a sleeper is looked for.
const GLANCE: Duration = Duration::from_millis(10);

/// Runs that have been made and not been asked for yet.
#[derive(Debug, Default)]
pub struct Tails(HashMap<Item, Result<Report, String>>);

impl Tails {
    /// The run of an item, if it was made.
    pub fn take(&mut self, item: &Item) -> Option<Result<Report, String>> {
        self.0.remove(item)
    }
}

/// Makes all runs: each replay starts when the one before has come to its tail or failed.
pub fn together(runs: Vec<(Item, &Subject, RunSpec)>, limits: &Limits) -> Tails {
    let mut done = HashMap::new();
    let Ok(folder) = tempfile::tempdir() else {
        // Without a place for the signs the runs are made one by one when they are asked for.
        return Tails(done);
    };
    let limits = &limits.clone();
    for (number, batch) in runs.chunks(TOGETHER).enumerate() {
        thread::scope(|scope| {
            let mut sleepers = Vec::new();
            for (at, (item, subject, spec)) in batch.iter().enumerate() {
                let sign = folder.path().join(format!("{number}-{at}"));
                let spec = RunSpec {
                    tail_file: Some(sign.clone()),
                    ..spec.clone()
                };
                let run = scope.spawn(move || {
                    exec::run_worker(subject, &spec, limits).map_err(|failure| failure.reason)
                });
                while !sign.exists() && !run.is_finished() {
                    thread::sleep(GLANCE);
                }
                sleepers.push((*item, run));
            }
            for (item, run) in sleepers {
                let result = run
                    .join()
                    .unwrap_or_else(|_| Err("the run was lost; please report this".into()));
                done.insert(item, result);
            }
        });
    }
    Tails(done)
}
