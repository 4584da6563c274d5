//! Traces made from one with addresses have them too, unless two blocks would lie at one address; then they say so.

use heaplab_workloads::trace::{
    CutOptions, EventKind, ImportOptions, MergeOptions, ScaleOptions, Trace, TraceEvent, cut,
    import, merge, scale,
};
use std::collections::HashMap;
use std::path::Path;

/// 8112 calls of jq with the addresses of their blocks, or without them.
fn jq(out: &Path, keep_addresses: bool) -> Trace {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/heaptrack-jq.raw.zst");
    let options = ImportOptions {
        keep_addresses,
        ..ImportOptions::default()
    };
    import(&from, out, &options, &mut |_, _| {}).unwrap();
    Trace::open(out).unwrap()
}

fn all(trace: &Trace) -> Vec<TraceEvent> {
    trace.events().collect::<Result<_, _>>().unwrap()
}

fn is_allocation(event: &&TraceEvent) -> bool {
    event.kind.has_size() && !matches!(event.kind, EventKind::Failed | EventKind::Realloc)
}

/// Kind, size, address: what a copy has of an event.
fn content(event: &TraceEvent) -> (EventKind, u64, u64) {
    (event.kind, event.size, event.address)
}

fn says_left_out(trace: &Trace, why: &str) -> bool {
    let said = |note: &String| note.starts_with("addresses are left out") && note.contains(why);
    trace.notes().iter().any(said)
}

#[test]
fn a_part_has_the_addresses_of_its_events_and_of_the_blocks_before_it() {
    const FROM: usize = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let trace = jq(&folder.path().join("jq.hltrace"), true);
    let whole = all(&trace);
    let part = folder.path().join("part.hltrace");
    let options = CutOptions {
        from_event: Some(FROM as u64),
        ..CutOptions::default()
    };
    cut(&trace, &part, &options, &mut |_, _| {}).unwrap();
    let part = Trace::open(&part).unwrap();
    part.verify(&mut |_, _| {}).unwrap();
    assert!(part.has_addresses().unwrap());
    let events = all(&part);
    let before = events.len() - (whole.len() - FROM);
    let mut live = HashMap::new();
    for event in &whole[..FROM] {
        match event.kind {
            EventKind::Free => {
                live.remove(&event.block);
            }
            _ if event.kind.has_size() => {
                live.insert(event.block, (event.size, event.address));
            }
            _ => {}
        }
    }
    let mut expected: Vec<_> = live.into_values().collect();
    let mut told: Vec<_> = events[..before]
        .iter()
        .map(|event| (event.size, event.address))
        .collect();
    expected.sort_unstable();
    told.sort_unstable();
    assert!(before > 100 && told.iter().all(|(_, address)| *address != 0));
    assert_eq!(told, expected);
    let rest: Vec<_> = events[before..].iter().map(content).collect();
    let same: Vec<_> = whole[FROM..].iter().map(content).collect();
    assert!(rest == same);
}

#[test]
fn scaled_blocks_keep_addresses_that_no_other_has() {
    let folder = tempfile::tempdir().unwrap();
    let trace = jq(&folder.path().join("jq.hltrace"), true);
    let out = folder.path().join("scaled.hltrace");
    let scaled = |options: ScaleOptions| {
        scale(&trace, &out, &options, &mut |_, _| {}).unwrap();
        let scaled = Trace::open(&out).unwrap();
        scaled.verify(&mut |_, _| {}).unwrap();
        scaled
    };
    let slower = scaled(ScaleOptions {
        time: 2.0,
        ..ScaleOptions::default()
    });
    let of = |trace: &Trace| all(trace).iter().map(content).collect::<Vec<_>>();
    assert!(of(&slower) == of(&trace));
    let fewer = scaled(ScaleOptions {
        load: 0.5,
        ..ScaleOptions::default()
    });
    let mut whole = all(&trace).into_iter();
    let kept = all(&fewer);
    let kept: Vec<_> = kept.iter().filter(is_allocation).collect();
    assert!(kept.len() > 3_000 && kept.len() < 5_000, "{}", kept.len());
    // In the order of the whole.
    assert!(
        kept.iter()
            .all(|one| whole.any(|of| content(&of) == content(one)))
    );
    for options in [
        ScaleOptions {
            copies: 2,
            ..ScaleOptions::default()
        },
        ScaleOptions {
            load: 1.5,
            ..ScaleOptions::default()
        },
    ] {
        let more = scaled(options);
        assert!(!more.has_addresses().unwrap(), "{options:?}");
        assert!(says_left_out(&more, "several"), "{options:?}");
    }
}

#[test]
fn merged_processes_keep_their_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let traces = [
        jq(&folder.path().join("a.hltrace"), true),
        jq(&folder.path().join("b.hltrace"), true),
    ];
    let out = folder.path().join("merged.hltrace");
    let merged = |traces: &[Trace], one_process: bool| {
        let options = MergeOptions {
            one_process,
            ..MergeOptions::default()
        };
        merge(traces, &out, &options, &mut |_, _| {}).unwrap();
        let merged = Trace::open(&out).unwrap();
        merged.verify(&mut |_, _| {}).unwrap();
        merged
    };
    let apart = merged(&traces, false);
    let of = |trace: &Trace| {
        let mut addresses: Vec<u64> = all(trace).iter().map(|event| event.address).collect();
        addresses.sort_unstable();
        addresses
    };
    let mut both = [of(&traces[0]), of(&traces[1])].concat();
    both.sort_unstable();
    assert!(of(&apart) == both && both.iter().filter(|at| **at != 0).count() >= 2 * 8112);
    let one = merged(&traces, true);
    assert!(!one.has_addresses().unwrap() && says_left_out(&one, "one process"));
    let [first, _] = traces;
    let mixed = merged(&[first, jq(&folder.path().join("c.hltrace"), false)], false);
    assert!(!mixed.has_addresses().unwrap() && says_left_out(&mixed, "not all"));
}
