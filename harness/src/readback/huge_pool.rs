//! Whether the C library's malloc finds the huge pages that `hugetlb=` tells it to take (`man 5 proc`, *HugePages*): where an
//! administrator has set none apart it goes on without, in silence.

use std::path::Path;

/// Folders of the kernel's pools, one a page size.
pub const POOLS: &str = "/sys/kernel/mm/hugepages";

/// Why `hugetlb=value` changes nothing; `None`: it may change something. 0 is none, 1 is transparent huge pages, 2 the machine's
/// huge pages of the default size of `default_bytes`, and more the size.
pub fn without_effect(value: u64, pools: &Path, default_bytes: u64) -> Option<String> {
    let bytes = match value {
        0 | 1 => return None,
        2 => default_bytes,
        bytes => bytes,
    };
    let pool = pools.join(format!("hugepages-{}kB", bytes / 1024));
    if !bytes.is_multiple_of(1024) || !pool.is_dir() {
        return Some(format!("this machine has no huge pages of {bytes} bytes"));
    }
    let none =
        |name: &str| std::fs::read_to_string(pool.join(name)).is_ok_and(|text| text.trim() == "0");
    (none("nr_hugepages") && none("nr_overcommit_hugepages")).then(|| {
        format!(
            "no huge pages are set apart on this machine ({}/nr_hugepages)",
            pool.display()
        )
    })
}

/// Bytes of a huge page of the default size.
pub fn default_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (meminfo.lines())
        .find_map(|line| line.strip_prefix("Hugepagesize:"))
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .map_or(2 << 20, |kib: u64| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pool_and_a_size_without_one_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let pool = folder.path().join("hugepages-2048kB");
        std::fs::create_dir(&pool).unwrap();
        let set = |name: &str, number: &str| std::fs::write(pool.join(name), number).unwrap();
        let why = |value| without_effect(value, folder.path(), 2 << 20).unwrap_or_default();
        set("nr_hugepages", "0\n");
        set("nr_overcommit_hugepages", "0\n");
        assert_eq!((why(0), why(1)), (String::new(), String::new()));
        assert!(why(2).contains("set apart") && why(2 << 20).contains("set apart"));
        assert!(why(3).contains("of 3 bytes") && why(1 << 30).contains("of 1073741824 bytes"));
        set("nr_overcommit_hugepages", "4\n");
        assert_eq!(why(2), "", "they may be taken when they are asked for");
        set("nr_overcommit_hugepages", "0\n");
        set("nr_hugepages", "8\n");
        assert_eq!(why(2), "");
        assert!(default_bytes() >= 64 << 10);
    }
}
