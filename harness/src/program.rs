//! Program mode: runs a whole program under a subject and measures it from outside.
//!
//! Heap memory (`heap_peak_bytes`) is the peak over time of the anonymous bytes in mappings that are neither backed by a
//! file nor the stack: `RssAnon` of `/proc/PID/status`, read every 2 ms, minus what `smaps` shows as anonymous in file
//! mappings (written data segments) and stacks, read again at each new maximum. A program's own anonymous mappings
//! cannot be told apart and are in it. Only the first process is sampled, not its children.

mod proof;
mod sample;

use crate::embed::{self, Embedded};
use crate::exec::{Limits, RunFailure, run_child, signal_name, tail};
use crate::subject::Subject;
use heaplab_worker::protocol::Launched;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// How to run a program.
#[derive(Clone, Debug)]
pub struct ProgramOptions {
    /// Bounds.
    pub limits: Limits,
    /// Sample the heap while it runs (`validate`); costs the program a little.
    pub sample_heap: bool,
    /// A status other than 0 is accepted.
    pub any_status: bool,
}

/// What one run of a program took.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ProgramReport {
    /// From start to end.
    pub wall_ns: u64,
    /// CPU time in user mode, waited-for children included.
    pub user_ns: u64,
    /// CPU time in the kernel, waited-for children included.
    pub sys_ns: u64,
    /// Largest resident set of the program or one of its waited-for children.
    pub peak_rss_bytes: u64,
    /// Peak of heap memory as the module defines it; absent unless sampled.
    pub heap_peak_bytes: Option<u64>,
    /// Part of it outside the classic heap (`brk`): mappings of the allocator, of the program itself, stacks of threads.
    pub outside_brk_bytes: Option<u64>,
    /// Faults served without I/O.
    pub minor_faults: u64,
    /// Faults that needed I/O.
    pub major_faults: u64,
    /// Voluntary and involuntary switches.
    pub context_switches: u64,
    /// Exit status.
    pub exit_code: i32,
    /// Object that the program's malloc is bound to.
    pub malloc_object: String,
    /// Libraries of the user's own LD_PRELOAD, loaded behind the subject.
    pub chained: Option<String>,
}

/// Runs `argv` under a subject.
///
/// # Errors
/// The reason for a failed row: not found, a signal, a bad status, hung, the subject not in force.
pub fn run_program(
    subject: &Subject,
    argv: &[OsString],
    options: &ProgramOptions,
) -> Result<ProgramReport, RunFailure> {
    let chained = std::env::var("LD_PRELOAD")
        .ok()
        .filter(|text| !text.is_empty());
    let environment = environment(subject, chained.as_deref());
    let malloc_object = proof::bound_to(subject, argv, &environment, &options.limits)?;
    let failed = |what: String| RunFailure::new(what);
    let folder =
        tempfile::tempdir().map_err(|error| failed(format!("no temporary folder: {error}")))?;
    let report = folder.path().join("launched.json");
    let worker = embed::path(Embedded::Worker).map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(worker);
    // The launcher itself must run on the system's allocator: the subject is for the program only.
    command
        .env_remove("LD_PRELOAD")
        .arg("--launch")
        .arg(&report)
        .args(&environment)
        .arg("--")
        .args(argv);
    let stop = AtomicBool::new(false);
    let (ended, heap) = std::thread::scope(|scope| {
        let sampler = options.sample_heap.then(|| {
            let pid = PathBuf::from(format!("{}.pid", report.display()));
            scope.spawn(|| sample::heap_peak(pid, &stop))
        });
        let ended = run_child(command, &options.limits);
        stop.store(true, Ordering::Relaxed);
        (
            ended,
            sampler.and_then(|sampler| sampler.join().ok().flatten()),
        )
    });
    let ended = ended?;
    let program = argv
        .first()
        .map(|word| word.to_string_lossy().into_owned())
        .unwrap_or_default();
    let launched: Launched = std::fs::read(&report)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .ok_or_else(|| crate::exec::failure_of(&ended))?;
    let said = tail(&ended.stderr);
    let said = if said.is_empty() {
        said
    } else {
        format!("; its last words: {said}")
    };
    if let Some(number) = launched.start_error {
        let why = std::io::Error::from_raw_os_error(number);
        return Err(failed(format!("'{program}' cannot be started: {why}")));
    }
    if let Some(signal) = launched.signal {
        return Err(failed(format!(
            "'{program}' was killed by {}{said}",
            signal_name(signal)
        )));
    }
    let exit_code = launched.exit_code.unwrap_or_default();
    if exit_code != 0 && !options.any_status {
        return Err(failed(format!(
            "'{program}' ended with exit status {exit_code}{said}"
        )));
    }
    Ok(ProgramReport {
        wall_ns: launched.wall_ns,
        user_ns: launched.user_ns,
        sys_ns: launched.sys_ns,
        peak_rss_bytes: launched.peak_rss_bytes,
        heap_peak_bytes: heap.map(|peak| peak.bytes),
        outside_brk_bytes: heap.map(|peak| peak.outside_brk),
        minor_faults: launched.minor_faults,
        major_faults: launched.major_faults,
        context_switches: launched.context_switches,
        exit_code,
        malloc_object,
        chained,
    })
}

/// `NAME=VALUE` words that put the subject into force, a user's own preloaded libraries behind it.
fn environment(subject: &Subject, chained: Option<&str>) -> Vec<String> {
    let libraries: Vec<_> = subject
        .library
        .iter()
        .map(|path| path.display().to_string())
        .chain(chained.map(str::to_owned))
        .collect();
    let preload = (!libraries.is_empty()).then(|| format!("LD_PRELOAD={}", libraries.join(":")));
    let settings = subject
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    preload.into_iter().chain(settings).collect()
}
