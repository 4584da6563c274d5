//! The allocators under test behind one table of C entry points, so that every one of them is
//! called the same way: through a pointer, never inlined.

pub mod choice;
pub mod threads;

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An allocator's entry points. The contracts are those of the C functions of these names.
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    /// Name in the results.
    pub name: &'static str,
    /// `malloc`.
    pub malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    /// `free`.
    pub free: unsafe extern "C" fn(*mut c_void),
    /// `calloc`.
    pub calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    /// `realloc`; here never with null or with size 0.
    pub realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
}

unsafe extern "C" fn span_malloc(size: usize) -> *mut c_void {
    spanalloc::alloc::allocate(size).cast()
}

unsafe extern "C" fn span_calloc(count: usize, size: usize) -> *mut c_void {
    count
        .checked_mul(size)
        .map_or(std::ptr::null_mut(), |bytes| {
            spanalloc::alloc::allocate_zeroed(bytes).cast()
        })
}

unsafe extern "C" fn mi_calloc(count: usize, size: usize) -> *mut c_void {
    count
        .checked_mul(size)
        // SAFETY: no precondition.
        .map_or(std::ptr::null_mut(), |bytes| unsafe {
            libmimalloc_sys::mi_zalloc(bytes)
        })
}

unsafe extern "C" fn span_free(block: *mut c_void) {
    // SAFETY: the caller's duty, as for `free`.
    unsafe { spanalloc::alloc::free(block.cast()) };
}

unsafe extern "C" fn span_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's duty, as for `realloc`.
    unsafe { spanalloc::alloc::reallocate(block.cast(), size).cast() }
}

/// All allocators; spanalloc first.
pub const ALLOCATORS: [Allocator; 4] = [
    Allocator {
        name: "spanalloc",
        malloc: span_malloc,
        free: span_free,
        calloc: span_calloc,
        realloc: span_realloc,
    },
    Allocator {
        name: "jemalloc",
        malloc: tikv_jemalloc_sys::malloc,
        free: tikv_jemalloc_sys::free,
        calloc: tikv_jemalloc_sys::calloc,
        realloc: tikv_jemalloc_sys::realloc,
    },
    Allocator {
        name: "mimalloc",
        malloc: libmimalloc_sys::mi_malloc,
        free: libmimalloc_sys::mi_free,
        calloc: mi_calloc,
        realloc: libmimalloc_sys::mi_realloc,
    },
    Allocator {
        name: "system",
        malloc: libc::malloc,
        free: libc::free,
        calloc: libc::calloc,
        realloc: libc::realloc,
    },
];

/// The order in which a batch is freed, relative to the order of allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Lifo,
    Fifo,
    /// Looks random and is always the same.
    Random,
}

/// Indices `0..count` in an order.
#[must_use]
pub fn order(count: usize, order: Order) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..count as u32).collect();
    match order {
        Order::Lifo => indices.reverse(),
        Order::Fifo => {}
        Order::Random => {
            let mut state = 0x9E37_79B9_7F4A_7C15_u64;
            for at in (1..count).rev() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                indices.swap(at, (state % (at as u64 + 1)) as usize);
            }
        }
    }
    indices
}

impl Allocator {
    /// The allocator that a shared library exports under the C names. It stays loaded.
    ///
    /// # Errors
    /// The library cannot be loaded, or has no malloc of its own.
    pub fn load(name: String, path: &Path) -> Result<Self, String> {
        let file = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| format!("{} is no path", path.display()))?;
        // SAFETY: the path is a C string; what the library's constructors do is the caller's choice.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failure it is a C string.
            let reason = unsafe { CStr::from_ptr(libc::dlerror()) };
            return Err(format!(
                "cannot load {}: {}",
                path.display(),
                reason.to_string_lossy()
            ));
        }
        let system = [
            libc::malloc as *const c_void,
            libc::free as *const c_void,
            libc::calloc as *const c_void,
            libc::realloc as *const c_void,
        ];
        let mut found = [std::ptr::null_mut(); 4];
        for (at, symbol) in [c"malloc", c"free", c"calloc", c"realloc"]
            .into_iter()
            .enumerate()
        {
            // SAFETY: the handle is open and the name a C string.
            found[at] = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
            if found[at].is_null() || found[at].cast_const() == system[at] {
                return Err(format!(
                    "{} has no {} of its own",
                    path.display(),
                    symbol.to_string_lossy()
                ));
            }
        }
        // SAFETY: functions of these names have these types.
        unsafe {
            Ok(Self {
                name: name.leak(),
                malloc: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(usize) -> *mut c_void,
                >(found[0]),
                free: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(
                    found[1],
                ),
                calloc: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(usize, usize) -> *mut c_void,
                >(found[2]),
                realloc: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
                >(found[3]),
            })
        }
    }

    /// A block whose first byte has been written.
    #[inline]
    #[must_use]
    pub fn block(&self, size: usize) -> *mut u8 {
        // SAFETY: malloc has no precondition; the block has at least one byte if it is not null.
        unsafe {
            let block = (self.malloc)(size).cast::<u8>();
            assert!(
                !block.is_null(),
                "{}: no memory for {size} bytes",
                self.name
            );
            block.write(1);
            block
        }
    }

    /// Frees a block.
    ///
    /// # Safety
    /// `block` came from this allocator and is not used any more.
    #[inline]
    pub unsafe fn release(&self, block: *mut u8) {
        // SAFETY: the caller's duty.
        unsafe { (self.free)(block.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_without_a_malloc_of_its_own_is_refused() {
        let load = |path: &str| Allocator::load("x".into(), Path::new(path)).map(|_| ());
        let error = load("libm.so.6").expect_err("mathematics only");
        assert_eq!(error, "libm.so.6 has no malloc of its own");
        let error = load("/nowhere/lib.so").expect_err("there is no such file");
        assert!(
            error.starts_with("cannot load /nowhere/lib.so: "),
            "{error}"
        );
    }

    #[test]
    fn every_allocator_allocates_grows_and_frees_through_its_own_entries() {
        for allocator in ALLOCATORS {
            let before = spanalloc::stats().in_use_bytes;
            let block = allocator.block(1 << 20);
            let ours = spanalloc::stats().in_use_bytes >= before + (1 << 20);
            assert_eq!(ours, allocator.name == "spanalloc", "{}", allocator.name);
            // SAFETY: the block is live, and it is not used after it has moved or was freed.
            unsafe {
                let grown = (allocator.realloc)(block.cast(), 2 << 20).cast::<u8>();
                assert_eq!(grown.read(), 1, "{}", allocator.name);
                allocator.release(grown);
            }
        }
    }
}
