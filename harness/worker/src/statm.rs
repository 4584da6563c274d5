//! Resident memory of this process, read without a call of the malloc family. What the main thread's stack had at the start
//! is in none of its anonymous figures.

use crate::settled;
use crate::shared;
use heaplab_worker::elsewhere;
use std::ffi::CStr;
use std::fs::File;
use std::io::{BufRead, BufReader};

/// Reads the start of a file of /proc into `buffer` and returns what was read.
fn read<'a>(path: &CStr, buffer: &'a mut [u8]) -> &'a [u8] {
    let mut used = 0;
    // SAFETY: a valid C string; the descriptor is closed below; reads stay inside the buffer.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return &[];
        }
        while used < buffer.len() {
            let got = libc::read(
                file,
                buffer[used..].as_mut_ptr().cast(),
                buffer.len() - used,
            );
            if got <= 0 {
                break;
            }
            used += got as usize;
        }
        libc::close(file);
    }
    &buffer[..used]
}

fn number(text: &[u8]) -> u64 {
    text.iter()
        .skip_while(|byte| !byte.is_ascii_digit())
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |value, byte| value * 10 + u64::from(byte - b'0'))
}

/// Anonymous resident bytes by `statm` (resident − shared); huge pages of the transparent kind are in it.
pub fn anonymous_bytes() -> u64 {
    let mut buffer = [0; 128];
    let mut fields = read(c"/proc/self/statm", &mut buffer).split(|byte| *byte == b' ');
    let resident = fields.nth(1).map_or(0, number);
    let shared = fields.next().map_or(0, number);
    (resident.saturating_sub(shared) * 4096).saturating_sub(settled::stack_bytes())
}

/// Sums of `smaps_rollup`, bytes.
#[derive(Clone, Copy, Default)]
pub struct Rollup {
    /// Anonymous memory.
    pub anonymous: u64,
    /// Pages of the hugetlb pool, which no resident figure contains.
    pub hugetlb: u64,
    /// Pages freed lazily (MADV_FREE): resident until the kernel needs them.
    pub lazyfree: u64,
    /// Transparent huge pages.
    pub huge: u64,
}

/// Reads `smaps_rollup`: exact, but walks all page tables.
pub fn rollup() -> Option<Rollup> {
    let mut buffer = [0; 4096];
    let text = read(c"/proc/self/smaps_rollup", &mut buffer);
    let field = |name: &[u8]| {
        text.split(|byte| *byte == b'\n')
            .find(|line| line.starts_with(name))
            .map_or(0, |line| number(&line[name.len()..]) * 1024)
    };
    (!text.is_empty()).then(|| Rollup {
        anonymous: field(b"Anonymous:").saturating_sub(settled::stack_bytes()),
        hugetlb: field(b"Private_Hugetlb:") + field(b"Shared_Hugetlb:"),
        lazyfree: field(b"LazyFree:"),
        huge: field(b"AnonHugePages:"),
    })
}

/// Bytes of the subject's in shared mappings, which are not anonymous; 0 where they cannot be told from the worker's.
pub fn subjects_shared_bytes() -> u64 {
    let open = |name| File::open(name).map(BufReader::new);
    let Ok(maps) = open("/proc/self/maps") else {
        return 0;
    };
    // Hardly any has some, and smaps walks all page tables.
    let mut lines = maps.lines().map_while(Result::ok);
    match shared::is_named() && lines.any(|line| elsewhere::is_foreign(&line)) {
        true => open("/proc/self/smaps").map_or(0, elsewhere::foreign_bytes),
        false => 0,
    }
}

/// Bytes of the process in pages of the hugetlb pool, which no resident figure of the kernel's contains.
pub fn hugetlb_bytes() -> u64 {
    status(b"HugetlbPages:")
}

/// Resident shared memory, bytes: what the worker itself uses, as its memory is all shared, and
/// [`subjects_shared_bytes`].
pub fn shared_bytes() -> u64 {
    status(b"RssShmem:")
}

/// Resident pages of files, bytes.
pub fn file_bytes() -> u64 {
    status(b"RssFile:")
}

/// A figure of `status`, bytes.
fn status(name: &[u8]) -> u64 {
    let mut buffer = [0; 8192];
    let text = read(c"/proc/self/status", &mut buffer);
    text.split(|byte| *byte == b'\n')
        .find(|line| line.starts_with(name))
        .map_or(0, |line| number(&line[name.len()..]) * 1024)
}
