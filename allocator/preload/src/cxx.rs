//! The C++ operators `new` and `delete` in all their mangled forms.
//!
//! Without memory they do what the standard says, see [`crate::cxx_failure`]. Sized forms of `delete`
//! need no page map: the size says the class, because C++ memory is never resized.

use crate::cxx_failure::{nothrow_failed, spanalloc_new_failed};
use core::ffi::c_void;
use spanalloc::alloc;

/// `std::align_val_t`.
type Align = usize;
/// `const std::nothrow_t&`.
type Nothrow = *const c_void;

#[inline(always)]
fn new(size: usize) -> *mut c_void {
    alloc::allocate_or(size, |size| new_slow(size), |size| new_slow(size)).cast()
}

/// `operator new` when the cache does not have what is wanted.
#[inline(never)]
extern "C" fn new_slow(size: usize) -> *mut u8 {
    let block = alloc::allocate_slow(size);
    if block.is_null() {
        // SAFETY: in tail position.
        return unsafe { spanalloc_new_failed(size, 1) }.cast();
    }
    block
}

#[inline(never)]
extern "C" fn new_aligned(size: usize, align: Align) -> *mut c_void {
    let block = alloc::allocate_aligned(align, size);
    if block.is_null() {
        // SAFETY: in tail position.
        return unsafe { spanalloc_new_failed(size, align) };
    }
    block.cast()
}

macro_rules! throwing_new {
    ($($name:ident)*) => {$(
        /// `operator new(size_t)` or `new[]`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(size: usize) -> *mut c_void {
            new(size)
        }
    )*};
}
throwing_new!(_Znwm _Znam);

/// `operator new(nothrow)` when the cache does not have what is wanted.
#[inline(never)]
extern "C" fn nothrow_slow(size: usize, tag: Nothrow) -> *mut u8 {
    let block = alloc::allocate_slow(size);
    if block.is_null() {
        return nothrow_failed(size, 1, tag).cast();
    }
    block
}

macro_rules! nothrow_new {
    ($($name:ident)*) => {$(
        /// `operator new(size_t, const nothrow_t&)` or `new[]`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(size: usize, tag: Nothrow) -> *mut c_void {
            let slow = |size| nothrow_slow(size, tag);
            alloc::allocate_or(size, slow, slow).cast()
        }
    )*};
}
nothrow_new!(_ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t);

macro_rules! aligned_new {
    ($($name:ident)*) => {$(
        /// `operator new(size_t, align_val_t)` or `new[]`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(size: usize, align: Align) -> *mut c_void {
            new_aligned(size, align)
        }
    )*};
}
aligned_new!(_ZnwmSt11align_val_t _ZnamSt11align_val_t);

macro_rules! aligned_nothrow_new {
    ($($name:ident)*) => {$(
        /// `operator new(size_t, align_val_t, const nothrow_t&)` or `new[]`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(size: usize, align: Align, tag: Nothrow) -> *mut c_void {
            match alloc::allocate_aligned(align, size) {
                block if block.is_null() => nothrow_failed(size, align, tag),
                block => block.cast(),
            }
        }
    )*};
}
aligned_nothrow_new!(
    _ZnwmSt11align_val_tRKSt9nothrow_t
    _ZnamSt11align_val_tRKSt9nothrow_t
);

macro_rules! delete {
    ($($name:ident($($unused:ty),*))*) => {$(
        /// `operator delete` or `delete[]`.
        ///
        /// # Safety
        /// Null or a live block of the matching `new`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(block: *mut c_void $(, _: $unused)*) {
            // SAFETY: the caller's duty.
            unsafe { alloc::free(block.cast()) }
        }
    )*};
}
delete!(
    _ZdlPv()
    _ZdaPv()
    _ZdlPvRKSt9nothrow_t(Nothrow)
    _ZdaPvRKSt9nothrow_t(Nothrow)
    _ZdlPvSt11align_val_t(Align)
    _ZdaPvSt11align_val_t(Align)
    _ZdlPvSt11align_val_tRKSt9nothrow_t(Align, Nothrow)
    _ZdaPvSt11align_val_tRKSt9nothrow_t(Align, Nothrow)
);

macro_rules! sized_aligned_delete {
    ($($name:ident)*) => {$(
        /// `operator delete(void*, size_t, align_val_t)` or `delete[]`.
        ///
        /// # Safety
        /// Null or a live block that `new` returned for this size and alignment.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(block: *mut c_void, size: usize, align: Align) {
            // SAFETY: the caller's duty.
            unsafe { alloc::free_expecting(block.cast(), size, align) }
        }
    )*};
}
sized_aligned_delete!(_ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t);

macro_rules! sized_delete {
    ($($name:ident)*) => {$(
        /// `operator delete(void*, size_t)` or `delete[]`.
        ///
        /// # Safety
        /// Null or a live block that `new` returned for this size.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(block: *mut c_void, size: usize) {
            if block.is_null() {
                return;
            }
            // SAFETY: the caller's duty.
            unsafe { alloc::free_sized(block.cast(), size, 1) }
        }
    )*};
}
sized_delete!(_ZdlPvm _ZdaPvm);
