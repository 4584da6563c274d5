//! Mutated traces: an error or a sound trace, never a panic and never much memory. The number of cases can be set with
//! `HEAPLAB_HOSTILE_CASES` (default 20,000; a million in `ci/nightly`).

#[path = "common/random.rs"]
mod random;
#[path = "common/xxh64.rs"]
mod xxh64;

use heaplab_workloads::trace::raw::{RawEvent, RawKind, RawWriter};
use heaplab_workloads::trace::{FinishInfo, ResolveOptions, Trace, TraceHeader, resolve_file};
use random::Random;
use rayon::prelude::*;
use std::path::Path;
use xxh64::xxh64;

/// Makes the checksums of all chunks right again, as far as the lengths still lead from chunk to chunk.
fn reseal(bytes: &mut [u8]) {
    let mut at = 16;
    while at + 32 <= bytes.len() {
        let u32_at = |from: usize| {
            u32::from_le_bytes(bytes[at + from..at + from + 4].try_into().unwrap()) as usize
        };
        let end = at + 32 + u32_at(8) + u32_at(12);
        if end > bytes.len() || &bytes[at..at + 4] != b"HLck" {
            return;
        }
        let hash = xxh64(&bytes[at..at + 24]) ^ xxh64(&bytes[at + 32..end]).rotate_left(1);
        bytes[at + 24..at + 32].copy_from_slice(&hash.to_le_bytes());
        at = end;
    }
}

fn originals(folder: &Path) -> Vec<Vec<u8>> {
    let (raw, out) = (folder.join("t.raw"), folder.join("t.hltrace"));
    let mut writer = RawWriter::create(&raw, &TraceHeader::default()).unwrap();
    for thread in 0..2u32 {
        writer.thread_start(thread, thread, 0).unwrap();
        writer.thread_name(thread, "name").unwrap();
        let mut events = Vec::new();
        for index in 0..30u64 {
            let address = 0x1000 * (u64::from(thread) + 1) + index / 2 * 16;
            let kind = if index % 2 == 0 {
                RawKind::Malloc
            } else {
                RawKind::Free
            };
            let size = if index % 2 == 0 { index } else { 0 };
            events.push(RawEvent {
                time_ns: index * 100,
                address,
                size,
                kind,
                align_log2: 0,
            });
        }
        writer.events(thread, &events).unwrap();
    }
    writer.mark(5, "mark").unwrap();
    writer.finish(FinishInfo::default()).unwrap();
    resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {}).unwrap();
    vec![std::fs::read(raw).unwrap(), std::fs::read(out).unwrap()]
}

#[test]
fn mutated_files_never_panic() {
    let cases: u64 = std::env::var("HEAPLAB_HOSTILE_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_000);
    let folder = tempfile::tempdir().unwrap();
    let originals = originals(folder.path());
    let opened: u64 = (0..cases)
        .into_par_iter()
        .map_init(
            || tempfile::tempdir().unwrap(),
            |folder, case| {
                let mut random = Random::new(case);
                let mut bytes = originals[case as usize % 2].clone();
                for _ in 0..1 + random.below(4) {
                    let at = random.below(bytes.len());
                    match random.below(4) {
                        0 => bytes[at] ^= 1 << random.below(8),
                        1 => bytes[at] = random.below(256) as u8,
                        2 => bytes[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
                        _ => {
                            let to = random.below(bytes.len());
                            let length = random.below(16).min(bytes.len() - at.max(to));
                            bytes.copy_within(at..at + length, to);
                        }
                    }
                }
                if random.below(8) == 0 {
                    bytes.truncate(random.below(bytes.len()));
                }
                // Most cases must get behind the checksum, or only the checksum is tested.
                if random.below(4) != 0 {
                    reseal(&mut bytes);
                }
                let path = folder.path().join("m.hltrace");
                std::fs::write(&path, &bytes).unwrap();
                let Ok(trace) = Trace::open(&path) else {
                    return 0;
                };
                let Ok(_) = trace.verify(&mut |_, _| {}) else {
                    return 0;
                };
                let stats = trace.stats(&mut |_, _| {}).unwrap();
                assert!(stats.allocations <= 60);
                1
            },
        )
        .sum();
    println!("{cases} mutated files, {opened} of them still sound");
    assert!(opened > 0, "some mutations are harmless");
}
