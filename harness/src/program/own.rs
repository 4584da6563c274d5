//! What a program maps by itself, followed while it runs: an agent in it notes the ranges (`harness/mappings`), and how much of them is in
//! memory the kernel tells page by page (`/proc/PID/pagemap`), for which the program is held up no longer than two megabytes of its
//! addresses take. The rest of its anonymous memory is its allocator's, and what no call of the C library mapped.
//!
//! A page that was seen in memory stays there until the agent notes that its range was given back: only the others are looked at again.
//! A look is short then, and the program goes on meanwhile: what it writes to in this time is missing in its heap.

use heaplab_mappings::{
    CAPACITY, COUNT_AT, FOLLOWED, LOST, RANGES_AT, RENEWALS, RENEWALS_AT, RENEWED_AT, Range,
    Ranges, SEQUENCE_AT, STATE_AT, UNSETTLED_AT,
};
use rustix::param::page_size;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A look comes no sooner than so many times the last one's time after it: 5 % of a CPU.
const RARELY: u32 = 20;
/// The same where the rest may be at a new maximum.
const AT_MAXIMUM: u32 = 3;
/// All pages are looked at again so seldom, and no more often than takes 1 %: nobody notes what the kernel takes by itself.
const ANEW: Duration = Duration::from_millis(100);
const ANEW_RARELY: u32 = 100;
/// Most bytes of addresses that are looked through: some 20 ms.
const MOST_BYTES: u64 = 16 << 30;
/// Tries to read ranges that are being changed.
const TRIES: u32 = 8;
/// Tries to find the ranges at rest before mappings are walked, and the time between two.
const SETTLES: u32 = 20;
const SETTLE: Duration = Duration::from_micros(50);
/// Pages told at a time.
const PAGES: usize = 8192;
const PAGE_OF_FILE: u64 = 1 << 61;
const PAGE_PRESENT: u64 = 1 << 63;

/// Anonymous memory without what the program has mapped by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// Its peak.
    pub peak_bytes: u64,
    /// What the program's own mappings had in memory then.
    pub own_bytes: u64,
    /// The peak together with what an allocator may have in shared memory and in pages of the hugetlb pool, which may be at another instant.
    #[serde(default)]
    pub with_elsewhere_bytes: u64,
}

/// Puts the agent into a program's environment, given as `NAME=VALUE` words, where it stands before the subject of this library.
pub(super) fn add_agent(
    environment: &mut Vec<String>,
    agent: &Path,
    folder: &Path,
    library: Option<&Path>,
) {
    super::preload_first(environment, agent);
    environment.push(format!("HEAPLAB_MAPPINGS={}", folder.display()));
    // The kernel names mappings by the path behind all links.
    let library = library.and_then(|path| path.canonicalize().ok());
    let library = library.unwrap_or_default();
    environment.push(format!("HEAPLAB_MAPPINGS_OF={}", library.display()));
}

/// One process, followed.
#[derive(Debug)]
pub(super) struct Own {
    table: PathBuf,
    pages: PathBuf,
    files: Option<Files>,
    told: Vec<u8>,
    ranges: Vec<Range>,
    /// Their part that was seen in memory.
    present: Set,
    /// Of the ranges as they are here, and how many were given back by then.
    sequence: Option<u64>,
    renewed: u64,
    looked: Instant,
    took: Duration,
    anew: Instant,
    anew_took: Duration,
    elsewhere: u64,
    apart: Option<Apart>,
    /// Why what it maps is not known.
    lost: Option<String>,
}

#[derive(Debug)]
struct Files {
    table: File,
    /// Of the program that the ranges are of: another one in its place has other pages.
    pages: Option<File>,
}

/// What the agent writes in front of the ranges.
struct Numbers {
    sequence: u64,
    count: u64,
    state: u64,
    renewed: u64,
    unsettled: u64,
}

/// Ranges with room of their own.
#[derive(Debug, Default)]
struct Set {
    room: Vec<Range>,
    used: usize,
}

