//! A thread's state for capturing stacks, thread-local as the recorder's own (see `heaplab_hook::tls`).

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use heaplab_unwind::Shadow;

/// All zero at thread start; touched by its thread and signal handlers on it only.
#[repr(C)]
pub struct StackState {
    /// Address of the [`Entry`] of the hook that is running; 0 outside of hooks. Offset 0: `entry` writes it.
    pub entry: AtomicUsize,
    /// Bytes before the next sample point; below 0: none is drawn yet, or every allocation is due.
    pub left: AtomicI64,
    /// State of the sampler; 0 before the first draw.
    pub random: AtomicU64,
    /// The stack that was walked last: its lowest and its end address.
    pub low: AtomicUsize,
    pub high: AtomicUsize,
    /// How often the limits of the stack had to be looked up.
    pub lookups: AtomicU32,
    /// 1: the shadow is in use.
    busy: AtomicU32,
    /// The last stack that was walked.
    shadow: UnsafeCell<Shadow>,
}

impl StackState {
    /// Does something with the shadow; `None` in a handler that has interrupted that, and after one that jumped out of it.
    #[inline(always)]
    pub fn with_shadow<T>(&self, work: impl FnOnce(&mut Shadow) -> T) -> Option<T> {
        if self.busy.load(Ordering::Relaxed) != 0 {
            return None;
        }
        self.busy.store(1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: only this thread touches its state, and on it nobody else while `busy` is set.
        let result = work(unsafe { &mut *self.shadow.get() });
        compiler_fence(Ordering::SeqCst);
        self.busy.store(0, Ordering::Relaxed);
        Some(result)
    }
}

/// What the exported functions leave on the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entry {
    pub unused: usize,
    /// The caller's rbp.
    pub bp: usize,
    /// The entry that was current before.
    pub outer: usize,
    /// Return address into the caller.
    pub back: usize,
}

core::arch::global_asm!(
    ".pushsection .tbss.heaplab_recorder_stacks,\"awT\",@nobits",
    ".p2align 6",
    ".globl heaplab_recorder_stacks",
    ".hidden heaplab_recorder_stacks",
    ".type heaplab_recorder_stacks, @object",
    ".size heaplab_recorder_stacks, {bytes}",
    "heaplab_recorder_stacks:",
    ".zero {bytes}",
    ".popsection",
    bytes = const size_of::<StackState>(),
);

// Threads may have stacks of 16 KiB, of which libc takes this.
const _: () = assert!(size_of::<StackState>() <= 3456 && align_of::<StackState>() <= 64);
const _: () = assert!(core::mem::offset_of!(StackState, entry) == 0);

/// The calling thread's state.
#[inline(always)]
pub fn get() -> &'static StackState {
    let address: *const StackState;
    // SAFETY: `fs:[0]` is the thread pointer (x86-64 ABI), the GOT entry the symbol's offset from
    // it. The result is the same for the whole life of the calling thread.
    unsafe {
        core::arch::asm!(
            "mov {address}, qword ptr fs:[0]",
            "add {address}, qword ptr [rip + heaplab_recorder_stacks@GOTTPOFF]",
            address = out(reg) address,
            options(pure, readonly, nostack),
        );
        // SAFETY: zeroed bytes of this size, aligned to 64, that hold atomics and a cell, for which zeros are a valid state.
        // The reference is used only by the calling thread while it runs.
        &*address
    }
}
