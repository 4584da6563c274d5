//! Traces of several processes: forks share blocks, ends release them, one process is replayed alone.

mod common;
#[path = "common/family.rs"]
mod family;

use common::{follow_order, interpret};
use family::{Recorded, event, process, write};
use heaplab_script::{OpKind, Script};
use heaplab_workloads::trace::raw::RawKind;
use heaplab_workloads::trace::{
    CutOptions, EventKind, MergeOptions, Start, Trace, anonymise, cut, merge,
};
use heaplab_workloads::{Params, Workload};

/// A parent with four blocks forks; parent and child free and resize the same addresses. The child forks, too, and goes.
fn family() -> Vec<Recorded> {
    use RawKind::{Fork, Free, Malloc, ReallocBegin, ReallocEnd};
    let parent = vec![
        event(1000, Malloc, 0x1000, 10),
        event(2000, Malloc, 0x2000, 20),
        event(3000, Malloc, 0x3000, 30),
        event(3500, Malloc, 0x3500, 35),
        event(4000, Fork, 0, 7),
        event(5000, Free, 0x1000, 0),
        // The number of the freed block is used again.
        event(6000, Malloc, 0x9000, 90),
        event(90_000, Free, 0x2000, 0),
    ];
    let child = vec![
        event(4500, Malloc, 0x9000, 99),
        event(7000, Free, 0x1000, 0),
        event(8000, ReallocBegin, 0x2000, 0),
        event(8100, ReallocEnd, 0xa000, 200),
        // A fork that failed: its number is nobody's.
        event(8500, Fork, 0, 8),
        event(9000, Fork, 0, 9),
        event(9500, Free, 0x9000, 0),
    ];
    let grandchild = vec![
        event(10_000, Free, 0x9000, 0),
        event(11_000, Free, 0x3000, 0),
        event(12_000, Free, 0xa000, 0),
        event(13_000, Malloc, 0x1000, 11),
    ];
    vec![
        Recorded {
            info: process(3, 100, None, Start::First, 500),
            end_ns: Some(100_000),
            threads: vec![parent],
        },
        Recorded {
            info: process(7, 200, Some(3), Start::Fork, 4100),
            end_ns: Some(20_000),
            threads: vec![child],
        },
        Recorded {
            info: process(9, 300, Some(7), Start::Fork, 9100),
            end_ns: Some(30_000),
            threads: vec![grandchild],
        },
    ]
}

#[test]
fn blocks_at_a_fork_belong_to_both() {
    let folder = tempfile::tempdir().unwrap();
    let trace = Trace::open(&write(folder.path(), &family())).unwrap();
    trace.verify(&mut |_, _| {}).unwrap();
    let summary = trace.summary();
    assert_eq!((summary.foreign_frees, summary.lost_frees), (0, 0));
    assert_eq!((summary.processes, summary.threads), (3, 3));
    assert_eq!(summary.allocations, 5 + 1 + 1);
    assert_eq!(summary.frees, 2 + 2 + 3);
    // All blocks left with their processes.
    assert_eq!((summary.end_live_blocks, summary.end_live_bytes), (0, 0));
    let stats = trace.stats(&mut |_, _| {}).unwrap();
    assert_eq!(
        (stats.end_live_blocks, stats.end_live_bytes),
        (3 + 1 + 1, 155 + 200 + 11),
        "what nobody freed"
    );
    let kinds = |kind| {
        let events = trace.events().map(Result::unwrap);
        events.filter(|event| event.kind == kind).count()
    };
    assert_eq!(kinds(EventKind::Inherited), 2 + 3);
    assert_eq!(kinds(EventKind::Fork), 2);
    assert_eq!(kinds(EventKind::Gone), 3 + 1 + 1);
    let table: Vec<_> = trace
        .processes()
        .iter()
        .map(|process| {
            (
                process.info.pid,
                process.info.parent,
                process.allocations,
                process.frees,
                process.end_live_bytes,
            )
        })
        .collect();
    assert_eq!(
        table,
        [
            (100, None, 5, 2, 30 + 35 + 90),
            (200, Some(0), 1, 2, 200),
            (300, Some(1), 1, 3, 11),
        ]
    );
    assert_eq!(trace.busiest_process(), Some(0));
}

