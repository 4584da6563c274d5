//! glibc's own extras: trimming, statistics and options. All of them are here, so that no call
//! ever reaches the C library's own malloc, which would wake up beside ours.

use core::ffi::{c_char, c_int, c_void};
use spanalloc::stats::stats;

/// What `mallinfo2` returns.
#[repr(C)]
pub struct Mallinfo2 {
    /// Bytes from the system that are not in large blocks.
    pub arena: usize,
    /// Free runs of pages.
    pub ordblks: usize,
    /// Unused: we have no fast bins.
    pub smblks: usize,
    /// Large blocks.
    pub hblks: usize,
    /// Bytes in large blocks.
    pub hblkhd: usize,
    /// Unused, as in glibc.
    pub usmblks: usize,
    /// Bytes of free blocks in thread and transfer caches.
    pub fsmblks: usize,
    /// Bytes that the program holds.
    pub uordblks: usize,
    /// Free bytes in all tiers that occupy memory.
    pub fordblks: usize,
    /// Free pages that `malloc_trim` could release.
    pub keepcost: usize,
}

/// What the older `mallinfo` returns: the same in `int`s, cut off.
#[repr(C)]
pub struct Mallinfo {
    fields: [c_int; 10],
}

/// glibc `mallinfo2`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> Mallinfo2 {
    let s = stats();
    let cached = s.thread_cache_bytes + s.transfer_cache_bytes;
    Mallinfo2 {
        arena: (s.heap_bytes - s.clean_bytes).saturating_sub(s.large_bytes),
        ordblks: s.free_runs,
        smblks: 0,
        hblks: s.spans_by_state[1] as usize,
        hblkhd: s.large_bytes,
        usmblks: 0,
        fsmblks: cached,
        uordblks: s.in_use_bytes,
        fordblks: cached + s.central_bytes + s.quarantined_bytes + s.dirty_bytes,
        keepcost: s.dirty_bytes,
    }
}

/// glibc `mallinfo`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> Mallinfo {
    let m = mallinfo2();
    let fields = [
        m.arena, m.ordblks, m.smblks, m.hblks, m.hblkhd, m.usmblks, m.fsmblks, m.uordblks,
        m.fordblks, m.keepcost,
    ];
    Mallinfo {
        fields: fields.map(|value| value.min(c_int::MAX as usize) as c_int),
    }
}

/// glibc `malloc_trim`: gives back all free memory but `pad` bytes; 1 if anything was given back.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(pad: usize) -> c_int {
    c_int::from(spanalloc::trim(pad).released_bytes > 0)
}

/// glibc `mallopt`: options of glibc's algorithm mean nothing here and are accepted (1), unknown
/// ones refused (0).
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(option: c_int, _value: c_int) -> c_int {
    // M_MXFAST 1, M_NLBLKS 2, M_GRAIN 3, M_KEEP 4; -1 to -8: trim and mmap thresholds, top pad,
    // mmap maximum, check action, perturb, arena test and maximum.
    c_int::from((1..=4).contains(&option) || (-8..=-1).contains(&option))
}

/// glibc `malloc_stats`: a summary on standard error.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    let s = stats();
    for (name, value) in [
        ("heap grown to    ", s.heap_bytes),
        ("in use           ", s.in_use_bytes),
        ("thread caches    ", s.thread_cache_bytes),
        ("transfer caches  ", s.transfer_cache_bytes),
        ("central free     ", s.central_bytes),
        ("free pages       ", s.dirty_bytes),
        ("released         ", s.clean_bytes),
        ("metadata         ", s.metadata_bytes),
    ] {
        let mut line = spanalloc::fault::Line::new();
        line.text(b"spanalloc: ")
            .text(name.as_bytes())
            .decimal(value)
            .text(b" bytes");
        line.print();
    }
}

/// glibc `malloc_info`: the statistics as XML on `stream`. `options` must be 0.
///
/// # Safety
/// `stream` is an open stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut c_void) -> c_int {
    unsafe extern "C" {
        fn fprintf(stream: *mut c_void, format: *const c_char, ...) -> c_int;
    }
    if options != 0 {
        crate::c::set_errno(libc::EINVAL);
        return -1;
    }
    let s = stats();
    // SAFETY: the caller's duty; the formats match the arguments.
    let written = unsafe {
        fprintf(stream, c"<malloc version=\"spanalloc-1\">\n".as_ptr());
        for (kind, bytes) in [
            (c"in_use", s.in_use_bytes),
            (c"thread_cache", s.thread_cache_bytes),
            (c"transfer_cache", s.transfer_cache_bytes),
            (c"central", s.central_bytes),
            (c"dirty", s.dirty_bytes),
            (c"clean", s.clean_bytes),
            (c"metadata", s.metadata_bytes),
        ] {
            fprintf(
                stream,
                c"<total type=\"%s\" size=\"%zu\"/>\n".as_ptr(),
                kind.as_ptr(),
                bytes,
            );
        }
        fprintf(
            stream,
            c"<system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n</malloc>\n"
                .as_ptr(),
            s.heap_bytes - s.clean_bytes,
            s.heap_peak_bytes,
        )
    };
    if written < 0 { -1 } else { 0 }
}
