//! Statistics: what each tier holds, as numbers and as JSON.
//!
//! Nothing is counted in the fast paths. Totals come from the page heap and the central free
//! lists, whose locks are taken one at a time; figures of other threads' caches are read while
//! they run and may be off by the operations in flight. `docs/STATS.md` explains every field.

use crate::heap::Heap;
use crate::os::{File, Linux};
use crate::page_heap::{Counters, ahead, huge, moving};
use crate::partition::heaps;
use crate::process::{HEAP, ORPHANED, REGISTRY};
use crate::profile::{self, ProfileStats, profile_stats};
use crate::size_class::{NUM_CLASSES, size_of_class};
use crate::slow_path::SlowPath;
use crate::units::{OS_PAGE, page_bytes};
use crate::{
    cpu_cache, dump, front_end, hardened, helper, scavenger, thread, thread_cache, transfer_cache,
};
use core::fmt::{self, Write};
use core::sync::atomic::Ordering::Relaxed;

/// The crate's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bytes and counts of all tiers at about one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Address space that the heap has grown to.
    pub heap_bytes: usize,
    /// Bytes in blocks that the program holds (rounded up to classes and pages).
    pub in_use_bytes: usize,
    /// Of these in large blocks.
    pub large_bytes: usize,
    /// Free blocks in thread caches.
    pub thread_cache_bytes: usize,
    /// Free blocks in transfer caches.
    pub transfer_cache_bytes: usize,
    /// Free or never used blocks, and ends of spans, in central free lists.
    pub central_bytes: usize,
    /// With `hardened=1` freed blocks in the quarantine, and pages of guarded places that hold no live block.
    pub quarantined_bytes: usize,
    /// Free pages that still occupy memory.
    pub dirty_bytes: usize,
    /// Free pages that do not.
    pub clean_bytes: usize,
    /// The longest of all free runs of pages.
    pub longest_free_run_bytes: usize,
    /// Bytes of spans of small blocks.
    pub small_span_bytes: usize,
    /// What the heap occupies, if every page that was ever used and not given back does.
    pub resident_bytes: usize,
    /// Requests that the hard limit refused.
    pub refused_by_limit: u64,
    /// The allocator's own records.
    pub metadata_bytes: usize,
    /// Most bytes that spans in use have had.
    pub span_peak_bytes: usize,
    /// Most that the heap has occupied: what it had grown to less its clean bytes. (With a data partition the sum of both
    /// partitions' peaks, which need not have been at the same time, here as above.)
    pub heap_peak_bytes: usize,
    /// Spans in use.
    pub spans: u64,
    /// Runs of pages by what they are: spans of small blocks, large blocks, dirty and clean free runs.
    pub spans_by_state: [u64; 4],
    /// Free runs of pages.
    pub free_runs: usize,
    /// Of these, by length: 1 page, 2 and 3, 4 to 7 and so on; the last entry has all longer ones.
    pub free_runs_by_doubling: [u32; RUN_LENGTHS],
    /// Bytes of zeroed blocks of a kernel page and more that were zero already.
    pub zero_skipped_bytes: u64,
    /// What the system says that the process has in memory, 0 if it does not say.
    pub process_resident_bytes: usize,
    /// Thread caches.
    pub threads: u32,
    /// Caches of CPUs.
    pub cpu_caches: u32,
    /// Caches that a fork left behind.
    pub orphaned_caches: u64,
    /// Of the bytes in thread caches, what the last trim asked for and has not reached yet.
    pub unreached_bytes: usize,
    /// Of the central bytes, what was given back to the system page by page.
    pub purged_bytes: usize,
    /// Whether a helper thread exists, how often one was started, and what helpers gave back.
    pub helper_running: bool,
    pub helper_starts: u64,
    pub helper_released_bytes: u64,
    /// Nanoseconds that helpers have run, up to the last look of each.
    pub helper_run_ns: u64,
    /// Nanoseconds that the system calls took by which memory went back, whoever made them.
    pub release_ns: u64,
    /// Times that a thread cache was filled or emptied.
    pub refills: u64,
    pub flushes: u64,
    /// Blocks that [`crate::TinyAlloc`] has cut pieces off.
    pub tiny_blocks: u64,
    /// Batches stored in and fetched from transfer caches.
    pub transfer_stores: u64,
    pub transfer_hits: u64,
    /// Transfer caches of classes for which threads waited, beside each class's first.
    pub transfer_shards_added: usize,
    /// Times that a thread had to wait for a lock below the registry.
    pub lock_waits: u64,
    /// What the page heap counts.
    pub pages: PageCounters,
    /// Of all these in the data partition: bytes that the program holds, and what it has grown to.
    pub data_in_use_bytes: usize,
    pub data_heap_bytes: usize,
    /// The heap profile.
    pub profile: ProfileStats,
}

