//! Where compiled scripts are kept between runs, and how much of them.
//!
//! Every run without `--seed` draws new scripts, a gigabyte for the suite `full`; without a bound they would
//! fill the disk. When a run begins, the scripts that were used longest ago are removed until the others are
//! within the bound, but none that was used within the last hour: another run may be about to open it.

use heaplab_workloads::cached;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes that all scripts may take.
const BOUND: u64 = 4 << 30;
/// For so long a script is kept in any case.
const KEPT: Duration = Duration::from_secs(3600);

/// The folder of scripts, made and within bounds: beside the embedded files, or among temporary files.
pub fn folder() -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let home =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let folder = home.map(|home| home.join("heaplab").join("scripts"));
    let folder = match folder {
        Some(folder) if fs::create_dir_all(&folder).is_ok() => folder,
        _ => std::env::temp_dir().join(format!(
            "heaplab-scripts-{}",
            rustix::process::geteuid().as_raw()
        )),
    };
    // What cannot be removed is no reason not to run.
    let _ = trim(&folder, BOUND, SystemTime::now());
    folder
}

/// Removes what was used longest ago until `bound` bytes are left, or only what was used within an hour before `now`.
fn trim(folder: &Path, bound: u64, now: SystemTime) -> io::Result<()> {
    let mut scripts = Vec::new();
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another run may be removing it.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_file() && entry.path().extension().is_some_and(|e| e == "hlscript") {
            total += metadata.len();
            scripts.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    scripts.sort();
    for (used, bytes, path) in scripts {
        if total <= bound || used > now - KEPT {
            break;
        }
        // What another run removes meanwhile, or begins to use, is no reason to stop.
        if cached::remove_unused(&path, now - KEPT).unwrap_or(false) {
            total -= bytes;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first_and_nothing_recent() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = SystemTime::now();
        let script = |name: &str, minutes: u64| {
            let file = fs::File::create(folder.path().join(name)).expect("a file");
            file.set_len(100).expect("a length");
            file.set_modified(now - Duration::from_secs(60 * minutes))
                .expect("a time");
        };
        script("old.hlscript", 300);
        script("older.hlscript", 400);
        script("middle.hlscript", 200);
        script("new.hlscript", 5);
        script("notes.txt", 900);
        let names = || {
            let mut names: Vec<String> = fs::read_dir(folder.path())
                .expect("the folder")
                .map(|e| {
                    e.expect("an entry")
                        .file_name()
                        .into_string()
                        .expect("text")
                })
                .collect();
            names.sort();
            names
        };
        trim(folder.path(), 250, now).expect("it can");
        assert_eq!(names(), ["middle.hlscript", "new.hlscript", "notes.txt"]);
        trim(folder.path(), 0, now).expect("it can");
        assert_eq!(names(), ["new.hlscript", "notes.txt"]);
    }
}
