//! How much memory an idle program gives back: resident bytes 10 s after most of a scattered heap was
//! freed, per allocator, each in a process of its own that sleeps and calls nothing.
//!
//! The heap: 150,000 blocks of 512 bytes, 100,000 of 1 KiB and 50,000 of 2 KiB, allocated in random
//! order and written to; then all but a random twentieth are freed, in random order. (The mix is that
//! of a published comparison of hole purging; there, jemalloc and mimalloc by default give back 0 %.)
//! After the idle time each allocator's own "give everything back" is called, for comparison.
//!
//! ```sh
//! cargo run --release --manifest-path allocator/benches/Cargo.toml --bin returned
//! cargo run --release --manifest-path allocator/benches/Cargo.toml --bin returned -- --seconds 3
//! ```

use spanalloc_benches::{ALLOCATORS, Allocator};
use std::process::{Command, ExitCode};
use std::time::Duration;

unsafe extern "C" {
    /// mimalloc's; the bindings leave it out.
    fn mi_collect(force: bool);
}

/// Blocks of each size in the heap.
const MIX: [(usize, usize); 3] = [(150_000, 512), (100_000, 1024), (50_000, 2048)];
/// One block in this many stays.
const SURVIVORS: u64 = 20;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse().ok())
        .expect("the second field of statm is a number");
    pages * 4096
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// Calls the allocator's own means to give back all that is free.
fn give_back(allocator: Allocator) {
    match allocator.name {
        "spanalloc" => {
            spanalloc::trim(0);
        }
        // SAFETY: these take no pointers of ours; the name of the control is a C string.
        "jemalloc" => unsafe {
            tikv_jemalloc_sys::mallctl(
                c"arena.4096.purge".as_ptr(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                0,
            );
        },
        // SAFETY: no precondition.
        "mimalloc" => unsafe { mi_collect(true) },
        // SAFETY: no precondition.
        _ => unsafe {
            libc::malloc_trim(0);
        },
    }
}

/// One allocator in this process: resident bytes at start, at the peak, after the idle time, and after
/// giving back.
fn measure(allocator: Allocator, idle: Duration) -> [u64; 4] {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut sizes: Vec<usize> = MIX
        .iter()
        .flat_map(|&(count, size)| std::iter::repeat_n(size, count))
        .collect();
    random.shuffle(&mut sizes);
    let mut blocks: Vec<*mut u8> = vec![std::ptr::null_mut(); sizes.len()];
    let start = resident();
    for (block, &size) in blocks.iter_mut().zip(&sizes) {
        *block = allocator.block(size);
        // SAFETY: the block has `size` bytes.
        unsafe { block.write_bytes(0xA5, size) };
    }
    let peak = resident();
    random.shuffle(&mut blocks);
    for &block in &blocks {
        if random.below(SURVIVORS) != 0 {
            // SAFETY: each block is freed at most once.
            unsafe { allocator.release(block) };
        }
    }
    std::thread::sleep(idle);
    let rested = resident();
    give_back(allocator);
    [start, peak, rested, resident()]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match arguments.as_slice() {
        [] => 10.0,
        [flag, value] if flag == "--seconds" => value.parse().unwrap_or(-1.0),
        [flag, name, value] if flag == "--child" => {
            let idle = Duration::from_secs_f64(value.parse().expect("the parent passes a number"));
            let allocator = ALLOCATORS
                .into_iter()
                .find(|allocator| allocator.name == name)
                .expect("the parent passes a known name");
            let figures = measure(allocator, idle).map(|bytes| bytes.to_string());
            println!("{}", figures.join(" "));
            return ExitCode::SUCCESS;
        }
        _ => -1.0,
    };
    if !(0.0..=3600.0).contains(&seconds) {
        eprintln!("usage: returned [--seconds N]   (N: idle time, 0 to 3600, default 10)");
        return ExitCode::from(2);
    }
    println!(
        "{:<24}{:>9}{:>12}{:>10}{:>13}",
        "MiB resident", "peak", "idle", "returned", "given back"
    );
    let program = std::env::current_exe().expect("a running program has a path");
    let rows = ALLOCATORS
        .iter()
        .map(|allocator| (allocator.name, ""))
        .chain([("spanalloc", "helper=0")]);
    for (name, settings) in rows {
        let output = Command::new(&program)
            .args(["--child", name, &seconds.to_string()])
            .env("SPANALLOC_CONF", settings)
            .output()
            .expect("the program can be run again");
        let text = String::from_utf8_lossy(&output.stdout);
        let figures: Vec<f64> = text
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let [start, peak, idle, trimmed] = figures[..] else {
            eprintln!(
                "{name}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
            return ExitCode::FAILURE;
        };
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let share = |now: f64| 100.0 * (peak - now) / (peak - start);
        let label = if settings.is_empty() {
            name.to_owned()
        } else {
            format!("{name} ({settings})")
        };
        println!(
            "{label:<24}{:>9.1}{:>12.1}{:>9.0}%{:>12.0}%",
            mib(peak),
            mib(idle),
            share(idle),
            share(trimmed)
        );
    }
    ExitCode::SUCCESS
}
