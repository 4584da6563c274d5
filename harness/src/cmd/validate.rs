//! `heaplab validate`: records a program, replays it under each subject, runs it under each subject, each as often, and puts
//! predicted and actual peak heap side by side.

use crate::cli::ValidateArgs;
use crate::cmd::run::subjects;
use crate::embed::Embedded;
use crate::engine::Executor;
use crate::error::{Error, Outcome};
use crate::exec::{Limits, signal_name};
use crate::out::Terminal;
use crate::plan::{Comparison, Item, Kind};
use crate::program::{self, HeapLook, ProgramOptions};
use crate::progress::Progress;
use crate::recording::Recording;
use crate::replays::Replays;
use crate::subject::Subject;
use crate::validation::{self, Facts, Row, Run, Samples};
use crate::{embed, interrupt, subject, workload};
use heaplab_worker::protocol::{Api, Machine, RecordedClock};
use heaplab_workloads::record::SessionOptions;
use heaplab_workloads::trace::TraceSummary;
use heaplab_workloads::{Params, Workload};
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

/// Replays of each subject for time.
const TIMED_REPLAYS: u32 = 3;
/// Runs by which the program's own mappings are measured, at least.
const OWN_RUNS: u32 = 3;
/// Five samples a millisecond of CPU time: dear (about 1 %), but the allocator's part is small and its order is asked for.
const SAMPLE_PERIOD_NS: u64 = 200_000;
/// Makes glibc take all memory from `brk`: what lies elsewhere is then not malloc's.
const ALL_FROM_BRK: &str = "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1";
/// Measures and prints.
///
/// # Errors
/// A program that cannot be recorded (3) or fails by itself (4).
pub fn run(args: &ValidateArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let subjects = subjects(&args.subjects.specs())?;
    // Written to the cache before the first run is timed or sampled.
    embed::path(Embedded::Worker)?;
    let folder = tempfile::tempdir().map_err(|e| Error::io("create", &std::env::temp_dir(), &e))?;
    let limits = Limits {
        timeout: args.timeout,
        cancel: Some(interrupt::flag()),
    };
    let mut remarks = Vec::new();
    let brought = brought(args, &limits);
    let timed = TIMED_REPLAYS * (subjects.len() as u32 + 1);
    let recordings = args.recordings.unwrap_or(args.runs);
    let progress = Progress::new(
        terminal,
        subjects.len() as u64 * u64::from(2 * args.runs)
            + u64::from(2 * recordings + own_runs(args) + timed),
    );
    let (traces, comparisons) = record(
        args,
        recordings,
        folder.path(),
        brought.as_ref(),
        terminal,
        &progress,
    )?;
    interrupt::install();
    let clocks = clocks(&traces, &comparisons, folder.path(), &limits, &progress)?;
    let peaks = peaks(
        &comparisons,
        &clocks,
        &subjects,
        args.runs,
        &limits,
        &progress,
    );
    let (times, harness_s) = times(&comparisons, &subjects, &limits, &progress)?;
    let own = own_mappings(args, brought.as_ref(), &limits, &progress);
    let in_place = in_place(&subjects, brought.as_ref(), &mut remarks);
    let runs = programs(args, &in_place, own, &limits, &progress, &mut remarks);
    progress.clear();
    if interrupt::requested() {
        terminal.say("interrupted; nothing is kept of a validation");
        return Ok(Outcome::Interrupted);
    }
    let threads = comparisons.iter().map(|c| u64::from(c.threads)).max();
    let threads = threads.unwrap_or(1);
    let rows: Vec<Row> = (subjects.iter().zip(peaks).zip(times).zip(runs))
        .map(|(((subject, peaks), times), runs)| {
            Row::new(&subject.label, threads, peaks, times, runs)
        })
        .collect();
    let facts = Facts {
        command: args
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        runs: args.runs,
        replays: args.runs,
        recordings,
        events: middle(&traces, |trace| trace.events),
        threads,
        peak_live_bytes: middle(&traces, |trace| trace.peak_live_bytes),
        complete: traces.iter().all(|trace| trace.complete),
        own_mappings_bytes: own,
        harness_s,
        remarks,
    };
    validation::print(&rows, &facts, args.format)?;
    if let Some(kept) = &args.keep_trace {
        terminal.say(&format!("trace: {}", kept.display()));
    }
    let whole = rows.iter().all(|row| row.error.is_some());
    Ok(if whole {
        Outcome::Done
    } else {
        Outcome::Incomplete
    })
}

