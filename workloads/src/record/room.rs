//! How much memory the records may take where memory is limited: the pool counts to the program's control group, and where
//! that is full the kernel kills the program, which would have lived without a recording.

use heaplab_ring::CHUNK_BYTES;
use heaplab_ring::layout::{MAX_CHUNKS, MIN_CHUNKS};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Bytes that a pool may have: below, a few threads would hold all of it.
pub const POOL_BYTES: RangeInclusive<u64> =
    MIN_CHUNKS as u64 * CHUNK_BYTES as u64..=MAX_CHUNKS as u64 * CHUNK_BYTES as u64;

/// Bytes of the pool where memory is plenty.
const PLENTY: u64 = 64 << 20;
/// The part of a limit that the pool may take.
const SHARE: u64 = 16;

/// Bytes of shared memory for a recording: 64 MiB, or a sixteenth of the memory that the control groups of this process
/// (containers, services) may take, where that is less.
pub fn default_pool_bytes() -> u64 {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    pool_within(limit_of(&own, Path::new("/sys/fs/cgroup")))
}

fn pool_within(limit: Option<u64>) -> u64 {
    limit.map_or(PLENTY, |limit| PLENTY.min(limit / SHARE))
}

/// The least limit in bytes of the groups in `groups`, the text of /proc/self/cgroup, and of those above them.
fn limit_of(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        // Version 2, alone or beside version 1.
        let roots: &[&str] = match controllers {
            "" => &["", "unified"],
            list if list.split(',').any(|one| one == "memory") => &["memory"],
            _ => &[],
        };
        let file = match controllers {
            "" => "memory.max",
            _ => "memory.limit_in_bytes",
        };
        roots
            .iter()
            .flat_map(|root| folders(&mounted.join(root), path))
            .filter_map(|folder| {
                // "max" is no number.
                fs::read_to_string(folder.join(file))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            })
            .collect::<Vec<u64>>()
    });
    limits.min()
}

/// The folder of a group and those above it. In a container the path may be the host's: then only the root is there.
fn folders(root: &Path, path: &str) -> Vec<PathBuf> {
    let mut below = Path::new(path.trim_start_matches('/'));
    let mut folders = vec![root.join(below)];
    while let Some(parent) = below.parent() {
        folders.push(root.join(parent));
        below = parent;
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_above_a_process_counts() {
        let mounted = tempfile::tempdir().expect("folder");
        let put = |folder: &str, file: &str, text: &str| {
            let folder = mounted.path().join(folder);
            fs::create_dir_all(&folder).expect("folder");
            fs::write(folder.join(file), text).expect("file");
        };
        let limit = |groups: &str| limit_of(groups, mounted.path());
        assert_eq!(limit("0::/a/b\n"), None);
        put("a/b", "memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        put("a", "memory.max", "1048576\n");
        assert_eq!(limit("0::/a/b\n"), Some(1 << 20));
        assert_eq!(limit("0::/c\n"), None);
        // Version 1, whose absence of a limit is a large number; other controllers say nothing.
        put("memory/d", "memory.limit_in_bytes", "33554432\n");
        put("memory", "memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("3:cpu:/d\n4:memory:/d\n0::/\n"), Some(32 << 20));
        assert_eq!(
            limit("4:hugetlb,memory:/elsewhere\n"),
            Some(9_223_372_036_854_771_712)
        );
    }

    #[test]
    fn the_pool_is_a_sixteenth_of_a_small_limit() {
        assert_eq!(pool_within(None), 64 << 20);
        assert_eq!(pool_within(Some(64 << 30)), 64 << 20);
        assert_eq!(pool_within(Some(64 << 20)), 4 << 20);
        assert!(default_pool_bytes() <= 64 << 20);
    }
}
