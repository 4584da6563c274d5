//! A script written is the script read; a damaged one is an error, never a crash.

use heaplab_script::{FLAG_SHARED, Op, OpKind, Run, Script, ScriptInfo, ScriptWriter};
use proptest::prelude::*;
use std::path::Path;

/// Two threads: thread 0 allocates a private and a shared block, starts thread 1, which frees the shared one.
fn write_example(path: &Path) -> ScriptInfo {
    let mut writer = ScriptWriter::create(path, 2).unwrap();
    let fill = writer.phase("fill");
    let private = 3;
    let shared = 8;
    for op in [
        Op::new(OpKind::Mark, 0, 0, 0, fill, 0),
        Op::new(OpKind::Malloc, 0, 0, private, 100, 0),
        Op::new(OpKind::AlignedAlloc, FLAG_SHARED, 0, shared, 4096, 6),
        Op::new(OpKind::ThreadStart, 0, 0, 1, 0, 0),
        Op::new(OpKind::Realloc, 0, 0, private, 200, 0),
        Op::new(OpKind::Free, 0, 0, private, 200, 0),
    ] {
        writer.push(0, op).unwrap();
        writer.order(0, 1).unwrap();
    }
    writer
        .push(1, Op::new(OpKind::Free, FLAG_SHARED, 0, shared, 4096, 6))
        .unwrap();
    writer
        .push(1, Op::new(OpKind::Idle, 0, 0, 0, 2_000_000, 0))
        .unwrap();
    writer.order(1, 2).unwrap();
    writer
        .finish(ScriptInfo {
            private_slots: 8,
            shared_slots: 1,
            peak_live_bytes: 4296,
            peak_live_blocks: 2,
            ..ScriptInfo::default()
        })
        .unwrap()
}

/// Three threads without shared slots: the ops of the first fill two segments of 1 MiB and begin a third, in uneven parts.
fn write_apart(path: &Path, settle: bool) -> ScriptInfo {
    let mut writer = ScriptWriter::create(path, 3).unwrap();
    if settle {
        writer.settle();
    }
    for part in 0..300u32 {
        for (thread, count) in [(0, 500 + part % 7), (1, 300), (2, 1)] {
            let ops: Vec<Op> = (0..count)
                .map(|slot| Op::new(OpKind::Malloc, 0, 0, slot, u64::from(part), 0))
                .collect();
            writer.append(thread, &ops).unwrap();
            writer.order(thread, count).unwrap();
        }
    }
    let info = ScriptInfo {
        private_slots: 1000,
        ..ScriptInfo::default()
    };
    let bases = [0, 600, 900];
    writer
        .finish_relocated(info, &bases, 1000, &mut |_, _| {})
        .unwrap()
}

#[test]
fn a_settled_script_is_the_same_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    let staged = write_apart(&path("staged"), false);
    assert_eq!(write_apart(&path("settled"), true), staged);
    let read = |name| std::fs::read(path(name)).unwrap();
    assert!(read("settled") == read("staged"));
    let script = Script::open(&path("settled")).unwrap();
    let ops = size_of_val(script.thread(0));
    assert!(ops > 2 << 20, "{ops} bytes are no three segments");
}

