//! A file that has no name before it is whole.
//!
//! It is made without any name where the file system can (`O_TMPFILE`, open(2)): then nothing is left of it however the
//! process ends, by SIGKILL or a power cut too. Elsewhere it has a temporary name, which goes when it is dropped.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// See the module.
pub struct Newcomer {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    named: bool,
}

impl Newcomer {
    /// Makes the file; `temporary` lies in the same folder as `path` and nobody else uses that name.
    pub fn create(path: &Path, temporary: PathBuf) -> io::Result<Self> {
        let (file, named) = match unnamed(path) {
            Some(file) => (file, false),
            None => {
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(&temporary)?;
                (file, true)
            }
        };
        Ok(Self {
            file,
            path: path.to_path_buf(),
            temporary,
            named,
        })
    }

    /// What is to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, in place of a file that has it.
    pub fn publish(mut self) -> io::Result<()> {
        if !self.named {
            // A link never takes another file's name, a renaming does.
            link(&self.file, &self.temporary)?;
            self.named = true;
        }
        std::fs::rename(&self.temporary, &self.path)?;
        self.named = false;
        Ok(())
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if self.named {
            // An error means that it is gone already.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// A file without a name in the folder of `path`; `None` where that, or giving it a name later, is not possible.
fn unnamed(path: &Path) -> Option<File> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(folder)
        .ok()?;
    Path::new(&own_path(&file)).exists().then_some(file)
}

/// The file as its process sees it.
fn own_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Gives a file without a name one that nobody has (linkat(2)).
fn link(file: &File, name: &Path) -> io::Result<()> {
    let own = CString::new(own_path(file))?;
    let name = CString::new(name.as_os_str().as_bytes())?;
    // SAFETY: both are strings that end in a zero and live until the call returns; it keeps neither.
    let result = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            own.as_ptr(),
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Both ways: with and without a temporary name.
    #[test]
    fn it_appears_when_it_is_published_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut made = vec![Newcomer::create(&at("a"), at("a.tmp")).unwrap()];
        made.push(Newcomer {
            file: File::create_new(at("b.tmp")).unwrap(),
            path: at("b"),
            temporary: at("b.tmp"),
            named: true,
        });
        for (newcomer, name) in made.into_iter().zip(["a", "b"]) {
            std::fs::write(at(name), "old").unwrap();
            newcomer.file().write_all(b"new").unwrap();
            assert_eq!(std::fs::read(at(name)).unwrap(), b"old");
            newcomer.publish().unwrap();
            assert_eq!(std::fs::read(at(name)).unwrap(), b"new");
        }
        assert_eq!(names(folder.path()), ["a", "b"]);
        drop(Newcomer::create(&at("c"), at("c.tmp")).unwrap());
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert!(Newcomer::create(&at("none/c"), at("none/c.tmp")).is_err());
    }
}
