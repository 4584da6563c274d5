//! The heap walk: what every run of pages is, one after the other.
//!
//! No lock is held while the visitor runs, so it may allocate and take its time; other threads go on
//! meanwhile, so regions that came or went during the walk may be missing or told twice, but each one
//! that is told was right at its moment.

use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::{NUM_CLASSES, size_of_class};
use crate::slow_path::SlowPath;
use crate::span::State;
use crate::units::page_bytes;

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// Blocks of one size class.
    Small = 1,
    /// One large block.
    Large = 2,
    /// Free pages that occupy memory.
    Dirty = 3,
    /// Free pages that do not.
    Clean = 4,
}

/// A run of pages. The layout is that of `struct spanalloc_region` in `spanalloc.h`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Region {
    /// First address.
    pub address: *mut u8,
    /// Length in bytes.
    pub bytes: usize,
    /// Bytes of a block; 0 for free pages.
    pub block_bytes: usize,
    /// Blocks that the region has room for.
    pub blocks: usize,
    /// Of these, handed out: with the program or in caches.
    pub used: usize,
    /// Bytes inside a region of blocks that were given back to the system.
    pub purged_bytes: usize,
    /// What it is.
    pub kind: Kind,
    /// 0: of the main heap; 1: of the data partition.
    pub partition: i32,
}

impl<O: Os> Heap<O> {
    /// Calls `visit` with every region in order of address until it returns false. Returns whether
    /// the walk came to its end.
    pub fn walk(&self, visit: impl FnMut(&Region) -> bool) -> bool {
        self.walk_with(|| (), visit)
    }

    /// As [`Heap::walk`]; what `enter` gives is held while a region is looked at.
    pub(crate) fn walk_with<G>(
        &self,
        enter: impl Fn() -> G,
        mut visit: impl FnMut(&Region) -> bool,
    ) -> bool {
        let mut page = 0;
        while page < self.pages.map.pages() {
            let region = {
                let _looking = enter();
                self.region_at(page)
            };
            match region {
                Some(region) => {
                    if !visit(&region) {
                        return false;
                    }
                    page += region.bytes / page_bytes(1);
                }
                // A hole, or the middle of a run that has changed since the last step.
                None => page += 1,
            }
        }
        true
    }

    /// The region that starts at `page`, if one does.
    fn region_at(&self, page: usize) -> Option<Region> {
        let map = &self.pages.map;
        let class = {
            let _inner = self.pages.inner.lock();
            // SAFETY: the page is in the heap; numbers have records, which change under the lock.
            let span = unsafe { map.span_of_page(page).as_ref()? };
            if span.start as usize != page || span.state == State::Unused {
                return None;
            }
            let (kind, block_bytes) = match span.state {
                State::FreeDirty => (Kind::Dirty, 0),
                State::FreeClean => (Kind::Clean, 0),
                _ => (Kind::Large, span.bytes()),
            };
            if span.state != State::Small {
                let blocks = usize::from(kind == Kind::Large);
                return Some(Region {
                    address: map.address(span.start),
                    bytes: span.bytes(),
                    block_bytes,
                    blocks,
                    used: blocks,
                    purged_bytes: 0,
                    kind,
                    partition: 0,
                });
            }
            span.class as usize
        };
        // What is in a span of blocks belongs to its class, whose lock comes before the page heap's.
        // With it held the span stays what it is, if it still is.
        debug_assert!(class < NUM_CLASSES);
        let _central = self.central(class).inner.lock();
        // SAFETY: as above; a span of this class changes under the lock of the class.
        let span = unsafe { map.span_of_page(page).as_ref()? };
        if span.start as usize != page || span.state != State::Small || span.class as usize != class
        {
            return None;
        }
        Some(Region {
            address: map.address(span.start),
            bytes: span.bytes(),
            block_bytes: size_of_class(class),
            blocks: span.objects as usize,
            used: span.objects as usize - span.available() as usize,
            purged_bytes: span.given_back() as usize * crate::units::OS_PAGE,
            kind: Kind::Small,
            partition: 0,
        })
    }
}

/// Walks the heap of the process, the main part first, then the data partition, see [`Heap::walk`].
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
/// let block = vec![1_u8; 1 << 20];
/// let mut found = false;
/// spanalloc::walk(|region| {
///     found |= region.address as *const u8 == block.as_ptr() && region.bytes >= 1 << 20;
///     true
/// });
/// assert!(found);
/// ```
pub fn walk(mut visit: impl FnMut(&Region) -> bool) -> bool {
    crate::partition::heaps().zip(0..).all(|(heap, partition)| {
        heap.walk_with(SlowPath::enter, |region| {
            visit(&Region {
                partition,
                ..*region
            })
        })
    })
}
