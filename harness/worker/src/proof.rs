//! What the subject says of itself, and the proof that it is the one in force.

use crate::calls::{self, Calls};
use crate::fail;
use crate::statistics;
use heaplab_worker::protocol::SubjectProof;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;

/// Room for what a subject says of itself.
const TEXT: usize = 16 << 10;

/// Ends the run unless malloc lies in the library that should be in force.
pub fn expect(wanted: &Path, object: &str) {
    // By what the file system calls the file: realpath(3) takes a block of the path's length from the subject, and where a subject's
    // first blocks lie moved its peak by 5 % (sawtooth) and by a page or two of a small heap.
    let file = |path: &Path| {
        let found = path.metadata().ok()?;
        Some((found.dev(), found.ino()))
    };
    let object_path = Path::new(object);
    let same = match (file(wanted), file(object_path)) {
        (Some(left), Some(right)) => left == right,
        _ => wanted == object_path,
    };
    if !same {
        fail::with(format!(
            "malloc comes from {object}, not from {}",
            wanted.display()
        ));
    }
}

/// Asks the subject for version and settings through whatever entry it has.
pub fn describe(object: &str, calls: Calls) -> SubjectProof {
    let mut proof = SubjectProof {
        malloc_object: object.to_owned(),
        ..SubjectProof::default()
    };
    proof.sized_free = calls.sized.map(|sized| sized.name().to_owned());
    let known = heaplab_describe(object, &mut proof)
        || jemalloc(object, &mut proof)
        || spanalloc(object, &mut proof)
        || mimalloc(object, &mut proof)
        || gperftools(object, &mut proof);
    if !known {
        libc_itself(object, &mut proof);
    }
    proof.statistics = statistics::read(object);
    proof
}