/// Entries of [`Stats::free_runs_by_doubling`].
pub const RUN_LENGTHS: usize = 16;

/// See [`Counters`].
pub type PageCounters = Counters;

/// One size class.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClassStats {
    /// Bytes of a block.
    pub size: usize,
    /// Spans and bytes in them.
    pub spans: u32,
    pub span_bytes: usize,
    /// Blocks handed to and taken back from thread caches in all.
    pub handed_out: u64,
    pub taken_back: u64,
    /// Blocks in transfer caches.
    pub in_transfer: usize,
    /// Bytes inside the spans that were given back to the system.
    pub purged_bytes: usize,
    /// Spans by what is free in them: up to a quarter, up to half, and so on. Full ones are in none.
    pub spans_by_free_quarter: [u32; 4],
}

/// Figures of one class, of both partitions together.
#[must_use]
pub fn class_stats(class: usize) -> ClassStats {
    let _slow_path = SlowPath::enter();
    count_class(class)
}

/// [`class_stats`], for threads of the allocator's own, too.
pub(crate) fn count_class(class: usize) -> ClassStats {
    let mut sum = ClassStats {
        size: size_of_class(class),
        ..ClassStats::default()
    };
    for heap in heaps() {
        sum.in_transfer += heap.transfer(class).totals().objects;
        let central = heap.central(class).inner.lock();
        sum.spans += central.spans;
        sum.span_bytes += page_bytes(central.pages as usize);
        sum.handed_out += central.handed_out;
        sum.taken_back += central.taken_back;
        sum.purged_bytes += central.purged_pages as usize * OS_PAGE;
        let lengths = central.lengths(heap.pages.map.table());
        for (sum, length) in sum.spans_by_free_quarter.iter_mut().zip(lengths) {
            *sum += length;
        }
    }
    sum
}

/// Figures of the whole process.
#[must_use]
pub fn stats() -> Stats {
    let _slow_path = SlowPath::enter();
    count()
}

/// [`stats`], for threads of the allocator's own, too.
pub(crate) fn count() -> Stats {
    let mut stats = Stats::default();
    {
        let registry = REGISTRY.lock();
        stats.threads = registry.caches;
        stats.refills = registry.ended_refills;
        stats.flushes = registry.ended_flushes;
        stats.tiny_blocks = registry.ended_tiny_blocks;
        registry.members.for_each(|cache| {
            stats.refills += cache.refills.load(Relaxed);
            stats.flushes += cache.flushes.load(Relaxed);
            stats.tiny_blocks += cache.tiny.blocks.load(Relaxed);
        });
    }
    stats.profile = profile_stats();
    stats.unreached_bytes = unreached_bytes();
    stats.zero_skipped_bytes = crate::alloc::ZERO_SKIPPED.load(Relaxed);
    stats.process_resident_bytes = process_resident();
    stats.helper_running = helper::exists();
    stats.helper_starts = helper::STARTS.load(Relaxed);
    stats.helper_released_bytes = helper::RELEASED.load(Relaxed);
    stats.helper_run_ns = scavenger::HELPER_NS.load(Relaxed);
    stats.release_ns = scavenger::release_ns();
    let of_cpus = cpu_cache::totals();
    stats.cpu_caches = of_cpus.caches;
    stats.refills += of_cpus.refills;
    stats.flushes += of_cpus.flushes;
    stats.orphaned_caches = ORPHANED.load(Relaxed);
    for (heap, is_data) in heaps().zip([false, true]) {
        stats.add(heap, is_data);
    }
    if let Some(heap) = crate::partition::data() {
        let mut data = Stats::default();
        data.add(heap, true);
        stats.data_in_use_bytes = data.in_use_bytes;
        stats.data_heap_bytes = data.heap_bytes;
    }
    let [waiting, guards] = hardened::set_aside();
    stats.quarantined_bytes = waiting + guards;
    stats.in_use_bytes = stats.in_use_bytes.saturating_sub(waiting + guards);
    stats.large_bytes = stats.large_bytes.saturating_sub(guards);
    stats.resident_bytes = (stats.heap_bytes + stats.metadata_bytes)
        .saturating_sub(stats.clean_bytes + stats.purged_bytes);
    stats
}

