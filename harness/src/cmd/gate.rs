//! `heaplab gate`: measures base and head in one job, or takes two stored results, and prints the verdict.
//!
//! Judging itself is the package `heaplab-ci`'s; here only measuring, printing and the exit status are.

use crate::campaign::{Campaign, Finished};
use crate::cli::options::Format;
use crate::cli::{GateCommand, GateCompareArgs, GateRunArgs};
use crate::cmd::run::{keep_only, program_comparison};
use crate::engine::Repetition;
use crate::error::{Error, Outcome, lower_first};
use crate::exec::Limits;
use crate::out::{self, Terminal};
use crate::plan::{self, Comparison, Kind};
use crate::program::ProgramOptions;
use crate::programs::Programs;
use crate::replays::Replays;
use crate::session::{Session, Start};
use crate::subject::{self, Subject};
use crate::tools::VALGRIND;
use crate::{interrupt, render, workload};
use heaplab_ci::{
    GateReport, Mode as GateMode, Policy, control_label, judge, judge_pair, render as faces,
};
use heaplab_reports::{RESULT_FILE, shell, write_atomic};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

/// Labels of the two sides where the user gave none.
const BASE: &str = "base";
const HEAD: &str = "head";
/// Time of a gate run without `--blocks` and `--budget`: enough blocks for a verdict on a quiet machine.
const DEFAULT_BUDGET: Duration = Duration::from_secs(300);

/// Measures and judges, or only judges.
///
/// # Errors
/// Wrong usage, unreadable policy or results, or an environment in which nothing can be measured or kept.
pub fn run(command: &GateCommand, terminal: &Terminal) -> Result<Outcome, Error> {
    match command {
        GateCommand::Run(args) => measure(args, terminal),
        GateCommand::Compare(args) => compare(args, terminal),
    }
}

fn policy(path: Option<&Path>) -> Result<Policy, Error> {
    match path {
        None => Ok(Policy::default()),
        Some(path) => Policy::load(path).map_err(|e| Error::usage(lower_first(&e.to_string()))),
    }
}

fn compare(args: &GateCompareArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let policy = policy(args.policy.as_deref())?;
    let load = |path: &Path| {
        if !path.exists() {
            let folder = match path.parent() {
                Some(folder) if path.ends_with(RESULT_FILE) && folder != Path::new("") => folder,
                _ => path,
            };
            return Err(Error::environment(format!(
                "there is no result at '{}'; `heaplab run --suite gate --measure memory,counts -o {}` makes one",
                path.display(),
                shell::path(folder)
            )));
        }
        heaplab_reports::load(path).map_err(render::error)
    };
    let (old, new) = (load(&args.old)?, load(&args.new)?);
    let report = judge(&old, &new, &policy, GateMode::Stored);
    print(&report, args.format, args.strict, terminal)?;
    Ok(outcome(&report, args.strict))
}

fn measure(args: &GateRunArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    interrupt::install();
    if args.workload.idle.is_some() {
        return Err(Error::usage(
            "--idle: a gate judges no idle tails; `heaplab run --idle` shows them",
        ));
    }
    let policy = policy(args.policy.as_deref())?;
    let seed = args.workload.seed.unwrap_or_else(plan::draw_seed);
    let start = Start::now(seed);
    let began = Instant::now();
    let (finished, sides, controls) = match (&args.base, &args.head, &args.base_cmd, &args.head_cmd)
    {
        (Some(base), Some(head), ..) => {
            // Wrong usage where no program is named.
            args.service.service(&[])?;
            let (subjects, controls) = subjects(base, head, &policy)?;
            (
                replays(args, terminal, &start, &subjects, &policy)?,
                labels(&subjects),
                controls,
            )
        }
        (_, _, Some(base), Some(head)) => {
            let subjects = programs_subjects()?;
            (
                programs(args, terminal, &start, &subjects, [base, head], &policy)?,
                labels(&subjects),
                Vec::new(),
            )
        }
        _ => {
            return Err(Error::usage(
                "name both sides: --base X --head Y, or --base-cmd and --head-cmd",
            ));
        }
    };
    if finished.outcome == Outcome::Interrupted {
        terminal.say(&format!(
            "interrupted: no verdict; finished runs are in {}",
            finished.folder.display()
        ));
        return Ok(Outcome::Interrupted);
    }
    let mut report = judge_pair(&finished.result, &sides[0], &sides[1], &controls, &policy);
    report.elapsed_s = Some(began.elapsed().as_secs_f64());
    for (name, text) in faces::files(&report, args.strict) {
        write_atomic(&finished.folder.join(name), text.as_bytes()).map_err(render::error)?;
    }
    print(&report, args.output.format, args.strict, terminal)?;
    terminal.say(&format!("results: {}", finished.folder.display()));
    Ok(outcome(&report, args.strict))
}