impl Set {
    fn change(&mut self, by: impl FnOnce(&mut Ranges<'_>)) {
        // One range more, or two for one, is all that a change can bring.
        if self.used + 2 > self.room.len() {
            self.room.resize(2 * self.used + 16, Range::default());
        }
        let mut ranges = Ranges::new(&mut self.room, self.used);
        by(&mut ranges);
        self.used = ranges.as_slice().len();
    }

    fn add(&mut self, range: Range) {
        self.change(|ranges| ranges.add(range).unwrap_or_default());
    }

    fn remove(&mut self, range: Range) {
        self.change(|ranges| ranges.remove(range).unwrap_or_default());
    }

    fn all(&self) -> &[Range] {
        &self.room[..self.used]
    }

    fn bytes(&self) -> u64 {
        self.all().iter().map(|range| range.bytes()).sum()
    }
}

impl Own {
    /// Of a process whose agent writes into `folder`.
    pub fn of(pid: u32, folder: &Path) -> Self {
        Self {
            table: folder.join(format!("mappings-{pid}")),
            pages: format!("/proc/{pid}/pagemap").into(),
            files: None,
            told: vec![0; 8 * PAGES],
            ranges: Vec::new(),
            present: Set::default(),
            sequence: None,
            renewed: 0,
            looked: Instant::now(),
            took: Duration::ZERO,
            anew: Instant::now(),
            anew_took: Duration::ZERO,
            elsewhere: 0,
            apart: None,
            lost: None,
        }
    }

    /// What an allocator may have beside anonymous memory from now on, bytes.
    pub fn elsewhere(&mut self, bytes: u64) {
        self.elsewhere = bytes;
    }

    /// With so many anonymous bytes, as they were before; `again` tells them anew.
    pub fn look(&mut self, anonymous: u64, again: impl FnOnce() -> Option<u64>) {
        let before = self.sequence;
        if !self.update() {
            return;
        }
        // Nothing was mapped since the last look.
        if self.ranges.is_empty() && self.sequence == before {
            return self.found(anonymous);
        }
        let rest = anonymous.saturating_sub(self.present.bytes());
        let higher = self.apart.is_none_or(|apart| rest > apart.peak_bytes);
        let pause = self.took * if higher { AT_MAXIMUM } else { RARELY };
        if Instant::now() < self.looked + pause {
            return;
        }
        // In this order: what the program writes to meanwhile is in its own part only, never in the rest; and where it has mapped or
        // unmapped something meanwhile the two are not of the same mappings.
        let Some(anonymous) = again() else {
            return;
        };
        let told = self.tell();
        let now = self.files.as_ref().and_then(|files| numbers(&files.table));
        let settled =
            now.is_some_and(|now| Some(now.sequence) == self.sequence && now.unsettled == 0);
        if told && settled {
            self.found(anonymous);
        }
    }

    /// There were so many anonymous bytes between the last look and now. Counts where nothing was mapped meanwhile.
    pub fn missed(&mut self, anonymous: u64) {
        let before = self.sequence;
        if self.update() && self.sequence == before {
            self.found(anonymous);
        }
    }

    /// Has the kernel tell which pages are in memory, of those that were not, and now and then of all. False: not of all that it was
    /// asked, as the program ended meanwhile.
    fn tell(&mut self) -> bool {
        let now = Instant::now();
        let anew = now > self.anew + ANEW.max(self.anew_took * ANEW_RARELY);
        if anew {
            self.present = Set::default();
        }
        let unseen: Vec<Range> = (self.ranges.iter())
            .flat_map(|range| without(*range, self.present.all()))
            .collect();
        let mut seen = Vec::new();
        let told = self.walk(&unseen, |run| seen.push(run));
        seen.into_iter().for_each(|run| self.present.add(run));
        self.looked = Instant::now();
        self.took = self.looked - now;
        if anew {
            (self.anew, self.anew_took) = (self.looked, self.took);
        }
        told
    }

