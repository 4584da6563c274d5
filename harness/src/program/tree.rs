//! The processes of a running program, and the memory that they occupy together.
//!
//! Pages that processes share (the program's code, everything after a fork until it is written) are counted once: the figure
//! is the sum of proportional set sizes (PSS, `smaps_rollup`) of all processes at one instant. The peak that a control
//! group keeps would need rights that a user rarely has, and has the page cache in it.
//!
//! Pages of the hugetlb pool are in no resident size and no PSS: they are added, those that several processes share (after a fork) by
//! equal parts.
//!
//! Reading PSS walks all pages of a process, so that it is read seldom: when processes come or go, and when the plain sum
//! of resident sizes (`statm`, 10 µs a process) has grown by 1 %, at most 5 % of the time. In between, what the plain sum has
//! grown by counts in full.
//!
//! A short program, or one on a busy machine, is looked at a few times only. So the kernel is asked how much each process has had
//! since the last look (`VmHWM`), and for the largest one how much it had in all (`wait4`). Where several have had more than they
//! have, nothing tells whether it was at once: it counts as if, and that much the figure may be too high.

use rustix::param::page_size;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Growth of the plain sum after which PSS is read again.
const GROWN: f64 = 0.01;
/// A walk that took this long is followed by so many times of rest; so is a look, within the bound.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_millis(100);
/// Between two looks: one part in so many of the time since processes came or went, within these bounds.
const PART: u32 = 20;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(10);

/// Resident bytes of a process, shared ones included.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// What `status` tells of a process's memory.
#[derive(Clone, Copy, Debug, Default)]
struct Status {
    /// Most resident bytes that it has had since it began or replaced itself by exec.
    highest: Option<u64>,
    /// Pages of the hugetlb pool, which are no resident bytes.
    pool: u64,
}

/// Where the kernel tells of processes.
#[derive(Debug)]
struct Proc(PathBuf);

impl Default for Proc {
    fn default() -> Self {
        Self(PathBuf::from("/proc"))
    }
}

impl Proc {
    fn read(&self, pid: u32, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join(pid.to_string()).join(name)).ok()
    }

    fn status(&self, pid: u32) -> Status {
        let text = self.read(pid, "status").unwrap_or_default();
        Status {
            highest: field(&text, "VmHWM:"),
            pool: field(&text, "HugetlbPages:").unwrap_or(0),
        }
    }

    fn proportional(&self, pid: u32) -> Option<Proportional> {
        Proportional::of(&self.read(pid, "smaps_rollup")?)
    }
}

/// Bytes of a `Name:   123 kB` line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// What `smaps_rollup` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proportional {
    /// Proportional bytes, and those in pages of the hugetlb pool that nobody shares.
    own: u64,
    /// In such pages that others have, too: the kernel tells no proportional size of them.
    shared_pool: u64,
}

impl Proportional {
    fn of(rollup: &str) -> Option<Self> {
        let field = |name| field(rollup, name);
        Some(Self {
            own: field("Pss:")? + field("Private_Hugetlb:").unwrap_or(0),
            shared_pool: field("Shared_Hugetlb:").unwrap_or(0),
        })
    }

    /// By one of so many processes that have shared pages of the pool.
    fn bytes(self, sharers: u64) -> u64 {
        self.own + self.shared_pool / sharers.max(1)
    }
}

/// Peak memory of all processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TreePeak {
    /// Sum of proportional sizes.
    pub bytes: u64,
    /// By how much it may be off, either way.
    pub uncertain: u64,
}

/// Memory of all processes together, followed over time.
#[derive(Debug, Default)]
pub(super) struct TreeMemory {
    proc: Proc,
    members: Vec<u32>,
    /// Since when there are these, and when the next look is due.
    since: Option<Instant>,
    next: Option<Instant>,
    /// What each had had at the last look at most.
    highest: HashMap<u32, u64>,
    /// Largest of all of them, and whose it is.
    largest: (u64, u32),
    /// When that process was last looked at: all of them together, and what of it counted as its own.
    last_with_largest: (TreePeak, u64),
    /// Most bytes of a process in pages of the hugetlb pool.
    pool: u64,
    /// Of each at the last walk: proportional bytes and resident ones.
    walked: HashMap<u32, (u64, u64)>,
    next_walk: Option<Instant>,
    peak: TreePeak,
    most: u32,
}

impl TreeMemory {
    /// Whether it is time for a look.
    pub fn is_due(&self) -> bool {
        self.next.is_none_or(|next| Instant::now() >= next)
    }

