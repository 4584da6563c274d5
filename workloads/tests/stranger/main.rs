//! A reader that was written from `docs/TRACE_FORMAT.md` alone: whoever writes another one finds there all that it takes.
//!
//! It shares no code with the library. What it reads in each fixture is what the library reads.

mod chunks;
mod last;
mod raw;
#[path = "../common/xxh64.rs"]
mod xxh64;

use heaplab_workloads::trace::stacks::Symbol;
use heaplab_workloads::trace::{EventKind, Trace, TraceEvent, TraceHeader, TraceWriter};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn plain(event: &TraceEvent) -> last::Event {
    last::Event {
        thread: event.thread,
        tick: event.tick,
        kind: event.kind as u8,
        block: event.block,
        size: event.size,
        align_log2: event.align_log2,
    }
}

/// Each segment's place and extent, as INDEX and the chunks themselves have it.
fn the_index_says_where_segments_are(chunks: &[chunks::Chunk]) {
    let index = chunks.iter().find(|chunk| chunk.kind == 35).unwrap();
    let mut listed = Vec::new();
    for entry in index.body.chunks(48) {
        let mut words = chunks::Bytes(entry);
        listed.push((words.number(8) as usize, words.number(8), words.number(8)));
    }
    let segments = chunks.iter().filter(|chunk| chunk.kind == 33);
    let found: Vec<_> = segments
        .map(|chunk| {
            let mut meta = chunks::Bytes(&chunk.meta);
            (chunk.offset, meta.number(8), meta.number(4))
        })
        .collect();
    assert_eq!(listed, found);
}

/// FORK has an entry for each inherited block that the process touched.
fn forks_say_where_blocks_are_from(chunks: &[chunks::Chunk], read: &last::Read) {
    let mut entries = 0;
    for chunk in chunks.iter().filter(|chunk| chunk.kind == 8) {
        let mut body = chunks::Bytes(&chunk.body);
        while !body.0.is_empty() {
            let (up, _number) = (body.varint(), body.varint());
            assert!(up <= 1, "the fixture has one fork");
            entries += 1;
        }
    }
    let inherited = read.events.iter().filter(|event| event.kind == 17);
    assert_eq!(entries, inherited.count());
}

/// Function, file and line of the calls of each frame, by SYMBOLS.
fn names_of(chunks: &[chunks::Chunk]) -> Vec<Vec<(String, String, u32)>> {
    let mut names = Vec::new();
    for chunk in chunks.iter().filter(|chunk| chunk.kind == 52) {
        let json: serde_json::Value = serde_json::from_slice(&chunk.body).unwrap();
        assert_eq!(json["first"], names.len());
        let string = |index: &serde_json::Value| {
            json["strings"][index.as_u64().unwrap() as usize]
                .as_str()
                .unwrap()
                .to_owned()
        };
        for frame in json["frames"].as_array().unwrap() {
            let calls = frame.as_array().unwrap().iter();
            names.push(
                calls
                    .map(|call| {
                        (
                            string(&call[0]),
                            string(&call[1]),
                            call[2].as_u64().unwrap() as u32,
                        )
                    })
                    .collect(),
            );
        }
    }
    names
}

fn same_events(read: &last::Read, trace: &Trace) {
    let ours: Vec<last::Event> = trace.events().map(|event| plain(&event.unwrap())).collect();
    assert_eq!(read.events.len(), ours.len());
    for (number, (read, ours)) in read.events.iter().zip(&ours).enumerate() {
        assert_eq!(read, ours, "event {number}");
    }
}

#[test]
fn the_final_form_is_read_by_the_document() {
    for name in [
        "v1.0.hltrace",
        "v1.1.hltrace",
        "v2.0.hltrace",
        "v2.1.hltrace",
        "v2.1-stacks.hltrace",
    ] {
        let file = std::fs::read(fixture(name)).unwrap();
        let chunks = chunks::chunks(&file);
        let read = last::read(&chunks);
        let trace = Trace::open(&fixture(name)).unwrap();
        same_events(&read, &trace);
        the_index_says_where_segments_are(&chunks);
        forks_say_where_blocks_are_from(&chunks, &read);
        let mut stacks_of = Vec::new();
        let mut number = 0;
        let mut seen = |_: &_, _: &_, _, stack: u32| {
            if stack != 0 {
                stacks_of.push((number, stack));
            }
            number += 1;
        };
        trace.events_with_stacks(&mut seen, &mut |_, _| {}).unwrap();
        assert_eq!(read.stacks_of, stacks_of, "{name}");
        assert_eq!(trace.stacks().is_some(), name == "v2.1-stacks.hltrace");
        if let Some(table) = trace.stacks() {
            assert!(stacks_of.len() > 1000);
            let frames: Vec<_> = table
                .frames
                .iter()
                .map(|frame| (frame.module, frame.address))
                .collect();
            assert_eq!(read.frames, frames);
            let stacks: Vec<_> = (table.nodes.iter())
                .map(|(frame, caller)| (*frame, Some(*caller).filter(|caller| *caller != 0)))
                .collect();
            assert_eq!(read.stacks, stacks);
            let ours: Vec<Vec<_>> = table
                .symbols
                .iter()
                .flatten()
                .map(|calls| {
                    let call = |one: &Symbol| (one.function.clone(), one.file.clone(), one.line);
                    calls.iter().map(call).collect()
                })
                .collect();
            assert_eq!(names_of(&chunks), ours);
            assert!(ours.iter().any(|calls: &Vec<_>| !calls.is_empty()));
        }
    }
}

