//! How fast scripts are made: `cargo bench -p heaplab-workloads --bench generate [-- NAME… [--ops N]]`.
//!
//! For each built-in model: calls per second of wall clock, and per second of CPU time (what one core does), drawing
//! alone and drawing with the script on disk, and the peak of resident memory. Arguments choose models; `--ops N` asks for
//! so many calls of each (default 10 million); `--times N` plays each so often and shows the fastest (default 3: the first time
//! pays for memory that the machine has to get), `--times 0` once and reads no clock, for tools that count instructions;
//! `--draw` writes no script: a thousand million ops are 16 GB, and as much again in the scratch file.

use heaplab_workloads::{Model, ModelParams};
use rustix::time::{ClockId, clock_gettime};
use std::time::Instant;

fn main() {
    let mut ops = 10_000_000u64;
    let mut times = 3u32;
    let mut names = Vec::new();
    let mut write = true;
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--ops" => {
                ops = arguments
                    .next()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(ops)
            }
            "--times" => {
                times = arguments
                    .next()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(times)
            }
            "--draw" => write = false,
            _ => names.push(argument),
        }
    }
    let folder = tempfile::tempdir().expect("a scratch folder");
    println!(
        "{:<20} {:>11} {:>9} {:>13} {:>9} {:>13} {:>9}",
        "model", "calls", "draw M/s", "per core M/s", "all M/s", "per core M/s", "peak MiB"
    );
    for about in Model::list() {
        if !names.is_empty() && !names.contains(&about.name) {
            continue;
        }
        let Some(model) = Model::builtin(&about.name) else {
            continue;
        };
        // Live sets keep their size: only the number of calls grows.
        let params = ModelParams::default();
        let model = model.with_ops(ops);
        let draws = || model.peak(&params).map(|peak| peak.calls);
        let (calls, draw) = timed(times, || {}, draws);
        let out = folder.path().join("script");
        if !write {
            println!(
                "{:<20} {calls:>11} {:>9.1} {:>13.1} {:>9} {:>13} {:>9}",
                about.name,
                calls as f64 / draw.0 / 1e6,
                calls as f64 / draw.1 / 1e6,
                "-",
                "-",
                peak_mib()
            );
            continue;
        }
        // The script of the time before is no part of making one.
        let clear = || drop(std::fs::remove_file(&out));
        let (_, all) = timed(times, clear, || {
            model
                .compile(&params, &out, &mut |_, _| {})
                .map(|info| info.calls)
        });
        let rate = |seconds: f64| calls as f64 / seconds / 1e6;
        println!(
            "{:<20} {calls:>11} {:>9.1} {:>13.1} {:>9.1} {:>13.1} {:>9}",
            about.name,
            rate(draw.0),
            rate(draw.1),
            rate(all.0),
            rate(all.1),
            peak_mib()
        );
        let _ = std::fs::remove_file(&out);
    }
}

/// The result, and the fewest seconds of wall clock and of CPU time of all threads. `before` is done each time and not timed.
fn timed<E: std::fmt::Display>(
    times: u32,
    before: impl Fn(),
    mut work: impl FnMut() -> Result<u64, E>,
) -> (u64, (f64, f64)) {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let (mut result, mut fewest) = (0, (f64::INFINITY, f64::INFINITY));
    if times == 0 {
        before();
        result = work().unwrap_or_else(|error| panic!("{error}"));
    }
    for _ in 0..times {
        before();
        let (start, used) = (Instant::now(), cpu());
        result = work().unwrap_or_else(|error| panic!("{error}"));
        let took = (start.elapsed().as_secs_f64(), cpu() - used);
        fewest = (fewest.0.min(took.0), fewest.1.min(took.1));
    }
    (result, fewest)
}

/// VmHWM of this process.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|text| text.split_whitespace().next());
    number
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}