    fn found(&mut self, anonymous: u64) {
        let own_bytes = self.present.bytes();
        let peak_bytes = anonymous.saturating_sub(own_bytes);
        let apart = self.apart.get_or_insert_default();
        // Of instants with the same peak the last: what was mapped after it was reached is beside it, too.
        if peak_bytes >= apart.peak_bytes {
            (apart.peak_bytes, apart.own_bytes) = (peak_bytes, own_bytes);
        }
        apart.with_elsewhere_bytes = apart.with_elsewhere_bytes.max(peak_bytes + self.elsewhere);
    }

    /// Brings the ranges up to date before mappings are walked. False: they are being changed all the time, or not known.
    pub fn settle(&mut self) -> bool {
        for _ in 0..SETTLES {
            if self.update() {
                return true;
            }
            if self.lost.is_some() {
                break;
            }
            std::thread::sleep(SETTLE);
        }
        false
    }

    /// Nothing was mapped or given back since [`Own::settle`]: what was walked meanwhile is of these ranges.
    pub fn is_settled(&self) -> bool {
        let Some(files) = &self.files else {
            // Before there is an agent there are none; its first are in no walk that began before.
            return !self.table.exists();
        };
        numbers(&files.table).is_some_and(|now| match now.state {
            FOLLOWED => Some(now.sequence) == self.sequence && now.unsettled == 0,
            _ => self.sequence.is_none(),
        })
    }

    /// How much of a mapping with so many anonymous bytes is the program's own, by the ranges as they were settled; `None` where the program
    /// has ended meanwhile.
    pub fn within(&mut self, mapping: Range, anonymous: u64) -> Option<u64> {
        let parts = (self.ranges.iter()).filter_map(|range| range.common(mapping));
        let parts: Vec<Range> = parts.collect();
        match parts[..] {
            // All of it: what was counted before holds.
            [part] if part == mapping => Some(anonymous),
            _ => {
                let mut found = 0;
                let told = self.walk(&parts, |run| found += run.bytes());
                told.then_some(anonymous.min(found))
            }
        }
    }

    /// The peak without own mappings, or why it is not known.
    pub fn end(self) -> Result<Apart, String> {
        match (self.lost, self.apart) {
            (Some(why), _) => Err(why),
            (None, Some(apart)) if self.sequence.is_some() => Ok(apart),
            _ => Err("it ended before the first look, or did not load the agent".into()),
        }
    }

    /// Brings the ranges up to date; false where they are not known now. Before there is an agent there are none.
    fn update(&mut self) -> bool {
        if self.lost.is_some() {
            return false;
        }
        match self.read() {
            Ok(known) => known,
            Err(why) => {
                self.lost = Some(why);
                false
            }
        }
    }

    fn read(&mut self) -> Result<bool, String> {
        if self.files.is_none() {
            let table = File::open(&self.table).ok();
            self.files = table.map(|table| Files { table, pages: None });
        }
        let Some(files) = &mut self.files else {
            return Ok(true);
        };
        for _ in 0..TRIES {
            let Some(now) = numbers(&files.table) else {
                return Ok(false);
            };
            if now.state == LOST {
                return Err("a mapping changed in a way that could not be noted".into());
            }
            // One that starts another program in its place has none until that one's agent begins.
            if now.state != FOLLOWED {
                self.ranges.clear();
                self.present = Set::default();
                self.sequence = None;
                return Ok(true);
            }
            if now.unsettled > 0 {
                return Ok(false);
            }
            if now.sequence % 2 == 1 {
                std::hint::spin_loop();
                continue;
            }
            if self.sequence == Some(now.sequence) {
                return Ok(true);
            }
            let ranges = ranges(&files.table, RANGES_AT, now.count);
            let renewals = renewals(&files.table, self.renewed, now.renewed);
            let unchanged =
                numbers(&files.table).is_some_and(|later| later.sequence == now.sequence);
            let (Some(ranges), true) = (ranges, unchanged) else {
                continue;
            };
            let bytes: u64 = ranges.iter().map(|range| range.bytes()).sum();
            if bytes > MOST_BYTES {
                return Err("it maps more than 16 GiB, which take too long to look through".into());
            }
            match File::open(&self.pages) {
                Ok(pages) => files.pages = Some(pages),
                // It has just ended, or the kernel has no such file.
                Err(error) if error.kind() == ErrorKind::NotFound || has_ended(&error) => {
                    return Ok(false);
                }
                Err(error) => {
                    return Err(format!(
                        "'{}' cannot be read: {error}",
                        self.pages.display()
                    ));
                }
            }
            match renewals {
                Some(renewals) => renewals
                    .iter()
                    .for_each(|range| self.present.remove(*range)),
                None => self.present = Set::default(),
            }
            if ranges.is_empty() {
                self.present = Set::default();
            }
            // With fewer of them the next look takes less than the last one did.
            if ranges.len() < self.ranges.len() {
                self.took = self.took * ranges.len() as u32 / self.ranges.len() as u32;
            }
            self.ranges = ranges;
            self.sequence = Some(now.sequence);
            self.renewed = now.renewed;
            return Ok(true);
        }
        Ok(false)
    }

