//! Values in the order in which they came, any of which can be taken out in constant time: what models draw the next death
//! from, and what a fit counts deaths in.

/// No place.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link<T> {
    value: T,
    older: u32,
    younger: u32,
}

/// A list by age whose links lie densely, so that one of them can also be chosen by chance. It remembers where the last value
/// was taken out: deaths that follow each other are often neighbours by age.
#[derive(Debug)]
pub struct Chain<T> {
    links: Vec<Link<T>>,
    oldest: u32,
    youngest: u32,
    /// The neighbours by age of the value that was taken last.
    below: u32,
    above: u32,
}

impl<T: Copy> Chain<T> {
    pub fn new() -> Self {
        Self {
            links: Vec::new(),
            oldest: NONE,
            youngest: NONE,
            below: NONE,
            above: NONE,
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Adds the youngest one; returns its place.
    #[inline]
    pub fn push(&mut self, value: T) -> u32 {
        let place = self.links.len() as u32;
        self.links.push(Link {
            value,
            older: self.youngest,
            younger: NONE,
        });
        match self.links.get_mut(self.youngest as usize) {
            Some(before) => before.younger = place,
            None => self.oldest = place,
        }
        self.youngest = place;
        place
    }

    /// The value at a place.
    #[inline]
    pub fn at(&mut self, place: u32) -> &mut T {
        &mut self.links[place as usize].value
    }

    /// The place of the youngest but `rank`, if there are so many.
    #[inline]
    pub fn newest(&self, rank: u32) -> Option<u32> {
        if rank as usize >= self.links.len() {
            return None;
        }
        let mut place = self.youngest;
        for _ in 0..rank {
            place = self.links[place as usize].older;
        }
        Some(place)
    }

    /// How many are younger than the one at `place`, if fewer than `most`.
    #[inline]
    pub fn rank(&self, place: u32, most: u32) -> Option<u32> {
        let mut at = self.youngest;
        for rank in 0..most {
            if at == place {
                return Some(rank);
            }
            at = self.links.get(at as usize)?.older;
        }
        None
    }

    /// The place of the oldest.
    #[inline]
    pub fn oldest(&self) -> Option<u32> {
        some(self.oldest)
    }

    /// The place of the one that came just after the last one taken out, if it is still there.
    #[inline]
    pub fn above(&self) -> Option<u32> {
        some(self.above)
    }

    /// The place of the one that came just before the last one taken out, if it is still there.
    #[inline]
    pub fn below(&self) -> Option<u32> {
        some(self.below)
    }

    /// Whether `place` lies within `most` steps from `begin` on, towards the youngest or the oldest.
    #[inline]
    pub fn from(&self, begin: Option<u32>, most: u32, place: u32, younger: bool) -> bool {
        let mut at = begin.unwrap_or(NONE);
        for _ in 0..most {
            let Some(link) = self.links.get(at as usize) else {
                return false;
            };
            if at == place {
                return true;
            }
            at = if younger { link.younger } else { link.older };
        }
        false
    }

    /// Takes the value at a place out. The one in the last place moves into this place, if it is another one.
    #[inline]
    pub fn take(&mut self, place: u32) -> T {
        let Link {
            value,
            older,
            younger,
        } = self.links[place as usize];
        self.join(older, younger);
        (self.below, self.above) = (older, younger);
        let last = self.links.len() as u32 - 1;
        self.links.swap_remove(place as usize);
        if let Some(moved) = self.links.get(place as usize) {
            let (older, younger) = (moved.older, moved.younger);
            match self.links.get_mut(older as usize) {
                Some(link) => link.younger = place,
                None => self.oldest = place,
            }
            match self.links.get_mut(younger as usize) {
                Some(link) => link.older = place,
                None => self.youngest = place,
            }
            for neighbour in [&mut self.below, &mut self.above] {
                if *neighbour == last {
                    *neighbour = place;
                }
            }
        }
        value
    }

    /// All values, oldest first; nothing is left.
    pub fn drain(&mut self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.links.len());
        let mut place = self.oldest;
        while let Some(link) = self.links.get(place as usize) {
            all.push(link.value);
            place = link.younger;
        }
        *self = Self::new();
        all
    }

    fn join(&mut self, older: u32, younger: u32) {
        match self.links.get_mut(older as usize) {
            Some(link) => link.younger = younger,
            None => self.oldest = younger,
        }
        match self.links.get_mut(younger as usize) {
            Some(link) => link.older = older,
            None => self.youngest = older,
        }
    }
}

#[inline]
fn some(place: u32) -> Option<u32> {
    (place != NONE).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same steps on a plain list, whose order by age is that of its places.
    #[test]
    fn neighbours_ranks_and_order_are_those_of_a_plain_list() {
        let mut chain = Chain::new();
        let mut plain: Vec<u32> = Vec::new();
        // Neighbours of the last one taken out: (older, younger) by value.
        let mut last: (Option<u32>, Option<u32>) = (None, None);
        let mut state = 12345u64;
        let mut next = |count: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % count
        };
        for value in 0..20_000u32 {
            if plain.is_empty() || next(5) < 3 || value < 500 {
                chain.push(value);
                plain.push(value);
                continue;
            }
            let count = plain.len();
            let place = match next(5) {
                0 => chain.newest(next(count) as u32),
                1 => chain.oldest(),
                2 => chain.above(),
                3 => chain.below(),
                _ => Some(next(count) as u32),
            };
            let value_at =
                |chain: &mut Chain<u32>, place: Option<u32>| place.map(|place| *chain.at(place));
            let above = chain.above();
            let below = chain.below();
            assert_eq!(value_at(&mut chain, below), last.0);
            // What was the youngest has none after it, even when others came since.
            assert_eq!(value_at(&mut chain, above), last.1);
            let Some(place) = place else { continue };
            let taken = *chain.at(place);
            let index = plain.iter().position(|&other| other == taken).unwrap();
            let rank = (count - 1 - index) as u32;
            assert_eq!(chain.rank(place, u32::MAX), Some(rank));
            assert_eq!(chain.rank(place, rank), None);
            assert_eq!(chain.newest(rank), Some(place));
            assert_eq!(chain.take(place), taken);
            plain.remove(index);
            last = (
                index.checked_sub(1).map(|older| plain[older]),
                plain.get(index).copied(),
            );
            assert_eq!(chain.len(), plain.len());
        }
        assert!(plain.len() > 1000);
        assert_eq!(chain.drain(), plain);
        assert_eq!(
            (chain.len(), chain.oldest(), chain.above()),
            (0, None, None)
        );
    }
}