/// How the program is run: with its heap looked at, a server as it was recorded.
fn options(args: &ValidateArgs, heap: HeapLook, limits: &Limits) -> ProgramOptions {
    ProgramOptions {
        heap,
        sample_period_ns: SAMPLE_PERIOD_NS,
        // Checked when it was recorded.
        service: args.service.service(&args.command).ok().flatten(),
        ..ProgramOptions::plain(limits.clone())
    }
}

/// An allocator that the program brings in a library, and the C library to put in its place.
struct Brought {
    allocator: String,
    libc: PathBuf,
}

fn brought(args: &ValidateArgs, limits: &Limits) -> Option<Brought> {
    let (allocator, libc) =
        program::brought_allocator(&args.command, limits).zip(program::c_library())?;
    Some(Brought { allocator, libc })
}

/// A figure of the recordings: their median, as a whole number.
fn middle(traces: &[TraceSummary], figure: impl Fn(&TraceSummary) -> u64) -> u64 {
    let figures: Vec<f64> = traces.iter().map(|trace| figure(trace) as f64).collect();
    heaplab_reports::stats::median(&figures).map_or(0, |figure| figure as u64)
}

/// Records `count` times: what a program asks for and when is not the same in each of its runs, where addresses decide the
/// order in its tables, its threads meet by chance, or an allocator goes by the clock. Each recording is one of these
/// courses, so that replays of several have the spread that runs of the program have. The first one is kept where it was
/// asked for; the scripts of all are.
fn record(
    args: &ValidateArgs,
    count: u32,
    folder: &Path,
    brought: Option<&Brought>,
    terminal: &Terminal,
    progress: &Progress,
) -> Result<(Vec<TraceSummary>, Vec<Comparison>), Error> {
    let (mut traces, mut comparisons) = (Vec::new(), Vec::new());
    for number in 0..count {
        let own = folder.join(format!("program-{number}.hltrace"));
        let kept = args.keep_trace.as_deref().filter(|_| number == 0);
        let out = kept.unwrap_or(&own);
        progress.started("recording");
        traces.push(record_once(args, out, brought, terminal, number == 0)?);
        comparisons.push(compiled(out, folder)?);
        // It may be large, and only its script is needed.
        let _ = std::fs::remove_file(&own);
        progress.finished("recording: done");
    }
    Ok((traces, comparisons))
}

/// A program with an allocator of its own is recorded on the C library's, as the row `system` runs it. It may ask how large its
/// blocks really are and fill them before it asks for larger ones (redis does): on an allocator that rounds up generously it
/// then asks for less than it needs on another one. The C library rounds least.
fn record_once(
    args: &ValidateArgs,
    out: &Path,
    brought: Option<&Brought>,
    terminal: &Terminal,
    with_remarks: bool,
) -> Result<TraceSummary, Error> {
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
        service: args.service.service(&args.command)?,
        allocator: brought.map(|brought| brought.libc.clone()),
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
        Some(trace) if trace.events > 0 => Ok(trace),
        Some(_) => Err(Error::Run(format!(
            "'{name}' never called the allocator; there is nothing to predict, choose another program"
        ))),
        None => Err(Error::Environment(recorded.remarks.join("; "))),
    }
}

fn compiled(trace: &Path, cache: &Path) -> Result<Comparison, Error> {
    let shown = trace.display().to_string();
    // What an allocator gives back by the clock depends on the program's time between its calls.
    let params = Params {
        times: true,
        ..Params::default()
    };
    let workload = Workload::resolve(&shown).map_err(workload::error)?;
    let compiled = workload
        .compile(&params, cache, &mut |_, _| {})
        .map_err(workload::error)?;
    let script = heaplab_script::Script::open_windowed(&compiled.path)
        .map_err(|e| workload::error(e.into()))?;
    Ok(Comparison {
        workload: workload.name().to_string(),
        hash: compiled.hash,
        api: Api::Malloc,
        program: false,
        threads: script.thread_count() as u32,
        started_threads: script.thread_count() as u32,
        script: PathBuf::from(&compiled.path),
        calls: compiled.info.calls,
        switches: script.run_count(),
        kinds: vec![Kind::Memory, Kind::Speed],
        machine: Machine::default(),
        pace: 1.0,
        recorded: None,
        note: None,
    })
}

