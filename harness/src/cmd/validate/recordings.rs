//! Recordings of the program, their scripts, and the clocks that replays of them show.

use super::rounds::{self, Rounds};
use super::{Brought, Trial, replayed};
use crate::disturbance::{Disturbance, Watch};
use crate::error::Error;
use crate::exec::signal_name;
use crate::plan::{Comparison, Kind};
use crate::recording::Recording;
use crate::{estimate, interrupt, subject, workload};
use heaplab_worker::protocol::{Api, Machine, RecordedClock};
use heaplab_workloads::record::SessionOptions;
use heaplab_workloads::trace::TraceSummary;
use heaplab_workloads::{Params, Workload};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

/// Recordings of one program, each with its script and its clock.
#[derive(Default)]
pub struct Recordings {
    /// What is in them.
    pub traces: Vec<TraceSummary>,
    /// How each is replayed.
    pub comparisons: Vec<Comparison>,
    /// How the clock follows its times.
    pub clocks: Vec<RecordedClock>,
    /// What went on beside each, where that is known.
    pub beside: Vec<Option<Disturbance>>,
}

impl Recordings {
    /// A figure of the recordings: their median, as a whole number.
    pub fn middle(&self, figure: impl Fn(&TraceSummary) -> u64) -> u64 {
        let figures: Vec<f64> = self
            .traces
            .iter()
            .map(|trace| figure(trace) as f64)
            .collect();
        heaplab_reports::stats::median(&figures).map_or(0, |figure| figure as u64)
    }

    /// Most threads of a recording.
    pub fn threads(&self) -> u64 {
        let most = self.comparisons.iter().map(|c| u64::from(c.threads)).max();
        most.unwrap_or(1)
    }

    /// Whether something else had the machine while the program was recorded for the replay of a round.
    pub fn disturbed(&self, block: u32) -> bool {
        let recording = block as usize % self.beside.len().max(1);
        let beside = self.beside.get(recording).copied().flatten();
        beside.is_some_and(|found| found.matters())
    }

    /// How many of them were disturbed.
    pub fn all_disturbed(&self) -> u32 {
        let found = self.beside.iter().flatten();
        found.filter(|found| found.matters()).count() as u32
    }

    /// Records until there are `count`: what a program asks for and when is not the same in each of its runs, where addresses
    /// decide the order in its tables, its threads meet by chance, or an allocator goes by the clock. Each recording is one of
    /// these courses, so that replays of several have the spread that runs of the program have. The first one is kept where it
    /// was asked for; the scripts of all are.
    ///
    /// # Errors
    /// A program that cannot be recorded.
    pub fn up_to(&mut self, count: u32, trial: &Trial<'_>) -> Result<(), Error> {
        let before = self.traces.len();
        if count as usize <= before {
            return Ok(());
        }
        for number in before..count as usize {
            if interrupt::requested() {
                return Ok(());
            }
            let own = trial.folder.join(format!("program-{number}.hltrace"));
            let kept = trial.args.keep_trace.as_deref().filter(|_| number == 0);
            let out = kept.unwrap_or(&own);
            trial.progress.started("recording");
            // A program that was held up while it was recorded has other times, and its allocator would give back by them.
            let mut remarked = number > 0;
            let recorded = Watch::over_program(
                || {
                    let recorded = record_once(trial, out, !remarked);
                    remarked = true;
                    recorded
                },
                |recorded| recorded.held_up,
            );
            // The program was interrupted with us, which is no fault of its own.
            if interrupt::requested() {
                return Ok(());
            }
            let (recorded, beside) = recorded?;
            self.traces.push(recorded.trace);
            self.beside.push(beside);
            let told = beside
                .map(|found| format!(" ({})", found.told()))
                .unwrap_or_default();
            self.comparisons.push(compiled(out, trial)?);
            if number == 0 {
                let own = &self.comparisons;
                (trial.progress).aside(|| estimate::ordered(own, &replayed::shape, trial.terminal));
            }
            // It may be large, and only its script is needed.
            let _ = std::fs::remove_file(&own);
            trial.progress.finished(&format!("recording: done{told}"));
        }
        self.clocks.extend(clocks(
            &self.traces[before..],
            &self.comparisons[before..],
            before,
            trial,
        )?);
        Ok(())
    }
}

/// One recording.
struct Once {
    trace: TraceSummary,
    held_up: Option<f64>,
}

