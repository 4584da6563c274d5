//! A sampled heap profile: which stacks allocated what the program holds, and what it ever allocated.
//!
//! One byte in `profile_bytes` is sampled, at random distances ([`gap`]), and the block that contains it is
//! kept with its stack until it is freed. A block of s bytes is sampled with probability 1 − exp(−s/mean),
//! which the reader of a profile divides by, so that estimates are unbiased for every size.
//!
//! The fast paths know nothing of it: while a profile is taken every thread's slot holds a static empty
//! cache ([`crate::tls::SAMPLED`]), so each operation misses, counts down, and goes on with the thread's own cache. That
//! costs a profiled program a few nanoseconds a call and all others nothing. It needs caches
//! of threads: with `front_end=cpu`, `check` or `hardened` there is no profile.

mod gap;
mod stack;
mod table;
mod write;

use crate::alloc::set_detour;
use crate::fault::Line;
use crate::os;
use crate::slow_path::SlowPath;
use crate::sync::{Locked, RawLock};
use crate::thread::{attach, call_each};
use crate::thread_cache::{Sampling, ThreadCache};
use crate::{cpu_cache, hardened};
use core::ffi::CStr;
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// The setting `profile_bytes`: mean distance of samples; 0: no profile.
pub static MEAN: AtomicUsize = AtomicUsize::new(0);
/// The setting `profile_at_exit`.
pub static AT_EXIT: AtomicU32 = AtomicU32::new(0);
/// The setting `profile_signal`: the signal's number, 0 for none.
pub static SIGNAL: AtomicU32 = AtomicU32::new(0);

/// Taken with no other lock held, and no other is taken while it is held.
static TABLE: Locked<table::Table> = Locked::new(table::Table::new());

/// The lock, for the fork handlers.
pub(crate) fn lock() -> &'static RawLock {
    TABLE.raw()
}

/// A profile is being taken.
#[inline]
pub(crate) fn on() -> bool {
    MEAN.load(Relaxed) != 0
}

/// Why there is no profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Threads have no caches (`front_end=cpu`, `check`, `hardened`).
    NotSupported,
    /// No profile has been started.
    NotStarted,
    /// The system's answer to writing the file, an `errno` value.
    System(i32),
}

impl Error {
    /// As an `errno` value: `ENOTSUP`, `ENODATA` or the system's.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::NotSupported => libc::ENOTSUP,
            Self::NotStarted => libc::ENODATA,
            Self::System(code) => code,
        }
    }
}

/// Samples one byte in `mean_bytes` from now on, in all threads. Blocks that are live already are not in the
/// profile. 0 stops: the profile forgets what is live, and programs run at full speed again. 512 KiB is a
/// good mean for a running service; a small program wants less.
///
/// # Errors
/// [`Error::NotSupported`].
pub fn start(mean_bytes: usize) -> Result<(), Error> {
    crate::config::load_once();
    if hardened::checked() || cpu_cache::in_use().is_some() {
        return Err(Error::NotSupported);
    }
    // Else threads that come to their first sample while one asks for it have no stacks, for as long as that one does not run.
    stack::prepare();
    // Gaps are added up in 64 bits with a sign.
    MEAN.store(mean_bytes.min(1 << 40), Relaxed);
    set_detour();
    if mean_bytes == 0 {
        let _slow_path = SlowPath::enter();
        TABLE.lock().forget_live();
    }
    // A thread that has no cache yet looks when it makes one.
    let _slow_path = SlowPath::with_bins();
    call_each(|_| true);
    Ok(())
}

/// Writes the profile to a file, in the text form that pprof and jeprof read (docs/PROFILE.md).
///
/// # Errors
/// [`Error::NotStarted`], or what the system said.
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
/// spanalloc::profile::start(1024)?;
/// let blocks: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; 1000]).collect();
/// let path = std::env::temp_dir().join(format!("spanalloc-doc-{}.heap", std::process::id()));
/// let name = std::ffi::CString::new(path.to_str().expect("a plain name")).expect("no null byte");
/// spanalloc::profile::write(&name)?;
/// let text = std::fs::read_to_string(&path).expect("the file was written");
/// assert!(text.starts_with("heap profile: ") && text.contains("@ heap_v2/1024\n"));
/// spanalloc::profile::start(0)?;
/// # std::fs::remove_file(&path).expect("the file is ours");
/// # drop(blocks);
/// # Ok::<(), spanalloc::profile::Error>(())
/// ```
pub fn write(path: &CStr) -> Result<(), Error> {
    let _slow_path = SlowPath::enter();
    write_unmarked(path)
}

/// [`write`] by a thread of the allocator's own.
fn write_unmarked(path: &CStr) -> Result<(), Error> {
    if !on() {
        return Err(Error::NotStarted);
    }
    match write::to_file(path) {
        0 => Ok(()),
        code => Err(Error::System(code)),
    }
}

/// Figures of the profile.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProfileStats {
    /// Sampled blocks that are live, and all so far.
    pub live_samples: u64,
    pub samples: u64,
    /// Samples that were given up because there was no memory to keep them.
    pub dropped: u64,
    /// Bytes of the profile's own records.
    pub memory_bytes: usize,
}