/// Base, head, and each control of the policy twice, under labels of their own.
fn subjects(base: &str, head: &str, policy: &Policy) -> Result<(Vec<Subject>, Vec<String>), Error> {
    let mut all = vec![side(base, BASE)?, side(head, HEAD)?];
    if all[0].label == all[1].label {
        return Err(Error::usage(format!(
            "base and head are both labelled '{}'; give one another label",
            all[0].label
        )));
    }
    let mut controls = Vec::new();
    for name in &policy.controls.subjects {
        let control = one(name)?;
        let again = Subject {
            label: control_label(&control.label),
            ..control.clone()
        };
        controls.push(control.label.clone());
        all.extend([control, again]);
    }
    Ok((all, controls))
}

fn one(spec: &str) -> Result<Subject, Error> {
    match <[Subject; 1]>::try_from(subject::parse(spec)?) {
        Ok([only]) => Ok(only),
        Err(_) => Err(Error::usage(format!(
            "'{spec}' names several subjects; a side of the gate is one"
        ))),
    }
}

/// One side. Without a label of the user's it is called by its side, so that the same allocator may stand on both.
fn side(spec: &str, default: &str) -> Result<Subject, Error> {
    let labelled = spec
        .split_once('=')
        .is_some_and(|(label, _)| !label.contains([':', '/']));
    let mut subject = one(spec)?;
    if !labelled {
        subject.label = default.to_string();
    }
    Ok(subject)
}

fn labels(subjects: &[Subject]) -> [String; 2] {
    [subjects[0].label.clone(), subjects[1].label.clone()]
}

fn repetition(args: &GateRunArgs) -> Repetition {
    match args.repeat.blocks {
        Some(blocks) => Repetition::Blocks(blocks),
        None => Repetition::within(args.repeat.budget, DEFAULT_BUDGET),
    }
}

fn replays(
    args: &GateRunArgs,
    terminal: &Terminal,
    start: &Start,
    subjects: &[Subject],
    policy: &Policy,
) -> Result<Finished, Error> {
    let kinds = workload::kinds(&args.workload, &[Kind::Speed, Kind::Memory, Kind::Counts]);
    let mut notes = Vec::new();
    if kinds.contains(&Kind::Counts) && VALGRIND.find().is_none() {
        // The rows fail and the gate cannot pass; the remedy is said before time is spent.
        terminal.say(&format!(
            "instructions cannot be counted: {}",
            VALGRIND.missing()
        ));
        notes.push(format!(
            "instructions could not be counted: {}",
            VALGRIND.missing()
        ));
    }
    let suite = args.suite.as_deref().unwrap_or("gate");
    let all = workload::comparisons(
        &args.workloads,
        suite,
        &args.workload,
        start.seed,
        &kinds,
        terminal,
    )?;
    let comparisons = keep_only(all, args.only.as_deref())?;
    let shape = |kind| workload::shape(&args.workload, kind);
    let mut executor = Replays {
        comparisons: &comparisons,
        subjects,
        null: if kinds.contains(&Kind::Speed) {
            Some(one("null")?)
        } else {
            None
        },
        shape: &shape,
        limits: Limits {
            timeout: args.timeout,
            cancel: Some(interrupt::flag()),
        },
        baselines: HashMap::new(),
        random_addresses: false,
        clocks: Vec::new(),
        idle: Duration::ZERO,
        tails: crate::tails::Tails::default(),
    };
    let least = policy.min_pairs as u32;
    campaign(
        args,
        start,
        suite,
        &comparisons,
        subjects,
        &shape,
        notes,
        least,
    )?
    .go(&mut executor, terminal)
}

