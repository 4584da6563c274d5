//! First use of the data heap under loom (`published`, the code itself): two threads want it at once, a third looks whether there is
//! one. One is made, and whoever finds it finds it whole.
//!
//! Each control plants one mistake (`plant`).
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use core::sync::atomic::Ordering::Relaxed;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;
use spanalloc::plant::{Plant, plant};
use spanalloc::published::Published;
use spanalloc::sync::Locked;

/// What is made, in memory that was there before.
struct Heap {
    epoch: UnsafeCell<u32>,
}

// SAFETY: written before it is named only, which loom checks.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

struct World {
    data: Published<Heap>,
    registry: Locked<()>,
    places: [&'static Heap; 2],
    made: AtomicUsize,
}

impl World {
    fn new() -> Arc<Self> {
        let place = || -> &'static Heap {
            Box::leak(Box::new(Heap {
                epoch: UnsafeCell::new(0),
            }))
        };
        Arc::new(Self {
            data: Published::new(),
            registry: Locked::new(()),
            places: [place(), place()],
            made: AtomicUsize::new(0),
        })
    }

    fn make(&self) -> *mut Heap {
        let place = self.places[self.made.fetch_add(1, Relaxed)];
        // SAFETY: nobody knows it yet.
        place.epoch.with_mut(|epoch| unsafe { *epoch = 7 });
        core::ptr::from_ref(place).cast_mut()
    }

    fn wants(&self) {
        // SAFETY: the place stays, and the lock excludes others.
        let heap = unsafe {
            self.data
                .get_or_make(|| self.registry.lock(), || self.make())
        };
        heap.expect("there is memory").is_whole();
    }
}

impl Heap {
    fn is_whole(&self) {
        // SAFETY: written before it was named.
        self.epoch.with(|epoch| assert_eq!(unsafe { *epoch }, 7));
    }
}

fn the_first_use(mistake: Option<Plant>) {
    plant(mistake);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let world = World::new();
        let threads = [World::wants, |world: &World| {
            if let Some(heap) = world.data.get() {
                heap.is_whole();
            }
        }]
        .map(|work| {
            let world = Arc::clone(&world);
            thread::spawn(move || work(&world))
        });
        world.wants();
        for thread in threads {
            thread.join().expect("no thread panics");
        }
        assert_eq!(world.made.load(Relaxed), 1, "one was made");
    });
}

#[test]
fn one_is_made_and_found_whole() {
    the_first_use(None);
}

#[test]
#[should_panic(expected = "one was made")]
fn control_one_that_is_made_twice_is_noticed() {
    the_first_use(Some(Plant::NotLookedAgain));
}

#[test]
#[should_panic]
fn control_one_that_is_named_before_it_is_whole_is_noticed() {
    the_first_use(Some(Plant::NamedRelaxed));
}
