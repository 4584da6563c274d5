//! Generations: most blocks die in a nursery, those that pass all of them live long.

use super::Block;
use super::bag::{Bag, Pick};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use std::collections::VecDeque;

/// Nurseries in front of a bag.
#[derive(Debug)]
pub struct Nurseries {
    young: Vec<VecDeque<Block>>,
    old: Bag,
    room: usize,
    survive: u64,
}

impl Nurseries {
    /// `survive` is a bound for the upper 32 bits of a random word.
    pub fn new(generations: u32, room: u64, survive: u64) -> Self {
        Self {
            young: vec![VecDeque::new(); generations as usize],
            old: Bag::new(Pick::Even),
            room: room as usize,
            survive,
        }
    }

    #[inline]
    pub fn put(&mut self, block: Block) {
        self.young[0].push_back(block);
    }

    /// The next death, if a nursery is above its room or the old ones above `live`. Survivors move on here.
    #[inline]
    pub fn take_surplus(&mut self, live: u64, random: &mut Pcg64) -> Option<Block> {
        for level in 0..self.young.len() {
            if self.young[level].len() <= self.room {
                continue;
            }
            let block = self.young[level].pop_front()?;
            if random.next_u64() >> 32 >= self.survive {
                return Some(block);
            }
            match self.young.get_mut(level + 1) {
                Some(next) => next.push_back(block),
                None => self.old.put(block),
            }
        }
        if self.old.len() as u64 > live {
            return self.old.take(random);
        }
        None
    }

    /// Any of the old ones, else the youngest.
    pub fn peek(&mut self, random: &mut Pcg64) -> Option<&mut Block> {
        if self.old.len() > 0 {
            return self.old.peek(random);
        }
        self.young[0].back_mut()
    }

    /// All blocks, old ones first.
    pub fn drain(&mut self) -> Vec<Block> {
        let mut all: Vec<Block> = self.old.drain().collect();
        for nursery in self.young.iter_mut().rev() {
            all.extend(nursery.drain(..));
        }
        all
    }
}