#[test]
fn a_forked_process_is_replayed_with_what_it_inherited() {
    let folder = tempfile::tempdir().unwrap();
    let out = write(folder.path(), &family());
    // pid, allocations, frees, live bytes at the end, threads
    for (word, allocations, frees, live, peak) in [
        ("100", 5, 2, 155, 175),
        // Its parent's four blocks, its own one; what it resized is the parent's block.
        ("200", 5, 2, 30 + 35 + 200, 30 + 35 + 99 + 200),
        ("300", 6, 4, 35 + 11, 30 + 35 + 99 + 200),
        ("program-100", 5, 2, 155, 175),
    ] {
        let workload = Workload::resolve(&format!("{}#{word}", out.display())).unwrap();
        assert_eq!(workload.name(), format!("t#{word}"));
        let compiled = workload
            .compile(&Params::default(), folder.path(), &mut |_, _| {})
            .unwrap();
        let script = Script::open(&compiled.path).unwrap();
        follow_order(&script);
        interpret(&script, |count| count / 2);
        assert_eq!(
            script.thread_count(),
            1,
            "{word}: the thread that forked goes on"
        );
        let ops = || script.thread(0).iter();
        let count = |wanted: OpKind| ops().filter(|op| op.kind() == Some(wanted)).count();
        assert_eq!(
            (count(OpKind::Malloc), count(OpKind::Free)),
            (allocations, frees),
            "{word}"
        );
        let (mut sizes, mut sum, mut most) = (std::collections::HashMap::new(), 0u64, 0u64);
        for op in ops().filter(|op| op.is_call()) {
            sum -= sizes.remove(&op.slot).unwrap_or(0);
            if op.kind() != Some(OpKind::Free) {
                sizes.insert(op.slot, op.size());
                sum += op.size();
            }
            most = most.max(sum);
        }
        assert_eq!((sum, most), (live, peak), "{word}");
    }
    let error = |word: &str| {
        let resolved = Workload::resolve(&format!("{}#{word}", out.display()));
        resolved.expect_err("no such process").to_string()
    };
    assert!(
        error("101").contains("no process '101'"),
        "{}",
        error("101")
    );
    assert!(error("100.2").contains("trace info"), "{}", error("100.2"));
}

/// A server's worker that is told nothing (a bare clone) and one whose parent is gone: the copy is made at the first event.
#[test]
fn a_clone_without_a_word_inherits_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut family = family();
    family.truncate(2);
    family[1].info.cloned = true;
    family[0].threads[0].retain(|event| event.kind != RawKind::Fork);
    family[1].threads[0].retain(|event| event.kind != RawKind::Fork);
    let trace = Trace::open(&write(folder.path(), &family)).unwrap();
    trace.verify(&mut |_, _| {}).unwrap();
    assert_eq!(trace.summary().foreign_frees, 0);
    assert_eq!(trace.processes()[1].frees, 2);
    let path = format!("{}#200", trace.path().display());
    let workload = Workload::resolve(&path).unwrap();
    let params = Params::default();
    let compiled = workload
        .compile(&params, folder.path(), &mut |_, _| {})
        .unwrap();
    follow_order(&Script::open(&compiled.path).unwrap());
}

