//! Peaks between two looks, by the kernel's own high-water mark.
//!
//! A program that fills a large block and frees another one right after it (ImageMagick) is at its peak for less than the time between two
//! looks. The kernel knows how much was in memory in all (`VmHWM` of /proc/PID/status): what that exceeds all looks by was anonymous, as
//! files and shared memory do not come and go so fast.

use rustix::param::page_size;

/// Keeps the highest resident bytes that were seen.
#[derive(Debug)]
pub(super) struct Missed {
    highest: u64,
    /// Bytes by which the mark may be off.
    slack: u64,
}

impl Missed {
    /// On this machine.
    pub fn new() -> Self {
        Self {
            highest: 0,
            slack: slack(crate::fingerprint::online_cpus()),
        }
    }

    /// With `resident` bytes in memory now, of which `others` are no anonymous ones, and `mark` at most so far: the anonymous bytes of a peak
    /// since the last look that no look has seen.
    pub fn beyond(&mut self, mark: u64, resident: u64, others: u64) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_peak_that_no_look_has_seen_is_told_once() {
        let mut missed = Missed {
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
    fn two_cpus_leave_less_than_a_mebibyte_open() {
        assert_eq!(slack(2), 3 * 32 * 2 * page_size() as u64);
    }
}
