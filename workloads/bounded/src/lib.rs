//! Whole files of bounded size, whatever a path turns out to be.
//!
//! The errors are a few words for behind "cannot read 'PATH': ".

#![forbid(unsafe_code)]

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// A mebibyte, the unit of limits.
pub const MIB: u64 = 1 << 20;

/// Whether `path` is a regular file of at most `most` bytes.
///
/// # Errors
/// It is not, or the system's own when it cannot be looked at.
pub fn check(path: &Path, most: u64) -> io::Result<()> {
    // By name: opening a pipe would wait for somebody who writes to it.
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(unfit(other_than_a_file(about.file_type())));
    }
    if about.len() > most {
        return Err(too_large(about.len(), most));
    }
    Ok(())
}

/// Reads a regular file of at most `most` bytes, or as much from a pipe that is open already (a shell's `<(…)`).
///
/// # Errors
/// As [`check`], and the system's own while it is read.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    if !is_open_pipe(path)? {
        check(path, most)?;
    }
    let mut bytes = Vec::new();
    // Files of /proc say that they have no bytes, and a file may grow: what counts is what comes.
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large(bytes.len() as u64, most));
    }
    Ok(bytes)
}

/// Whether `path` is an end of a pipe without a name, such as `/dev/fd/63`: its other end was open when this one was made.
fn is_open_pipe(path: &Path) -> io::Result<bool> {
    // What the link in /proc says (`pipe:[4711]`) is no path.
    Ok(fs::metadata(path)?.file_type().is_fifo() && path.canonicalize().is_err())
}

/// Reads as [`read`] does at most `most` bytes of UTF-8.
///
/// # Errors
/// As [`read`], and where the bytes are no UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unfit(format!("byte {at} is no UTF-8, so it is no text"))
    })
}

/// What something is that is no regular file: "it is a pipe and no regular file".
pub fn other_than_a_file(kind: FileType) -> String {
    let what = if kind.is_dir() {
        "folder"
    } else if kind.is_fifo() {
        "pipe"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    };
    format!("it is a {what} and no regular file")
}

fn too_large(bytes: u64, most: u64) -> io::Error {
    // Rounded up: what is a byte too large must not be called as large as the limit.
    let mib = |bytes: u64| bytes.div_ceil(MIB);
    unfit(format!(
        "it has {} MiB, more than the {} MiB that such a file may have",
        mib(bytes),
        most / MIB
    ))
}

fn unfit(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, words)
}
