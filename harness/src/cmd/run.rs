//! `heaplab run`: the comparison, on workloads or on a whole program.

use super::commands;
use crate::campaign::{Campaign, Finished, hex};
use crate::cli::value::Variant;
use crate::cli::{Cli, Command, RunArgs};
use crate::engine::{LEAST_BLOCKS, Repetition};
use crate::error::{Error, Outcome};
use crate::exec::Limits;
use crate::out::Terminal;
use crate::plan::{self, Comparison, Kind};
use crate::program::ProgramOptions;
use crate::programs::Programs;
use crate::replays::Replays;
use crate::session::{Session, Start};
use crate::subject::{self, Subject};
use crate::tails::Tails;
use crate::{assemble, interrupt, readback, render, tools, workload};
use clap::Parser;
use heaplab_reports::schema::RunLine;
use heaplab_reports::shell;
use heaplab_worker::protocol::{Api, Machine};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The idle tail of memory runs where the user did not say, and the suites that have one: it costs half a minute in all.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_SUITES: [&str; 3] = ["standard", "full", "fragmentation"];
/// Time that a run without `--blocks` and `--budget` takes, about, unless six blocks take longer.
const DEFAULT_BUDGET: Duration = Duration::from_secs(90);
/// What options for programs are told where none is named.
const NO_PROGRAM: &str = "name a program after --";

/// Measures, stores, prints.
///
/// # Errors
/// Wrong usage, or an environment in which nothing can be measured or kept.
pub fn run(args: &RunArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let Some(folder) = &args.resume else {
        let seed = args.workload.seed.unwrap_or_else(plan::draw_seed);
        return measure(
            args,
            terminal,
            Origin {
                start: Start::now(seed),
                resumed: None,
            },
        );
    };
    let (session, start, done) = Session::resume(folder)?;
    let folder = std::path::absolute(folder).map_err(|e| Error::io("find", folder, &e))?;
    if session.result_file().exists() && heaplab_reports::load(&folder).is_ok_and(|r| r.complete) {
        return Err(Error::usage(format!(
            "'{}' is complete; `heaplab report {}` shows it again",
            folder.display(),
            shell::path(&folder)
        )));
    }
    drop(session);
    std::env::set_current_dir(&start.directory)
        .map_err(|e| Error::io("enter", &start.directory, &e))?;
    let (session, ..) = Session::resume(&folder)?;
    let cli = Cli::try_parse_from(&start.command);
    let Ok(Cli {
        command: Command::Run(stored),
        ..
    }) = cli
    else {
        return Err(Error::Verification(format!(
            "'{}' holds a command line that this heaplab does not understand; start a new run",
            folder.display()
        )));
    };
    terminal.say(&format!("continuing after {} runs", done.len()));
    measure(
        &stored,
        terminal,
        Origin {
            start,
            resumed: Some((session, done)),
        },
    )
}

/// Where a measurement begins: anew, or after some runs.
struct Origin {
    start: Start,
    resumed: Option<(Session, Vec<RunLine>)>,
}

fn measure(args: &RunArgs, terminal: &Terminal, origin: Origin) -> Result<Outcome, Error> {
    interrupt::install();
    let subjects = subjects(&args.subjects.specs())?;
    let notes = readback::check(&subjects, &Limits::seconds(60))?;
    if !args.command.is_empty() {
        return program(args, terminal, origin, subjects, notes);
    }
    args.service.unused(NO_PROGRAM)?;
    args.metrics.unused(NO_PROGRAM)?;
    let mut kinds = workload::kinds(&args.workload, &[Kind::Speed, Kind::Latency, Kind::Memory]);
    let suite = args.suite.as_deref().unwrap_or("quick");
    let idle = match args.workload.idle {
        Some(idle) => idle,
        None if IDLE_SUITES.contains(&suite) => IDLE,
        None => Duration::ZERO,
    };
    if !idle.is_zero() && kinds.contains(&Kind::Memory) {
        kinds.push(Kind::Idle);
    }
    let seed = origin.start.seed;
    let all = workload::comparisons(
        &args.workloads,
        suite,
        &args.workload,
        seed,
        &kinds,
        terminal,
    )?;
    let (comparisons, subjects) = only(
        plan::keep_shard(all, args.shard),
        subjects,
        args.only.as_deref(),
    )?;
    let mut subjects = subjects;
    if let (true, Some(first)) = (args.aa, subjects.first()) {
        subjects.push(Subject {
            label: format!("{}{}", first.label, assemble::aa::SUFFIX),
            ..first.clone()
        });
    }
    let shape = |kind| workload::shape(&args.workload, kind);
    let limits = Limits {
        timeout: args.timeout,
        cancel: Some(interrupt::flag()),
    };
    if args.print_command {
        return commands::replays(&comparisons, &subjects, &shape);
    }
    let name = match (&args.workloads[..], args.suite.as_deref()) {
        ([], suite) => suite.unwrap_or("quick").to_string(),
        ([one], _) => Path::new(one)
            .file_stem()
            .map_or_else(|| one.clone(), |s| s.to_string_lossy().into_owned()),
        ([first, ..], _) => format!("{first}-and-more"),
    };
    let null = if kinds.contains(&Kind::Speed) {
        subject::parse("null")?.pop()
    } else {
        None
    };
    let mut executor = Replays {
        comparisons: &comparisons,
        subjects: &subjects,
        null,
        shape: &shape,
        limits,
        baselines: HashMap::new(),
        random_addresses: false,
        clocks: Vec::new(),
        idle,
        tails: Tails::default(),
    };
    let mut campaign = campaign(
        args,
        origin,
        &name,
        &comparisons,
        &subjects,
        &shape,
        terminal,
    )?;
    campaign.notes = notes;
    campaign.idle = idle;
    show(args, terminal, campaign.go(&mut executor, terminal)?)
}

