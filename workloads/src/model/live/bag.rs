//! Blocks in no order of age, one of which is picked by a rule.

use super::Block;
use crate::model::sampler::{Sampler, below};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// How a bag picks.
#[derive(Debug)]
#[repr(u8)]
pub enum Pick {
    /// All alike.
    Even,
    /// The smallest (or largest) of some.
    Extreme {
        /// The largest one.
        largest: bool,
        /// How many are looked at.
        tries: u32,
    },
    /// By place; the numbers of the sampler are places scaled to 2^30.
    Places(Sampler),
}

/// One of [`Pick::Places`] stands for this place of a full table.
pub const PLACES: u32 = 1 << 30;

/// Blocks in no order.
#[derive(Debug)]
pub struct Bag {
    blocks: Vec<Block>,
    pick: Pick,
    /// Place that the next block takes: keys keep their places when their values are replaced.
    hole: Option<usize>,
}

impl Bag {
    pub fn new(pick: Pick) -> Self {
        Self {
            blocks: Vec::new(),
            pick,
            hole: None,
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    #[inline]
    pub fn put(&mut self, block: Block) {
        self.blocks.push(block);
        if let Some(hole) = self.hole.take() {
            let last = self.blocks.len() - 1;
            self.blocks.swap(hole.min(last), last);
        }
    }

    /// Takes the one that the rule picks.
    #[inline(always)]
    pub fn take(&mut self, random: &mut Pcg64) -> Option<Block> {
        let count = self.blocks.len() as u64;
        if count == 0 {
            return None;
        }
        let place = match &self.pick {
            Pick::Even => below(random.next_u64(), count) as usize,
            Pick::Extreme { largest, tries } => {
                let mut best = below(random.next_u64(), count) as usize;
                for _ in 1..*tries {
                    let other = below(random.next_u64(), count) as usize;
                    let (left, right) = (self.blocks[other].size(), self.blocks[best].size());
                    if if *largest { left > right } else { left < right } {
                        best = other;
                    }
                }
                best
            }
            Pick::Places(sampler) => {
                let place = u64::from(sampler.draw(random)) * count / u64::from(PLACES);
                let place = (place as usize).min(self.blocks.len() - 1);
                self.hole = Some(place);
                place
            }
        };
        Some(self.blocks.swap_remove(place))
    }

    /// Any one, left where it is.
    #[inline]
    pub fn peek(&mut self, random: &mut Pcg64) -> Option<&mut Block> {
        let place = below(random.next_u64(), self.blocks.len() as u64) as usize;
        self.blocks.get_mut(place)
    }

    /// All blocks.
    pub fn drain(&mut self) -> impl Iterator<Item = Block> + '_ {
        self.hole = None;
        self.blocks.drain(..)
    }
}
