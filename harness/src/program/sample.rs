//! Looks at a running program from outside: heap memory of its first process, memory of all its processes, and whether
//! the subject is in each of them.

use super::counters::{Counted, Counters};
use super::missed::Missed;
use super::own::{Apart, Own};
use super::statistics::Asked;
use super::tree::{self, TreeMemory};
use super::witness::Witnesses;
use super::{HeapLook, ProgramOptions};
use crate::disturbance::HeldUp;
use crate::exec::descendants;
use heaplab_mappings::Range;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks at the heap, and where it is looked at and nothing else.
const HEAP_STEP: Duration = Duration::from_millis(2);
const SIZE_STEP: Duration = Duration::from_micros(500);

/// Anonymous memory at its peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    /// All of it.
    pub anonymous: u64,
    /// What its mappings were when they were last walked.
    pub walked: Option<Walked>,
    /// The peaks of what an allocator may have elsewhere ([`Counted`]), of all that is there, and of the former and the anonymous memory together; not
    /// of the same instant.
    pub elsewhere: u64,
    pub shared: u64,
    pub with_elsewhere: u64,
}

impl Peak {
    /// The part that is heap.
    pub fn heap(&self) -> Option<u64> {
        let walked = self.walked?;
        Some(self.anonymous.saturating_sub(walked.others))
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Heap of the first process, where it was asked for.
    pub heap: Option<Peak>,
    /// The same without what it maps by itself, or why that is not known; where it was asked for.
    pub apart: Option<Result<Apart, String>>,
    /// All processes.
    pub tree: TreeMemory,
    /// Executables and the subject in them.
    pub witnesses: Witnesses,
    /// How long the first process was ready to run and did not, as a share of its time.
    pub held_up: Option<f64>,
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

/// Looks at the process whose number appears in `pid_file` and at all below its launcher, until `stop`. The
/// agents in the program write into the folder `agents`.
pub(super) fn watch(
    pid_file: &Path,
    library: Option<&Path>,
    options: &ProgramOptions,
    agents: &Path,
    mut asked: Option<&mut Asked>,
    stop: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    let Some(pid) = number(pid_file, stop) else {
        return seen;
    };
    let launcher = descendants::parent(pid);
    let with_heap = options.heap != HeapLook::None;
    let mut heap = Heap::of(pid, library, options.heap);
    heap.own = options.follow_mappings.then(|| Own::of(pid, agents));
    let mut held_up = HeldUp::of(pid);
    while !stop.load(Ordering::Relaxed) {
        held_up.look();
        if with_heap && !heap.look() {
            break;
        }
        // The others' memory is that of mappings, too, and reading which there are holds them up.
        if options.heap != HeapLook::Size && seen.tree.is_due() {
            let found = launcher.map(descendants::below).unwrap_or_default();
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
        std::thread::sleep(match options.heap {
            HeapLook::None => seen.tree.rest(),
            HeapLook::Size => SIZE_STEP,
            HeapLook::Mappings | HeapLook::EveryMaximum => HEAP_STEP,
        });
    }
    seen.heap = heap.peak;
    seen.apart = heap.own.map(Own::end);
    seen.held_up = held_up.share();
    seen
}

struct Heap {
    pid: u32,
    /// The library whose own written data is its memory too.
    library: Option<PathBuf>,
    /// One part in so many by which it must grow to be walked again; `None`: it is never walked.
    step: Option<u64>,
    counters: Counters,
    /// What it maps by itself, where that is followed.
    own: Option<Own>,
    /// Where nothing but the size is looked at: peaks between two looks.
    missed: Option<Missed>,
    peak: Option<Peak>,
    highest: u64,
    walked: Option<Walked>,
}

impl Heap {
    /// The C library's data is there under every subject.
    fn of(pid: u32, library: Option<&Path>, look: HeapLook) -> Self {
        Self {
            pid,
            step: match look {
                HeapLook::None | HeapLook::Size => None,
                // Walking the mappings is expensive: else only when the sum has grown by 1 %.
                HeapLook::Mappings => Some(100),
                HeapLook::EveryMaximum => Some(u64::MAX),
            },
            library: library
                .filter(|path| !super::share::is_libc(path))
                .and_then(|path| path.canonicalize().ok()),
            counters: Counters::of(pid),
            own: None,
            missed: (look == HeapLook::Size).then(Missed::new),
            peak: None,
            highest: 0,
            walked: None,
        }
    }

    /// The mappings as they are; `None` when the process is gone.
    fn walk(&mut self) -> Option<Walked> {
        let settled = self.own.as_mut().is_some_and(Own::settle);
        let text = fs::read_to_string(format!("/proc/{}/smaps", self.pid)).ok();
        // One that has just ended has no mappings any more.
        let text = text.filter(|text| !text.is_empty())?;
        let mut own = self.own.as_mut().filter(|_| settled);
        let mut walked = Walked::of(&text, self.library.as_deref(), own.as_deref_mut());
        if own.is_some_and(|own| !own.is_settled()) {
            walked.own = None;
        }
        Some(walked)
    }

    /// False when the process is gone.
    fn look(&mut self) -> bool {
        let Some(counted) = self.counters.look() else {
            return false;
        };
        let Counted {
            anonymous,
            others,
            elsewhere,
            shared,
            mark,
        } = counted;
        let missed = (self.missed.as_mut().zip(mark))
            .and_then(|(missed, mark)| missed.beyond(mark, anonymous + others, others));
        if let Some(own) = &mut self.own {
            own.elsewhere(elsewhere);
            if let Some(missed) = missed {
                own.missed(missed);
            }
        }
        let highest = missed.unwrap_or(0).max(anonymous);
        if let Some(step) = self.step
            && (self.walked.is_none() || anonymous > self.highest + self.highest / step)
        {
            let walked = self.walk();
            // A walk in which the program mapped something tells two states in one: the last that did not stands until there is another.
            let stands =
                self.own.is_some() && self.walked.is_some_and(|walked| walked.own.is_some());
            if let Some(walked) = walked.filter(|walked| walked.own.is_some() || !stands) {
                self.highest = anonymous;
                self.walked = Some(walked);
            }
        }
        let peak = self.peak.get_or_insert_default();
        if highest > peak.anonymous {
            (peak.anonymous, peak.walked) = (highest, self.walked);
        }
        peak.elsewhere = peak.elsewhere.max(elsewhere);
        peak.shared = peak.shared.max(shared);
        peak.with_elsewhere = peak.with_elsewhere.max(highest + elsewhere);
        if let Some(mut own) = self.own.take() {
            own.look(anonymous, || self.counters.look().map(|now| now.anonymous));
            self.own = Some(own);
        }
        true
    }
}

/// Anonymous bytes of `smaps` by the kind of mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// In mappings of files, but for the subject's library, and stacks: no heap.
    pub others: u64,
    /// In mappings that are neither those nor the classic heap.
    pub outside_brk: u64,
    /// Part of these that the program has mapped by itself, where that is followed and was at rest.
    pub own: Option<u64>,
}

impl Walked {
    fn of(smaps: &str, library: Option<&Path>, mut own: Option<&mut Own>) -> Self {
        let (mut found, mut other, mut brk) = (Self::default(), false, false);
        found.own = own.is_some().then_some(0);
        let mut mapping = Range::default();
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if !first.ends_with(':') {
                mapping = ends(first);
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
                    (false, false) => {
                        found.outside_brk += bytes;
                        if let (Some(own), Some(so_far)) = (own.as_mut(), found.own) {
                            found.own = own.within(mapping, bytes).map(|own| so_far + own);
                        }
                    }
                    (false, true) => {}
                }
            }
        }
        found
    }
}

