//! What a thread said before, to be said again: programs repeat not only phrases, but long stretches of them with the same sizes.

use crate::model::definition::{Call, Recall};
use crate::model::sampler::{below, threshold};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// A call that ends no phrase.
const NONE: u16 = u16::MAX;
/// Places that are looked at for one after the same phrase.
const LOOKS: u32 = 16;

#[derive(Clone, Copy, Debug)]
struct Said {
    call: Call,
    /// The phrase that ended with it.
    ends: u16,
    /// Its size was drawn.
    drawn: bool,
}

/// A call that is said again.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    pub call: Call,
    /// The phrase that ends with it.
    pub ends: Option<usize>,
    pub drawn: bool,
}

/// The last calls of a thread, and which of them it is saying again.
#[derive(Debug)]
pub struct Memory {
    said: Vec<Said>,
    /// Where the next call is written: the oldest, once all places are taken.
    next: usize,
    places: usize,
    /// Bound for the upper 32 bits of a random word.
    chance: u64,
    length: u64,
    /// Bound for the upper 32 bits of a random word: below it a drawn size is drawn again.
    redrawn: u64,
    /// The place that is said again next, and how many calls at least follow before it may end.
    again: Option<(usize, u64)>,
}

impl Memory {
    pub fn new(recall: &Recall) -> Self {
        Self {
            said: Vec::new(),
            next: 0,
            places: recall.memory as usize,
            chance: threshold(recall.chance),
            length: u64::from(recall.calls),
            redrawn: threshold(recall.redrawn),
            again: None,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.said.clear();
        self.next = 0;
        self.again = None;
    }

    /// A call was made; `drawn`: its size was drawn, now or when it was said first.
    #[inline]
    pub fn keep(&mut self, call: Call, drawn: bool) {
        let ends = NONE;
        let said = Said { call, ends, drawn };
        match self.said.get_mut(self.next) {
            Some(place) => *place = said,
            None => self.said.push(said),
        }
        self.next = (self.next + 1) % self.places;
    }

    /// The call that was kept last ended this phrase.
    #[inline]
    pub fn end(&mut self, phrase: usize) {
        let last = (self.next + self.places - 1) % self.places;
        if let Some(said) = self.said.get_mut(last) {
            said.ends = phrase as u16;
        }
    }

    /// After `phrase`, begins to say something again; false if it does not.
    #[inline]
    pub fn begin(&mut self, phrase: usize, random: &mut Pcg64) -> bool {
        let count = self.said.len() as u64;
        if count < 2 || random.next_u64() >> 32 >= self.chance {
            return false;
        }
        for _ in 0..LOOKS {
            let place = below(random.next_u64(), count) as usize;
            let from = (place + 1) % self.places;
            if self.said[place].ends == phrase as u16 && from != self.next && from < self.said.len()
            {
                let calls = 1 + below(random.next_u64(), 2 * self.length - 1);
                self.again = Some((from, calls));
                return true;
            }
        }
        false
    }

    /// The next call of what is said again.
    #[inline]
    pub fn again(&mut self, random: &mut Pcg64) -> Option<Again> {
        let (place, left) = self.again.take()?;
        let said = *self.said.get(place)?;
        let left = left.saturating_sub(1);
        let ends = (said.ends != NONE).then_some(usize::from(said.ends));
        if ends.is_none() || left > 0 {
            self.again = Some(((place + 1) % self.places, left));
        }
        let mut call = said.call;
        if said.drawn && self.redrawn > 0 && random.next_u64() >> 32 < self.redrawn {
            call.size = 0;
        }
        Some(Again {
            call,
            ends,
            drawn: said.drawn,
        })
    }
}
