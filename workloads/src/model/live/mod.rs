//! The blocks that a thread keeps alive, arranged so that its lifetime's victim is found in constant time.

mod bag;
mod block;
mod nurseries;
mod wheel;

use super::alias::Alias;
use super::definition::{BatchOrder, Deed, Dies, DropOrder, Lifetime};
use super::sampler::{Sampler, below, threshold};
use crate::chain::Chain;
use bag::{Bag, PLACES, Pick};
pub use block::{Block, Parts};
use nurseries::Nurseries;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use std::collections::VecDeque;
use wheel::Wheel;

/// Blocks that are looked at for one that grows.
const LOOKS: u32 = 4;

/// A thread's live blocks of one group.
#[derive(Debug)]
pub struct LiveSet {
    shape: Shape,
    bytes: u64,
    count: usize,
}

/// A tag of its own, not hidden in a field: it is looked at several times for each op.
#[derive(Debug)]
#[repr(u8)]
enum Shape {
    Bag(Bag),
    /// By age, oldest first.
    Line {
        blocks: VecDeque<Block>,
        youngest: bool,
    },
    Bimodal {
        short: VecDeque<Block>,
        long: Bag,
        short_share: u64,
        short_live: u64,
    },
    Nurseries(Nurseries),
    /// By age, any of which may go.
    Chain {
        chain: Chain<Block>,
        /// The order is that of [`Lifetime::recencies`].
        pick: Alias,
        ranks: Sampler,
    },
    Wheel(Drawn),
}

/// Blocks that draw their ages.
#[derive(Debug)]
struct Drawn {
    wheel: Wheel,
    ages: Sampler,
    /// Factor on ages, 2^32 for 1.
    scale: u64,
}

impl Drawn {
    #[inline(always)]
    fn put(&mut self, block: Block, random: &mut Pcg64) {
        let age = u64::from(self.ages.draw(random));
        let age = match self.scale {
            SAME => age,
            scale => ((u128::from(age) * u128::from(scale)) >> 32) as u64,
        };
        self.wheel.put(block, age.min(1 << 31) as u32);
    }
}

/// [`Drawn::scale`] of ages that stay as they are.
const SAME: u64 = 1 << 32;