/// The addresses of `start-end`.
fn ends(text: &str) -> Range {
    let number = |text| u64::from_str_radix(text, 16).unwrap_or_default();
    let (start, end) = text.split_once('-').unwrap_or_default();
    Range {
        start: number(start),
        end: number(end),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::field;
    use super::*;

    #[test]
    fn only_files_and_stacks_are_left_out() {
        let smaps = "00-10 rw-p 0 08:01 5 /bin/x\nAnonymous:  4 kB\n20-30 rw-p 0 00:00 0 [heap]\nAnonymous: 100 kB\n\
                     40-50 rw-p 0 00:00 0\nAnonymous: 50 kB\n60-70 rw-p 0 00:00 0 [stack]\nAnonymous: 8 kB\n";
        let expected = Walked {
            others: 12 * 1024,
            outside_brk: 50 * 1024,
            own: None,
        };
        assert_eq!(Walked::of(smaps, None, None), expected);
        // What a subject writes into its own data is its memory.
        let with = Walked::of(smaps, Some(Path::new("/bin/x")), None);
        assert_eq!((with.others, with.outside_brk), (8 * 1024, 54 * 1024));
        assert_eq!(
            field("VmRSS: 1 kB\nRssAnon:\t 7 kB\n", "RssAnon:"),
            Some(7168)
        );
    }
}