/// Our own subjects: `heaplab_subject_describe(buffer, capacity)` gives lines `key=value`.
fn heaplab_describe(object: &str, proof: &mut SubjectProof) -> bool {
    type Describe = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    let Some(address) = calls::own_symbol(object, c"heaplab_subject_describe") else {
        return false;
    };
    let mut buffer = vec![0u8; TEXT];
    // SAFETY: the symbol has this signature; the buffer is writable for its length.
    let used = unsafe {
        std::mem::transmute::<*mut c_void, Describe>(address)(
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    };
    buffer.truncate(used);
    for line in String::from_utf8_lossy(&buffer).lines() {
        match line.split_once('=') {
            Some(("version", value)) => proof.version = Some(value.to_owned()),
            Some((key, value)) => drop(proof.settings.insert(key.to_owned(), value.to_owned())),
            None => {}
        }
    }
    true
}

/// jemalloc: `mallctl` by name.
fn jemalloc(object: &str, proof: &mut SubjectProof) -> bool {
    type Mallctl =
        unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
    let Some(address) = calls::own_symbol(object, c"mallctl")
        .or_else(|| calls::own_symbol(object, c"_rjem_mallctl"))
    else {
        return false;
    };
    // SAFETY: the symbol has this signature.
    let mallctl = unsafe { std::mem::transmute::<*mut c_void, Mallctl>(address) };
    let read = |name: &str, out: *mut c_void, bytes: usize| {
        let Ok(name) = CString::new(name) else {
            return false;
        };
        let mut len = bytes;
        // SAFETY: `out` has `bytes` bytes; nothing is written to the subject.
        unsafe {
            mallctl(name.as_ptr(), out, &raw mut len, ptr::null_mut(), 0) == 0 && len == bytes
        }
    };
    let text = |name: &str| {
        let mut value: *const c_char = ptr::null();
        if !read(name, (&raw mut value).cast(), size_of::<*const c_char>()) || value.is_null() {
            return None;
        }
        // SAFETY: jemalloc gives constant C strings.
        Some(
            unsafe { CStr::from_ptr(value) }
                .to_string_lossy()
                .into_owned(),
        )
    };
    proof.version =
        text("version").map(|version| version.split('-').next().unwrap_or_default().to_owned());
    for name in ["thp", "metadata_thp", "dss", "percpu_arena"] {
        if let Some(value) = text(&format!("opt.{name}")) {
            proof.settings.insert(name.to_owned(), value);
        }
    }
    for name in [
        "narenas",
        "lg_tcache_max",
        "tcache_max",
        "lg_extent_max_active_fit",
    ] {
        let mut value = 0u64;
        let bytes = if name == "narenas" {
            size_of::<u32>()
        } else {
            size_of::<usize>()
        };
        if read(&format!("opt.{name}"), (&raw mut value).cast(), bytes) {
            proof.settings.insert(name.to_owned(), value.to_string());
        }
    }
    for name in ["dirty_decay_ms", "muzzy_decay_ms"] {
        let mut value = 0i64;
        if read(
            &format!("opt.{name}"),
            (&raw mut value).cast(),
            size_of::<isize>(),
        ) {
            proof.settings.insert(name.to_owned(), value.to_string());
        }
    }
    for name in ["tcache", "background_thread", "retain"] {
        let mut value = 0u8;
        if read(&format!("opt.{name}"), (&raw mut value).cast(), 1) {
            proof
                .settings
                .insert(name.to_owned(), (value != 0).to_string());
        }
    }
    true
}

/// spanalloc: `spanalloc_version()` and the `settings` object of `spanalloc_stats_json(buffer, capacity)`.
fn spanalloc(object: &str, proof: &mut SubjectProof) -> bool {
    type Version = unsafe extern "C" fn() -> *const c_char;
    type Stats = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    let Some(version) = calls::own_symbol(object, c"spanalloc_version") else {
        return false;
    };
    // SAFETY: the symbol has this signature and gives a constant C string.
    let version = unsafe { std::mem::transmute::<*mut c_void, Version>(version)() };
    if !version.is_null() {
        // SAFETY: as above.
        let text = unsafe { CStr::from_ptr(version) }
            .to_string_lossy()
            .into_owned();
        let number = text.strip_prefix("spanalloc ").map(str::to_owned);
        proof.version = Some(number.unwrap_or(text));
    }
    if let Some(stats) = calls::own_symbol(object, c"spanalloc_stats_json") {
        let mut buffer = vec![0u8; TEXT * 4];
        // SAFETY: the symbol has this signature; the buffer is writable for its length.
        let used = unsafe {
            std::mem::transmute::<*mut c_void, Stats>(stats)(
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        buffer.truncate(used);
        let end = buffer
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(buffer.len());
        let object =
            serde_json::from_slice::<serde_json::Value>(&buffer[..end]).unwrap_or_default();
        if let Some(settings) = object.get("settings").and_then(|value| value.as_object()) {
            for (key, value) in settings {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                proof.settings.insert(key.clone(), text);
            }
        }
        // Which one is in force, and so not among what it was told.
        if let Some(front_end) = object.get("front_end").and_then(|name| name.as_str()) {
            (proof.settings).insert("front_end".to_owned(), front_end.to_owned());
        }
    }
    true
}

/// An installed mimalloc: `mi_version` and `mi_option_get`.
fn mimalloc(object: &str, proof: &mut SubjectProof) -> bool {
    let Some(version) = calls::own_symbol(object, c"mi_version") else {
        return false;
    };
    // SAFETY: the symbol has this signature.
    let number = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(version)() };
    proof.version = Some(if number >= 10_000 {
        format!(
            "{}.{}.{}",
            number / 10_000,
            number / 100 % 100,
            number % 100
        )
    } else {
        format!("{}.{}.{}", number / 100, number / 10 % 10, number % 10)
    });
    true
}

/// gperftools: `tc_version(major, minor, patch)`.
fn gperftools(object: &str, proof: &mut SubjectProof) -> bool {
    type Version =
        unsafe extern "C" fn(*mut c_int, *mut c_int, *mut *const c_char) -> *const c_char;
    let Some(version) = calls::own_symbol(object, c"tc_version") else {
        return false;
    };
    let (mut major, mut minor, mut patch) = (0, 0, ptr::null());
    // SAFETY: the symbol has this signature and gives a constant C string.
    let text = unsafe {
        let version = std::mem::transmute::<*mut c_void, Version>(version);
        CStr::from_ptr(version(&raw mut major, &raw mut minor, &raw mut patch))
    };
    proof.version = Some(text.to_string_lossy().into_owned());
    true
}

/// The system's allocator: the version of the libc it is part of, and the tunables it was given.
fn libc_itself(object: &str, proof: &mut SubjectProof) {
    type Version = extern "C" fn() -> *const c_char;
    if let Some(version) = calls::own_symbol(object, c"gnu_get_libc_version") {
        // SAFETY: the symbol has this signature and gives a constant C string.
        let text =
            unsafe { CStr::from_ptr(std::mem::transmute::<*mut c_void, Version>(version)()) };
        proof.version = Some(text.to_string_lossy().into_owned());
        if let Ok(tunables) = std::env::var("GLIBC_TUNABLES") {
            proof.settings = tunables
                .split(':')
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>();
        }
    }
}
