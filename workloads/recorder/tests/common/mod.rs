//! What the integration tests share: building the recorder and small C programs, running a program
//! under the recorder with a counting library behind it, and checking what was recorded.
#![allow(dead_code)] // each test binary uses its part

use heaplab_workloads::record::{DrainSummary, Session, SessionOptions, Sink};
use heaplab_workloads::trace::packed::Packed;
use heaplab_workloads::trace::raw::{RawEvent, RawKind, RawWriter};
use heaplab_workloads::trace::{
    FinishInfo, ProcessInfo, ResolveOptions, Trace, TraceError, TraceHeader, TraceStats,
    resolve_file,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

/// The preload library, built with this test's profile and target folder.
pub fn recorder() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| built("heaplab-recorder", &["--lib"], "libheaplab_recorder.so"))
}

/// The archive that a package builds.
pub fn archive(package: &str, file: &str) -> PathBuf {
    built(package, &["--lib"], file)
}

/// An example of this package.
pub fn example(name: &str) -> PathBuf {
    let package = env!("CARGO_PKG_NAME");
    built(package, &["--example", name], &format!("examples/{name}"))
}

fn built(package: &str, arguments: &[&str], file: &str) -> PathBuf {
    // target/<profile>/deps/<test>-<hash>
    let exe = std::env::current_exe().expect("own path");
    let profile = exe.ancestors().nth(2).expect("profile folder");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", package, "--manifest-path"]);
    build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    build
        .args(arguments)
        .arg("--target-dir")
        .arg(profile.parent().expect("target folder"));
    match profile.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => {}
        Some(name) => {
            build.args(["--profile", name]);
        }
    }
    assert!(
        build.status().expect("cargo runs").success(),
        "{build:?} failed"
    );
    let path = profile.join(file);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// Waits until something is so; fails after a minute.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(
            start.elapsed().as_secs() < 60,
            "{what}: not within a minute"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// A folder for what a test makes, removed with it.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

/// Compiles `programs/<name>.c` into `dir`; `shared` makes it a library.
pub fn compile(dir: &Path, name: &str, shared: bool) -> PathBuf {
    let out = if shared {
        format!("lib{name}.so")
    } else {
        name.to_owned()
    };
    let options: &[&str] = if shared { &["-shared", "-fPIC"] } else { &[] };
    compile_as(dir, "cc", &format!("{name}.c"), &out, options)
}

/// Compiles `programs/<name>.c` to a program that loads no library.
pub fn compile_static(dir: &Path, name: &str) -> PathBuf {
    compile_as(dir, "cc", &format!("{name}.c"), name, &["-static"])
}

/// Compiles a file of `programs` into `dir` as `out`.
pub fn compile_as(
    dir: &Path,
    compiler: &str,
    source: &str,
    out: &str,
    options: &[&str],
) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs")
        .join(source);
    let out = dir.join(out);
    let mut command = Command::new(compiler);
    command.args([
        "-O1",
        "-g",
        "-Wall",
        "-Wno-alloc-size-larger-than",
        "-fno-builtin",
    ]);
    command.args(["-pthread", "-D_GNU_SOURCE"]);
    // Libraries are looked through for what the source before them needs.
    command.arg("-o").arg(&out).arg(&source).args(options);
    assert!(
        command.status().expect("the compiler runs").success(),
        "{command:?} failed"
    );
    out
}

/// Everything that was recorded, by thread.
#[derive(Default)]
pub struct Recorded {
    pub threads: BTreeMap<u32, Vec<RawEvent>>,
    pub os_tids: BTreeMap<u32, u32>,
    pub names: BTreeMap<u32, String>,
    pub ended: Vec<u32>,
    pub processes: Vec<ProcessInfo>,
    pub process_ends: Vec<u32>,
    /// The process of each thread.
    pub owners: BTreeMap<u32, u32>,
    /// Times and names.
    pub marks: Vec<(u64, String)>,
    pub notes: Vec<String>,
    /// Slows the drainer down: this long at every batch of events.
    pub delay: std::time::Duration,
}

