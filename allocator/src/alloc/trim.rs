//! Giving back what is free, wherever it is.

use crate::cpu_cache;
use crate::partition::data;
use crate::process::HEAP;
use crate::slow_path::SlowPath;

/// What a trim could do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes given back to the system.
    pub released_bytes: usize,
    /// Bytes in other threads' caches, which each of them empties at its next operation.
    pub unreachable_bytes: usize,
}

/// Gives back to the system what is free: the caller's cache, the middle tier with the free pages
/// inside its spans, and all free runs but `keep_bytes`. Every other thread is called to empty its
/// cache, which it does before its next operation; what was not here at the end of this call is in
/// the result.
pub fn trim(keep_bytes: usize) -> Trimmed {
    let _slow_path = SlowPath::with_bins();
    let of_cpus = cpu_cache::empty_all();
    crate::thread::call_all();
    let mut released_bytes = HEAP.trim(keep_bytes);
    if let Some(heap) = data() {
        released_bytes += heap.trim(0);
    }
    Trimmed {
        released_bytes,
        unreachable_bytes: crate::thread::unreached_bytes() + of_cpus,
    }
}