/// How the clock follows each recording's: less what the recorder took, and with the difference between what the subject takes
/// and what the recorded allocator takes, which is the C library's; that is replayed once for it.
fn clocks(
    traces: &[TraceSummary],
    comparisons: &[Comparison],
    folder: &Path,
    limits: &Limits,
    progress: &Progress,
) -> Result<Vec<RecordedClock>, Error> {
    let system = subject::parse("system")?;
    let keep: Vec<RecordedClock> = (traces.iter().enumerate())
        .map(|(number, trace)| RecordedClock {
            recorder_ns: (trace.finish.as_ref())
                .and_then(|finish| finish.recorder_ns_per_event)
                .unwrap_or(0.0),
            keep: Some(folder.join(format!("times-{number}"))),
            recorded: None,
        })
        .collect();
    let mut replays = replays(comparisons, &system, limits, None);
    replays.clocks = keep.clone();
    let what = "times of calls";
    rounds(
        &system,
        comparisons.len() as u32,
        what,
        progress,
        |at, block| replays.run(&item(comparisons, at, Kind::Memory, block)),
    )
    .remove(0)
    .map_err(Error::Run)?;
    Ok(keep
        .into_iter()
        .map(|clock| RecordedClock {
            recorded: clock.keep,
            keep: None,
            ..clock
        })
        .collect())
}

/// Peak resident bytes of replays, of one recording after the other.
fn peaks(
    comparisons: &[Comparison],
    clocks: &[RecordedClock],
    subjects: &[Subject],
    count: u32,
    limits: &Limits,
    progress: &Progress,
) -> Vec<Samples<f64>> {
    let mut replays = replays(comparisons, subjects, limits, None);
    let what = "replay for memory";
    rounds(subjects, count, what, progress, |at, block| {
        // The recorded allocator's own time is in what was recorded.
        replays.clocks = (clocks.iter().cloned())
            .map(|clock| RecordedClock {
                recorded: clock.recorded.filter(|_| subjects[at].library.is_some()),
                ..clock
            })
            .collect();
        let item = item(comparisons, at, Kind::Memory, block);
        let answer = replays.run(&item)?;
        replays
            .figure(item.comparison, Kind::Memory, &answer)
            .ok_or_else(|| "the replay measured no memory".to_string())
    })
}

/// CPU seconds of all calls of the trace, and the part of them that is the harness's own (the null allocator's).
fn times(
    comparisons: &[Comparison],
    subjects: &[Subject],
    limits: &Limits,
    progress: &Progress,
) -> Result<(Vec<Samples<f64>>, Option<f64>), Error> {
    let null = subject::parse("null")?.pop();
    let mut replays = replays(comparisons, subjects, limits, null);
    // What an allocator does by the clock takes time as well: 17 ms of nothing but calls are over before mimalloc gives back
    // what it does ten times a second in a program of 5 s.
    replays.clocks = vec![RecordedClock::default(); comparisons.len()];
    let seconds = |comparison: usize, answer: &serde_json::Value| {
        let (cpu, calls) = (answer["cpu_ns"].as_f64()?, answer["calls"].as_f64()?);
        let all = comparisons[comparison].calls as f64;
        (calls > 0.0).then(|| cpu / calls * all / 1e9)
    };
    let mut costs = Vec::new();
    for block in 0..TIMED_REPLAYS {
        progress.started("replay for time null");
        let comparison = recorded_in(comparisons, block);
        if let Some(Ok(answer)) = replays.calibrate(comparison) {
            costs.extend(seconds(comparison, &answer));
        }
        progress.finished("replay for time null: done");
    }
    let what = "replay for time";
    let times = rounds(subjects, TIMED_REPLAYS, what, progress, |at, block| {
        let item = item(comparisons, at, Kind::Speed, block);
        let answer = replays.run(&item)?;
        seconds(item.comparison, &answer).ok_or_else(|| "the replay measured no time".to_string())
    });
    Ok((times, heaplab_reports::stats::median(&costs)))
}

fn replays<'a>(
    comparisons: &'a [Comparison],
    subjects: &'a [Subject],
    limits: &Limits,
    null: Option<Subject>,
) -> Replays<'a> {
    Replays {
        comparisons,
        subjects,
        null,
        shape: &|kind: Kind| (kind.default_mode(), kind.default_touch()),
        limits: limits.clone(),
        baselines: HashMap::new(),
        random_addresses: true,
        clocks: Vec::new(),
        idle: std::time::Duration::ZERO,
        tails: crate::tails::Tails::default(),
    }
}

/// The recording that a round replays.
fn recorded_in(comparisons: &[Comparison], block: u32) -> usize {
    block as usize % comparisons.len()
}

fn item(comparisons: &[Comparison], subject: usize, kind: Kind, block: u32) -> Item {
    Item {
        comparison: recorded_in(comparisons, block),
        subject,
        kind,
        block,
        order: subject as u32,
    }
}

