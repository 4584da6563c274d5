//! Shared mappings: memory of the worker that does not count as anonymous, unlike the subject's, and bears a name.

use heaplab_worker::elsewhere::OWN_NAME;
use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Some of it has no name: the kernel, or a filter, refused to make files in memory.
static NAMELESS: AtomicBool = AtomicBool::new(false);

/// Whether all of it stands under its name in /proc/self/maps, so that a subject's can be told apart.
pub fn is_named() -> bool {
    !NAMELESS.load(Ordering::Relaxed)
}

/// Reserves `bytes` of shared memory, zeroed, taken page by page as it is touched.
pub fn reserve(bytes: usize) -> Option<*mut u8> {
    let bytes = bytes.max(1);
    let file = named(bytes);
    let mut flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    if file < 0 {
        NAMELESS.store(true, Ordering::Relaxed);
        flags |= libc::MAP_ANONYMOUS;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory; it keeps the file, whose descriptor is ours.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), bytes, protection, flags, file, 0);
        if file >= 0 {
            libc::close(file);
        }
        (start != libc::MAP_FAILED).then_some(start.cast())
    }
}

/// A file in memory of that many bytes, which nobody else can reach; negative where there is none.
fn named(bytes: usize) -> c_int {
    let mut largest = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a place for the limit; a valid C string; the descriptor is closed where it is of no use.
    unsafe {
        // Beyond this limit the kernel sends a signal.
        let known = libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut largest) == 0;
        if !known || bytes as u64 > largest.rlim_cur {
            return -1;
        }
        let file = libc::memfd_create(OWN_NAME.as_ptr(), libc::MFD_CLOEXEC);
        if file >= 0 && libc::ftruncate(file, bytes as libc::off_t) != 0 {
            libc::close(file);
            return -1;
        }
        file
    }
}

/// An array of plain values in shared memory, zeroed, never freed. Elements are reached by raw pointer because
/// several threads use different ones at once.
pub struct SharedArray<T> {
    start: *mut T,
    len: usize,
    element: PhantomData<T>,
}

impl<T> Clone for SharedArray<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedArray<T> {}

// SAFETY: the array only hands out raw pointers; who dereferences them answers for the access.
unsafe impl<T> Sync for SharedArray<T> {}
// SAFETY: as above.
unsafe impl<T> Send for SharedArray<T> {}

impl<T> SharedArray<T> {
    /// `len` zeroed elements; zero bytes must be a valid `T`. `None` when the kernel refuses the mapping.
    pub fn new(len: usize) -> Option<Self> {
        let start = reserve(len.checked_mul(size_of::<T>())?)?.cast();
        Some(Self {
            start,
            len,
            element: PhantomData,
        })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first element.
    #[inline(always)]
    pub fn start(&self) -> *mut T {
        self.start
    }

    /// Element `index`, which must be below `len`.
    #[inline(always)]
    pub fn at(&self, index: usize) -> *mut T {
        debug_assert!(index < self.len);
        self.start.wrapping_add(index)
    }

    /// Brings all pages in, so that no fault of the harness falls into the timed part. Best effort.
    pub fn populate(&self) {
        populate(self.start.cast(), self.len * size_of::<T>(), true);
    }
}

/// Brings the pages of a range in (`write`: ready to be written). Best effort: an old kernel ignores it.
pub fn populate(start: *mut u8, bytes: usize, write: bool) {
    let first = start as usize & !4095;
    let end = (start as usize + bytes).next_multiple_of(4096);
    let advice = if write {
        libc::MADV_POPULATE_WRITE
    } else {
        libc::MADV_POPULATE_READ
    };
    // SAFETY: populating changes no contents; the range lies in mappings of this process.
    unsafe { libc::madvise(first as *mut _, end - first, advice) };
}
