//! Memory of an import: it follows the live blocks, not the length of the recording. The only test of its file, because it
//! looks at the peak of the whole process.

use heaplab_workloads::trace::{ImportOptions, import};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// Segments on their way to the file and their bytes: how many there are at once is up to the scheduler, so that a peak may have
/// two more of them than the one before.
const ON_THE_WAY: u64 = 8 * MIB;

/// Peak resident bytes of this process so far.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_ascii_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

type Line = fn(&mut String, u64, u64);

/// Writes a recording of `calls` allocations, each freed when `live` more have come, compressed: a small file of much text.
fn write(path: &Path, head: &str, allocation: Line, free: Line, calls: u64, live: u64) {
    let mut file = zstd::Encoder::new(File::create(path).unwrap(), 1).unwrap();
    file.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    for call in 0..calls {
        allocation(&mut text, call, call % live);
        if call >= live - 1 {
            free(&mut text, call, (call + 1) % live);
        }
        if text.len() > 1 << 16 {
            file.write_all(text.as_bytes()).unwrap();
            text.clear();
        }
    }
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap();
}

#[test]
fn memory_follows_the_live_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let (from, out) = (
        folder.path().join("from"),
        folder.path().join("out.hltrace"),
    );
    let run = |format: &(&str, Line, Line), calls, live| {
        let (head, allocation, free) = *format;
        write(&from, head, allocation, free, calls, live);
        let options = ImportOptions {
            level: 1,
            ..ImportOptions::default()
        };
        let summary = import(&from, &out, &options, &mut |_, _| {}).unwrap();
        assert_eq!(summary.allocations, calls, "{head}");
        assert_eq!(summary.peak_live_blocks, live, "{head}");
        peak()
    };
    let formats: [(&str, Line, Line); 4] = [
        (
            "call,block,size\n",
            |text, _, block| writeln!(text, "malloc,{},{block}", block + 1).unwrap(),
            |text, _, block| writeln!(text, "free,{},", block + 1).unwrap(),
        ),
        (
            "= Start\n",
            |text, _, block| writeln!(text, "@ a + {:#x} 0x20", 16 * (block + 1)).unwrap(),
            |text, _, block| writeln!(text, "@ a - {:#x}", 16 * (block + 1)).unwrap(),
        ),
        // Without a stamp: calls wait for their time.
        (
            "v 10400 3\n",
            |text, _, block| writeln!(text, "+ 20 1 {:x}", 16 * (block + 1)).unwrap(),
            |text, _, block| writeln!(text, "- {:x}", 16 * (block + 1)).unwrap(),
        ),
        // Interpreted, with a sort declared for each call.
        (
            "v 10400 3\n",
            |text, call, _| writeln!(text, "a 20 1\n+ {call:x}").unwrap(),
            |text, call, block| {
                let age = (call % 1000 + 1000 - block % 1000) % 1000;
                writeln!(text, "- {:x}", call - age).unwrap();
            },
        ),
    ];
    let before = peak();
    for format in &formats[..3] {
        run(format, 70_000, 1000);
    }
    let short = peak();
    assert!(short - before < 32 * MIB, "{} MiB", (short - before) / MIB);
    for format in &formats[..3] {
        run(format, 210_000, 1000);
    }
    let long = peak();
    assert!(
        long - short < 4 * MIB + ON_THE_WAY,
        "{} MiB more",
        (long - short) / MIB
    );
    let sorts = run(&formats[3], 100_000, 1000);
    assert!(
        sorts - long < 4 * MIB + ON_THE_WAY,
        "{} MiB",
        (sorts - long) / MIB
    );
    let live = run(&formats[0], 230_000, 220_000);
    let each = (live - sorts) / 220_000;
    assert!(each < 200, "{each} bytes a block");
    println!(
        "{} MiB at first, {each} bytes a live block",
        (short - before) / MIB
    );
}
