//! Units and the handful of constants that every layer shares.
//!
//! A *page* is 8 KiB (the seeds' and TCMalloc's unit), which is two pages of the kernel. All
//! conversions between bytes and pages are here, so that no other file shifts by 13.

/// log2 of the allocator's page.
pub const PAGE_SHIFT: u32 = 13;
/// The allocator's page in bytes.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// The kernel's page in bytes (x86-64).
pub const OS_PAGE: usize = 4096;
/// Metadata grows by the arena, as Go's heap does: 64 MiB of heap at a time.
pub const ARENA_PAGES: usize = (64 << 20) >> PAGE_SHIFT;
/// Every block of 16 bytes or more is aligned to this (`max_align_t` on x86-64).
pub const MIN_ALIGN: usize = 16;
/// Requests above this are refused: a difference of two pointers must fit `isize`.
pub const MAX_REQUEST: usize = isize::MAX as usize - PAGE_SIZE;

/// Pages that hold `bytes` (rounded up). `bytes` must be at most [`MAX_REQUEST`].
#[inline]
#[must_use]
pub const fn pages_for(bytes: usize) -> usize {
    (bytes + PAGE_SIZE - 1) >> PAGE_SHIFT
}

/// Bytes in `pages`.
#[inline]
#[must_use]
pub const fn page_bytes(pages: usize) -> usize {
    pages << PAGE_SHIFT
}

/// `value` rounded up to a multiple of `align`, a power of two.
#[inline]
#[must_use]
pub const fn round_up(value: usize, align: usize) -> usize {
    (value + align - 1) & !(align - 1)
}

/// The default checks for mistakes of the program are there. Without them only their cost is of interest (feature
/// `no-detection`).
pub(crate) const DETECT: bool = !cfg!(feature = "no-detection");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_round_up_and_back() {
        assert_eq!(pages_for(0), 0);
        assert_eq!(pages_for(1), 1);
        assert_eq!(pages_for(8192), 1);
        assert_eq!(pages_for(8193), 2);
        assert_eq!(page_bytes(pages_for(8193)), 16384);
        assert_eq!(pages_for(MAX_REQUEST), (isize::MAX as usize) >> PAGE_SHIFT);
    }

    #[test]
    fn rounding_up_keeps_multiples() {
        assert_eq!(round_up(0, 16), 0);
        assert_eq!(round_up(16, 16), 16);
        assert_eq!(round_up(17, 16), 32);
    }
}
