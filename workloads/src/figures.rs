//! What a script does, measured: the figures by which a rebuilt benchmark is compared with the description of the original.

use heaplab_script::{OpKind, Script};
use std::collections::BTreeMap;

/// Figures of a script, following its global order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Threads, successors included.
    pub threads: usize,
    /// Calls of the malloc family.
    pub calls: u64,
    /// Allocating calls.
    pub allocations: u64,
    /// Reallocs.
    pub reallocs: u64,
    /// Frees.
    pub frees: u64,
    /// Frees by another thread than the one that allocated the block.
    pub remote_frees: u64,
    /// Smallest, median, 99th percentile and largest requested size of allocations and reallocs, bytes.
    pub sizes: [u64; 4],
    /// Mean of those sizes, bytes.
    pub mean_size: f64,
    /// Largest number of blocks alive.
    pub peak_live_blocks: u64,
    /// Largest sum of requested bytes alive.
    pub peak_live_bytes: u64,
    /// Mean of the requested bytes alive, over calls.
    pub mean_live_bytes: f64,
    /// Median age at death of the freed blocks, in allocations of all threads.
    pub median_age: u64,
    /// Share of the bytes requested in blocks above 8 KiB.
    pub large_bytes: f64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    size: u64,
    thread: u32,
    birth: u64,
}

impl Figures {
    /// Measures a script; one pass over its ops.
    pub fn of(script: &Script) -> Self {
        let info = script.info();
        let slots = info.private_slots as usize + info.shared_slots as usize;
        let mut state = vec![Slot::default(); slots];
        let mut next = vec![0usize; script.thread_count()];
        let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
        let mut ages: BTreeMap<u64, u64> = BTreeMap::new();
        let mut figures = Self {
            threads: script.thread_count(),
            calls: info.calls,
            allocations: info.allocations,
            reallocs: info.reallocs,
            frees: info.frees,
            peak_live_blocks: info.peak_live_blocks,
            peak_live_bytes: info.peak_live_bytes,
            ..Self::default()
        };
        let (mut live, mut live_sum, mut births) = (0u64, 0.0, 0u64);
        for run in script.order() {
            let thread = run.thread as usize;
            let begin = next[thread];
            next[thread] += run.count as usize;
            for op in &script.thread(thread)[begin..next[thread]] {
                if !op.is_call() {
                    continue;
                }
                let slot = &mut state[op.slot as usize];
                match op.kind() {
                    Some(OpKind::Free) => {
                        figures.remote_frees += u64::from(slot.thread != run.thread);
                        *ages.entry(births - slot.birth).or_default() += 1;
                        live -= slot.size;
                        *slot = Slot::default();
                    }
                    Some(OpKind::Realloc) => {
                        *sizes.entry(op.size()).or_default() += 1;
                        live = live + op.size() - slot.size;
                        slot.size = op.size();
                    }
                    _ => {
                        births += 1;
                        *sizes.entry(op.size()).or_default() += 1;
                        live += op.size();
                        *slot = Slot {
                            size: op.size(),
                            thread: run.thread,
                            birth: births,
                        };
                    }
                }
                live_sum += live as f64;
            }
        }
        let total: f64 = sizes
            .iter()
            .map(|(size, count)| *size as f64 * *count as f64)
            .sum();
        let count: u64 = sizes.values().sum();
        let large: f64 = sizes
            .range(8193..)
            .map(|(size, count)| *size as f64 * *count as f64)
            .sum();
        figures.sizes = [
            quantile(&sizes, 0.0),
            quantile(&sizes, 0.5),
            quantile(&sizes, 0.99),
            quantile(&sizes, 1.0),
        ];
        figures.mean_size = total / count.max(1) as f64;
        figures.large_bytes = if total > 0.0 { large / total } else { 0.0 };
        figures.mean_live_bytes = live_sum / figures.calls.max(1) as f64;
        figures.median_age = quantile(&ages, 0.5);
        figures
    }

    /// Share of frees that are remote.
    pub fn remote_share(&self) -> f64 {
        self.remote_frees as f64 / self.frees.max(1) as f64
    }

    /// Share of calls that are reallocs.
    pub fn realloc_share(&self) -> f64 {
        self.reallocs as f64 / self.calls.max(1) as f64
    }

    /// Calls of an average thread.
    pub fn calls_per_thread(&self) -> f64 {
        self.calls as f64 / self.threads.max(1) as f64
    }
}

/// The value below or at which this share of the counted values lies; 0 of nothing.
fn quantile(counts: &BTreeMap<u64, u64>, share: f64) -> u64 {
    let all: u64 = counts.values().sum();
    let wanted = ((all as f64 * share) as u64).min(all.saturating_sub(1));
    let mut before = 0;
    for (value, count) in counts {
        before += count;
        if before > wanted {
            return *value;
        }
    }
    0
}
