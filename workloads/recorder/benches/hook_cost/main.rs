//! What the recorder's hooks cost: nanoseconds an event over the bare program, for one and two
//! threads, beside heaptrack where it is installed. The program's own CPU time is the hook's cost and its cache misses, and
//! what the goals are compared with; wall time contains what the drainer takes from the program where they share cores.
//!
//! `cargo bench -p heaplab-recorder -- [--rounds N] [--pairs N] [--instructions | --whole | --python] [--recorder FILE]...`
//! `--whole` records to a file: an endless loop of allocations, the drainer's pace, memory.
//! `--python` times Python loading JSON, bare and recorded in turns.
//! `--instructions` counts instructions instead (callgrind): exact on a loaded machine.
//! `--recorder` takes another build of the library; given several times, they take turns in the same rounds (`--whole`
//! takes the first).

#[path = "../common/mod.rs"]
mod common;
mod instructions;
mod python;
mod times;
mod whole;

use common::Arguments;
use heaplab_workloads::record::{Discard, Session, SessionOptions, Sink};
use heaplab_workloads::trace::TraceHeader;
use heaplab_workloads::trace::raw::RawWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::Result;

/// What the program prints.
struct Figures {
    wall: f64,
    cpu: f64,
    anonymous_kib: f64,
}

impl Figures {
    fn read(output: &[u8]) -> Result<Self> {
        let [wall, cpu, anonymous_kib] = numbers(output)?;
        Ok(Self {
            wall,
            cpu,
            anonymous_kib,
        })
    }
}

/// The line of so many numbers that a program prints; heaptrack prints lines of its own around it.
fn numbers<const N: usize>(output: &[u8]) -> Result<[f64; N]> {
    let text = String::from_utf8_lossy(output);
    let of_line = |line: &str| {
        let words: Option<Vec<f64>> = line.split_whitespace().map(|w| w.parse().ok()).collect();
        words?.try_into().ok()
    };
    let found = text.lines().find_map(of_line);
    found.ok_or_else(|| format!("no figures in '{text}'").into())
}

/// CPU time of this thread, which drains.
fn thread_cpu_ns() -> f64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

struct Bench {
    program: PathBuf,
    /// At least one.
    recorders: Vec<PathBuf>,
    dir: tempfile::TempDir,
}

fn main() -> Result<()> {
    let arguments = Arguments::of_process();
    let rounds = |default| arguments.number("--rounds", default);
    let pairs = |default| arguments.number("--pairs", default);
    let bench = Bench::build(&arguments.values("--recorder")?)?;
    if arguments.has("--instructions") {
        return bench.instructions(pairs(20_000)?);
    }
    if arguments.has("--whole") {
        return bench.whole(rounds(3)?, pairs(15_000_000)?);
    }
    if arguments.has("--python") {
        return bench.python(rounds(15)?);
    }
    bench.times(rounds(21)?, pairs(1_000_000)?)
}

impl Bench {
    /// Compiles the program, and builds the recorder as it is shipped unless other builds are given.
    fn build(given: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let program = dir.path().join("hook_cost");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = here.join("benches/hook_cost/program.c");
        common::compile(&program, &source, &["-pthread"])?;
        let recorders = match given {
            [] => vec![common::build(&["heaplab-recorder"])?.join("libheaplab_recorder.so")],
            given => {
                let found = given.iter().map(|file| {
                    std::fs::canonicalize(file).map_err(|error| format!("{file}: {error}"))
                });
                found.collect::<std::result::Result<_, _>>()?
            }
        };
        Ok(Self {
            program,
            recorders,
            dir,
        })
    }

    /// Runs the program under heaptrack; `None` where that is not installed.
    fn heaptrack(&self, arguments: &[String]) -> Option<Output> {
        let mut command = Command::new("heaptrack");
        command.arg("-o").arg(self.dir.path().join("heaptrack"));
        command.arg(&self.program).args(arguments).output().ok()
    }
}

/// What a library is called in a table.
fn name(library: &Path) -> String {
    let stem = library.file_stem().unwrap_or(library.as_os_str());
    stem.to_string_lossy().into_owned()
}

/// Runs a command, recorded to a file; its output and the number of events.
fn to_file(library: &Path, command: &mut Command, raw: &Path) -> Result<(Output, u64)> {
    let mut writer = RawWriter::create(raw, &TraceHeader::default())?;
    drained(library, command, &mut writer)
}

/// Runs a command under this recorder, its events drained and dropped.
fn recorded_and_dropped(library: &Path, command: &mut Command, least: u64) -> Result<Output> {
    let (output, events) = drained(library, command, &mut Discard)?;
    if events < least {
        return Err(format!("not everything was recorded: {events} events").into());
    }
    Ok(output)
}

/// Runs a command under the recorder, its events drained to `sink`; its output and the number of events.
fn drained(library: &Path, command: &mut Command, sink: &mut impl Sink) -> Result<(Output, u64)> {
    let mut session = Session::create(&SessionOptions::default())?;
    let mut child = command
        .envs(session.environment_before(library, "".as_ref()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let alive = || matches!(child.try_wait(), Ok(None));
    let summary = session.drain(alive, sink)?;
    if summary.lost_events > 0 {
        return Err(format!("not everything was recorded: {summary:?}").into());
    }
    Ok((child.wait_with_output()?, summary.events))
}