/// Bytes in caches that the last trim has not reached.
pub(crate) fn unreached_bytes() -> usize {
    thread::unreached_bytes() + cpu_cache::unreached_bytes()
}

/// The second field of `/proc/self/statm`, in bytes.
fn process_resident() -> usize {
    let mut text = [0; 64];
    let length = File::open(c"/proc/self/statm").map_or(0, |file| file.read(&mut text));
    let field = text[..length].split(|&byte| byte == b' ').nth(1);
    field
        .unwrap_or_default()
        .iter()
        .fold(0, |pages, &digit| pages * 10 + usize::from(digit - b'0'))
        * OS_PAGE
}

/// Times that the objects of a class are counted again because some went from tier to tier meanwhile.
const RECOUNTS: u32 = 4;

/// Objects of one class, of one partition.
struct Objects {
    /// In caches of threads and CPUs.
    cached: usize,
    /// In the middle tier's upper half.
    transfer: transfer_cache::Totals,
    /// Handed out by the spans: with the program, cached or in transit.
    outside: usize,
    /// The class's spans, bytes in them, and kernel pages of these that were given back.
    spans: u32,
    span_bytes: usize,
    purged_pages: usize,
}

/// Counts the objects of a class while threads move them. What goes from a cache to its span between two counts would be in neither or
/// in both, and a program that frees much would seem to hold nothing: then they are counted again, a few times.
fn count_objects(heap: &Heap<Linux>, class: usize, is_data: bool) -> Objects {
    let (transfer, central) = (heap.transfer(class), heap.central(class));
    let mut left = RECOUNTS;
    loop {
        let before = (transfer.totals(), central.activity());
        let cached = cached_objects(class, is_data);
        let after = transfer.totals();
        let inner = central.inner.lock();
        if left == 0 || before == (after, inner.handed_out + inner.taken_back) {
            return Objects {
                cached,
                transfer: after,
                outside: inner.handed_out.saturating_sub(inner.taken_back) as usize,
                spans: inner.spans,
                span_bytes: page_bytes(inner.pages as usize),
                purged_pages: inner.purged_pages as usize,
            };
        }
        left -= 1;
    }
}

/// Objects of a class in caches of threads and CPUs, of which the data partition has none of the latter.
fn cached_objects(class: usize, is_data: bool) -> usize {
    let mut objects = 0;
    REGISTRY.lock().members.for_each(|cache| {
        if cache.is_data() == is_data {
            objects += cache.len(class);
        }
    });
    if !is_data {
        objects += cpu_cache::objects(class);
    }
    objects
}

