//! `heaplab validate`: records a program once, replays it under each subject, runs it under each subject, and puts
//! predicted and actual peak heap side by side.

use crate::cli::ValidateArgs;
use crate::cli::options::Format;
use crate::cmd::run::subjects;
use crate::embed::Embedded;
use crate::engine::Executor;
use crate::error::{Error, Outcome};
use crate::exec::{Limits, signal_name};
use crate::out::{self, Terminal, human_bytes};
use crate::plan::{Comparison, Item, Kind};
use crate::program::{self, ProgramOptions};
use crate::progress::Progress;
use crate::recording::Recording;
use crate::replays::Replays;
use crate::subject::Subject;
use crate::validation::{Row, ranking};
use crate::{embed, interrupt, workload};
use heaplab_worker::protocol::Api;
use heaplab_workloads::trace::TraceSummary;
use heaplab_workloads::{Params, Workload};
use serde_json::json;
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

/// Replays of each subject: lockstep with touched pages repeats to the byte but for the kernel's own sharing of pages.
const REPLAYS: u32 = 2;
/// Runs by which the program's own mappings are measured.
const OWN_RUNS: u32 = 2;
/// Makes glibc take all memory from `brk`: what lies elsewhere is then not malloc's.
const ALL_FROM_BRK: &str = "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1";
/// Own mappings above this are worth a line; below it is the loader's and a few stacks'.
const WORTH_A_LINE: u64 = 1 << 20;

