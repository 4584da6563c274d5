//! A Rust program on mimalloc, recorded end to end: through the preloaded recorder, and joining the session by itself.

#[path = "../../recorder/tests/common/mod.rs"]
mod common;

use common::{Recorded, example, recorder};
use heaplab_workloads::record::{DrainSummary, Session, SessionOptions};
use heaplab_workloads::trace::raw::RawKind;
use std::process::Command;

/// Runs the example with the variables of the session, all or only that which names it.
fn record(preload: bool) -> (Recorded, DrainSummary) {
    let mut session = Session::create(&SessionOptions::default()).expect("session");
    let mut command = Command::new(example("on_mimalloc"));
    command.arg("500").env_remove("LD_PRELOAD");
    for (name, value) in session.environment_before(recorder(), "".as_ref()) {
        if preload || name != "LD_PRELOAD" {
            command.env(name, value);
        }
    }
    let mut recorded = Recorded::default();
    let mut child = command.spawn().expect("the program starts");
    let mut status = None;
    let alive = || {
        status = child.try_wait().expect("wait");
        status.is_none()
    };
    let summary = session.drain(alive, &mut recorded).expect("drain");
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    (recorded, summary)
}

fn check(recorded: &Recorded, summary: &DrainSummary) {
    assert_eq!((summary.lost_events, summary.torn_records), (0, 0));
    assert_eq!((summary.processes, summary.threads), (1, 2));
    recorded.check();
    let sized = |kind: RawKind, size: u64| {
        let events = recorded.events();
        events
            .filter(|event| event.kind == kind && event.size == size)
            .count()
    };
    assert_eq!(sized(RawKind::Malloc, 1111), 500);
    assert_eq!(sized(RawKind::AlignedAlloc, 256), 10);
    let wide = |event: &&_| {
        matches!(
            event,
            heaplab_workloads::trace::raw::RawEvent {
                kind: RawKind::FreeAlignedSized,
                align_log2: 7,
                ..
            }
        )
    };
    assert_eq!(recorded.events().filter(wide).count(), 10);
    assert_eq!(sized(RawKind::ReallocEnd, 77_777), 1);
    assert!(recorded.count(RawKind::FreeSized) >= 500);
    let marks: Vec<&str> = recorded
        .marks
        .iter()
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(marks, ["blocks", "wide"]);
    assert_eq!(recorded.processes.len(), 1);
    assert!(recorded.processes[0].program.ends_with("on_mimalloc"));
}

#[test]
fn a_program_on_mimalloc_is_recorded_through_the_preloaded_recorder() {
    let (recorded, summary) = record(true);
    check(&recorded, &summary);
}

/// As a static program has to.
#[test]
fn a_program_on_mimalloc_joins_the_session_by_itself() {
    let (recorded, summary) = record(false);
    check(&recorded, &summary);
}
