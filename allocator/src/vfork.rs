//! Children of `vfork` and restartable sequences.
//!
//! Such a child runs on its parent's memory as its parent's thread, whose thread-local storage says which CPU that one ran
//! on. But the kernel has not registered the child (rseq(2)): nobody keeps that number true or sends the child back to the
//! start of a section, while the parent's other threads go on with the same lists. So the child gets no cache: it works
//! with the central lists, under their locks, until it executes another program or ends, and the parent takes its place
//! again. The preload library stands in for `vfork` to say when that is; a bare `clone` is not seen. A cache of the
//! thread's own needs none of this, since the thread itself waits.

use crate::cpu_cache;
use crate::thread_cache::ThreadCache;
use crate::tls;
use core::ptr::from_ref;

/// What the thread has in its slot before `vfork`, for [`leave`].
#[must_use]
pub extern "C" fn before() -> *const ThreadCache {
    from_ref(tls::cache())
}

/// In the child: no cache from now on.
pub extern "C" fn enter() {
    if cpu_cache::of_thread().is_some() {
        tls::set_cache(tls::ENDED.shown());
    }
}

/// In the parent, to whom `vfork` has returned: as [`before`] found it. (A child that calls `vfork` itself is a parent, too,
/// and stays without.)
pub extern "C" fn leave(before: *const ThreadCache) {
    if core::ptr::eq(tls::cache(), &raw const tls::ENDED)
        && core::ptr::eq(before, &raw const tls::EMPTY)
    {
        tls::set_cache(&tls::EMPTY);
    }
}