    /// How long it is to the next look.
    pub fn rest(&self) -> Duration {
        self.next.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now())
        })
    }

    /// Looks once; `sizes` are the resident bytes of the processes, pages of the hugetlb pool left out.
    pub fn look(&mut self, members: &[u32], sizes: &[u64]) {
        let now = Instant::now();
        self.most = self.most.max(members.len() as u32);
        if members != self.members {
            self.members = members.to_vec();
            self.walked.retain(|pid, _| members.contains(pid));
            self.since = None;
        }
        let told: Vec<Status> = members.iter().map(|pid| self.proc.status(*pid)).collect();
        let mut now_there = self.more(members, sizes, &told);
        let with_pool = sizes.iter().zip(&told).map(|(size, told)| size + told.pool);
        let sizes: &[u64] = &with_pool.collect::<Vec<_>>();
        self.pool = (told.iter().map(|told| told.pool)).fold(self.pool, u64::max);
        // Without the walk, which has a rest of its own.
        let took = now.elapsed();
        self.walk(members, sizes);
        for (pid, size) in members.iter().zip(sizes) {
            match self.walked.get(pid) {
                Some((bytes, then)) => now_there.bytes += (bytes + size).saturating_sub(*then),
                // Not walked yet: nobody knows how much of it is shared.
                None => now_there.uncertain += size,
            }
        }
        if now_there.bytes > self.peak.bytes {
            self.peak = now_there;
        }
        if members.contains(&self.largest.1) {
            self.last_with_largest.0 = now_there;
        }
        let same = now - *self.since.get_or_insert(now);
        let step = (same / PART).clamp(SHORTEST, LONGEST);
        self.next = Some(Instant::now() + step.max((took * REST).min(LONGEST_REST)));
    }

    /// Reads the proportional sizes if there is a process of which they are not known or the plain sum has grown, and the last walk
    /// is long enough ago.
    fn walk(&mut self, members: &[u32], sizes: &[u64]) {
        let began = Instant::now();
        let plain: u64 = sizes.iter().sum();
        let then: u64 = self.walked.values().map(|(_, then)| then).sum();
        let grown = self.walked.len() < members.len() || plain as f64 > then as f64 * (1.0 + GROWN);
        if !grown || self.next_walk.is_some_and(|next| began < next) {
            return;
        }
        let found: Vec<(u32, u64, Proportional)> = (members.iter().zip(sizes))
            .filter_map(|(pid, size)| Some((*pid, *size, self.proc.proportional(*pid)?)))
            .collect();
        let sharers = found.iter().filter(|(.., told)| told.shared_pool > 0);
        let sharers = sharers.count() as u64;
        for (pid, size, told) in found {
            self.walked.insert(pid, (told.bytes(sharers), size));
        }
        let took = began.elapsed();
        self.next_walk = Some(began + took + took.min(Duration::from_secs(1)) * REST);
    }

    /// What processes have had since the last look beyond what they have, all together; uncertain is that of all but the one that
    /// had most.
    fn more(&mut self, members: &[u32], sizes: &[u64], told: &[Status]) -> TreePeak {
        let (mut more, mut most) = (0, 0);
        let before = std::mem::take(&mut self.highest);
        for ((pid, size), told) in members.iter().zip(sizes).zip(told) {
            let highest = told.highest.unwrap_or(*size).max(*size);
            self.largest = self.largest.max((highest, *pid));
            let counted = match before.get(pid) == Some(&highest) {
                true => *size,
                false => highest,
            };
            more += counted - size;
            most = most.max(counted - size);
            if *pid == self.largest.1 {
                self.last_with_largest.1 = counted;
            }
            self.highest.insert(*pid, highest);
        }
        TreePeak {
            bytes: more,
            uncertain: more - most,
        }
    }

    /// The peak, given the most bytes that the kernel says a process has had; absent when the program was over before the
    /// first look.
    pub fn peak(&self, largest: u64) -> Option<TreePeak> {
        // It has grown since it was last looked at. A process that was alone has that at the peak; beside others nobody knows
        // whether they were still there.
        let (last, counted) = self.last_with_largest;
        let missed = match largest > self.largest.0 {
            true => largest - counted,
            false => 0,
        };
        let later = TreePeak {
            bytes: last.bytes + missed,
            uncertain: match self.most {
                1 => last.uncertain,
                _ => last.uncertain.max(missed),
            },
        };
        let peak = match later.bytes > self.peak.bytes {
            true => later,
            false => self.peak,
        };
        (self.peak.bytes > 0).then_some(peak)
    }

    /// Most bytes that one process was seen to have in pages of the hugetlb pool.
    pub fn pool(&self) -> u64 {
        self.pool
    }

    /// Most processes at a time.
    pub fn most(&self) -> u32 {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::descendants::below;
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
        let children = below(child.id());
        crate::exec::descendants::send(&children, rustix::process::Signal::KILL);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((members.len(), tree.most()), (4, 4));
        let (sum, peak) = (sizes.iter().sum::<u64>(), tree.peak(0).unwrap());
        assert!(sum > 4 * (64 << 20), "{sum}");
        assert!(
            peak.bytes > 64 << 20 && peak.bytes < 2 * (64 << 20),
            "{peak:?}"
        );
    }

    #[test]
    fn pages_of_the_hugetlb_pool_count_and_shared_ones_once() {
        const MIB: u64 = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let write = |pid: u32, pss: u64, (pool, shared): (u64, u64)| {
            let of = folder.path().join(pid.to_string());
            fs::create_dir_all(&of).unwrap();
            let all = pool + shared;
            let status = format!("VmHWM:\t  9216 kB\nHugetlbPages:\t  {} kB\n", all << 10);
            fs::write(of.join("status"), status).unwrap();
            let rollup = format!(
                "Rss:  9216 kB\nPss:  {} kB\nShared_Hugetlb:  {} kB\nPrivate_Hugetlb:  {} kB\n",
                pss << 10,
                shared << 10,
                pool << 10
            );
            fs::write(of.join("smaps_rollup"), rollup).unwrap();
        };
        let mut tree = TreeMemory {
            proc: Proc(folder.path().into()),
            ..TreeMemory::default()
        };
        write(1, 5, (2, 8));
        write(2, 4, (0, 8));
        write(3, 3, (0, 0));
        let sizes = [9 * MIB; 3];
        tree.look(&[1, 2, 3], &sizes);
        let bytes = |tree: &TreeMemory| tree.peak(0).unwrap().bytes / MIB;
        assert_eq!((bytes(&tree), tree.pool()), (5 + 4 + 3 + 2 + 8, 10 * MIB));
        // More of them, which no resident size tells of; the walk is not due again.
        write(1, 5, (6, 8));
        tree.next_walk = Some(Instant::now() + Duration::from_secs(60));
        tree.look(&[1, 2, 3], &sizes);
        assert_eq!((bytes(&tree), tree.pool()), (22 + 4, 14 * MIB));
    }

    #[test]
    fn what_a_process_had_between_two_looks_counts() {
        // 64 MiB that are there for an instant, between a look before and one after.
        let script = "import sys\nprint('up', flush=True)\nsys.stdin.readline()\nx = bytearray(64 << 20)\ndel x\n\
                      print('up', flush=True)\nsys.stdin.readline()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut tree = TreeMemory::default();
        for _ in 0..2 {
            let mut said = [0; 3];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
            let size = resident(child.id()).unwrap();
            assert!(size < 32 << 20, "{size}");
            tree.look(&[child.id()], &[size]);
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        }
        child.wait().unwrap();
        let peak = tree.peak(0).unwrap();
        assert!(peak.bytes > 64 << 20 && peak.uncertain == 0, "{peak:?}");
        // What it grew by after the last look the kernel says at its end.
        let later = tree.peak(100 << 20).unwrap();
        assert_eq!(later.bytes - peak.bytes, (100 << 20) - tree.largest.0);
        // Beside others it is not known whether they were still there.
        tree.most = 2;
        let several = tree.peak(100 << 20).unwrap();
        assert_eq!(
            (several.bytes, several.uncertain),
            (later.bytes, (100 << 20) - tree.largest.0)
        );
    }

    #[test]
    fn young_processes_are_looked_at_more_often() {
        let own = std::process::id();
        let mut tree = TreeMemory::default();
        assert!(tree.is_due());
        let mut rest = |age: Duration| {
            tree.since = Instant::now().checked_sub(age);
            let looked = Instant::now();
            tree.look(&[own], &[resident(own).unwrap()]);
            tree.next.unwrap() - looked
        };
        rest(Duration::ZERO);
        // A look that was held up makes no step shorter.
        assert!(rest(Duration::from_millis(100)) >= Duration::from_millis(5));
        assert!(rest(Duration::from_secs(5)) >= LONGEST);
        assert!(!tree.is_due() && tree.rest() <= LONGEST_REST);
    }
}
