//! What stacks cost: nanoseconds an event (half of them allocations) of the recorder without stacks, with sampled ones and
//! with all, for code compiled with and without frame pointers, at two depths; beside heaptrack where it is installed.
//! Rounds of all variants are interleaved, so that a change of the machine's pace meets them all.
//!
//! `cargo bench -p heaplab-recorder-stacks -- [--rounds N] [--pairs N]`

use heaplab_workloads::record::{Discard, Session, SessionOptions, StackMode};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SAMPLED: StackMode = StackMode::Sampled { period: 512 << 10 };
/// Title, the recorder's mode; `None`: the program alone.
const VARIANTS: [(&str, Option<StackMode>); 4] = [
    ("bare", None),
    ("no stacks", Some(StackMode::Off)),
    ("sampled", Some(SAMPLED)),
    ("full", Some(StackMode::Full)),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok())
            .unwrap_or(default)
    };
    let (rounds, pairs) = (number("--rounds", 5), number("--pairs", 1_000_000));
    let dir = tempfile::tempdir()?;
    let libraries = build()?;
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
            let median = |values: &mut Vec<f64>| {
                values.sort_unstable_by(f64::total_cmp);
                values
                    .first()
                    .map(|least| (values[values.len() / 2], *least))
            };
            let cells: Vec<Option<(f64, f64)>> = results.iter_mut().map(median).collect();
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
fn build() -> Result<[PathBuf; 2]> {
    let exe = std::env::current_exe()?;
    // <target folder>/release/deps/stack_cost-<hash>
    let target = exe.ancestors().nth(3).ok_or("no target folder")?.to_owned();
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "build",
        "--quiet",
        "--profile",
        "embedded",
        "-p",
        "heaplab-recorder",
        "-p",
        "heaplab-recorder-stacks",
    ]);
    build
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    run(build.arg("--target-dir").arg(&target))?;
    let built = target.join("embedded");
    Ok([
        built.join("libheaplab_recorder.so"),
        built.join("libheaplab_recorder_stacks.so"),
    ])
}

fn compile(dir: &Path, name: &str, option: &str) -> Result<PathBuf> {
    let program = dir.join(name.replace(' ', "-"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/stack_cost.c");
    let mut compile = Command::new("cc");
    compile.args([
        "-O2",
        "-g",
        "-fno-builtin",
        "-fno-optimize-sibling-calls",
        option,
        "-D_GNU_SOURCE",
        "-o",
    ]);
    run(compile.arg(&program).arg(source))?;
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

fn run(command: &mut Command) -> Result<()> {
    match command.status()?.success() {
        true => Ok(()),
        false => Err(format!("{command:?} failed").into()),
    }
}
