//! Memory of a subject that is not anonymous to the kernel: shared mappings, whose pages `statm` counts as shared. The worker's own
//! memory is shared as well, and told apart by its name.

use std::ffi::CStr;
use std::io::BufRead;

/// The name under which the worker's own shared memory stands in /proc/self/maps.
pub const OWN_NAME: &CStr = c"heaplab-worker";

/// Whether a line of /proc/self/maps or smaps is the first of a mapping of shared memory that is not the worker's. Files on a disk are
/// none: the script is one.
pub fn is_foreign(line: &str) -> bool {
    // address permissions offset device inode name, all but the name without blanks.
    let mut words = line.split_ascii_whitespace();
    let shared = words.nth(1).is_some_and(|flags| flags.ends_with('s'));
    let Some(name) = words.nth(3).filter(|_| shared && begins_mapping(line)) else {
        return false;
    };
    match name.strip_prefix("/memfd:") {
        Some(name) => name.as_bytes() != OWN_NAME.to_bytes(),
        None => ["/dev/zero", "/dev/shm/", "/SYSV"]
            .iter()
            .any(|kind| name.starts_with(kind)),
    }
}

/// Whether it is the first line of any mapping; the others are a name, a colon and a figure.
fn begins_mapping(line: &str) -> bool {
    line.split_ascii_whitespace()
        .next()
        .is_some_and(|first| first.contains('-') && !first.ends_with(':'))
}

/// Resident bytes of such mappings by the text of smaps.
pub fn foreign_bytes(smaps: impl BufRead) -> u64 {
    let (mut bytes, mut foreign) = (0, false);
    for line in smaps.lines().map_while(Result::ok) {
        match line.strip_prefix("Rss:") {
            Some(rest) if foreign => {
                let kib = rest.split_ascii_whitespace().next();
                bytes += kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
            }
            Some(_) => {}
            None if begins_mapping(&line) => foreign = is_foreign(&line),
            None => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f00-7f10 rw-s 00000000 00:01 7   /dev/zero (deleted)
Size:                 64 kB
Rss:                  40 kB
Anonymous:             0 kB
7f10-7f20 rw-s 00000000 00:01 8   /memfd:heaplab-worker (deleted)
Rss:                 512 kB
7f20-7f30 rw-s 00000000 00:01 9   /memfd:pool (deleted)
Rss:                   8 kB
7f30-7f40 r--s 00000000 08:01 10  /home/u/script
Rss:                 900 kB
7f40-7f50 rw-p 00000000 00:00 0
Rss:                  16 kB
7f50-7f60 rw-s 00000000 00:01 11  /SYSV00000000 (deleted)
Rss:                   4 kB
FilePmdMapped:         0 kB
";

    #[test]
    fn shared_memory_that_is_not_the_workers_is_the_subjects() {
        assert_eq!(foreign_bytes(SMAPS.as_bytes()), (40 + 8 + 4) << 10);
        let lines = SMAPS.lines().filter(|line| is_foreign(line)).count();
        assert_eq!(lines, 3);
        assert_eq!(foreign_bytes(&b""[..]), 0);
    }
}
