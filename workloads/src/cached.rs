//! Who uses a script in a cache that others clear, and who clears it.
//!
//! Runs share their scripts, and each may clear the cache when it begins. A lock on the script itself says who was first: a user
//! holds it shared while it marks the script as used, a clearer alone while it looks at the mark and removes. A user that
//! comes second finds that its file has no name any more; a clearer that comes second finds it in use, or the mark new.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Marks the script at `path` as used now; nobody removes it for that reason as long as the mark is new, or the result lives. `None`:
/// there is none.
pub(crate) fn claim(path: &Path) -> Option<File> {
    let file = File::options()
        .append(true)
        .open(path)
        .or_else(|_| File::open(path))
        .ok()?;
    // Where files cannot be locked or marked, one that is removed too early is made again at the next run.
    let _ = file.lock_shared();
    let _ = file.set_modified(SystemTime::now());
    is_named(&file, path).then_some(file)
}

/// The file still is what `path` names. (For who holds its lock: until it is given back.)
fn is_named(file: &File, path: &Path) -> bool {
    let identity = |of: io::Result<Metadata>| of.ok().map(|of| (of.dev(), of.ino()));
    let own = identity(file.metadata());
    own.is_some() && own == identity(path.metadata())
}

/// Removes the script at `path` unless it was used after `since`, or somebody begins to. Whether it was removed.
///
/// # Errors
/// It cannot be opened or removed.
pub fn remove_unused(path: &Path, since: SystemTime) -> io::Result<bool> {
    let file = File::open(path)?;
    // Another clearer may have removed the file meanwhile, and somebody made a new one of that name.
    if file.try_lock().is_err() || !is_named(&file, path) || file.metadata()?.modified()? > since {
        return Ok(false);
    }
    std::fs::remove_file(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::Duration;

    fn old(path: &Path) {
        let file = File::create(path).expect("a file");
        file.set_modified(SystemTime::now() - Duration::from_secs(7200))
            .expect("a time");
    }

    fn hour_ago() -> SystemTime {
        SystemTime::now() - Duration::from_secs(3600)
    }

    #[test]
    fn what_is_in_use_or_was_is_not_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("script");
        assert!(claim(&path).is_none());
        old(&path);
        let user = claim(&path).expect("it is there");
        user.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
        assert!(
            !remove_unused(&path, hour_ago()).expect("it is there"),
            "locked"
        );
        drop(user);
        drop(claim(&path).expect("it is there"));
        assert!(
            !remove_unused(&path, hour_ago()).expect("it is there"),
            "new"
        );
        old(&path);
        assert!(remove_unused(&path, hour_ago()).expect("it is there"));
        assert!(!path.exists());
    }

    /// Users and clearers at once: what a user got stays.
    #[test]
    fn nobody_loses_what_it_has_claimed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("script");
        let clearing = AtomicBool::new(true);
        let (mut claimed, mut lost) = (0, 0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while clearing.load(Relaxed) {
                        let _ = remove_unused(&path, hour_ago());
                    }
                });
            }
            for _ in 0..3_000 {
                old(&path);
                if let Some(file) = claim(&path) {
                    drop(file);
                    std::thread::yield_now();
                    claimed += 1;
                    lost += u32::from(!path.exists());
                }
            }
            clearing.store(false, Relaxed);
        });
        assert!(claimed > 0);
        assert_eq!(lost, 0, "of {claimed} that were marked as used");
    }
}
