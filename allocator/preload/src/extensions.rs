//! `spanalloc_*`: what `spanalloc.h` declares.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{CStr, c_char, c_int, c_void};
use spanalloc::alloc::OnLimit;
use spanalloc::walk::Region;

/// The version with a null byte at its end, taken from the package.
static VERSION: &CStr = {
    const TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    match CStr::from_bytes_with_nul(TEXT.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version has no null byte"),
    }
};

/// The version, for example "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Writes the statistics as JSON and a null byte into `buffer` of `len` bytes. Returns the length
/// of the text without the null byte; if that is not less than `len`, the text was cut off.
///
/// # Safety
/// `buffer` is writable for `len` bytes, or `len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanalloc_stats_json(buffer: *mut c_char, len: usize) -> usize {
    if buffer.is_null() || len == 0 {
        return spanalloc::stats::write_json(&mut []);
    }
    // SAFETY: the caller's duty; zeroed first, because a slice must not be uninitialised.
    unsafe {
        buffer.write_bytes(0, len);
        let bytes = core::slice::from_raw_parts_mut(buffer.cast::<u8>(), len - 1);
        spanalloc::stats::write_json(bytes)
    }
}

/// Gives all free memory back to the system. Returns the bytes given back.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_release_memory() -> usize {
    spanalloc::trim(0).released_bytes
}

/// `malloc` for a block that will hold no pointers, see [`spanalloc::DataAlloc`].
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_malloc_data(size: usize) -> *mut c_void {
    match Layout::from_size_align(size, 1) {
        // SAFETY: any size is an answer; a size of 0 gets a block as in `malloc`.
        Ok(layout) => unsafe { spanalloc::DataAlloc.alloc(layout) }.cast(),
        Err(_) => {
            crate::c::set_errno(libc::ENOMEM);
            core::ptr::null_mut()
        }
    }
}

/// Makes a block usable for at least `size` bytes where it is, see [`spanalloc::alloc::try_grow`]. Returns the
/// bytes that it has then, or 0: nothing has changed.
///
/// # Safety
/// Null or a live block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanalloc_try_grow(block: *mut c_void, size: usize) -> usize {
    if block.is_null() {
        return 0;
    }
    // SAFETY: the caller's duty.
    unsafe { spanalloc::alloc::try_grow(block.cast(), size) }.unwrap_or(0)
}

/// Writes the heap profile to `path`, see [`spanalloc::profile::write`]. Returns 0 or an `errno` value.
///
/// # Safety
/// `path` is a C string or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanalloc_heap_profile(path: *const c_char) -> c_int {
    if path.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: the caller's duty.
    let path = unsafe { CStr::from_ptr(path) };
    spanalloc::profile::write(path).map_or_else(|error| error.code(), |()| 0)
}

/// Starts or, with 0, stops a heap profile, see [`spanalloc::profile::start`]. Returns 0 or an `errno`
/// value.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_profile_start(mean_bytes: usize) -> c_int {
    spanalloc::profile::start(mean_bytes).map_or_else(|error| error.code(), |()| 0)
}

/// Calls `visit` with every region of the heap until it returns something other than 0, which is
/// then the result; 0 when the walk came to its end.
///
/// # Safety
/// `visit` can be called with a region that is valid during the call, and with `context`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spanalloc_walk(
    visit: extern "C" fn(*const Region, *mut c_void) -> c_int,
    context: *mut c_void,
) -> c_int {
    let mut result = 0;
    spanalloc::walk(|region| {
        result = visit(region, context);
        result == 0
    });
    result
}

/// Limits what the program may have in use, see [`spanalloc::set_limits`].
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_set_limits(soft: usize, hard: usize, callback: Option<OnLimit>) {
    spanalloc::set_limits(soft, hard, callback);
}

/// Prints the statistics as text on standard error.
#[unsafe(no_mangle)]
pub extern "C" fn spanalloc_dump() {
    spanalloc::dump::print();
}
