//! A static C program, on glibc and on musl, that has the recorder linked in, recorded end to end; and the same program without a recording.

#[path = "../../recorder/tests/common/mod.rs"]
mod common;

use common::{Recorded, archive, compile_as, scratch};
use heaplab_workloads::record::{Session, SessionOptions};
use heaplab_workloads::trace::Start;
use heaplab_workloads::trace::raw::RawKind;
use std::path::{Path, PathBuf};
use std::process::Command;

fn program(dir: &Path, compiler: &str) -> PathBuf {
    let library = archive("heaplab-linked", "libheaplab_linked.a");
    let options = Path::new(env!("CARGO_MANIFEST_DIR")).join("link.options");
    let options = format!("@{}", options.display());
    let library = library.to_str().expect("a path of this build");
    compile_as(
        dir,
        compiler,
        "linked.c",
        "linked",
        &["-static", library, &options],
    )
}

#[test]
fn a_static_program_is_recorded_with_its_threads_and_its_child() {
    check("cc");
}

#[test]
fn a_program_on_musl_is_recorded_likewise() {
    check("musl-gcc");
}

fn check(compiler: &str) {
    let dir = scratch();
    let mut session = Session::create(&SessionOptions::default()).expect("session");
    let mut command = Command::new(program(dir.path(), compiler));
    command.envs(session.environment_before(Path::new("/not/loaded.so"), "".as_ref()));
    // cargo's, whose folders a static C library copies into blocks of its own: one had 21 bytes.
    command.env_remove("LD_LIBRARY_PATH");
    let mut recorded = Recorded::default();
    let mut child = command.spawn().expect("the program starts");
    let mut status = None;
    let alive = || {
        status = child.try_wait().expect("wait");
        status.is_none()
    };
    let summary = session.drain(alive, &mut recorded).expect("drain");
    assert_eq!(status.and_then(|status| status.code()), Some(7));
    assert_eq!((summary.lost_events, summary.torn_records), (0, 0));
    assert_eq!((summary.processes, summary.threads), (2, 5));
    let sized = |kind: RawKind, size: u64| {
        let events = recorded.events();
        events
            .filter(|event| event.kind == kind && event.size == size)
            .count()
    };
    for (kind, size, times) in [
        (RawKind::Malloc, 1111, 3000),
        (RawKind::Malloc, 2222, 1),
        (RawKind::Malloc, 21, 1),
        (RawKind::Calloc, 15, 1),
        (RawKind::ReallocEnd, 40, 1),
        (RawKind::ReallocArrayEnd, 70, 1),
        (RawKind::AlignedAlloc, 128, 1),
        (RawKind::Memalign, 300, 1),
        (RawKind::PosixMemalign, 77, 1),
    ] {
        assert_eq!(sized(kind, size), times, "{kind:?} of {size} bytes");
    }
    assert!(recorded.frees() >= 3008);
    let marks: Vec<&str> = recorded
        .marks
        .iter()
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(marks, ["family"]);
    let starts: Vec<Start> = recorded
        .processes
        .iter()
        .map(|process| process.start)
        .collect();
    assert_eq!(starts, [Start::First, Start::Fork]);
    assert!(recorded.processes[0].program.ends_with("linked"));
    recorded.of_process(1).check();
}

#[test]
fn without_a_recording_it_runs_as_ever() {
    let dir = scratch();
    let status = Command::new(program(dir.path(), "cc"))
        .status()
        .expect("it starts");
    assert_eq!(status.code(), Some(7));
}
