//! Resident memory of this process, read without a call of the malloc family. What the main thread's stack had at the start
//! is in none of its anonymous figures.

use crate::settled;
use std::ffi::CStr;

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

/// Resident shared memory, bytes: what the worker itself uses, as its memory is all shared.
pub fn shared_bytes() -> u64 {
    let mut buffer = [0; 8192];
    let text = read(c"/proc/self/status", &mut buffer);
    let name = b"RssShmem:";
    text.split(|byte| *byte == b'\n')
        .find(|line| line.starts_with(name))
        .map_or(0, |line| number(&line[name.len()..]) * 1024)
}
