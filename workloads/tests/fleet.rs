//! The fleet model draws the shares that its papers publish; `docs/FLEET.md` shows the same table.

use heaplab_script::{OpKind, Script};
use heaplab_workloads::{Model, ModelParams};
use std::collections::HashMap;

/// Allocations of the other kind of block in a thread that stand for a millisecond: a thread of a busy server allocates about every
/// ten microseconds.
const MILLISECOND: u64 = 100;

struct Drawn {
    /// Of all blocks: at most 1 KiB.
    small: f64,
    /// Of all bytes: in blocks of at most 1 KiB, above 8 KiB, above 256 KiB.
    small_bytes: f64,
    above_8k: f64,
    above_256k: f64,
    /// Of the small blocks: dead within a millisecond.
    early: f64,
}

fn drawn() -> Drawn {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let model = Model::builtin("fleet").unwrap();
    model
        .compile(&ModelParams::default(), &path, &mut |_, _| {})
        .unwrap();
    let script = Script::open(&path).unwrap();
    let (mut blocks, mut small) = (0u64, 0u64);
    let (mut bytes, mut small_bytes, mut above_8k, mut above_256k) = (0u64, 0u64, 0u64, 0u64);
    let mut early = 0u64;
    // Ages in allocations of the thread: of the blocks that die in the thread that made them, nine of ten.
    let mut own_blocks = 0u64;
    for ops in script.threads() {
        let mut born: HashMap<u32, u64> = HashMap::new();
        let mut clock = 0u64;
        for op in ops {
            match op.kind() {
                Some(OpKind::Malloc) => {
                    let size = op.size();
                    clock += 1;
                    blocks += 1;
                    bytes += size;
                    above_8k += if size > 8192 { size } else { 0 };
                    above_256k += if size > 262_144 { size } else { 0 };
                    if size <= 1024 {
                        small += 1;
                        small_bytes += size;
                        if op.flags == 0 {
                            own_blocks += 1;
                            born.insert(op.slot, clock);
                        }
                    }
                }
                Some(OpKind::Free) if op.flags == 0 => {
                    if let Some(birth) = born.remove(&op.slot) {
                        early += u64::from(clock - birth <= MILLISECOND);
                    }
                }
                _ => {}
            }
        }
    }
    let share = |part: u64, all: u64| 100.0 * part as f64 / all as f64;
    Drawn {
        small: share(small, blocks),
        small_bytes: share(small_bytes, bytes),
        above_8k: share(above_8k, bytes),
        above_256k: share(above_256k, bytes),
        early: share(early, own_blocks),
    }
}

#[test]
fn drawn_shares_are_the_published_ones() {
    let drawn = drawn();
    let mut table = String::from("| share | published | drawn |\n|---|---|---|\n");
    for (row, published, drawn, tolerance) in [
        ("blocks of at most 1 KiB", 98.0, drawn.small, 0.5),
        (
            "bytes in blocks of at most 1 KiB",
            28.0,
            drawn.small_bytes,
            2.0,
        ),
        ("bytes in blocks above 8 KiB", 50.0, drawn.above_8k, 3.0),
        ("bytes in blocks above 256 KiB", 22.0, drawn.above_256k, 3.0),
        ("small blocks dead within 1 ms", 46.0, drawn.early, 2.0),
    ] {
        assert!(
            (drawn - published).abs() <= tolerance,
            "{row}: {drawn:.1} % drawn, {published} % published"
        );
        table += &format!("| {row} | {published} % | {drawn:.1} % |\n");
    }
    let document = include_str!("../docs/FLEET.md");
    assert!(
        document.contains(&table),
        "docs/FLEET.md should say\n{table}"
    );
}
