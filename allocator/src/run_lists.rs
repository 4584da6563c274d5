//! Free runs of pages by length: exact lists below 128 pages, four lists per doubling above, one per doubling from 1 GiB on, and
//! a bitmap of the lists that are not empty. Finds the best fit.

use crate::span::{Span, SpanList, SpanTable};

/// Runs shorter than this have a list for each length (Go: 128, TCMalloc: 256).
const EXACT: usize = 128;
/// log₂ of it, and of the pages from which on there is a list for each doubling: so long are few, and every process has the lists in
/// memory.
const FINE_FROM: usize = EXACT.ilog2() as usize;
const COARSE_FROM: usize = 17;
const COARSE: usize = EXACT + 4 * (COARSE_FROM - FINE_FROM);
const LISTS: usize = COARSE + 32 - COARSE_FROM;
const WORDS: usize = LISTS.div_ceil(64);
/// Lists of runs below 1 GiB hold lengths within 25 %, so a bounded search for the best costs little fit.
const SEARCH: usize = 64;

/// Free runs of one kind (dirty or clean).
#[derive(Debug)]
pub struct RunLists {
    lists: [SpanList; LISTS],
    occupied: [u64; WORDS],
    /// Pages in all runs.
    pub pages: usize,
    /// Number of runs.
    pub runs: usize,
}

fn list_of(pages: usize) -> usize {
    if pages < EXACT {
        return pages;
    }
    let log = pages.ilog2() as usize;
    if log >= COARSE_FROM {
        return COARSE + log - COARSE_FROM;
    }
    EXACT + (log - FINE_FROM) * 4 + ((pages >> (log - 2)) & 3)
}

impl RunLists {
    /// No runs.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            lists: [SpanList::new(); LISTS],
            occupied: [0; WORDS],
            pages: 0,
            runs: 0,
        }
    }

    /// Adds a free run.
    ///
    /// # Safety
    /// `span` is a record of `table` and in no list.
    pub unsafe fn insert(&mut self, table: SpanTable, span: *mut Span) {
        // SAFETY: the caller's duty.
        let pages = unsafe { (*span).pages } as usize;
        let list = list_of(pages);
        // SAFETY: the caller's duty.
        unsafe { self.lists[list].push(table, span) };
        self.occupied[list / 64] |= 1 << (list % 64);
        self.pages += pages;
        self.runs += 1;
    }

    /// Takes a run out.
    ///
    /// # Safety
    /// `span` is in these lists and its length has not changed since.
    pub unsafe fn remove(&mut self, table: SpanTable, span: *mut Span) {
        // SAFETY: the caller's duty.
        let pages = unsafe { (*span).pages } as usize;
        let list = list_of(pages);
        // SAFETY: the caller's duty.
        unsafe { self.lists[list].remove(table, span) };
        if self.lists[list].head == 0 {
            self.occupied[list / 64] &= !(1 << (list % 64));
        }
        self.pages -= pages;
        self.runs -= 1;
    }

    fn next_occupied(&self, from: usize) -> Option<usize> {
        if from >= LISTS {
            return None;
        }
        let mut word = from / 64;
        let mut bits = self.occupied[word] & (u64::MAX << (from % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            word += 1;
            if word == WORDS {
                return None;
            }
            bits = self.occupied[word];
        }
    }

    /// The shortest run of at least `pages` in a list, ties by lowest address; 0: none.
    fn search(&self, table: SpanTable, list: usize, pages: usize) -> u32 {
        let mut best = (u32::MAX, u32::MAX, 0);
        let mut id = self.lists[list].head;
        for _ in 0..SEARCH {
            if id == 0 {
                break;
            }
            // SAFETY: members of the lists are live records.
            let span = unsafe { &*table.get(id) };
            if span.pages as usize >= pages {
                best = best.min((span.pages, span.start, id));
            }
            id = span.next;
        }
        best.2
    }

    /// The best fit for `pages`: the number of a run of at least that length, 0 if there is none.
    #[must_use]
    pub fn best_fit(&self, table: SpanTable, pages: usize) -> u32 {
        let mut from = list_of(pages);
        while let Some(list) = self.next_occupied(from) {
            // An exact list needs no search: its first run is the warmest.
            let found = if list < EXACT {
                self.lists[list].head
            } else {
                self.search(table, list, pages)
            };
            if found != 0 {
                return found;
            }
            from = list + 1;
        }
        0
    }

    /// A run of the longest list, 0 if there is none.
    #[must_use]
    pub fn longest(&self) -> u32 {
        for word in (0..WORDS).rev() {
            if self.occupied[word] != 0 {
                let list = word * 64 + 63 - self.occupied[word].leading_zeros() as usize;
                return self.lists[list].head;
            }
        }
        0
    }

    /// A run that is `wanted`, of the longest list that has one among the first [`SEARCH`] runs looked at; 0: none.
    #[must_use]
    pub fn longest_where(&self, table: SpanTable, wanted: impl Fn(&Span) -> bool) -> u32 {
        let mut looked = 0;
        for word in (0..WORDS).rev() {
            let mut bits = self.occupied[word];
            while bits != 0 {
                let bit = 63 - bits.leading_zeros();
                bits &= !(1 << bit);
                let mut id = self.lists[word * 64 + bit as usize].head;
                while id != 0 {
                    // SAFETY: members of the lists are live records.
                    let span = unsafe { &*table.get(id) };
                    if wanted(span) {
                        return id;
                    }
                    looked += 1;
                    if looked == SEARCH {
                        return 0;
                    }
                    id = span.next;
                }
            }
        }
        0
    }

    /// Calls `visit` with every run.
    pub fn for_each(&self, table: SpanTable, mut visit: impl FnMut(&Span)) {
        for list in &self.lists {
            let mut id = list.head;
            while id != 0 {
                // SAFETY: members of the lists are live records.
                let span = unsafe { &*table.get(id) };
                visit(span);
                id = span.next;
            }
        }
    }
}

