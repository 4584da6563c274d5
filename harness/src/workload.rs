//! From the words of the command line to scripts on disk: every workload in every number of threads and API becomes one
//! comparison of the plan.

use crate::cli::options::{ApiArg, MeasureArg, ModeArg, ThpArg, TouchArg, WorkloadArgs};
use crate::cli::value::Cpus;
use crate::error::{Error, lower_first};
use crate::out::Terminal;
use crate::plan::{Comparison, Kind};
use crate::script_cache;
use crate::watch::Watch;
use heaplab_reports::schema::Recorded;
use heaplab_worker::protocol::{Api, Machine, Mode, Thp, Touch};
use heaplab_workloads::trace::TraceError;
use heaplab_workloads::{Model, Params, Workload, WorkloadError};

/// Compiles the workloads of `names`, or of `suite` where there are none, into the cache of scripts. What takes long shows a bar, and
/// Ctrl-C ends the process: nothing has been measured yet.
///
/// # Errors
/// Usage for an unknown name or suite; verification for a damaged trace; environment if a script cannot be written.
pub fn comparisons(
    names: &[String],
    suite: &str,
    args: &WorkloadArgs,
    seed: u64,
    kinds: &[Kind],
    terminal: &Terminal,
) -> Result<Vec<Comparison>, Error> {
    let of_suite = names.is_empty();
    let names: Vec<String> = if of_suite {
        heaplab_workloads::suite(suite).map_err(error)?.workloads
    } else {
        names.to_vec()
    };
    let cache = script_cache::folder();
    let mut chosen = args.threads.is_empty();
    let apis: Vec<Api> = if args.api.is_empty() {
        vec![Api::Malloc]
    } else {
        args.api
            .iter()
            .map(|a| {
                if *a == ApiArg::Sized {
                    Api::Sized
                } else {
                    Api::Malloc
                }
            })
            .collect()
    };
    let mut all: Vec<Comparison> = Vec::new();
    for name in &names {
        let workload = Workload::resolve(name).map_err(error)?;
        let note = missing(&workload)?;
        // Threads of a recording cannot be chosen.
        chosen |= matches!(workload, Workload::Model(_));
        let own = args.threads.is_empty() || matches!(workload, Workload::Trace(_));
        let threads: Vec<Option<u32>> = match own {
            true => vec![None],
            false => args.threads.iter().map(|t| Some(*t)).collect(),
        };
        let threads = match &workload {
            Workload::Model(model) if of_suite => enough(model, threads, terminal),
            _ => threads,
        };
        for threads in threads {
            let params = Params {
                seed,
                scale: args.scale,
                threads,
                times: args.mode == Some(ModeArg::Paced),
                ..Params::default()
            };
            let what = match workload.is_cached(&params, &cache).map_err(error)? {
                true => "checking scripts",
                false => "making scripts",
            };
            let mut watch =
                Watch::new(terminal, what).keeping("nothing was measured yet".to_string());
            let compiled = workload.compile(&params, &cache, &mut watch.events());
            watch.clear();
            let compiled = compiled.map_err(error)?;
            let started_threads = compiled.threads;
            let switches = compiled.runs;
            let threads = match &workload {
                Workload::Model(model) => threads.unwrap_or_else(|| model.threads()),
                _ => started_threads,
            };
            for api in &apis {
                let comparison = Comparison {
                    workload: workload.name().to_string(),
                    hash: compiled.hash.clone(),
                    api: *api,
                    program: false,
                    threads,
                    started_threads,
                    script: compiled.path.clone(),
                    calls: compiled.info.calls,
                    switches,
                    kinds: kinds.to_vec(),
                    machine: machine(args, &workload)?,
                    pace: args.pace,
                    recorded: recorded(&workload, args.scale),
                    note: note.clone(),
                };
                // The same workload named twice would be two rows with one name.
                if !all
                    .iter()
                    .any(|c| c.title() == comparison.title() && c.hash == comparison.hash)
                {
                    all.push(comparison);
                }
            }
        }
    }
    if all.is_empty() {
        return Err(Error::usage(
            "no workload of the suite runs with so few threads; name more with --threads",
        ));
    }
    if !chosen {
        return Err(Error::usage(
            "--threads is for models, and all workloads here are recorded; leave it out, or make a trace with more threads by \
             'heaplab trace scale --copies N'",
        ));
    }
    Ok(all)
}

