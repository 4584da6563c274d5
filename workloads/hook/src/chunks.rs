//! A thread's chunks: slots for events, what happens when a chunk is full, and when the thread ends.
//!
//! Signal handlers may allocate at any instruction of this file: whatever changes more than one word runs with all signals
//! blocked.

use core::ffi::c_void;
use core::sync::atomic::Ordering;

use heaplab_ring::clock::TICK_SHIFT;
use heaplab_ring::layout::GATE_CLOCK;
use heaplab_ring::pool::Owner;
use heaplab_ring::record::{MAX_SIZE, TEXT_BYTES, WIDE, event_word};
use heaplab_ring::{CHUNK_BYTES, Chunk, Kind, Pool, RECORDS_PER_CHUNK, Record, clock, layout, sys};

use crate::session;
use crate::tls::{self, ThreadState};

/// How often a thread that waits for a chunk looks whether the drainer still lives.
const WAIT_MS: u32 = 100;
/// So many looks without any sign of life (a minute) are taken for its death.
const PATIENCE: u32 = 600;
/// Rounds of key destructors that libc runs; we end in the last, so that the destructors of
/// others that still free memory come before.
const DESTRUCTOR_ROUNDS: u32 = 4;

/// Kind, address, size in bytes, binary logarithm of the alignment.
pub type Event = (Kind, usize, usize, u8);

/// The chunk and the record of a reserved slot.
#[inline(always)]
fn place(cursor: usize) -> (&'static Chunk, &'static Record) {
    let chunk = cursor & !(CHUNK_BYTES - 1);
    // SAFETY: a cursor that was reserved is the address of a record; chunks are aligned to their size in the mapping, which
    // lives as long as the process, and consist of atomic integers.
    unsafe { (&*(chunk as *const Chunk), &*(cursor as *const Record)) }
}

/// Writes the record at `cursor`.
///
/// # Safety
/// `cursor` must be the address of a slot of a chunk of this thread, reserved by the caller. The
/// drainer keeps a chunk until every reserved slot is committed or the thread is dead.
#[inline(always)]
pub unsafe fn publish(cursor: usize, word: u64, kind: Kind, address: usize) {
    let (chunk, record) = place(cursor);
    record.publish(word, kind, address as u64, chunk.generation());
}

/// Reserves a slot and writes an event; `false`: there is no room.
pub fn write(
    state: &ThreadState,
    pool: &Pool<'static>,
    time: u64,
    (kind, address, size, align_log2): Event,
) -> bool {
    let size = (size as u64).min(MAX_SIZE);
    if size >= WIDE {
        let Some((cursor, _)) = reserve(state, pool, time) else {
            return false;
        };
        // SAFETY: the slot was just reserved for us.
        unsafe { publish(cursor, size, Kind::Wide, 0) };
    }
    let Some((cursor, ticks)) = reserve(state, pool, time) else {
        return false;
    };
    let word = event_word(ticks, size.min(WIDE), align_log2);
    // SAFETY: as above.
    unsafe { publish(cursor, word, kind, address) };
    true
}

/// Writes `text` and behind it an event. A handler of a signal that comes meanwhile waits, so that its own text cannot get
/// between.
pub fn write_with_text(pool: &Pool<'static>, text: &[u8], event: Event) {
    let state = tls::state();
    let mask = sys::block_signals();
    let time = now(pool);
    let whole = text.chunks(TEXT_BYTES).enumerate().all(|(number, piece)| {
        let Some((cursor, _)) = reserve(state, pool, time) else {
            return false;
        };
        let (chunk, record) = place(cursor);
        record.publish_text(piece, number == 0, chunk.generation());
        true
    });
    if whole {
        write(state, pool, time, event);
    }
    sys::restore_signals(mask);
}

/// The next slot of the calling thread and `time` in its chunk; `None` where there is no chunk for it.
pub fn reserve(state: &ThreadState, pool: &Pool<'static>, time: u64) -> Option<(usize, u32)> {
    loop {
        let cursor = state.cursor.load(Ordering::Relaxed);
        let base = state.base.load(Ordering::Relaxed);
        if cursor.is_multiple_of(CHUNK_BYTES) {
            if !refill(state, pool, time) {
                return None;
            }
            continue;
        }
        // A handler's chunk may be younger than the event that it interrupted.
        let ticks = time.saturating_sub(base) >> TICK_SHIFT;
        match u32::try_from(ticks) {
            Ok(ticks) if tls::advance(&state.cursor, cursor, cursor + layout::RECORD_BYTES) => {
                return Some((cursor, ticks));
            }
            Ok(_) => {}
            Err(_) => leave_chunk(state, pool, false),
        }
    }
}

