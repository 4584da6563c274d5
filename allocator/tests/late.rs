//! Threads that come to the allocator first, all at once, as in a program that loads a library with `SpanAlloc` late: none of them
//! allocates before the settings are known.
//!
//! The allocator of this program is the system's, so that its own calls are the first ones.

use std::process::Command;
use std::sync::Barrier;

/// What the children do, by this variable.
const CHILD: &str = "SPANALLOC_LATE";
/// Long enough for other threads to come while it is read.
const VARIABLES: usize = 3000;

/// A few threads that meet, and then all allocate for the first time: a small block, a large one, a large one of zeros.
fn allocate_first() {
    const THREADS: usize = 6;
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let block = match number % 3 {
                    0 => spanalloc::alloc::allocate(100),
                    1 => spanalloc::alloc::allocate(1 << 20),
                    _ => spanalloc::alloc::allocate_zeroed(1 << 20),
                };
                assert!(!block.is_null());
                // SAFETY: the block was allocated just now.
                unsafe { spanalloc::alloc::free(block) };
                let block = spanalloc::alloc::allocate(40);
                assert!(!block.is_null());
                // Whoever came before the settings were known has a cache, until the thread ends.
                assert_eq!(spanalloc::stats().threads, 0);
                // SAFETY: as above.
                unsafe { spanalloc::alloc::free(block) };
            });
        }
    });
}

#[test]
fn no_thread_allocates_before_the_settings_are_known() {
    if std::env::var_os(CHILD).is_some() {
        return allocate_first();
    }
    let program = std::env::current_exe().expect("the system says");
    // Without caches of threads.
    for settings in ["check=1", "hardened=1,guard_rate=1", "front_end=cpu"] {
        for round in 0..20 {
            let mut child = Command::new(&program);
            child.args([
                "--exact",
                "no_thread_allocates_before_the_settings_are_known",
            ]);
            child.args(["--nocapture", "--test-threads=1"]);
            child.env(CHILD, "1");
            for at in 0..VARIABLES {
                child.env(format!("FILLER_{at}"), "of the environment");
            }
            child.env("SPANALLOC_CONF", settings);
            let output = child.output().expect("this program runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && !said.contains("spanalloc:"),
                "'{settings}', round {round}, {}: {said}",
                output.status
            );
        }
    }
}
