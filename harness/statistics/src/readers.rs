//! The entries of the allocators that are known.

use crate::Find;
use crate::text::Text;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

/// Takes a found address as a function pointer of the type wanted.
///
/// # Safety
/// The address is null or that of a function of type `F`, which is a function pointer.
unsafe fn function<F: Copy>(address: *mut c_void) -> Option<F> {
    debug_assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
    // SAFETY: a function pointer has the size of an address, and the caller says that this is one.
    (!address.is_null()).then(|| unsafe { core::mem::transmute_copy(&address) })
}

/// `spanalloc_stats_json(buffer, capacity)`: a JSON object already.
///
/// # Safety
/// As for [`crate::write`].
pub(crate) unsafe fn spanalloc(find: Find<'_>, into: &mut [u8]) -> Option<usize> {
    type Stats = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    // SAFETY: the symbol has this signature; the buffer is writable for its length.
    let used = unsafe {
        let stats: Stats = function(find(c"spanalloc_stats_json"))?;
        stats(into.as_mut_ptr().cast(), into.len())
    };
    // It says what it would need: what has no room is cut and of no use.
    (1..into.len()).contains(&used).then_some(used)
}

/// `mallctl("stats.…")` after a new epoch (jemalloc(3)). Built without statistics (as the built-in subject is, because counting
/// would slow it down) it still knows the pages of all arenas together.
///
/// # Safety
/// As for [`crate::write`].
pub(crate) unsafe fn jemalloc(find: Find<'_>, text: &mut Text<'_>) -> Option<usize> {
    type Mallctl =
        unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
    const FIELDS: [(&CStr, &str); 5] = [
        (c"stats.allocated", "allocated"),
        (c"stats.metadata", "metadata"),
        (c"stats.resident", "resident"),
        (c"stats.mapped", "mapped"),
        (c"stats.retained", "retained"),
    ];
    // 4096 is MALLCTL_ARENAS_ALL.
    const PAGES: [(&CStr, &str); 3] = [
        (c"stats.arenas.4096.pactive", "active"),
        (c"stats.arenas.4096.pdirty", "dirty"),
        (c"stats.arenas.4096.pmuzzy", "muzzy"),
    ];
    let address = [c"mallctl", c"_rjem_mallctl", c"je_mallctl"]
        .into_iter()
        .map(find)
        .find(|address| !address.is_null())?;
    // SAFETY: the symbol has this signature.
    let mallctl: Mallctl = unsafe { function(address)? };
    let mut epoch = 1u64;
    // SAFETY: `epoch` is a u64; without a place for the old value none is written.
    unsafe {
        mallctl(
            c"epoch".as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            (&raw mut epoch).cast(),
            size_of::<u64>(),
        )
    };
    let read = |name: &CStr| {
        let (mut value, mut length) = (0usize, size_of::<usize>());
        // SAFETY: `value` has `length` bytes; nothing is written to the allocator.
        let error = unsafe {
            mallctl(
                name.as_ptr(),
                (&raw mut value).cast(),
                &raw mut length,
                ptr::null_mut(),
                0,
            )
        };
        (error == 0).then_some(value)
    };
    let page = read(c"arenas.page").unwrap_or(0);
    for (full, name) in PAGES {
        if let Some(pages) = read(full) {
            text.number(format_args!("{name}_bytes"), pages.saturating_mul(page));
        }
    }
    for (full, name) in FIELDS {
        if let Some(value) = read(full) {
            text.number(format_args!("{name}_bytes"), value);
        }
    }
    text.finish()
}

/// `mi_process_info`, through the built-in subject's own entry or an installed library's.
///
/// # Safety
/// As for [`crate::write`].
pub(crate) unsafe fn mimalloc(find: Find<'_>, text: &mut Text<'_>) -> Option<usize> {
    type Info = unsafe extern "C" fn(
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
        *mut usize,
    );
    let address = [c"heaplab_subject_process_info", c"mi_process_info"]
        .into_iter()
        .map(find)
        .find(|address| !address.is_null())?;
    let mut values = [0usize; 8];
    let base = values.as_mut_ptr();
    // SAFETY: the symbol has this signature; each argument is one of the eight places.
    unsafe {
        let info: Info = function(address)?;
        info(
            base,
            base.add(1),
            base.add(2),
            base.add(3),
            base.add(4),
            base.add(5),
            base.add(6),
            base.add(7),
        );
    }
    text.number(format_args!("current_commit_bytes"), values[5]);
    text.number(format_args!("peak_commit_bytes"), values[6]);
    text.finish()
}