impl Stats {
    /// Adds the figures of one partition.
    fn add(&mut self, heap: &Heap<Linux>, is_data: bool) {
        let mut small_span_bytes = 0;
        let mut outside_bytes = 0;
        let mut in_transfer_bytes = 0;
        let mut cached_bytes = 0;
        let mut small_spans = 0;
        for class in 1..NUM_CLASSES {
            let size = size_of_class(class);
            let objects = count_objects(heap, class, is_data);
            cached_bytes += objects.cached * size;
            in_transfer_bytes += objects.transfer.objects * size;
            self.transfer_hits += objects.transfer.hits;
            self.transfer_shards_added += objects.transfer.shards - 1;
            self.transfer_stores += objects.transfer.stores;
            outside_bytes += objects.outside * size;
            small_spans += u64::from(objects.spans);
            small_span_bytes += objects.span_bytes;
            self.purged_bytes += objects.purged_pages * OS_PAGE;
        }
        heap.for_each_lock(|lock| self.lock_waits += u64::from(lock.contended()));
        let inner = heap.pages.inner.lock();
        self.heap_bytes += page_bytes(inner.grown - inner.holes);
        self.dirty_bytes += page_bytes(inner.dirty.pages);
        self.clean_bytes += page_bytes(inner.clean.pages);
        let longest = inner.longest_free_bytes(heap.pages.map.table());
        self.longest_free_run_bytes = self.longest_free_run_bytes.max(longest);
        self.free_runs += inner.dirty.runs + inner.clean.runs;
        for runs in [&inner.dirty, &inner.clean] {
            runs.for_each(heap.pages.map.table(), |span| {
                let doubling = (span.pages.ilog2() as usize).min(RUN_LENGTHS - 1);
                self.free_runs_by_doubling[doubling] += 1;
            });
        }
        self.span_peak_bytes += page_bytes(inner.highest_in_use());
        self.heap_peak_bytes += page_bytes(inner.highest_resident());
        self.metadata_bytes += inner.metadata_bytes();
        self.pages.add(&inner.counters);
        let spans = inner.counters.spans_allocated - inner.counters.spans_freed;
        self.spans += spans;
        let by_state = [
            small_spans,
            spans.saturating_sub(small_spans),
            inner.dirty.runs as u64,
            inner.clean.runs as u64,
        ];
        for (sum, count) in self.spans_by_state.iter_mut().zip(by_state) {
            *sum += count;
        }
        let large_bytes = page_bytes(inner.in_use).saturating_sub(small_span_bytes);
        drop(inner);
        self.refused_by_limit += heap.pages.limits.refused();
        self.thread_cache_bytes += cached_bytes;
        self.transfer_cache_bytes += in_transfer_bytes;
        self.small_span_bytes += small_span_bytes;
        self.large_bytes += large_bytes;
        self.central_bytes += small_span_bytes.saturating_sub(outside_bytes);
        // Summed up first: what is cached as one class may have left spans of another ([`crate::joining`]).
        self.in_use_bytes +=
            (outside_bytes + large_bytes).saturating_sub(cached_bytes + in_transfer_bytes);
    }
}

/// Text into a caller's buffer; counts what it would need in all.
struct Buffer<'a> {
    bytes: &'a mut [u8],
    needed: usize,
}

impl Write for Buffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if let Some(place) = self.bytes.get_mut(self.needed) {
                *place = byte;
            }
            self.needed += 1;
        }
        Ok(())
    }
}

/// Writes the statistics as one JSON object into `bytes`; returns the length of the whole text.
/// When that is more than the buffer holds, the buffer's contents are cut off and not valid JSON:
/// call again with more room.
pub fn write_json(bytes: &mut [u8]) -> usize {
    let mut out = Buffer { bytes, needed: 0 };
    // The buffer never fails.
    let _ = format_json(&mut out);
    out.needed
}

