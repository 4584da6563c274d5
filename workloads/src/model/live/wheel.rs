//! Blocks that know when they die: a hierarchical timing wheel.
//!
//! Time counts allocations. Level n has 64 slots of 64^n ticks; when a slot of a level begins, its blocks move down. A block
//! moves at most once for each level, whatever its age. Blocks lie in the slots themselves: slots are read and written from
//! end to end, so that a death is no cache miss.

use super::Block;
use crate::model::sampler::below;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// 64^6 = 2^36 ticks, more than the largest age.
const LEVELS: usize = 6;

/// A block and when it dies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    death: u64,
    block: Block,
}

/// See the module.
#[derive(Debug)]
pub struct Wheel {
    now: u64,
    slots: Box<[Vec<Entry>; SLOTS * LEVELS]>,
    /// The slot whose time has come, and how many of it are taken.
    due: Vec<Entry>,
    taken: usize,
}

impl Wheel {
    pub fn new() -> Self {
        Self {
            now: 0,
            slots: Box::new(std::array::from_fn(|_| Vec::new())),
            due: Vec::new(),
            taken: 0,
        }
    }

    /// One tick passes, and a block begins to live for `age` ticks (≥ 1).
    #[inline(always)]
    pub fn put(&mut self, block: Block, age: u32) {
        self.tick();
        self.restore(block, age);
    }

    /// As [`Wheel::put`], but no time passes.
    #[inline(always)]
    pub fn restore(&mut self, block: Block, age: u32) {
        let death = self.now + u64::from(age.max(1));
        self.file(Entry { death, block });
    }

    /// The block whose time came first, if any has.
    #[inline(always)]
    pub fn take_due(&mut self) -> Option<Block> {
        let entry = self.due.get(self.taken)?;
        self.taken += 1;
        Some(entry.block)
    }

    /// Any block, all alike. Looks through the slots: 0.2 µs, which only models that resize such blocks pay.
    pub fn peek(&mut self, random: &mut Pcg64) -> Option<&mut Block> {
        let filed: usize = self.slots.iter().map(Vec::len).sum();
        let all = filed + self.due.len() - self.taken;
        let mut place = below(random.next_u64(), all as u64) as usize;
        for slot in self.slots.iter_mut() {
            match slot.len() {
                count if place < count => return Some(&mut slot[place].block),
                count => place -= count,
            }
        }
        let due = self.due[self.taken..].get_mut(place)?;
        Some(&mut due.block)
    }

    /// All blocks with the ticks that they would have lived on, those nearest to death first.
    pub fn drain(&mut self) -> Vec<(Block, u32)> {
        let mut entries: Vec<Entry> = self.slots.iter_mut().flat_map(std::mem::take).collect();
        // Stable: those that die together stay in the order in which they lie.
        entries.sort_by_key(|entry| entry.death);
        let now = self.now;
        let due = std::mem::take(&mut self.due);
        let taken = std::mem::take(&mut self.taken);
        let rest = entries
            .into_iter()
            .map(|entry| (entry.block, (entry.death - now) as u32));
        due[taken..]
            .iter()
            .map(|entry| (entry.block, 0))
            .chain(rest)
            .collect()
    }

    #[inline]
    fn file(&mut self, entry: Entry) {
        // The highest group of bits in which death differs from now names the level.
        let differ = entry.death ^ self.now;
        let level = (63 - (differ | 1).leading_zeros()) / BITS;
        let slot = (entry.death >> (level * BITS)) as usize % SLOTS;
        self.slots[level as usize * SLOTS + slot].push(entry);
    }

    #[inline]
    fn tick(&mut self) {
        self.now += 1;
        if self.now.is_multiple_of(SLOTS as u64) {
            self.turn();
        }
        let slot = &mut self.slots[self.now as usize % SLOTS];
        if self.taken == self.due.len() {
            // Whether anybody dies at this tick is for chance to say, and the exchange costs less than a jump foreseen wrongly.
            self.due.clear();
            self.taken = 0;
            std::mem::swap(&mut self.due, slot);
        } else {
            self.due.append(slot);
        }
    }

    /// Slots that begin now move down, the widest first.
    #[cold]
    fn turn(&mut self) {
        let level_of = (self.now.trailing_zeros() / BITS).min(LEVELS as u32 - 1);
        for level in (1..=level_of).rev() {
            let slot = (self.now >> (level * BITS)) as usize % SLOTS;
            let mut entries = std::mem::take(&mut self.slots[level as usize * SLOTS + slot]);
            for entry in entries.drain(..) {
                self.file(entry);
            }
            self.slots[level as usize * SLOTS + slot] = entries;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::live::Parts;

    fn block(slot: u32) -> Block {
        Block::new(Parts {
            slot,
            size: 1,
            target: 1,
            mark: 0,
            align_log2: 0,
            shared: false,
        })
    }

    #[test]
    fn each_dies_exactly_at_its_age() {
        let mut random = Pcg64::new(3, 4);
        let mut wheel = Wheel::new();
        let mut deaths = std::collections::HashMap::new();
        for now in 1..300_000u64 {
            let age = match below(random.next_u64(), 4) {
                0 => 1,
                1 => 1 + below(random.next_u64(), 100) as u32,
                2 => 1 + below(random.next_u64(), 5_000) as u32,
                _ => 1 + below(random.next_u64(), 280_000) as u32,
            };
            let number = now as u32;
            wheel.put(block(number), age);
            deaths.insert(number, now + u64::from(age));
            while let Some(dead) = wheel.take_due() {
                assert_eq!(deaths.remove(&dead.slot()), Some(now));
            }
        }
        let left = wheel.drain();
        assert_eq!(left.len(), deaths.len());
        assert!(wheel.drain().is_empty());
        assert!(left.is_sorted_by_key(|(_, rest)| *rest));
        assert!(
            left.iter()
                .all(|(block, rest)| deaths[&block.slot()] == 299_999 + u64::from(*rest))
        );
    }
}