/// The numbers of threads that a model of a suite can run with: nobody chose it by name, so that the others of the suite go on.
fn enough(model: &Model, threads: Vec<Option<u32>>, terminal: &Terminal) -> Vec<Option<u32>> {
    let least = model.least_threads();
    let (can, cannot): (Vec<_>, Vec<_>) =
        (threads.into_iter()).partition(|threads| threads.is_none_or(|t| t >= least));
    for threads in cannot.into_iter().flatten() {
        terminal.say(&format!(
            "{} is left out at {threads} thread{}: it needs {least}",
            model.name(),
            if threads == 1 { "" } else { "s" }
        ));
    }
    can
}

/// The machine as the subjects are to see it.
fn machine(args: &WorkloadArgs, workload: &Workload) -> Result<Machine, Error> {
    let cpus = match (args.cpus, workload) {
        (None, _) => 0,
        (Some(Cpus::Number(cpus)), _) => cpus,
        (Some(Cpus::Recorded), Workload::Trace(recorded)) => recorded.trace().header().machine.cpus,
        (Some(Cpus::Recorded), _) => {
            return Err(Error::usage(format!(
                "model '{}' was recorded nowhere: write a number with --cpus",
                workload.name()
            )));
        }
    };
    Ok(Machine {
        cpus,
        thp: match args.thp {
            ThpArg::Default => Thp::Default,
            ThpArg::Never => Thp::Never,
            ThpArg::Always => Thp::Always,
        },
        memory_limit: args.memory_limit.unwrap_or(0),
        fixed_addresses: false,
    })
}

/// The machine as a whole program is to see it.
///
/// # Errors
/// Options that shape a replay and could do nothing for a program: what was asked for would not have been measured.
pub fn program_machine(args: &WorkloadArgs) -> Result<Machine, Error> {
    let replays_only = [
        ("--api", !args.api.is_empty()),
        ("--mode", args.mode.is_some()),
        ("--touch", args.touch.is_some()),
        ("--threads", !args.threads.is_empty()),
        ("--scale", args.scale != 1.0),
        ("--pace", args.pace != 1.0),
        ("--idle", args.idle.is_some()),
        ("--cpus", args.cpus.is_some()),
        ("--thp always", args.thp == ThpArg::Always),
        (
            "--measure latency",
            args.measure.contains(&MeasureArg::Latency),
        ),
    ];
    if let Some((option, _)) = replays_only.iter().find(|(_, given)| *given) {
        return Err(Error::usage(format!(
            "{option} shapes a replay and can do nothing for a whole program; leave it out, or record the program and run the trace"
        )));
    }
    Ok(Machine {
        thp: match args.thp {
            ThpArg::Never => Thp::Never,
            ThpArg::Default | ThpArg::Always => Thp::Default,
        },
        memory_limit: args.memory_limit.unwrap_or(0),
        ..Machine::default()
    })
}

/// The recording behind a trace.
fn recorded(workload: &Workload, scale: f64) -> Option<Recorded> {
    let Workload::Trace(recorded) = workload else {
        return None;
    };
    let summary = recorded.trace().summary();
    let header = recorded.trace().header();
    // What a part of it took is not known.
    let whole = scale >= 1.0 && recorded.process().is_none();
    let cpu_s = summary
        .finish
        .as_ref()
        .filter(|_| whole)
        .and_then(|finish| {
            let cost = finish.recorder_ns_per_event.unwrap_or(0.0) * summary.events as f64;
            let own = finish.cpu_ns? as f64 - cost;
            (own > 0.0).then_some(own / 1e9)
        });
    Some(Recorded {
        cpus: header.machine.cpus,
        allocator: header.allocator.clone(),
        command: header.argv.clone(),
        cpu_s,
    })
}

