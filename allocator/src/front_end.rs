//! The front ends behind one interface, and the choice between them.
//!
//! Fast paths try the thread's cache, which is the empty one where another front end is in use; what
//! follows a miss goes through [`current`].

use crate::cpu_cache;
use crate::fault::{DETECT, Fault, die};
use crate::hardened;
use crate::process::HEAP;
use crate::rseq::Rseq;
use crate::slow_path::SlowPath;
use crate::thread::attach;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What a front end does when a fast path missed.
pub trait FrontEnd {
    /// Its name in the statistics.
    fn name(&self) -> &'static str;

    /// An object of `class`. Null: no memory.
    fn allocate(&self, class: usize) -> *mut u8;

    /// An object of a larger class for a block of `class`, if that spares memory ([`crate::lending`]), else null.
    fn lend(&self, class: usize) -> *mut u8;

    /// An object of `class` if the cache holds one, else null.
    fn cached(&self, class: usize) -> *mut u8;

    /// Keeps an object.
    ///
    /// # Safety
    /// It is an object of `class` that nobody uses. (That it is one at all is checked, sooner or
    /// later.)
    unsafe fn free(&self, class: usize, object: *mut u8);
}

/// A cache per thread.
#[derive(Debug)]
pub struct Threads;

impl FrontEnd for Threads {
    fn name(&self) -> &'static str {
        "thread"
    }

    fn allocate(&self, class: usize) -> *mut u8 {
        let Some(cache) = attach() else {
            let _slow_path = SlowPath::enter();
            return HEAP.take_one(class).0;
        };
        // A new cache may have been filled by what attaching itself allocated.
        let object = cache.pop(class);
        if object.is_null() {
            let _slow_path = SlowPath::of_thread();
            cache.refill(&HEAP, class)
        } else {
            object
        }
    }

    fn lend(&self, class: usize) -> *mut u8 {
        let Some(cache) = attach() else {
            return null_mut();
        };
        let _slow_path = SlowPath::of_thread();
        cache.lend(&HEAP, class)
    }

    fn cached(&self, class: usize) -> *mut u8 {
        attach().map_or(null_mut(), |cache| cache.pop(class))
    }

    unsafe fn free(&self, class: usize, object: *mut u8) {
        let Some(cache) = attach() else {
            let _slow_path = SlowPath::enter();
            // SAFETY: the caller's duty.
            unsafe {
                HEAP.give(class, &[object]);
            }
            return;
        };
        // Before the mark: a handler of the SIGABRT that these end in may allocate.
        if DETECT {
            if cache.first(class) == object {
                die(Fault::DoubleFree, object as usize);
            }
            // SAFETY: a live block keeps its span; if it is none, this is where the process ends.
            unsafe { crate::central::locate(&HEAP.pages, class, object as usize) };
        }
        let slow_path = SlowPath::of_thread();
        // SAFETY: the caller's duty.
        unsafe { cache.overflow(&HEAP, class, object) };
        drop(slow_path);
        crate::helper::start_if_wanted();
    }
}

/// A cache per CPU.
#[derive(Debug)]
pub struct Cpus(Rseq);

impl FrontEnd for Cpus {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn allocate(&self, class: usize) -> *mut u8 {
        let object = cpu_cache::pop(self.0, class);
        if !object.is_null() {
            return object;
        }
        let _slow_path = SlowPath::enter();
        cpu_cache::refill(self.0, class)
    }

    // Not where the code is that every process touches.
    #[cold]
    #[inline(never)]
    fn lend(&self, class: usize) -> *mut u8 {
        let _slow_path = SlowPath::enter();
        HEAP.lend(
            class,
            |class| cpu_cache::pop(self.0, class),
            |class| cpu_cache::refill(self.0, class),
        )
    }

    fn cached(&self, class: usize) -> *mut u8 {
        cpu_cache::pop(self.0, class)
    }

    unsafe fn free(&self, class: usize, object: *mut u8) {
        // SAFETY: the caller's duty; a live block keeps its span.
        unsafe {
            if cpu_cache::push(self.0, class, object) {
                return;
            }
            let _slow_path = SlowPath::enter();
            crate::central::locate(&HEAP.pages, class, object as usize);
            cpu_cache::overflow(self.0, class, object);
        }
        crate::helper::start_if_wanted();
    }
}

/// The setting `front_end`: [`AUTO`], [`THREAD`] or [`CPU`].
pub static SETTING: AtomicU32 = AtomicU32::new(AUTO);
/// A cache per thread, which is the faster one (`docs/DESIGN.md` has the figures).
pub const AUTO: u32 = 0;
/// A cache per thread.
pub const THREAD: u32 = 1;
/// A cache per CPU.
pub const CPU: u32 = 2;

/// Follows the setting. False: it could not be followed, and each thread has its cache.
pub(crate) fn choose() -> bool {
    match SETTING.load(Relaxed) {
        // Without caches there is nothing to choose.
        CPU if !hardened::checked() => cpu_cache::start(),
        CPU => false,
        _ => true,
    }
}

/// Calls `work` with the front end of the calling thread.
#[inline]
pub(crate) fn current<R>(work: impl FnOnce(&dyn FrontEnd) -> R) -> R {
    match cpu_cache::of_thread() {
        Some(rseq) => work(&Cpus(rseq)),
        None => work(&Threads),
    }
}

/// Name of the front end in use.
#[must_use]
pub fn name() -> &'static str {
    match cpu_cache::in_use() {
        Some(rseq) => Cpus(rseq).name(),
        None => Threads.name(),
    }
}
