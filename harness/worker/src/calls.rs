//! The subject's entry points, as the dynamic loader resolves them for everybody: whatever is preloaded decides.

use heaplab_worker::protocol::Api;
use std::ffi::{CStr, CString, c_int, c_void};

/// Function pointers of the malloc family, taken once before the run. Calling through them costs the same for every
/// subject, and the compiler cannot assume anything about them as it may about functions with these names.
#[derive(Clone, Copy)]
pub struct Calls {
    /// `malloc(size)`
    pub malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    /// `calloc(count, size)`
    pub calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    /// `aligned_alloc(alignment, size)`
    pub aligned_alloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    /// `realloc(block, size)`
    pub realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    /// `free(block)`
    pub free: unsafe extern "C" fn(*mut c_void),
    /// Free with the size known, if the subject has one and the run asks for it.
    pub sized: Option<SizedFree>,
    /// `malloc_usable_size(block)`, if it is the subject's.
    pub usable_size: Option<unsafe extern "C" fn(*mut c_void) -> usize>,
}

/// A subject's own ways to free a block whose size and alignment are known.
#[derive(Clone, Copy)]
pub enum SizedFree {
    /// C23: `free_sized(block, size)`, `free_aligned_sized(block, alignment, size)`.
    C23 {
        /// For blocks of malloc, calloc and realloc.
        plain: unsafe extern "C" fn(*mut c_void, usize),
        /// For blocks of aligned_alloc.
        aligned: unsafe extern "C" fn(*mut c_void, usize, usize),
    },
    /// jemalloc, gperftools: `sdallocx(block, size, flags)`.
    Sdallocx(unsafe extern "C" fn(*mut c_void, usize, c_int)),
    /// mimalloc: `mi_free_size(block, size)`, `mi_free_size_aligned(block, size, alignment)`.
    Mimalloc {
        /// For blocks of malloc, calloc and realloc.
        plain: unsafe extern "C" fn(*mut c_void, usize),
        /// For blocks of aligned_alloc: size before alignment.
        aligned: unsafe extern "C" fn(*mut c_void, usize, usize),
    },
    /// gperftools: `tc_free_sized(block, size)`; aligned blocks go to free.
    Tcmalloc(unsafe extern "C" fn(*mut c_void, usize)),
}

impl SizedFree {
    /// What the result calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::C23 { .. } => "free_sized",
            Self::Sdallocx(_) => "sdallocx",
            Self::Mimalloc { .. } => "mi_free_size",
            Self::Tcmalloc(_) => "tc_free_sized",
        }
    }
}

/// Address of a symbol in the loader's search order.
pub fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a valid C string; a lookup changes nothing.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// Path of the object file that an address lies in.
pub fn object_of(address: *mut c_void) -> Option<String> {
    // SAFETY: zero bytes are a valid Dl_info; dladdr fills it and the name lives as long as the object.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(address, &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        Some(
            CStr::from_ptr(info.dli_fname)
                .to_string_lossy()
                .into_owned(),
        )
    }
}

/// Address of a symbol if it lies in `object`.
pub fn own_symbol(object: &str, name: &CStr) -> Option<*mut c_void> {
    symbol(name).filter(|address| object_of(*address).as_deref() == Some(object))
}

/// Takes a symbol as a function pointer of the type wanted.
macro_rules! function {
    ($object:expr, $name:literal) => {
        own_symbol($object, $name).map(|address| {
            // SAFETY: the symbol is the function of this name, whose C signature is the type asked for.
            unsafe { std::mem::transmute(address) }
        })
    };
}

impl Calls {
    /// Resolves the family; every function must come from the object that malloc comes from.
    pub fn resolve(api: Api) -> Result<(Self, String), String> {
        let malloc = symbol(c"malloc").ok_or("malloc cannot be found")?;
        let object = object_of(malloc).ok_or("malloc lies in no object file")?;
        for name in ["calloc", "realloc", "free", "aligned_alloc"] {
            let text = CString::new(name).map_err(|error| error.to_string())?;
            let owner = symbol(&text).and_then(object_of).unwrap_or_default();
            if owner != object {
                return Err(format!(
                    "{name} comes from {owner}, not from {object} as malloc does"
                ));
            }
        }
        let missing = || "the malloc family is incomplete".to_owned();
        let calls = Self {
            malloc: function!(&object, c"malloc").ok_or_else(missing)?,
            calloc: function!(&object, c"calloc").ok_or_else(missing)?,
            aligned_alloc: function!(&object, c"aligned_alloc").ok_or_else(missing)?,
            realloc: function!(&object, c"realloc").ok_or_else(missing)?,
            free: function!(&object, c"free").ok_or_else(missing)?,
            sized: if api == Api::Sized {
                sized_free(&object)
            } else {
                None
            },
            usable_size: function!(&object, c"malloc_usable_size"),
        };
        Ok((calls, object))
    }

    /// Frees a block with what is known about it.
    ///
    /// # Safety
    /// `block` is null or a live block of the subject of `size` bytes, made with alignment `1 << align_log2` (0 = default).
    #[inline(always)]
    pub unsafe fn free_sized(&self, block: *mut c_void, size: usize, align_log2: u8) {
        // SAFETY: the caller's contract is that of the C functions.
        unsafe {
            match self.sized {
                None => (self.free)(block),
                Some(_) if block.is_null() => {}
                Some(SizedFree::C23 { plain, aligned }) => match align_log2 {
                    0 => plain(block, size),
                    shift => aligned(block, 1 << shift, size),
                },
                // MALLOCX_LG_ALIGN(shift) is the shift itself.
                Some(SizedFree::Sdallocx(free)) => {
                    free(block, size.max(1), c_int::from(align_log2))
                }
                Some(SizedFree::Mimalloc { plain, aligned }) => match align_log2 {
                    0 => plain(block, size),
                    shift => aligned(block, size, 1 << shift),
                },
                Some(SizedFree::Tcmalloc(plain)) => match align_log2 {
                    0 => plain(block, size),
                    _ => (self.free)(block),
                },
            }
        }
    }
}

/// The subject's own sized free, best known entry first.
pub fn sized_free(object: &str) -> Option<SizedFree> {
    if let (Some(plain), Some(aligned)) = (
        function!(object, c"free_sized"),
        function!(object, c"free_aligned_sized"),
    ) {
        return Some(SizedFree::C23 { plain, aligned });
    }
    if let Some(free) = function!(object, c"sdallocx") {
        return Some(SizedFree::Sdallocx(free));
    }
    if let (Some(plain), Some(aligned)) = (
        function!(object, c"mi_free_size"),
        function!(object, c"mi_free_size_aligned"),
    ) {
        return Some(SizedFree::Mimalloc { plain, aligned });
    }
    function!(object, c"tc_free_sized").map(SizedFree::Tcmalloc)
}
