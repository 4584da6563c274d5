//! The processes of a running program, and the memory that they occupy together.
//!
//! Pages that processes share (the program's code, everything after a fork until it is written) are counted once: the figure
//! is the sum of proportional set sizes (PSS, `smaps_rollup`) of all processes at one instant. The peak that a control
//! group keeps would need rights that a user rarely has, and has the page cache in it.
//!
//! Reading PSS walks all pages of a process, so that it is read seldom: when processes come or go, and when the plain sum
//! of resident sizes (`statm`, 10 µs a process) has grown by 1 %, at most 5 % of the time. In between, what the plain sum has
//! grown by counts in full.

use rustix::param::page_size;
use std::fs;
use std::time::{Duration, Instant};

/// Growth of the plain sum after which PSS is read again.
const GROWN: f64 = 0.01;
/// A walk that took this long is followed by so many times of rest.
const REST: u32 = 20;

/// Numbers of all processes below `ancestor`, which is not among them.
pub(super) fn below(ancestor: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![ancestor];
    while let Some(parent) = open.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|n| n.parse().ok()) {
                found.push(child);
                open.push(child);
            }
        }
    }
    found.sort_unstable();
    found
}

/// The process that started `pid`.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')')
        .next()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Resident bytes of a process, shared ones included.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// Bytes of a `Name:   123 kB` line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn proportional(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    field(&rollup, "Pss:")
}

/// Memory of all processes together, followed over time.
#[derive(Debug, Default)]
pub(super) struct TreeMemory {
    members: Vec<u32>,
    /// At the last walk: proportional bytes and the plain sum.
    walked: Option<(u64, u64)>,
    next_walk: Option<Instant>,
    peak: u64,
    most: u32,
}

impl TreeMemory {
    /// Looks once; `resident` gives the plain size of a process.
    pub fn look(&mut self, members: &[u32], sizes: &[u64]) {
        let plain: u64 = sizes.iter().sum();
        self.most = self.most.max(members.len() as u32);
        if members != self.members {
            // What was known is about other processes: no estimate before the next walk.
            self.members = members.to_vec();
            self.walked = None;
        }
        let now = Instant::now();
        let due = self
            .walked
            .is_none_or(|(_, then)| plain as f64 > then as f64 * (1.0 + GROWN));
        if due && self.next_walk.is_none_or(|next| now >= next) {
            let sum: u64 = members.iter().filter_map(|pid| proportional(*pid)).sum();
            let took = now.elapsed();
            self.next_walk = Some(now + took + took.min(Duration::from_secs(1)) * REST);
            if sum > 0 {
                self.walked = Some((sum, plain));
            }
        }
        if let Some((sum, then)) = self.walked {
            self.peak = self.peak.max((sum + plain).saturating_sub(then));
        }
    }

    /// Peak of the sum of proportional sizes; absent when the program was over before the first look.
    pub fn peak(&self) -> Option<u64> {
        (self.peak > 0).then_some(self.peak)
    }

    /// Most processes at a time.
    pub fn most(&self) -> u32 {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn processes_are_found_and_shared_pages_count_once() {
        // A parent with 64 MiB and three children that share them by fork.
        let script = "import os, time\nx = bytearray(64 << 20)\nfor _ in range(3):\n  if os.fork() == 0:\n    time.sleep(60)\n    \
                      os._exit(0)\nprint('up', flush=True)\ntime.sleep(60)";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 2];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        let mut members = below(child.id());
        members.push(child.id());
        members.sort_unstable();
        let sizes: Vec<u64> = members.iter().filter_map(|pid| resident(*pid)).collect();
        let mut tree = TreeMemory::default();
        tree.look(&members, &sizes);
        for pid in members.iter().filter(|pid| **pid != child.id()) {
            assert_eq!(parent(*pid), Some(child.id()));
            let pid = rustix::process::Pid::from_raw(*pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((members.len(), tree.most()), (4, 4));
        let (sum, peak) = (sizes.iter().sum::<u64>(), tree.peak().unwrap());
        assert!(sum > 4 * (64 << 20), "{sum}");
        assert!(peak > 64 << 20 && peak < 2 * (64 << 20), "{peak}");
    }
}
