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
/// told. What is told of a block that nobody knows is left out. Block F has 1 KiB and is never written to.
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
        (RawKind::Malloc, 0x8000, 1024),
        (RawKind::Written, 0x8000, 0),
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

const BIRTHS: [(u64, Option<u64>); 8] = [
    (MIB, Some(4096)),
    (MIB, None),
    (MIB, Some(300_000)),
    (100, None),
    (MIB, None),
    (2 * MIB, Some(300_000)),
    (3 * MIB, Some(400_000)),
    (1024, Some(0)),
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
    assert_eq!((summary.written_blocks, summary.foreign_frees), (5, 0));
    assert_eq!(summary.peak_live_bytes, 6 * MIB + 100);
    let sizes: Vec<u64> = told(&trace).iter().map(|event| event.size).collect();
    assert_eq!(sizes, [300_000, 4096, MIB, 400_000, 0]);
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

/// With times, a block that grows is written as time goes on: until it grows again, the last part at the same pace, but no
/// later than its end; one that does not grow is written at once, and so is everything where times are not told.
#[test]
fn what_grows_is_written_as_time_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut at = 0;
    let mut event = |after_ns, kind, address, size| {
        at += after_ns;
        RawEvent {
            time_ns: at,
            address,
            size,
            kind,
            align_log2: 0,
        }
    };
    let events = [
        event(0, RawKind::Malloc, 0x1000, MIB),
        // Does not grow.
        event(0, RawKind::Malloc, 0x9000, 8 * MIB),
        event(5_000_000, RawKind::ReallocBegin, 0x1000, 0),
        event(0, RawKind::ReallocEnd, 0x2000, 2 * MIB),
        // 1 MiB in 4 ms.
        event(4_000_000, RawKind::ReallocBegin, 0x2000, 0),
        event(0, RawKind::ReallocEnd, 0x3000, 4 * MIB),
        // 2 MiB would take 8 ms, and of the block 3 MiB are written.
        event(20_000_000, RawKind::Written, 0x3000, 3 * MIB),
        event(0, RawKind::Free, 0x3000, 0),
        event(0, RawKind::Malloc, 0x4000, MIB),
        event(1_000_000, RawKind::ReallocBegin, 0x4000, 0),
        event(0, RawKind::ReallocEnd, 0x5000, 2 * MIB),
        event(2_000_000, RawKind::ReallocBegin, 0x5000, 0),
        event(0, RawKind::ReallocEnd, 0x6000, 3 * MIB),
        // It ends before its last part can be written at that pace.
        event(1_000_000, RawKind::Free, 0x6000, 0),
    ];
    let (raw, out) = (folder.path().join("t.raw"), folder.path().join("t.hltrace"));
    let mut writer = RawWriter::create(&raw, &TraceHeader::default()).unwrap();
    writer.thread_start(0, 1, 0).unwrap();
    writer.events(0, &events).unwrap();
    writer.thread_end(0, at).unwrap();
    writer.finish(FinishInfo::default()).unwrap();
    resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {}).unwrap();
    let fills = |times: bool| -> Vec<(u64, Option<(u64, u64)>)> {
        let workload = Workload::resolve(out.to_str().unwrap()).unwrap();
        let params = Params {
            times,
            ..Params::default()
        };
        let script = workload
            .compile(&params, folder.path(), &mut |_, _| {})
            .unwrap();
        let script = Script::open(&script.path).unwrap();
        let told = script
            .thread(0)
            .iter()
            .filter(|op| op.kind() == Some(OpKind::Written));
        told.map(|op| {
            let filled = op.filled_in();
            // In KiB: the share has 16 bits.
            let at_once = |share: f64| (op.size() as f64 * share / 1024.0).round() as u64;
            (op.size(), filled.map(|(ns, share)| (ns, at_once(share))))
        })
        .collect()
    };
    let expected = [
        (2 * MIB, Some((4_000_000, 1024))),
        (3 * MIB, Some((8_000_000, 2048))),
        (2 * MIB, Some((2_000_000, 1024))),
        (3 * MIB, Some((1_000_000, 2048))),
    ];
    assert_eq!(fills(true), expected);
    // 3 MiB of the 4 belong to both births that the sight stands behind, of which the first has no more than 2.
    assert_eq!(fills(false), [(3 * MIB, None)]);
}