/// The session's time.
pub fn now(pool: &Pool<'static>) -> u64 {
    if pool.gate().load(Ordering::Relaxed) & GATE_CLOCK != 0 {
        monotonic_ns()
    } else {
        clock::tsc()
    }
}

fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes the timespec; cannot fail for this clock, so errno stays.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Gets the calling thread a chunk with room. `false`: the event cannot be recorded.
fn refill(state: &ThreadState, pool: &Pool<'static>, time: u64) -> bool {
    if state.cursor.load(Ordering::Relaxed) == 0
        && !pool.has_free()
        && (pool.is_lossy() || (state.starved.load(Ordering::Relaxed) != 0 && pool.is_exhausted()))
    {
        return false;
    }
    let mut looks_without_sign = 0;
    loop {
        let mask = sys::block_signals();
        let done = try_refill(state, pool, time);
        sys::restore_signals(mask);
        if let Some(done) = done {
            state.starved.store(0, Ordering::Relaxed);
            return done;
        }
        if pool.is_lossy() {
            return false;
        }
        // Signals are open again: a handler that allocates waits in the same way and may come back
        // with a chunk, which the next round finds.
        let heartbeat = pool.heartbeat();
        pool.wait_for_chunk(WAIT_MS);
        let has_chunk = !state
            .cursor
            .load(Ordering::Relaxed)
            .is_multiple_of(CHUNK_BYTES);
        if has_chunk || pool.has_free() || pool.is_stopped() {
            continue;
        }
        if pool.heartbeat() != heartbeat {
            looks_without_sign = 0;
            if pool.is_exhausted_since(heartbeat) {
                state.starved.store(1, Ordering::Relaxed);
                return false;
            }
            continue;
        }
        looks_without_sign += 1;
        if looks_without_sign >= PATIENCE || !drainer_lives(pool.drainer_pid()) {
            pool.stop();
        }
    }
}

/// One attempt, with signals blocked; `None`: no chunk is free now.
fn try_refill(state: &ThreadState, pool: &Pool<'static>, time: u64) -> Option<bool> {
    let cursor = state.cursor.load(Ordering::Relaxed);
    if !cursor.is_multiple_of(CHUNK_BYTES) {
        return Some(true);
    }
    if cursor != 0 {
        if !pool.is_stopped() && hand_on(state, pool, cursor - CHUNK_BYTES, time) {
            return Some(true);
        }
        close_chunk(pool, cursor - CHUNK_BYTES, RECORDS_PER_CHUNK, false);
        state.cursor.store(0, Ordering::Relaxed);
    }
    if pool.is_stopped() {
        session::stop();
        return Some(false);
    }
    let first = state.thread.load(Ordering::Relaxed) == 0;
    if first {
        state.os_tid.store(sys::gettid(), Ordering::Relaxed);
        state
            .thread
            .store(pool.next_thread().wrapping_add(1), Ordering::Relaxed);
    }
    let owner = owner(state, time, sys::thread_name());
    let index = pool.take(&owner)?;
    state
        .sequence
        .store(owner.sequence.wrapping_add(1), Ordering::Relaxed);
    let chunk = core::ptr::from_ref(pool.chunk(index)) as usize;
    state.base.store(time, Ordering::Relaxed);
    state
        .cursor
        .store(chunk + layout::CHUNK_HEADER_BYTES, Ordering::Relaxed);
    // After the cursor is set: should libc allocate for the value, that is an event like any other.
    if owner.sequence == 0 || state.end_rounds.load(Ordering::Relaxed) > 0 {
        session::arm_thread_end();
    }
    Some(true)
}

/// The calling thread as the owner of a chunk whose times count from `base`.
fn owner(state: &ThreadState, base: u64, name: [u8; 16]) -> Owner {
    Owner {
        thread: state.thread.load(Ordering::Relaxed).wrapping_sub(1),
        os_tid: state.os_tid.load(Ordering::Relaxed),
        sequence: state.sequence.load(Ordering::Relaxed),
        process: session::process(),
        pid: session::pid(),
        base,
        name,
    }
}

