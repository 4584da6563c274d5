//! Models fitted to traces: they say what the trace did, and nothing else of the program.

use heaplab_workloads::trace::{EventKind, Trace, TraceEvent, TraceHeader, TraceWriter};
use heaplab_workloads::{Model, ModelParams, Workload, fit};
use std::path::Path;

fn builtin(name: &str) -> Workload {
    Workload::resolve(name).unwrap()
}

fn fitted(workload: &Workload) -> fit::Fitted {
    let Workload::Trace(trace) = workload else {
        panic!("not a trace");
    };
    fit::fit(trace.trace(), "my-model", &mut |_, _| {}).unwrap()
}

#[test]
fn models_of_recorded_traces_have_their_calls_and_their_peak() {
    // A few large blocks decide about the peak of the second.
    for (name, near) in [
        ("z3-factors", 0.15),
        ("imagemagick-stack", 0.35),
        // Blocks go through queues, and roles rest in some phases.
        ("ripgrep-json", 0.25),
    ] {
        let workload = builtin(name);
        let fitted = fitted(&workload);
        let info = workload.info().unwrap();
        let peak = fitted.model.peak(&ModelParams::default()).unwrap();
        let off = |mine: u64, theirs: u64| (mine as f64 / theirs as f64 - 1.0).abs();
        assert!(
            off(peak.calls, info.ops) < 0.10,
            "{name}: {} {}",
            peak.calls,
            info.ops
        );
        let live = off(peak.live_bytes, info.peak_live_bytes);
        assert!(
            live < near,
            "{name}: {} {}",
            peak.live_bytes,
            info.peak_live_bytes
        );
        assert_eq!(fitted.model_peak, peak.live_bytes);
        // The same text each time, and one that the language takes.
        let again = fit::fit(
            match &workload {
                Workload::Trace(trace) => trace.trace(),
                _ => unreachable!(),
            },
            "my-model",
            &mut |_, _| {},
        );
        assert_eq!(again.unwrap().text, fitted.text);
        assert!(Model::parse(&fitted.text, "again").is_ok());
        for secret in ["z3", "nginx", "convert", "heaplab 0", "factors", "curl"] {
            assert!(!fitted.text.contains(secret), "{name}: {secret}");
        }
    }
}

/// A producer and two consumers: what is handed over is in the model.
fn pipeline(path: &Path) -> Trace {
    let mut writer = TraceWriter::create(path, &TraceHeader::default(), false, 1).unwrap();
    let mut waiting = std::collections::VecDeque::new();
    for index in 0..60_000u64 {
        let event = |thread, kind, block, size| TraceEvent {
            thread,
            tick: index,
            kind,
            block,
            size,
            align_log2: 0,
            address: 0,
        };
        if waiting.len() < 100 || index % 2 == 0 {
            let size = if index % 4 == 0 { 40 } else { 500 };
            waiting.push_back(writer.event(event(0, EventKind::Malloc, 0, size)).unwrap());
        } else {
            let block = waiting.pop_front().unwrap();
            let thread = 1 + (index / 2 % 2) as u32;
            writer
                .event(event(thread, EventKind::Free, block, 0))
                .unwrap();
        }
    }
    writer.finish(None, |_| {}).unwrap();
    Trace::open(path).unwrap()
}

#[test]
fn hand_over_between_threads_is_fitted() {
    let folder = tempfile::tempdir().unwrap();
    let trace = pipeline(&folder.path().join("p.hltrace"));
    let fitted = fit::fit(&trace, "pipe", &mut |_, _| {}).unwrap();
    let roles = &fitted.model.definition().roles;
    assert_eq!(
        roles.iter().map(|role| role.threads).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(
        fitted.text.contains("kind = \"queue\", to = \"r1\""),
        "{}",
        fitted.text
    );
    let peak = fitted.model.peak(&ModelParams::default()).unwrap();
    assert!(peak.calls > 50_000, "{peak:?}");
    let script = fitted
        .model
        .compile(
            &ModelParams::default(),
            &folder.path().join("s.hlscript"),
            &mut |_, _| {},
        )
        .unwrap();
    assert!(script.shared_slots > 50, "{script:?}");
}
