//! One measurement from plan to stored result set: what `run` and `gate run` have in common.
//!
//! A campaign owns a session's folder for its life, drives the plan with the executor of replays or of programs, and
//! writes `result.json` and the report when the plan is done, interrupted, or cannot go on.

use crate::assemble::{self, Input, marks};
use crate::clock::Utc;
use crate::disturbance::Watch;
use crate::engine::{Drive, Executor, Repetition};
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use crate::plan::{Comparison, Kind};
use crate::progress::Progress;
use crate::session::Session;
use crate::subject::Subject;
use crate::{estimate, fingerprint, interrupt, render};
use heaplab_reports::BASELINE;
use heaplab_reports::schema::{ResultSet, RunLine, Status};
use heaplab_reports::shell;
use heaplab_worker::protocol::{Mode, Touch};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is measured and where it is kept.
pub struct Campaign<'a> {
    /// Folder of the result set.
    pub session: Session,
    /// Command line to store and to show as "again".
    pub command: Vec<String>,
    /// Seed.
    pub seed: u64,
    /// When it was started first, UTC.
    pub started: String,
    /// Runs that are finished already.
    pub done: Vec<RunLine>,
    /// Comparisons.
    pub comparisons: &'a [Comparison],
    /// Subjects.
    pub subjects: &'a [Subject],
    /// Mode and touch of a measure.
    pub shape: &'a dyn Fn(Kind) -> (Mode, Touch),
    /// How often.
    pub repetition: Repetition,
    /// Blocks that a budget always buys.
    pub least_blocks: u32,
    /// Idle tail of memory runs.
    pub idle: Duration,
    /// Remarks known beforehand.
    pub notes: Vec<String>,
    /// Write report.html, charts and summary.md.
    pub report: bool,
}

/// What a campaign left.
pub struct Finished {
    /// The result set, as stored.
    pub result: ResultSet,
    /// Folder.
    pub folder: PathBuf,
    /// The HTML report, where one was written.
    pub report: Option<PathBuf>,
    /// Done, incomplete or interrupted.
    pub outcome: Outcome,
}

impl Campaign<'_> {
    /// Measures, stores and reports.
    ///
    /// # Errors
    /// When results cannot be written; every finished run is in `runs.jsonl` then, and the message says how to go on.
    pub fn go(
        mut self,
        executor: &mut dyn Executor,
        terminal: &Terminal,
    ) -> Result<Finished, Error> {
        estimate::say(
            self.comparisons,
            self.subjects.len(),
            self.shape,
            self.repetition,
            self.idle,
            terminal,
        );
        let machine = fingerprint::read();
        let labels: Vec<String> = self.subjects.iter().map(|s| s.label.clone()).collect();
        let runs: usize = self
            .comparisons
            .iter()
            .map(|c| c.kinds.len() * labels.len())
            .sum();
        let progress = Progress::new(terminal, runs as u64);
        let began = Instant::now();
        let drive = Drive {
            comparisons: self.comparisons,
            subjects: &labels,
            baseline: labels
                .iter()
                .position(|l| l == BASELINE)
                .or((labels.len() > 1).then_some(0)),
            seed: self.seed,
            repetition: self.repetition,
            least_blocks: self.least_blocks,
            done: std::mem::take(&mut self.done),
            stop: &interrupt::requested,
            clock: &|| began.elapsed(),
            progress: &progress,
        };
        let session = &mut self.session;
        let watch = Watch::new();
        let driven = drive.go(executor, &mut |line| session.append(line));
        let folder = self.session.folder().to_path_buf();
        let (driven, trouble) = match driven {
            Ok(driven) => (driven, None),
            Err((driven, error)) => (driven, Some(error)),
        };
        let mut notes = std::mem::take(&mut self.notes);
        for note in self.comparisons.iter().filter_map(|c| c.note.as_ref()) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        let timed = |kind: &Kind| matches!(kind, Kind::Speed | Kind::Latency | Kind::Program);
        if (self.comparisons.iter()).any(|c| c.kinds.iter().any(timed)) {
            notes.extend(watch.end().and_then(|found| marks::throughout(&found)));
        }
        let result = assemble::assemble(Input {
            machine,
            command: self.command.clone(),
            seed: self.seed,
            started: self.started.clone(),
            finished: Utc::now().rfc3339(),
            subjects: self.subjects.iter().map(description).collect(),
            comparisons: self.comparisons,
            shape: self.shape,
            cpus: fingerprint::usable_cpus(),
            lines: &driven.lines,
            notes,
            complete: driven.complete,
        });
        let kept = |error: Error| {
            let folder = shell::path(&folder);
            let more =
                format!("; finished runs are kept, continue with `heaplab run --resume {folder}`");
            match error {
                Error::Environment(m) => Error::Environment(m + &more),
                other => other,
            }
        };
        let saved = heaplab_reports::save_atomic(&result, &folder).map_err(render::error);
        if let Some(error) = trouble {
            return Err(kept(error));
        }
        saved.map_err(kept)?;
        let report = match self.report {
            true => Some(render::write_report(&result, &folder).map_err(kept)?),
            false => None,
        };
        let outcome = if interrupt::requested() {
            Outcome::Interrupted
        } else if result.cells.iter().any(|c| c.status != Status::Ok) {
            Outcome::Incomplete
        } else {
            Outcome::Done
        };
        Ok(Finished {
            result,
            folder,
            report,
            outcome,
        })
    }
}

/// What is known about a subject before it ran; version and settings are read back from its runs.
fn description(subject: &Subject) -> heaplab_reports::schema::Subject {
    let sha256 = subject
        .library
        .as_ref()
        .and_then(|path| std::fs::read(path).ok())
        .map(|bytes| hex(&bytes));
    heaplab_reports::schema::Subject {
        name: subject.label.clone(),
        version: String::new(),
        path: subject
            .library
            .as_ref()
            .map_or_else(String::new, |p| p.display().to_string()),
        sha256: sha256.unwrap_or_default(),
        settings: subject.settings.iter().cloned().collect(),
        stats_at_end: None,
        stats_at_peak: None,
        notes: Vec::new(),
    }
}

/// SHA-256, hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