/// Measures and prints.
///
/// # Errors
/// A program that cannot be recorded (3) or fails by itself (4).
pub fn run(args: &ValidateArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let subjects = subjects(&args.subjects.specs())?;
    // Written to the cache before the first run is timed or sampled.
    embed::path(Embedded::Worker)?;
    let folder = tempfile::tempdir().map_err(|e| Error::io("create", &std::env::temp_dir(), &e))?;
    let out = args
        .keep_trace
        .clone()
        .unwrap_or_else(|| folder.path().join("program.hltrace"));
    let trace = record(args, &out, terminal)?;
    interrupt::install();
    let comparison = compiled(&out, folder.path())?;
    let progress = Progress::new(
        terminal,
        subjects.len() as u64 * u64::from(REPLAYS + args.runs) + u64::from(OWN_RUNS),
    );
    let limits = Limits {
        timeout: args.timeout,
        cancel: Some(interrupt::flag()),
    };
    let predicted = replay(&comparison, &subjects, &limits, &progress);
    let own = own_mappings(args, &limits, &progress);
    let actual = programs(args, &subjects, own, &limits, &progress);
    progress.clear();
    if interrupt::requested() {
        terminal.say("interrupted; nothing is kept of a validation");
        return Ok(Outcome::Interrupted);
    }
    let rows: Vec<Row> = (subjects.iter().zip(predicted).zip(actual))
        .map(|((subject, predicted), actual)| Row::new(&subject.label, predicted, actual))
        .collect();
    print(args, &rows, &trace, own)?;
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

/// How the program is run: with its heap sampled, a server as it was recorded.
fn options(args: &ValidateArgs, limits: &Limits) -> ProgramOptions {
    ProgramOptions {
        sample_heap: true,
        // Checked when it was recorded.
        service: args.service.service(&args.command).ok().flatten(),
        ..ProgramOptions::plain(limits.clone())
    }
}

fn record(args: &ValidateArgs, out: &Path, terminal: &Terminal) -> Result<TraceSummary, Error> {
    terminal.detail("recording the program");
    let recorded = Recording {
        command: &args.command,
        out: out.to_path_buf(),
        keep_addresses: false,
        silent: true,
        service: args.service.service(&args.command)?,
    }
    .run(terminal)
    // 125 to 127 are for commands that pass a program's status through.
    .map_err(|e| Error::Environment(e.to_string()))?;
    if recorded.trace.is_some() {
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
    let workload = Workload::resolve(&shown).map_err(workload::error)?;
    let compiled = workload
        .compile(&Params::default(), cache, &mut |_, _| {})
        .map_err(workload::error)?;
    let script =
        heaplab_script::Script::open(&compiled.path).map_err(|e| workload::error(e.into()))?;
    Ok(Comparison {
        workload: workload.name().to_string(),
        hash: compiled.hash,
        api: Api::Malloc,
        program: false,
        threads: script.thread_count() as u32,
        started_threads: script.thread_count() as u32,
        script: PathBuf::from(&compiled.path),
        calls: compiled.info.calls,
        kinds: vec![Kind::Memory],
        note: None,
    })
}

type Samples = Vec<Result<Vec<u64>, String>>;

fn replay(
    comparison: &Comparison,
    subjects: &[Subject],
    limits: &Limits,
    progress: &Progress,
) -> Samples {
    let mut replays = Replays {
        comparisons: std::slice::from_ref(comparison),
        subjects,
        null: None,
        shape: &|kind: Kind| (kind.default_mode(), kind.default_touch()),
        limits: limits.clone(),
        baselines: HashMap::new(),
    };
    rounds(subjects, REPLAYS, "replay", progress, |at, block| {
        let item = Item {
            comparison: 0,
            subject: at,
            kind: Kind::Memory,
            block,
            order: at as u32,
        };
        let answer = replays.run(&item)?;
        replays
            .figure(0, Kind::Memory, &answer)
            .map(|bytes| bytes as u64)
            .ok_or_else(|| "the replay measured no memory".to_string())
    })
}

/// Anonymous bytes that do not come from malloc at the peak of the program's heap: what it maps by itself (CPython's small
/// objects do not pass malloc), stacks of threads, the loader's. They are the same under every allocator and no replay
/// can know them. 0 where they cannot be measured.
fn own_mappings(args: &ValidateArgs, limits: &Limits, progress: &Progress) -> u64 {
    let system = Subject {
        label: "system".into(),
        name: "system".into(),
        library: None,
        settings: Vec::new(),
        env: vec![("GLIBC_TUNABLES".into(), ALL_FROM_BRK.into())],
        ours: false,
    };
    let options = options(args, limits);
    let measured = rounds(
        std::slice::from_ref(&system),
        OWN_RUNS,
        "own mappings",
        progress,
        |_, _| {
            program::run_program(&system, &args.command, &options)
                .map_err(|failure| failure.reason)
                .map(|report| report.outside_brk_bytes.unwrap_or(0))
        },
    );
    let samples = measured.into_iter().next().and_then(Result::ok);
    samples.and_then(|list| list.into_iter().min()).unwrap_or(0)
}

fn programs(
    args: &ValidateArgs,
    subjects: &[Subject],
    own: u64,
    limits: &Limits,
    progress: &Progress,
) -> Samples {
    let options = options(args, limits);
    rounds(subjects, args.runs, "program", progress, |at, _| {
        let report = program::run_program(&subjects[at], &args.command, &options)
            .map_err(|failure| failure.reason)?;
        let heap = report.heap_peak_bytes.ok_or_else(|| {
            "it ended before its heap could be looked at; give it more to do".to_string()
        })?;
        Ok(heap.saturating_sub(own))
    })
}

/// `count` rounds over all subjects, so that a machine that changes meanwhile changes for all; a subject that failed is
/// not run again.
fn rounds(
    subjects: &[Subject],
    count: u32,
    what: &str,
    progress: &Progress,
    mut run: impl FnMut(usize, u32) -> Result<u64, String>,
) -> Samples {
    let mut all: Samples = vec![Ok(Vec::new()); subjects.len()];
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
                Ok(bytes) => {
                    list.push(bytes);
                    progress.finished(&format!("{title}: peak {}", human_bytes(bytes)));
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

fn print(args: &ValidateArgs, rows: &[Row], trace: &TraceSummary, own: u64) -> Result<(), Error> {
    let ranking = ranking(rows);
    let header = [
        "subject",
        "predicted peak",
        "actual peak",
        "spread",
        "error",
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let bytes = |n: Option<f64>| n.map_or("-".into(), |n| human_bytes(n as u64));
            let mut cells = vec![
                row.subject.clone(),
                bytes(row.predicted_peak_bytes),
                bytes(row.actual_peak_bytes),
                row.actual_spread
                    .map_or("-".into(), |s| format!("{:.1} %", 100.0 * s)),
                row.error
                    .map_or("-".into(), |e| format!("{:+.1} %", 100.0 * e)),
            ];
            if let Some(reason) = &row.reason {
                cells[4] = format!("FAILED {reason}");
            }
            cells
        })
        .collect();
    match args.format {
        Format::Json => out::print_json(&json!({
            "command": args.command.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>(),
            "runs": args.runs,
            "replays": REPLAYS,
            "trace": {
                "events": trace.events, "threads": trace.threads,
                "peak_live_bytes": trace.peak_live_bytes, "complete": trace.complete,
            },
            "own_mappings_bytes": own,
            "subjects": rows,
            "ranking": ranking,
        })),
        Format::Csv => {
            let mut text = String::from(
                "subject,predicted_peak_bytes,actual_peak_bytes,actual_spread,error\n",
            );
            for row in rows {
                let number = |n: Option<f64>| n.map_or(String::new(), |n| n.to_string());
                text.push_str(&format!(
                    "{},{},{},{},{}\n",
                    row.subject.replace(',', ";"),
                    number(row.predicted_peak_bytes),
                    number(row.actual_peak_bytes),
                    number(row.actual_spread),
                    number(row.error)
                ));
            }
            out::print(&text)
        }
        Format::Markdown => {
            let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
            let mut text = line(&header.map(String::from));
            text.push_str("|---|---:|---:|---:|---:|\n");
            for row in &cells {
                let escaped: Vec<String> = row.iter().map(|c| c.replace('|', "\\|")).collect();
                text.push_str(&line(&escaped));
            }
            text.push_str(&format!("\n{}\n", verdict(rows, own)));
            out::print(&text)
        }
        Format::Table => {
            let words: Vec<_> = args.command.iter().map(|w| w.to_string_lossy()).collect();
            out::print(&format!(
                "{}   {} events, {} thread{}, peak live {}\n\n{}\n{}\n",
                words.join(" "),
                out::human_count(trace.events),
                trace.threads,
                if trace.threads == 1 { "" } else { "s" },
                human_bytes(trace.peak_live_bytes),
                out::columns(&header, &cells),
                verdict(rows, own)
            ))
        }
    }
}

/// What the ranking says, and how to read the columns.
fn verdict(rows: &[Row], own: u64) -> String {
    let pairs = ranking(rows);
    let decided = pairs.agree + pairs.disagree;
    let order = match (decided, pairs.undecided) {
        (0, 0) => {
            "no two subjects have both figures, so that there is no order to compare".to_string()
        }
        (0, _) => "the program's own runs do not separate these subjects".to_string(),
        (n, undecided) => {
            let rest = match undecided {
                0 => String::new(),
                1 => "; 1 pair is not separated by the program's own runs".into(),
                more => format!("; {more} pairs are not separated by the program's own runs"),
            };
            format!(
                "the replay orders {} of {n} pairs of subjects as the program does{rest}",
                pairs.agree
            )
        }
    };
    let left_out = if own >= WORTH_A_LINE {
        format!(
            "\n! {} that do not come from malloc (mapped by the program itself, stacks of threads) are left out of the \
             actual peaks: no allocator changes them; CPython's small objects are such, PYTHONMALLOC=malloc brings them in",
            human_bytes(own)
        )
    } else {
        String::new()
    };
    format!(
        "ANSWER  {order}.\npeaks: heap memory without data, stacks and file mappings; spread: smallest to largest of the \
         program's own runs.{left_out}"
    )
}
