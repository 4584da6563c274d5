//! Before the first note: the file of this process, and where the subject's code lies.

use crate::table;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use heaplab_mappings::PAGE_BYTES;
use heaplab_preloaded::process_file;

/// Folder in which each process has a file named `mappings-` and its number.
const FOLDER: &CStr = c"HEAPLAB_MAPPINGS";
/// The subject's library, by the path that the kernel knows it by; empty or absent: the C library.
const OBJECT: &CStr = c"HEAPLAB_MAPPINGS_OF";
const PATH_BYTES: usize = 4096;
/// A line of `/proc/self/maps` is a path and 73 characters before it.
const LINE_BYTES: usize = PATH_BYTES + 128;

unsafe extern "C" {
    /// The variables; null until the C library has them.
    static environ: *const *const c_char;
}

static BEGUN: AtomicBool = AtomicBool::new(false);
/// Addresses of the subject's library.
static FIRST: AtomicUsize = AtomicUsize::new(0);
static BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Whether a call that returns to `address` was made by the subject.
pub fn is_subject(address: usize) -> bool {
    (FIRST.load(Ordering::Relaxed)..BEHIND.load(Ordering::Relaxed)).contains(&address)
}

/// Makes this process's file, where that is wanted and was not done. The first call comes while there is one thread: the loader
/// and the constructors of libraries map memory.
pub fn once() {
    // SAFETY: a pointer that the C library sets before any constructor runs.
    if BEGUN.load(Ordering::Relaxed) || unsafe { environ.is_null() } {
        return;
    }
    BEGUN.store(true, Ordering::Relaxed);
    // SAFETY: plain calls of the C library with valid C strings; the results are checked.
    unsafe {
        let folder = libc::getenv(FOLDER.as_ptr());
        if folder.is_null() {
            return;
        }
        let object = libc::getenv(OBJECT.as_ptr());
        if !object.is_null() && *object != 0 {
            find(CStr::from_ptr(object).to_bytes());
        }
        if let Some(page) = process_file::create(CStr::from_ptr(folder), c"mappings-", PAGE_BYTES) {
            table::begin(page);
        }
    }
}

/// Looks for the mappings of a file of this path.
fn find(path: &[u8]) {
    // SAFETY: a valid C string; the descriptor is closed below.
    let file = unsafe {
        libc::open(
            c"/proc/self/maps".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    if file < 0 {
        return;
    }
    let mut text = [0u8; LINE_BYTES];
    let (mut used, mut first, mut behind) = (0, usize::MAX, 0);
    loop {
        let got = read(file, &mut text[used..]);
        if got == 0 {
            break;
        }
        used += got;
        let mut done = 0;
        while let Some(length) = text[done..used].iter().position(|byte| *byte == b'\n') {
            let line = &text[done..done + length];
            if line.ends_with(path)
                && line[..line.len() - path.len()].ends_with(b" ")
                && let Some((start, end)) = ends(line)
            {
                first = first.min(start);
                behind = behind.max(end);
            }
            done += length + 1;
        }
        text.copy_within(done..used, 0);
        used -= done;
    }
    // SAFETY: the descriptor is open.
    unsafe { libc::close(file) };
    if first < behind {
        FIRST.store(first, Ordering::Relaxed);
        BEHIND.store(behind, Ordering::Relaxed);
    }
}

/// How many bytes were read; 0 at the end, in case of an error and where there is no room.
fn read(file: c_int, into: &mut [u8]) -> usize {
    // SAFETY: the buffer is writable for its length.
    let got = unsafe { libc::read(file, into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(got).unwrap_or(0)
}

/// The addresses in `start-end …`.
fn ends(line: &[u8]) -> Option<(usize, usize)> {
    let (start, rest) = number(line)?;
    let (end, _) = number(rest.strip_prefix(b"-")?)?;
    Some((start, end))
}

/// The hexadecimal number at the begin, and what follows it.
fn number(text: &[u8]) -> Option<(usize, &[u8])> {
    let digit = |byte: &u8| (*byte as char).to_digit(16).map(|digit| digit as usize);
    let digits = text.iter().take_while(|byte| digit(byte).is_some()).count();
    let value = (text[..digits].iter().filter_map(digit)).fold(0, |sum, digit| sum << 4 | digit);
    (digits > 0).then_some((value, &text[digits..]))
}