    /// Hands on the parts of ranges that are in memory and were not read from a file or shared. False: the kernel did not tell of all.
    fn walk(&mut self, ranges: &[Range], mut found: impl FnMut(Range)) -> bool {
        let Some(pages) = self.files.as_ref().and_then(|files| files.pages.as_ref()) else {
            return ranges.is_empty();
        };
        let page = page_size() as u64;
        for range in ranges {
            let (mut at, end) = (range.start / page, range.end / page);
            while at < end {
                let wanted = 8 * (end - at).min(PAGES as u64) as usize;
                let told = pages.read_at(&mut self.told[..wanted], 8 * at).unwrap_or(0);
                if told < 8 {
                    return false;
                }
                let words: Vec<bool> = self.told[..told].chunks_exact(8).map(counts).collect();
                let mut first = at;
                for run in words.chunk_by(|one, other| one == other) {
                    let behind = first + run.len() as u64;
                    if run[0] {
                        found(Range {
                            start: first * page,
                            end: behind * page,
                        });
                    }
                    first = behind;
                }
                at = first;
            }
        }
        true
    }
}

/// Its memory is gone, and its number is there until it is waited for.
fn has_ended(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// What remains of a range.
fn without(range: Range, seen: &[Range]) -> Vec<Range> {
    let from = seen.partition_point(|one| one.end <= range.start);
    let (mut rest, mut start) = (Vec::new(), range.start);
    for one in seen[from..].iter().take_while(|one| one.start < range.end) {
        if start < one.start {
            rest.push(Range {
                start,
                end: one.start,
            });
        }
        start = one.end;
    }
    if start < range.end {
        rest.push(Range {
            start,
            end: range.end,
        });
    }
    rest
}

/// Whether a page is in memory and neither a file's nor shared, by its word in `pagemap`.
fn counts(word: &[u8]) -> bool {
    word.try_into()
        .map(u64::from_ne_bytes)
        .is_ok_and(|word| word & (PAGE_PRESENT | PAGE_OF_FILE) == PAGE_PRESENT)
}

fn numbers(table: &File) -> Option<Numbers> {
    let mut bytes = [0; RANGES_AT];
    table.read_exact_at(&mut bytes, 0).ok()?;
    let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    Some(Numbers {
        sequence: number(SEQUENCE_AT),
        count: number(COUNT_AT),
        state: number(STATE_AT),
        renewed: number(RENEWED_AT),
        unsettled: number(UNSETTLED_AT),
    })
}

/// So many ranges from a place in the file on.
fn ranges(table: &File, at: usize, count: u64) -> Option<Vec<Range>> {
    let count = (usize::try_from(count).ok()).filter(|count| *count <= CAPACITY)?;
    let mut bytes = vec![0; count * size_of::<Range>()];
    table.read_exact_at(&mut bytes, at as u64).ok()?;
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    let range = |bytes: &[u8]| Range {
        start: number(&bytes[..8]),
        end: number(&bytes[8..]),
    };
    Some(bytes.chunks_exact(size_of::<Range>()).map(range).collect())
}

/// What was given back from one number to another; `None` where it is not there any more.
fn renewals(table: &File, from: u64, to: u64) -> Option<Vec<Range>> {
    // Another program in this process counts from 0 on.
    let all = to.checked_sub(from)?;
    if all == 0 {
        return Some(Vec::new());
    }
    if all > RENEWALS as u64 {
        return None;
    }
    let ring = ranges(table, RENEWALS_AT, RENEWALS as u64)?;
    Some((from..to).map(|n| ring[n as usize % RENEWALS]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a table as an agent would.
    fn write(folder: &Path, [sequence, state]: [u64; 2], own: &[Range], renewed: &[Range]) {
        let counts = [sequence, own.len() as u64, state, renewed.len() as u64];
        let bytes = |ranges: &[Range]| -> Vec<u8> {
            let numbers = ranges.iter().flat_map(|range| [range.start, range.end]);
            numbers.flat_map(u64::to_ne_bytes).collect()
        };
        let mut all: Vec<u8> = counts.iter().flat_map(|n| n.to_ne_bytes()).collect();
        all.resize(RANGES_AT, 0);
        all.extend(bytes(own));
        all.resize(RENEWALS_AT, 0);
        all.extend(bytes(renewed));
        all.resize(heaplab_mappings::PAGE_BYTES, 0);
        let name = format!("mappings-{}", std::process::id());
        std::fs::write(folder.join(name), all).unwrap();
    }

    #[test]
    fn what_is_in_memory_of_own_ranges_is_not_the_allocators() {
        const PAGE: usize = 4096;
        // Of 4,096 pages 1,000 are written, the first page behind the start on.
        let mut memory: Vec<u8> = Vec::with_capacity(4096 * PAGE);
        let start = (memory.as_ptr() as usize).next_multiple_of(PAGE);
        let first = start - memory.as_ptr() as usize;
        memory.resize(first + 1000 * PAGE, 1);
        let range = |from: usize, to: usize| Range {
            start: (start + from * PAGE) as u64,
            end: (start + to * PAGE) as u64,
        };
        let folder = tempfile::tempdir().unwrap();
        let mut own = Own::of(std::process::id(), folder.path());
        // Before the agent has begun all of it is the allocator's.
        own.look(5_000 * 4096, || unreachable!("nothing is looked at"));
        assert_eq!(own.apart.unwrap().peak_bytes, 5_000 * 4096);
        write(
            folder.path(),
            [2, FOLLOWED],
            &[range(0, 200), range(900, 4095)],
            &[],
        );
        own.look(9_000 * 4096, || Some(8_000 * 4096));
        let apart = Apart {
            peak_bytes: 7_700 * 4096,
            own_bytes: 300 * 4096,
            with_elsewhere_bytes: 7_700 * 4096,
        };
        assert_eq!(own.apart, Some(apart));
        // A mapping that is the program's as a whole has what was counted of it, another one what is told of the part.
        assert_eq!(own.within(range(900, 4095), 5), Some(5));
        assert_eq!(own.within(range(0, 4095), 1 << 30), Some(300 * 4096));
        assert_eq!(own.within(range(200, 900), 1 << 30), Some(0));
        // Being changed: what was there before is not taken for what is there now.
        write(folder.path(), [3, FOLLOWED], &[], &[]);
        own.look(20_000 * 4096, || {
            unreachable!("it is not known what to look at")
        });
        write(folder.path(), [4, FOLLOWED], &[], &[]);
        own.look(9_000 * 4096, || Some(7_701 * 4096));
        // The most of both together is at another instant.
        own.elsewhere(500 * 4096);
        own.look(7_600 * 4096, || unreachable!("nothing has changed"));
        own.elsewhere(0);
        let apart = Apart {
            peak_bytes: 7_701 * 4096,
            own_bytes: 0,
            with_elsewhere_bytes: 8_100 * 4096,
        };
        assert_eq!(own.end(), Ok(apart));
        drop(memory);
    }

    #[test]
    fn pages_that_were_given_back_are_looked_at_again() {
        const PAGE: u64 = 4096;
        // Nothing is there.
        let start = 1 << 40;
        let all = Range {
            start,
            end: start + 4000 * PAGE,
        };
        let folder = tempfile::tempdir().unwrap();
        let mut own = Own::of(std::process::id(), folder.path());
        write(folder.path(), [2, FOLLOWED], &[all], &[]);
        own.look(10_000 * PAGE, || Some(10_000 * PAGE));
        assert_eq!(own.apart.unwrap().own_bytes, 0);
        // As if it had been, a moment ago: as long as the agent says nothing it is taken to be there.
        own.present.add(all);
        let look = |own: &mut Own| {
            (own.took, own.anew) = (Duration::ZERO, Instant::now());
            own.look(10_000 * PAGE, || Some(10_000 * PAGE));
            own.present.bytes() / PAGE
        };
        assert_eq!(look(&mut own), 4000);
        let half = Range {
            end: start + 2000 * PAGE,
            ..all
        };
        write(folder.path(), [4, FOLLOWED], &[all], &[half]);
        assert_eq!(look(&mut own), 2000);
        // More of them than are kept, and another program that counts anew: all are looked at.
        assert_eq!(renewals_of(&own, 0, RENEWALS as u64 + 1), None);
        assert_eq!(renewals_of(&own, 1, 0), None);
        assert_eq!(renewals_of(&own, 0, 1), Some(vec![half]));
    }

    fn renewals_of(own: &Own, from: u64, to: u64) -> Option<Vec<Range>> {
        renewals(&own.files.as_ref().unwrap().table, from, to)
    }

    #[test]
    fn a_look_that_the_end_of_the_program_cut_short_finds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut own = Own::of(std::process::id(), folder.path());
        // Of the second range the kernel tells nothing, as of a process that has ended: no address is so high.
        let range = |start: u64| Range {
            start,
            end: start + 4096,
        };
        write(
            folder.path(),
            [2, FOLLOWED],
            &[range(1 << 40), range(1 << 60)],
            &[],
        );
        own.look(4096, || Some(4096));
        assert_eq!(own.apart, None);
        write(folder.path(), [4, FOLLOWED], &[range(1 << 40)], &[]);
        own.took = Duration::ZERO;
        own.look(4096, || Some(4096));
        assert_eq!(own.apart.unwrap().peak_bytes, 4096);
    }

    #[test]
    fn what_was_walked_while_ranges_changed_is_of_none_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut own = Own::of(std::process::id(), folder.path());
        assert!(own.settle() && own.is_settled(), "there is no agent yet");
        let all = Range {
            start: 1 << 40,
            end: (1 << 40) + 4096,
        };
        write(folder.path(), [2, FOLLOWED], &[all], &[]);
        assert!(!own.is_settled(), "it began meanwhile");
        assert!(own.settle() && own.is_settled());
        write(folder.path(), [4, FOLLOWED], &[all], &[all]);
        assert!(!own.is_settled(), "it was changed meanwhile");
        write(folder.path(), [5, FOLLOWED], &[all], &[all]);
        assert!(!own.settle(), "it is being changed");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let own = || Own::of(std::process::id(), folder.path());
        let why = |mut own: Own| {
            own.look(4096, || Some(4096));
            own.end().unwrap_err()
        };
        assert!(why(own()).contains("did not load the agent"));
        write(folder.path(), [2, LOST], &[], &[]);
        assert!(why(own()).contains("could not be noted"));
        let far = Range {
            start: 1 << 40,
            end: 1 << 44,
        };
        write(folder.path(), [2, FOLLOWED], &[far], &[]);
        assert!(why(own()).contains("more than 16 GiB"));
    }
}