/// What a trace lacks, for the notes of the result.
///
/// # Errors
/// A trace without a single event: there is nothing to compare.
fn missing(workload: &Workload) -> Result<Option<String>, Error> {
    let Workload::Trace(recorded) = workload else {
        return Ok(None);
    };
    let summary = recorded.trace().summary();
    let missing = summary.missing.join("; ");
    if summary.events == 0 {
        let why = if missing.is_empty() {
            "its program never called the allocator".to_string()
        } else {
            format!("missing is {missing}")
        };
        return Err(Error::environment(format!(
            "trace '{}' holds no event to replay: {why}; record it again with `heaplab record`",
            recorded.trace().path().display()
        )));
    }
    let mut notes = Vec::new();
    if let Some((process, false)) = recorded.process() {
        let share = 100.0 * process.events as f64 / summary.events as f64;
        notes.push(format!(
            "trace '{}' holds {} processes; replayed is the busiest, {} ({}), with {share:.0} % of all events: choose another \
             with FILE#PID, `heaplab trace info` lists them",
            workload.name(),
            summary.processes,
            process.info.name(),
            process.info.pid
        ));
    }
    if !summary.complete {
        notes.push(format!(
            "trace '{}' is not whole, what is left of it was replayed; missing: {missing}",
            workload.name()
        ));
    }
    Ok((!notes.is_empty()).then(|| notes.join("; ")))
}

/// The measures, in a fixed order, each once.
pub fn kinds(args: &WorkloadArgs, default: &[Kind]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = args
        .measure
        .iter()
        .map(|m| match m {
            MeasureArg::Speed => Kind::Speed,
            MeasureArg::Latency => Kind::Latency,
            MeasureArg::Memory => Kind::Memory,
            MeasureArg::Counts => Kind::Counts,
        })
        .collect();
    if kinds.is_empty() {
        kinds = default.to_vec();
    }
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Mode and touch of a measure: the user's, else the measure's own.
pub fn shape(args: &WorkloadArgs, kind: Kind) -> (Mode, Touch) {
    let mode = match args.mode {
        Some(ModeArg::Fast) => Mode::Fast,
        Some(ModeArg::Paced) => Mode::Paced,
        Some(ModeArg::Lockstep) => Mode::Lockstep,
        None => kind.default_mode(),
    };
    // These two mean something only in the script's order; memory keeps it at the recorded pace as well.
    let mode = match (kind, mode) {
        (Kind::Memory | Kind::Idle, Mode::Fast) | (Kind::Counts, Mode::Paced) => Mode::Lockstep,
        _ => mode,
    };
    let touch = match args.touch {
        Some(TouchArg::None) => Touch::None,
        Some(TouchArg::First) => Touch::First,
        Some(TouchArg::Page) => Touch::Page,
        Some(TouchArg::Recorded) => Touch::Recorded,
        Some(TouchArg::All) => Touch::All,
        None => kind.default_touch(),
    };
    (mode, touch)
}

/// An error of the workloads package with its exit status.
pub fn error(error: WorkloadError) -> Error {
    match error {
        WorkloadError::Unknown { .. }
        | WorkloadError::UnknownSuite { .. }
        | WorkloadError::Model { .. }
        | WorkloadError::Parameters(_) => Error::Usage(lower_first(&error.to_string())),
        WorkloadError::Io {
            action,
            path,
            source,
        } => Error::io(action, &path, &source),
        WorkloadError::Trace(inner) => trace_error(inner),
        WorkloadError::NoRoom { .. } => Error::Environment(error.to_string()),
        WorkloadError::Impossible { .. } | WorkloadError::Unexpected(_) => {
            Error::Verification(error.to_string())
        }
        WorkloadError::Script(inner) => Error::Environment(lower_first(&inner.to_string())),
    }
}

/// An error of a trace. What cannot be read or is no whole trace is the environment's: `trace verify`, whose question is
/// just that, makes it a failed verification.
pub fn trace_error(error: TraceError) -> Error {
    match error {
        TraceError::Io {
            action,
            path,
            source,
        } => Error::io(action, &path, &source),
        TraceError::Usage(_) => Error::Usage(lower_first(&error.to_string())),
        TraceError::Damaged { .. } => Error::Environment(format!(
            "{}; `heaplab trace verify` checks a file, and a recording that is cut off is read up to its last whole part",
            lower_first(&error.to_string())
        )),
        TraceError::NotATrace { .. } | TraceError::TooNew { .. } => {
            Error::Environment(lower_first(&error.to_string()))
        }
    }
}