fn format_json(out: &mut impl Write) -> fmt::Result {
    let s = stats();
    write!(
        out,
        "{{\"allocator\":\"spanalloc\",\"version\":\"{VERSION}\",\"front_end\":\"{}\",\
         \"settings\":{{\"decay_ms\":{},\"thread_cache_bytes\":{},\"helper\":{},\"huge_pages\":{},\"move_pages\":{},\"populate\":{},\"check\":{},\"hardened\":{},\"quarantine_bytes\":{},\"guard_rate\":{},\"limit_soft\":{},\"limit_hard\":{},\
         \"dump_at_exit\":{},\"dump_signal\":{},\"profile_bytes\":{},\"profile_at_exit\":{},\"profile_signal\":{}}}",
        front_end::name(),
        scavenger::DECAY_MS.load(Relaxed),
        thread_cache::LIMIT_BYTES.load(Relaxed),
        helper::ENABLED.load(Relaxed),
        huge::ENABLED.load(Relaxed),
        moving::ENABLED.load(Relaxed),
        ahead::ENABLED.load(Relaxed),
        hardened::CHECKED.load(Relaxed),
        hardened::HARDENED.load(Relaxed),
        hardened::LIMIT_BYTES.load(Relaxed),
        hardened::RATE.load(Relaxed),
        HEAP.pages.limits.bytes().0,
        HEAP.pages.limits.bytes().1,
        dump::AT_EXIT.load(Relaxed),
        dump::SIGNAL.load(Relaxed),
        profile::MEAN.load(Relaxed),
        profile::AT_EXIT.load(Relaxed),
        profile::SIGNAL.load(Relaxed),
    )?;
    for (name, value) in [
        ("heap_bytes", s.heap_bytes as u64),
        ("in_use_bytes", s.in_use_bytes as u64),
        ("large_bytes", s.large_bytes as u64),
        ("thread_cache_bytes", s.thread_cache_bytes as u64),
        ("transfer_cache_bytes", s.transfer_cache_bytes as u64),
        ("central_bytes", s.central_bytes as u64),
        ("quarantined_bytes", s.quarantined_bytes as u64),
        ("dirty_bytes", s.dirty_bytes as u64),
        ("clean_bytes", s.clean_bytes as u64),
        ("longest_free_run_bytes", s.longest_free_run_bytes as u64),
        ("small_span_bytes", s.small_span_bytes as u64),
        ("resident_bytes", s.resident_bytes as u64),
        ("process_resident_bytes", s.process_resident_bytes as u64),
        ("zero_skipped_bytes", s.zero_skipped_bytes),
        ("refused_by_limit", s.refused_by_limit),
        ("metadata_bytes", s.metadata_bytes as u64),
        ("span_peak_bytes", s.span_peak_bytes as u64),
        ("heap_peak_bytes", s.heap_peak_bytes as u64),
        ("spans", s.spans),
        ("free_runs", s.free_runs as u64),
        ("threads", u64::from(s.threads)),
        ("cpu_caches", u64::from(s.cpu_caches)),
        ("orphaned_caches", s.orphaned_caches),
        ("unreached_bytes", s.unreached_bytes as u64),
        ("purged_bytes", s.purged_bytes as u64),
        ("helper_running", u64::from(s.helper_running)),
        ("helper_starts", s.helper_starts),
        ("helper_released_bytes", s.helper_released_bytes),
        ("helper_run_ns", s.helper_run_ns),
        ("refills", s.refills),
        ("flushes", s.flushes),
        ("tiny_blocks", s.tiny_blocks),
        ("transfer_stores", s.transfer_stores),
        ("transfer_hits", s.transfer_hits),
        ("transfer_shards_added", s.transfer_shards_added as u64),
        ("lock_waits", s.lock_waits),
        ("heap_growths", s.pages.growths),
        ("span_splits", s.pages.splits),
        ("span_coalesces", s.pages.coalesces),
        ("spans_allocated", s.pages.spans_allocated),
        ("spans_freed", s.pages.spans_freed),
        (
            "released_bytes",
            page_bytes(s.pages.pages_released as usize) as u64,
        ),
        ("releases", s.pages.releases),
        ("release_ns", s.release_ns),
        ("grown_in_place", s.pages.grown_in_place),
        ("moved_by_remap", s.pages.moved_by_remap),
        (
            "moved_bytes",
            page_bytes(s.pages.pages_moved as usize) as u64,
        ),
        ("moves", s.pages.moves),
        ("huge_pages", s.pages.huge_pages),
        ("populated_bytes", s.pages.populated_bytes),
        ("data_in_use_bytes", s.data_in_use_bytes as u64),
        ("data_heap_bytes", s.data_heap_bytes as u64),
        ("profile_live_samples", s.profile.live_samples),
        ("profile_samples", s.profile.samples),
        ("profile_dropped", s.profile.dropped),
        ("profile_memory_bytes", s.profile.memory_bytes as u64),
    ] {
        write!(out, ",\"{name}\":{value}")?;
    }
    write!(
        out,
        ",\"spans_by_state\":{:?},\"free_runs_by_doubling\":{:?},\"classes\":[",
        s.spans_by_state, s.free_runs_by_doubling
    )?;
    let mut first = true;
    for class in 1..NUM_CLASSES {
        let c = class_stats(class);
        if c.handed_out == 0 {
            continue;
        }
        write!(
            out,
            "{}{{\"size\":{},\"spans\":{},\"span_bytes\":{},\"handed_out\":{},\"taken_back\":{},\
             \"in_transfer\":{},\"purged_bytes\":{},\"spans_by_free_quarter\":{:?}}}",
            if first { "" } else { "," },
            c.size,
            c.spans,
            c.span_bytes,
            c.handed_out,
            c.taken_back,
            c.in_transfer,
            c.purged_bytes,
            c.spans_by_free_quarter,
        )?;
        first = false;
    }
    out.write_str("]}")
}
