//! The hot path: one event of the calling thread.
//!
//! Signal handlers may allocate at any instruction of this file. The hot path is safe because a
//! slot is reserved by one instruction and committed by one store; what changes more than that
//! runs with all signals blocked ([`crate::chunks`]).

use core::sync::atomic::Ordering;

use heaplab_ring::clock::TICK_SHIFT;
use heaplab_ring::layout::GATE_PAUSED;
use heaplab_ring::record::{WIDE, event_word};
use heaplab_ring::{CHUNK_BYTES, Kind, Pool, clock, layout};

use crate::chunks::{self, publish};
use crate::{member, session, tls};

/// Records one event of the calling thread. Returns `address`, so that what is left to the slow path is left to it for good.
#[inline(always)]
pub fn record(kind: Kind, address: usize, size: usize, align_log2: u8) -> usize {
    let state = tls::state();
    let cursor = state.cursor.load(Ordering::Relaxed);
    // Before the slot is reserved: a handler that changes the chunk, and with it the base, makes the reservation fail.
    let ticks = clock::tsc().wrapping_sub(state.base.load(Ordering::Relaxed)) >> TICK_SHIFT;
    if cursor.is_multiple_of(CHUNK_BYTES)
        || session::gate() != Some(0)
        || ticks > u64::from(u32::MAX)
        || size as u64 >= WIDE
        || !tls::advance(&state.cursor, cursor, cursor + layout::RECORD_BYTES)
    {
        return record_slowly(kind, address, size, align_log2);
    }
    let word = event_word(ticks as u32, size as u64, align_log2);
    // SAFETY: `cursor` was a slot's address and is now reserved for us.
    unsafe { publish(cursor, word, kind, address) };
    address
}

/// Whether an event of the calling thread would be recorded now. A forked child joins first, so that
/// what is described afterwards belongs to it.
#[inline(always)]
pub fn is_open() -> bool {
    match session::gate() {
        Some(gate) => gate & GATE_PAUSED == 0,
        None => opens(),
    }
}

#[cold]
#[inline(never)]
fn opens() -> bool {
    if session::mode() == session::UNKNOWN {
        member::attach();
    }
    session::mode() == session::RECORDING && member::is_recording() && is_open()
}

/// Writes a record that describes events: `word` stands in place of time and size. `false`: there is no
/// room, or nothing is recorded.
#[inline(always)]
pub fn describe(kind: Kind, word: u64, address: u64) -> bool {
    let state = tls::state();
    let cursor = state.cursor.load(Ordering::Relaxed);
    if cursor.is_multiple_of(CHUNK_BYTES)
        || session::gate().is_none()
        || !tls::advance(&state.cursor, cursor, cursor + layout::RECORD_BYTES)
    {
        return describe_slowly(kind, word, address);
    }
    // SAFETY: `cursor` was a slot's address and is now reserved for us.
    unsafe { publish(cursor, word, kind, address as usize) };
    true
}

#[cold]
#[inline(never)]
fn describe_slowly(kind: Kind, word: u64, address: u64) -> bool {
    if session::mode() != session::RECORDING || session::gate().is_none() && !member::is_recording()
    {
        return false;
    }
    let Some(pool) = session::pool() else {
        return false;
    };
    let Some((cursor, _)) = chunks::reserve(tls::state(), &pool, chunks::now(&pool)) else {
        return false;
    };
    // SAFETY: the slot was just reserved for us.
    unsafe { publish(cursor, word, kind, address as usize) };
    true
}

/// Everything but the usual case: first events, full and old chunks, large sizes, forked children, no session, a pause,
/// the slower clock, and a handler that got between.
#[cold]
#[inline(never)]
fn record_slowly(kind: Kind, address: usize, size: usize, align_log2: u8) -> usize {
    if session::mode() == session::UNKNOWN {
        member::attach();
    }
    if let Some(pool) = recording_pool() {
        record_in(&pool, kind, address, size, align_log2);
    }
    // Else the compiler, which sees what comes back, would have the caller keep the address instead of ending with this call.
    core::hint::black_box(address)
}

fn record_in(pool: &Pool<'static>, kind: Kind, address: usize, size: usize, align_log2: u8) {
    if session::gate().is_none() && !member::is_recording() {
        if session::mode() == session::STOPPED {
            pool.count_lost(1);
        }
        return;
    }
    if pool.gate().load(Ordering::Relaxed) & GATE_PAUSED != 0 {
        return;
    }
    let time = chunks::now(pool);
    if !chunks::write(tls::state(), pool, time, (kind, address, size, align_log2)) {
        pool.count_lost(1);
    }
}

fn recording_pool() -> Option<Pool<'static>> {
    match session::mode() {
        session::RECORDING => session::pool(),
        session::STOPPED => {
            if let Some(pool) = session::pool() {
                pool.count_lost(1);
            }
            None
        }
        _ => None,
    }
}
