//! Stacks in traces that are made from traces: each allocation keeps its own, with modules and names.

use heaplab_workloads::trace::stacks::{Frame, Module, StackTableBuilder, Symbol};
use heaplab_workloads::trace::{
    CutOptions, EventKind, MergeOptions, ScaleOptions, StackMode, Trace, TraceEvent, TraceHeader,
    TraceWriter, cut, merge, scale,
};
use std::path::Path;

/// `count` blocks of rising size, each by the stack main → one of five functions of `program`; every third is freed at once.
fn sample(path: &Path, program: &str, mode: StackMode, count: u64) -> Trace {
    let mut writer = TraceWriter::create(path, &TraceHeader::default(), false, 1).expect("a file");
    let mut builder = StackTableBuilder::default();
    builder.table.mode = mode;
    let module = builder.module(&Module {
        path: format!("/bin/{program}"),
        build_id: format!("id-{program}"),
    });
    let frame = |address| Frame {
        module: Some(module),
        address,
    };
    let stacks: Vec<u32> = (1..=5)
        .map(|one| builder.stack([frame(0), frame(one)].into_iter()))
        .collect();
    let name = |address: u64| Symbol {
        function: format!("{program}_{address}"),
        file: format!("{program}.c"),
        line: address as u32 + 1,
    };
    let frames = builder.table.frames.iter();
    builder.table.symbols = Some(frames.map(|frame| vec![name(frame.address)]).collect());
    writer.stacks(&builder.table).expect("written");
    for index in 0..count {
        let event = TraceEvent::new(0, index * 10, EventKind::Malloc, 0, index + 1);
        let block = writer
            .event_on(event, stacks[index as usize % 5])
            .expect("an event");
        if index % 3 == 0 {
            let kind = EventKind::Free;
            writer
                .event(TraceEvent {
                    kind,
                    block,
                    size: 0,
                    ..event
                })
                .expect("an event");
        }
    }
    writer.finish(None, |_| {}).expect("finished");
    Trace::open(path).expect("a trace")
}

/// Size and names, innermost first, of each allocation.
fn told(trace: &Trace) -> Vec<(u64, Vec<String>)> {
    let table = trace.stacks().expect("stacks");
    let symbols = table.symbols.as_ref().expect("names");
    let mut all = Vec::new();
    let seen = |event: &TraceEvent, _: &_, _, stack| {
        if event.kind == EventKind::Malloc {
            let frames = table.frames_of(stack).map(|frame| {
                let module = table.frames[frame as usize].module.expect("a module");
                let name = &symbols[frame as usize][0];
                let id = &table.modules[module as usize].build_id;
                format!("{}:{} {id}", name.function, name.line)
            });
            all.push((event.size, frames.collect()));
        }
    };
    trace
        .events_with_stacks(seen, &mut |_, _| {})
        .expect("read");
    all
}

fn expected(program: &str, size: u64) -> (u64, Vec<String>) {
    let function = (size - 1) % 5 + 1;
    let of = |at: u64| format!("{program}_{at}:{} id-{program}", at + 1);
    (size, vec![of(function), of(0)])
}

#[test]
fn copies_keep_their_stacks() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let one = sample(&at("a.hltrace"), "one", StackMode::Full, 300);
    let two = sample(&at("b.hltrace"), "two", StackMode::Full, 200);
    let out = at("out.hltrace");
    let quiet = &mut |_: u64, _: u64| {};

    // From event 200 of 400 on: what is alive there keeps its stack, too.
    let options = CutOptions {
        from_event: Some(200),
        ..CutOptions::default()
    };
    cut(&one, &out, &options, quiet).expect("a part");
    let part = told(&Trace::open(&out).expect("a trace"));
    let alive = (1..=150).filter(|size| size % 3 != 1).chain(151..=300);
    assert_eq!(
        part,
        Vec::from_iter(alive.map(|size| expected("one", size)))
    );

    // A part of five allocations has five functions, main, and no more.
    let options = CutOptions {
        to_event: Some(2),
        ..CutOptions::default()
    };
    cut(&one, &out, &options, quiet).expect("a part");
    let small = Trace::open(&out).expect("a trace");
    assert_eq!(small.stacks().expect("stacks").frames.len(), 2);

    merge(&[one, two], &out, &MergeOptions::default(), quiet).expect("one trace");
    let merged = Trace::open(&out).expect("a trace");
    merged.verify(quiet).expect("every rule holds");
    let mut all = told(&merged);
    all.sort();
    let mut both: Vec<_> = (1..=300).map(|size| expected("one", size)).collect();
    both.extend((1..=200).map(|size| expected("two", size)));
    both.sort();
    assert_eq!(all, both);

    let options = ScaleOptions {
        copies: 2,
        ..ScaleOptions::default()
    };
    scale(&merged, &at("twice.hltrace"), &options, quiet).expect("scaled");
    let mut twice = told(&Trace::open(&at("twice.hltrace")).expect("a trace"));
    twice.sort();
    assert_eq!(
        twice,
        Vec::from_iter(all.into_iter().flat_map(|one| [one.clone(), one]))
    );
}

/// Full stacks merged with sampled ones are thinned, so that one estimate holds for all.
#[test]
fn merged_samples_are_alike() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let full = sample(&at("a.hltrace"), "one", StackMode::Full, 3000);
    let period = 2000;
    let mode = StackMode::Sampled { period };
    let few = sample(&at("b.hltrace"), "two", mode, 1);
    let out = at("out.hltrace");
    merge(&[full, few], &out, &MergeOptions::default(), &mut |_, _| {}).expect("one trace");
    let merged = Trace::open(&out).expect("a trace");
    assert_eq!(merged.stacks().expect("stacks").mode, mode);
    let sampled = told(&merged);
    let kept = sampled
        .iter()
        .filter(|(_, stack)| !stack.is_empty())
        .count() as f64;
    let chances = (1..=3000).map(|size| 1.0 - (-f64::from(size) / f64::from(period)).exp());
    let wanted = chances.sum::<f64>() + 1.0;
    assert!((kept - wanted).abs() < 120.0, "{kept} of {wanted}");
}
