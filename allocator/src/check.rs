//! The heap walker: every invariant of the middle tier and the back end, checked page by page.
//!
//! For tests and debugging, on a heap that nobody else uses at the moment. Panics with the name
//! of the invariant that does not hold.

use crate::continued::{Continued, block_at, serves};
use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::{NUM_CLASSES, objects_in};
use crate::span::{NO_LIST, Span, SpanTable, State};

/// What a walk has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Pages in spans of objects, of large blocks, free and dirty, free and clean, not ours.
    pub small: usize,
    pub large: usize,
    pub dirty: usize,
    pub clean: usize,
    pub holes: usize,
}

impl<O: Os> Heap<O> {
    /// Walks the whole heap and checks H1 to H3, P1, S1, M1, M2, M3, J1, J2, X1 and X2.
    pub fn check_invariants(&self) -> Walk {
        let mut walk = Walk::default();
        let mut spans = [0_u32; NUM_CLASSES];
        let mut listed = [0_u32; NUM_CLASSES];
        let map = &self.pages.map;
        let mut page = 0;
        let mut last_state = State::Unused;
        while page < map.pages() {
            // SAFETY: the page is in the heap and nobody changes it.
            let number = unsafe { map.number_of_page(page) };
            if number == 0 {
                walk.holes += 1;
                page += 1;
                last_state = State::Unused;
                continue;
            }
            // SAFETY: numbers in the map have records.
            let span = unsafe { &*map.table().get(number) };
            assert_eq!(
                span.start as usize, page,
                "H1: a span starts where the last one ends"
            );
            assert!(span.pages > 0, "H1: a span has pages");
            // SAFETY: the pages of a span are in the heap.
            unsafe {
                assert_eq!(
                    map.number_of_page(span.end() as usize - 1),
                    number,
                    "P1: last page"
                );
                for inside in page..span.end() as usize {
                    let shown = if span.joined { 0 } else { span.class };
                    assert_eq!(map.class_of_page(inside), shown as usize, "P1, J2: class");
                    assert!(
                        span.state != State::Small || map.number_of_page(inside) == number,
                        "P1: number"
                    );
                }
            }
            let pages = span.pages as usize;
            match span.state {
                State::Small => {
                    walk.small += pages;
                    spans[span.class as usize] += 1;
                    listed[span.class as usize] += u32::from(span.list != NO_LIST);
                    check_small(span);
                    check_joined(span, map.table());
                }
                State::Large => walk.large += pages,
                State::FreeDirty => walk.dirty += pages,
                State::FreeClean => walk.clean += pages,
                State::Unused => panic!("H1: page {page} belongs to an unused record"),
            }
            let free = matches!(span.state, State::FreeDirty | State::FreeClean);
            assert!(
                !free || span.state != last_state,
                "H1: free neighbours are joined"
            );
            last_state = span.state;
            page = span.end() as usize;
        }
        let inner = self.pages.inner.lock();
        assert_eq!(walk.dirty, inner.dirty.pages, "H2: dirty pages");
        assert_eq!(walk.clean, inner.clean.pages, "H2: clean pages");
        assert_eq!(walk.small + walk.large, inner.in_use, "H2: pages in use");
        assert_eq!(walk.holes, inner.holes, "H2: holes");
        assert!(
            inner.in_use + inner.dirty.pages <= inner.highest_resident(),
            "H3: the peak of what is resident"
        );
        let mut runs = 0;
        inner.dirty.for_each(map.table(), |span| {
            assert_eq!(span.state, State::FreeDirty);
            runs += 1;
        });
        inner.clean.for_each(map.table(), |span| {
            assert_eq!(span.state, State::FreeClean);
            runs += 1;
        });
        assert_eq!(
            runs,
            inner.dirty.runs + inner.clean.runs,
            "H2: runs in the lists"
        );
        drop(inner);
        for (class, &count) in spans.iter().enumerate().skip(1) {
            self.check_transfer(class);
            let central = self.central(class).inner.lock();
            assert_eq!(central.spans, count, "M2: spans of class {class}");
            let mut purged = 0;
            let mut members = 0;
            for (list, spans) in central.lists.iter().enumerate() {
                let mut id = spans.head;
                while id != 0 {
                    // SAFETY: numbers in the lists have records.
                    let span = unsafe { &*map.table().get(id) };
                    assert_eq!(
                        (span.list as usize, span.class as usize),
                        (list, class),
                        "M1"
                    );
                    purged += span.given_back();
                    members += 1;
                    id = span.next;
                }
            }
            assert_eq!(
                members, listed[class],
                "M1: spans in the lists of class {class}"
            );
            assert_eq!(
                central.purged_pages, purged,
                "M3: pages given back inside spans"
            );
        }
        walk
    }

    /// X1 and X2: what a transfer cache holds are as many objects as it says, of its class, handed
    /// out by the middle tier and in it only once.
    fn check_transfer(&self, class: usize) {
        let map = &self.pages.map;
        let mut objects = std::collections::BTreeSet::new();
        let mut visit = |object: *mut u8| {
            assert!(
                objects.insert(object as usize),
                "X1: an object is stored twice"
            );
            let page = map
                .page_of(object as usize)
                .expect("X2: an object of the heap");
            // SAFETY: the page is in the heap; numbers in the map have records.
            unsafe {
                let span = &*map.span_of_page(page);
                let (index, objects) = block_at(map.table(), span, object as usize);
                assert!(serves(span, objects, class), "X2: class");
                let bit = *span.bits.add(index / 64) >> (index % 64) & 1;
                assert_eq!(bit, 0, "X1: an object is in a span and stored");
            }
        };
        for shard in self.transfer(class).all() {
            let inner = shard.lock();
            assert_eq!(inner.objects, shard.held(), "X1: objects of class {class}");
            inner.stored().iter().for_each(|&object| visit(object));
        }
    }
}

fn check_small(span: &Span) {
    let class = span.class as usize;
    assert!(span.objects as usize <= objects_in(class, span.pages as usize));
    assert!(span.fresh() <= span.objects, "S1: watermark");
    let mut set = 0;
    for word in 0..span.words() {
        // SAFETY: the bitmap has that many words.
        let bits = unsafe { *span.bits.add(word) };
        set += bits.count_ones();
        for bit in 0..64 {
            let object = word * 64 + bit;
            if object < span.fresh() as usize {
                continue;
            }
            let inside = object < span.objects as usize;
            assert_eq!(
                bits >> bit & 1 != 0,
                inside,
                "S1: bit of an object that was never used, or of none"
            );
        }
    }
    assert_eq!(
        set,
        span.available(),
        "S1: set bits are the available objects"
    );
    assert_eq!(
        span.list == NO_LIST,
        span.available() == 0,
        "M1: listed while available"
    );
}

fn check_joined(span: &Span, table: SpanTable) {
    // SAFETY: the walker holds the class's lock.
    let Some(continued) = (unsafe { Continued::of(span, table) }) else {
        assert!(!span.joined, "J2: joined objects need a bitmap");
        return;
    };
    assert_eq!(span.joined, !continued.is_empty(), "J2: flag");
    // SAFETY: the bitmap has a word for every 64 objects.
    let available =
        |object: usize| unsafe { *span.bits.add(object / 64) >> (object % 64) & 1 != 0 };
    for object in (0..span.words() * 64).filter(|&object| continued.contains(object)) {
        assert!(
            0 < object && object < usize::from(span.objects),
            "J1: a continued object is one"
        );
        assert!(
            !available(object) && !available(object - 1),
            "J1: a continued object is handed out, and so is the one before"
        );
    }
}
