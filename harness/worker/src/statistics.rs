//! What the subject counts itself, at the end of a run while its live blocks are still there: through the entry that each
//! has. The figures are the subject's own and mean what its documentation says.

use crate::calls;
use serde_json::{Map, Value};
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

/// Room for what a subject prints.
const TEXT: usize = 64 << 10;

/// The statistics of the library `object`; absent where it has none that are known here.
pub fn read(object: &str) -> Option<Value> {
    spanalloc(object)
        .or_else(|| jemalloc(object))
        .or_else(|| mimalloc(object))
        .or_else(|| glibc(object))
}

/// `spanalloc_stats_json(buffer, capacity)`.
fn spanalloc(object: &str) -> Option<Value> {
    type Stats = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    let address = calls::own_symbol(object, c"spanalloc_stats_json")?;
    let mut buffer = vec![0u8; TEXT];
    // SAFETY: the symbol has this signature; the buffer is writable for its length.
    let used = unsafe {
        let stats = std::mem::transmute::<*mut c_void, Stats>(address);
        stats(buffer.as_mut_ptr().cast(), buffer.len())
    };
    buffer.truncate(used);
    let text = buffer.split(|byte| *byte == 0).next()?;
    serde_json::from_slice(text).ok()
}

/// `mallctl("stats.…")` after a new epoch (jemalloc(3)).
fn jemalloc(object: &str) -> Option<Value> {
    type Mallctl =
        unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
    let address = calls::own_symbol(object, c"mallctl")
        .or_else(|| calls::own_symbol(object, c"_rjem_mallctl"))?;
    // SAFETY: the symbol has this signature.
    let mallctl = unsafe { std::mem::transmute::<*mut c_void, Mallctl>(address) };
    let mut epoch = 1u64;
    // SAFETY: `epoch` is a u64, in and out; without a place for the old value none is written.
    unsafe {
        mallctl(
            c"epoch".as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            (&raw mut epoch).cast(),
            size_of::<u64>(),
        )
    };
    let mut found = Map::new();
    for name in [
        "allocated",
        "active",
        "metadata",
        "resident",
        "mapped",
        "retained",
    ] {
        let Ok(full) = CString::new(format!("stats.{name}")) else {
            continue;
        };
        let (mut value, mut length) = (0usize, size_of::<usize>());
        // SAFETY: `value` has `length` bytes; nothing is written to the subject.
        let error = unsafe {
            mallctl(
                full.as_ptr(),
                (&raw mut value).cast(),
                &raw mut length,
                ptr::null_mut(),
                0,
            )
        };
        if error == 0 {
            found.insert(format!("{name}_bytes"), value.into());
        }
    }
    // Built without statistics it answers nothing.
    (!found.is_empty()).then_some(Value::Object(found))
}

/// `mi_process_info`, through the built-in subject's own entry or an installed library's.
fn mimalloc(object: &str) -> Option<Value> {
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
    let address = calls::own_symbol(object, c"heaplab_subject_process_info")
        .or_else(|| calls::own_symbol(object, c"mi_process_info"))?;
    let mut values = [0usize; 8];
    let base = values.as_mut_ptr();
    // SAFETY: the symbol has this signature; each argument is one of the eight places.
    unsafe {
        let info = std::mem::transmute::<*mut c_void, Info>(address);
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
    let named = [
        ("current_commit_bytes", values[5]),
        ("peak_commit_bytes", values[6]),
    ];
    Some(Value::Object(
        named
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
    ))
}

/// `mallinfo2()` (mallinfo(3)): ten sizes.
fn glibc(object: &str) -> Option<Value> {
    #[repr(C)]
    struct Info([usize; 10]);
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
    type Mallinfo = unsafe extern "C" fn() -> Info;
    calls::own_symbol(object, c"gnu_get_libc_version")?;
    let address = calls::own_symbol(object, c"mallinfo2")?;
    // SAFETY: the symbol has this signature and gives a structure of ten sizes.
    let Info(values) = unsafe { std::mem::transmute::<*mut c_void, Mallinfo>(address)() };
    let named = NAMES
        .iter()
        .zip(values)
        .filter(|(name, _)| !name.is_empty());
    Some(Value::Object(
        named
            .map(|(name, value)| ((*name).to_owned(), value.into()))
            .collect(),
    ))
}