impl LiveSet {
    /// An empty set that is to hold `live` blocks. `scale` is a factor on drawn ages, from which the number of live blocks
    /// follows.
    pub fn new(lifetime: &Lifetime, live: u64, scale: f64) -> Self {
        let line = |youngest| Shape::Line {
            blocks: VecDeque::new(),
            youngest,
        };
        let shape = match lifetime {
            Lifetime::Random | Lifetime::Exponential => Shape::Bag(Bag::new(Pick::Even)),
            Lifetime::Fifo | Lifetime::Phase => line(false),
            Lifetime::Lifo => line(true),
            Lifetime::Batch { order } => match order {
                BatchOrder::Random => Shape::Bag(Bag::new(Pick::Even)),
                BatchOrder::Fifo => line(false),
                BatchOrder::Lifo => line(true),
            },
            Lifetime::Bimodal {
                short_share,
                short_live,
            } => Shape::Bimodal {
                short: VecDeque::new(),
                long: Bag::new(Pick::Even),
                short_share: threshold(*short_share),
                short_live: *short_live,
            },
            Lifetime::Generational {
                nursery,
                survive,
                generations,
            } => Shape::Nurseries(Nurseries::new(*generations, *nursery, threshold(*survive))),
            Lifetime::BySize { dies, tries } => Shape::Bag(Bag::new(Pick::Extreme {
                largest: *dies == Dies::Large,
                tries: *tries,
            })),
            Lifetime::Zipf { exponent } => {
                Shape::Bag(Bag::new(Pick::Places(places(*exponent, live))))
            }
            Lifetime::Recency { ranks, .. } => Shape::Chain {
                chain: Chain::new(),
                pick: Alias::new(&lifetime.recencies()),
                ranks: ranks.as_ref().map_or(Sampler::Fixed(0), Sampler::new),
            },
            Lifetime::Drawn { allocations } => Shape::Wheel(Drawn {
                wheel: Wheel::new(),
                ages: Sampler::new(allocations),
                scale: threshold(scale),
            }),
        };
        Self {
            shape,
            bytes: 0,
            count: 0,
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Sum of the sizes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A block that was looked at has another size now.
    pub fn resized(&mut self, from: u32, to: u32) {
        self.bytes = self.bytes - u64::from(from) + u64::from(to);
    }

    #[inline(always)]
    pub fn put(&mut self, block: Block, random: &mut Pcg64) {
        self.bytes += u64::from(block.size());
        self.count += 1;
        match &mut self.shape {
            Shape::Bag(bag) => bag.put(block),
            Shape::Line { blocks, .. } => blocks.push_back(block),
            Shape::Bimodal {
                short,
                long,
                short_share,
                ..
            } => {
                if random.next_u64() >> 32 < *short_share {
                    short.push_back(block);
                } else {
                    long.put(block);
                }
            }
            Shape::Nurseries(nurseries) => nurseries.put(block),
            Shape::Chain { chain, .. } => {
                chain.push(block);
            }
            Shape::Wheel(drawn) => drawn.put(block, random),
        }
    }

    /// As [`LiveSet::put`], for a set whose blocks draw their ages; any other has no room for it.
    #[inline(always)]
    pub fn put_drawn(&mut self, block: Block, random: &mut Pcg64) {
        if let Shape::Wheel(drawn) = &mut self.shape {
            drawn.put(block, random);
            self.bytes += u64::from(block.size());
            self.count += 1;
        }
    }

    /// As [`LiveSet::take_surplus`], for a set whose blocks draw their ages; any other has none.
    #[inline(always)]
    pub fn take_drawn(&mut self) -> Option<Block> {
        let Shape::Wheel(drawn) = &mut self.shape else {
            return None;
        };
        let block = drawn.wheel.take_due();
        self.left(block)
    }

    /// The block that dies when one must, by the lifetime's rule.
    #[inline(always)]
    pub fn take_victim(&mut self, random: &mut Pcg64) -> Option<Block> {
        let block = match &mut self.shape {
            Shape::Bag(bag) => bag.take(random),
            Shape::Line { blocks, youngest } => {
                if *youngest {
                    blocks.pop_back()
                } else {
                    blocks.pop_front()
                }
            }
            Shape::Bimodal {
                short,
                long,
                short_live,
                ..
            } => {
                if short.len() as u64 > *short_live || long.len() == 0 {
                    short.pop_front()
                } else {
                    long.take(random)
                }
            }
            Shape::Nurseries(nurseries) => nurseries.take_surplus(0, random),
            Shape::Chain { chain, pick, ranks } => by_recency(chain, pick, ranks, random),
            Shape::Wheel(drawn) => drawn.wheel.take_due(),
        };
        self.left(block)
    }

    /// As [`LiveSet::take_victim`], but the one that `deed` names, where the set knows it and has it.
    #[inline]
    pub fn take_named(&mut self, deed: Deed, rank: u32, random: &mut Pcg64) -> Option<Block> {
        let Shape::Chain { chain, .. } = &mut self.shape else {
            return self.take_victim(random);
        };
        let named = match deed {
            Deed::FreeNewest => chain.newest(0),
            Deed::FreeNext => chain.above(),
            Deed::FreePrevious => chain.below(),
            Deed::Free if rank > 0 => chain.newest(rank.min(1 << 10)),
            _ => return self.take_victim(random),
        };
        let block = named
            .or_else(|| chain.newest(0))
            .map(|place| chain.take(place));
        self.left(block)
    }

    /// The block that has to die now whether or not one must (`generational`, `drawn`); `live` bounds the old ones.
    #[inline(always)]
    pub fn take_surplus(&mut self, live: u64, random: &mut Pcg64) -> Option<Block> {
        let block = match &mut self.shape {
            Shape::Nurseries(nurseries) => nurseries.take_surplus(live, random),
            Shape::Wheel(drawn) => drawn.wheel.take_due(),
            _ => None,
        };
        self.left(block)
    }

    #[inline(always)]
    fn left(&mut self, block: Option<Block>) -> Option<Block> {
        if let Some(block) = &block {
            self.bytes -= u64::from(block.size());
            self.count -= 1;
        }
        block
    }

    /// Any block, left where it is; `None` may also mean that the look found nothing.
    #[inline]
    pub fn peek(&mut self, random: &mut Pcg64) -> Option<&mut Block> {
        match &mut self.shape {
            Shape::Bag(bag) => bag.peek(random),
            Shape::Line { blocks, .. } => {
                let place = below(random.next_u64(), blocks.len() as u64) as usize;
                blocks.get_mut(place)
            }
            Shape::Bimodal { short, long, .. } => {
                if long.len() > 0 {
                    long.peek(random)
                } else {
                    short.back_mut()
                }
            }
            Shape::Nurseries(nurseries) => nurseries.peek(random),
            // What grows or shrinks is mostly what came last.
            Shape::Chain { chain, .. } => {
                let newest = chain.newest(0)?;
                Some(chain.at(newest))
            }
            Shape::Wheel(drawn) => drawn.wheel.peek(random),
        }
    }

    /// A block that has not yet its size: the newest, or any of a few; `None` when they all have it, and for sets of another shape
    /// than that of phrases.
    pub fn peek_growing(&mut self, random: &mut Pcg64) -> Option<&mut Block> {
        let grows = |block: &Block| block.size() < block.target();
        let Shape::Chain { chain, .. } = &mut self.shape else {
            return None;
        };
        let mut place = chain.newest(0)?;
        for _ in 0..LOOKS {
            if grows(chain.at(place)) {
                return Some(chain.at(place));
            }
            place = below(random.next_u64(), chain.len() as u64) as u32;
        }
        None
    }

    /// Takes a share of the blocks out, in the order in which they are to be freed.
    pub fn extract(&mut self, share: f64, order: DropOrder, random: &mut Pcg64) -> Vec<Block> {
        let all = self.drain();
        let count = (all.len() as f64 * share) as usize;
        let chosen = choose(all.len(), count, order, random);
        let mut taken = Vec::with_capacity(count);
        for ((block, age), gone) in all.into_iter().zip(chosen) {
            if gone {
                taken.push(block);
                continue;
            }
            self.bytes += u64::from(block.size());
            self.count += 1;
            match &mut self.shape {
                Shape::Bag(bag) => bag.put(block),
                Shape::Line { blocks, .. } => blocks.push_back(block),
                Shape::Bimodal { long, .. } => long.put(block),
                Shape::Nurseries(nurseries) => nurseries.put(block),
                Shape::Chain { chain, .. } => {
                    chain.push(block);
                }
                Shape::Wheel(drawn) => drawn.wheel.restore(block, age),
            }
        }
        match order {
            DropOrder::Youngest => taken.reverse(),
            DropOrder::Random => shuffle(&mut taken, random),
            DropOrder::Oldest | DropOrder::Alternate => {}
        }
        taken
    }

    /// Moves all blocks to the end of `to`, the oldest first where the set knows it.
    pub fn empty_into(&mut self, to: &mut VecDeque<Block>) {
        match &mut self.shape {
            // A line whose thread ends every few calls should cost no memory of its own.
            Shape::Line { blocks, .. } => to.extend(blocks.drain(..)),
            Shape::Bag(bag) => to.extend(bag.drain()),
            _ => to.extend(self.drain().into_iter().map(|(block, _)| block)),
        }
        self.bytes = 0;
        self.count = 0;
    }

    /// All blocks, by age where the set knows it, with the allocations that they have left where they know it.
    fn drain(&mut self) -> Vec<(Block, u32)> {
        self.bytes = 0;
        self.count = 0;
        match &mut self.shape {
            Shape::Bag(bag) => bag.drain().map(|block| (block, 0)).collect(),
            Shape::Line { blocks, .. } => blocks.drain(..).map(|block| (block, 0)).collect(),
            Shape::Bimodal { short, long, .. } => {
                let long = long.drain();
                long.chain(short.drain(..))
                    .map(|block| (block, 0))
                    .collect()
            }
            Shape::Nurseries(nurseries) => {
                let all = nurseries.drain();
                all.into_iter().map(|block| (block, 0)).collect()
            }
            Shape::Chain { chain, .. } => {
                let all = chain.drain();
                all.into_iter().map(|block| (block, 0)).collect()
            }
            Shape::Wheel(drawn) => drawn.wheel.drain(),
        }
    }
}

/// The victim of a recency lifetime.
#[inline]
fn by_recency(
    chain: &mut Chain<Block>,
    pick: &Alias,
    ranks: &Sampler,
    random: &mut Pcg64,
) -> Option<Block> {
    let newest = chain.newest(0)?;
    let count = chain.len() as u64;
    let place = match pick.draw(random.next_u64()) {
        0 => Some(newest),
        1 => chain.newest(ranks.draw(random).min(count as u32 - 1)),
        2 => chain.above(),
        3 => chain.below(),
        4 => chain.oldest(),
        _ => Some(below(random.next_u64(), count) as u32),
    };
    Some(chain.take(place.unwrap_or(newest)))
}

/// Places of a live set by Zipf's law: quantiles of the rank, scaled to [`PLACES`].
fn places(exponent: f64, live: u64) -> Sampler {
    const STEPS: usize = 4096;
    let ranks = live.clamp(1, 1 << 16) as usize;
    let weights = super::sampler::zipf(ranks, exponent);
    let sum: f64 = weights.iter().sum();
    let mut table = Vec::with_capacity(STEPS + 1);
    let (mut rank, mut below_rank) = (0, 0.0);
    for step in 0..=STEPS {
        let wanted = sum * step as f64 / STEPS as f64;
        while rank + 1 < ranks && below_rank + weights[rank] < wanted {
            below_rank += weights[rank];
            rank += 1;
        }
        let part = ((wanted - below_rank) / weights[rank]).clamp(0.0, 1.0);
        let place = (rank as f64 + part) / ranks as f64 * f64::from(PLACES - 1);
        table.push(place as u32);
    }
    Sampler::Quantiles(table)
}

/// Which of `all` blocks (by age) go.
fn choose(all: usize, count: usize, order: DropOrder, random: &mut Pcg64) -> Vec<bool> {
    let mut left = count as u64;
    (0..all)
        .map(|place| match order {
            DropOrder::Oldest => place < count,
            DropOrder::Youngest => place >= all - count,
            // As a line of slope count/all is drawn on a raster.
            DropOrder::Alternate => (place + 1) * count / all > place * count / all,
            DropOrder::Random => {
                let gone = below(random.next_u64(), (all - place) as u64) < left;
                left -= u64::from(gone);
                gone
            }
        })
        .collect()
}

fn shuffle(blocks: &mut [Block], random: &mut Pcg64) {
    for last in (1..blocks.len()).rev() {
        let other = below(random.next_u64(), last as u64 + 1) as usize;
        blocks.swap(last, other);
    }
}

#[cfg(test)]
mod tests;
