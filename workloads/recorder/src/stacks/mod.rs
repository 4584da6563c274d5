//! Stacks of allocations, in the build of the recorder that captures them.
//!
//! The exported functions are [`entry`]'s, which note where they were called from; [`allocation`] decides by
//! the bytes of the thread whether this one brings its stack, walks it, and writes its hash (and
//! its addresses when they are new) before the event itself. Walking needs a row of the unwind
//! tables for each address ([`rows`] caches them) and the limits of the stack ([`bounds`]): it reads
//! nothing outside of them, whatever registers and frame pointers hold.

mod bounds;
mod capture;
pub mod entry;
pub mod modules;
mod rows;
mod state;

use core::sync::atomic::{AtomicU32, Ordering};

use heaplab_hook::{member, session, thread};
use heaplab_ring::clock;
use heaplab_ring::sampler::Sampler;
use heaplab_ring::stack::StackMode;

use state::StackState;

/// Not asked yet.
const UNKNOWN: u32 = 0;
const OFF: u32 = 1;
const SAMPLED: u32 = 2;
const FULL: u32 = 3;
static MODE: AtomicU32 = AtomicU32::new(UNKNOWN);
static PERIOD: AtomicU32 = AtomicU32::new(0);

/// Called for every allocation before it is recorded.
#[inline(always)]
pub fn allocation(block: usize, size: usize) {
    let state = state::get();
    // At most isize::MAX bytes were allocated: no overflow below the smallest number.
    let left = state
        .left
        .load(Ordering::Relaxed)
        .saturating_sub(size.max(1) as i64);
    state.left.store(left, Ordering::Relaxed);
    if left < 0 {
        due(state, block, size);
    }
}

/// What is left was used up: a sample point, or the mode has none.
#[inline(never)]
fn due(state: &'static StackState, block: usize, size: usize) {
    match MODE.load(Ordering::Relaxed) {
        FULL => state.left.store(0, Ordering::Relaxed),
        SAMPLED => {
            let period = PERIOD.load(Ordering::Relaxed);
            let mut sampler = match state.random.load(Ordering::Relaxed) {
                0 => {
                    // The thread's first allocation: the first point has not been drawn.
                    let seed = clock::tsc() ^ core::ptr::from_ref(state) as u64;
                    let mut sampler = Sampler::new(seed);
                    let left = sampler.distance(period).saturating_sub(size.max(1) as i64);
                    state.left.store(left, Ordering::Relaxed);
                    state.random.store(sampler.state(), Ordering::Relaxed);
                    if left >= 0 {
                        return;
                    }
                    sampler
                }
                random => Sampler::new(random),
            };
            state
                .left
                .store(sampler.distance(period), Ordering::Relaxed);
            state.random.store(sampler.state(), Ordering::Relaxed);
        }
        OFF => return state.left.store(i64::MAX, Ordering::Relaxed),
        _ => {
            ask();
            if MODE.load(Ordering::Relaxed) != UNKNOWN {
                due(state, block, size);
            }
            return;
        }
    }
    if thread::is_open() {
        capture::capture(state, block);
    }
}

/// Learns the mode from the session.
#[cold]
fn ask() {
    if session::mode() == session::UNKNOWN {
        member::attach();
    }
    let (mode, period) = match session::pool().map(|pool| pool.stacks()) {
        Some(StackMode::Full) => (FULL, 0),
        Some(StackMode::Sampled { period }) => (SAMPLED, period),
        _ => (OFF, 0),
    };
    PERIOD.store(period, Ordering::Relaxed);
    MODE.store(mode, Ordering::Relaxed);
}

/// Before main: what the dynamic loader offers for finding modules.
pub fn resolve() {
    modules::resolve();
}