/// Figures of the profile.
#[must_use]
pub fn profile_stats() -> ProfileStats {
    let table = TABLE.lock();
    ProfileStats {
        live_samples: table.live_count.blocks,
        samples: table.all_count.blocks,
        dropped: table.dropped,
        memory_bytes: table.mapped,
    }
}

/// Counts an allocation; samples it when its turn has come. To be called with no lock held.
pub(crate) fn allocated(block: *mut u8, size: usize) {
    if !block.is_null()
        && let Some(own) = attach()
    {
        allocated_by(own, block, size);
    }
}

/// [`allocated`] by the thread whose cache that is; the block is one. Mostly it only counts.
#[inline]
pub(crate) fn allocated_by(own: &ThreadCache, block: *mut u8, size: usize) {
    let turn = &own.sampling;
    let left = turn
        .left
        .load(Relaxed)
        .saturating_sub_unsigned(size.max(1) as u64);
    let drawn = turn.mean.load(Relaxed) == MEAN.load(Relaxed);
    if left > 0 && drawn && turn.busy.load(Relaxed) == 0 {
        turn.left.store(left, Relaxed);
    } else {
        turn_or_sample(turn, block, size);
    }
}

/// [`allocated_by`] when the sample's turn has come, or when it has to be drawn first.
#[cold]
#[inline(never)]
fn turn_or_sample(turn: &Sampling, block: *mut u8, size: usize) {
    let mean = MEAN.load(Relaxed);
    if mean == 0 || turn.busy.load(Relaxed) != 0 {
        return;
    }
    if turn.mean.load(Relaxed) != mean {
        turn.mean.store(mean, Relaxed);
        let _slow_path = SlowPath::enter();
        let mut table = TABLE.lock();
        // Threads, and runs, shall not sample in step.
        // SAFETY: reads the clock.
        table.gaps.stir(unsafe { core::arch::x86_64::_rdtsc() });
        turn.left.store(table.gaps.next(mean), Relaxed);
    }
    let bytes = size.max(1);
    let left = turn
        .left
        .load(Relaxed)
        .saturating_sub_unsigned(bytes as u64);
    if left > 0 {
        turn.left.store(left, Relaxed);
        return;
    }
    // What the loader allocates while it is asked for its tables is not sampled.
    turn.busy.store(1, Relaxed);
    let frames = stack::capture();
    {
        let _slow_path = SlowPath::enter();
        let mut table = TABLE.lock();
        table.add(block as usize, bytes, &frames);
        turn.left.store(table.gaps.next(mean), Relaxed);
    }
    turn.busy.store(0, Relaxed);
}

/// Takes note that a block is about to be freed.
#[inline]
pub(crate) fn freed(block: *mut u8) {
    if table::may_be_live(block as usize) {
        let _slow_path = SlowPath::enter();
        TABLE.lock().remove(block as usize);
    }
}

/// Keeps an object in the thread's cache if it has room; false: it is still to be freed. (The slot names another cache, so that
/// fast paths did not look into it.)
///
/// # Safety
/// It is an object of `class` that nobody uses.
#[inline]
pub(crate) unsafe fn keep(object: *mut u8, class: usize) -> bool {
    // SAFETY: the caller's duty.
    attach().is_some_and(|own| unsafe { own.push(class, object) })
}

/// Takes note that a block has another size now, where it was.
pub(crate) fn resized(block: *mut u8, size: usize) {
    freed(block);
    allocated(block, size);
}

/// Turns a profile off that the other settings rule out. To be called once the settings are read.
pub(crate) fn settle() {
    set_detour();
    if on() && (hardened::checked() || cpu_cache::in_use().is_some()) {
        refuse();
    }
}

#[cold]
#[inline(never)]
fn refuse() {
    MEAN.store(0, Relaxed);
    set_detour();
    let mut line = Line::new();
    line.text(b"spanalloc: warning: no profile, because it needs caches of threads: not with ")
        .text(b"front_end=cpu, check or hardened")
        .print();
}

/// Writes to `spanalloc-PID.heap` in the working folder, or to `spanalloc-PID.N.heap` for the N-th on a
/// signal.
fn write_here(number: u32) {
    let mut path = write::Path::new();
    // It fits.
    let _ = match number {
        0 => write!(path, "spanalloc-{}.heap", os::process_number()),
        _ => write!(path, "spanalloc-{}.{number}.heap", os::process_number()),
    };
    if let Err(Error::System(code)) = write_unmarked(path.as_c()) {
        let mut line = Line::new();
        line.text(b"spanalloc: cannot write ")
            .text(path.as_c().to_bytes())
            .text(b": error ")
            .decimal(code as usize)
            .print();
    }
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

/// What [`SIGNAL`] asks for.
pub(crate) extern "C" fn on_signal() {
    write_here(SIGNALS.fetch_add(1, Relaxed) + 1);
}

/// To be called when the process ends.
pub fn at_exit() {
    if AT_EXIT.load(Relaxed) != 0 && on() {
        write_here(0);
    }
}
