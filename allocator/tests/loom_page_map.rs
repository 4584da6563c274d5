//! Publication of the page map under loom (`page_map`, the code itself, on memory of the model's): the heap grows by mapping
//! the part of the map that belongs to the new pages, then publishes its length; a span's number and class are written
//! before a block of it is handed out (P2). Threads look addresses up without a lock: of blocks that another thread gave
//! them, and, when the program is wrong, any others.
//!
//! What is not mapped yet is a loom atomic that the mapping thread writes without synchronisation: whoever reads it without
//! having seen the mapping is a violation that loom reports. (The instructions of the fast path, which repeat `page_of` and
//! `class_of_page`, are plain loads, which on x86-64 come in their order and acquire.) Each control plants one mistake
//! (`plant`) or takes two of the code's steps in the wrong order.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize};
use loom::thread;
use spanalloc::page_map::PageMap;
use spanalloc::plant::{Plant, plant};
use spanalloc::span::{Span, State};

const HEAP: usize = 1 << 40;
const PAGE: usize = 8192;
const CLASS: u8 = 8;
const NUMBER: u32 = 1;
/// What an entry holds before it is mapped.
const UNMAPPED: u8 = 0xAA;

/// A map for a heap of one page at first and two later, and its memory.
struct World {
    map: PageMap,
    classes: *mut AtomicU8,
    numbers: *mut AtomicU32,
    spans: *mut Span,
    /// A block that one thread hands to another; the program synchronises.
    block: AtomicUsize,
    /// Loom switches threads at atomic operations only: there shall be one before the map is mapped.
    moment: AtomicUsize,
}

// SAFETY: the memory is written as the protocol says, which loom checks; the rest is.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        let classes = (0..3).map(|_| AtomicU8::new(UNMAPPED));
        let numbers = (0..2).map(|_| AtomicU32::new(u32::MAX));
        // SAFETY: zeros are a record of no span.
        let spans = (0..2).map(|_| unsafe { core::mem::zeroed::<Span>() });
        let classes = Vec::leak(classes.collect()).as_mut_ptr();
        let numbers = Vec::leak(numbers.collect()).as_mut_ptr();
        let spans = Vec::leak(spans.collect()).as_mut_ptr();
        let world = Self {
            map: PageMap::new(),
            classes,
            numbers,
            spans,
            block: AtomicUsize::new(0),
            moment: AtomicUsize::new(0),
        };
        // SAFETY: the entry behind an empty heap's end (P3), and places inside the memory or at its end: numbers and
        // records lie before them.
        unsafe {
            (*classes).with_mut(|class| *class = 0);
            let (numbers, spans) = (numbers.add(2), spans.add(1));
            world.map.set_places(HEAP, classes, numbers, spans, None);
        }
        Arc::new(world)
    }

    /// The system maps what belongs to one page, and the entry behind it.
    fn is_mapped(&self) {
        self.moment.store(1, Relaxed);
        // SAFETY: that nobody reads the entries meanwhile is checked by loom.
        unsafe {
            (*self.classes.add(1)).with_mut(|class| *class = 0);
            (*self.numbers.add(1)).with_mut(|number| *number = 0);
        }
    }

    /// The heap grows by its first page.
    fn grows(&self) {
        let grown = self.map.extend(1, None, || {
            self.is_mapped();
            Ok::<(), ()>(())
        });
        assert_eq!(grown, Ok(()));
    }

    /// A span of blocks on the first page.
    fn makes_a_span(&self) {
        // SAFETY: the record number 1, which lies before number 0; this thread alone writes to it.
        unsafe {
            let span = self.spans;
            (*span).start = 0;
            (*span).pages = 1;
            (*span).state = State::Small;
            (*span).class = CLASS;
            (*span).id = NUMBER;
            self.map.set_small(span);
        }
    }

    /// One of its blocks goes to another thread.
    fn hands_out(&self) {
        self.block.store(HEAP + 112, Release);
    }

    /// What the map knows of an address, as `free` asks for it.
    fn look_up(&self, address: usize) -> Option<(usize, u32)> {
        let page = self.map.page_of(address)?;
        // SAFETY: the page is in the heap.
        unsafe { Some((self.map.class_of_page(page), self.map.number_of_page(page))) }
    }
}

fn model(mistake: Option<Plant>, run: impl Fn() + Sync + Send + 'static) {
    plant(mistake);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

fn look_ups_find_what_was_handed_out(mistake: Option<Plant>, class_late: bool) {
    model(mistake, move || {
        let world = World::new();
        let allocating = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.grows();
                if class_late {
                    world.hands_out();
                }
                world.makes_a_span();
                world.hands_out();
            })
        };
        let stray = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                // The address of nothing: nothing yet, or what there is.
                let found = world.look_up(HEAP);
                assert!(found.is_none_or(|(class, number)| {
                    [0, CLASS as usize].contains(&class) && [0, NUMBER].contains(&number)
                }));
                assert_eq!(world.look_up(HEAP + PAGE), None);
            })
        };
        let block = world.block.load(Acquire);
        if block != 0 {
            let expected = Some((CLASS as usize, NUMBER));
            let found = world.look_up(block);
            assert_eq!(found, expected, "a block is found once it is handed out");
            let span = world.map.view().span_at(block);
            assert_eq!(span, Some(world.spans));
        }
        for thread in [allocating, stray] {
            thread.join().expect("no thread panics");
        }
    });
}

#[test]
fn blocks_are_found_by_whoever_gets_them_and_strays_read_mapped_memory() {
    look_ups_find_what_was_handed_out(None, false);
}

#[test]
#[should_panic]
fn control_a_length_published_before_its_map_is_noticed() {
    look_ups_find_what_was_handed_out(Some(Plant::LengthFirst), false);
}

#[test]
#[should_panic]
fn control_a_length_published_without_what_was_mapped_is_noticed() {
    look_ups_find_what_was_handed_out(Some(Plant::LengthRelaxed), false);
}

#[test]
#[should_panic]
fn control_a_length_read_without_what_was_mapped_is_noticed() {
    look_ups_find_what_was_handed_out(Some(Plant::LookUpRelaxed), false);
}

#[test]
#[should_panic(expected = "a block is found once it is handed out")]
fn control_a_class_written_after_the_block_is_noticed() {
    look_ups_find_what_was_handed_out(None, true);
}