#[test]
fn exec_ends_a_heap_and_begins_another() {
    use RawKind::{Free, Malloc, ReallocBegin};
    let folder = tempfile::tempdir().unwrap();
    let shell = vec![
        event(1000, Malloc, 0x1000, 10),
        event(2000, Malloc, 0x2000, 20),
        // Of this resize the end never came.
        event(3000, ReallocBegin, 0x2000, 0),
    ];
    // Another image has other blocks at the same addresses.
    let program = vec![
        event(5000, Malloc, 0x1000, 100),
        event(6000, Malloc, 0x5000, 50),
        event(7000, Free, 0x1000, 0),
    ];
    let images = [
        Recorded {
            info: process(1, 100, None, Start::First, 500),
            end_ns: Some(4000),
            threads: vec![shell],
        },
        Recorded {
            info: process(2, 100, Some(1), Start::Exec, 4000),
            end_ns: None,
            threads: vec![program],
        },
    ];
    let trace = Trace::open(&write(folder.path(), &images)).unwrap();
    trace.verify(&mut |_, _| {}).unwrap();
    assert_eq!(trace.summary().lost_frees, 0);
    assert_eq!(
        trace.summary().peak_live_bytes,
        150,
        "the shell's blocks were gone"
    );
    assert_eq!(trace.find_process("100"), Ok(1));
    assert_eq!(trace.find_process("100.1"), Ok(0));
    assert_eq!(trace.busiest_process(), Some(1));
}

#[test]
fn parts_and_anonymous_copies_keep_their_processes() {
    let folder = tempfile::tempdir().unwrap();
    let trace = Trace::open(&write(folder.path(), &family())).unwrap();
    let out = folder.path().join("a.hltrace");
    anonymise(&trace, &out, &mut |_, _| {}).unwrap();
    let bytes = std::fs::read(&out).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    let copy = Trace::open(&out).unwrap();
    copy.verify(&mut |_, _| {}).unwrap();
    assert_eq!(copy.processes().len(), 3);
    assert_eq!(copy.processes()[1].events, trace.processes()[1].events);
    let options = CutOptions {
        from_event: Some(6),
        ..CutOptions::default()
    };
    let out = folder.path().join("c.hltrace");
    cut(&trace, &out, &options, &mut |_, _| {}).unwrap();
    let part = Trace::open(&out).unwrap();
    part.verify(&mut |_, _| {}).unwrap();
    assert_eq!(part.processes()[2].info.pid, 300);
    // The last of the family was forked in the part.
    let workload = Workload::resolve(&format!("{}#300", out.display())).unwrap();
    let params = Params::default();
    let compiled = workload
        .compile(&params, folder.path(), &mut |_, _| {})
        .unwrap();
    follow_order(&Script::open(&compiled.path).unwrap());
}

/// In a merged trace processes have other numbers: forks and marks name them as they are there.
#[test]
fn merged_forks_and_marks_name_their_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &family());
    let traces = [Trace::open(&path).unwrap(), Trace::open(&path).unwrap()];
    let out = folder.path().join("m.hltrace");
    merge(&traces, &out, &MergeOptions::default(), &mut |_, _| {}).unwrap();
    let merged = Trace::open(&out).unwrap();
    merged.verify(&mut |_, _| {}).unwrap();
    let table = merged.processes();
    assert_eq!(table.len(), 6);
    let threads = &merged.summary().thread_table;
    let mut children = Vec::new();
    for event in merged.events().map(Result::unwrap) {
        if event.kind == EventKind::Fork
            && let Some(child) = table.get(event.size as usize)
        {
            let parent = threads[event.thread as usize].process;
            assert_eq!(child.info.parent, Some(parent));
            children.push(event.size);
        }
    }
    children.sort_unstable();
    assert_eq!(children, [1, 2, 4, 5]);
    let mut of: Vec<_> = merged.mark_processes().to_vec();
    of.sort_unstable();
    assert_eq!(of, [0, 1, 2, 3, 4, 5].map(Some));
    for (process, (_, name)) in merged.mark_processes().iter().zip(merged.marks()) {
        let argv = &table[process.unwrap() as usize].info.argv;
        assert_eq!(&argv[0], name);
    }
}
