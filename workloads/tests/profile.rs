//! Profiles of traces that are made event by event.

use heaplab_workloads::profile::{ProfileOptions, profile};
use heaplab_workloads::trace::stacks::{Frame, Module, StackTableBuilder};
use heaplab_workloads::trace::{EventKind, StackMode, Trace, TraceEvent, TraceHeader, TraceWriter};
use std::path::Path;

struct Maker {
    writer: TraceWriter,
    tick: u64,
}

impl Maker {
    fn event(&mut self, kind: EventKind, block: u32, size: u64, stack: u32) -> u32 {
        self.tick += 1;
        let event = TraceEvent::new(0, self.tick, kind, block, size);
        self.writer.event_on(event, stack).expect("an event")
    }

    fn alloc(&mut self, size: u64, stack: u32) -> u32 {
        self.event(EventKind::Malloc, 0, size, stack)
    }

    fn free(&mut self, block: u32) {
        self.event(EventKind::Free, block, 0, 0);
    }
}

/// A trace with stacks 1 (outer), 2 and 3 (both called by 1).
fn made(dir: &Path, mode: StackMode, make: impl FnOnce(&mut Maker)) -> Trace {
    let path = dir.join("made.hltrace");
    let writer = TraceWriter::create(&path, &TraceHeader::default(), false, 1).expect("a file");
    let mut maker = Maker { writer, tick: 0 };
    let mut builder = StackTableBuilder::default();
    builder.table.mode = mode;
    let module = builder.module(&Module {
        path: "/bin/lab".into(),
        build_id: String::new(),
    });
    let frame = |address| Frame {
        module: Some(module),
        address,
    };
    assert_eq!(builder.stack([frame(1), frame(2)].into_iter()), 2);
    assert_eq!(builder.stack([frame(1), frame(3)].into_iter()), 3);
    maker.writer.stacks(&builder.table).expect("written");
    make(&mut maker);
    maker.writer.finish(None, |_| {}).expect("finished");
    Trace::open(&path).expect("a trace")
}

#[test]
fn peak_leaks_and_short_lived_blocks_belong_to_their_stacks() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = made(dir.path(), StackMode::Full, |maker| {
        let first = maker.alloc(1000, 2);
        let second = maker.alloc(500, 3);
        maker.free(first); // short-lived
        let third = maker.alloc(2000, 2); // the peak: 2500
        maker.free(second); // short-lived
        let grown = maker.event(EventKind::Realloc, third, 100, 3); // now stack 3's
        assert_eq!(grown, third);
        for _ in 0..12 {
            let block = maker.alloc(10, 1);
            maker.free(block);
        }
        maker.free(third); // not short-lived: 12 allocations later
        maker.alloc(77, 3); // never freed
    });
    let found = profile(&trace, &ProfileOptions::default(), &mut |_, _| {}).expect("a profile");
    let totals = found.totals;
    assert_eq!(
        (totals.allocations, totals.bytes),
        (17, 1000 + 500 + 2000 + 100 + 120 + 77)
    );
    assert_eq!(
        (totals.peak_bytes, totals.peak_blocks, totals.peak_ns),
        (2500, 2, 400)
    );
    assert_eq!((totals.leaked_blocks, totals.leaked_bytes), (1, 77));
    assert_eq!(
        (totals.temporary_blocks, totals.temporary_bytes),
        (14, 1620)
    );
    let of = |stack| {
        found
            .stacks
            .iter()
            .find(|(number, _)| *number == stack)
            .expect("the stack")
            .1
    };
    let (one, two, three) = (of(1), of(2), of(3));
    assert_eq!(
        (
            two.bytes.value,
            two.peak_bytes.value,
            two.leaked_bytes.value,
            two.temporary_bytes.value
        ),
        (3000.0, 2000.0, 0.0, 1000.0)
    );
    assert_eq!(
        (
            three.bytes.value,
            three.peak_bytes.value,
            three.leaked_bytes.value,
            three.temporary_bytes.value
        ),
        (677.0, 500.0, 77.0, 500.0)
    );
    assert_eq!(
        (
            one.allocations.value,
            one.temporary_blocks.value,
            one.peak_blocks.value
        ),
        (12.0, 12.0, 0.0)
    );
    assert_eq!(three.bytes.error95(), 0.0);
    assert_eq!(found.samples, 17);
}

/// Weights are the inverse of the probability, and go away with the block that brought them.
#[test]
fn samples_count_by_their_probability() {
    let dir = tempfile::tempdir().expect("a folder");
    let trace = made(dir.path(), StackMode::Sampled { period: 1000 }, |maker| {
        maker.alloc(100, 2);
        maker.alloc(100, 0);
        let large = maker.alloc(1_000_000, 3);
        maker.free(large);
    });
    let found = profile(&trace, &ProfileOptions::default(), &mut |_, _| {}).expect("a profile");
    let of = |stack| {
        found
            .stacks
            .iter()
            .find(|(number, _)| *number == stack)
            .expect("the stack")
            .1
    };
    let p = 1.0 - (-0.1f64).exp();
    assert!((of(2).allocations.value - 1.0 / p).abs() < 1e-9);
    assert!((of(2).leaked_bytes.value - 100.0 / p).abs() < 1e-6);
    assert!((of(2).bytes.error95() - 1.959_964 * 100.0 * (1.0 - p).sqrt() / p).abs() < 1e-6);
    assert!((of(3).bytes.value - 1e6).abs() < 1.0 && of(3).leaked_bytes.value == 0.0);
    // Exact, sampled or not.
    assert_eq!(
        (found.totals.bytes, found.totals.leaked_bytes, found.samples),
        (1_000_200, 200, 2)
    );
}