fn program(
    args: &RunArgs,
    terminal: &Terminal,
    origin: Origin,
    mut subjects: Vec<Subject>,
    notes: Vec<String>,
) -> Result<Outcome, Error> {
    let service = args.service.service()?;
    let machine = workload::program_machine(&args.workload)?;
    if args.shard.is_some() {
        return Err(Error::usage(
            "--shard takes a part of several workloads; a program is one, leave it out",
        ));
    }
    let mut commands = vec![args.command.clone(); subjects.len()];
    add_variants(&mut subjects, &mut commands, &args.variants.variants)?;
    let mut comparison = program_comparison(&args.command, machine);
    if workload::kinds(&args.workload, &[]).contains(&Kind::Counts) {
        // After the program has run: what it does when it is not recorded is known then.
        comparison.kinds.push(Kind::Counts);
    }
    let (comparisons, kept) = only(vec![comparison], subjects.clone(), args.only.as_deref())?;
    commands = (subjects.iter().zip(commands))
        .filter(|(subject, _)| kept.contains(subject))
        .map(|(_, command)| command)
        .collect();
    let subjects = kept;
    all_there(&commands)?;
    if args.print_command {
        return commands::programs(&comparisons[0], &subjects, &commands);
    }
    let name = Path::new(&args.command[0])
        .file_name()
        .map_or_else(|| "program".into(), |n| n.to_string_lossy());
    let shape = |kind: Kind| (kind.default_mode(), kind.default_touch());
    let limits = Limits {
        timeout: args.timeout,
        cancel: Some(interrupt::flag()),
    };
    let options = ProgramOptions {
        service,
        metrics: args.metrics.metrics.clone(),
        machine,
        ..ProgramOptions::plain(limits)
    };
    let mut executor = Programs::new(&commands, &subjects, options);
    let mut campaign = campaign(
        args,
        origin,
        &name,
        &comparisons,
        &subjects,
        &shape,
        terminal,
    )?;
    campaign.notes = notes;
    show(args, terminal, campaign.go(&mut executor, terminal)?)
}

/// Adds builds of the program as further subjects, each with its command.
///
/// # Errors
/// Usage for a name that another subject has.
pub fn add_variants(
    subjects: &mut Vec<Subject>,
    commands: &mut Vec<Vec<OsString>>,
    variants: &[Variant],
) -> Result<(), Error> {
    for variant in variants {
        if subjects.iter().any(|s| s.label == variant.name) {
            return Err(Error::usage(format!(
                "variant '{}' has the name of another subject; choose another name",
                variant.name
            )));
        }
        subjects.push(Subject::variant(&variant.name));
        commands.push(variant.command.clone());
    }
    Ok(())
}

/// Whether all programs are there. 126 and 127 are for commands that pass a status through; here it is the environment's.
///
/// # Errors
/// Environment, for the first that is not.
pub fn all_there(commands: &[Vec<OsString>]) -> Result<(), Error> {
    for command in commands {
        tools::find_program(&command[0]).map_err(|e| Error::Environment(e.to_string()))?;
    }
    Ok(())
}

/// A command as a comparison: its words and a hash of the executable are what is run.
pub fn program_comparison(command: &[OsString], machine: Machine) -> Comparison {
    let words: Vec<String> = command
        .iter()
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    let file = tools::find_program(&command[0])
        .ok()
        .and_then(|path| std::fs::read(path).ok())
        .unwrap_or_default();
    Comparison {
        workload: shell::command(&words),
        hash: hex(format!("{}\0{}", hex(&file), words.join("\0")).as_bytes())[..16].to_string(),
        api: Api::Malloc,
        program: true,
        threads: 1,
        started_threads: 1,
        script: PathBuf::new(),
        calls: 0,
        switches: 0,
        kinds: vec![Kind::Program],
        machine,
        pace: 1.0,
        recorded: None,
        note: None,
    }
}

