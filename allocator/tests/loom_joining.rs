//! Joined objects under loom (`continued` and `page_map`, the code itself): while blocks of several objects are made out of a
//! span and come back, under the lock of its class, others look up without a lock what they have of it, as `free` does: the page
//! map's class, and where that shows none the second bitmap. Whoever was handed a block finds its length, whoever has a single
//! object finds that, whatever happens beside it.
//!
//! Not modelled: that the bitmap itself is published before the class is hidden (`Span::continued` is set with release once in a
//! span's life and read with acquire, and until it is read as set every block has one object).
//!
//! Each control plants one mistake (`plant`).
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use core::sync::atomic::Ordering::{Acquire, Release};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use loom::thread;
use spanalloc::continued::Continued;
use spanalloc::page_map::PageMap;
use spanalloc::plant::{Plant, plant};
use spanalloc::span::{Span, State};
use spanalloc::sync::Locked;

const HEAP: usize = 1 << 40;
const CLASS: u8 = 8;
/// The object that a thread has all the time: the one between the two places of blocks of several.
const SINGLE: usize = 4;

/// A span on a page, as the lock of its class guards it.
struct World {
    map: PageMap,
    continued: Continued,
    span: Locked<Owned>,
    /// A block on its way to another thread, plus one; the program synchronises.
    handed: AtomicUsize,
}

struct Owned(*mut Span);

// SAFETY: the record is written under the lock.
unsafe impl Send for Owned {}
// SAFETY: the map's memory and the bitmap are atomics; the rest is locked.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        let classes = Vec::leak((0..2).map(|_| AtomicU8::new(0)).collect()).as_mut_ptr();
        let numbers = Vec::leak((0..1).map(|_| AtomicU32::new(0)).collect()).as_mut_ptr();
        let words = Vec::leak(vec![AtomicU64::new(0)]);
        // SAFETY: zeros are a record of no span.
        let records = (0..2).map(|_| unsafe { core::mem::zeroed::<Span>() });
        let records = Vec::leak(records.collect()).as_mut_ptr();
        let map = PageMap::new();
        // SAFETY: places at the ends of the memory, as numbers and records lie before them; the record is nobody else's.
        unsafe {
            map.set_places(HEAP, classes, numbers.add(1), records.add(1), None);
            let grown = map.extend(1, None, || Ok::<(), ()>(()));
            assert_eq!(grown, Ok(()));
            let span = records;
            (*span).pages = 1;
            (*span).state = State::Small;
            (*span).class = CLASS;
            (*span).id = 1;
            map.set_small(span);
        }
        Arc::new(Self {
            map,
            continued: Continued::new(words),
            span: Locked::new(Owned(records)),
            handed: AtomicUsize::new(0),
        })
    }

    /// A block of some objects, made for whoever asks.
    fn lend(&self, first: usize, objects: usize) {
        let span = self.span.lock();
        // SAFETY: the lock is held.
        unsafe { self.continued.lend(&self.map, span.0, first, objects) };
    }

    /// It comes back.
    fn reclaim(&self, first: usize, objects: usize) {
        let span = self.span.lock();
        // SAFETY: as above.
        unsafe { self.continued.reclaim(&self.map, span.0, first, objects) };
    }

    /// What `free` finds of a block by its address: how many objects it has.
    fn objects_of(&self, first: usize) -> Option<usize> {
        // SAFETY: the page is in the heap.
        match unsafe { self.map.class_of_page(0) } {
            0 => self.continued.length(first),
            class => {
                assert_eq!(class, usize::from(CLASS));
                Some(1)
            }
        }
    }
}

fn model(mistake: Option<Plant>, run: impl Fn(&Arc<World>) + Sync + Send + 'static) {
    plant(mistake);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || run(&World::new()));
}

/// Runs beside `work`.
fn beside(world: &Arc<World>, work: impl Fn(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || work(&world))
}

fn blocks_are_found_as_they_were_made(mistake: Option<Plant>) {
    model(mistake, |world| {
        let maker = beside(world, |world| {
            world.lend(1, 3);
            world.handed.store(1 + 1, Release);
        });
        let single = beside(world, |world| {
            assert_eq!(world.objects_of(SINGLE), Some(1), "a single object");
        });
        if world.handed.load(Acquire) != 0 {
            assert_eq!(world.objects_of(1), Some(3), "a block of three");
            world.reclaim(1, 3);
            // The class is shown again, and what was the block's second object is one of its own.
            assert_eq!(world.objects_of(2), Some(1), "single again");
        }
        for thread in [maker, single] {
            thread.join().expect("no thread panics");
        }
        assert_eq!(world.objects_of(SINGLE), Some(1), "a single object");
    });
}

#[test]
fn blocks_of_several_objects_are_found_by_whoever_gets_them() {
    blocks_are_found_as_they_were_made(None);
}

#[test]
#[should_panic(expected = "a block of three")]
fn control_a_class_that_stays_shown_is_noticed() {
    blocks_are_found_as_they_were_made(Some(Plant::ClassStaysShown));
}

#[test]
#[should_panic(expected = "a block of three")]
fn control_objects_that_are_not_marked_are_noticed() {
    blocks_are_found_as_they_were_made(Some(Plant::FollowersUnmarked));
}

fn the_class_stays_hidden_while_a_block_is_out(mistake: Option<Plant>) {
    model(mistake, |world| {
        world.lend(1, 3);
        world.lend(5, 2);
        let one = beside(world, |world| {
            assert_eq!(world.objects_of(1), Some(3), "a block of three");
            world.reclaim(1, 3);
        });
        let single = beside(world, |world| {
            assert_eq!(world.objects_of(SINGLE), Some(1), "a single object");
        });
        assert_eq!(world.objects_of(5), Some(2), "a block of two");
        world.reclaim(5, 2);
        for thread in [one, single] {
            thread.join().expect("no thread panics");
        }
        // SAFETY: the page is in the heap.
        let shown = unsafe { world.map.class_of_page(0) };
        assert_eq!(shown, usize::from(CLASS), "nothing is out");
    });
}

#[test]
fn two_blocks_come_back_and_the_last_one_shows_the_class() {
    the_class_stays_hidden_while_a_block_is_out(None);
}

#[test]
#[should_panic(expected = "a block of")]
fn control_a_class_shown_while_a_block_is_out_is_noticed() {
    the_class_stays_hidden_while_a_block_is_out(Some(Plant::ShownEarly));
}

/// A block comes back and is made anew, shorter, while somebody has a single object of the span.
#[test]
fn a_word_that_changes_under_a_single_object_tells_nothing_else() {
    model(None, |world| {
        world.lend(1, 3);
        let single = beside(world, |world| {
            assert_eq!(world.objects_of(SINGLE), Some(1));
            assert_eq!(world.objects_of(SINGLE), Some(1));
        });
        world.reclaim(1, 3);
        world.lend(1, 2);
        assert_eq!(world.objects_of(1), Some(2));
        single.join().expect("no thread panics");
    });
}
