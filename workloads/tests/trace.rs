//! Traces: what was recorded is what is read, replayed and verified; what is damaged is an error that says where.

mod common;
#[path = "common/streams.rs"]
mod streams;

use common::{follow_order, interpret};
use heaplab_script::Script;
use heaplab_workloads::trace::raw::{RawKind, RawWriter};
use heaplab_workloads::trace::{FinishInfo, ResolveOptions, Trace, export_csv, resolve_file};
use heaplab_workloads::{Params, Workload};
use std::path::Path;
use streams::{event, header, long_streams, record};

#[test]
fn segments_statistics_and_the_script_agree() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, summary) = record(folder.path(), &long_streams(300_000), 5_000);
    assert!(trace.segments().len() >= 3);
    assert_eq!(trace.verify(&mut |_, _| {}).unwrap(), summary);
    let stats = trace.stats(&mut |_, _| {}).unwrap();
    assert_eq!(
        (stats.allocations, stats.frees),
        (summary.allocations, summary.frees)
    );
    assert_eq!(
        stats.sizes.iter().map(|bucket| bucket.count).sum::<u64>(),
        summary.allocations
    );
    assert_eq!(
        stats
            .lifetimes_ns
            .iter()
            .map(|bucket| bucket.count)
            .sum::<u64>(),
        summary.frees
    );
    assert_eq!(stats.threads, 3);
    assert!(stats.live_curve.len() > 256);
    assert_eq!(
        stats.live_curve.last().unwrap().live_bytes,
        summary.end_live_bytes
    );
    assert!(
        (40_000_000..60_000_000).contains(&stats.idle_ns),
        "{}",
        stats.idle_ns
    );
    let bytes = std::fs::metadata(folder.path().join("t.hltrace"))
        .unwrap()
        .len();
    assert!(
        bytes < 300_000 * 4,
        "{bytes} bytes for 300000 random events"
    );

    let path = folder.path().join("t.hltrace");
    let workload = Workload::resolve(path.to_str().unwrap()).unwrap();
    let script = workload
        .compile(&Params::default(), folder.path(), &mut |_, _| {})
        .unwrap();
    let compiled = Script::open(&script.path).unwrap();
    follow_order(&compiled);
    interpret(&compiled, |count| count / 2);
    assert_eq!(script.info.calls, summary.allocations + summary.frees);
    assert_eq!(
        script.info.idle_ns + script.info.idle_dropped_ns,
        summary.idle_ns
    );
    let short = Params {
        idle_budget_ns: 10_000_000,
        scale: 0.75,
        ..Params::default()
    };
    let short = workload
        .compile(&short, folder.path(), &mut |_, _| {})
        .unwrap();
    assert!(
        (9_000_000..=10_000_000).contains(&short.info.idle_ns),
        "{:?}",
        short.info
    );
    assert_eq!(short.info.calls, 225_000);
    let error = workload
        .compile(
            &Params {
                threads: Some(8),
                ..Params::default()
            },
            folder.path(),
            &mut |_, _| {},
        )
        .unwrap_err()
        .to_string();
    assert!(error.contains("3 recorded threads"), "{error}");
}