#[test]
fn checkpoints_are_the_heap_as_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.hltrace");
    let mut writer = TraceWriter::create(&path, &TraceHeader::default(), false, 3).unwrap();
    writer.checkpoint_every(1);
    let mut live = Vec::new();
    for number in 0..300_000u64 {
        let dice = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let free = dice % 2 == 0 && !live.is_empty();
        let block = match free {
            true => live.swap_remove(dice as usize / 2 % live.len()),
            false => 0,
        };
        let event = TraceEvent {
            thread: (dice >> 8) as u32 % 3,
            tick: number / 4,
            kind: match (free, dice % 16) {
                (true, _) => EventKind::Free,
                (_, 1) => EventKind::AlignedAlloc,
                _ => EventKind::Malloc,
            },
            block,
            size: dice % 5000,
            align_log2: if !free && dice % 16 == 1 { 6 } else { 0 },
            address: 0,
        };
        let block = writer.event(event).unwrap();
        if !free {
            live.push(block);
        }
    }
    writer.finish(None, |_| {}).unwrap();
    let read = last::read(&chunks::chunks(&std::fs::read(&path).unwrap()));
    same_events(&read, &Trace::open(&path).unwrap());
    assert_eq!(read.checkpoints.len(), 2);
    for (event, (stored, heap)) in &read.checkpoints {
        assert_eq!(stored, heap, "before event {event}");
    }
}

/// A raw file has no global order: what each thread did is what the resolved trace has of it.
#[test]
fn raw_files_are_read_by_the_document() {
    for (name, kind) in [("raw-1.0.hltrace", 18), ("raw-2.1.hltrace", 20)] {
        let chunks = chunks::chunks(&std::fs::read(fixture(name)).unwrap());
        assert!(chunks.iter().any(|chunk| chunk.kind == kind), "{name}");
        let raw = raw::read(&chunks);
        let trace = Trace::open(&fixture(name)).unwrap();
        let events: Vec<TraceEvent> = trace.events().map(Result::unwrap).collect();
        for (thread, raw) in &raw.threads {
            // Reallocs and frees depend on what other threads did; allocations stand as they are, but for times that went back.
            let mut tick = 0;
            let mut allocations = Vec::new();
            for event in raw {
                tick = tick.max(event.time_ns / 100);
                if event.kind < 7 {
                    allocations.push((tick, event.kind, event.size, event.align_log2));
                }
            }
            let own: Vec<&TraceEvent> = events
                .iter()
                .filter(|event| event.thread == *thread)
                .collect();
            let resolved: Vec<_> = own
                .iter()
                .filter(|event| (event.kind as u8) < 7)
                .map(|event| (event.tick, event.kind as u8, event.size, event.align_log2))
                .collect();
            assert_eq!(allocations, resolved, "thread {thread} of {name}");
            let told = raw.iter().filter(|event| event.kind == 20).count();
            let written = own.iter().filter(|event| event.kind == EventKind::Written);
            assert_eq!(told, written.count());
        }
        let sampled: usize = raw.stacks_of.values().map(Vec::len).sum();
        let mut with_stack = 0;
        let mut seen = |_: &_, _: &_, _, stack: u32| with_stack += usize::from(stack != 0);
        trace.events_with_stacks(&mut seen, &mut |_, _| {}).unwrap();
        assert_eq!(sampled, with_stack, "{name}");
        assert_eq!(name == "raw-2.1.hltrace", !raw.stacks.is_empty());
        let deep =
            |frames: &Vec<u64>| !frames.is_empty() && frames.iter().all(|address| *address > 4096);
        assert!(
            raw.stacks
                .values()
                .all(|(process, _, frames)| *process < 2 && deep(frames))
        );
    }
}
