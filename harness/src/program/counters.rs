//! The kernel's own counters of a process's memory: reading them holds no mapping, and so does not hold the process up.

use heaplab_worker::elsewhere;
use rustix::param::page_size;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;

use super::tree::field;

/// Growth of shared memory after which it is looked at once more what it is.
const GROWN: u64 = 1 << 20;

/// Memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Resident less those of files and shared memory.
    pub anonymous: u64,
    /// These.
    pub others: u64,
    /// What an allocator may have beside anonymous memory: pages of the hugetlb pool and of shared mappings, as of a replay (`elsewhere` of the
    /// worker). Whether it is the allocator's or the program's own no counter tells.
    pub elsewhere: u64,
    /// The same with files that happen to lie in memory.
    pub shared: u64,
    /// Most resident bytes that it has ever had.
    pub mark: Option<u64>,
}

/// Opened once: a look is two reads.
#[derive(Debug)]
pub(super) struct Counters {
    pid: u32,
    statm: Option<File>,
    status: Option<File>,
    shared: Shared,
}

/// Whether shared memory is more than files that happen to lie in memory (`/tmp` on tmpfs).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shared {
    /// It is.
    found: bool,
    /// Bytes of it when that was last looked at.
    looked: u64,
}

impl Shared {
    /// Of `bytes`, those that count; `is_found` looks through the mappings, which is done where there is more than before only.
    fn counted(&mut self, bytes: u64, is_found: impl FnOnce() -> bool) -> u64 {
        if !self.found && bytes >= self.looked + GROWN {
            self.looked = bytes;
            self.found = is_found();
        }
        match self.found {
            true => bytes,
            false => 0,
        }
    }
}

impl Counters {
    /// Of the process `pid`.
    pub fn of(pid: u32) -> Self {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}")).ok();
        Self {
            pid,
            statm: open("statm"),
            status: open("status"),
            shared: Shared::default(),
        }
    }

    /// As they are; `None` when the process is gone.
    pub fn look(&mut self) -> Option<Counted> {
        let mut text = [0; 128];
        let read = self.statm.as_ref()?.read_at(&mut text, 0).ok()?;
        let mut words = std::str::from_utf8(&text[..read]).ok()?.split_whitespace();
        let mut pages = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (size, resident, shared) = (pages()?, pages()?, pages()?);
        // A process that has ended is there until it is waited for, without memory.
        let bytes = |pages: u64| pages * page_size() as u64;
        let mut counted = (size > 0).then(|| Counted {
            anonymous: bytes(resident.saturating_sub(shared)),
            others: bytes(shared),
            ..Counted::default()
        })?;
        let mut text = [0; 4096];
        let read = (self.status.as_ref()).and_then(|status| status.read_at(&mut text, 0).ok());
        let status = std::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or_default();
        counted.mark = field(status, "VmHWM:");
        let shared = field(status, "RssShmem:").unwrap_or(0);
        let pool = field(status, "HugetlbPages:").unwrap_or(0);
        counted.shared = pool + shared;
        counted.elsewhere = pool + self.shared.counted(shared, || has_foreign(self.pid));
        Some(counted)
    }
}

fn has_foreign(pid: u32) -> bool {
    File::open(format!("/proc/{pid}/maps")).is_ok_and(|maps| {
        let mut lines = BufReader::new(maps).lines().map_while(Result::ok);
        lines.any(|line| elsewhere::is_foreign(&line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn files_in_memory_are_no_shared_memory() {
        let mut shared = Shared::default();
        assert_eq!(shared.counted(GROWN - 1, || unreachable!("too little")), 0);
        assert_eq!(shared.counted(3 * MIB, || false), 0);
        let unchanged = || unreachable!("it is what it was");
        assert_eq!(shared.counted(3 * MIB + GROWN - 1, unchanged), 0);
        assert_eq!(shared.counted(5 * MIB, || true), 5 * MIB);
        let known = || unreachable!("it is known");
        assert_eq!(shared.counted(7 * MIB, known), 7 * MIB);
        assert_eq!(shared.counted(2 * MIB, known), 2 * MIB);
    }

    #[test]
    fn this_process_is_counted() {
        let counted = Counters::of(std::process::id()).look().unwrap();
        assert!(counted.anonymous > 0 && counted.others > 0, "{counted:?}");
        assert!(counted.mark.is_some_and(|mark| mark > MIB), "{counted:?}");
    }
}
