//! C++ operators: recorded once each, whoever defines them, and exceptions as without the recorder.

mod common;

use common::{Recorded, compile_as, scratch};
use heaplab_workloads::record::SessionOptions;
use heaplab_workloads::trace::raw::RawKind;
use std::path::Path;
use std::process::Command;

struct Outcome {
    recorded: Recorded,
    made: u64,
    freed: u64,
    /// Calls of the operators of the allocator behind; -1 where it has none.
    own: i64,
}

fn run(options: &[&str], behind: &[&Path]) -> Outcome {
    let dir = scratch();
    let options = [&["-std=c++17", "-O0", "-ldl"], options].concat();
    let program = compile_as(dir.path(), "g++", "operators.cc", "operators", &options);
    let mut recorded = Recorded::default();
    let end = common::run(
        &mut Command::new(program),
        &SessionOptions::default(),
        &mut recorded,
        behind,
    );
    assert!(end.status.success(), "{:?}", end.status);
    assert_eq!(recorded.allocations(), end.counted.allocations);
    assert_eq!(recorded.frees(), end.counted.frees);
    assert_eq!(recorded.count(RawKind::FailedAlloc), end.counted.failed);
    recorded.check();
    let mut numbers = end.stdout.split_whitespace();
    let mut number = || -> i64 {
        numbers
            .next()
            .and_then(|text| text.parse().ok())
            .expect("number")
    };
    let (made, freed, own) = (number() as u64, number() as u64, number());
    assert!(recorded.allocations() >= made && recorded.frees() >= freed);
    Outcome {
        recorded,
        made,
        freed,
        own,
    }
}

#[test]
fn in_front_of_the_system_nothing_changes() {
    let outcome = run(&[], &[]);
    assert_eq!(outcome.own, -1);
    // The C++ library asks malloc and free: sized forms are not seen as such.
    assert_eq!(outcome.recorded.count(RawKind::FreeSized), 0);
    assert!(outcome.recorded.count(RawKind::AlignedAlloc) >= 301);
}

#[test]
fn in_front_of_an_allocator_with_operators_each_call_is_recorded_once() {
    let dir = scratch();
    let options = ["-shared", "-fPIC", "-fexceptions", "-lstdc++"];
    let allocator = compile_as(
        dir.path(),
        "gcc",
        "operators.c",
        "liboperators.so",
        &options,
    );
    let outcome = run(&[], &[&allocator]);
    // Three requests that cannot be met; its own operators then throw or return null.
    assert_eq!(outcome.own, 3);
    assert_eq!(outcome.recorded.count(RawKind::FailedAlloc), 3);
    assert_eq!(outcome.recorded.count(RawKind::AlignedAlloc), 301);
    assert_eq!(outcome.recorded.count(RawKind::FreeAlignedSized), 200);
    assert!(outcome.recorded.count(RawKind::FreeSized) >= 200);
    assert!(outcome.made == outcome.freed && outcome.made == 602);
    let wide = |event: &&heaplab_workloads::trace::raw::RawEvent| {
        event.kind == RawKind::AlignedAlloc && event.align_log2 == 8
    };
    assert_eq!(outcome.recorded.events().filter(wide).count(), 300);
}

#[test]
fn a_program_with_operators_of_its_own_keeps_them() {
    run(&["-DREPLACED"], &[]);
}