/// Named properties of gperftools (`MallocExtension_GetNumericProperty`) and of Google's tcmalloc
/// (`MallocExtension_Internal_GetNumericProperty`).
///
/// # Safety
/// As for [`crate::write`].
pub(crate) unsafe fn tcmalloc(find: Find<'_>, text: &mut Text<'_>) -> Option<usize> {
    type Old = unsafe extern "C" fn(*const c_char, *mut usize) -> c_int;
    type New = unsafe extern "C" fn(*const c_char, usize, *mut usize) -> bool;
    const FIELDS: [(&CStr, &str); 9] = [
        (
            c"generic.current_allocated_bytes",
            "current_allocated_bytes",
        ),
        (c"generic.heap_size", "heap_size_bytes"),
        (
            c"generic.physical_memory_used",
            "physical_memory_used_bytes",
        ),
        (c"tcmalloc.pageheap_free_bytes", "pageheap_free_bytes"),
        (
            c"tcmalloc.pageheap_unmapped_bytes",
            "pageheap_unmapped_bytes",
        ),
        (
            c"tcmalloc.central_cache_free_bytes",
            "central_cache_free_bytes",
        ),
        (
            c"tcmalloc.transfer_cache_free_bytes",
            "transfer_cache_free_bytes",
        ),
        (
            c"tcmalloc.current_total_thread_cache_bytes",
            "thread_cache_bytes",
        ),
        (c"tcmalloc.cpu_free", "cpu_cache_free_bytes"),
    ];
    // SAFETY: the symbols have these signatures.
    let (old, new): (Option<Old>, Option<New>) = unsafe {
        (
            function(find(c"MallocExtension_GetNumericProperty")),
            function(find(c"MallocExtension_Internal_GetNumericProperty")),
        )
    };
    if old.is_none() && new.is_none() {
        return None;
    }
    for (full, name) in FIELDS {
        let mut value = 0usize;
        // SAFETY: a C string, its length where that is asked for, and a place for the value.
        let known = unsafe {
            match (old, new) {
                (Some(ask), _) => ask(full.as_ptr(), &raw mut value) != 0,
                (None, Some(ask)) => ask(full.as_ptr(), full.count_bytes(), &raw mut value),
                (None, None) => false,
            }
        };
        if known {
            text.number(format_args!("{name}"), value);
        }
    }
    text.finish()
}

/// `mallinfo2()` (mallinfo(3)): ten sizes, summed over all arenas. `malloc_info` has them by arena, but writes them to a `FILE`, which takes
/// its buffer from the allocator that is asked, and walks every free list under the arenas' locks.
///
/// # Safety
/// As for [`crate::write`].
pub(crate) unsafe fn glibc(find: Find<'_>, text: &mut Text<'_>) -> Option<usize> {
    #[repr(C)]
    struct Info([usize; 10]);
    type Mallinfo = unsafe extern "C" fn() -> Info;
    const NAMES: [&str; 10] = [
        "arena_bytes",
        "free_chunks",
        "free_fastbin_chunks",
        "mmapped_blocks",
        "mmapped_bytes",
        "",
        "free_fastbin_bytes",
        "in_use_bytes",
        "free_bytes",
        "releasable_top_bytes",
    ];
    // Other allocators export a mallinfo2 too: of the C library it is only in the C library.
    if find(c"gnu_get_libc_version").is_null() {
        return None;
    }
    // SAFETY: the symbol has this signature and gives a structure of ten sizes.
    let Info(values) = unsafe {
        let mallinfo: Mallinfo = function(find(c"mallinfo2"))?;
        mallinfo()
    };
    for (name, value) in NAMES.iter().zip(values) {
        if !name.is_empty() {
            text.number(format_args!("{name}"), value);
        }
    }
    text.finish()
}
