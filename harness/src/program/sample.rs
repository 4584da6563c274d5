//! Samples a running program's heap memory from outside.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two samples.
const STEP: Duration = Duration::from_millis(2);

/// Peak of heap memory of the process whose number appears in `pid_file`, until `stop`. `None` when the program was over
/// before the first sample.
pub(super) fn heap_peak(pid_file: PathBuf, stop: &AtomicBool) -> Option<u64> {
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
    let (mut peak, mut highest, mut others) = (None, 0, None);
    while !stop.load(Ordering::Relaxed) {
        let Some(anonymous) = fs::read_to_string(format!("/proc/{pid}/status"))
            .ok()
            .and_then(|text| field(&text, "RssAnon:"))
        else {
            break;
        };
        // Walking the mappings is expensive: only when the sum has grown by 1 %.
        if others.is_none() || anonymous > highest + highest / 100 {
            highest = anonymous;
            others = fs::read_to_string(format!("/proc/{pid}/smaps"))
                .ok()
                .map(|text| not_heap(&text))
                .or(others);
        }
        if let Some(others) = others {
            peak = peak.max(Some(anonymous.saturating_sub(others)));
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

/// Anonymous bytes of `smaps` in mappings of files and stacks.
fn not_heap(smaps: &str) -> u64 {
    let (mut counts, mut sum) = (false, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            // `start-end rwxp offset dev inode [path]`
            let path = words.nth(4).unwrap_or_default();
            counts = path.starts_with('/') || path.starts_with("[stack");
        } else if counts && first == "Anonymous:" {
            sum += words
                .next()
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_stacks_are_left_out() {
        let smaps = "00-10 rw-p 0 08:01 5 /bin/x\nAnonymous:  4 kB\n20-30 rw-p 0 00:00 0 [heap]\nAnonymous: 100 kB\n\
                     40-50 rw-p 0 00:00 0\nAnonymous: 50 kB\n60-70 rw-p 0 00:00 0 [stack]\nAnonymous: 8 kB\n";
        assert_eq!(not_heap(smaps), 12 * 1024);
        assert_eq!(
            field("VmRSS: 1 kB\nRssAnon:\t 7 kB\n", "RssAnon:"),
            Some(7168)
        );
    }
}
