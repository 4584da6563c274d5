//! Files of every version of the format stay readable: one of each is kept in `fixtures`.

use heaplab_workloads::trace::{Trace, repack};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Recorded from `jq .a in.json` with the heaplab of that time. What is expected was printed by that heaplab.
#[test]
fn old_versions_are_read() {
    for (name, version, frees, peak) in [
        ("v1.0.hltrace", [1, 0, 0, 0], 8110, 700_699),
        ("v1.1.hltrace", [1, 0, 1, 0], 8112, 700_577),
        ("v2.0.hltrace", [2, 0, 0, 0], 8112, 700_577),
    ] {
        let path = fixture(name);
        assert_eq!(std::fs::read(&path).unwrap()[8..12], version, "{name}");
        let trace = Trace::open(&path).unwrap();
        let summary = trace.verify(&mut |_, _| {}).unwrap();
        assert!(summary.complete, "{name}");
        assert_eq!(
            (summary.allocations, summary.frees, summary.peak_live_bytes),
            (8114, frees, peak),
            "{name}"
        );
        assert_eq!(trace.header().argv, ["jq", ".a", "in.json"]);
        assert_eq!(trace.names(), [(0, "jq".to_string())]);
        // In the present version it is the same trace.
        let folder = tempfile::tempdir().unwrap();
        let again = folder.path().join("again.hltrace");
        repack(
            &trace,
            &again,
            19,
            &["purpose: test".into()],
            &mut |_, _| {},
        )
        .unwrap();
        let again = Trace::open(&again).unwrap();
        assert_eq!(again.verify(&mut |_, _| {}).unwrap(), summary);
        let events = |trace: &Trace| -> Vec<_> { trace.events().map(Result::unwrap).collect() };
        assert_eq!(events(&again), events(&trace));
        assert_eq!(again.header(), trace.header());
        assert_eq!(again.names(), trace.names());
        assert_eq!(again.notes().last().unwrap(), "purpose: test");
    }
}

/// Recorded from `xz -k -c -3 small.txt` (60,000 bytes): of its window of 32 MiB it writes a part.
#[test]
fn version_2_1_says_how_much_was_written() {
    let path = fixture("v2.1.hltrace");
    assert_eq!(std::fs::read(&path).unwrap()[8..12], [2, 0, 1, 0]);
    let summary = Trace::open(&path).unwrap().verify(&mut |_, _| {}).unwrap();
    assert!(summary.complete);
    assert_eq!(
        (summary.allocations, summary.frees, summary.written_blocks),
        (228, 69, 5)
    );
    // Files of older versions say nothing of it.
    let old = Trace::open(&fixture("v2.0.hltrace")).unwrap();
    assert_eq!(old.summary().written_blocks, 0);
}

/// What a killed heaplab of version 1.0 left: all that its program had done until then, and no end.
#[test]
fn an_old_raw_file_is_resolved() {
    let trace = Trace::open(&fixture("raw-1.0.hltrace")).unwrap();
    let summary = trace.verify(&mut |_, _| {}).unwrap();
    assert!(!summary.complete);
    assert!(
        summary.missing[0].contains("cut off"),
        "{:?}",
        summary.missing
    );
    assert!(summary.allocations > 10_000);
    assert!(trace.header().argv[0] == "python3");
}

/// What a killed heaplab of version 2.1 left of a perl program that forks: packed events, sampled stacks, two processes.
#[test]
fn a_raw_file_of_packed_events_is_resolved() {
    let path = fixture("raw-2.1.hltrace");
    assert_eq!(std::fs::read(&path).unwrap()[8..12], [2, 0, 1, 0]);
    let trace = Trace::open(&path).unwrap();
    let summary = trace.verify(&mut |_, _| {}).unwrap();
    assert!(!summary.complete && summary.missing[0].contains("cut off"));
    assert_eq!(
        (
            summary.processes,
            summary.allocations,
            summary.frees,
            summary.written_blocks
        ),
        (2, 1418, 566, 3)
    );
    assert!(!trace.stacks().unwrap().nodes.is_empty());
}

/// The same program to its end, with all stacks and their names.
#[test]
fn version_2_1_keeps_stacks_and_names() {
    let trace = Trace::open(&fixture("v2.1-stacks.hltrace")).unwrap();
    let summary = trace.verify(&mut |_, _| {}).unwrap();
    assert!(summary.complete);
    assert_eq!((summary.processes, summary.events), (2, 3113));
    let names = trace.stacks().unwrap().symbols.as_ref().unwrap();
    let functions = names
        .iter()
        .flatten()
        .map(|symbol| symbol.function.as_str());
    assert!(functions.collect::<Vec<_>>().contains(&"perl_run"));
}
