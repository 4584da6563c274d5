//! Traces made from traces and from other tools' recordings: they hold what they should, and they replay.

mod common;

use common::{follow_order, interpret};
use heaplab_script::Script;
use heaplab_workloads::trace::{
    CutOptions, EventKind, ImportFormat, ImportOptions, MergeOptions, MergeStart, ScaleOptions,
    Trace, TraceEvent, TraceHeader, TraceSummary, TraceWriter, cut, export_chrome, export_csv,
    import, merge, scale,
};
use heaplab_workloads::{Params, Workload};
use std::path::{Path, PathBuf};

/// A load over three threads with hand-over, resizes, alignments and failures; `seed` varies it.
fn sample(path: &Path, seed: u64, events: u64) -> Trace {
    let mut writer = TraceWriter::create(path, &TraceHeader::default(), false, 1).unwrap();
    writer.name(1, &format!("worker {seed}")).unwrap();
    writer.mark(events, "half way").unwrap();
    let mut state = seed;
    let mut live: Vec<u32> = Vec::new();
    for index in 0..events {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let pick = (state >> 20) as usize % live.len().max(1);
        let (kind, block) = match state >> 60 {
            0 if !live.is_empty() => (EventKind::Realloc, live[pick]),
            1 => (EventKind::Failed, 0),
            2 => (EventKind::PosixMemalign, 0),
            _ if live.len() < 50 || state >> 63 == 0 => (EventKind::Malloc, 0),
            _ => (EventKind::Free, live.swap_remove(pick)),
        };
        let event = TraceEvent {
            thread: (state >> 45) as u32 % 3,
            tick: index * 2,
            kind,
            block,
            size: (state >> 30) % 900,
            align_log2: if kind == EventKind::PosixMemalign {
                6
            } else {
                0
            },
            address: 0,
        };
        let block = writer.event(event).unwrap();
        if matches!(kind, EventKind::Malloc | EventKind::PosixMemalign) {
            live.push(block);
        }
    }
    writer
        .finish(None, |summary| summary.processes = 1)
        .unwrap();
    Trace::open(path).unwrap()
}

fn all(trace: &Trace) -> Vec<TraceEvent> {
    trace.events().collect::<Result<_, _>>().unwrap()
}

/// Every rule holds, and the script runs in its order and under other interleavings.
fn replays(path: &Path, scripts: &Path) -> TraceSummary {
    let trace = Trace::open(path).unwrap();
    let summary = trace.verify(&mut |_, _| {}).unwrap();
    let workload = Workload::resolve(path.to_str().unwrap()).unwrap();
    let script = workload
        .compile(&Params::default(), scripts, &mut |_, _| {})
        .unwrap();
    assert_eq!(script.info.peak_live_bytes, summary.peak_live_bytes);
    let script = Script::open(&script.path).unwrap();
    follow_order(&script);
    interpret(&script, |count| count / 2);
    interpret(&script, |_| 0);
    summary
}