/// The two sides of a gate of programs: the system's allocator under two labels.
fn programs_subjects() -> Result<Vec<Subject>, Error> {
    Ok(vec![side("base=system", BASE)?, side("head=system", HEAD)?])
}

fn programs(
    args: &GateRunArgs,
    terminal: &Terminal,
    start: &Start,
    subjects: &[Subject],
    commands: [&String; 2],
    policy: &Policy,
) -> Result<Finished, Error> {
    // The shell splits and expands, as the user would expect of one string.
    let commands = commands.map(|c| ["/bin/sh", "-c", c.as_str()].map(OsString::from).to_vec());
    let machine = workload::program_machine(&args.workload)?;
    let mut comparison = program_comparison(&commands[0], machine);
    comparison.workload = args.base_cmd.clone().unwrap_or_default();
    let comparisons = [comparison];
    let shape = |kind: Kind| (kind.default_mode(), kind.default_touch());
    let options = ProgramOptions {
        service: args.service.service(&commands[0])?,
        metrics: args.metrics.metrics.clone(),
        machine,
        ..ProgramOptions::plain(Limits {
            timeout: args.timeout,
            cancel: Some(interrupt::flag()),
        })
    };
    let mut executor = Programs::new(&commands, subjects, options);
    let least = policy.min_pairs as u32;
    campaign(
        args,
        start,
        "programs",
        &comparisons,
        subjects,
        &shape,
        Vec::new(),
        least,
    )?
    .go(&mut executor, terminal)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of a campaign, named where they are made"
)]
fn campaign<'a>(
    args: &GateRunArgs,
    start: &Start,
    name: &str,
    comparisons: &'a [Comparison],
    subjects: &'a [Subject],
    shape: &'a dyn Fn(
        Kind,
    ) -> (
        heaplab_worker::protocol::Mode,
        heaplab_worker::protocol::Touch,
    ),
    notes: Vec<String>,
    least_blocks: u32,
) -> Result<Campaign<'a>, Error> {
    Ok(Campaign {
        session: Session::create(args.output.out.as_deref(), &format!("gate-{name}"), start)?,
        command: start.again(),
        seed: start.seed,
        started: start.started.clone(),
        done: Vec::new(),
        comparisons,
        subjects,
        shape,
        repetition: repetition(args),
        least_blocks,
        notes,
        report: !args.output.no_report,
    })
}

fn print(
    report: &GateReport,
    format: Format,
    strict: bool,
    terminal: &Terminal,
) -> Result<(), Error> {
    match format {
        Format::Table => {
            let look = faces::Look {
                color: terminal.color,
                all: terminal.verbose,
                strict,
            };
            out::print(&faces::terminal(report, look))
        }
        Format::Markdown => out::print(&faces::markdown(report, strict)),
        Format::Json => out::print(&faces::json(report, strict)),
        Format::Csv => {
            let mut text = String::from("cell,metric,verdict,base,head,change\n");
            let number = |n: Option<f64>| n.map_or_else(String::new, |n| n.to_string());
            for row in report.rows.iter().chain(&report.controls) {
                let e = &row.evidence;
                text.push_str(&format!(
                    "\"{}\",{},{},{},{},{}\n",
                    row.cell.replace('"', "\"\""),
                    row.metric,
                    row.verdict.word(),
                    number(e.base),
                    number(e.head),
                    number(e.change)
                ));
            }
            out::print(&text)
        }
    }
}

fn outcome(report: &GateReport, strict: bool) -> Outcome {
    match report.exit_status(strict) {
        0 => Outcome::Done,
        1 => Outcome::Found,
        5 => Outcome::Inconclusive,
        6 => Outcome::Contaminated,
        _ => Outcome::Incomplete,
    }
}
