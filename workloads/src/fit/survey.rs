//! First pass: what each thread does in all, how calls and bytes spread over sizes, and which blocks grow.

use super::distribution::MOST;
use crate::compile::{Action, Source};
use crate::error::WorkloadError;
use std::collections::HashMap;

/// Bins of sizes: two for each power of two.
pub(super) const BINS: usize = 80;

/// The bin of a size.
#[inline]
pub(super) fn bin_of(size: u64) -> usize {
    let size = size.max(1);
    let power = size.ilog2() as usize;
    let half = power > 0 && size >> (power - 1) & 1 != 0;
    (2 * power + usize::from(half)).min(BINS - 1)
}

/// The smallest size behind a bin.
pub(super) fn end_of(bin: usize) -> u64 {
    match bin {
        0 | 1 => 2,
        _ => {
            let half = 1u64 << (bin / 2 - 1);
            half * (3 + bin as u64 % 2)
        }
    }
}

/// One thread in all.
#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    pub calls: u64,
    pub allocations: u64,
    pub bytes: u64,
}

/// Blocks of a bin.
#[derive(Clone, Copy, Default)]
pub(super) struct Bin {
    pub calls: u64,
    /// Bytes that were asked for.
    pub bytes: u64,
    /// Bytes alive when most are alive in all.
    pub at_peak: u64,
}

/// A stretch of the trace's calls.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Bytes alive at its end, by bin.
    pub levels: [u64; BINS],
    /// Calls that end with a block in the bin, and those that free one, of each in turn.
    pub calls: [u32; 2 * BINS],
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            levels: [0; BINS],
            calls: [0; 2 * BINS],
        }
    }
}

/// Slots at most; half of them are made of two when there are more.
const SLOTS: usize = 512;

/// A block that comes to at least twice its first size.
#[derive(Clone, Copy, Default)]
pub(super) struct Grown {
    /// Its largest size, bytes.
    pub most: u64,
    /// Bytes that it had when most were alive in all, if it is gone; as of the peak number `seen`.
    then: u64,
    seen: u32,
}

impl Grown {
    pub fn bin(&self) -> u8 {
        bin_of(self.most) as u8
    }
}

#[derive(Default)]
pub(super) struct Survey {
    pub threads: Vec<Totals>,
    pub bins: Vec<Bin>,
    /// Blocks that grow, by the numbers of their allocations.
    pub grown: HashMap<u64, Grown>,
    /// The same by their largest size; of `calls` and `bytes` each block is one.
    pub grown_bins: Vec<Bin>,
    /// The calls in slots of equal length, and how many one has; the last may have fewer.
    pub slots: Vec<Slot>,
    pub slot_calls: u64,
    pub calls: u64,
    pub allocations: u64,
    /// Blocks that came to more bytes than a model gives, and the most that one had.
    pub beyond: u64,
    pub largest: u64,
    /// Largest sum of bytes alive, and after how many calls it was reached first.
    pub peak_bytes: u64,
    pub peak_at: u64,
}

#[derive(Clone, Copy, Default)]
struct Live {
    number: u64,
    first: u64,
    size: u64,
    /// Bytes that it had when the peak number `seen` was over. If others were since, it had `size` at each of them.
    then: u64,
    seen: u32,
}

impl Live {
    /// Bytes that it had when the last of so many `peaks` was over.
    fn at_peak(&self, peaks: u32) -> u64 {
        match self.seen == peaks {
            true => self.then,
            false => self.size,
        }
    }
}

