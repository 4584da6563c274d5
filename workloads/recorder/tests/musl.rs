//! A program on musl, into which the same library is loaded: its result is its own, and every call is recorded once.

mod common;

use common::{Recorded, compile_as, recorder, scratch};
use heaplab_workloads::record::{Session, SessionOptions};
use heaplab_workloads::trace::Start;
use heaplab_workloads::trace::raw::RawKind;
use std::process::Command;

#[test]
fn a_program_on_musl_is_recorded_call_by_call() {
    let dir = scratch();
    let program = compile_as(dir.path(), "musl-gcc", "musl.c", "musl", &[]);
    let mut session = Session::create(&SessionOptions::default()).expect("session");
    let mut command = Command::new(program);
    command.envs(session.environment_before(recorder(), "".as_ref()));
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut recorded = Recorded::default();
    let alive = || matches!(child.try_wait(), Ok(None));
    let summary = session.drain(alive, &mut recorded).expect("drain");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"fine\n");

    assert_eq!((summary.lost_events, summary.torn_records), (0, 0));
    assert_eq!((summary.processes, summary.threads), (2, 6));
    let child = recorded.processes.last().expect("processes");
    assert_eq!((child.start, child.name()), (Start::Fork, "musl"));
    recorded.check();
    let sized = |kind, size| {
        let of = |event: &&heaplab_workloads::trace::raw::RawEvent| {
            event.kind == kind && event.size == size
        };
        recorded.events().filter(of).count()
    };
    for (kind, size, times) in [
        (RawKind::Calloc, 3000, 3),
        (RawKind::Calloc, 300_000, 3),
        (RawKind::Calloc, 200_000, 3),
        (RawKind::PosixMemalign, 1000, 1),
        (RawKind::Memalign, 77, 1),
        (RawKind::AlignedAlloc, 640, 1),
        (RawKind::Valloc, 5, 1),
        (RawKind::ReallocEnd, 1_000_000, 1),
        (RawKind::Malloc, 4321, 1),
    ] {
        assert_eq!(sized(kind, size), times, "{kind:?} of {size} bytes");
    }
    // What those are made of is not recorded besides.
    assert_eq!(recorded.count(RawKind::AlignedAlloc), 1);
    assert_eq!(recorded.count(RawKind::Memalign), 1);
    assert!(
        [3000, 300_000, 200_000]
            .iter()
            .all(|size| sized(RawKind::Malloc, *size) == 0)
    );
    // Four threads of a thousand each.
    assert!((4001..4010).contains(&recorded.count(RawKind::Malloc)));
    assert_eq!(recorded.count(RawKind::FailedAlloc), 2);
}