#[test]
fn threads_end_where_they_ended_and_times_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, out) = (folder.path().join("t.raw"), folder.path().join("t.hltrace"));
    let mut writer = RawWriter::create(&raw, &header()).unwrap();
    let malloc = |time, address| event(time, RawKind::Malloc, address, 16);
    for (thread, events, end) in [
        (
            0,
            [
                malloc(0, 0x1000),
                malloc(4_000, 0x2000),
                malloc(9_000, 0x3000),
            ]
            .to_vec(),
            None,
        ),
        (
            1,
            [malloc(1_000, 0x4000), malloc(2_000, 0x5000)].to_vec(),
            Some(6_000),
        ),
        (2, [malloc(3_000, 0x6000)].to_vec(), Some(20_000)),
        (3, [malloc(5_000, 0x7000)].to_vec(), None),
    ] {
        writer.thread_start(thread, 1000 + thread, 0).unwrap();
        writer.events(thread, &events).unwrap();
        if let Some(end) = end {
            writer.thread_end(thread, end).unwrap();
        }
    }
    writer.finish(FinishInfo::default()).unwrap();
    resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {}).unwrap();
    let workload = Workload::resolve(out.to_str().unwrap()).unwrap();
    let compile = |times| {
        let params = Params {
            times,
            ..Params::default()
        };
        let compiled = workload.compile(&params, folder.path(), &mut |_, _| {});
        Script::open(&compiled.unwrap().path).unwrap()
    };
    let script = compile(false);
    follow_order(&script);
    let mut at = [0; 4];
    let mut told = Vec::new();
    for run in script.order() {
        for _ in 0..run.count {
            let thread = run.thread as usize;
            told.push((
                run.thread,
                script.thread(thread)[at[thread]].kind().unwrap(),
            ));
            at[thread] += 1;
        }
    }
    use heaplab_script::OpKind::{Malloc, ThreadEnd, ThreadStart};
    let starts = |thread| (thread, ThreadStart);
    assert_eq!(
        told,
        [
            (0, Malloc),
            starts(0),
            (1, Malloc),
            (1, Malloc),
            starts(1),
            (2, Malloc),
            (0, Malloc),
            starts(0),
            (3, Malloc),
            (1, ThreadEnd),
            (0, Malloc),
            (2, ThreadEnd),
        ]
    );
    assert!(script.stays(3) && !script.stays(1) && !script.stays(2));
    assert!(!script.has_times());
    let timed = compile(true);
    let mut cursor = timed.cursor(0, 1 << 20);
    assert_eq!(cursor.next(u64::MAX).unwrap().times.last(), Some(&9_000));
}

#[test]
fn the_table_has_a_line_for_each_event() {
    let folder = tempfile::tempdir().unwrap();
    let streams = [vec![
        event(100, RawKind::Malloc, 0x1000, 10),
        event(200, RawKind::Free, 0x1000, 0),
        event(300, RawKind::Malloc, 0x1000, 20),
    ]];
    let (trace, _) = record(folder.path(), &streams, 10);
    let mut out = Vec::new();
    export_csv(&trace, &mut out, &mut |_, _| {}).unwrap();
    let expected = "event,time_ns,thread,call,block,size,alignment\n\
                    0,100,0,malloc,1,10,0\n1,200,0,free,1,10,0\n2,300,0,malloc,2,20,0\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn cut_off_files_are_read_as_far_as_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, summary) = record(folder.path(), &long_streams(300_000), 5_000);
    drop(trace);
    for name in ["t.raw", "t.hltrace"] {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        let part = folder.path().join("part.hltrace");
        std::fs::write(&part, &bytes[..bytes.len() * 3 / 4]).unwrap();
        let trace = Trace::open(&part).unwrap();
        let found = trace.verify(&mut |_, _| {}).unwrap();
        assert!(
            !found.complete && !found.missing.is_empty(),
            "{name}: {found:?}"
        );
        assert!(
            found.events > summary.events / 4 && found.events < summary.events,
            "{name}"
        );
        let workload = Workload::resolve(part.to_str().unwrap()).unwrap();
        workload
            .compile(&Params::default(), folder.path(), &mut |_, _| {})
            .unwrap();
    }
    // A recording without its end is complete but for that.
    let bytes = std::fs::read(folder.path().join("t.raw")).unwrap();
    let part = folder.path().join("part.hltrace");
    std::fs::write(&part, &bytes).unwrap();
    assert_eq!(Trace::open(&part).unwrap().summary().events, summary.events);
}

#[test]
fn errors_say_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.hltrace");
    let error = |path: &Path| Trace::open(path).unwrap_err().to_string();
    assert!(error(&path).starts_with("cannot open"), "{}", error(&path));
    std::fs::write(&path, b"hello").unwrap();
    assert!(
        error(&path).contains("is not a heaplab trace"),
        "{}",
        error(&path)
    );
    std::fs::write(&path, [0u8; 100]).unwrap();
    assert!(
        error(&path).contains("first bytes are not HLTRACE"),
        "{}",
        error(&path)
    );
    let (_, _) = record(folder.path(), &long_streams(2_000), 500);
    let good = std::fs::read(folder.path().join("t.hltrace")).unwrap();
    let mut newer = good.clone();
    newer[8] = 9;
    std::fs::write(&path, &newer).unwrap();
    assert!(
        error(&path).contains("format version 9"),
        "{}",
        error(&path)
    );
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    let outcome = Trace::open(&path).and_then(|trace| trace.verify(&mut |_, _| {}));
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("is damaged at byte"), "{text}");
}
