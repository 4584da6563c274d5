//! Publication of the page map under loom (`page_map`, `page_heap/growth`, `page_heap/runs`): the heap grows by mapping the part of
//! the map that belongs to the new pages, then publishes its length; a span's number and class are written before a block
//! of it is handed out (P2). Threads look addresses up without a lock: of blocks that another thread gave them, and, when the
//! program is wrong, any others.
//!
//! The map is modelled, as loom cannot see mapped memory: loads of its length are acquire loads, which plain loads are on
//! x86-64, the only machine that this runs on. `LENGTH_FIRST` and `CLASS_LATE` are the controls.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use loom::thread;

const CLASS: u32 = 8;
const NUMBER: u32 = 1;

struct Map {
    /// Pages of the heap.
    pages: AtomicUsize,
    /// The map's memory for page 0 is there.
    mapped: UnsafeCell<bool>,
    class: AtomicU32,
    number: AtomicU32,
    /// A block that one thread hands to another; the program synchronises.
    block: AtomicUsize,
}

// SAFETY: `mapped` is read only by those who have seen the length; that is what the model checks.
unsafe impl Sync for Map {}
// SAFETY: as above.
unsafe impl Send for Map {}

impl Map {
    fn new() -> Self {
        Self {
            pages: AtomicUsize::new(0),
            mapped: UnsafeCell::new(false),
            class: AtomicU32::new(0),
            number: AtomicU32::new(0),
            block: AtomicUsize::new(0),
        }
    }

    /// Growth by a page, a span on it, and a block of it for another thread.
    fn allocates<const LENGTH_FIRST: bool, const CLASS_LATE: bool>(&self) {
        // SAFETY: that nobody reads it meanwhile is checked by loom.
        let map = || self.mapped.with_mut(|mapped| unsafe { *mapped = true });
        if LENGTH_FIRST {
            self.pages.store(1, Ordering::Release);
            map();
        } else {
            map();
            self.pages.store(1, Ordering::Release);
        }
        if !CLASS_LATE {
            self.number.store(NUMBER, Ordering::Relaxed);
            self.class.store(CLASS, Ordering::Release);
        }
        self.block.store(1, Ordering::Release);
        if CLASS_LATE {
            self.number.store(NUMBER, Ordering::Relaxed);
            self.class.store(CLASS, Ordering::Release);
        }
    }

    /// Class and number of page 0, `None` beyond the heap.
    fn look_up(&self) -> Option<(u32, u32)> {
        if self.pages.load(Ordering::Acquire) == 0 {
            return None;
        }
        // SAFETY: that it has been mapped is checked by loom.
        self.mapped.with(|mapped| assert!(unsafe { *mapped }));
        Some((
            self.class.load(Ordering::Relaxed),
            self.number.load(Ordering::Relaxed),
        ))
    }
}

fn look_ups_find_what_was_handed_out<const LENGTH_FIRST: bool, const CLASS_LATE: bool>() {
    loom::model(|| {
        let map = Arc::new(Map::new());
        let allocating = {
            let map = Arc::clone(&map);
            thread::spawn(move || map.allocates::<LENGTH_FIRST, CLASS_LATE>())
        };
        let stray = {
            let map = Arc::clone(&map);
            thread::spawn(move || {
                // The address of nothing: nothing yet, or what there is.
                let found = map.look_up();
                assert!(found.is_none_or(|(class, _)| class == 0 || class == CLASS));
            })
        };
        if map.block.load(Ordering::Acquire) == 1 {
            assert_eq!(
                map.look_up(),
                Some((CLASS, NUMBER)),
                "a block is found once it is handed out"
            );
        }
        allocating
            .join()
            .expect("the allocating thread does not panic");
        stray.join().expect("the stray look-up does not panic");
    });
}

#[test]
fn blocks_are_found_by_whoever_gets_them_and_strays_read_mapped_memory() {
    look_ups_find_what_was_handed_out::<false, false>();
}

#[test]
#[should_panic]
fn control_a_length_published_before_its_map_is_noticed() {
    look_ups_find_what_was_handed_out::<true, false>();
}

#[test]
#[should_panic(expected = "a block is found once it is handed out")]
fn control_a_class_written_after_the_block_is_noticed() {
    look_ups_find_what_was_handed_out::<false, true>();
}
