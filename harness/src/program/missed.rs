//! Peaks between two looks, by the kernel's own high-water mark.
//!
//! A program that fills a large block and frees another one right after it (ImageMagick) is at its peak for less than the time between two
//! looks. The kernel knows how much was in memory in all (`VmHWM` of /proc/PID/status): what that exceeds all looks by was anonymous, as
//! files and shared memory do not come and go so fast.

use rustix::param::page_size;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Keeps the highest resident bytes that were seen.
#[derive(Debug)]
pub(super) struct Missed {
    status: Option<File>,
    highest: u64,
    /// Bytes by which the mark may be off.
    slack: u64,
}

impl Missed {
    /// For the process `pid`.
    pub fn of(pid: u32) -> Self {
        Self {
            status: File::open(format!("/proc/{pid}/status")).ok(),
            highest: 0,
            slack: slack(crate::fingerprint::online_cpus()),
        }
    }

    /// With `resident` bytes in memory now, of which `others` are no anonymous ones: the anonymous bytes of a peak since the last look that
    /// no look has seen.
    pub fn look(&mut self, resident: u64, others: u64) -> Option<u64> {
        let mut text = [0; 4096];
        let read = self.status.as_ref()?.read_at(&mut text, 0).ok()?;
        let mark = mark(std::str::from_utf8(&text[..read]).ok()?)?;
        self.beyond(mark, resident, others)
    }

    fn beyond(&mut self, mark: u64, resident: u64, others: u64) -> Option<u64> {
        self.highest = self.highest.max(resident);
        if mark <= self.highest + self.slack {
            return None;
        }
        self.highest = mark;
        Some(mark.saturating_sub(others))
    }
}

/// The kernel adds up what each CPU has counted where it is asked for the bytes, and leaves out up to a batch of each CPU where it keeps
/// the mark; anonymous memory, files and shared memory have a counter each (`mm/memory.c`, `lib/percpu_counter.c`).
fn slack(cpus: u32) -> u64 {
    let batch = u64::from(cpus * 2).max(32);
    3 * batch * u64::from(cpus) * page_size() as u64
}

/// Bytes of the line `VmHWM:`.
fn mark(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_peak_that_no_look_has_seen_is_told_once() {
        let mut missed = Missed {
            status: None,
            highest: 0,
            slack: MIB,
        };
        assert_eq!(missed.beyond(100 * MIB, 100 * MIB, 9 * MIB), None);
        // Within what the mark may be off.
        assert_eq!(missed.beyond(101 * MIB, 90 * MIB, 9 * MIB), None);
        assert_eq!(missed.beyond(106 * MIB, 90 * MIB, 9 * MIB), Some(97 * MIB));
        assert_eq!(missed.beyond(106 * MIB, 90 * MIB, 9 * MIB), None);
        assert_eq!(missed.beyond(110 * MIB, 110 * MIB, 9 * MIB), None);
    }

    #[test]
    fn this_process_has_a_mark() {
        let mark = mark(&std::fs::read_to_string("/proc/self/status").unwrap()).unwrap();
        assert!(mark > MIB, "{mark}");
        let mut missed = Missed::of(std::process::id());
        assert_eq!(missed.look(mark + 64 * MIB, 0), None);
        let mut missed = Missed::of(std::process::id());
        missed.slack = 0;
        assert!(
            missed
                .look(0, 4096)
                .is_some_and(|anonymous| anonymous >= mark - 4096)
        );
    }

    #[test]
    fn two_cpus_leave_less_than_a_mebibyte_open() {
        assert_eq!(slack(2), 3 * 32 * 2 * page_size() as u64);
        assert_eq!(mark("Name:\tx\nVmHWM:\t    1732 kB\n"), Some(1732 << 10));
        assert_eq!(mark("Name:\tx\n"), None);
    }
}
