//! One table of what single operations cost with spanalloc, its peers and the system's allocator.
//!
//! Criterion (`benches/paths.rs`) measures one case for one allocator at a time, minutes apart; on
//! a machine whose speed drifts, ratios of such figures say little. Here every case runs in many
//! short rounds, and in each round all allocators take their turn, in an order that rotates.

mod cases;
mod memory;
mod table;
mod threads;

use clap::{Parser, ValueEnum};
use spanalloc_benches::Allocator;
use spanalloc_benches::choice::Choice;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is made of a case's rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Statistic {
    Median,
    Minimum,
}

/// Nanoseconds per operation of single operations, beside jemalloc, mimalloc and the system's
/// allocator; goals beside them; geometric means of the ratios to the system's.
/// "goal here" is the goal in terms of this machine, where gperftools is measured, too: times what that takes here, by what the
/// same library took where the goals were set.
///
/// Examples:
///   micro                          all cases, about two minutes
///   micro --rounds 9 pair batch    cases whose name contains "pair" or "batch"
///   micro --statistic minimum --json micro.json
///   micro --library gperftools=/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4
///   micro --library cpu=target/embedded/libspanalloc_preload.so:front_end=cpu    both front ends of spanalloc
///   valgrind --tool=callgrind micro --allocator spanalloc --rounds 1 --operations 1000000 churn
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// Only cases whose name contains one of these.
    filters: Vec<String>,
    /// Rounds per case; in each, every allocator runs once.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Milliseconds that one allocator's part of a round takes at least.
    #[arg(long, default_value_t = 3)]
    round_ms: u64,
    /// What is reported of the rounds.
    #[arg(long, value_enum, default_value = "median")]
    statistic: Statistic,
    #[command(flatten)]
    choice: Choice,
    /// Do so many operations a turn, however long they take: to count instructions.
    #[arg(long, value_name = "NUMBER")]
    operations: Option<usize>,
    /// Count a turn from its first operation on, with the other allocators' blocks in the caches.
    #[arg(long)]
    cold: bool,
    /// Also write the figures as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// List the cases and what they do.
    #[arg(long)]
    list: bool,
}

/// A case for one allocator: its blocks and threads between rounds.
pub trait Work {
    /// Does about `operations` operations; returns nanoseconds per operation.
    fn round(&mut self, operations: usize) -> f64;
}

/// What spanalloc shall reach in a case.
#[derive(Clone, Copy)]
pub struct Goal {
    /// Nanoseconds per operation, on the machine on which the goals were set (two virtual CPUs, AMD Zen 4).
    pub nanoseconds: f64,
    /// Nanoseconds per operation of [`PEER`] there, where they say something about a machine: not where threads wait for each other.
    pub peer: Option<f64>,
}

/// Whose time here and where the goals were set tells how fast this machine is: gperftools 2.10 of Debian 12, the same binary.
pub const PEER: &str = "gperftools";

/// What is measured.
pub struct Case {
    /// Name in the table.
    pub name: &'static str,
    /// What one operation is.
    pub operation: &'static str,
    /// What spanalloc shall reach, if there is a goal.
    pub goal: Option<Goal>,
    /// Prepares the case for an allocator.
    pub prepare: Box<dyn Fn(Allocator) -> Box<dyn Work>>,
}

/// One row: nanoseconds per operation by allocator, in the order of their names.
pub struct Row {
    pub name: &'static str,
    pub goal: Option<Goal>,
    pub nanoseconds: Vec<f64>,
}

/// Nanoseconds per operation of `operations` that `work` does.
pub fn timed(operations: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / operations as f64
}

fn main() {
    let arguments = Arguments::parse();
    let cases = cases::all()
        .into_iter()
        .filter(|case| {
            arguments.filters.is_empty()
                || arguments
                    .filters
                    .iter()
                    .any(|filter| case.name.contains(filter.as_str()))
        })
        .collect::<Vec<_>>();
    if arguments.list {
        for case in &cases {
            println!("{:24} {}", case.name, case.operation);
        }
        return;
    }
    if cases.is_empty() {
        eprintln!("micro: no case matches; `micro --list` names them");
        std::process::exit(2);
    }
    let allocators = match arguments.choice.allocators() {
        Ok(allocators) => allocators,
        Err(error) => {
            eprintln!("micro: {error}");
            std::process::exit(2);
        }
    };
    let names: Vec<_> = allocators.iter().map(|allocator| allocator.name).collect();
    let mut rows = Vec::new();
    for case in &cases {
        progress(case.name);
        rows.push(Row {
            name: case.name,
            goal: case.goal,
            nanoseconds: measure(case, &allocators, &arguments),
        });
    }
    progress("");
    print!("{}", table::text(&names, &rows));
    if let Some(path) = &arguments.json
        && let Err(error) = std::fs::write(path, table::json(&names, &rows))
    {
        eprintln!("micro: cannot write {}: {error}", path.display());
        std::process::exit(1);
    }
}

/// Shows what runs at present, on a terminal only.
fn progress(name: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        // Progress that cannot be shown is no reason to stop.
        let _ = write!(out, "\r\x1b[K{name}");
        let _ = out.flush();
    }
}

fn measure(case: &Case, allocators: &[Allocator], arguments: &Arguments) -> Vec<f64> {
    let least = Duration::from_millis(arguments.round_ms.max(1)).as_nanos() as f64;
    let prepared = |&allocator: &Allocator| {
        let mut work = (case.prepare)(allocator);
        let mut operations = arguments.operations.unwrap_or(1).max(1);
        // The first round takes memory from the kernel: 16 MiB for the first time take longer than a whole round shall,
        // and a round of one operation is a measure of what the allocator before it left in the caches.
        work.round(operations);
        loop {
            let start = Instant::now();
            work.round(operations);
            let taken = start.elapsed().as_nanos() as f64;
            if arguments.operations.is_some() || taken >= least || operations >= 1 << 26 {
                break;
            }
            operations *= if taken < least / 4.0 { 4 } else { 2 };
        }
        (work, operations, Vec::new())
    };
    let mut works: Vec<_> = allocators.iter().map(prepared).collect();
    for round in 0..arguments.rounds.max(1) {
        for turn in 0..works.len() {
            let at = (round + turn) % works.len();
            let (work, operations, results) = &mut works[at];
            if !arguments.cold {
                work.round(*operations);
            }
            results.push(work.round(*operations));
        }
    }
    let figure = |(_, _, mut results): (_, _, Vec<f64>)| {
        results.sort_by(f64::total_cmp);
        match arguments.statistic {
            Statistic::Median => results[results.len() / 2],
            Statistic::Minimum => results[0],
        }
    };
    works.into_iter().map(figure).collect()
}
