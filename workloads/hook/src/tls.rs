//! The recorder's thread-local state, with the initial-exec model written by hand.
//!
//! `thread_local!` in a shared library calls `__tls_get_addr`, which costs more than the rest of
//! a record and may allocate. A preloaded library has static TLS, so a symbol in `.tbss` whose
//! offset is read from the GOT is one load away.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What a thread needs to record. All zero at thread start. Only its thread and signal handlers
/// on it touch it: the atomics are for the latter, plain moves on this machine.
#[repr(C)]
pub struct ThreadState {
    /// Address of the next record. A multiple of the chunk size when there is none: 0 without a
    /// chunk, the chunk's end when it is full.
    pub cursor: AtomicUsize,
    /// The session's clock when the chunk was taken.
    pub base: AtomicU64,
    /// Thread number in the session + 1; 0 before the first event.
    pub thread: AtomicU32,
    /// Chunks this thread has had.
    pub sequence: AtomicU32,
    /// The kernel's thread id.
    pub os_tid: AtomicU32,
    /// How often the key's destructor ran.
    pub end_rounds: AtomicU32,
    /// Number that a process gets which this thread is forking off now.
    pub child: AtomicU32,
    /// 1: this thread has waited for a chunk in vain while idle threads held them all, and drops
    /// its events until one comes free.
    pub starved: AtomicU32,
}

core::arch::global_asm!(
    ".pushsection .tbss.heaplab_recorder_state,\"awT\",@nobits",
    ".p2align 6",
    ".globl heaplab_recorder_state",
    ".hidden heaplab_recorder_state",
    ".type heaplab_recorder_state, @object",
    ".size heaplab_recorder_state, 64",
    "heaplab_recorder_state:",
    ".zero 64",
    ".popsection",
);

const _: () = assert!(size_of::<ThreadState>() <= 64);

impl ThreadState {
    /// Begins anew: the only thread of a forked process is none of its parent's.
    pub fn forget(&self) {
        self.cursor.store(0, Ordering::Relaxed);
        for word in [
            &self.thread,
            &self.sequence,
            &self.os_tid,
            &self.end_rounds,
            &self.child,
            &self.starved,
        ] {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// The calling thread's state.
#[inline(always)]
pub fn state() -> &'static ThreadState {
    let address: *const ThreadState;
    // SAFETY: `fs:[0]` is the thread pointer (x86-64 ABI), the GOT entry the symbol's offset from
    // it. The result is the same for the whole life of the calling thread.
    unsafe {
        core::arch::asm!(
            "mov {address}, qword ptr fs:[0]",
            "add {address}, qword ptr [rip + heaplab_recorder_state@GOTTPOFF]",
            address = out(reg) address,
            options(pure, readonly, nostack),
        );
        // SAFETY: 64 zeroed bytes, aligned to 64, that hold nothing but atomics. The reference is
        // used only by the calling thread while it runs.
        &*address
    }
}

/// Moves the cursor on if it still is `old`: atomic against signal handlers on this thread, which
/// needs no bus lock.
#[inline(always)]
pub fn advance(cursor: &AtomicUsize, old: usize, new: usize) -> bool {
    let previous: usize;
    // SAFETY: the cell is alive and aligned; the instruction writes it and rax only.
    unsafe {
        core::arch::asm!(
            "cmpxchg qword ptr [{cell}], {new}",
            cell = in(reg) cursor.as_ptr(),
            new = in(reg) new,
            inlateout("rax") old => previous,
            options(nostack),
        );
    }
    previous == old
}