/// Parses the specifications; two subjects with one label would be one row.
pub fn subjects(specs: &[String]) -> Result<Vec<Subject>, Error> {
    let mut all: Vec<Subject> = Vec::new();
    for spec in specs {
        for subject in subject::parse(spec)? {
            if subject.name == "null" {
                return Err(Error::usage(
                    "null is the calibration and measured in every run; leave it out of --subject",
                ));
            }
            if all.iter().any(|s| s.label == subject.label) {
                let label = &subject.label;
                return Err(Error::usage(format!(
                    "subject '{label}' is named twice; give one a label, as in b={spec}"
                )));
            }
            all.push(subject);
        }
    }
    Ok(all)
}

/// Keeps the comparisons of one workload.
///
/// # Errors
/// Usage if there is none of that name.
pub fn keep_only(
    comparisons: Vec<Comparison>,
    cell: Option<&str>,
) -> Result<Vec<Comparison>, Error> {
    only(comparisons, Vec::new(), cell).map(|(comparisons, _)| comparisons)
}

/// Keeps one cell of the plan: `WORKLOAD` or `WORKLOAD/SUBJECT`.
fn only(
    comparisons: Vec<Comparison>,
    subjects: Vec<Subject>,
    cell: Option<&str>,
) -> Result<(Vec<Comparison>, Vec<Subject>), Error> {
    let Some(cell) = cell else {
        return Ok((comparisons, subjects));
    };
    let known = comparisons
        .iter()
        .map(|c| c.workload.clone())
        .collect::<Vec<_>>()
        .join(", ");
    let named: Vec<Comparison> = comparisons
        .iter()
        .filter(|c| c.workload == cell)
        .cloned()
        .collect();
    if !named.is_empty() {
        return Ok((named, subjects));
    }
    for (at, _) in cell.match_indices('/') {
        let (name, label) = (&cell[..at], &cell[at + 1..]);
        let kept: Vec<Comparison> = comparisons
            .iter()
            .filter(|c| c.workload == name)
            .cloned()
            .collect();
        let subject = subjects
            .iter()
            .find(|s| s.label == label || label.starts_with(&format!("{}/", s.label)));
        if let (false, Some(subject)) = (kept.is_empty(), subject) {
            return Ok((kept, vec![subject.clone()]));
        }
    }
    Err(Error::usage(format!(
        "no cell '{cell}' in the plan; write WORKLOAD or WORKLOAD/SUBJECT with one of {known}"
    )))
}

fn campaign<'a>(
    args: &RunArgs,
    origin: Origin,
    name: &str,
    comparisons: &'a [Comparison],
    subjects: &'a [Subject],
    shape: &'a dyn Fn(
        Kind,
    ) -> (
        heaplab_worker::protocol::Mode,
        heaplab_worker::protocol::Touch,
    ),
    terminal: &Terminal,
) -> Result<Campaign<'a>, Error> {
    let start = origin.start;
    let (session, done) = match origin.resumed {
        Some((session, done)) => (session, done),
        None => (
            Session::create(args.output.out.as_deref(), name, &start)?,
            Vec::new(),
        ),
    };
    terminal.detail(&format!(
        "seed {}, results in {}",
        start.seed,
        session.folder().display()
    ));
    Ok(Campaign {
        session,
        command: start.again(),
        seed: start.seed,
        started: start.started,
        done,
        comparisons,
        subjects,
        shape,
        repetition: repetition(args),
        least_blocks: LEAST_BLOCKS,
        idle: Duration::ZERO,
        notes: Vec::new(),
        report: !args.output.no_report,
    })
}

fn repetition(args: &RunArgs) -> Repetition {
    match args.repeat.blocks {
        Some(blocks) => Repetition::Blocks(blocks),
        None => Repetition::within(args.repeat.budget, DEFAULT_BUDGET),
    }
}

fn show(args: &RunArgs, terminal: &Terminal, finished: Finished) -> Result<Outcome, Error> {
    render::result(
        &finished.result,
        args.output.format,
        terminal,
        finished.report.as_deref(),
    )?;
    if finished.outcome == Outcome::Interrupted {
        let folder = shell::path(&finished.folder);
        terminal.say(&format!(
            "interrupted; continue with `heaplab run --resume {folder}`"
        ));
    } else if finished.report.is_none() {
        terminal.say(&format!("results: {}", finished.folder.display()));
    }
    Ok(finished.outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::comparison;

    #[test]
    fn one_cell_is_found_by_name_and_an_unknown_one_is_refused() {
        let all = vec![
            comparison("parse/json", &[Kind::Speed]),
            comparison("churn", &[Kind::Speed]),
        ];
        let two = subjects(&["system,b=system".to_string()]).unwrap();
        let (c, s) = only(all.clone(), two.clone(), Some("parse/json")).unwrap();
        assert_eq!((c.len(), s.len()), (1, 2));
        let (c, s) = only(all.clone(), two.clone(), Some("parse/json/b")).unwrap();
        assert_eq!(
            (c[0].workload.as_str(), s.len(), s[0].label.as_str()),
            ("parse/json", 1, "b")
        );
        let e = only(all, two, Some("nope")).unwrap_err().to_string();
        assert!(e.contains("'nope'") && e.contains("churn"), "{e}");
        assert!(
            subjects(&["system".into(), "system".into()])
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }
}
