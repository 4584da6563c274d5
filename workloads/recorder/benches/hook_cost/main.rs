//! What the recorder's hooks cost: nanoseconds an event over the bare program, for one and two
//! threads, beside heaptrack where it is installed. Rounds of all variants are interleaved, so
//! that a change of the machine's pace meets them all. The program's own CPU time is the hook's cost and its cache misses, and
//! what the goals are compared with; wall time contains what the drainer takes from the program where they share cores.
//!
//! `cargo bench -p heaplab-recorder -- [--rounds N] [--pairs N] [--instructions | --whole | --python] [--recorder FILE]`
//! `--whole` records to a file: an endless loop of allocations, the drainer's pace, memory.
//! `--python` times Python loading JSON, bare and recorded in turns.
//! `--instructions` counts instructions instead (callgrind): exact on a loaded machine.
//! `--recorder` takes another build of the library, to compare two.

mod python;

use heaplab_workloads::record::{Discard, Session, SessionOptions, Sink};
use heaplab_workloads::trace::TraceHeader;
use heaplab_workloads::trace::raw::RawWriter;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How the program is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Bare,
    Recorded,
    Heaptrack,
}

const VARIANTS: [(Variant, &str); 3] = [
    (Variant::Bare, "bare"),
    (Variant::Recorded, "recorded"),
    (Variant::Heaptrack, "heaptrack"),
];
/// Title, mode, threads, and the most that recording may add to an event, where there is such a goal.
const LOADS: [(&str, &str, u32, Option<u32>); 4] = [
    ("random 16 B to 2 KiB, 1 thread", "random", 1, None),
    ("random 16 B to 2 KiB, 2 threads", "random", 2, None),
    ("tight pair of 64 B, 1 thread", "pair", 1, Some(10)),
    ("tight pair of 64 B, 2 threads", "pair", 2, Some(12)),
];

/// What the program prints.
struct Figures {
    wall: f64,
    cpu: f64,
    anonymous_kib: f64,
}

impl Figures {
    fn read(output: &[u8]) -> Result<Self> {
        let [wall, cpu, anonymous_kib] = three_numbers(output)?;
        Ok(Self {
            wall,
            cpu,
            anonymous_kib,
        })
    }
}

/// The line of three numbers that a program prints; heaptrack prints lines of its own around it.
fn three_numbers(output: &[u8]) -> Result<[f64; 3]> {
    let text = String::from_utf8_lossy(output);
    let numbers = |line: &str| {
        let words: Option<Vec<f64>> = line.split_whitespace().map(|w| w.parse().ok()).collect();
        words?.try_into().ok()
    };
    let found = text.lines().find_map(numbers);
    found.ok_or_else(|| format!("no figures in '{text}'").into())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
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
    recorder: PathBuf,
    dir: tempfile::TempDir,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok())
            .unwrap_or(default)
    };
    let mut bench = Bench::build()?;
    if let Some(at) = arguments
        .iter()
        .position(|argument| argument == "--recorder")
    {
        let file = arguments.get(at + 1).ok_or("--recorder needs a file")?;
        bench.recorder = std::fs::canonicalize(file)?;
    }
    if arguments
        .iter()
        .any(|argument| argument == "--instructions")
    {
        return bench.instructions(number("--pairs", 20_000));
    }
    if arguments.iter().any(|argument| argument == "--whole") {
        return bench.whole(number("--rounds", 3), number("--pairs", 15_000_000));
    }
    if arguments.iter().any(|argument| argument == "--python") {
        return bench.python(number("--rounds", 15));
    }
    bench.times(number("--rounds", 7), number("--pairs", 2_000_000))
}

