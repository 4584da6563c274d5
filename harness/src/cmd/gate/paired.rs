//! `heaplab gate run`: base and head measured in paired blocks of one job, by replays or as whole programs, and judged.

use super::replaying::{Replaying, SUITE, one};
use crate::campaign::{Campaign, Finished};
use crate::cli::GateRunArgs;
use crate::cmd::commands;
use crate::cmd::run::program_comparison;
use crate::engine::Repetition;
use crate::error::{Error, Outcome};
use crate::exec::Limits;
use crate::out::Terminal;
use crate::plan::{self, Comparison, Kind};
use crate::program::ProgramOptions;
use crate::programs::Programs;
use crate::session::{Session, Start};
use crate::subject::Subject;
use crate::{interrupt, render, workload};
use heaplab_ci::{Policy, control_label, judge_pair, render as faces};
use heaplab_reports::write_atomic;
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// Labels of the two sides where the user gave none.
const BASE: &str = "base";
const HEAD: &str = "head";
/// What options for programs are told where two allocators are compared.
const NO_PROGRAM: &str = "a gate of programs has --base-cmd and --head-cmd";
/// Time of a gate run without `--blocks` and `--budget`: enough blocks for a verdict on a quiet machine.
const DEFAULT_BUDGET: Duration = Duration::from_secs(300);

/// Measures and judges.
///
/// # Errors
/// Wrong usage, an unreadable policy, or an environment in which nothing can be measured or kept.
pub fn run(args: &GateRunArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    interrupt::install();
    if args.workload.idle.is_some() {
        return Err(Error::usage(
            "--idle: a gate judges no idle tails; `heaplab run --idle` shows them",
        ));
    }
    let policy = super::policy(args.policy.as_deref())?;
    let seed = args.workload.seed.unwrap_or_else(plan::draw_seed);
    let start = Start::now(seed);
    let began = Instant::now();
    let (finished, sides, controls) = match (&args.base, &args.head, &args.base_cmd, &args.head_cmd)
    {
        (Some(base), Some(head), ..) => {
            args.service.unused(NO_PROGRAM)?;
            args.metrics.unused(NO_PROGRAM)?;
            let (subjects, controls) = subjects(base, head, &policy)?;
            let suite = args.suite.as_deref().unwrap_or(SUITE);
            let replaying = Replaying {
                workloads: &args.workloads,
                suite,
                parameters: &args.workload,
                kinds: &workload::kinds(&args.workload, &[Kind::Speed, Kind::Memory, Kind::Counts]),
                only: args.only.as_deref(),
                repetition: repetition(args),
                least_blocks: policy.min_pairs as u32,
                timeout: args.timeout,
                out: args.output.out.as_deref(),
                name: &format!("gate-{suite}"),
                report: !args.output.no_report,
            };
            if args.print_command {
                return replaying.commands(seed, &subjects, terminal);
            }
            let finished = replaying.go(&start, &subjects, terminal)?;
            (finished, labels(&subjects), controls)
        }
        (_, _, Some(base), Some(head)) => {
            let subjects = programs_subjects()?;
            let (comparison, sides) = pair(args, [base, head])?;
            if args.print_command {
                return commands::programs(&comparison, &subjects, &sides);
            }
            (
                programs(
                    args, terminal, &start, &subjects, comparison, sides, &policy,
                )?,
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
    for (name, text) in faces::files(&report, args.strict()) {
        write_atomic(&finished.folder.join(name), text.as_bytes()).map_err(render::error)?;
    }
    if !args.output.no_report {
        let verdict = render::verdict_in(&finished.folder);
        render::write_judged(&finished.result, &finished.folder, verdict)?;
    }
    super::print(&report, args.output.format, args.strict(), terminal)?;
    terminal.say(&format!("results: {}", finished.folder.display()));
    let outcome = super::outcome(&report, args.strict());
    if args.bisect && !matches!(outcome, Outcome::Done | Outcome::Found) {
        terminal.say("no verdict: with --bisect the exit status is 125, by which `git bisect run` skips this commit");
    }
    Ok(outcome)
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

/// The two sides of a gate of programs: the system's allocator under two labels.
fn programs_subjects() -> Result<Vec<Subject>, Error> {
    Ok(vec![side("base=system", BASE)?, side("head=system", HEAD)?])
}

/// The two programs as what is compared, which bears the base's name, and as commands: the shell splits and expands, as the user would
/// expect of one string.
fn pair(
    args: &GateRunArgs,
    sides: [&String; 2],
) -> Result<(Comparison, [Vec<OsString>; 2]), Error> {
    let commands = sides.map(|c| ["/bin/sh", "-c", c.as_str()].map(OsString::from).to_vec());
    let machine = workload::program_machine(&args.workload)?;
    let comparison = Comparison {
        workload: sides[0].clone(),
        ..program_comparison(&commands[0], machine)
    };
    Ok((comparison, commands))
}

fn programs(
    args: &GateRunArgs,
    terminal: &Terminal,
    start: &Start,
    subjects: &[Subject],
    comparison: Comparison,
    commands: [Vec<OsString>; 2],
    policy: &Policy,
) -> Result<Finished, Error> {
    let machine = comparison.machine;
    let comparisons = [comparison];
    let shape = |kind: Kind| (kind.default_mode(), kind.default_touch());
    let options = ProgramOptions {
        service: args.service.service()?,
        metrics: args.metrics.metrics.clone(),
        machine,
        ..ProgramOptions::plain(Limits {
            timeout: args.timeout,
            cancel: Some(interrupt::flag()),
        })
    };
    let mut executor = Programs::new(&commands, subjects, options);
    let campaign = Campaign {
        session: Session::create(args.output.out.as_deref(), "gate-programs", start)?,
        command: start.again(),
        seed: start.seed,
        started: start.started.clone(),
        done: Vec::new(),
        comparisons: &comparisons,
        subjects,
        shape: &shape,
        repetition: repetition(args),
        least_blocks: policy.min_pairs as u32,
        idle: Duration::ZERO,
        notes: Vec::new(),
        report: !args.output.no_report,
    };
    campaign.go(&mut executor, terminal)
}
