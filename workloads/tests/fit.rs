//! Models fitted to traces: they say what the trace did, and nothing else of the program.

use heaplab_workloads::model::definition::Lifetime;
use heaplab_workloads::trace::{
    EventKind, Trace, TraceEvent, TraceHeader, TraceSource, TraceWriter,
};
use heaplab_workloads::{Model, ModelParams, Workload, fit};
use std::path::Path;

fn builtin(name: &str) -> Workload {
    Workload::resolve(name).unwrap()
}

fn fitted(workload: &Workload) -> fit::Fitted {
    let Workload::Trace(trace) = workload else {
        panic!("not a trace");
    };
    fit::fit(&mut trace.source().unwrap(), "my-model", &mut |_, _| {}).unwrap()
}

/// The model of a recorded trace has its calls and its peak, is short, and says nothing of the program.
fn is_like(name: &str) -> (Workload, fit::Fitted) {
    let workload = builtin(name);
    let fitted = fitted(&workload);
    let info = workload.info().unwrap();
    let peak = fitted.model.peak(&ModelParams::default()).unwrap();
    let off = |mine: u64, theirs: u64| (mine as f64 / theirs as f64 - 1.0).abs();
    assert!(
        off(peak.calls, info.ops) < 0.02,
        "{name}: {} {}",
        peak.calls,
        info.ops
    );
    let live = off(peak.live_bytes, info.peak_live_bytes);
    assert!(
        live < 0.05,
        "{name}: {} {}",
        peak.live_bytes,
        info.peak_live_bytes
    );
    assert_eq!(fitted.model_peak, peak.live_bytes);
    let lines = fitted.text.lines().count();
    assert!(lines <= 300, "{name}: {lines}");
    for secret in ["z3", "nginx", "convert", "heaplab 0", "factors", "curl"] {
        assert!(!fitted.text.contains(secret), "{name}: {secret}");
    }
    (workload, fitted)
}

#[test]
// A few large blocks decide about its peak.
fn a_model_is_the_same_each_time_and_is_a_model() {
    let (workload, first) = is_like("imagemagick-stack");
    assert_eq!(fitted(&workload).text, first.text);
    assert!(Model::parse(&first.text, "again").is_ok());
}

#[test]
fn blocks_grow() {
    is_like("z3-factors");
}

#[test]
fn a_single_block_that_another_thread_frees_decides_about_the_peak() {
    is_like("fd-tree");
}

#[test]
fn blocks_go_to_other_threads() {
    is_like("ripgrep-json");
}

#[test]
fn roles_rest_in_some_parts() {
    is_like("nginx-pages");
}

#[test]
fn of_31_processes_the_one_that_a_replay_takes_is_fitted() {
    is_like("make-project");
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
    let mut source = TraceSource::new(&trace, 1.0, 0).unwrap();
    let fitted = fit::fit(&mut source, "pipe", &mut |_, _| {}).unwrap();
    let roles = &fitted.model.definition().roles;
    assert_eq!(
        roles.iter().map(|role| role.threads).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(fitted.text.contains("to = \"r1\" }"), "{}", fitted.text);
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

/// 2,000 blocks of 100 bytes stay alive; the place among them, by age, of the one that dies next is told by `which`.
fn deaths(path: &Path, which: impl Fn(u64, usize) -> usize) -> [f64; 6] {
    let mut writer = TraceWriter::create(path, &TraceHeader::default(), false, 1).unwrap();
    let mut alive = Vec::new();
    for index in 0..40_000u64 {
        let event = |kind, block| TraceEvent {
            thread: 0,
            tick: index,
            kind,
            block,
            size: 100,
            align_log2: 0,
            address: 0,
        };
        if alive.len() < 2000 {
            alive.push(writer.event(event(EventKind::Malloc, 0)).unwrap());
        } else {
            let block = alive.remove(which(index, alive.len()));
            writer.event(event(EventKind::Free, block)).unwrap();
        }
    }
    writer.finish(None, |_| {}).unwrap();
    let trace = Trace::open(path).unwrap();
    let mut source = TraceSource::new(&trace, 1.0, 0).unwrap();
    let fitted = fit::fit(&mut source, "deaths", &mut |_, _| {}).unwrap();
    let group = &fitted.model.definition().roles[0].groups[0];
    assert!(matches!(group.lifetime, Lifetime::Recency { .. }));
    assert_eq!(group.live, 2000);
    group.lifetime.recencies()
}

#[test]
fn which_of_the_living_dies_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.hltrace");
    let newest = deaths(&path, |_, count| count - 1);
    assert!(newest[0] > 99.0, "{newest:?}");
    let chance = |index: u64, count: usize| {
        (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % count
    };
    let recent = deaths(&path, |index, count| count - 1 - chance(index, 50));
    assert!(recent[1] > 50.0 && recent[5] < 2.0, "{recent:?}");
    // The oldest dies after the one before it: the same as the neighbour of the last.
    let oldest = deaths(&path, |_, _| 0);
    assert!(oldest[2] + oldest[4] > 99.0, "{oldest:?}");
    let anywhere = deaths(&path, chance);
    assert!(anywhere[5] > 90.0, "{anywhere:?}");
}
