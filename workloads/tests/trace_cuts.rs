//! A part of a trace is a trace: it replays, and the live bytes at its ends are the whole's.

#[path = "common/streams.rs"]
mod streams;

use heaplab_workloads::trace::{CutOptions, EventKind, Trace, cut};
use streams::{all, long_streams, record};

#[test]
fn cuts_replay_and_keep_the_live_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, summary) = record(folder.path(), &long_streams(200_000), 5_000);
    let part = folder.path().join("part.hltrace");
    let options = CutOptions {
        from_event: Some(50_000),
        to_event: Some(150_000),
        ..CutOptions::default()
    };
    cut(&trace, &part, &options, &mut |_, _| {}).unwrap();
    let cut_trace = Trace::open(&part).unwrap();
    let cut_summary = cut_trace.verify(&mut |_, _| {}).unwrap();
    let mut live_at = (0i64, 0i64);
    for (index, event) in all(&trace).iter().enumerate() {
        let change = match event.kind {
            EventKind::Malloc => event.size as i64,
            _ => -(event.size as i64),
        };
        if index < 50_000 {
            live_at.0 += change;
        }
        if index < 150_000 {
            live_at.1 += change;
        }
    }
    assert_eq!(cut_summary.end_live_bytes as i64, live_at.1);
    let prelude = cut_summary.events - 100_000;
    let first: u64 = all(&cut_trace)
        .iter()
        .take(prelude as usize)
        .map(|event| event.size)
        .sum();
    assert_eq!(first as i64, live_at.0);
    assert!(cut_summary.complete && summary.complete);

    let by_time = CutOptions {
        from_ns: Some(1_000_000),
        to_ns: Some(2_000_000),
        ..CutOptions::default()
    };
    cut(&trace, &part, &by_time, &mut |_, _| {}).unwrap();
    Trace::open(&part).unwrap().verify(&mut |_, _| {}).unwrap();
    let empty = CutOptions {
        from_event: Some(1 << 40),
        ..CutOptions::default()
    };
    let nothing = folder.path().join("nothing.hltrace");
    let error = cut(&trace, &nothing, &empty, &mut |_, _| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("the part is empty"), "{error}");
    assert!(!nothing.exists());
    // A thread that is silent there: its bounds are not what is wrong.
    let other = u32::from(all(&trace)[0].thread == 0);
    let silent = CutOptions {
        to_event: Some(1),
        threads: vec![other],
        ..CutOptions::default()
    };
    let error = cut(&trace, &nothing, &silent, &mut |_, _| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("thread {other} allocates nothing")),
        "{error}"
    );
    assert!(!nothing.exists());
}
