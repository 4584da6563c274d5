//! Looks at a running program from outside: heap memory of its first process, memory of all its processes, and whether
//! the subject is in each of them.

use super::ProgramOptions;
use super::statistics::Asked;
use super::tree::{self, TreeMemory, field};
use super::witness::Witnesses;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at the heap.
const HEAP_STEP: Duration = Duration::from_millis(2);
/// Between two looks at all processes.
const TREE_STEP: Duration = Duration::from_millis(10);

/// Heap memory at its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peak {
    /// All of it.
    pub bytes: u64,
    /// The part that lies outside the classic heap (`brk`) when the mappings were last walked.
    pub outside_brk: u64,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Heap of the first process, where it was asked for.
    pub heap: Option<Peak>,
    /// All processes.
    pub tree: TreeMemory,
    /// Executables and the subject in them.
    pub witnesses: Witnesses,
}

/// The process number that appears in `pid_file`. `None` when `stop` was set before.
pub(super) fn number(pid_file: &Path, stop: &AtomicBool) -> Option<u32> {
    loop {
        if let Some(pid) = fs::read_to_string(pid_file)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            return Some(pid);
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Looks at the process whose number appears in `pid_file` and at all below its launcher, until `stop`.
pub(super) fn watch(
    pid_file: &Path,
    library: Option<&Path>,
    options: &ProgramOptions,
    mut asked: Option<&mut Asked>,
    stop: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    let Some(pid) = number(pid_file, stop) else {
        return seen;
    };
    let with_heap = options.sample_heap;
    let launcher = tree::parent(pid);
    let step = if with_heap { HEAP_STEP } else { TREE_STEP };
    let (mut heap, mut next_tree) = (Heap::of(library, options.walk_often), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        if with_heap && !heap.look(pid) {
            break;
        }
        if Instant::now() >= next_tree {
            next_tree = Instant::now() + TREE_STEP;
            let found = launcher.map(tree::below).unwrap_or_default();
            let (members, sizes): (Vec<u32>, Vec<u64>) = found
                .into_iter()
                .filter_map(|pid| Some((pid, tree::resident(pid)?)))
                .unzip();
            seen.tree.look(&members, &sizes);
            seen.witnesses.look(&members, &sizes, library);
            if let Some(asked) = &mut asked {
                asked.look(&members, &sizes);
            }
        }
        std::thread::sleep(step);
    }
    seen.heap = heap.peak;
    seen
}

#[derive(Default)]
struct Heap {
    /// The library whose own written data is its memory too.
    library: Option<PathBuf>,
    /// One part in so many by which it must grow to be walked again.
    step: u64,
    peak: Option<Peak>,
    highest: u64,
    walked: Option<Walked>,
}

impl Heap {
    /// The C library's data is there under every subject.
    fn of(library: Option<&Path>, walk_often: bool) -> Self {
        Self {
            // Walking the mappings is expensive: else only when the sum has grown by 1 %.
            step: if walk_often { u64::MAX } else { 100 },
            library: library
                .filter(|path| !super::share::is_libc(path))
                .and_then(|path| path.canonicalize().ok()),
            ..Self::default()
        }
    }

    /// False when the process is gone.
    fn look(&mut self, pid: u32) -> bool {
        let Some(anonymous) = fs::read_to_string(format!("/proc/{pid}/status"))
            .ok()
            .and_then(|text| field(&text, "RssAnon:"))
        else {
            return false;
        };
        if self.walked.is_none() || anonymous > self.highest + self.highest / self.step {
            self.highest = anonymous;
            self.walked = fs::read_to_string(format!("/proc/{pid}/smaps"))
                .ok()
                .map(|text| Walked::of(&text, self.library.as_deref()))
                .or(self.walked);
        }
        if let Some(walked) = self.walked {
            let bytes = anonymous.saturating_sub(walked.others);
            if self.peak.is_none_or(|peak| bytes > peak.bytes) {
                self.peak = Some(Peak {
                    bytes,
                    outside_brk: walked.outside_brk,
                });
            }
        }
        true
    }
}

/// Anonymous bytes of `smaps` by the kind of mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Walked {
    /// In mappings of files, but for the subject's library, and stacks: no heap.
    others: u64,
    /// In mappings that are neither those nor the classic heap.
    outside_brk: u64,
}

impl Walked {
    fn of(smaps: &str, library: Option<&Path>) -> Self {
        let (mut found, mut other, mut brk) = (Self::default(), false, false);
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if !first.ends_with(':') {
                // `start-end rwxp offset dev inode [path]`
                let path = words.nth(4).unwrap_or_default();
                let subject = library.is_some_and(|library| Path::new(path) == library);
                other = !subject && (path.starts_with('/') || path.starts_with("[stack"));
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
        assert_eq!(Walked::of(smaps, None), expected);
        // What a subject writes into its own data is its memory.
        let with = Walked::of(smaps, Some(Path::new("/bin/x")));
        assert_eq!((with.others, with.outside_brk), (8 * 1024, 54 * 1024));
        assert_eq!(
            field("VmRSS: 1 kB\nRssAnon:\t 7 kB\n", "RssAnon:"),
            Some(7168)
        );
    }
}
