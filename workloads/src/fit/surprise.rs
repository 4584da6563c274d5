//! How well the next call is known from those before it, as a processor's predictor of branches would know it: tables of what
//! followed the last 1 to 32 calls, the longest context that is known decides (TAGE, Seznec and Michaud 2006, without its
//! counters of usefulness).

use super::survey::bin_of;
use heaplab_script::{Op, OpKind};

/// Calls of a context.
const ORDERS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Entries of a context's table.
const ENTRIES: usize = 1 << 12;
/// Calls that are remembered for contexts: a power of two above the longest.
const REMEMBERED: usize = 64;
/// What an unexpected size costs beside an unexpected kind, about.
const SIZES: f64 = 1.0;
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy, Default)]
struct Entry {
    tag: u32,
    symbol: u16,
    /// Whether it was right the last time.
    sure: bool,
}

/// One sequence of symbols and what is known of it.
struct Sequence {
    tables: Vec<[Entry; ENTRIES]>,
    /// Polynomial hashes of all symbols up to each of the last ones.
    hashes: [u64; REMEMBERED],
    count: usize,
    powers: [u64; ORDERS.len()],
}

impl Sequence {
    fn new() -> Self {
        Self {
            tables: vec![[Entry::default(); ENTRIES]; ORDERS.len()],
            hashes: [0; REMEMBERED],
            count: 0,
            powers: ORDERS.map(|order| BASE.wrapping_pow(order as u32)),
        }
    }

    /// The next symbol; whether it was expected.
    fn take(&mut self, symbol: u16) -> bool {
        let now = self.hashes[self.count % REMEMBERED];
        let mut expected = None;
        for (order, &length) in ORDERS.iter().enumerate() {
            if length > self.count {
                break;
            }
            let then = self.hashes[(self.count - length) % REMEMBERED];
            let hash = now.wrapping_sub(then.wrapping_mul(self.powers[order]));
            let hash = (hash ^ hash >> 29).wrapping_mul(BASE);
            let entry = &mut self.tables[order][(hash >> 52) as usize % ENTRIES];
            let tag = (hash >> 16) as u32 | 1;
            if entry.tag != tag {
                *entry = Entry {
                    tag,
                    symbol,
                    sure: false,
                };
                continue;
            }
            let right = entry.symbol == symbol;
            if entry.sure || expected.is_none() {
                expected = Some(right);
            }
            if !right && !entry.sure {
                entry.symbol = symbol;
            }
            entry.sure = right;
        }
        self.count += 1;
        self.hashes[self.count % REMEMBERED] =
            now.wrapping_mul(BASE).wrapping_add(u64::from(symbol) + 1);
        expected.unwrap_or(false)
    }
}

/// What a thread's calls were, and how many came unexpectedly.
#[derive(Default)]
pub(super) struct Surprise {
    threads: Vec<Option<Box<(Sequence, Sequence)>>>,
    pub calls: u64,
    /// Calls whose kind was not expected from the kinds before.
    pub kinds: u64,
    /// Calls whose kind and size was not expected from those before.
    pub sizes: u64,
}

impl Surprise {
    /// A thread's next call; `size` is that of the block it is about.
    pub fn take(&mut self, thread: u32, kind: OpKind, size: u64) {
        let index = thread as usize;
        if index >= self.threads.len() {
            self.threads.resize_with(index + 1, || None);
        }
        let thread =
            self.threads[index].get_or_insert_with(|| Box::new((Sequence::new(), Sequence::new())));
        let class = match size {
            0..1024 => (size / 16) as u16,
            _ => 64 + bin_of(size) as u16,
        };
        self.calls += 1;
        self.kinds += u64::from(!thread.0.take(kind as u16));
        self.sizes += u64::from(!thread.1.take(class * 16 + kind as u16));
    }

    /// The same for an op of a script.
    pub fn op(&mut self, thread: u32, op: &Op) {
        let kinds = [
            OpKind::Malloc,
            OpKind::Calloc,
            OpKind::AlignedAlloc,
            OpKind::Realloc,
            OpKind::Free,
        ];
        if let Some(&kind) = kinds.iter().find(|kind| **kind as u8 == op.kind) {
            self.take(thread, kind, op.size());
        }
    }

    /// Unexpected kinds, and unexpected kinds and sizes, among all calls.
    pub fn shares(&self) -> (f64, f64) {
        let calls = self.calls.max(1) as f64;
        (self.kinds as f64 / calls, self.sizes as f64 / calls)
    }

    /// How far another is from this one.
    pub fn apart(&self, other: &Self) -> f64 {
        let (mine, theirs) = (self.shares(), other.shares());
        (mine.0 - theirs.0).abs() + SIZES * (mine.1 - theirs.1).abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(calls: impl Iterator<Item = (OpKind, u64)>) -> (f64, f64) {
        let mut surprise = Surprise::default();
        for (kind, size) in calls {
            surprise.take(0, kind, size);
        }
        surprise.shares()
    }

    #[test]
    fn what_repeats_is_foreseen_and_chance_is_not() {
        // SplitMix64 (Steele, Lea, Flood 2014): multiples alone are foreseen.
        let chance = |at: u64| {
            let mixed = (at.wrapping_mul(BASE) ^ at.wrapping_mul(BASE) >> 30)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
        };
        let kind = |word: u64| match word % 2 {
            0 => OpKind::Malloc,
            _ => OpKind::Free,
        };
        // The same thousand calls, drawn by chance, again and again.
        let (kinds, sizes) = heard((0..50_000).map(|at| {
            let word = chance(at % 1000);
            (kind(word), word % 900)
        }));
        // They are learned in the first two rounds of fifty.
        assert!(kinds < 0.06 && sizes < 0.06, "{kinds} {sizes}");
        // Never again the same: half of the kinds, hardly a size.
        let (kinds, sizes) = heard((0..50_000).map(|at| (kind(chance(at)), chance(at) / 2 % 900)));
        assert!(
            (0.4..0.6).contains(&kinds) && sizes > 0.9,
            "{kinds} {sizes}"
        );
        // Known kinds with sizes of chance.
        let (kinds, sizes) = heard((0..50_000).map(|at| (kind(at), chance(at) % 900)));
        assert!(kinds < 0.01 && sizes > 0.9, "{kinds} {sizes}");
    }

    #[test]
    fn threads_are_foreseen_each_for_itself() {
        let mut surprise = Surprise::default();
        for at in 0..10_000u64 {
            let thread = (at.wrapping_mul(BASE) >> 40) as u32 % 2;
            let kind = [OpKind::Malloc, OpKind::Free][thread as usize];
            surprise.take(thread, kind, 8);
        }
        assert!(surprise.shares().0 < 0.01, "{:?}", surprise.shares());
    }
}
