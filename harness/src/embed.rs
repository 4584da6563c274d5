//! The files that travel inside the binary (worker, recorder, subjects), and the private cache they are written to.
//!
//! A file is only handed out when its folder and itself belong to the user, nobody else may write to them, and its hash
//! is the one from the build: what is preloaded into programs must not be somebody else's. Everybody may read them: a program
//! that begins as root goes on as another user often enough (`setpriv`, `su`, servers), and the loader of what it executes then
//! must find them.

use crate::error::Error;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File as Handle, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One embedded file.
struct File {
    name: &'static str,
    sha256: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Embedded {
    /// The process in which runs take place.
    Worker,
    /// The preload library that records.
    Recorder,
    /// Our allocator.
    Spanalloc,
    /// Competitor.
    Jemalloc,
    /// Competitor (v2).
    Mimalloc,
    /// Calibration.
    Null,
    /// Calibration of gates.
    Planted,
    /// Competitor (v3).
    MimallocV3,
    /// Competitor, in builds with the feature of this name.
    Snmalloc,
    /// Competitor, in builds with the feature of this name.
    Rpmalloc,
    /// Competitor (Google's), in builds with the feature of this name.
    Tcmalloc,
    /// The preload library that records and captures stacks.
    RecorderStacks,
    /// The preload library that asks a program's allocator for its statistics.
    StatisticsAgent,
    /// The preload library that notes what a program maps by itself.
    MappingsAgent,
}

impl Embedded {
    fn name(self) -> &'static str {
        match self {
            Self::Worker => "heaplab-worker",
            Self::Recorder => "libheaplab_recorder.so",
            Self::Spanalloc => "libspanalloc.so",
            Self::Jemalloc => "libheaplab_jemalloc.so",
            Self::Mimalloc => "libheaplab_mimalloc.so",
            Self::Null => "libheaplab_null.so",
            Self::Planted => "libheaplab_planted.so",
            Self::MimallocV3 => "libheaplab_mimalloc_v3.so",
            Self::Snmalloc => "libheaplab_snmalloc.so",
            Self::Rpmalloc => "libheaplab_rpmalloc.so",
            Self::Tcmalloc => "libheaplab_tcmalloc.so",
            Self::RecorderStacks => "libheaplab_recorder_stacks.so",
            Self::StatisticsAgent => "libheaplab_statistics_agent.so",
            Self::MappingsAgent => "libheaplab_mappings_agent.so",
        }
    }

    /// Whether this build has it.
    pub fn is_here(self) -> bool {
        FILES.iter().any(|file| file.name == self.name())
    }

    /// The file; only for those that are here.
    fn file(self) -> &'static File {
        FILES
            .iter()
            .find(|file| file.name == self.name())
            .expect("the file is in this build")
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(self) -> &'static str {
        self.file().sha256
    }
}

/// Path of an embedded file in the private cache, written there if it is not, or no longer, there as it was built.
///
/// # Errors
/// When neither the cache folder nor the folder for temporary files can be used.
pub fn path(which: Embedded) -> Result<PathBuf, Error> {
    let mut reasons = Vec::new();
    for folder in folders() {
        match path_in(&folder, which) {
            Ok(path) => return Ok(path),
            Err(error) => reasons.push(format!("'{}': {error}", folder.display())),
        }
    }
    Err(Error::environment(format!(
        "no private folder for {} ({}); set XDG_CACHE_HOME to a folder that you own",
        which.file().name,
        reasons.join("; ")
    )))
}

/// As [`path`], at a path that the dynamic loader can read in LD_PRELOAD: it takes spaces and colons for separators.
///
/// # Errors
/// As [`path`], and where neither folder has such a path.
pub fn preloadable(which: Embedded) -> Result<PathBuf, Error> {
    let readable = |path: &Path| !path.to_string_lossy().contains([' ', ':']);
    let path = path(which)?;
    if readable(&path) {
        return Ok(path);
    }
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("heaplab-recorder-{user}"));
    let other = path_in(&folder, which).ok().filter(|p| readable(p));
    other.ok_or_else(|| {
        Error::environment(format!(
            "'{}' has a space or a colon, which LD_PRELOAD cannot carry; set XDG_CACHE_HOME to a folder without",
            path.display()
        ))
    })
}

