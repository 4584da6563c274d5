//! A thread's mark: it is in a slow path of the allocator.
//!
//! Whoever comes to a slow path and finds the mark can only be a signal handler that interrupted one of the same thread: it
//! would meet bins half changed, or wait for ever for a lock that its own thread holds. Threads of the allocator's own
//! ([`crate::os::BareThread`]) share somebody's thread-local storage and must not come here.

use crate::fault::{DETECT, Fault, die, reporting};
use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// Not in a slow path.
const OUTSIDE: usize = 0;
/// In one that changes bins.
pub(crate) const BINS: usize = 1;
/// In one that changes only what locks guard.
pub(crate) const LOCKED: usize = 2;

#[cfg(not(feature = "portable-tls"))]
core::arch::global_asm!(
    ".pushsection .tbss.spanalloc_mark,\"awT\",@nobits",
    ".balign 8",
    ".hidden __spanalloc_mark",
    ".globl __spanalloc_mark",
    ".type __spanalloc_mark,@object",
    ".size __spanalloc_mark,8",
    "__spanalloc_mark:",
    ".zero 8",
    ".popsection",
);

#[cfg(not(feature = "portable-tls"))]
#[inline(always)]
fn get() -> usize {
    let mark;
    // SAFETY: reads the thread's own word.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + __spanalloc_mark@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0}]",
            out(reg) mark,
            options(readonly, nostack, preserves_flags),
        );
    }
    mark
}

#[cfg(not(feature = "portable-tls"))]
#[inline(always)]
fn set(mark: usize) {
    // SAFETY: writes the thread's own word.
    unsafe {
        core::arch::asm!(
            "mov {offset}, qword ptr [rip + __spanalloc_mark@GOTTPOFF]",
            "mov qword ptr fs:[{offset}], {mark}",
            offset = out(reg) _,
            mark = in(reg) mark,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(feature = "portable-tls")]
mod portable {
    extern crate std;
    use core::cell::Cell;

    std::thread_local! {
        // No destructor, so it is usable until the very end of the thread.
        static MARK: Cell<usize> = const { Cell::new(super::OUTSIDE) };
    }

    pub(super) fn get() -> usize {
        MARK.get()
    }

    pub(super) fn set(mark: usize) {
        MARK.set(mark);
    }
}

#[cfg(feature = "portable-tls")]
use portable::{get, set};

/// Marks a slow path; ends the process if one of this thread was interrupted.
#[inline(always)]
pub(crate) fn enter(mark: usize) {
    if DETECT {
        if get() != OUTSIDE {
            interrupted();
        }
        set(mark);
        compiler_fence(SeqCst);
    }
}

/// The thread is in a slow path, so that the caller is a handler of a signal that interrupted it.
#[inline]
pub(crate) fn is_set() -> bool {
    get() != OUTSIDE
}

/// The slow path is over.
#[inline(always)]
pub(crate) fn leave() {
    if DETECT {
        compiler_fence(SeqCst);
        set(OUTSIDE);
    }
}

#[cold]
#[inline(never)]
fn interrupted() {
    // A handler of the process's end may allocate: where nothing but a lock could stop it, `sync` looks after that.
    if get() != LOCKED || !reporting() {
        die(Fault::Interrupted, crate::os::thread_number() as usize);
    }
}