impl Default for RunLists {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lists_are_monotone_in_length_and_reach_the_largest_heap() {
        let mut last = 0;
        let doublings = (19..32).flat_map(|log| [(1 << log) - 1, 1 << log]);
        for pages in (1..300_000).chain(doublings) {
            let list = list_of(pages);
            assert!(list == last || list == last + 1, "{pages} pages");
            last = list;
        }
        assert_eq!(list_of(u32::MAX as usize), LISTS - 1);
    }

    /// Among up to 64 runs of a quarter of a doubling the search is a full one, so that the fit is the best one, and of those the one with the
    /// lowest address; of less than 128 pages any of the best length.
    #[test]
    fn the_best_fit_is_that_of_a_list_without_order() {
        const RECORDS: usize = 60;
        let mut random = crate::heap_tests::Random::new(1);
        // SAFETY: zeros are a record: no field is a reference, and 0 is a state.
        let mut records: Vec<Span> = (0..=RECORDS)
            .map(|_| unsafe { core::mem::zeroed() })
            .collect();
        let table = SpanTable::new(&raw mut records[RECORDS]);
        let mut lists = RunLists::new();
        let mut naive: Vec<(usize, u32, u32)> = Vec::new();
        for step in 0..40_000_u32 {
            let most = [100, 600, 6_000, 400_000][random.below(4)];
            if naive.len() == RECORDS || (random.below(2) == 0 && !naive.is_empty()) {
                let (_, _, id) = naive.swap_remove(random.below(naive.len()));
                // SAFETY: the run is in the lists.
                unsafe { lists.remove(table, table.get(id)) };
            } else {
                let id = (1..=RECORDS as u32)
                    .find(|id| naive.iter().all(|run| run.2 != *id))
                    .expect("one is free");
                // Lengths that others have, too, at any address.
                let pages = 1 + random.below(most) / 7 * 7;
                let start = (random.below(1 << 20) as u32) * 2048 + step % 2048;
                // SAFETY: the record is in no list.
                unsafe {
                    let span = table.get(id);
                    ((*span).id, (*span).pages, (*span).start) = (id, pages as u32, start);
                    lists.insert(table, span);
                }
                naive.push((pages, start, id));
            }
            let wanted = 1 + random.below(most);
            let fits = naive.iter().filter(|run| run.0 >= wanted);
            let best = fits.min().copied();
            let found = lists.best_fit(table, wanted);
            let is = |id: u32| naive.iter().find(|run| run.2 == id).copied();
            match best {
                Some((pages, ..)) if pages < EXACT => {
                    assert_eq!(
                        is(found).map(|run| run.0),
                        Some(pages),
                        "{wanted} of {naive:?}"
                    );
                }
                _ => assert_eq!(is(found), best, "{wanted} of {naive:?}"),
            }
        }
    }
}
