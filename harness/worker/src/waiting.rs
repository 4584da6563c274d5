//! How a thread waits for another one's block. The time until it is there is stamped apart from the allocator's, and what the replay
//! makes of the wait by itself apart from both.

use crate::clock;
use heaplab_worker::slip::Slip;
use std::hint::spin_loop;

/// Looks at a slot before the CPU is given up, and before the thread sleeps.
const SPINS: u32 = 200;
const YIELDS: u32 = SPINS + 100;
/// Nanoseconds between two looks at a slot, at first and at most.
const SLEEP_NS: u64 = 20_000;
const LONGEST_SLEEP_NS: u64 = 5_000_000;
/// Pauses after a wait, where they help: about a microsecond.
const PAUSES: u32 = 64;

/// A thread's waits.
#[derive(Default)]
pub struct Waits {
    /// Nanoseconds until blocks, or empty slots, were there.
    pub wait_ns: u64,
    /// Nanoseconds of pauses after that.
    pub slip_ns: u64,
    slip: Slip,
}

impl Waits {
    /// A slot was ready.
    #[inline(always)]
    pub fn was_ready(&mut self) {
        self.slip.was_ready();
    }

    /// Waits: a short spin for a hand-over that is about to happen, then giving up the CPU, then sleeping, so that any
    /// number of threads gets on with any number of CPUs.
    #[cold]
    #[inline(never)]
    pub fn until(&mut self, mut ready: impl FnMut() -> bool) {
        let start = clock::now_ns();
        let mut round = 0u32;
        while !ready() {
            match round {
                0..SPINS => spin_loop(),
                // SAFETY: sched_yield has no arguments.
                SPINS..YIELDS => drop(unsafe { libc::sched_yield() }),
                // Longer the longer it waits: two hundred sleepers that look every 20 µs keep two CPUs from the thread that they wait for.
                _ => clock::sleep_ns(
                    ((clock::now_ns() - start) / 8).clamp(SLEEP_NS, LONGEST_SLEEP_NS),
                ),
            }
            round = round.saturating_add(1);
        }
        let there = clock::now_ns();
        self.wait_ns += there - start;
        if self.slip.pauses(round < SPINS) {
            for _ in 0..PAUSES {
                spin_loop();
            }
            self.slip_ns += clock::now_ns() - there;
        }
    }
}
