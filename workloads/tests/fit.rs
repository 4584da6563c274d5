//! Models fitted to traces: they say what the trace did, and nothing else of the program.

use heaplab_script::{Op, OpKind, Script};
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
        let event = |thread, kind, block, size| TraceEvent::new(thread, index, kind, block, size);
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
        let event = |kind, block| TraceEvent::new(0, index, kind, block, 100);
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

/// The model of a program of one thread that makes these calls: kind, size or number of the block that is freed, log2 of the alignment.
fn model_of(calls: &[(EventKind, u64, u8)]) -> fit::Fitted {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.hltrace");
    let mut writer = TraceWriter::create(&path, &TraceHeader::default(), false, 1).unwrap();
    let mut blocks = Vec::new();
    for (tick, &(kind, number, align_log2)) in (0..).zip(calls) {
        let frees = kind == EventKind::Free;
        let (block, size) = match frees {
            true => (blocks[number as usize], 0),
            false => (0, number),
        };
        let event = TraceEvent::new(0, tick, kind, block, size);
        let block = writer
            .event(TraceEvent {
                align_log2,
                ..event
            })
            .unwrap();
        if !frees {
            blocks.push(block);
        }
    }
    writer.finish(None, |_| {}).unwrap();
    let trace = Trace::open(&path).unwrap();
    let mut source = TraceSource::new(&trace, 1.0, 0).unwrap();
    fit::fit(&mut source, "calls", &mut |_, _| {}).unwrap()
}

/// The ops of the model's one thread.
fn ops(model: &Model) -> Vec<Op> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("s.hlscript");
    (model.compile(&ModelParams::default(), &out, &mut |_, _| {})).unwrap();
    Script::open(&out).unwrap().thread(0).to_vec()
}

fn share(ops: &[Op], kind: OpKind) -> f64 {
    let calls = ops.iter().filter(|op| op.kind <= OpKind::Free as u8);
    let of = ops.iter().filter(|op| op.kind() == Some(kind));
    of.count() as f64 / calls.count() as f64
}

/// Blocks of one size, of which those at certain places are zeroed or aligned: the model asks for them at the same places.
#[test]
fn blocks_are_asked_for_in_the_same_way_at_the_same_places() {
    let round = [
        (EventKind::Malloc, 0),
        (EventKind::Malloc, 0),
        (EventKind::Calloc, 0),
        (EventKind::Malloc, 0),
        (EventKind::AlignedAlloc, 6),
        // What malloc gives anyway, asked for by name.
        (EventKind::AlignedAlloc, 4),
    ];
    let calls: Vec<_> = (0..4000u64)
        .flat_map(|number| {
            let made = round.map(|(kind, align)| (kind, 100, align));
            let freed = (0..6).map(move |place| (EventKind::Free, number * 6 + place, 0));
            made.into_iter().chain(freed)
        })
        .collect();
    let fitted = model_of(&calls);
    let (trace, model) = fitted.surprise;
    assert!(trace.0 < 0.01 && model.0 < 0.03, "{trace:?} {model:?}");
    let ops = ops(&fitted.model);
    let cleared = share(&ops, OpKind::Calloc) * 12.0;
    let aligned = share(&ops, OpKind::AlignedAlloc) * 12.0;
    assert!((0.9..1.1).contains(&cleared), "{cleared}");
    assert!((1.8..2.2).contains(&aligned), "{aligned}");
}

/// Large blocks of one size: some 40 are kept and written whole, at places too rare for a phrase; of many others that come and go only a
/// tenth is written. What is alive in the model is written whole as well.
#[test]
fn what_is_kept_is_written_as_far_as_in_the_trace() {
    const SIZE: u64 = 64 << 10;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.hltrace");
    let mut writer = TraceWriter::create(&path, &TraceHeader::default(), false, 1).unwrap();
    let mut tick = 0;
    let mut event = |kind, block, size| {
        tick += 1;
        writer
            .event(TraceEvent::new(0, tick, kind, block, size))
            .unwrap()
    };
    let mut word = 1u64;
    for number in 0..30_000 {
        let small = event(EventKind::Malloc, 0, 100);
        event(EventKind::Free, small, 0);
        // Knuth's generator for 64 bits.
        word = word.wrapping_mul(6_364_136_223_846_793_005);
        word = word.wrapping_add(1_442_695_040_888_963_407);
        if word >> 33 < (1 << 31) / 750 {
            event(EventKind::Malloc, 0, SIZE);
        }
        if number % 30 == 0 {
            let block = event(EventKind::Malloc, 0, SIZE);
            event(EventKind::Written, block, SIZE / 10);
            event(EventKind::Free, block, 0);
        }
    }
    writer.finish(None, |_| {}).unwrap();
    let trace = Trace::open(&path).unwrap();
    let mut source = TraceSource::new(&trace, 1.0, 0).unwrap();
    let fitted = fit::fit(&mut source, "kept", &mut |_, _| {}).unwrap();
    // Bytes of each block that are written, by slot.
    let (mut blocks, mut told) = (std::collections::HashMap::new(), None);
    for op in ops(&fitted.model) {
        match op.kind() {
            Some(OpKind::Written) => told = Some(op.size()),
            Some(OpKind::Free) => {
                blocks.remove(&op.slot);
            }
            _ => {
                blocks.insert(op.slot, (op.size(), told.take().unwrap_or(op.size())));
            }
        }
    }
    let large: Vec<u64> = (blocks.values().filter(|(size, _)| *size > SIZE / 2))
        .map(|(_, written)| *written)
        .collect();
    assert!((15..60).contains(&large.len()), "{}", large.len());
    let share = large.iter().sum::<u64>() as f64 / (large.len() as u64 * SIZE) as f64;
    // All of them, but for some that stay although a phrase said them as one of those that go; if all were written as an average
    // allocation is, it would be 0.14.
    assert!(share > 0.7, "{share}");
}

