//! What combining tiny blocks saves and costs: `TinyAlloc` beside `SpanAlloc` and the system's allocator.
//!
//! Bytes per block: growth of the resident set over 1,000,000 live blocks, each allocator in a process of its own.
//! Instructions per allocate and free: counted by valgrind, the difference of two runs that differ in rounds only.
//!
//! ```sh
//! cargo run --release --manifest-path allocator/benches/Cargo.toml --bin tiny
//! ```

use spanalloc::{SpanAlloc, TinyAlloc};
use std::alloc::{GlobalAlloc, Layout, System};
use std::process::{Command, ExitCode};
use std::time::Instant;

const BLOCKS: usize = 1_000_000;
/// Blocks that live at once in the counted loops.
const BATCH: usize = 20_000;

fn allocator(name: &str) -> Option<&'static dyn GlobalAlloc> {
    match name {
        "system" => Some(&System),
        "SpanAlloc" => Some(&SpanAlloc),
        "TinyAlloc" => Some(&TinyAlloc),
        _ => None,
    }
}

const NAMES: [&str; 3] = ["system", "SpanAlloc", "TinyAlloc"];

/// Sizes of the blocks, in turns.
const SIZES: [(&str, &[usize]); 6] = [
    ("1", &[1]),
    ("2", &[2]),
    ("4", &[4]),
    ("5", &[5]),
    ("8", &[8]),
    ("1 to 8", &[1, 2, 3, 4, 5, 6, 7, 8]),
];

fn layout(sizes: &[usize], number: usize) -> Layout {
    let size = sizes[number % sizes.len()];
    // As a program's: 1, 2, 4 and 8 bytes are numbers, the rest text.
    let align = if size.is_power_of_two() { size } else { 1 };
    Layout::from_size_align(size, align).expect("small")
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: Option<usize> = text.split(' ').nth(1).and_then(|field| field.parse().ok());
    pages.expect("the second field of statm is a number") * 4096
}

/// Bytes and nanoseconds that each of many blocks costs, printed.
fn fill(a: &dyn GlobalAlloc, sizes: &[usize]) {
    let mut blocks = vec![std::ptr::null_mut::<u8>(); BLOCKS];
    // Resident before, so that only blocks are counted.
    blocks.fill(std::ptr::dangling_mut());
    let before = resident();
    let started = Instant::now();
    for (number, block) in blocks.iter_mut().enumerate() {
        // SAFETY: the layout has a size, the block is as large.
        unsafe {
            *block = a.alloc(layout(sizes, number));
            block.write(number as u8);
        }
    }
    let bytes = resident().saturating_sub(before);
    for (number, block) in blocks.into_iter().enumerate() {
        // SAFETY: allocated above with this layout.
        unsafe { a.dealloc(block, layout(sizes, number)) };
    }
    let nanoseconds = started.elapsed().as_nanos();
    println!(
        "{:.2} {:.1}",
        bytes as f64 / BLOCKS as f64,
        nanoseconds as f64 / BLOCKS as f64
    );
}

/// The loops that are counted: one block at a time, or many, freed in the order of their allocation or shuffled.
fn count(a: &dyn GlobalAlloc, sizes: &[usize], pattern: &str, rounds: usize) {
    let mut blocks = vec![std::ptr::null_mut::<u8>(); BATCH];
    for _ in 0..rounds {
        // SAFETY: each block is freed once, with its layout.
        unsafe {
            if pattern == "pair" {
                for number in 0..BATCH {
                    let block = a.alloc(layout(sizes, number));
                    block.write(1);
                    a.dealloc(std::hint::black_box(block), layout(sizes, number));
                }
                continue;
            }
            for (number, block) in blocks.iter_mut().enumerate() {
                *block = a.alloc(layout(sizes, number));
            }
            for number in 0..BATCH {
                let at = if pattern == "shuffled" {
                    number * 7919 % BATCH
                } else {
                    number
                };
                a.dealloc(blocks[at], layout(sizes, at));
            }
        }
    }
}

/// Runs this program in a new process; what it prints last.
fn child(mut command: Command, arguments: &[&str]) -> String {
    let output = command
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// Instructions of a process.
fn instructions(arguments: &[&str]) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(std::env::current_exe().expect("a running program has a path"));
    let text = child(valgrind, arguments);
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    line.and_then(|(_, number)| number.trim().parse().ok())
        .expect("callgrind prints the sum")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let sizes = |name: &str| SIZES.iter().find(|of| of.0 == name).map(|of| of.1);
    match arguments[..] {
        [] => {}
        ["fill", name, of] => {
            if let (Some(a), Some(sizes)) = (allocator(name), sizes(of)) {
                fill(a, sizes);
            }
            return ExitCode::SUCCESS;
        }
        ["count", name, of, pattern, rounds] => {
            if let (Some(a), Some(sizes), Ok(rounds)) = (allocator(name), sizes(of), rounds.parse())
            {
                count(a, sizes, pattern, rounds);
            }
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("this measurement takes no arguments");
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{:12}{:10}{:>8}{:>8}{:>8}{:>10}{:>10}",
        "allocator", "bytes", "B each", "ns", "pair", "in order", "shuffled"
    );
    for (of, _) in SIZES {
        for name in NAMES {
            let this =
                || Command::new(std::env::current_exe().expect("a running program has a path"));
            let filled = child(this(), &["fill", name, of]);
            let (bytes, nanoseconds) = filled.split_once(' ').expect("two figures");
            let counted = ["pair", "in order", "shuffled"].map(|pattern| {
                let [more, less] =
                    ["6", "2"].map(|rounds| instructions(&["count", name, of, pattern, rounds]));
                (more - less) as f64 / (4 * BATCH) as f64
            });
            println!(
                "{name:12}{of:10}{bytes:>8}{nanoseconds:>8}{:>8.1}{:>10.1}{:>10.1}",
                counted[0], counted[1], counted[2]
            );
        }
    }
    ExitCode::SUCCESS
}
