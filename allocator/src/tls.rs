//! The one word of thread-local storage: where the thread's cache is.
//!
//! `thread_local!` in a shared library costs a call of `__tls_get_addr` on every use. The word
//! here is a symbol of our own with the initial-exec model, which is two loads: its offset from
//! the thread pointer comes from the global offset table, filled in by the loader. Its initial
//! value is the address of a static cache without room, so that it is never null and a thread's
//! first operation takes the slow path like any other miss. Invariants: T1 the slot is never null;
//! T2 reading it calls nothing.
//!
//! The feature `portable-tls` replaces it by `thread_local!`, with the same behaviour.

use crate::thread_cache::ThreadCache;
#[cfg(not(feature = "portable-tls"))]
use core::sync::atomic::AtomicPtr;

/// The cache of threads that have none yet. Nobody writes to it, and nobody can once it is relocated; beside what else is so it takes no
/// page of its own.
#[unsafe(link_section = ".data.rel.ro.spanalloc_empty")]
pub static EMPTY: ThreadCache = ThreadCache::new();
/// The cache of threads that are past their end: it never becomes a real one. As the next two, it must be
/// [`ThreadCache::shown`] before a slot names it.
pub static ENDED: ThreadCache = ThreadCache::unshown();
/// In the slot of a thread that is called to empty its cache: it has no room either, so the thread's
/// next operation takes the slow path, where the thread puts its own cache back.
pub static CALLED: ThreadCache = ThreadCache::unshown();
/// In the slot of every thread while a profile is taken: it has no room, so each operation takes the slow
/// path, which counts it and works with the thread's own cache ([`own`]).
pub static SAMPLED: ThreadCache = ThreadCache::unshown();

#[cfg(not(feature = "portable-tls"))]
core::arch::global_asm!(
    ".pushsection .tdata.spanalloc_cache_slot,\"awT\",@progbits",
    ".balign 8",
    ".hidden __spanalloc_cache_slot",
    ".globl __spanalloc_cache_slot",
    ".type __spanalloc_cache_slot,@object",
    ".size __spanalloc_cache_slot,32",
    "__spanalloc_cache_slot:",
    ".quad {empty}",
    // The thread's own cache, whatever the slot says.
    ".quad 0",
    // The thread's cache of the data partition.
    ".quad {empty}",
    // Not 0 once the loader has copied these values ([`is_set_up`]).
    ".quad 1",
    ".popsection",
    empty = sym EMPTY,
);

/// The thread's cache.
#[cfg(not(feature = "portable-tls"))]
#[inline(always)]
#[must_use]
pub fn cache() -> &'static ThreadCache {
    let slot: *const ThreadCache;
    // SAFETY: reads the thread's own slot. T1: it always holds the address of a cache, static or
    // from metadata that is never unmapped.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + __spanalloc_cache_slot@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0}]",
            out(reg) slot,
            options(pure, readonly, nostack, preserves_flags),
        );
        &*slot
    }
}

/// Whether the thread's storage has its first values. Not in resolvers of indirect functions, which run while the loader
/// relocates the program: what the slot is given then (by the preload library, which see) is lost when the values come.
#[cfg(not(feature = "portable-tls"))]
#[must_use]
pub(crate) fn is_set_up() -> bool {
    let word: usize;
    // SAFETY: reads the thread's own word.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + __spanalloc_cache_slot@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0} + 24]",
            out(reg) word,
            options(readonly, nostack, preserves_flags),
        );
    }
    word != 0
}

/// Where the calling thread's slot is, for others to write to as long as the thread exists.
#[cfg(not(feature = "portable-tls"))]
#[must_use]
pub fn slot_address() -> *mut AtomicPtr<ThreadCache> {
    let slot: *mut AtomicPtr<ThreadCache>;
    // SAFETY: computes an address: the thread pointer (which is its own first word) and the offset.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + __spanalloc_cache_slot@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) slot,
            options(pure, readonly, nostack),
        );
    }
    slot
}

/// Replaces the thread's cache.
#[cfg(not(feature = "portable-tls"))]
pub fn set_cache(cache: &'static ThreadCache) {
    // SAFETY: writes the thread's own slot.
    unsafe {
        core::arch::asm!(
            "mov {offset}, qword ptr [rip + __spanalloc_cache_slot@GOTTPOFF]",
            "mov qword ptr fs:[{offset}], {value}",
            offset = out(reg) _,
            value = in(reg) core::ptr::from_ref(cache),
            options(nostack, preserves_flags),
        );
    }
}

/// The thread's cache of the data partition ([`crate::partition`]).
#[cfg(not(feature = "portable-tls"))]
#[inline(always)]
#[must_use]
pub fn data_cache() -> &'static ThreadCache {
    let slot: *const ThreadCache;
    // SAFETY: as in `cache`.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + __spanalloc_cache_slot@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0} + 16]",
            out(reg) slot,
            options(pure, readonly, nostack, preserves_flags),
        );
        &*slot
    }
}