#[test]
fn scaling_multiplies_time_threads_and_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let trace = sample(&at.join("a.hltrace"), 1, 4000);
    let old = trace.summary().clone();
    let out = at.join("s.hltrace");
    let make = |options: ScaleOptions| {
        scale(&trace, &out, &options, &mut |_, _| {}).unwrap();
        replays(&out, at)
    };
    let slower = make(ScaleOptions {
        time: 2.5,
        ..ScaleOptions::default()
    });
    assert_eq!(slower.duration_ns, old.duration_ns * 5 / 2);
    assert_eq!(slower.peak_live_bytes, old.peak_live_bytes);
    assert_eq!(Trace::open(&out).unwrap().marks()[0].0, 10_000);
    let wider = make(ScaleOptions {
        copies: 3,
        ..ScaleOptions::default()
    });
    assert_eq!((wider.threads, wider.processes), (9, 3));
    assert_eq!(wider.allocations, 3 * old.allocations);
    assert_eq!(wider.remote_frees, 3 * old.remote_frees);
    // The copies go in step: each event three times, so the sum of the peaks is passed, or nearly.
    assert!(wider.peak_live_bytes > 3 * old.peak_live_bytes - 3000);
    let apart = make(ScaleOptions {
        copies: 2,
        stagger_ns: old.duration_ns + 100,
        ..ScaleOptions::default()
    });
    // The second begins when the first is over: what the first never freed is still there.
    assert!(apart.peak_live_bytes <= old.peak_live_bytes + old.end_live_bytes);
    assert!(apart.duration_ns > 2 * old.duration_ns);
    let heavier = make(ScaleOptions {
        load: 2.0,
        ..ScaleOptions::default()
    });
    assert_eq!(heavier.threads, old.threads);
    assert_eq!(heavier.allocations, 2 * old.allocations);
    assert_eq!(heavier.peak_live_bytes, 2 * old.peak_live_bytes);
    let half = make(ScaleOptions {
        load: 0.5,
        ..ScaleOptions::default()
    });
    let share = half.allocations as f64 / old.allocations as f64;
    assert!((0.45..0.55).contains(&share), "{share}");
    let refused = |options| {
        let error = scale(&trace, &out, &options, &mut |_, _| {});
        error.unwrap_err().to_string()
    };
    let nothing = ScaleOptions {
        load: 0.0,
        ..ScaleOptions::default()
    };
    assert!(refused(nothing).contains("load 0 is not possible"));
    // A file that no reader would take.
    let years = |years: u64| ScaleOptions {
        copies: 2,
        stagger_ns: years * 365 * 86_400 * 1_000_000_000,
        ..ScaleOptions::default()
    };
    let text = refused(years(230));
    assert!(text.contains("230 years after the first"), "{text}");
    assert!(refused(years(580)).contains("more than 228"));
    make(years(200));
    let made = Trace::open(&out).unwrap();
    made.verify(&mut |_, _| {}).unwrap();
}

#[test]
fn merged_traces_keep_their_threads_and_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let traces = [
        sample(&at.join("a.hltrace"), 1, 3000),
        sample(&at.join("b.hltrace"), 2, 5000),
    ];
    let sum =
        |of: fn(&TraceSummary) -> u64| traces.iter().map(|one| of(one.summary())).sum::<u64>();
    let out = at.join("m.hltrace");
    merge(&traces, &out, &MergeOptions::default(), &mut |_, _| {}).unwrap();
    let merged = replays(&out, at);
    assert_eq!((merged.threads, merged.processes), (6, 2));
    assert_eq!(merged.allocations, sum(|one| one.allocations));
    assert_eq!(merged.remote_frees, sum(|one| one.remote_frees));
    let trace = Trace::open(&out).unwrap();
    assert_eq!(
        trace.names(),
        [(1, "worker 1".to_string()), (4, "worker 2".to_string())]
    );
    // Each part, on its own, is what it was.
    let events = all(&trace);
    for (first, part) in [(0, &traces[0]), (3, &traces[1])] {
        let mine = events
            .iter()
            .filter(|event| (first..first + 3).contains(&event.thread))
            .map(|event| (event.thread - first, event.tick, event.kind, event.size));
        let theirs = all(part);
        assert!(mine.eq(theirs.iter().map(|e| (e.thread, e.tick, e.kind, e.size))));
    }
    assert!(events.windows(2).all(|pair| pair[0].tick <= pair[1].tick));
    let after = MergeOptions {
        start: MergeStart::After,
        one_process: true,
    };
    merge(&traces, &out, &after, &mut |_, _| {}).unwrap();
    let merged = replays(&out, at);
    assert_eq!(merged.processes, 1);
    assert!(merged.duration_ns >= sum(|one| one.duration_ns));
}

