//! Checkpoints: reading that begins in the middle sees what reading from the start sees there, whatever the number of
//! threads that read; and a file that lies about its state is found out.

use heaplab_workloads::trace::{
    CutOptions, EventKind, FinishInfo, Trace, TraceError, TraceEvent, TraceHeader, TraceWriter, cut,
};
use std::path::Path;

/// Four segments of a random load over three threads with frees by others, resizes and failures.
fn write(path: &Path, every: Option<u64>, keep_addresses: bool) {
    let mut writer = TraceWriter::create(path, &TraceHeader::default(), keep_addresses, 1).unwrap();
    if let Some(every) = every {
        writer.checkpoint_every(every);
    }
    writer.name(0, "first").unwrap();
    let mut state = 7u64;
    let mut live: Vec<u32> = Vec::new();
    for index in 0..400_000u64 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let pick = (state >> 20) as usize % live.len().max(1);
        let (kind, block) = match state >> 60 {
            0 if !live.is_empty() => (EventKind::Realloc, live[pick]),
            1 => (EventKind::Failed, 0),
            _ if live.len() < 5000 || state >> 63 == 0 => (EventKind::Malloc, 0),
            _ => (EventKind::Free, live.swap_remove(pick)),
        };
        let event = TraceEvent {
            thread: (state >> 45) as u32 % 3,
            // Threads are apart by some ticks, and there is a gap now and then.
            tick: index * 2 + (state >> 40) % 7 + index / 50_000 * 50_000,
            kind,
            block,
            size: (state >> 30) % 900,
            align_log2: 0,
            address: state >> 8,
        };
        let block = writer.event(event).unwrap();
        if kind == EventKind::Malloc {
            live.push(block);
        }
        if index == 200_000 {
            writer.mark(1, "late mark").unwrap();
        }
    }
    writer.finish(Some(FinishInfo::default()), |_| {}).unwrap();
}

fn all(trace: &Trace) -> Vec<TraceEvent> {
    trace.events().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_part_opens_alone_and_parts_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, seekable) = (
        folder.path().join("p.hltrace"),
        folder.path().join("s.hltrace"),
    );
    write(&plain, None, false);
    write(&seekable, Some(1), false);
    let (plain, seekable) = (
        Trace::open(&plain).unwrap(),
        Trace::open(&seekable).unwrap(),
    );
    assert_eq!((plain.parts(), seekable.parts()), (1, 4));
    assert_eq!(seekable.marks().len(), 1, "a mark behind the first segment");
    let events = all(&plain);
    assert_eq!(events, all(&seekable));
    for from in [0, 131_071, 131_072, 399_999] {
        let mut part = seekable.events_near(from).unwrap();
        let first = part.number();
        assert!(first <= from && from - first < 131_072, "{from} {first}");
        assert!(part.next().unwrap().unwrap() == events[first as usize]);
        assert!(
            part.map(Result::unwrap)
                .eq(events[first as usize + 1..].iter().copied())
        );
    }
    // Readers in parallel count what one counts, to the last field.
    let sums = |trace: &Trace| trace.verify(&mut |_, _| {}).unwrap();
    assert_eq!(sums(&plain), sums(&seekable));
    assert_eq!(
        plain.stats(&mut |_, _| {}).unwrap(),
        seekable.stats(&mut |_, _| {}).unwrap()
    );
    assert!(
        sums(&plain).idle_ns >= 7 * 5_000_000,
        "{}",
        sums(&plain).idle_ns
    );
    // A cut in the middle is the same with and without.
    let options = CutOptions {
        from_event: Some(300_000),
        to_event: Some(310_000),
        ..CutOptions::default()
    };
    let parts = [&plain, &seekable].map(|trace| {
        let out = folder.path().join("cut.hltrace");
        cut(trace, &out, &options, &mut |_, _| {}).unwrap();
        all(&Trace::open(&out).unwrap())
    });
    assert_eq!(parts[0], parts[1]);
}

#[test]
fn a_cut_off_file_keeps_its_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.hltrace");
    write(&path, Some(1), true);
    let whole = all(&Trace::open(&path).unwrap());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() * 7 / 10]).unwrap();
    let trace = Trace::open(&path).unwrap();
    let summary = trace.verify(&mut |_, _| {}).unwrap();
    assert!(!summary.complete && summary.events < 400_000 && trace.parts() >= 2);
    assert_eq!(all(&trace), whole[..summary.events as usize]);
    assert!(trace.has_addresses().unwrap());
}

#[test]
fn a_checkpoint_that_lies_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let (good, other) = (
        folder.path().join("g.hltrace"),
        folder.path().join("o.hltrace"),
    );
    write(&good, Some(1), false);
    // The same checkpoints, but all blocks are one byte larger: the state of another trace with the same numbers.
    let mut writer = TraceWriter::create(&other, &TraceHeader::default(), false, 1).unwrap();
    writer.checkpoint_every(1);
    writer.name(0, "first").unwrap();
    for (index, event) in all(&Trace::open(&good).unwrap()).into_iter().enumerate() {
        let size = event.size + 1;
        writer.event(TraceEvent { size, ..event }).unwrap();
        if index == 200_000 {
            writer.mark(1, "late mark").unwrap();
        }
    }
    writer.finish(None, |_| {}).unwrap();
    let chunks = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let mut places = Vec::new();
        let mut at = 16;
        while at + 32 <= bytes.len() && &bytes[at..at + 4] == b"HLck" {
            let word = |from: usize| {
                u32::from_le_bytes(bytes[at + from..at + from + 4].try_into().unwrap())
            };
            let end = at + 32 + word(8) as usize + word(12) as usize;
            places.push((
                u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]),
                bytes[at..end].to_vec(),
            ));
            at = end;
        }
        (places, bytes[at..].to_vec(), bytes)
    };
    let (mut mine, _, bytes) = chunks(&good);
    let (theirs, _, _) = chunks(&other);
    let foreign: Vec<_> = theirs.iter().filter(|(kind, _)| *kind == 36).collect();
    let mut swapped = bytes[..16].to_vec();
    let (mut next, mut moved) = (foreign.iter(), 0i64);
    for (kind, chunk) in &mut mine {
        if *kind == 36 {
            let new = &next.next().unwrap().1;
            moved += new.len() as i64 - chunk.len() as i64;
            *chunk = new.clone();
        }
        // The index knows old offsets: without it, the file is scanned.
        if *kind != 35 {
            swapped.extend_from_slice(chunk);
        }
    }
    std::fs::write(&good, &swapped).unwrap();
    let error = Trace::open(&good).unwrap_err();
    assert!(
        matches!(&error, TraceError::Damaged { reason, .. } if reason.contains("checkpoint")),
        "{error} {moved}"
    );
}
