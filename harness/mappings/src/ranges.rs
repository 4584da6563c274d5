//! A set of addresses as ranges.

/// Addresses from `start` up to, and without, `end`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
}

impl Range {
    /// How many.
    pub fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// What is in both; `None` where nothing is.
    pub fn common(self, other: Self) -> Option<Self> {
        let both = Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (both.start < both.end).then_some(both)
    }
}

/// The lent room does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Disjoint ranges in ascending order that do not touch, in lent room.
#[derive(Debug)]
pub struct Ranges<'a> {
    room: &'a mut [Range],
    used: usize,
}

impl<'a> Ranges<'a> {
    /// The first `used` ranges of `room`, as another one left them.
    pub fn new(room: &'a mut [Range], used: usize) -> Self {
        let used = used.min(room.len());
        Self { room, used }
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Range] {
        &self.room[..self.used]
    }

    /// Whether some address of `range` is in the set.
    pub fn meets(&self, range: Range) -> bool {
        let first = self
            .as_slice()
            .partition_point(|own| own.end <= range.start);
        (self.as_slice().get(first)).is_some_and(|own| own.common(range).is_some())
    }

    /// Whether all of `range` is in the set.
    pub fn hold(&self, range: Range) -> bool {
        let first = self
            .as_slice()
            .partition_point(|own| own.end <= range.start);
        (self.as_slice().get(first)).is_some_and(|own| own.common(range) == Some(range))
    }

    /// Puts `range` in.
    ///
    /// # Errors
    /// It has no room; nothing is changed then.
    pub fn add(&mut self, range: Range) -> Result<(), Full> {
        let all = self.as_slice();
        // What it touches becomes one with it.
        let from = all.partition_point(|own| own.end < range.start);
        let to = all.partition_point(|own| own.start <= range.end);
        let mut whole = range;
        if from < to {
            whole.start = whole.start.min(all[from].start);
            whole.end = whole.end.max(all[to - 1].end);
        }
        self.replace(from, to, &[whole])
    }

    /// Takes `range` out, as far as it is in.
    ///
    /// # Errors
    /// What remains on both sides of it has no room; nothing is changed then.
    pub fn remove(&mut self, range: Range) -> Result<(), Full> {
        let all = self.as_slice();
        let from = all.partition_point(|own| own.end <= range.start);
        let to = all.partition_point(|own| own.start < range.end);
        if from >= to {
            return Ok(());
        }
        let before = Range {
            start: all[from].start,
            end: range.start,
        };
        let behind = Range {
            start: range.end,
            end: all[to - 1].end,
        };
        match (before.bytes() > 0, behind.bytes() > 0) {
            (true, true) => self.replace(from, to, &[before, behind]),
            (true, false) => self.replace(from, to, &[before]),
            (false, true) => self.replace(from, to, &[behind]),
            (false, false) => self.replace(from, to, &[]),
        }
    }

    fn replace(&mut self, from: usize, to: usize, by: &[Range]) -> Result<(), Full> {
        let used = self.used - (to - from) + by.len();
        if used > self.room.len() {
            return Err(Full);
        }
        self.room.copy_within(to..self.used, from + by.len());
        self.room[from..from + by.len()].copy_from_slice(by);
        self.used = used;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    #[test]
    fn aligned_pieces_of_larger_mappings_become_one_range() {
        let mut room = [Range::default(); 4];
        let mut ranges = Ranges::new(&mut room, 0);
        // As ruby does: twice as much as it wants, of which it gives back what is not aligned.
        for top in [60, 56, 52] {
            ranges.add(range(top - 8, top)).unwrap();
            ranges.remove(range(top - 8, top - 4)).unwrap();
        }
        assert_eq!(ranges.as_slice(), [range(48, 60)]);
        assert!(ranges.meets(range(40, 49)) && ranges.meets(range(59, 80)));
        assert!(!ranges.meets(range(40, 48)) && !ranges.meets(range(60, 80)));
        assert!(ranges.hold(range(48, 60)) && !ranges.hold(range(47, 50)));
        assert!(!ranges.hold(range(59, 61)) && !ranges.hold(range(60, 61)));
        ranges.remove(range(50, 52)).unwrap();
        assert_eq!(ranges.as_slice(), [range(48, 50), range(52, 60)]);
        assert!(!ranges.meets(range(50, 52)));
        ranges.remove(range(0, 100)).unwrap();
        assert!(ranges.as_slice().is_empty());
    }

    #[test]
    fn what_has_no_room_changes_nothing() {
        let mut room = [Range::default(); 2];
        let mut ranges = Ranges::new(&mut room, 0);
        ranges.add(range(10, 20)).unwrap();
        ranges.add(range(30, 40)).unwrap();
        assert_eq!(ranges.add(range(50, 60)), Err(Full));
        assert_eq!(ranges.remove(range(32, 34)), Err(Full));
        assert_eq!(ranges.as_slice(), [range(10, 20), range(30, 40)]);
        ranges.add(range(20, 30)).unwrap();
        assert_eq!(ranges.as_slice(), [range(10, 40)]);
    }

    proptest! {
        #[test]
        fn the_set_is_that_of_single_addresses(steps in prop::collection::vec((any::<bool>(), 0u64..64, 1u64..24), 0..80)) {
            let mut room = [Range::default(); 64];
            let mut ranges = Ranges::new(&mut room, 0);
            let mut single = [false; 96];
            for (add, start, length) in steps {
                let piece = range(start, start + length);
                let met = single[start as usize..(start + length) as usize].contains(&true);
                prop_assert_eq!(ranges.meets(piece), met);
                single[start as usize..(start + length) as usize].fill(add);
                match add {
                    true => ranges.add(piece).unwrap(),
                    false => ranges.remove(piece).unwrap(),
                }
                let inside = |at: u64| ranges.as_slice().iter().any(|own| (own.start..own.end).contains(&at));
                let found: Vec<bool> = (0..96).map(inside).collect();
                prop_assert_eq!(&found[..], &single[..]);
                let apart = ranges.as_slice().windows(2).all(|pair| pair[0].end < pair[1].start);
                prop_assert!(apart, "{:?}", ranges.as_slice());
            }
        }
    }
}
