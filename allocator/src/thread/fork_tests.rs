//! A fork finds every lock free: whoever holds one lets it go first, and the child has all of them.

use super::{for_each_lock, install_fork_handlers};
use crate::plant::{Plant, plant};
use crate::sync::RawLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Calls `work` with the lock of this number; false: there are fewer.
fn with_lock(number: usize, work: impl FnOnce(&RawLock)) -> bool {
    let (mut work, mut at) = (Some(work), 0);
    for_each_lock(|lock| {
        if at == number
            && let Some(work) = work.take()
        {
            work(lock);
        }
        at += 1;
    });
    work.is_none()
}

/// Number of the first lock that is not free, -1: all are.
fn first_held() -> i32 {
    let (mut held, mut at) = (-1, 0);
    for_each_lock(|lock| {
        if held < 0 {
            match lock.try_acquire() {
                true => lock.release(),
                false => held = at,
            }
        }
        at += 1;
    });
    held
}

/// Forks while another thread holds lock `number` for a moment; whether the child found a lock that was not free. `None`: there is no
/// such lock.
fn child_finds_a_lock_held(number: usize, mistake: Option<Plant>) -> Option<bool> {
    let held = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            with_lock(number, |lock| {
                lock.acquire();
                held.store(true, Relaxed);
                std::thread::sleep(Duration::from_millis(20));
                lock.release();
            })
        });
        while !held.load(Relaxed) && !holder.is_finished() {
            std::thread::yield_now();
        }
        // Without the lock there is nothing to see.
        if !held.load(Relaxed) {
            return None;
        }
        plant(mistake);
        // SAFETY: the child looks at locks, which no other thread of its can hold, and leaves without the harness.
        let child = unsafe { libc::fork() };
        plant(None);
        if child == 0 {
            let status = i32::from(first_held() >= 0);
            // SAFETY: no preconditions.
            unsafe { libc::_exit(status) };
        }
        let mut status = -1;
        // SAFETY: the child is ours, the status is writable.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        Some(status != 0)
    })
}

#[test]
fn a_fork_waits_for_every_lock_and_one_that_is_left_out_is_noticed() {
    install_fork_handlers();
    // The registry's, the three of one class from the middle, and the last.
    let mut locks = 0;
    for_each_lock(|_| locks += 1);
    for number in [0, 1, 2, 10, locks / 2, locks - 2, locks - 1] {
        assert_eq!(
            child_finds_a_lock_held(number, None),
            Some(false),
            "lock {number} of {locks}"
        );
    }
    assert_eq!(child_finds_a_lock_held(locks, None), None);
    let page_heap = locks - 1;
    let found = child_finds_a_lock_held(page_heap, Some(Plant::LockLeftOut));
    assert_eq!(found, Some(true));
}
