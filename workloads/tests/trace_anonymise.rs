//! An anonymised trace holds nothing of the program.

#[path = "common/streams.rs"]
mod streams;

use heaplab_workloads::trace::raw::RawWriter;
use heaplab_workloads::trace::{
    FinishInfo, ProcessInfo, ResolveOptions, Trace, TraceEvent, TraceHeader, TraceSummary,
    anonymise, resolve_file,
};
use std::path::Path;
use streams::{all, header, long_streams};

/// All bytes of a file as a reader could see them: headers, meta, and bodies decompressed.
fn in_the_clear(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let mut clear = bytes.clone();
    let mut at = 16;
    while at + 32 <= bytes.len() && &bytes[at..at + 4] == b"HLck" {
        let word =
            |from: usize| u32::from_le_bytes(bytes[at + from..at + from + 4].try_into().unwrap());
        let body = at + 32 + word(8) as usize;
        let end = body + word(12) as usize;
        if bytes[at + 6] & 1 != 0 {
            let raw = word(16) as usize;
            clear.extend(zstd::bulk::decompress(&bytes[body..end], raw).unwrap());
        }
        at = end;
    }
    assert_eq!(
        bytes.len() - at,
        16,
        "every byte up to the trailer is a chunk's"
    );
    clear
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn anonymised_traces_hold_nothing_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("t.raw");
    let path = folder.path().join("t.hltrace");
    // Long enough to be compressed, so that a search of the file's bytes alone would find nothing.
    let secrets = |what: &str| format!("secret-{what}-").repeat(20);
    let mut writer = RawWriter::create(
        &raw,
        &TraceHeader {
            argv: vec![secrets("program"), secrets("argument")],
            ..header()
        },
    )
    .unwrap();
    for process in 0..2u32 {
        let info = ProcessInfo {
            process,
            pid: 1_731_337_042 + process,
            parent: process.checked_sub(1),
            program: secrets("path"),
            argv: vec![secrets("flag")],
            ..ProcessInfo::default()
        };
        writer.process_start(&info).unwrap();
    }
    for (thread, events) in long_streams(2_000).iter().enumerate() {
        let thread = thread as u32;
        writer
            .thread_start_in(thread % 2, thread, 1_731_337_042, 0)
            .unwrap();
        writer.thread_name(thread, &secrets("thread")).unwrap();
        writer.events(thread, events).unwrap();
    }
    writer.mark_in(Some(1), 0, &secrets("mark")).unwrap();
    writer.note(&secrets("note")).unwrap();
    writer.finish(FinishInfo::default()).unwrap();
    let options = ResolveOptions {
        keep_addresses: true,
        ..ResolveOptions::default()
    };
    let summary = resolve_file(&raw, &path, &options, &mut |_, _| {}).unwrap();
    let clear = in_the_clear(&path);
    for what in [
        "program",
        "argument",
        "path",
        "flag",
        "thread",
        "mark",
        "note",
        "allocator",
    ] {
        assert!(
            holds(&clear, &format!("secret-{what}")),
            "{what} was never there"
        );
    }
    assert!(holds(&clear, "1731337042") && holds(&clear, "2026"));

    let trace = Trace::open(&path).unwrap();
    let bare = folder.path().join("bare.hltrace");
    anonymise(&trace, &bare, &mut |_, _| {}).unwrap();
    let clear = in_the_clear(&bare);
    for text in ["secret", "2026", "1731337042", "1731337043"] {
        let at = clear
            .windows(text.len())
            .position(|part| part == text.as_bytes());
        let around = at.map(|at| String::from_utf8_lossy(&clear[at.saturating_sub(80)..at + 20]));
        assert_eq!(around, None);
    }
    let copy = Trace::open(&bare).unwrap();
    assert!(trace.has_addresses().unwrap() && !copy.has_addresses().unwrap());
    let seen = format!("{:?}{:?}{:?}", copy.names(), copy.marks(), copy.notes());
    assert_eq!(seen, "[][][]");
    let bared = |event: &TraceEvent| TraceEvent {
        address: 0,
        ..*event
    };
    assert!(
        all(&copy)
            .iter()
            .eq(all(&trace).iter().map(bared).collect::<Vec<_>>().iter())
    );
    // The processes stay, without what they were.
    assert_eq!(copy.summary().allocations, summary.allocations);
    let counts = |summary: &TraceSummary| -> Vec<_> {
        let table = summary.process_table.iter();
        table
            .map(|one| {
                (
                    one.threads,
                    one.events,
                    one.allocations,
                    one.frees,
                    one.peak_live_bytes,
                )
            })
            .collect()
    };
    assert_eq!(counts(copy.summary()), counts(&summary));
    assert_eq!(copy.summary().thread_table[1].process, 1);
}