/// Candidates for the cache, best first.
fn folders() -> Vec<PathBuf> {
    let mut sum = Sha256::new();
    FILES.iter().for_each(|file| sum.update(file.sha256));
    let version: String = sum
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let user = rustix::process::geteuid().as_raw();
    let home = absolute("HOME").map(|home| home.join(".cache"));
    let caches = match absolute("XDG_CACHE_HOME") {
        Some(chosen) => vec![Some(chosen)],
        // Root's home is closed to the users as which root runs programs.
        None if user == 0 => vec![Some(PathBuf::from("/var/cache")), home],
        None => vec![home],
    };
    (caches.into_iter().flatten())
        .map(|cache| cache.join("heaplab").join(&version))
        .chain([std::env::temp_dir().join(format!("heaplab-{user}-{version}"))])
        .collect()
}

/// As [`path`], in a folder of the caller's choice (made if it is not there).
///
/// # Errors
/// When the folder cannot be made or written, belongs to somebody else or may be written by others.
pub fn path_in(folder: &Path, which: Embedded) -> io::Result<PathBuf> {
    if let Some(above) = folder.parent() {
        if let Some(further) = above.parent() {
            fs::create_dir_all(further)?;
        }
        create(above)?;
    }
    create(folder)?;
    private(folder, true)?;
    let file = which.file();
    let path = folder.join(file.name);
    if !intact(&path, file) {
        write(folder, &path, file)?;
    }
    Ok(path)
}

/// Makes a folder that everybody may read, whatever the user's umask is; one that is there stays as it is.
fn create(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a path is the user's own and closed to others' writing; a symbolic link is neither.
fn private(path: &Path, folder: bool) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let kind = if folder {
        found.is_dir()
    } else {
        found.is_file()
    };
    if !kind || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not a private one of this user",
        ));
    }
    Ok(())
}

fn intact(path: &Path, file: &File) -> bool {
    let mut bytes = Vec::with_capacity(file.bytes.len());
    private(path, false).is_ok()
        && Handle::open(path)
            .and_then(|mut handle| handle.read_to_end(&mut bytes))
            .is_ok()
        && bytes == file.bytes
}

/// Puts the file in place in one step, so that a process that starts meanwhile sees the old or the new one.
fn write(folder: &Path, path: &Path, file: &File) -> io::Result<()> {
    let temporary = folder.join(format!("{}.{}", file.name, std::process::id()));
    let written = (|| {
        let _ = fs::remove_file(&temporary);
        let mut handle = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&temporary)?;
        handle.write_all(file.bytes)?;
        handle.set_permissions(Permissions::from_mode(0o755))?;
        drop(handle);
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_again_when_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let path = path_in(&cache, Embedded::Null).unwrap();
        let first = fs::metadata(&path).unwrap();
        // Another user's process may load it.
        assert_eq!(first.mode() & 0o777, 0o755);
        assert_eq!(fs::metadata(&cache).unwrap().mode() & 0o777, 0o755);
        assert_eq!(
            fs::metadata(path_in(&cache, Embedded::Null).unwrap())
                .unwrap()
                .ino(),
            first.ino()
        );
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, &bytes).unwrap();
        path_in(&cache, Embedded::Null).unwrap();
        assert_eq!(fs::read(&path).unwrap(), Embedded::Null.file().bytes);
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
        let error = path_in(&cache, Embedded::Null).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_link_in_place_of_a_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let path = path_in(&cache, Embedded::Null).unwrap();
        let elsewhere = folder.path().join("elsewhere.so");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        path_in(&cache, Embedded::Null).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn the_hashes_are_those_of_the_bytes() {
        for file in &FILES {
            let sum: String = Sha256::digest(file.bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(sum, file.sha256, "{}", file.name);
        }
    }
}
