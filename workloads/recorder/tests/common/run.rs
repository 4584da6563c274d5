//! Runs of a program under the recorder, with a second counter behind it.

use super::{Recorded, compile, recorder, scratch};
use heaplab_workloads::record::{DrainSummary, Session, SessionOptions, Sink};
use heaplab_workloads::trace::raw::{RawKind, RawWriter};
use heaplab_workloads::trace::{
    FinishInfo, ResolveOptions, Trace, TraceHeader, TraceStats, resolve_file,
};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// What the counting library behind the recorder saw, in its own words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    pub allocations: u64,
    pub frees: u64,
    pub reallocs: u64,
    pub failed: u64,
}

/// One program run under the recorder.
pub struct Run {
    pub recorded: Recorded,
    pub summary: DrainSummary,
    pub status: ExitStatus,
    pub stdout: String,
    pub counted: Counted,
}

/// Runs `command` under the recorder with the counter behind it.
pub fn record(command: &mut Command) -> Run {
    record_with(command, &SessionOptions::default(), Recorded::default())
}

/// As [`record`], with options of the session and a prepared sink.
pub fn record_with(command: &mut Command, options: &SessionOptions, sink: Recorded) -> Run {
    let mut recorded = sink;
    let end = run(command, options, &mut recorded, &[]);
    Run {
        recorded,
        summary: end.summary,
        status: end.status,
        stdout: end.stdout,
        counted: end.counted,
    }
}

/// How a recorded program ended.
pub struct End {
    pub summary: DrainSummary,
    pub status: ExitStatus,
    pub stdout: String,
    pub counted: Counted,
}

/// Runs `command` under the recorder, `counter.c` behind it and `behind` behind that; what is
/// recorded goes to `sink`.
pub fn run<S: Sink>(
    command: &mut Command,
    options: &SessionOptions,
    sink: &mut S,
    behind: &[&Path],
) -> End {
    let dir = scratch();
    let mut preload = compile(dir.path(), "counter", true).into_os_string();
    for library in behind {
        preload.push(":");
        preload.push(library);
    }
    let counts = dir.path().join("counts");
    fs::write(&counts, [0; 4096]).expect("counts file");
    command.env("HEAPLAB_TEST_COUNTS", &counts);
    let end = run_before(command, options, sink, &preload);
    End {
        counted: counted(&counts),
        ..end
    }
}

/// Runs `command` under the recorder alone: what is behind the recorder is the C library. Nothing is counted.
pub fn record_alone(command: &mut Command) -> Run {
    let mut recorded = Recorded::default();
    let end = run_before(
        command,
        &SessionOptions::default(),
        &mut recorded,
        "".as_ref(),
    );
    Run {
        recorded,
        summary: end.summary,
        status: end.status,
        stdout: end.stdout,
        counted: end.counted,
    }
}

fn run_before<S: Sink>(
    command: &mut Command,
    options: &SessionOptions,
    sink: &mut S,
    behind: &OsStr,
) -> End {
    let dir = scratch();
    let mut session = Session::create(options).expect("session");
    command
        .envs(session.environment_before(recorder(), behind))
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.path().join("stdout")).expect("output file"));
    let mut child = command.spawn().expect("the program starts");
    let mut status = None;
    let alive = || {
        status = child.try_wait().expect("wait");
        status.is_none()
    };
    let summary = session.drain(alive, sink).expect("drain");
    End {
        summary,
        status: status.expect("the program ended"),
        stdout: fs::read_to_string(dir.path().join("stdout")).unwrap_or_default(),
        counted: Counted::default(),
    }
}

/// What the counting library left in its file.
pub fn counted(counts: &Path) -> Counted {
    let bytes = fs::read(counts).expect("counts");
    let word =
        |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("8 bytes"));
    Counted {
        allocations: word(0),
        frees: word(1),
        reallocs: word(2),
        failed: word(3),
    }
}

/// Records `command` to a raw file, resolves that into a trace, and checks that the trace's own
/// statistics equal what the second counter saw in the same run. Returns the statistics.
pub fn round_trip(command: &mut Command) -> TraceStats {
    let record = |writer: &mut RawWriter| run(command, &SessionOptions::default(), writer, &[]);
    let (stats, end) = resolved(record);
    let calls =
        |names: &[&str]| -> u64 { names.iter().filter_map(|&name| stats.calls.get(name)).sum() };
    let traced = Counted {
        allocations: stats.allocations - calls(&["realloc_new"]),
        frees: calls(&["free", "free_sized", "free_aligned_sized"]),
        reallocs: calls(&["realloc_new", "realloc", "reallocarray", "realloc_free"]),
        failed: stats.failed,
    };
    assert_eq!(
        traced, end.counted,
        "the final trace and the chained counter differ"
    );
    assert_eq!((stats.foreign_frees, stats.lost_frees), (0, 0));
    stats
}

/// As [`round_trip`] under the recorder alone: nothing is counted.
pub fn round_trip_alone(command: &mut Command) -> TraceStats {
    let options = SessionOptions::default();
    let record = |writer: &mut RawWriter| run_before(command, &options, writer, "".as_ref());
    resolved(record).0
}

/// What is recorded to a raw file, as a trace.
fn resolved(record: impl FnOnce(&mut RawWriter) -> End) -> (TraceStats, End) {
    let dir = scratch();
    let (raw, out) = (dir.path().join("run.raw"), dir.path().join("run.hltrace"));
    let mut writer = RawWriter::create(&raw, &TraceHeader::default()).expect("raw file");
    let end = record(&mut writer);
    assert!(end.status.success(), "{:?}", end.status);
    let finish = FinishInfo {
        lost_events: end.summary.lost_events,
        exit_status: end.status.code(),
        duration_ns: end.summary.duration_ns,
        cpu_ns: None,
        ..FinishInfo::default()
    };
    writer.finish(finish).expect("the raw file is finished");
    resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {}).expect("resolved");
    let trace = Trace::open(&out).expect("the trace opens");
    trace.verify(&mut |_, _| {}).expect("the trace is sound");
    let stats = trace.stats(&mut |_, _| {}).expect("statistics");
    assert!(stats.complete, "missing: {:?}", stats.missing);
    assert_eq!(stats.threads, end.summary.threads);
    (stats, end)
}

impl Run {
    /// The same run with the events of the first process only.
    pub fn first_process(&self) -> Run {
        let first = self.recorded.owners.values().min().copied().unwrap_or(0);
        let recorded = self.recorded.of_process(first);
        let summary = DrainSummary {
            events: recorded.events().count() as u64,
            ..self.summary.clone()
        };
        Run {
            recorded,
            summary,
            status: self.status,
            stdout: self.stdout.clone(),
            counted: self.counted,
        }
    }

    /// The trace and the second counter agree to the event; nothing was lost or torn.
    pub fn assert_counts_equal(&self) {
        let traced = Counted {
            allocations: self.recorded.allocations(),
            frees: self.recorded.frees(),
            reallocs: self.recorded.reallocs(),
            failed: self.recorded.count(RawKind::FailedAlloc),
        };
        assert_eq!(
            traced, self.counted,
            "the trace and the chained counter differ"
        );
        assert_eq!(self.summary.lost_events, 0);
        assert_eq!(self.summary.torn_records, 0);
        assert_eq!(self.summary.events, self.recorded.events().count() as u64);
    }
}
