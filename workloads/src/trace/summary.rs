//! What is known about a trace without reading its events: kept in the file's index.

use super::event::{Effect, TICK_NS, TraceEvent};
use super::header::FinishInfo;
use super::process::ProcessCounts;
use serde::{Deserialize, Serialize, Serializer};

/// A gap of the whole program of at least this many ticks (1 ms) is idle time.
pub const IDLE_TICKS: u64 = 1_000_000 / TICK_NS;

/// One thread of the recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadInfo {
    /// Nanoseconds of its start, as far as it is known.
    pub start_ns: u64,
    /// Nanoseconds of its end, where it was seen.
    pub end_ns: Option<u64>,
    /// Its events.
    pub events: u64,
    /// Its allocations.
    pub allocations: u64,
    /// Its frees.
    pub frees: u64,
    /// Its frees of blocks that another thread allocated.
    pub remote_frees: u64,
    /// Bytes it requested.
    pub bytes_allocated: u64,
    /// Number of its process.
    pub process: u32,
}

/// Totals of a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceSummary {
    /// Events of all kinds.
    pub events: u64,
    /// Allocating calls that succeeded (realloc of nothing included).
    pub allocations: u64,
    /// Frees (frees that were made up for lost ones not included).
    pub frees: u64,
    /// Reallocs of a block.
    pub reallocs: u64,
    /// Allocations that failed.
    pub failed: u64,
    /// Bytes requested, reallocs with their whole new size.
    pub bytes_allocated: u64,
    /// Largest sum of requested bytes alive.
    pub peak_live_bytes: u64,
    /// Largest number of blocks alive.
    pub peak_live_blocks: u64,
    /// Requested bytes alive at the end.
    pub end_live_bytes: u64,
    /// Blocks alive at the end.
    pub end_live_blocks: u64,
    /// Threads that have events.
    pub threads: u32,
    /// Processes.
    pub processes: u32,
    /// Frees by another thread than the one that allocated.
    pub remote_frees: u64,
    /// Frees of blocks from before the recording: dropped.
    pub foreign_frees: u64,
    /// Frees that were made up because an address came back while its block was alive.
    pub lost_frees: u64,
    /// Times it was told how much of a block was written.
    pub written_blocks: u64,
    /// Sum of gaps of 1 ms and more in which no thread had an event, nanoseconds.
    pub idle_ns: u64,
    /// From the first to the last event, nanoseconds.
    pub duration_ns: u64,
    /// Nothing is missing: the recording ended in order, no event was lost, no chunk is damaged.
    pub complete: bool,
    /// What is missing, in words; empty when nothing is.
    pub missing: Vec<String>,
    /// What the recorder said at the end.
    pub finish: Option<FinishInfo>,
    /// All threads, by number.
    #[serde(serialize_with = "short_table")]
    pub thread_table: Vec<ThreadInfo>,
    /// All processes, by number; empty where the recorder said nothing of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub process_table: Vec<ProcessCounts>,
    #[serde(skip)]
    last_tick: Option<(u64, u64)>,
}

/// Numbers that no thread has take as little room as possible: other tools' traces may have thread 900,000 and few others,
/// and the table must fit in a chunk.
fn short_table<S: Serializer>(table: &[ThreadInfo], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Entry<'a> {
        Thread(&'a ThreadInfo),
        Nobody {},
    }
    let nobody = ThreadInfo::default();
    to.collect_seq(table.iter().map(|thread| match *thread == nobody {
        true => Entry::Nobody {},
        false => Entry::Thread(thread),
    }))
}

