//! Finding the session: its name is in the process's initial environment.
//!
//! The first event may come from the dynamic loader before libc has set up its environment, so the name is read from
//! /proc/self/environ with plain system calls, and nothing here needs libc to be initialised.

use heaplab_ring::{Mapping, SESSION_VARIABLE, sys};

/// Longest session name: descriptor, nonce and path.
const NAME_BYTES: usize = 600;

/// Maps the session that this process's environment names; `None`: it names none, or none that can be mapped.
pub fn session() -> Option<Mapping> {
    let mut buffer = [0u8; NAME_BYTES];
    open(name(&mut buffer)?)
}

/// The value of the session variable in this process's initial environment.
fn name(buffer: &mut [u8; NAME_BYTES]) -> Option<&[u8]> {
    let wanted = SESSION_VARIABLE.as_bytes();
    let fd = sys::open(b"/proc/self/environ\0", false).ok()?;
    let mut block = [0u8; 4096];
    let mut filled = 0;
    let mut found = false;
    'read: while let Ok(bytes @ 1..) = sys::read(fd, &mut block) {
        for &byte in block.get(..bytes).unwrap_or(&[]) {
            if byte == 0 {
                let entry = &buffer[..filled.min(NAME_BYTES)];
                if entry.starts_with(wanted) && entry.get(wanted.len()) == Some(&b'=') {
                    found = filled <= NAME_BYTES;
                    break 'read;
                }
                filled = 0;
            } else {
                if let Some(place) = buffer.get_mut(filled) {
                    *place = byte;
                }
                filled += 1;
            }
        }
    }
    sys::close(fd);
    if found {
        buffer.get(wanted.len() + 1..filled)
    } else {
        None
    }
}

/// Maps the session named `<fd>:<nonce in hex>:<path>`.
fn open(name: &[u8]) -> Option<Mapping> {
    let mut parts = name.splitn(3, |&byte| byte == b':');
    let fd = number(parts.next()?, 10)?;
    let nonce = number(parts.next()?, 16)?;
    let path = parts.next().unwrap_or(&[]);
    let map = |fd| {
        Mapping::open(fd, nonce)
            .inspect_err(|&errno| Mapping::report_failure(fd, nonce, errno))
            .ok()
    };
    if let Ok(fd) = i32::try_from(fd)
        && let Some(mapping) = map(fd)
    {
        return Some(mapping);
    }
    // The descriptor was closed on the way: the drainer's own, or the file, is the second door.
    let mut zero_terminated = [0u8; NAME_BYTES + 1];
    if path.is_empty() {
        return None;
    }
    zero_terminated.get_mut(..path.len())?.copy_from_slice(path);
    let fd = sys::open(zero_terminated.get(..path.len() + 1)?, true).ok()?;
    let mapping = map(fd);
    sys::close(fd);
    mapping
}

fn number(digits: &[u8], base: u32) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, base).ok()
}
