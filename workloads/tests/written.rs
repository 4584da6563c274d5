//! How much of large blocks was written: told by the recorder, kept by the trace and everything made of it, given to the
//! replay with the allocation or resize it belongs to.

use heaplab_script::{OpKind, Script};
use heaplab_workloads::trace::raw::{RawEvent, RawKind, RawWriter};
use heaplab_workloads::trace::{
    CutOptions, EventKind, FinishInfo, ImportOptions, MergeOptions, MergeStart, ResolveOptions,
    ScaleOptions, Trace, TraceEvent, TraceHeader, cut, export_csv, import, merge, resolve_file,
    scale,
};
use heaplab_workloads::{Params, Workload};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// Block A (0x1000): 1 MiB, of which 4,096 bytes are written. Block B: 1 MiB, all written. Block C: 1 MiB, grown to 2 MiB
/// and 3 MiB; seen before the second growth (300,000 bytes) and at the end (400,000). Block D is small. Of block E nothing is
/// told. What is told of a block that nobody knows is left out.
fn recorded(folder: &Path) -> PathBuf {
    let event = |time_ns, kind, address, size| RawEvent {
        time_ns,
        address,
        size,
        kind,
        align_log2: 0,
    };
    let calls = [
        (RawKind::Malloc, 0x1000, MIB),
        (RawKind::Malloc, 0x2000, MIB),
        (RawKind::Calloc, 0x3000, MIB),
        (RawKind::Malloc, 0x4000, 100),
        (RawKind::Malloc, 0x5000, MIB),
        (RawKind::ReallocBegin, 0x3000, 0),
        (RawKind::ReallocEnd, 0x6000, 2 * MIB),
        (RawKind::Written, 0x6000, 300_000),
        (RawKind::ReallocBegin, 0x6000, 0),
        (RawKind::ReallocEnd, 0x7000, 3 * MIB),
        (RawKind::Written, 0x1000, 4096),
        (RawKind::Free, 0x1000, 0),
        (RawKind::Written, 0x2000, MIB),
        (RawKind::Free, 0x2000, 0),
        (RawKind::Written, 0x7000, 400_000),
        (RawKind::Free, 0x7000, 0),
        (RawKind::Free, 0x4000, 0),
        (RawKind::Free, 0x5000, 0),
        (RawKind::Written, 0x9000, 5),
    ];
    let events: Vec<RawEvent> = (0u64..)
        .zip(calls)
        .map(|(at, (kind, address, size))| event(1000 * at, kind, address, size))
        .collect();
    let (raw, out) = (folder.join("t.raw"), folder.join("t.hltrace"));
    let mut writer = RawWriter::create(&raw, &TraceHeader::default()).unwrap();
    writer.thread_start(0, 1, 0).unwrap();
    writer.events(0, &events).unwrap();
    writer.thread_end(0, 1_000_000).unwrap();
    writer.finish(FinishInfo::default()).unwrap();
    resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {}).unwrap();
    out
}

/// Bytes of each allocation and resize of a thread, and how many of them are written where that is not all.
fn births(path: &Path, thread: usize) -> Vec<(u64, Option<u64>)> {
    let workload = Workload::resolve(path.to_str().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = workload
        .compile(&Params::default(), folder.path(), &mut |_, _| {})
        .unwrap();
    let script = Script::open(&script.path).unwrap();
    let (mut births, mut told) = (Vec::new(), None);
    for op in script.thread(thread) {
        match op.kind() {
            Some(OpKind::Written) => told = Some(op.size()),
            Some(OpKind::Free) => assert_eq!(told, None, "a free behind what was told"),
            Some(_) if op.is_call() => births.push((op.size(), told.take())),
            _ => {}
        }
    }
    births
}

const BIRTHS: [(u64, Option<u64>); 7] = [
    (MIB, Some(4096)),
    (MIB, None),
    (MIB, Some(300_000)),
    (100, None),
    (MIB, None),
    (2 * MIB, Some(300_000)),
    (3 * MIB, Some(400_000)),
];

fn told(trace: &Trace) -> Vec<TraceEvent> {
    trace
        .events()
        .map(Result::unwrap)
        .filter(|event| event.kind == EventKind::Written)
        .collect()
}

#[test]
fn a_birth_carries_what_was_seen_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(folder.path());
    let trace = Trace::open(&path).unwrap();
    let summary = trace.verify(&mut |_, _| {}).unwrap();
    assert_eq!((summary.written_blocks, summary.foreign_frees), (4, 0));
    assert_eq!(summary.peak_live_bytes, 6 * MIB + 100);
    let sizes: Vec<u64> = told(&trace).iter().map(|event| event.size).collect();
    assert_eq!(sizes, [300_000, 4096, MIB, 400_000]);
    assert_eq!(births(&path, 0), BIRTHS);
}

#[test]
fn what_is_made_of_a_trace_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(folder.path());
    let trace = Trace::open(&path).unwrap();
    let to = |name: &str| folder.path().join(name);
    cut(
        &trace,
        &to("cut.hltrace"),
        &CutOptions::default(),
        &mut |_, _| {},
    )
    .unwrap();
    assert_eq!(births(&to("cut.hltrace"), 0), BIRTHS);
    let twice = ScaleOptions {
        copies: 2,
        ..ScaleOptions::default()
    };
    scale(&trace, &to("scaled.hltrace"), &twice, &mut |_, _| {}).unwrap();
    assert_eq!(births(&to("scaled.hltrace"), 0), BIRTHS);
    assert_eq!(births(&to("scaled.hltrace"), 1), BIRTHS);
    let options = MergeOptions {
        start: MergeStart::After,
        ..MergeOptions::default()
    };
    let merged = to("merged.hltrace");
    let both = [Trace::open(&path).unwrap(), Trace::open(&path).unwrap()];
    merge(&both, &merged, &options, &mut |_, _| {}).unwrap();
    assert_eq!(births(&merged, 0), BIRTHS);
    let mut table = Vec::new();
    export_csv(&trace, &mut table, &mut |_, _| {}).unwrap();
    std::fs::write(to("t.csv"), table).unwrap();
    let read = ImportOptions::default();
    import(&to("t.csv"), &to("back.hltrace"), &read, &mut |_, _| {}).unwrap();
    assert_eq!(births(&to("back.hltrace"), 0), BIRTHS);
}