/// Listens to the source once.
pub(super) fn survey<S: Source>(
    source: &mut S,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Survey, WorkloadError> {
    let expected = source.expected_events();
    let mut all = Survey {
        bins: vec![Bin::default(); BINS],
        grown_bins: vec![Bin::default(); BINS],
        slot_calls: 1,
        ..Survey::default()
    };
    let mut slot = Slot::default();
    let mut live: Vec<Live> = Vec::new();
    let mut bytes_of = [0u64; BINS];
    // Whether what is alive is at a new peak, and how many of these are over.
    let (mut bytes, mut risen, mut peaks) = (0u64, false, 0u32);
    source.tell(|event| {
        let thread = event.thread as usize;
        if thread >= all.threads.len() {
            all.threads.resize(thread + 1, Totals::default());
        }
        let totals = &mut all.threads[thread];
        let (block, size) = match event.action {
            Action::Alloc { block, size, .. } => {
                let index = block as usize;
                if index >= live.len() {
                    live.resize(index + 1, Live::default());
                }
                live[index] = Live {
                    number: all.allocations,
                    first: size,
                    seen: peaks,
                    ..Live::default()
                };
                all.allocations += 1;
                totals.allocations += 1;
                totals.bytes += size;
                (index, size)
            }
            Action::Realloc { block, size } => {
                let index = block as usize;
                let of = &live[index];
                if size >= 2 * of.first.max(8) {
                    let grown = all.grown.entry(of.number).or_default();
                    grown.most = grown.most.max(size);
                }
                (index, size)
            }
            Action::Free { block } => (block as usize, 0),
            _ => return Ok(()),
        };
        let of = &mut live[block];
        if size < of.size && risen {
            // What was a peak is one only now that it is over.
            for (bin, bytes) in all.bins.iter_mut().zip(bytes_of) {
                bin.at_peak = bytes;
            }
            risen = false;
            peaks += 1;
        }
        *of = Live {
            then: of.at_peak(peaks),
            seen: peaks,
            ..*of
        };
        if size == 0
            && let Some(grown) = all.grown.get_mut(&of.number)
        {
            (grown.then, grown.seen) = (of.then, of.seen);
        }
        if size > MOST {
            all.beyond += u64::from(of.size <= MOST);
            all.largest = all.largest.max(size);
        }
        let (old, new) = (bin_of(of.size), bin_of(size));
        bytes_of[old] -= of.size;
        bytes_of[new] += size;
        bytes = bytes - of.size + size;
        if bytes > all.peak_bytes {
            all.peak_bytes = bytes;
            all.peak_at = all.calls + 1;
            risen = true;
        }
        let bin = bin_of(size.max(of.size));
        all.bins[bin].calls += 1;
        all.bins[bin].bytes += size;
        slot.calls[2 * bin + usize::from(size == 0)] += 1;
        of.size = size;
        totals.calls += 1;
        all.calls += 1;
        if all.calls.is_multiple_of(all.slot_calls) {
            slot.levels = bytes_of;
            all.end(std::mem::take(&mut slot));
        }
        if all.calls.is_multiple_of(1 << 18) {
            progress(all.calls, expected.max(all.calls));
        }
        Ok(())
    })?;
    if risen {
        for (bin, bytes) in all.bins.iter_mut().zip(bytes_of) {
            bin.at_peak = bytes;
        }
        peaks += 1;
    }
    for of in live.iter().filter(|of| of.size > 0) {
        if let Some(grown) = all.grown.get_mut(&of.number) {
            (grown.then, grown.seen) = (of.at_peak(peaks), peaks);
        }
    }
    if !all.calls.is_multiple_of(all.slot_calls) {
        slot.levels = bytes_of;
        all.slots.push(slot);
    }
    all.sum_up_growing(peaks);
    Ok(all)
}

impl Survey {
    /// Tells the blocks that grow from the others, after so many peaks.
    fn sum_up_growing(&mut self, peaks: u32) {
        for grown in self.grown.values() {
            let bin = &mut self.grown_bins[usize::from(grown.bin())];
            bin.calls += 1;
            bin.bytes += grown.most;
            // Whoever is gone since an earlier peak has no part in the last one.
            if grown.seen == peaks {
                bin.at_peak += grown.then;
                self.bins[bin_of(grown.then)].at_peak -= grown.then;
            }
        }
    }

    /// A slot is over.
    fn end(&mut self, slot: Slot) {
        self.slots.push(slot);
        if self.slots.len() < SLOTS {
            return;
        }
        self.slot_calls *= 2;
        for at in 0..SLOTS / 2 {
            let (first, mut both) = (self.slots[2 * at], self.slots[2 * at + 1]);
            let counts = both.calls.iter_mut().zip(first.calls);
            counts.for_each(|(count, more)| *count += more);
            self.slots[at] = both;
        }
        self.slots.truncate(SLOTS / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Event;
    use heaplab_script::OpKind;

    #[test]
    fn slots_hold_all_calls_however_many_there_are() {
        for calls in [1, 511, 512, 513, 5000, 65_536] {
            let mut survey = Survey {
                slot_calls: 1,
                ..Survey::default()
            };
            let mut slot = Slot::default();
            for call in 1..=calls {
                slot.calls[0] += 1;
                if call % survey.slot_calls == 0 {
                    slot.levels[0] = call;
                    survey.end(std::mem::take(&mut slot));
                }
            }
            assert!(survey.slots.len() < SLOTS);
            let each = survey.slots.iter().zip(1..);
            assert!(each.clone().all(|(slot, number)| {
                u64::from(slot.calls[0]) == survey.slot_calls
                    && slot.levels[0] == number * survey.slot_calls
            }));
            assert_eq!(each.count() as u64, calls / survey.slot_calls);
        }
    }

    /// Events of one thread.
    struct Events(Vec<Action>);

    impl Source for Events {
        fn phases(&self) -> Vec<String> {
            Vec::new()
        }

        fn expected_events(&self) -> u64 {
            self.0.len() as u64
        }

        fn tell<F>(&mut self, take: F) -> Result<(), WorkloadError>
        where
            F: FnMut(Event) -> Result<(), WorkloadError>,
        {
            let events = (self.0.iter()).map(|&action| Event { thread: 0, action });
            events.into_iter().try_for_each(take)
        }
    }

    /// Four blocks that grow, each at another time before, at and after the peaks, and one that does not.
    #[test]
    fn blocks_that_grow_are_counted_at_the_peak() {
        let born = |block, size| Action::Alloc {
            kind: OpKind::Malloc,
            block,
            size,
            align_log2: 0,
        };
        let grow = |block, size| Action::Realloc { block, size };
        let gone = |block| Action::Free { block };
        let mut source = Events(vec![
            born(0, 1000),
            grow(0, 5000),
            born(1, 100),
            grow(1, 800),
            born(2, 300),
            // The first peak, which the next ones exceed.
            gone(0),
            born(0, 2000),
            grow(0, 9000),
            born(3, 20),
            // The last one: 9,000, 800, 300 and 20.
            grow(0, 4000),
            grow(3, 40),
            gone(1),
        ]);
        let survey = survey(&mut source, &mut |_, _| {}).unwrap();
        assert_eq!((survey.peak_bytes, survey.peak_at), (10_120, 9));
        let grown = |size| survey.grown_bins[bin_of(size)];
        let parts = [9000, 5000, 800, 40].map(|size| (grown(size).calls, grown(size).at_peak));
        assert_eq!(parts, [(1, 9000), (1, 0), (1, 800), (1, 20)]);
        let others: Vec<u64> = survey.bins.iter().map(|bin| bin.at_peak).collect();
        assert_eq!(others.iter().sum::<u64>(), 300);
        assert_eq!(others[bin_of(300)], 300);
    }

    #[test]
    fn bins_follow_each_other() {
        let mut last = 0;
        for size in 1..200_000u64 {
            let bin = bin_of(size);
            assert!(bin >= last && size < end_of(bin), "{size}: {bin}");
            assert!(
                bin == last || size == end_of(last) || last < 2,
                "{size}: {bin} after {last}"
            );
            last = bin;
        }
        assert_eq!(bin_of(u64::MAX), BINS - 1);
    }
}
