//! Children of a program with threads, forked without the preload library's constructor: they find the allocator's locks
//! free, whatever front end there is.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;

/// Takes the locks of a class and of the page heap.
fn use_the_heap() {
    for size in [100, 40_000, 1 << 20] {
        let blocks: Vec<Vec<u8>> = (0..3).map(|_| Vec::with_capacity(size)).collect();
        assert!(blocks.iter().all(|block| block.capacity() >= size));
    }
}

/// Status of a child, which is killed if it waits for ever. (An alarm of its own would not reach it: with a cache per CPU
/// all signals are blocked while it waits for a lock.)
fn end_of(child: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    for _ in 0..20_000 {
        // SAFETY: the status is writable.
        match unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } {
            0 => std::thread::sleep(Duration::from_millis(1)),
            ended => {
                assert_eq!(ended, child);
                return status;
            }
        }
    }
    // SAFETY: the child is not waited for yet; the status is writable.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
    }
    status
}

#[test]
fn children_allocate_under_the_settings_of_this_process() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(|| {
                while !STOP.load(Relaxed) {
                    use_the_heap();
                }
            })
        })
        .collect();
    let begun = Instant::now();
    for _ in 0..200 {
        // SAFETY: the child uses the heap only, which is what is tested, and leaves without the harness.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            use_the_heap();
            // SAFETY: no preconditions.
            unsafe { libc::_exit(0) };
        }
        let status = end_of(child);
        assert_eq!(status, 0, "after {:?}", begun.elapsed());
    }
    STOP.store(true, Relaxed);
    for thread in threads {
        thread.join().expect("no thread panics");
    }
}

#[test]
fn children_allocate_under_all_settings() {
    for settings in ["front_end=cpu", "check=1", "hardened=1"] {
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "children_allocate_under_the_settings_of_this_process",
            ])
            .env("SPANALLOC_CONF", settings)
            .output()
            .expect("this program starts");
        assert!(
            output.status.success(),
            "{settings}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}
