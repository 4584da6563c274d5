//! The blocks that a thread keeps alive, arranged so that its lifetime's victim is found in constant time.

use super::definition::{BatchOrder, Lifetime};
use super::sampler::below;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use std::collections::VecDeque;

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number in the events.
    pub number: u32,
    /// Bytes now.
    pub size: u32,
    /// Bytes that it grows to.
    pub target: u32,
}

/// A thread's live blocks.
#[derive(Debug)]
pub struct LiveSet {
    /// Oldest first for the ordered lifetimes, in no order for the others.
    blocks: VecDeque<Block>,
    /// Short-lived ones of a bimodal lifetime, oldest first.
    short: VecDeque<Block>,
    lifetime: Lifetime,
}

impl LiveSet {
    pub fn new(lifetime: Lifetime) -> Self {
        Self {
            blocks: VecDeque::new(),
            short: VecDeque::new(),
            lifetime,
        }
    }

    pub fn len(&self) -> usize {
        self.blocks.len() + self.short.len()
    }

    /// Adds a block.
    #[inline]
    pub fn put(&mut self, block: Block, random: &mut Pcg64) {
        if let Lifetime::Bimodal { short_share, .. } = self.lifetime {
            let bound = (short_share * (1u64 << 32) as f64) as u64;
            if random.next_u64() >> 32 < bound {
                self.short.push_back(block);
                return;
            }
        }
        self.blocks.push_back(block);
    }

    /// The block that dies next, by the lifetime's rule.
    #[inline]
    pub fn take_victim(&mut self, word: u64) -> Option<Block> {
        match self.lifetime {
            Lifetime::Fifo => self.take_oldest(),
            Lifetime::Lifo => self.take_youngest(),
            Lifetime::Bimodal { short_live, .. } => {
                if self.short.len() as u64 > short_live {
                    return self.short.pop_front();
                }
                self.take_random(word)
            }
            _ => self.take_random(word),
        }
    }

    /// Any block.
    #[inline]
    pub fn take_random(&mut self, word: u64) -> Option<Block> {
        if self.blocks.is_empty() {
            return self.short.pop_front();
        }
        let index = below(word, self.blocks.len() as u64) as usize;
        let ordered = matches!(
            self.lifetime,
            Lifetime::Fifo
                | Lifetime::Lifo
                | Lifetime::Batch {
                    order: BatchOrder::Fifo | BatchOrder::Lifo
                }
        );
        // Only a phase's `drop` takes from the middle of an ordered set: rare enough to shift its elements.
        if ordered {
            self.blocks.remove(index)
        } else {
            self.blocks.swap_remove_back(index)
        }
    }

    /// Any block, left where it is.
    pub fn peek_random(&mut self, word: u64) -> Option<&mut Block> {
        let index = below(word, self.blocks.len() as u64) as usize;
        self.blocks.get_mut(index)
    }

    /// The oldest one (ordered lifetimes).
    pub fn take_oldest(&mut self) -> Option<Block> {
        self.blocks.pop_front()
    }

    /// The youngest one (ordered lifetimes).
    pub fn take_youngest(&mut self) -> Option<Block> {
        self.blocks.pop_back()
    }
}
