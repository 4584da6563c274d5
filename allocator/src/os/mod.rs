//! The border to the operating system: where address space comes from and how pages go back.
//!
//! [`Os`] is what the page heap asks of it. Production uses [`Linux`]; tests use
//! [`fake::FakeOs`], which hands out ordinary memory and can be told to fail.

#[cfg(all(test, not(loom)))]
pub mod fake;
mod file;
mod linux;
mod signal;
mod thread;

pub use file::{File, map_fresh, process_number, remove, rename, unmap};
pub use linux::{
    Linux, abort_process, cpu_count, forget_abort_handler, futex_wait, futex_wake_one, sleep_ms,
    thread_exists, thread_ns, thread_number, write_stderr,
};
pub use linux::{block_signals, restore_signals};
pub(crate) use linux::{count_processors, syscall6};
pub use signal::{explain_faults, handle_signal};
pub use thread::BareThread;

use crate::lookup::Lookup;

/// Answer of [`Os::map_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// The range is readable, writable and zero.
    Yes,
    /// Something else lies in the range.
    Taken,
    /// The system refuses more memory.
    NoMemory,
}

/// Answer of [`Os::move_pages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Both ranges are mapped.
    Yes,
    /// The contents have moved, and nothing is mapped at their old place: the system maps nothing anew.
    WithPlace,
    /// Refused. The contents are where they were, and the target is mapped.
    No,
}

/// A source of zeroed pages at chosen addresses.
pub trait Os: Sync {
    /// A start address, 64 MiB aligned, with `len` bytes of presumably unused address space after
    /// it. `attempt` counts the calls, so that a taken range leads to another one.
    fn pick_base(&self, len: usize, attempt: u32) -> Option<usize>;

    /// Bytes of address space to plan the heap for.
    fn heap_reach(&self) -> usize;

    /// What to tell about the heap's classes, if it is the process's.
    fn lookup(&self) -> Option<&'static Lookup> {
        None
    }

    /// Maps `len` bytes of zeros at exactly `addr`.
    fn map_at(&self, addr: usize, len: usize) -> Mapped;

    /// Gives the memory of mapped pages back; they read as zero afterwards. False: refused, the
    /// contents are unchanged.
    fn purge(&self, addr: usize, len: usize) -> bool;

    /// Maps pages that were given back anew, so that they may be one mapping with their neighbours again. False: refused, nothing has
    /// changed.
    fn renew(&self, addr: usize, len: usize) -> bool;

    /// Unmaps pages: their addresses are anybody's from then on. False: refused, nothing has changed.
    fn unmap(&self, addr: usize, len: usize) -> bool;

    /// Moves mapped pages of zeros to `to`, where nothing is mapped; the addresses at `from` are anybody's from then on. False: refused,
    /// or something is mapped there; nothing has changed.
    fn hand_over(&self, from: usize, to: usize, len: usize) -> bool;

    /// Makes a page that was never used resident.
    fn touch(&self, addr: usize);

    /// Makes mapped pages resident as if each had been written to; the contents stay. False: refused, perhaps after a part.
    fn populate(&self, addr: usize, len: usize) -> bool;

    /// Puts the range, a huge page and its alignment, on one huge page. False: refused. The contents stay in
    /// either case; what was not resident may be now.
    fn collapse(&self, addr: usize, len: usize) -> bool;

    /// Whether all pages of a range, at most a huge page, are in memory. False also if the system does not tell.
    fn is_resident(&self, addr: usize, len: usize) -> bool;

    /// Moves the contents of `len` bytes from `from` to `to` without copying, whose own contents nobody needs; both ranges stay
    /// mapped, if the system permits it, and `from` reads as zero afterwards.
    fn move_pages(&self, from: usize, to: usize, len: usize) -> Moved;

    /// Makes mapped pages usable, or untouchable. False: refused, nothing has changed.
    fn protect(&self, addr: usize, len: usize, usable: bool) -> bool;

    /// Milliseconds of a monotonic clock, coarse and cheap.
    fn now_ms(&self) -> u64;

    /// Nanoseconds of a monotonic clock.
    fn now_ns(&self) -> u64;

    /// Processors on which the process's threads may run.
    fn processors(&self) -> usize;
}