#[test]
fn a_promise_that_is_broken_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    let writer = || {
        let mut writer = ScriptWriter::create(&path, 2).unwrap();
        writer.settle();
        writer
    };
    assert!(writer().add_thread().is_err());
    let shared = Op::new(OpKind::Malloc, FLAG_SHARED, 0, 0, 8, 0);
    assert!((0..2).all(|thread| writer().push(thread, shared).is_err()));
    let bases = [8, 0];
    let moved = writer().finish_relocated(ScriptInfo::default(), &bases, 0, &mut |_, _| {});
    assert!(moved.is_err() && !path.exists());
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hlscript");
    let written = write_example(&path);
    let script = Script::open(&path).unwrap();
    assert_eq!(script.info(), &written);
    assert_eq!(
        (
            written.calls,
            written.allocations,
            written.frees,
            written.reallocs
        ),
        (5, 2, 2, 1)
    );
    assert_eq!(written.idle_ns, 2_000_000);
    assert_eq!(script.thread_count(), 2);
    assert_eq!(
        script.threads().map(<[Op]>::len).collect::<Vec<_>>(),
        [6, 2]
    );
    assert_eq!(
        script.order(),
        [
            Run {
                thread: 0,
                count: 6
            },
            Run {
                thread: 1,
                count: 2
            }
        ]
    );
    assert_eq!(script.phases(), ["fill"]);
    assert!(script.exists_from_start(0) && !script.exists_from_start(1));
    assert_eq!(script.thread(0).as_ptr().addr() % 64, 0);
    assert_eq!(script.thread(1)[0].slot, 8);
    script.verify_checksum().unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "scratch files are removed");
}

#[test]
fn pools_are_relocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hlscript");
    let mut writer = ScriptWriter::create(&path, 2).unwrap();
    for thread in 0..2 {
        writer
            .push(thread, Op::new(OpKind::Malloc, 0, 0, 2, 10, 0))
            .unwrap();
        writer
            .push(
                thread,
                Op::new(OpKind::Malloc, FLAG_SHARED, 7, thread, 10, 0),
            )
            .unwrap();
        writer
            .push(thread, Op::new(OpKind::Mark, 0, 0, 0, 0, 0))
            .unwrap();
        writer.order(thread, 3).unwrap();
    }
    let info = ScriptInfo {
        private_slots: 16,
        shared_slots: 2,
        ..ScriptInfo::default()
    };
    writer
        .finish_relocated(info, &[0, 8], 16, &mut |_, _| {})
        .unwrap();
    let script = Script::open(&path).unwrap();
    let slots = |thread| {
        script
            .thread(thread)
            .iter()
            .map(|op| op.slot)
            .collect::<Vec<_>>()
    };
    assert_eq!(slots(0), [2, 16, 0]);
    assert_eq!(slots(1), [10, 17, 0]);
    script.verify_checksum().unwrap();
}

#[test]
fn many_ops_go_through_the_scratch_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hlscript");
    let mut writer = ScriptWriter::create(&path, 3).unwrap();
    writer.set_memory_budget(1 << 20);
    let count = 200_000u32;
    for index in 0..count {
        let thread = index % 3;
        writer
            .push(
                thread,
                Op::new(OpKind::Malloc, 0, 0, index, u64::from(index), 0),
            )
            .unwrap();
        writer.order(thread, 1).unwrap();
    }
    let info = ScriptInfo {
        private_slots: count,
        ..ScriptInfo::default()
    };
    let first = writer.finish(info).unwrap();
    let script = Script::open(&path).unwrap();
    for (thread, ops) in script.threads().enumerate() {
        assert!(
            ops.iter()
                .enumerate()
                .all(|(at, op)| op.slot as usize == at * 3 + thread)
        );
    }
    assert_eq!(script.order().len(), count as usize);
    assert_ne!(first.checksum, 0);
}

/// Two threads with 5,000 ops each, taking turns in threes, with times.
fn write_timed(path: &Path) {
    let mut writer = ScriptWriter::create(path, 2).unwrap();
    writer.timed();
    writer.stays(1).unwrap();
    for index in 0..10_000u64 {
        let thread = (index / 3 % 2) as u32;
        let op = Op::new(OpKind::Malloc, 0, 0, index as u32, index, 0);
        writer.push(thread, op).unwrap();
        writer.time(thread, index * 7).unwrap();
        writer.order(thread, 1).unwrap();
    }
    let info = ScriptInfo {
        private_slots: 10_000,
        ..ScriptInfo::default()
    };
    writer.finish(info).unwrap();
}

