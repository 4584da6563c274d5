//! Telling that a limit was reached, when no lock is held.

use super::trim::trim;
use crate::limits;
use crate::partition::heaps;
use crate::slow_path::SlowPath;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// What is called when a limit is reached: [`limits::SOFT`] or [`limits::HARD`], and the bytes in use.
pub type OnLimit = extern "C" fn(which: u32, in_use_bytes: usize);

static ON_LIMIT: AtomicPtr<()> = AtomicPtr::new(null_mut());

/// Limits what the program may have in use, in bytes of spans (see [`limits`]); 0: no limit. Beyond
/// `hard` requests get null. `callback` is called when the use grows beyond `soft` and when `hard` has
/// refused a request, by the thread whose request it was and with no lock held, so that it may free
/// and trim. Without a callback, crossing `soft` gives all free memory back. If more than `soft` is in use when it is set, everything
/// that is free is given back at once ([`trim`]), and the callback is called if it is still more.
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// static TOLD: AtomicU32 = AtomicU32::new(0);
/// extern "C" fn told(which: u32, _in_use_bytes: usize) {
///     TOLD.fetch_or(which, Relaxed);
/// }
/// spanalloc::set_limits(16 << 20, 64 << 20, Some(told));
/// let large: Vec<u8> = Vec::with_capacity(20 << 20);
/// assert_eq!(TOLD.load(Relaxed), spanalloc::limits::SOFT);
/// let mut too_large: Vec<u8> = Vec::new();
/// assert!(too_large.try_reserve(100 << 20).is_err());
/// assert!(TOLD.load(Relaxed) & spanalloc::limits::HARD != 0);
/// # drop(large);
/// ```
pub fn set_limits(soft: usize, hard: usize, callback: Option<OnLimit>) {
    ON_LIMIT.store(
        callback.map_or(null_mut(), |callback| callback as *mut ()),
        Relaxed,
    );
    for heap in heaps() {
        heap.pages.limits.set_soft(soft);
        heap.pages.limits.set_hard(hard);
    }
    if soft != 0 && in_use_bytes() > soft {
        // Nobody will cross it: caches and partly used spans count, so there may be less.
        trim(0);
        let in_use = in_use_bytes();
        if let Some(callback) = callback
            && in_use > soft
        {
            callback(limits::SOFT, in_use);
        }
    }
}

/// What counts towards the limits.
fn in_use_bytes() -> usize {
    heaps().map(|heap| heap.pages.in_use_bytes()).sum()
}

#[cold]
#[inline(never)]
pub(super) fn tell_limits() {
    let told = heaps().fold(0, |told, heap| told | heap.pages.limits.take());
    let callback = ON_LIMIT.load(Relaxed);
    for which in [limits::SOFT, limits::HARD] {
        if told & which == 0 {
            continue;
        }
        if callback.is_null() {
            let _slow_path = SlowPath::enter();
            for heap in heaps() {
                heap.pages.release_free(0);
            }
            continue;
        }
        // SAFETY: only functions of this type are stored.
        let callback = unsafe { core::mem::transmute::<*mut (), OnLimit>(callback) };
        callback(which, in_use_bytes());
    }
}