/// Blocks that a program keeps and frees at its end are freed by the model.
#[test]
fn what_is_freed_at_the_end_is_freed() {
    let kept = 8000u64;
    let made = (0..kept).map(|number| (EventKind::Malloc, 20 + number % 3 * 40, 0));
    let freed = (0..kept).map(|number| (EventKind::Free, number, 0));
    let calls: Vec<_> = made.chain(freed).collect();
    let fitted = model_of(&calls);
    let freed = share(&ops(&fitted.model), OpKind::Free);
    assert!((0.48..0.51).contains(&freed), "{freed}");
}

/// Standard deviation of the number of blocks alive; each call adds one or takes one away.
fn wandering(rises: impl Iterator<Item = bool>) -> f64 {
    let (mut level, mut levels) = (0.0, Vec::new());
    for rises in rises {
        level += if rises { 1.0 } else { -1.0 };
        levels.push(level);
    }
    let mean = levels.iter().sum::<f64>() / levels.len() as f64;
    let squares = levels.iter().map(|level| (level - mean).powi(2));
    (squares.sum::<f64>() / levels.len() as f64).sqrt()
}

/// Between the parts' peaks a live set rises and falls by up to 40 blocks, a few at a time: so does the model's.
#[test]
fn live_sets_go_up_and_down_as_far() {
    let mut calls = Vec::new();
    let (mut alive, mut number, mut word) = (Vec::new(), 0u64, 1u64);
    while calls.len() < 60_000 {
        // Knuth's generator for 64 bits.
        word = word.wrapping_mul(6_364_136_223_846_793_005);
        word = word.wrapping_add(1_442_695_040_888_963_407);
        let rises = alive.len() < 40 && word >> 63 == 0;
        for _ in 0..=word >> 40 & 7 {
            if rises {
                calls.push((EventKind::Malloc, 100, 0));
                alive.push(number);
                number += 1;
            } else if let Some(block) = alive.pop() {
                calls.push((EventKind::Free, block, 0));
            }
        }
    }
    let program = wandering(calls.iter().map(|call| call.0 == EventKind::Malloc));
    let ops = ops(&model_of(&calls).model);
    let model = wandering(ops.iter().map(|op| op.kind() == Some(OpKind::Malloc)));
    assert!((0.6..1.5).contains(&(model / program)), "{program} {model}");
}

/// What is larger than anything that the language has is as large as can be there, also where a phrase names it, and that is said.
#[test]
fn blocks_that_no_model_can_have_are_the_largest_there_is() {
    const GIB: u64 = 1 << 30;
    let rounds = (0..400u64).flat_map(|number| {
        let at = 3 * number;
        [
            (EventKind::Malloc, 2 * GIB, 0),
            (EventKind::Malloc, 5 * GIB, 0),
            (EventKind::Malloc, 64, 0),
            (EventKind::Free, at, 0),
            (EventKind::Free, at + 1, 0),
            (EventKind::Free, at + 2, 0),
        ]
    });
    let fitted = model_of(&rounds.collect::<Vec<_>>());
    let sizes = ops(&fitted.model)
        .into_iter()
        .filter(|op| op.kind() == Some(OpKind::Malloc));
    let largest = sizes.map(|op| op.size()).max();
    assert_eq!(largest, Some(GIB), "{}", fitted.text);
    let [said] = &fitted.left_out[..] else {
        panic!("{:?}", fitted.left_out);
    };
    assert!(
        said.contains("what 800 blocks had beyond") && said.contains("5368709120 the largest"),
        "{said}"
    );
}

/// Many threads that do the same are one role, however little each of them does.
#[test]
fn threads_with_little_to_do_each_are_not_forgotten() {
    const THREADS: u32 = 250;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.hltrace");
    let mut writer = TraceWriter::create(&path, &TraceHeader::default(), false, 1).unwrap();
    for tick in 0..4 * u64::from(THREADS) {
        let event =
            |kind, block, size| TraceEvent::new(tick as u32 % THREADS, tick, kind, block, size);
        let block = writer.event(event(EventKind::Malloc, 0, 64)).unwrap();
        writer.event(event(EventKind::Free, block, 0)).unwrap();
    }
    writer.finish(None, |_| {}).unwrap();
    let trace = Trace::open(&path).unwrap();
    let mut source = TraceSource::new(&trace, 1.0, 0).unwrap();
    let fitted = fit::fit(&mut source, "many", &mut |_, _| {}).unwrap();
    let roles = &fitted.model.definition().roles;
    let threads: Vec<u32> = roles.iter().map(|role| role.threads).collect();
    assert_eq!(threads, [THREADS]);
    assert!(fitted.left_out.is_empty(), "{:?}", fitted.left_out);
}