/// Hands a copy of the full chunk at this address to the drainer, and begins the chunk anew: it stays in this core's caches.
/// `false`: there is no free chunk, or the chunk is not whole.
fn hand_on(state: &ThreadState, pool: &Pool<'static>, chunk: usize, time: u64) -> bool {
    // The chunk's number is the last one taken.
    let sequence = state.sequence.load(Ordering::Relaxed);
    let owner = Owner {
        sequence: sequence.wrapping_sub(1),
        ..owner(state, state.base.load(Ordering::Relaxed), [0; 16])
    };
    let Some(copy) = pool.take_for_copy(&owner) else {
        return false;
    };
    let index = chunk_index(pool, chunk);
    if !pool.copy(index, copy) {
        return false;
    }
    pool.close(copy, RECORDS_PER_CHUNK, false, sys::thread_name());
    pool.restart(index, sequence, time);
    state
        .sequence
        .store(sequence.wrapping_add(1), Ordering::Relaxed);
    state.base.store(time, Ordering::Relaxed);
    state
        .cursor
        .store(chunk + layout::CHUNK_HEADER_BYTES, Ordering::Relaxed);
    true
}

fn chunk_index(pool: &Pool<'static>, chunk: usize) -> u32 {
    let first = core::ptr::from_ref(pool.chunk(0)) as usize;
    ((chunk - first) / CHUNK_BYTES) as u32
}

/// Hands the chunk at this address to the drainer.
fn close_chunk(pool: &Pool<'static>, chunk: usize, length: usize, at_end: bool) {
    pool.close(chunk_index(pool, chunk), length, at_end, sys::thread_name());
}

/// Whether the drainer's process exists and is not a zombie.
fn drainer_lives(pid: u32) -> bool {
    if !sys::process_exists(pid) {
        return false;
    }
    // The state stands behind the name, which is in parentheses and may contain any byte.
    let mut path = *b"/proc/\0\0\0\0\0\0\0\0\0\0/stat\0";
    let mut digits = [0u8; 10];
    let mut count = 0;
    let mut rest = pid;
    while rest > 0 && count < digits.len() {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    let mut at = 6;
    for digit in digits[..count].iter().rev() {
        path[at] = *digit;
        at += 1;
    }
    for byte in b"/stat\0" {
        path[at] = *byte;
        at += 1;
    }
    let Ok(fd) = sys::open(&path[..at], false) else {
        return true;
    };
    let mut stat = [0u8; 256];
    let read = sys::read(fd, &mut stat).unwrap_or(0);
    sys::close(fd);
    let stat = stat.get(..read).unwrap_or(&[]);
    let state = stat
        .iter()
        .rposition(|&byte| byte == b')')
        .and_then(|at| stat.get(at + 2));
    !matches!(state, Some(b'Z' | b'X'))
}

/// The key's destructor: in the last round it hands the thread's chunk over. Events after it
/// (other destructors, libc's own) take a new chunk, which the drainer closes when the thread is
/// gone.
pub extern "C" fn end_from_key(_: *mut c_void) {
    let state = tls::state();
    let rounds = state.end_rounds.load(Ordering::Relaxed) + 1;
    state.end_rounds.store(rounds, Ordering::Relaxed);
    if rounds < DESTRUCTOR_ROUNDS {
        session::arm_thread_end();
        return;
    }
    hand_over();
}

/// Hands the calling thread's chunk to the drainer, because it ends. Later events take a new one.
pub fn hand_over() {
    let state = tls::state();
    if session::mode() != session::RECORDING || session::gate().is_none() {
        return;
    }
    let Some(pool) = session::pool() else { return };
    leave_chunk(state, &pool, true);
}

/// Hands the calling thread's chunk to the drainer though it is not full.
fn leave_chunk(state: &ThreadState, pool: &Pool<'static>, at_end: bool) {
    let mask = sys::block_signals();
    let cursor = state.cursor.load(Ordering::Relaxed);
    if cursor != 0 {
        // The cursor of a full chunk is the chunk's end.
        let chunk = (cursor - 1) & !(CHUNK_BYTES - 1);
        let length = (cursor - chunk - layout::CHUNK_HEADER_BYTES) / layout::RECORD_BYTES;
        close_chunk(pool, chunk, length, at_end);
        state.cursor.store(0, Ordering::Relaxed);
    }
    sys::restore_signals(mask);
}
