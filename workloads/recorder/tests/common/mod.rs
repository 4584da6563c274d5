//! What the integration tests share: building the recorder and small C programs, running a program
//! under the recorder with a counting library behind it, and checking what was recorded.
#![allow(dead_code)] // each test binary uses its part

use heaplab_workloads::record::{DrainSummary, Session, SessionOptions, Sink};
use heaplab_workloads::trace::TraceError;
use heaplab_workloads::trace::raw::{RawEvent, RawKind};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

/// The preload library, built with this test's profile and target folder.
pub fn recorder() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // target/<profile>/deps/<test>-<hash>
        let exe = std::env::current_exe().expect("own path");
        let profile = exe
            .parent()
            .and_then(Path::parent)
            .expect("profile folder")
            .to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "-p",
            "heaplab-recorder",
            "--manifest-path",
        ]);
        build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        build
            .arg("--target-dir")
            .arg(profile.parent().expect("target folder"));
        match profile.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => {}
            Some(name) => {
                build.args(["--profile", name]);
            }
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "cargo build -p heaplab-recorder failed");
        let library = profile.join("libheaplab_recorder.so");
        assert!(library.exists(), "{} is missing", library.display());
        library
    })
}

/// A folder for what a test makes, removed with it.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

/// Compiles `programs/<name>.c` into `dir`; `shared` makes it a library.
pub fn compile(dir: &Path, name: &str, shared: bool) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs")
        .join(format!("{name}.c"));
    let out = dir.join(if shared {
        format!("lib{name}.so")
    } else {
        name.to_owned()
    });
    let mut cc = Command::new("cc");
    cc.args([
        "-O1",
        "-g",
        "-Wall",
        "-Wno-alloc-size-larger-than",
        "-fno-builtin",
        "-pthread",
        "-D_GNU_SOURCE",
        "-o",
    ]);
    cc.arg(&out).arg(&source);
    if shared {
        cc.args(["-shared", "-fPIC"]);
    }
    assert!(
        cc.status().expect("cc runs").success(),
        "{name}.c does not compile"
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
    pub marks: Vec<String>,
    pub notes: Vec<String>,
    /// Slows the drainer down: this long at every batch of events.
    pub delay: std::time::Duration,
}

impl Sink for Recorded {
    fn thread_start(&mut self, thread: u32, os_tid: u32, _: u64) -> Result<(), TraceError> {
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
    fn events(&mut self, thread: u32, events: &[RawEvent]) -> Result<(), TraceError> {
        std::thread::sleep(self.delay);
        assert!(
            !self.ended.contains(&thread),
            "events of thread {thread} after its end"
        );
        self.threads
            .get_mut(&thread)
            .expect("a started thread")
            .extend_from_slice(events);
        Ok(())
    }
    fn thread_end(&mut self, thread: u32, _: u64) -> Result<(), TraceError> {
        self.ended.push(thread);
        Ok(())
    }
    fn mark(&mut self, _: u64, name: &str) -> Result<(), TraceError> {
        self.marks.push(name.to_owned());
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

    /// Checks the invariants of one process's recording: times do not go back in a thread, every
    /// address is freed at most as often as it was allocated, a begin of realloc has its end.
    /// Returns the number of blocks left at the end.
    pub fn check(&self) -> i64 {
        let mut balance: BTreeMap<u64, i64> = BTreeMap::new();
        for (thread, events) in &self.threads {
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
                    RawKind::FailedAlloc | RawKind::Mark => {}
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
    let dir = scratch();
    let counter = compile(dir.path(), "counter", true);
    let counts = dir.path().join("counts");
    fs::write(&counts, [0; 4096]).expect("counts file");
    let mut session = Session::create(options).expect("session");
    command
        .envs(session.environment_before(recorder(), counter.as_os_str()))
        .env("HEAPLAB_TEST_COUNTS", &counts)
        .stdout(fs::File::create(dir.path().join("stdout")).expect("output file"));
    if !command
        .get_envs()
        .any(|(name, _)| name == "HEAPLAB_TEST_STDIN")
    {
        command.stdin(Stdio::null());
    }
    let mut child = command.spawn().expect("the program starts");
    let mut recorded = sink;
    let mut status = None;
    let alive = || {
        status = child.try_wait().expect("wait");
        status.is_none()
    };
    let summary = session.drain(alive, &mut recorded).expect("drain");
    let bytes = fs::read(&counts).expect("counts");
    let word =
        |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("8 bytes"));
    Run {
        recorded,
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

impl Run {
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
