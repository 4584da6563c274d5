//! Samples a running program's heap memory from outside.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two samples.
const STEP: Duration = Duration::from_millis(2);

/// Heap memory at its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peak {
    /// All of it.
    pub bytes: u64,
    /// The part that lies outside the classic heap (`brk`) when the mappings were last walked.
    pub outside_brk: u64,
}

/// Peak of heap memory of the process whose number appears in `pid_file`, until `stop`. `None` when the program was over
/// before the first sample.
pub(super) fn heap_peak(pid_file: PathBuf, stop: &AtomicBool) -> Option<Peak> {
    let pid: u32 = loop {
        if let Some(pid) = fs::read_to_string(&pid_file)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            break pid;
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    let (mut peak, mut highest, mut walked) = (None::<Peak>, 0, None);
    while !stop.load(Ordering::Relaxed) {
        let Some(anonymous) = fs::read_to_string(format!("/proc/{pid}/status"))
            .ok()
            .and_then(|text| field(&text, "RssAnon:"))
        else {
            break;
        };
        // Walking the mappings is expensive: only when the sum has grown by 1 %.
        if walked.is_none() || anonymous > highest + highest / 100 {
            highest = anonymous;
            walked = fs::read_to_string(format!("/proc/{pid}/smaps"))
                .ok()
                .map(|text| Walked::of(&text))
                .or(walked);
        }
        if let Some(walked) = walked {
            let bytes = anonymous.saturating_sub(walked.others);
            if peak.is_none_or(|peak| bytes > peak.bytes) {
                peak = Some(Peak {
                    bytes,
                    outside_brk: walked.outside_brk,
                });
            }
        }
        std::thread::sleep(STEP);
    }
    peak
}

/// Bytes of a `Name:   123 kB` line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Anonymous bytes of `smaps` by the kind of mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Walked {
    /// In mappings of files and stacks: no heap.
    others: u64,
    /// In mappings that are neither those nor the classic heap.
    outside_brk: u64,
}

impl Walked {
    fn of(smaps: &str) -> Self {
        let (mut found, mut other, mut brk) = (Self::default(), false, false);
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if !first.ends_with(':') {
                // `start-end rwxp offset dev inode [path]`
                let path = words.nth(4).unwrap_or_default();
                other = path.starts_with('/') || path.starts_with("[stack");
                brk = path == "[heap]";
            } else if first == "Anonymous:" {
                let kib = words.next().and_then(|number| number.parse().ok());
                let bytes = kib.unwrap_or(0_u64) * 1024;
                match (other, brk) {
                    (true, _) => found.others += bytes,
                    (false, false) => found.outside_brk += bytes,
                    (false, true) => {}
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_stacks_are_left_out() {
        let smaps = "00-10 rw-p 0 08:01 5 /bin/x\nAnonymous:  4 kB\n20-30 rw-p 0 00:00 0 [heap]\nAnonymous: 100 kB\n\
                     40-50 rw-p 0 00:00 0\nAnonymous: 50 kB\n60-70 rw-p 0 00:00 0 [stack]\nAnonymous: 8 kB\n";
        let expected = Walked {
            others: 12 * 1024,
            outside_brk: 50 * 1024,
        };
        assert_eq!(Walked::of(smaps), expected);
        assert_eq!(
            field("VmRSS: 1 kB\nRssAnon:\t 7 kB\n", "RssAnon:"),
            Some(7168)
        );
    }
}