#[test]
fn a_cut_by_threads_holds_their_blocks_and_replays() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let trace = sample(&at.join("a.hltrace"), 3, 4000);
    let out = at.join("c.hltrace");
    let options = CutOptions {
        threads: vec![0, 2],
        from_event: Some(1000),
        ..CutOptions::default()
    };
    cut(&trace, &out, &options, &mut |_, _| {}).unwrap();
    let part = replays(&out, at);
    let events = all(&Trace::open(&out).unwrap());
    assert!(events.iter().all(|event| event.thread != 1));
    // Independent count of what it must hold: blocks of the two threads that are alive at the begin or come later.
    let mut owner = std::collections::HashMap::new();
    let (mut allocations, mut frees) = (0, 0);
    for (number, event) in all(&trace).iter().enumerate() {
        match event.kind {
            EventKind::Malloc | EventKind::PosixMemalign => {
                owner.insert(event.block, event.thread);
                allocations += u64::from(event.thread != 1 && number >= 1000);
            }
            EventKind::Free => {
                let thread = owner.remove(&event.block).unwrap();
                frees += u64::from(thread != 1 && number >= 1000);
            }
            _ => {}
        }
        if number == 999 {
            allocations += owner.values().filter(|&&thread| thread != 1).count() as u64;
        }
    }
    assert_eq!((part.allocations, part.frees), (allocations, frees));
    let unknown = CutOptions {
        threads: vec![7],
        ..CutOptions::default()
    };
    let error = cut(&trace, &out, &unknown, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("no thread 7"), "{error}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn imported(name: &str, folder: &Path, keep_addresses: bool) -> (Trace, TraceSummary) {
    let out = folder.join("i.hltrace");
    let options = ImportOptions {
        keep_addresses,
        ..ImportOptions::default()
    };
    import(&fixture(name), &out, &options, &mut |_, _| {}).unwrap();
    let summary = replays(&out, folder);
    (Trace::open(&out).unwrap(), summary)
}

/// Recorded with heaptrack 1.4.0 from `jq '.a' in.json` (Debian 12); heaptrack_print counts 8112 calls and a peak of 773.29 kB.
#[test]
fn heaptrack_files_are_read_raw_and_interpreted() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, interpreted) = imported("heaptrack-jq.zst", folder.path(), false);
    assert_eq!((interpreted.allocations, interpreted.frees), (8112, 8110));
    assert_eq!((interpreted.foreign_frees, interpreted.lost_frees), (0, 0));
    assert_eq!(trace.header().argv, ["/usr/bin/jq", ".a", "in.json"]);
    assert_eq!(trace.header().machine.page_size, 4096);
    assert!(!trace.has_addresses().unwrap());
    let (trace, raw) = imported("heaptrack-jq.raw.zst", folder.path(), true);
    assert_eq!((raw.allocations, raw.frees), (8112, 8110));
    assert!(trace.has_addresses().unwrap());
    assert_eq!(raw.bytes_allocated, interpreted.bytes_allocated);
    assert_eq!(raw.peak_live_bytes, interpreted.peak_live_bytes);
    assert_eq!(
        raw.peak_live_bytes.div_ceil(10),
        77_329,
        "as heaptrack_print says"
    );
}

/// The log of a small C program with each kind of call.
#[test]
fn mtrace_logs_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, summary) = imported("mtrace.log", folder.path(), false);
    assert_eq!(
        (summary.allocations, summary.frees, summary.reallocs),
        (12, 8, 1)
    );
    let sizes: Vec<_> = all(&trace)
        .iter()
        .take(4)
        .map(|e| (e.kind, e.size))
        .collect();
    let expected = [
        (EventKind::Malloc, 100),
        (EventKind::Malloc, 150),
        (EventKind::Realloc, 500),
        (EventKind::Free, 150),
    ];
    assert_eq!(sizes, expected);
}

#[test]
fn a_table_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let trace = sample(&at.join("a.hltrace"), 4, 5000);
    let table = at.join("a.csv");
    let mut file = std::fs::File::create(&table).unwrap();
    export_csv(&trace, &mut file, &mut |_, _| {}).unwrap();
    let back = at.join("b.hltrace");
    import(&table, &back, &ImportOptions::default(), &mut |_, _| {}).unwrap();
    assert_eq!(all(&Trace::open(&back).unwrap()), all(&trace));
    // A table by hand: addresses as names, a realloc that moves, C++ names, a free of what is not there.
    let text = "thread, call,block,size,new_block\n0,new,0x10,5\n1,malloc,0x20,7,\n0,realloc,0x10,50,0x30\n\
                1,delete,0x30,0\n1,free,0x99,0\n";
    // The first two data lines are short of a field: said with the line's number.
    std::fs::write(&table, text).unwrap();
    let error = import(&table, &back, &ImportOptions::default(), &mut |_, _| {}).unwrap_err();
    assert!(
        error.to_string().contains("line 2: it has only 4 fields"),
        "{error}"
    );
    std::fs::write(&table, text.replace("5\n", "5,\n").replace(",0\n", ",0,\n")).unwrap();
    import(&table, &back, &ImportOptions::default(), &mut |_, _| {}).unwrap();
    let kinds: Vec<_> = all(&Trace::open(&back).unwrap())
        .iter()
        .map(|event| (event.thread, event.kind, event.block, event.size))
        .collect();
    let expected = [
        (0, EventKind::Malloc, 0, 5),
        (1, EventKind::Malloc, 1, 7),
        (0, EventKind::Realloc, 0, 50),
        (1, EventKind::Free, 0, 50),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(Trace::open(&back).unwrap().summary().foreign_frees, 1);
}

