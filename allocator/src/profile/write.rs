//! A profile as a file, in the text form of gperftools and jemalloc's ancestors that pprof and jeprof
//! read (`docs/PROFILE.md`). Nothing here allocates or touches `errno`.

use super::{MEAN, TABLE, table::Site};
use crate::os::{File, process_number, rename};
use core::ffi::CStr;
use core::fmt::{self, Write};
use core::sync::atomic::Ordering::Relaxed;

/// Longest path, as the kernel's.
const PATH: usize = 4096;

/// Text on its way into a file.
struct Writer {
    file: File,
    bytes: [u8; 2048],
    len: usize,
    error: i32,
}

impl Writer {
    fn flush(&mut self) {
        if self.error == 0 {
            self.error = self.file.write(&self.bytes[..self.len]);
        }
        self.len = 0;
    }
}

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.len == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// A path in a fixed buffer, ending with a null byte.
pub(super) struct Path {
    bytes: [u8; PATH],
    len: usize,
}

impl Path {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; PATH],
            len: 0,
        }
    }

    pub(super) fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes()).ok_or(fmt::Error)
    }
}

impl Path {
    /// `None`: too long.
    fn append(&mut self, text: &[u8]) -> Option<()> {
        let end = self.len + text.len();
        if end >= PATH {
            return None;
        }
        self.bytes[self.len..end].copy_from_slice(text);
        self.len = end;
        Some(())
    }
}

/// Writes the profile under a name of its own first, so that nobody finds half of one. Returns 0 or an
/// `errno` value.
pub(super) fn to_file(path: &CStr) -> i32 {
    let mut part = Path::new();
    if part.append(path.to_bytes()).is_none() || write!(part, ".{}.part", process_number()).is_err()
    {
        return libc::ENAMETOOLONG;
    }
    let file = match File::create(part.as_c()) {
        Ok(file) => file,
        Err(error) => return error,
    };
    let mut out = Writer {
        file,
        bytes: [0; 2048],
        len: 0,
        error: 0,
    };
    // The writer keeps its error.
    let _ = format(&mut out);
    out.flush();
    copy_maps(&mut out);
    let error = out.error;
    drop(out);
    if error != 0 {
        crate::os::remove(part.as_c());
        return error;
    }
    rename(part.as_c(), path)
}

fn format(out: &mut impl Write) -> fmt::Result {
    let (live, all, mut site) = {
        let table = TABLE.lock();
        (table.live_count, table.all_count, table.oldest)
    };
    writeln!(
        out,
        "heap profile: {}: {} [{}: {}] @ heap_v2/{}",
        live.blocks,
        live.bytes,
        all.blocks,
        all.bytes,
        MEAN.load(Relaxed).max(1)
    )?;
    while !site.is_null() {
        // Addresses never change; counts and the next site do, so they are read under the lock. The text
        // goes out without it: whoever reads a pipe may allocate.
        // SAFETY: sites are never unmapped.
        let (live, all, newer, addresses) = unsafe {
            let _table = TABLE.lock();
            let site: &Site = &*site;
            (site.live, site.all, site.newer, site.addresses())
        };
        write!(
            out,
            "{}: {} [{}: {}] @",
            live.blocks, live.bytes, all.blocks, all.bytes
        )?;
        for address in addresses {
            write!(out, " {address:#x}")?;
        }
        out.write_str("\n")?;
        site = newer;
    }
    out.write_str("\nMAPPED_LIBRARIES:\n")
}

/// What lies where in the address space, so that a reader can find names for addresses.
fn copy_maps(out: &mut Writer) {
    let Ok(maps) = File::open(c"/proc/self/maps") else {
        return;
    };
    loop {
        let got = maps.read(&mut out.bytes);
        if got == 0 {
            break;
        }
        out.len = got;
        out.flush();
    }
}