/// A program with an allocator of its own is recorded on the C library's, as the row `system` runs it. It may ask how large its
/// blocks really are and fill them before it asks for larger ones (redis does): on an allocator that rounds up generously it
/// then asks for less than it needs on another one. The C library rounds least.
fn record_once(trial: &Trial<'_>, out: &Path, with_remarks: bool) -> Result<Once, Error> {
    let (args, terminal) = (trial.args, trial.terminal);
    let recorded = Recording {
        command: &args.command,
        out: out.to_path_buf(),
        keep_addresses: false,
        silent: true,
        // The process whose memory is looked at, and no other.
        session: SessionOptions {
            first_only: true,
            ..SessionOptions::default()
        },
        service: args.service.service()?,
        metrics: &[],
        allocator: trial
            .brought
            .as_ref()
            .map(|Brought { libc, .. }| libc.clone()),
        settings: Vec::new(),
    }
    .run(terminal)
    // 125 to 127 are for commands that pass a program's status through.
    .map_err(|e| Error::Environment(e.to_string()))?;
    if recorded.trace.is_some() && with_remarks {
        for remark in &recorded.remarks {
            terminal.say(&format!("! {remark}"));
        }
    }
    let name = args.command[0].to_string_lossy();
    if let Some(trouble) = recorded.trouble {
        return Err(Error::Run(format!(
            "'{name}' could not be recorded: {trouble}"
        )));
    }
    let ended = match (recorded.status.code(), recorded.status.signal()) {
        (Some(0), _) => None,
        _ if recorded.stopped => None,
        (Some(code), _) => Some(format!("with exit status {code}")),
        (None, signal) => Some(format!("by {}", signal_name(signal.unwrap_or_default()))),
    };
    if let Some(how) = ended {
        return Err(Error::Run(format!(
            "'{name}' ended {how} while it was recorded; run it once without heaplab to see what it says"
        )));
    }
    match recorded.trace {
        Some(trace) if trace.events > 0 => Ok(Once {
            trace,
            held_up: recorded.held_up,
        }),
        Some(_) => Err(Error::Run(format!(
            "'{name}' never called the allocator; there is nothing to predict, choose another program"
        ))),
        None => Err(Error::Environment(recorded.remarks.join("; "))),
    }
}

/// How a recording is replayed: its script, made with its times.
///
/// # Errors
/// A damaged recording; a folder that takes no more.
pub fn compiled(trace: &Path, trial: &Trial<'_>) -> Result<Comparison, Error> {
    let shown = trace.display().to_string();
    // What an allocator gives back by the clock depends on the program's time between its calls.
    let params = Params {
        times: true,
        ..Params::default()
    };
    let workload = Workload::resolve(&shown).map_err(workload::error)?;
    let mut said = 0;
    let compiled = workload
        .compile(&params, trial.folder, &mut |done, total| {
            let percent = 100 * done / total.max(1);
            if percent > said {
                said = percent;
                trial
                    .progress
                    .started(&format!("making the script of the recording: {percent} %"));
            }
        })
        .map_err(workload::error)?;
    Ok(Comparison {
        workload: trial.name(),
        hash: compiled.hash,
        api: Api::Malloc,
        program: false,
        threads: compiled.threads,
        started_threads: compiled.threads,
        script: PathBuf::from(&compiled.path),
        calls: compiled.info.calls,
        switches: compiled.runs,
        kinds: vec![Kind::Memory, Kind::Speed],
        machine: Machine::default(),
        pace: 1.0,
        recorded: None,
        note: None,
    })
}

/// What the recorder took of each event, nanoseconds.
pub fn recorder_ns(trace: &TraceSummary) -> f64 {
    let measured = (trace.finish.as_ref()).and_then(|finish| finish.recorder_ns_per_event);
    measured.unwrap_or(0.0)
}

/// How the clock follows each recording's: less what the recorder took, and with the difference between what the subject takes
/// and what the recorded allocator takes, which is the C library's; that is replayed once for it.
fn clocks(
    traces: &[TraceSummary],
    comparisons: &[Comparison],
    first: usize,
    trial: &Trial<'_>,
) -> Result<Vec<RecordedClock>, Error> {
    let system = subject::parse("system")?;
    let keep: Vec<RecordedClock> = (traces.iter().enumerate())
        .map(|(number, trace)| RecordedClock {
            recorder_ns: recorder_ns(trace),
            keep: Some(trial.folder.join(format!("times-{}", first + number))),
            recorded: None,
        })
        .collect();
    let mut replays = replayed::replays(comparisons, &system, &trial.limits, None);
    replays.clocks = keep.clone();
    let mut done = Rounds::new(1);
    done.up_to(
        &[comparisons.len() as u32],
        &system,
        "times of calls",
        &trial.progress,
        |at, block| {
            use crate::engine::Executor;
            replays.run(&rounds::item(comparisons, at, Kind::Memory, block))
        },
    );
    done.samples.remove(0).map_err(Error::Run)?;
    Ok(keep
        .into_iter()
        .map(|clock| RecordedClock {
            recorded: clock.keep,
            keep: None,
            ..clock
        })
        .collect())
}