/// The subjects as they are put into the program: where it brings an allocator of its own, the C library's must be put in
/// its place for the row `system`, because that is what was recorded and replayed.
fn in_place(
    subjects: &[Subject],
    brought: Option<&Brought>,
    remarks: &mut Vec<String>,
) -> Vec<Subject> {
    let Some(Brought { allocator, libc }) = brought else {
        return subjects.to_vec();
    };
    remarks.push(format!(
        "the program brings its own allocator, {allocator}; the C library's was put in its place for the recording and the row \
         system"
    ));
    subjects
        .iter()
        .map(|subject| Subject {
            library: subject.library.clone().or_else(|| Some(libc.clone())),
            ..subject.clone()
        })
        .collect()
}

/// As often as the program is run: what is subtracted from the median of its runs varies as they do.
fn own_runs(args: &ValidateArgs) -> u32 {
    args.runs.max(OWN_RUNS)
}

/// Anonymous bytes that do not come from malloc at the peak of the program's heap: what it maps by itself (CPython's small
/// objects do not pass malloc), stacks of threads, the loader's. They are the same under every allocator and no replay
/// can know them. 0 where they cannot be measured.
fn own_mappings(
    args: &ValidateArgs,
    brought: Option<&Brought>,
    limits: &Limits,
    progress: &Progress,
) -> u64 {
    let system = Subject {
        label: "system".into(),
        name: "system".into(),
        library: brought.map(|brought| brought.libc.clone()),
        settings: Vec::new(),
        env: vec![("GLIBC_TUNABLES".into(), ALL_FROM_BRK.into())],
        ours: false,
    };
    let options = options(args, HeapLook::EveryMaximum, limits);
    let measured = rounds(
        std::slice::from_ref(&system),
        own_runs(args),
        "own mappings",
        progress,
        |_, _| {
            program::run_program(&system, &args.command, &options)
                .map_err(|failure| failure.reason)
                .map(|report| report.outside_brk_bytes.unwrap_or(0))
        },
    );
    let samples = measured.into_iter().next().and_then(Result::ok);
    let samples: Vec<f64> = samples.into_iter().flatten().map(|n| n as f64).collect();
    heaplab_reports::stats::median(&samples).map_or(0, |bytes| bytes as u64)
}

fn programs(
    args: &ValidateArgs,
    subjects: &[Subject],
    own: u64,
    limits: &Limits,
    progress: &Progress,
    remarks: &mut Vec<String>,
) -> Vec<Samples<Run>> {
    // A run for each figure: a program whose time is sampled, or whose mappings are walked, is held up, and an allocator that
    // gives back by the clock has another peak then.
    let looked_at = options(args, HeapLook::Size, limits);
    let sampled = options(args, HeapLook::Mappings, limits);
    let mut unsampled = None;
    let runs = rounds(subjects, args.runs, "program", progress, |at, _| {
        let run = |options| {
            program::run_program(&subjects[at], &args.command, options)
                .map_err(|failure| failure.reason)
        };
        let peak = run(&looked_at)?.anonymous_peak_bytes;
        let report = run(&sampled)?;
        let (peak, beside) = peak.zip(report.beside_heap_bytes).ok_or_else(|| {
            "it ended before its heap could be looked at; give it more to do".to_string()
        })?;
        if let Some(why) = &report.not_sampled {
            unsampled.get_or_insert_with(|| why.clone());
        }
        Ok(Run {
            peak_bytes: peak.saturating_sub(beside + own) as f64,
            allocation_s: report.allocator_s(),
            cpu_s: (report.user_ns + report.sys_ns) as f64 / 1e9,
        })
    });
    if let Some(why) = unsampled {
        remarks.push(format!(
            "the program's time could not be sampled ({why}); `sysctl kernel.perf_event_paranoid=2` permits it"
        ));
    }
    runs
}

/// `count` rounds over all subjects, so that a machine that changes meanwhile changes for all; a subject that failed is
/// not run again.
fn rounds<T>(
    subjects: &[Subject],
    count: u32,
    what: &str,
    progress: &Progress,
    mut run: impl FnMut(usize, u32) -> Result<T, String>,
) -> Vec<Samples<T>> {
    let mut all: Vec<Samples<T>> = subjects.iter().map(|_| Ok(Vec::new())).collect();
    for block in 0..count {
        for (at, samples) in all.iter_mut().enumerate() {
            if interrupt::requested() {
                return all;
            }
            let Ok(list) = samples else {
                continue;
            };
            let title = format!("{what} {}", subjects[at].label);
            progress.started(&title);
            match run(at, block) {
                Ok(figure) => {
                    list.push(figure);
                    progress.finished(&format!("{title}: done"));
                }
                Err(reason) => {
                    progress.finished(&format!("{title}: FAILED {reason}"));
                    *samples = Err(reason);
                }
            }
        }
    }
    all
}