impl TraceSummary {
    /// Counts one event; `owner` is the thread that allocated the block of a free; `live` bytes and blocks are those
    /// after the event.
    #[inline]
    pub(super) fn count(&mut self, event: &TraceEvent, owner: u32, live: (u64, u64)) {
        let index = event.thread as usize;
        if index >= self.thread_table.len() {
            self.thread_table.resize(index + 1, ThreadInfo::default());
        }
        let thread = &mut self.thread_table[index];
        self.events += 1;
        thread.events += 1;
        match event.kind.effect() {
            // A copy that came with a fork, or what went with its process: no call of the program.
            Effect::Alloc if event.kind == super::EventKind::Inherited => {}
            Effect::Free if event.kind == super::EventKind::Gone => {}
            Effect::Alloc => {
                self.allocations += 1;
                thread.allocations += 1;
                self.bytes_allocated = self.bytes_allocated.saturating_add(event.size);
                thread.bytes_allocated = thread.bytes_allocated.saturating_add(event.size);
            }
            Effect::Resize => {
                self.reallocs += 1;
                self.bytes_allocated = self.bytes_allocated.saturating_add(event.size);
                thread.bytes_allocated = thread.bytes_allocated.saturating_add(event.size);
            }
            Effect::Free if event.kind == super::EventKind::LostFree => self.lost_frees += 1,
            Effect::Free => {
                self.frees += 1;
                thread.frees += 1;
                if owner != event.thread {
                    self.remote_frees += 1;
                    thread.remote_frees += 1;
                }
            }
            Effect::Told => self.written_blocks += 1,
            Effect::None if event.kind == super::EventKind::Failed => self.failed += 1,
            Effect::None => {}
        }
        self.peak_live_bytes = self.peak_live_bytes.max(live.0);
        self.peak_live_blocks = self.peak_live_blocks.max(live.1);
        (self.end_live_bytes, self.end_live_blocks) = live;
        let (first, last) = self.last_tick.unwrap_or((event.tick, event.tick));
        let gap = event.tick.saturating_sub(last);
        if gap >= IDLE_TICKS {
            self.idle_ns = self.idle_ns.saturating_add(gap.saturating_mul(TICK_NS));
        }
        let (first, last) = (first.min(event.tick), last.max(event.tick));
        self.last_tick = Some((first, last));
        self.duration_ns = (last - first).saturating_mul(TICK_NS);
    }

    /// Totals of a part: `before` is the largest tick before it, `None` at the start of the trace.
    pub(super) fn continued(before: Option<u64>) -> Self {
        Self {
            last_tick: before.map(|tick| (u64::MAX, tick)),
            ..Self::default()
        }
    }

    /// Adds the totals of the part that follows.
    pub(super) fn append(&mut self, next: Self) {
        if next.events == 0 {
            return;
        }
        self.events += next.events;
        self.allocations += next.allocations;
        self.frees += next.frees;
        self.reallocs += next.reallocs;
        self.failed += next.failed;
        self.remote_frees += next.remote_frees;
        self.lost_frees += next.lost_frees;
        self.bytes_allocated = self.bytes_allocated.saturating_add(next.bytes_allocated);
        self.idle_ns = self.idle_ns.saturating_add(next.idle_ns);
        self.peak_live_bytes = self.peak_live_bytes.max(next.peak_live_bytes);
        self.peak_live_blocks = self.peak_live_blocks.max(next.peak_live_blocks);
        self.end_live_bytes = next.end_live_bytes;
        self.end_live_blocks = next.end_live_blocks;
        let (first, last) = self.last_tick.unwrap_or((u64::MAX, 0));
        let (next_first, next_last) = next.last_tick.unwrap_or((u64::MAX, 0));
        let (first, last) = (first.min(next_first), last.max(next_last));
        self.last_tick = Some((first, last));
        self.duration_ns = last.saturating_sub(first).saturating_mul(TICK_NS);
        let threads = self.thread_table.len().max(next.thread_table.len());
        self.thread_table.resize(threads, ThreadInfo::default());
        for (thread, more) in self.thread_table.iter_mut().zip(next.thread_table) {
            thread.events += more.events;
            thread.allocations += more.allocations;
            thread.frees += more.frees;
            thread.remote_frees += more.remote_frees;
            thread.bytes_allocated = thread.bytes_allocated.saturating_add(more.bytes_allocated);
        }
    }

    /// Fills what follows from the thread table.
    pub(super) fn close(&mut self) {
        self.threads = self
            .thread_table
            .iter()
            .filter(|thread| thread.events > 0)
            .count() as u32;
        self.processes = self.processes.max(u32::from(self.events > 0));
        self.complete = self.missing.is_empty();
        self.last_tick = None;
    }

    /// The same counts, as far as the events alone determine them.
    pub(super) fn same_counts(&self, other: &Self) -> bool {
        let counts = |of: &Self| {
            [
                of.events,
                of.allocations,
                of.frees,
                of.reallocs,
                of.failed,
                of.bytes_allocated,
                of.peak_live_bytes,
                of.peak_live_blocks,
                of.end_live_bytes,
                of.end_live_blocks,
                of.remote_frees,
                of.lost_frees,
                of.idle_ns,
                of.duration_ns,
                u64::from(of.threads),
            ]
        };
        counts(self) == counts(other)
    }
}
