//! Building the recorder and small programs, recording them, and naming their stacks.
#![allow(dead_code)] // each test binary uses its part

use heaplab_symbols::{Module, Options, resolve_all};
use heaplab_workloads::record::{DrainSummary, Session, SessionOptions, StackMode};
use heaplab_workloads::trace::raw::RawWriter;
use heaplab_workloads::trace::{
    EventKind, FinishInfo, ResolveOptions, Trace, TraceHeader, resolve_file,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The preload library, built with this test's profile and target folder.
pub fn recorder() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // target/<profile>/deps/<test>-<hash>
        let exe = std::env::current_exe().expect("own path");
        let profile = exe.ancestors().nth(2).expect("profile folder");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--lib", "--manifest-path"]);
        build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        build
            .arg("--target-dir")
            .arg(profile.parent().expect("target folder"));
        match profile.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => {}
            Some(name) => drop(build.args(["--profile", name])),
        }
        assert!(
            build.status().expect("cargo runs").success(),
            "{build:?} failed"
        );
        profile.join("libheaplab_recorder_stacks.so")
    })
}

/// Compiles `programs/<name>.c`, of this package or of the recorder, into `dir`.
pub fn compile(dir: &Path, name: &str, options: &[&str]) -> PathBuf {
    let out = dir.join(name);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/programs/{name}.c"));
    let recorders =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/programs/{name}.c"));
    let source = if own.exists() { own } else { recorders };
    let mut command = Command::new("cc");
    command.args([
        "-g",
        "-Wall",
        "-fno-builtin-malloc",
        "-fno-builtin-free",
        "-fno-optimize-sibling-calls",
        "-pthread",
        "-D_GNU_SOURCE",
    ]);
    command.args(options).arg("-o").arg(&out).arg(source);
    // What it warns of is told only where it fails: these programs do what compilers warn of.
    let compiled = command.output().expect("the compiler runs");
    assert!(
        compiled.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    out
}

/// An allocation with its stack, the innermost function first; none for an allocation without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub kind: EventKind,
    pub size: u64,
    pub thread: u32,
    pub stack: u32,
    pub functions: Vec<String>,
    pub lines: Vec<u32>,
}

pub struct Recorded {
    pub output: Output,
    pub summary: DrainSummary,
    pub trace: Trace,
    pub allocations: Vec<Allocation>,
}

/// Records a program.
pub fn record(dir: &Path, command: &mut Command, stacks: StackMode) -> Recorded {
    record_before(dir, command, stacks, OsStr::new(""))
}

/// Records a program with this library behind the recorder.
pub fn record_before(
    dir: &Path,
    command: &mut Command,
    stacks: StackMode,
    behind: &OsStr,
) -> Recorded {
    let mut session = Session::create(&SessionOptions {
        stacks,
        ..SessionOptions::default()
    })
    .expect("a session");
    let (raw_path, path) = (dir.join("test.raw"), dir.join("test.hltrace"));
    let mut raw = RawWriter::create(&raw_path, &TraceHeader::default()).expect("a file");
    raw.stack_mode(stacks).expect("written");
    let mut child = command
        .envs(session.environment_before(recorder(), behind))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let summary = session
        .drain(|| matches!(child.try_wait(), Ok(None)), &mut raw)
        .expect("drained");
    let output = child.wait_with_output().expect("its output");
    raw.finish(FinishInfo::default()).expect("written");
    resolve_file(&raw_path, &path, &ResolveOptions::default(), &mut |_, _| {}).expect("resolved");
    let trace = Trace::open(&path).expect("a trace");
    let allocations = allocations(&trace);
    Recorded {
        output,
        summary,
        trace,
        allocations,
    }
}

fn allocations(trace: &Trace) -> Vec<Allocation> {
    let table = trace.stacks().expect("stacks");
    let mut modules: Vec<Module> = table
        .modules
        .iter()
        .map(|module| Module {
            path: module.path.clone().into(),
            build_id: module.build_id.clone(),
            addresses: Vec::new(),
        })
        .collect();
    let mut places = Vec::new();
    for frame in &table.frames {
        places.push(frame.module.map(|module| {
            let addresses = &mut modules[module as usize].addresses;
            addresses.push(frame.address);
            (module as usize, addresses.len() - 1)
        }));
    }
    let resolved = resolve_all(&modules, &Options::default());
    let mut found = Vec::new();
    trace
        .events_with_stacks(
            |event, _, _, stack| {
                if !event.kind.has_size() {
                    return;
                }
                let symbols =
                    table
                        .frames_of(stack)
                        .flat_map(|frame| match places[frame as usize] {
                            Some((module, at)) if !resolved[module].symbols[at].is_empty() => {
                                resolved[module].symbols[at].clone()
                            }
                            _ => vec![heaplab_symbols::Symbol {
                                function: "?".into(),
                                ..Default::default()
                            }],
                        });
                let symbols: Vec<_> = symbols.collect();
                found.push(Allocation {
                    kind: event.kind,
                    size: event.size,
                    thread: event.thread,
                    stack,
                    functions: symbols
                        .iter()
                        .map(|symbol| symbol.function.clone())
                        .collect(),
                    lines: symbols.iter().map(|symbol| symbol.line).collect(),
                });
            },
            &mut |_, _| {},
        )
        .expect("events");
    found
}
