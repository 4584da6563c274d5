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
    /// Bytes in other threads' caches, which each of them empties at its next operation, and in those of CPUs that the kernel lets
    /// nobody reach.
    pub unreachable_bytes: usize,
}

/// Gives back to the system what is free: the caller's cache, the middle tier with the free pages
/// inside its spans, and all free runs but `keep_bytes`. Every other thread is called to empty its
/// cache, which it does before its next operation; what was not here at the end of this call is in
/// the result.
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
/// let blocks: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; 30_000]).collect();
/// drop(blocks);
/// let trimmed = spanalloc::trim(0);
/// println!(
///     "{} bytes went back, {} are in caches of others",
///     trimmed.released_bytes, trimmed.unreachable_bytes
/// );
/// assert!(trimmed.released_bytes > 0);
/// // What a service is about to need again can stay.
/// spanalloc::trim(64 << 20);
/// ```
pub fn trim(keep_bytes: usize) -> Trimmed {
    let _slow_path = SlowPath::with_bins();
    cpu_cache::empty_all();
    crate::thread::call_all();
    let mut released_bytes = HEAP.trim(keep_bytes);
    if let Some(heap) = data() {
        released_bytes += heap.trim(0);
    }
    Trimmed {
        released_bytes,
        unreachable_bytes: crate::stats::unreached_bytes(),
    }
}
