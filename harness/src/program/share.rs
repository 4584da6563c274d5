//! Which code counts as the allocator's when a program's CPU time is sampled.
//!
//! Of a library that brings an allocator: all of its code. Of the C library: the functions of `malloc.c`, which the linker lays
//! side by side, from behind the function before the first exported one to the end of the last; the internal ones
//! (`_int_malloc` …) lie between them. In both cases the C library's calls for memory (`mmap`, `munmap`, `madvise`,
//! `brk` …), nearly all of which the allocator makes. The kernel's time counts where it works for that code: page faults in it
//! and those calls. What the program itself suffers (faults when it first writes a page, cold caches) does not.

use crate::subject::{Function, functions};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

/// A part of a file: path, first offset, offset behind the last.
pub(super) type Part = (PathBuf, u64, u64);

/// Exported functions of glibc's `malloc.c`.
const MALLOC: [&str; 18] = [
    "malloc",
    "free",
    "calloc",
    "realloc",
    "memalign",
    "aligned_alloc",
    "valloc",
    "pvalloc",
    "posix_memalign",
    "malloc_trim",
    "malloc_usable_size",
    "mallinfo",
    "mallinfo2",
    "malloc_stats",
    "mallopt",
    "malloc_info",
    "__libc_malloc",
    "__libc_memalign",
];
/// Calls for memory.
const MEMORY_CALLS: [&str; 8] = [
    "mmap", "mmap64", "munmap", "mremap", "madvise", "mprotect", "brk", "sbrk",
];

/// What to count where malloc is bound to `object`; empty where it cannot be told.
pub(super) fn parts(object: &str) -> Vec<Part> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Vec<Part>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    known
        .entry(object.to_owned())
        .or_insert_with(|| find(object))
        .clone()
}

fn find(object: &str) -> Vec<Part> {
    // The kernel names mappings by the path behind all links.
    let Ok(path) = Path::new(object).canonicalize() else {
        return Vec::new();
    };
    let libc = if is_libc(&path) {
        Some(path.clone())
    } else {
        own_libc()
    };
    let mut parts = Vec::new();
    if !is_libc(&path) {
        parts.push((path, 0, u64::MAX));
    }
    let Some(libc) = libc else {
        return parts;
    };
    let all = std::fs::read(&libc)
        .map_err(|e| e.to_string())
        .and_then(|bytes| functions(&bytes))
        .unwrap_or_default();
    if parts.is_empty() {
        match malloc_of(&all) {
            Some((from, to)) => parts.push((libc.clone(), from, to)),
            None => return Vec::new(),
        }
    }
    parts.extend(
        all.iter()
            .filter(|f| MEMORY_CALLS.contains(&f.name.as_str()))
            .map(|f| (libc.clone(), f.offset, f.offset + f.size)),
    );
    parts
}

pub(super) fn is_libc(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        name.starts_with("libc.so") || name.starts_with("libc-")
    })
}

/// The C library of this process, which is that of the programs unless they bring their own.
pub(super) fn own_libc() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5).map(PathBuf::from))
        .find(|path| is_libc(path))
}

/// First offset of `malloc.c` and the offset behind it.
fn malloc_of(all: &[Function]) -> Option<(u64, u64)> {
    let family = || all.iter().filter(|f| MALLOC.contains(&f.name.as_str()));
    let first = family().map(|f| f.offset).min()?;
    let end = family().map(|f| f.offset + f.size).max()?;
    let before = all
        .iter()
        .filter(|f| f.offset < first)
        .map(|f| f.offset + f.size)
        .max()?;
    Some((before.min(first), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_malloc_is_found_in_the_c_library() {
        let libc = own_libc().unwrap();
        let parts = parts(libc.to_str().unwrap());
        let (path, from, to) = &parts[0];
        assert_eq!(*path, libc);
        // malloc.c is some 20 KiB of code; and it is not half of the library.
        assert!(
            (8 << 10..128 << 10).contains(&(to - from)),
            "{from:x} {to:x}"
        );
        assert!(parts.len() > 4, "{parts:?}");
        let all = functions(&std::fs::read(&libc).unwrap()).unwrap();
        let offset = |name: &str| all.iter().find(|f| f.name == name).unwrap().offset;
        for name in ["malloc", "free", "realloc", "malloc_info"] {
            assert!((*from..*to).contains(&offset(name)), "{name}");
        }
        for name in ["memcpy", "printf", "qsort"] {
            assert!(!(*from..*to).contains(&offset(name)), "{name}");
        }
    }

    #[test]
    fn of_an_allocators_library_all_code_counts() {
        let path = crate::embed::path(crate::embed::Embedded::Mimalloc).unwrap();
        let parts = parts(path.to_str().unwrap());
        assert_eq!(parts[0], (path.canonicalize().unwrap(), 0, u64::MAX));
        assert!(parts.len() > 4, "the calls for memory: {parts:?}");
        assert!(super::parts("mimalloc").is_empty());
    }
}