impl Sink for Recorded {
    fn process_start(&mut self, process: &ProcessInfo) -> Result<(), TraceError> {
        self.processes.push(process.clone());
        Ok(())
    }
    fn process_end(&mut self, process: u32, _: u64) -> Result<(), TraceError> {
        self.process_ends.push(process);
        Ok(())
    }
    fn thread_start(
        &mut self,
        process: u32,
        thread: u32,
        os_tid: u32,
        _: u64,
    ) -> Result<(), TraceError> {
        self.owners.insert(thread, process);
        assert!(
            self.os_tids.insert(thread, os_tid).is_none(),
            "thread {thread} started twice"
        );
        self.threads.entry(thread).or_default();
        Ok(())
    }
    fn thread_name(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        self.names.insert(thread, name.to_owned());
        Ok(())
    }
    fn events(&mut self, thread: u32, events: &Packed) -> Result<(), TraceError> {
        std::thread::sleep(self.delay);
        assert!(
            !self.ended.contains(&thread),
            "events of thread {thread} after its end"
        );
        self.threads
            .get_mut(&thread)
            .expect("a started thread")
            .extend(events.events());
        Ok(())
    }
    fn thread_end(&mut self, thread: u32, _: u64) -> Result<(), TraceError> {
        self.ended.push(thread);
        Ok(())
    }
    fn mark(&mut self, _: Option<u32>, time_ns: u64, name: &str) -> Result<(), TraceError> {
        self.marks.push((time_ns, name.to_owned()));
        Ok(())
    }
    fn note(&mut self, text: &str) -> Result<(), TraceError> {
        self.notes.push(text.to_owned());
        Ok(())
    }
}

impl Recorded {
    /// All events, thread after thread.
    pub fn events(&self) -> impl Iterator<Item = &RawEvent> {
        self.threads.values().flatten()
    }

    /// How many events of this kind there are.
    pub fn count(&self, kind: RawKind) -> u64 {
        self.events().filter(|event| event.kind == kind).count() as u64
    }

    /// How many blocks were allocated by anything but realloc.
    pub fn allocations(&self) -> u64 {
        use RawKind::*;
        [
            Malloc,
            Calloc,
            AlignedAlloc,
            Memalign,
            PosixMemalign,
            Valloc,
            Pvalloc,
        ]
        .into_iter()
        .map(|kind| self.count(kind))
        .sum()
    }

    /// How many blocks were freed by anything but realloc.
    pub fn frees(&self) -> u64 {
        [RawKind::Free, RawKind::FreeSized, RawKind::FreeAlignedSized]
            .into_iter()
            .map(|kind| self.count(kind))
            .sum()
    }

    /// How many calls of realloc and reallocarray returned.
    pub fn reallocs(&self) -> u64 {
        self.count(RawKind::ReallocEnd) + self.count(RawKind::ReallocArrayEnd)
    }

    /// What the threads of one process recorded, as if it were alone.
    pub fn of_process(&self, process: u32) -> Recorded {
        let threads = self.threads.iter();
        Recorded {
            threads: threads
                .filter(|(thread, _)| self.owners[thread] == process)
                .map(|(&thread, events)| (thread, events.clone()))
                .collect(),
            ..Recorded::default()
        }
    }

