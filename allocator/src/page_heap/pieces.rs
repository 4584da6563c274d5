//! Which parts of the heap the kernel keeps in mappings of their own.
//!
//! What the page tables move keeps the offset of the place that it came from, so that it cannot be one mapping with its new
//! neighbours. A process may have 65,530 mappings, and only what lies within one can be moved. Invariants: P1 pieces are disjoint, not
//! empty and in order; P2 every mapping that a move has split off begins and ends where a piece does.

use core::ops::Range;

/// Pieces at most: so many mappings, and a table of one kernel page.
const MOST: usize = 512;

/// Ranges of pages, in order.
#[derive(Debug)]
pub(crate) struct Pieces {
    count: usize,
    ranges: [(u32, u32); MOST],
}

/// What a table occupies.
pub(super) const TABLE_BYTES: usize = size_of::<Pieces>();

impl Pieces {
    fn known(&self) -> &[(u32, u32)] {
        &self.ranges[..self.count]
    }

    /// The first piece that ends behind `page`.
    fn first_behind(&self, page: u32) -> usize {
        self.known().partition_point(|&(_, end)| end <= page)
    }

    /// There may be no room for one more.
    pub(super) fn is_full(&self) -> bool {
        // The one that it lies in falls into two.
        self.count + 2 > MOST
    }

    /// Where the mapping that `page` is in ends, or may end; at most `end`.
    pub(super) fn end_of_mapping(&self, page: u32, end: u32) -> u32 {
        let border = match self.known().get(self.first_behind(page)) {
            Some(&(from, to)) => {
                if from > page {
                    from
                } else {
                    to
                }
            }
            None => u32::MAX,
        };
        border.min(end)
    }

    /// A piece lies in the range or reaches into it.
    pub(super) fn touch(&self, range: &Range<u32>) -> bool {
        let next = self.known().get(self.first_behind(range.start));
        next.is_some_and(|&(from, _)| from < range.end)
    }

    /// It is time to have fewer.
    pub(super) fn is_crowded(&self) -> bool {
        self.count > MOST / 2
    }

    /// There is room for what [`Pieces::forget`] leaves of the piece that the range lies in.
    pub(super) fn can_forget(&self, range: &Range<u32>) -> bool {
        let splits = |&(from, to): &(u32, u32)| from < range.start && to > range.end;
        let piece = self.known().get(self.first_behind(range.start));
        self.count < MOST || !piece.is_some_and(splits)
    }

    /// The range is one mapping with what lies around it, or will be another piece.
    pub(super) fn forget(&mut self, range: &Range<u32>) {
        let at = self.first_behind(range.start);
        let Some(&(from, to)) = self.known().get(at) else {
            return;
        };
        if from < range.start {
            self.ranges[at].1 = range.start;
            if to > range.end {
                self.insert_at(at + 1, (range.end, to));
                return;
            }
        }
        let first = at + usize::from(from < range.start);
        let gone = self.known()[first..].partition_point(|&(_, to)| to <= range.end);
        self.ranges.copy_within(first + gone..self.count, first);
        self.count -= gone;
        if let Some((from, _)) = self.ranges[..self.count].get_mut(first) {
            *from = (*from).max(range.end);
        }
    }

    /// The range is a mapping of its own. There is room for it.
    pub(super) fn note(&mut self, range: &Range<u32>) {
        self.forget(range);
        let at = self.first_behind(range.start);
        self.insert_at(at, (range.start, range.end));
    }

    fn insert_at(&mut self, at: usize, range: (u32, u32)) {
        self.ranges.copy_within(at..self.count, at + 1);
        self.ranges[at] = range;
        self.count += 1;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PAGES: u32 = 64;

    fn empty() -> Box<Pieces> {
        Box::new(Pieces {
            count: 0,
            ranges: [(0, 0); MOST],
        })
    }

    /// What a kernel would have: each page's mapping, 0 for the one that the heap began with.
    fn check(pieces: &Pieces, mapping: &[u32; PAGES as usize]) {
        let known = pieces.known();
        assert!(known.iter().all(|(from, to)| from < to), "{known:?}");
        assert!(
            known.windows(2).all(|two| two[0].1 <= two[1].0),
            "{known:?}"
        );
        for page in 0..PAGES {
            let end = pieces.end_of_mapping(page, PAGES);
            assert!(end > page);
            let same = (page..end).all(|other| mapping[other as usize] == mapping[page as usize]);
            assert!(same, "{page} to {end} in {known:?}, {mapping:?}");
            let touched = pieces.touch(&(page..page + 1));
            assert_eq!(touched, mapping[page as usize] != 0, "{page} in {known:?}");
        }
    }

    #[test]
    fn mappings_are_told_apart_whatever_is_noted_and_forgotten() {
        let mut random = 0x9E37_79B9_u32;
        let mut next = |bound: u32| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random % bound
        };
        for _ in 0..400 {
            let (mut pieces, mut mapping) = (empty(), [0; PAGES as usize]);
            for number in 1..60 {
                let start = next(PAGES);
                let range = start..start + 1 + next(PAGES - start);
                let noted = next(3) > 0;
                if noted {
                    pieces.note(&range);
                } else {
                    pieces.forget(&range);
                }
                let number = if noted { number } else { 0 };
                mapping[range.start as usize..range.end as usize].fill(number);
                check(&pieces, &mapping);
            }
        }
    }

    #[test]
    fn a_full_table_has_room_for_a_piece_less_than_it_says() {
        let mut pieces = empty();
        let mut noted = 0;
        while !pieces.is_full() {
            pieces.note(&(3 * noted..3 * noted + 2));
            noted += 1;
        }
        assert_eq!(noted as usize, MOST - 1);
        // The piece from 0 to 2 keeps its first page, one more falls into two.
        pieces.note(&(300..302));
        pieces.note(&(10_000..10_003));
        assert!(!pieces.can_forget(&(10_001..10_002)));
        assert!(pieces.can_forget(&(1..2)) && pieces.can_forget(&(10_000..10_002)));
        pieces.forget(&(1..2));
        assert!(pieces.is_full());
        pieces.forget(&(0..9));
        assert!(!pieces.is_full());
        assert_eq!(TABLE_BYTES, MOST * 8 + 8);
    }
}