/// Another tool's table may take the system's numbers of threads.
#[test]
fn thread_numbers_may_be_far_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (table, out) = (folder.path().join("a.csv"), folder.path().join("b.hltrace"));
    std::fs::write(
        &table,
        "call,block,size,thread\nmalloc,1,5,1048575\nmalloc,2,6,3999999\nfree,1,,7\nfree,2,,1048575\n",
    )
    .unwrap();
    import(&table, &out, &ImportOptions::default(), &mut |_, _| {}).unwrap();
    let summary = replays(&out, folder.path());
    assert_eq!((summary.threads, summary.remote_frees), (3, 2));
    let names = [(4096, "1048575".to_string()), (4097, "3999999".to_string())];
    assert_eq!(Trace::open(&out).unwrap().names(), names);
    assert_eq!(summary.thread_table[4096].frees, 1);
}

#[test]
fn what_cannot_be_imported_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (from, out) = (folder.path().join("x"), folder.path().join("y.hltrace"));
    let error = |text: &str, format| {
        std::fs::write(&from, text).unwrap();
        let options = ImportOptions {
            format,
            ..ImportOptions::default()
        };
        let error = import(&from, &out, &options, &mut |_, _| {}).unwrap_err();
        assert!(!out.exists());
        error.to_string()
    };
    let cases = [
        ("hello\n", None, "neither a heaptrack file"),
        ("", None, "is empty"),
        (
            "hello\n",
            Some(ImportFormat::Heaptrack),
            "begins with its version",
        ),
        ("HLTRACE\n", None, "is a heaplab trace already"),
        ("v 10400 9\n", None, "line 1: its format is newer"),
        (
            "v 1 3\n+ xyz 1 2\n",
            None,
            "line 2: a word is no hexadecimal",
        ),
        (
            "v 1 3\na 10 1\n+ 5\n",
            None,
            "line 3: an allocation is of a sort",
        ),
        ("= Start\n@ a + 0x1 z\n", None, "line 2: 'z' is no number"),
        (
            "= Start\n> 0x1 0x5\n",
            None,
            "line 2: a realloc's old address",
        ),
        (
            "call,block\n",
            Some(ImportFormat::Csv),
            "a column 'size' is missing",
        ),
        (
            "call,block,size\nalloc,1,2\n",
            None,
            "line 2: 'alloc' is no call",
        ),
        (
            "call,block,size,alignment\nmemalign,1,2,3\n",
            None,
            "3 is no alignment",
        ),
    ];
    for (text, format, expected) in cases {
        let found = error(text, format);
        assert!(found.contains(expected), "{text:?}: {found}");
    }
    // A line without end is cut, not kept in memory; what follows is read.
    let long = format!("v 1 3\nX {}\n+ 10 1 20\n", "x".repeat(1 << 20));
    std::fs::write(&from, long).unwrap();
    let summary = import(&from, &out, &ImportOptions::default(), &mut |_, _| {}).unwrap();
    assert_eq!(summary.allocations, 1);
}

#[test]
fn counters_follow_the_live_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let trace = sample(&folder.path().join("a.hltrace"), 5, 20_000);
    let mut out = Vec::new();
    export_chrome(&trace, &mut out, 100, &mut |_, _| {}).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let events = value["traceEvents"].as_array().unwrap();
    let live: Vec<_> = events
        .iter()
        .filter(|e| e["name"] == "live bytes")
        .collect();
    assert!((90..=102).contains(&live.len()), "{}", live.len());
    let last = live.last().unwrap();
    assert_eq!(last["args"]["bytes"], trace.summary().end_live_bytes);
    assert!(
        live.windows(2)
            .all(|pair| pair[0]["ts"].as_f64() < pair[1]["ts"].as_f64())
    );
    let named = |name: &str| events.iter().filter(|e| e["name"] == name).count();
    assert_eq!((named("half way"), named("thread_name")), (1, 1));
    assert!(named("calls per second of thread 2") > 50);
}