    /// Checks the invariants of the first process's recording: times do not go back in a thread, every
    /// address is freed at most as often as it was allocated, a begin of realloc has its end.
    /// Returns the number of blocks left at the end.
    pub fn check(&self) -> i64 {
        let mut balance: BTreeMap<u64, i64> = BTreeMap::new();
        let first = self.owners.values().min();
        for (thread, events) in &self.threads {
            if self.owners.get(thread) != first {
                continue;
            }
            let mut last = 0;
            let mut begun: Option<u64> = None;
            for event in events {
                assert!(event.time_ns >= last, "time goes back in thread {thread}");
                last = event.time_ns;
                match event.kind {
                    RawKind::Free | RawKind::FreeSized | RawKind::FreeAlignedSized => {
                        *balance.entry(event.address).or_default() -= 1;
                    }
                    RawKind::ReallocBegin => {
                        assert_eq!(begun, None, "two begins of realloc in thread {thread}");
                        begun = Some(event.address);
                    }
                    RawKind::ReallocEnd | RawKind::ReallocArrayEnd => {
                        let old = begun.take().expect("an end of realloc without a begin");
                        let failed = event.address == 0 && event.size > 0;
                        if old != 0 && !failed {
                            *balance.entry(old).or_default() -= 1;
                        }
                        if event.address != 0 {
                            *balance.entry(event.address).or_default() += 1;
                        }
                    }
                    RawKind::FailedAlloc
                    | RawKind::Mark
                    | RawKind::Fork
                    | RawKind::Mmap
                    | RawKind::Munmap
                    | RawKind::Mremap
                    | RawKind::Brk
                    | RawKind::Written => {}
                    _ => *balance.entry(event.address).or_default() += 1,
                }
            }
        }
        for (address, live) in &balance {
            assert!(
                (0..=1).contains(live),
                "block {address:#x} is live {live} times at the end"
            );
        }
        balance.values().sum()
    }
}

impl Recorded {
    /// Checks that the one thread's events, in the order in which they were drained, alternate at
    /// every address. Only for programs whose realloc never fails.
    pub fn check_order_of_one_thread(&self) {
        assert_eq!(self.threads.len(), 1);
        let mut live = std::collections::BTreeSet::new();
        for (number, event) in self.events().enumerate() {
            match event.kind {
                RawKind::Free | RawKind::FreeSized | RawKind::FreeAlignedSized => {
                    assert!(
                        live.remove(&event.address),
                        "event {number} frees no block: {event:?}"
                    );
                }
                RawKind::ReallocBegin => {
                    assert!(
                        event.address == 0 || live.remove(&event.address),
                        "{number}: {event:?}"
                    );
                }
                RawKind::FailedAlloc
                | RawKind::Mark
                | RawKind::Fork
                | RawKind::Mmap
                | RawKind::Munmap
                | RawKind::Mremap
                | RawKind::Brk
                | RawKind::Written => {}
                _ => assert!(
                    live.insert(event.address),
                    "event {number} is live: {event:?}"
                ),
            }
        }
    }
}

/// What the counting library behind the recorder saw, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    let mut session = Session::create(options).expect("session");
    command
        .envs(session.environment_before(recorder(), &preload))
        .env("HEAPLAB_TEST_COUNTS", &counts)
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.path().join("stdout")).expect("output file"));
    let mut child = command.spawn().expect("the program starts");
    let mut status = None;
    let alive = || {
        status = child.try_wait().expect("wait");
        status.is_none()
    };
    let summary = session.drain(alive, sink).expect("drain");
    let bytes = fs::read(&counts).expect("counts");
    let word =
        |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("8 bytes"));
    End {
        summary,
        status: status.expect("the program ended"),
        stdout: fs::read_to_string(dir.path().join("stdout")).unwrap_or_default(),
        counted: Counted {
            allocations: word(0),
            frees: word(1),
            reallocs: word(2),
            failed: word(3),
        },
    }
}

/// Records `command` to a raw file, resolves that into a trace, and checks that the trace's own
/// statistics equal what the second counter saw in the same run. Returns the statistics.
pub fn round_trip(command: &mut Command) -> TraceStats {
    let dir = scratch();
    let (raw, out) = (dir.path().join("run.raw"), dir.path().join("run.hltrace"));
    let mut writer = RawWriter::create(&raw, &TraceHeader::default()).expect("raw file");
    let end = run(command, &SessionOptions::default(), &mut writer, &[]);
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
    assert!(stats.complete, "missing: {:?}", stats.missing);
    assert_eq!(stats.threads, end.summary.threads);
    stats
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