/// Where the calling thread's slot for the data partition is.
#[cfg(not(feature = "portable-tls"))]
#[must_use]
pub fn data_slot_address() -> *mut AtomicPtr<ThreadCache> {
    slot_address().wrapping_add(2)
}

/// Replaces the thread's cache of the data partition.
pub fn set_data_cache(cache: &'static ThreadCache) {
    // SAFETY: writes the thread's own slot.
    unsafe {
        (*data_slot_address()).store(
            core::ptr::from_ref(cache).cast_mut(),
            core::sync::atomic::Ordering::Relaxed,
        );
    }
}

/// The thread's own cache, null if it has none.
#[cfg(not(feature = "portable-tls"))]
#[must_use]
pub fn own() -> *mut ThreadCache {
    let own;
    // SAFETY: reads the thread's own word.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + __spanalloc_cache_slot@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0} + 8]",
            out(reg) own,
            options(readonly, nostack, preserves_flags),
        );
    }
    own
}

/// Makes a cache the thread's own, or none.
#[cfg(not(feature = "portable-tls"))]
pub fn set_own(cache: *mut ThreadCache) {
    // SAFETY: writes the thread's own word.
    unsafe {
        core::arch::asm!(
            "mov {offset}, qword ptr [rip + __spanalloc_cache_slot@GOTTPOFF]",
            "mov qword ptr fs:[{offset} + 8], {value}",
            offset = out(reg) _,
            value = in(reg) cache,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(feature = "portable-tls")]
mod portable {
    extern crate std;
    use super::{EMPTY, ThreadCache};
    use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

    std::thread_local! {
        // No destructor, so it is usable until the very end of the thread.
        static SLOT: AtomicPtr<ThreadCache> =
            const { AtomicPtr::new((&raw const EMPTY).cast_mut()) };
        static OWN: AtomicPtr<ThreadCache> = const { AtomicPtr::new(core::ptr::null_mut()) };
        static DATA: AtomicPtr<ThreadCache> =
            const { AtomicPtr::new((&raw const EMPTY).cast_mut()) };
    }

    /// The thread's cache of the data partition.
    #[must_use]
    pub fn data_cache() -> &'static ThreadCache {
        // SAFETY: T1.
        DATA.with(|slot| unsafe { &*slot.load(Relaxed) })
    }

    /// Storage of Rust's own has its values when it is first used.
    #[must_use]
    pub(crate) fn is_set_up() -> bool {
        true
    }

    /// Where the calling thread's slot for the data partition is.
    #[must_use]
    pub fn data_slot_address() -> *mut AtomicPtr<ThreadCache> {
        DATA.with(|slot| core::ptr::from_ref(slot).cast_mut())
    }

    /// The thread's own cache, null if it has none.
    #[must_use]
    pub fn own() -> *mut ThreadCache {
        OWN.with(|own| own.load(Relaxed))
    }

    /// Makes a cache the thread's own, or none.
    pub fn set_own(cache: *mut ThreadCache) {
        OWN.with(|own| own.store(cache, Relaxed));
    }

    /// The thread's cache.
    #[inline(always)]
    #[must_use]
    pub fn cache() -> &'static ThreadCache {
        // SAFETY: T1: it always holds the address of a cache, static or from metadata that is never
        // unmapped.
        SLOT.with(|slot| unsafe { &*slot.load(Relaxed) })
    }

    /// Where the calling thread's slot is, for others to write to as long as the thread exists.
    #[must_use]
    pub fn slot_address() -> *mut AtomicPtr<ThreadCache> {
        SLOT.with(|slot| core::ptr::from_ref(slot).cast_mut())
    }

    /// Replaces the thread's cache.
    pub fn set_cache(cache: &'static ThreadCache) {
        SLOT.with(|slot| slot.store(core::ptr::from_ref(cache).cast_mut(), Relaxed));
    }
}

#[cfg(feature = "portable-tls")]
pub(crate) use portable::is_set_up;
#[cfg(feature = "portable-tls")]
pub use portable::{cache, data_cache, data_slot_address, own, set_cache, set_own, slot_address};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_its_own_slot_that_starts_with_the_empty_cache() {
        static OTHER: ThreadCache = ThreadCache::new();
        std::thread::spawn(|| {
            // The test runner uses the system allocator, so nobody has replaced it.
            assert!(core::ptr::eq(cache(), &raw const EMPTY));
            set_cache(&OTHER);
            assert!(core::ptr::eq(cache(), &raw const OTHER));
            std::thread::spawn(|| assert!(core::ptr::eq(cache(), &raw const EMPTY)))
                .join()
                .expect("the inner thread sees the empty cache");
            assert!(core::ptr::eq(cache(), &raw const OTHER));
        })
        .join()
        .expect("the outer thread sees its own cache");
    }
}