#[test]
fn windows_show_what_the_whole_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hlscript");
    write_timed(&path);
    let whole = Script::open(&path).unwrap();
    let windowed = Script::open_windowed(&path).unwrap();
    assert!(whole.has_times() && windowed.stays(1) && !windowed.stays(0));
    for thread in 0..2 {
        for most in [1, 100, u64::MAX] {
            let mut cursor = windowed.cursor(thread, 1000 * 16);
            let (mut ops, mut times) = (Vec::new(), Vec::new());
            while cursor.left() > 0 {
                let part = cursor.next(most).unwrap();
                assert!(!part.ops.is_empty() && part.ops.len() as u64 <= most.min(1000));
                assert_eq!(part.ops.len(), part.times.len());
                ops.extend_from_slice(part.ops);
                times.extend_from_slice(part.times);
            }
            assert_eq!(ops, whole.thread(thread));
            assert!(
                times
                    .iter()
                    .zip(&ops)
                    .all(|(time, op)| *time == op.size() * 7)
            );
        }
    }
    let mut runs = windowed.runs();
    let mut read = Vec::new();
    while let Some(run) = runs.peek().unwrap() {
        read.push(run);
        runs.advance();
    }
    assert_eq!(read, whole.order());
}

#[test]
fn times_are_given_to_all_ops_and_never_run_backwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hlscript");
    let write = |times: &[u64]| {
        let mut writer = ScriptWriter::create(&path, 1).unwrap();
        writer.timed();
        for slot in 0..2 {
            let op = Op::new(OpKind::Malloc, 0, 0, slot, 10, 0);
            writer.push(0, op).unwrap();
        }
        for time in times {
            writer.time(0, *time).unwrap();
        }
        writer.order(0, 2).unwrap();
        let info = ScriptInfo {
            private_slots: 8,
            ..ScriptInfo::default()
        };
        writer.finish(info)
    };
    let error = write(&[1]).unwrap_err().to_string();
    assert!(error.contains("not every op of thread 0"), "{error}");
    write(&[2, 1]).unwrap();
    let error = Script::open(&path).err().unwrap().to_string();
    assert!(error.contains("run backwards"), "{error}");
}

#[test]
fn an_order_that_does_not_add_up_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hlscript");
    let mut writer = ScriptWriter::create(&path, 1).unwrap();
    writer
        .push(0, Op::new(OpKind::Malloc, 0, 0, 0, 10, 0))
        .unwrap();
    let error = writer
        .finish(ScriptInfo::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("thread 0 has 1 ops but the order counts 0"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = Script::open(&missing).err().unwrap().to_string();
    assert!(
        error.contains("missing") && error.starts_with("cannot open"),
        "{error}"
    );
    let other = folder.path().join("other");
    std::fs::write(&other, b"no script at all").unwrap();
    let error = Script::open(&other).err().unwrap().to_string();
    assert!(error.contains("16 bytes are too few"), "{error}");
    std::fs::write(&other, [0u8; 500]).unwrap();
    let error = Script::open(&other).err().unwrap().to_string();
    assert!(error.contains("does not begin with HLSCRIPT"), "{error}");
    std::fs::write(&other, b"").unwrap();
    assert!(Script::open(&other).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    /// A script that opens after damage is still sound: ops and order are within their bounds.
    #[test]
    fn damage_is_an_error_or_harmless(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hlscript");
        write_example(&path);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(script) = Script::open(&path) {
            let info = script.info();
            let slots = info.private_slots + info.shared_slots;
            for op in script.threads().flatten() {
                prop_assert!(op.kind().is_some());
                prop_assert!(!op.is_call() || op.slot < slots);
            }
            let ordered: u64 = script.order().iter().map(|run| u64::from(run.count)).sum();
            let ops: usize = script.threads().map(<[Op]>::len).sum();
            prop_assert_eq!(ordered, ops as u64);
        }
    }
}