impl Bench {
    /// Builds the recorder as it is shipped, and the program.
    fn build() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        // <target folder>/release/deps/hook_cost-<hash>
        let exe = std::env::current_exe()?;
        let target = exe.ancestors().nth(3).ok_or("no target folder")?.to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--profile",
            "embedded",
            "-p",
            "heaplab-recorder",
        ]);
        build.arg("--manifest-path").arg(here.join("Cargo.toml"));
        run(build.arg("--target-dir").arg(&target))?;
        let program = dir.path().join("hook_cost");
        let mut compile = Command::new("cc");
        compile.args([
            "-O2",
            "-g",
            "-fno-builtin",
            "-pthread",
            "-D_GNU_SOURCE",
            "-o",
        ]);
        run(compile
            .arg(&program)
            .arg(here.join("benches/hook_cost/program.c")))?;
        let recorder = target.join("embedded/libheaplab_recorder.so");
        Ok(Self {
            program,
            recorder,
            dir,
        })
    }

    fn times(&self, rounds: u64, pairs: u64) -> Result<()> {
        println!("nanoseconds an event; medians of {rounds} interleaved rounds");
        println!(
            "{:<36}{:>16}{:>16}{:>16}",
            "", "bare", "recorded", "heaptrack"
        );
        for (title, mode, threads, goal) in LOADS {
            let mut results = [Vec::new(), Vec::new(), Vec::new()];
            for _ in 0..rounds {
                for (index, (variant, _)) in VARIANTS.iter().enumerate() {
                    // Some ten times slower: fewer pairs, or it would take all the time.
                    let pairs = if *variant == Variant::Heaptrack {
                        pairs / 10
                    } else {
                        pairs
                    };
                    if let Some(ns) = self.time(*variant, mode, threads, pairs)? {
                        results[index].push(ns);
                    }
                }
            }
            println!("{title}");
            let row = |name: &str, of: fn(&Figures) -> f64, goal: Option<u32>| {
                let medians = results
                    .each_ref()
                    .map(|values| median(values.iter().map(of).collect()));
                let cells = |values: [Option<f64>; 3]| {
                    values
                        .map(|value| value.map_or("-".to_owned(), |ns| format!("{ns:.1}")))
                        .map(|text| format!("{text:>16}"))
                        .concat()
                };
                println!("  {name:<34}{}", cells(medians));
                if let Some(bare) = medians[0] {
                    let over = medians.map(|value| value.map(|ns| ns - bare));
                    let goal =
                        goal.map_or(String::new(), |ns| format!("   goal of recorded: {ns}"));
                    println!(
                        "  {:<34}{}{goal}",
                        "  over bare",
                        cells([None, over[1], over[2]])
                    );
                }
            };
            row("CPU time of the program's threads", |one| one.cpu, goal);
            row("wall time, beside the drainer", |one| one.wall, None);
        }
        println!(
            "The program's threads and the drainer share {} CPUs: where there are not more of these than threads, wall time over \
             bare is the hook and the drainer's work on the same CPU.",
            std::thread::available_parallelism()?
        );
        Ok(())
    }

    /// One run; `None` where heaptrack is not installed.
    fn time(
        &self,
        variant: Variant,
        mode: &str,
        threads: u32,
        pairs: u64,
    ) -> Result<Option<Figures>> {
        let arguments = [mode.to_owned(), threads.to_string(), pairs.to_string()];
        let output = match variant {
            Variant::Bare => Command::new(&self.program).args(&arguments).output()?,
            Variant::Heaptrack => {
                let mut command = Command::new("heaptrack");
                command
                    .arg("-o")
                    .arg(self.dir.path().join("heaptrack"))
                    .arg(&self.program);
                match command.args(&arguments).output() {
                    Ok(output) => output,
                    Err(_) => return Ok(None),
                }
            }
            Variant::Recorded => {
                let mut command = Command::new(&self.program);
                self.recorded(command.args(&arguments), pairs * 2 * u64::from(threads))?
            }
        };
        Figures::read(&output.stdout).map(Some)
    }

    /// What a recording costs that is written to a file.
    fn whole(&self, rounds: u64, pairs: u64) -> Result<()> {
        let (mut bare, mut recorded, mut drained) = (Vec::new(), Vec::new(), Vec::new());
        let (mut anonymous, mut bytes) = (Vec::new(), 0.0);
        let raw = self.dir.path().join("raw");
        let mut beside_us = Vec::new();
        for _ in 0..rounds {
            // Some ten times slower: fewer pairs.
            beside_us.extend(self.time(Variant::Heaptrack, "pair", 1, pairs / 20)?);
            let arguments = ["pair".to_owned(), "1".to_owned(), pairs.to_string()];
            let output = Command::new(&self.program).args(&arguments).output()?;
            let alone = Figures::read(&output.stdout)?;
            let mut command = Command::new(&self.program);
            let begun = thread_cpu_ns();
            let (output, events) = self.to_file(command.args(&arguments), &raw)?;
            drained.push(events as f64 / (thread_cpu_ns() - begun) * 1e3);
            bytes = std::fs::metadata(&raw)?.len() as f64 / events as f64;
            let with = Figures::read(&output.stdout)?;
            anonymous.push(with.anonymous_kib - alone.anonymous_kib);
            bare.push(alone.wall);
            recorded.push(with.wall);
        }
        let of = |values| median(values).unwrap_or(f64::NAN);
        let (bare, recorded) = (of(bare), of(recorded));
        println!("endless pairs of 64 B, one thread, recorded to a file, lossless:");
        println!(
            "  {:.1} M events/s, goal 12 ({recorded:.1} ns an event, bare {bare:.1}: {:.1} times slower)",
            1e3 / recorded,
            recorded / bare
        );
        println!("  raw file {bytes:.2} bytes an event");
        if let Some(heaptrack) = median(beside_us.iter().map(|one| one.wall).collect()) {
            println!(
                "  heaptrack {heaptrack:.1} ns an event: {:.1} times slower",
                heaptrack / bare
            );
        }
        println!(
            "drainer: {:.1} M events a second of its CPU time (goal: 14)",
            of(drained)
        );
        println!(
            "anonymous memory added to the program: {:.0} KiB (goal: at most 1024)",
            of(anonymous)
        );
        Ok(())
    }

    /// Runs a command, recorded to a file; its output and the number of events.
    fn to_file(&self, command: &mut Command, raw: &Path) -> Result<(Output, u64)> {
        let mut writer = RawWriter::create(raw, &TraceHeader::default())?;
        self.drained(command, &mut writer)
    }

    /// Runs a command under the recorder, its events drained and dropped.
    fn recorded(&self, command: &mut Command, least_events: u64) -> Result<Output> {
        let (output, events) = self.drained(command, &mut Discard)?;
        if events < least_events {
            return Err(format!("not everything was recorded: {events} events").into());
        }
        Ok(output)
    }

    /// Runs a command under the recorder, its events drained to `sink`; its output and the number of events.
    fn drained(&self, command: &mut Command, sink: &mut impl Sink) -> Result<(Output, u64)> {
        let mut session = Session::create(&SessionOptions::default())?;
        let mut child = command
            .envs(session.environment_before(&self.recorder, "".as_ref()))
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

    /// Instructions an event, as the difference of two lengths, so that start and end cancel out.
    fn instructions(&self, pairs: u64) -> Result<()> {
        println!("instructions an event (callgrind), one thread");
        for mode in ["random", "pair"] {
            let mut counts = [0.0; 2];
            for (count, recorded) in counts.iter_mut().zip([false, true]) {
                let short = self.callgrind(mode, pairs, recorded)?;
                let long = self.callgrind(mode, pairs * 2, recorded)?;
                // The tight loop warms up with a tenth of its pairs.
                let made = if mode == "pair" {
                    pairs as f64 * 1.1
                } else {
                    pairs as f64
                };
                *count = (long as f64 - short as f64) / made / 2.0;
            }
            let [bare, recorded] = counts;
            println!(
                "{mode:<8} bare {bare:.1}, recorded {recorded:.1}, hook {:.1}",
                recorded - bare
            );
        }
        Ok(())
    }

    fn callgrind(&self, mode: &str, pairs: u64, recorded: bool) -> Result<u64> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command
            .arg(&self.program)
            .args([mode, "1", &pairs.to_string()]);
        let output = if recorded {
            self.recorded(&mut command, pairs * 2)?
        } else {
            command.output()?
        };
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text
            .lines()
            .find_map(|line| line.split_once("Collected : "));
        let (_, count) = line.ok_or_else(|| format!("callgrind said: {text}"))?;
        Ok(count.trim().parse()?)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed").into())
    }
}
