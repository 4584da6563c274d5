//! What stacks cost: nanoseconds an event (half of them allocations) of the recorder without stacks, with sampled ones and
//! with all, for code compiled with and without frame pointers, at two depths; beside heaptrack where it is installed.
//! Rounds of all variants are interleaved, so that a change of the machine's pace meets them all.
//!
//! `cargo bench -p heaplab-recorder-stacks -- [--rounds N] [--pairs N]`

#[path = "../../benches/common/mod.rs"]
mod common;

use common::{Arguments, Result, middle_and_least};
use heaplab_workloads::record::{Discard, Session, SessionOptions, StackMode};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SAMPLED: StackMode = StackMode::Sampled { period: 512 << 10 };
/// Title, the recorder's mode; `None`: the program alone.
const VARIANTS: [(&str, Option<StackMode>); 4] = [
    ("bare", None),
    ("no stacks", Some(StackMode::Off)),
    ("sampled", Some(SAMPLED)),
    ("full", Some(StackMode::Full)),
];

fn main() -> Result<()> {
    let arguments = Arguments::of_process();
    let (rounds, pairs) = (
        arguments.number("--rounds", 5)?,
        arguments.number("--pairs", 1_000_000)?,
    );
    let dir = tempfile::tempdir()?;
    let libraries = libraries()?;
    println!(
        "nanoseconds an event; median (least) of {rounds} interleaved rounds; in brackets over no stacks"
    );
    let titles: Vec<&str> = VARIANTS
        .iter()
        .map(|(title, _)| *title)
        .chain(["heaptrack"])
        .collect();
    println!(
        "{:<34}{}",
        "",
        titles
            .iter()
            .map(|title| format!("{title:>22}"))
            .collect::<String>()
    );
    for (title, option) in [
        ("tables", "-fomit-frame-pointer"),
        ("frame pointers", "-fno-omit-frame-pointer"),
    ] {
        let program = compile(dir.path(), title, option)?;
        for depth in [2, 13] {
            let mut results = vec![Vec::new(); titles.len()];
            for _ in 0..rounds {
                for (place, (_, mode)) in results.iter_mut().zip(VARIANTS) {
                    place.push(time(&program, &libraries, mode, depth, pairs)?);
                }
                if let Some(ns) = heaptrack(dir.path(), &program, depth, pairs / 10) {
                    results[VARIANTS.len()].push(ns);
                }
            }
            let cells: Vec<Option<(f64, f64)>> =
                results.into_iter().map(middle_and_least).collect();
            let plain = cells[1].map_or(0.0, |(middle, _)| middle);
            let shown: String = cells
                .iter()
                .enumerate()
                .map(|(at, cell)| match cell {
                    None => format!("{:>22}", "-"),
                    Some((middle, least)) if at >= 2 => format!(
                        "{:>22}",
                        format!("{middle:.1} ({least:.1}) [{:+.1}]", middle - plain)
                    ),
                    Some((middle, least)) => format!("{:>22}", format!("{middle:.1} ({least:.1})")),
                })
                .collect();
            // main, deeper (depth + 1 times), work, and the function that allocates; libc's two and _start.
            println!("{:<34}{shown}", format!("{title}, {} frames", depth + 7));
        }
    }
    Ok(())
}

/// Both builds of the recorder, as they are shipped.
fn libraries() -> Result<[PathBuf; 2]> {
    let built = common::build(&["heaplab-recorder", "heaplab-recorder-stacks"])?;
    Ok(["", "_stacks"].map(|which| built.join(format!("libheaplab_recorder{which}.so"))))
}

fn compile(dir: &Path, name: &str, option: &str) -> Result<PathBuf> {
    let program = dir.join(name.replace(' ', "-"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/stack_cost.c");
    common::compile(&program, &source, &["-fno-optimize-sibling-calls", option])?;
    Ok(program)
}

/// Nanoseconds an event of one run.
fn time(
    program: &Path,
    libraries: &[PathBuf; 2],
    mode: Option<StackMode>,
    depth: u32,
    pairs: u64,
) -> Result<f64> {
    let mut command = Command::new(program);
    command
        .args([depth.to_string(), pairs.to_string()])
        .stdout(Stdio::piped());
    let output = match mode {
        None => command.output()?,
        Some(stacks) => {
            let mut session = Session::create(&SessionOptions {
                stacks,
                ..SessionOptions::default()
            })?;
            let recorder = &libraries[usize::from(stacks != StackMode::Off)];
            let mut child = command
                .envs(session.environment_before(recorder, "".as_ref()))
                .spawn()?;
            let summary = session.drain(|| matches!(child.try_wait(), Ok(None)), &mut Discard)?;
            // The first 8192 slots are empty: nothing is freed there.
            if summary.events + 8192 < pairs * 2 || summary.lost_events + summary.torn_records > 0 {
                return Err(format!("not everything was recorded: {summary:?}").into());
            }
            child.wait_with_output()?
        }
    };
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// As [`time`], under heaptrack; `None` where it is not installed.
fn heaptrack(dir: &Path, program: &Path, depth: u32, pairs: u64) -> Option<f64> {
    let mut command = Command::new("heaptrack");
    command
        .arg("-o")
        .arg(dir.join("heaptrack"))
        .arg(program)
        .args([depth.to_string(), pairs.to_string()]);
    let output = command.output().ok()?;
    // It prints lines of its own around the program's.
    String::from_utf8(output.stdout)
        .ok()?
        .lines()
        .find_map(|line| line.trim().parse().ok())
}
