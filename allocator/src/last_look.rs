//! The last look for mistakes: when the process ends, what the caches of the thread that ends it and the transfer caches hold is compared
//! with the spans, as it would be if it was emptied into them.
//!
//! A block that was freed twice with others in between is twice in a bin, and the fast path has no time to look. Emptying the bins at
//! the end would find it, but would move spans, pages and figures for a process that is about to have none. So each object's bit is
//! set in its span for the moment, in which a second one finds it set, and cleared again. Every process comes here at its end, so the way is
//! beside what frees blocks (`preload/layout.ld`), and what few need is elsewhere. Invariant: L1 the bits are as they were when the lock of the class is given back, and no fault is
//! reported before: a handler of SIGABRT may allocate.

use crate::fault::{DETECT, Fault, die};
use crate::heap::Heap;
use crate::os::Os;
use crate::process::HEAP;
use crate::size_class::{NUM_CLASSES, object_at, reciprocal_of, size_of_class};
use crate::slow_path::SlowPath;
use crate::span::State;
use crate::thread_cache::ThreadCache;
use crate::transfer_cache::MOST_SHARDS;
use crate::{central, cpu_cache, mark, partition, thread};
use core::ptr::null_mut;

/// To be called when the process ends.
pub fn at_exit() {
    // A handler of a signal may end the process wherever it came.
    if !DETECT || mark::is_set() {
        return;
    }
    if let Some(own) = thread::own() {
        look(&HEAP, own);
        if let Some(cache) = thread::data_of(own) {
            look_at_data(cache);
        }
    } else {
        empty_cpus();
    }
}

#[cold]
#[inline(never)]
fn empty_cpus() {
    if cpu_cache::of_thread().is_some() {
        let _slow_path = SlowPath::enter();
        cpu_cache::empty_all();
    }
}

#[cold]
#[inline(never)]
fn look_at_data(cache: &ThreadCache) {
    if let Some(heap) = partition::data() {
        look(heap, cache);
    }
}

/// Looks at all that the thread's own `cache` and the transfer caches hold. A mistake ends the process.
#[inline(never)]
fn look<O: Os>(heap: &Heap<O>, cache: &ThreadCache) {
    let slow_path = SlowPath::of_thread();
    for class in 1..NUM_CLASSES {
        let cached = cache.objects(class);
        let wrong = if heap.transfer(class).has_stored() {
            find_with_stored(heap, class, cached)
        } else if cached.is_empty() {
            continue;
        } else {
            find(heap, class, cached)
        };
        if !wrong.is_null() {
            drop(slow_path);
            report(heap, class, wrong);
        }
    }
}

#[cold]
#[inline(never)]
fn report<O: Os>(heap: &Heap<O>, class: usize, object: *mut u8) -> ! {
    // SAFETY: where it is no object of the class, or its span has gone, this is where the process ends.
    unsafe { central::locate(&heap.pages, class, object as usize) };
    die(Fault::DoubleFree, object as usize)
}

/// An object that is in the list twice, or there and free in its span, or that is none of the class; else null.
#[inline(never)]
fn find<O: Os>(heap: &Heap<O>, class: usize, list: &[*mut u8]) -> *mut u8 {
    let _central = heap.central(class).inner.lock();
    let good = toggle::<O, true>(heap, class, list, usize::MAX);
    toggle::<O, false>(heap, class, list, good);
    list.get(good).copied().unwrap_or(null_mut())
}

/// As [`find`] in this list and all that is stored in the transfer cache.
#[cold]
#[inline(never)]
fn find_with_stored<O: Os>(heap: &Heap<O>, class: usize, cached: &[*mut u8]) -> *mut u8 {
    let mut shards = [const { None }; MOST_SHARDS];
    for (place, shard) in shards.iter_mut().zip(heap.transfer(class).all()) {
        *place = Some(shard.lock());
    }
    let mut lists = [cached; MOST_SHARDS + 1];
    let mut count = 1;
    for shard in shards.iter().flatten() {
        lists[count] = shard.stored();
        count += 1;
    }
    let _central = heap.central(class).inner.lock();
    let mut wrong = null_mut();
    for (at, list) in lists.iter_mut().enumerate().take(count) {
        let good = toggle::<O, true>(heap, class, list, usize::MAX);
        if let Some(&object) = list.get(good) {
            wrong = object;
            *list = &list[..good];
            count = at + 1;
            break;
        }
    }
    for list in &lists[..count] {
        toggle::<O, false>(heap, class, list, usize::MAX);
    }
    wrong
}

/// The span that the last object of a list lay in: neighbours follow each other in most lists, and to look a span up and compare its
/// record is more work than all else.
struct Spot {
    origin: usize,
    /// Of all its objects; 0: it is none of the class.
    bytes: usize,
    bits: *mut u64,
}

/// Where an object of `class` lies: its span, in which objects are joined, too, if there are no `bytes`. `None`: it is none of the class.
///
/// # Safety
/// The caller holds the lock of the class.
unsafe fn spot<O: Os>(heap: &Heap<O>, class: usize, object: usize) -> Option<Spot> {
    let span = heap.pages.map.view().span_at(object)?;
    // SAFETY: numbers in the map have records. A span in which an object is cached stays as it is; if none is, the record says
    // that it is another class's, or lies elsewhere.
    unsafe {
        let (origin, objects) = ((*span).origin, usize::from((*span).objects));
        let bytes = if (*span).joined {
            0
        } else if (*span).state == State::Small && usize::from((*span).class) == class {
            objects * size_of_class(class)
        } else {
            return None;
        };
        Some(Spot {
            origin,
            bytes,
            bits: (*span).bits,
        })
    }
}

/// Sets the bits of the objects of a list, up to one whose bit is set already or that is none of the class, or clears those of the first
/// `most`, which were set; how many it were. Objects in spans some of whose objects are joined ([`crate::joining`]) are passed over, as these are perhaps of
/// another class, whose lock we do not have. The caller holds the lock of the class, and nobody changes the list.
#[inline(never)]
fn toggle<O: Os, const SET: bool>(
    heap: &Heap<O>,
    class: usize,
    list: &[*mut u8],
    most: usize,
) -> usize {
    let reciprocal = reciprocal_of(class);
    let mut at = Spot {
        origin: 0,
        bytes: 0,
        bits: null_mut(),
    };
    let most = most.min(list.len());
    for (good, &object) in list[..most].iter().enumerate() {
        let mut offset = (object as usize).wrapping_sub(at.origin);
        if offset >= at.bytes {
            // SAFETY: the caller holds the lock.
            match unsafe { spot(heap, class, object as usize) } {
                Some(found) => at = found,
                None => return good,
            }
            if at.bytes == 0 {
                continue;
            }
            offset = (object as usize).wrapping_sub(at.origin);
            if offset >= at.bytes {
                return good;
            }
        }
        let (index, starts) = object_at(reciprocal, offset);
        // SAFETY: the bits of a span of the class are changed under its lock.
        unsafe {
            let word = at.bits.add(index / 64);
            let mask = 1 << (index % 64);
            if SET && (!starts || *word & mask != 0) {
                return good;
            }
            *word ^= mask;
        }
    }
    most
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::os::fake::FakeOs;
    use crate::size_class::class_of;
    use crate::units::PAGE_SIZE;

    /// A heap, a class of it, and a batch of its objects.
    fn objects() -> (Box<Heap<FakeOs>>, usize, Vec<*mut u8>) {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let class = class_of(64).expect("small");
        let mut objects = vec![null_mut(); 100];
        let got = heap.refill(class, 1, &mut objects);
        objects.truncate(got);
        assert!(got >= 50);
        (heap, class, objects)
    }

    /// Stores a batch in every shard of the class.
    fn store(heap: &Heap<FakeOs>, class: usize, objects: &[*mut u8]) {
        let transfer = heap.transfer(class);
        for (batch, shard) in objects.chunks(10).zip(transfer.all()) {
            assert!(shard.store(1, batch, true, usize::MAX, &heap.pages));
        }
    }

    #[test]
    fn what_is_cached_twice_or_free_is_found_and_nothing_changes() {
        for shards in [1, 4] {
            let (heap, class, objects) = objects();
            if shards > 1 {
                heap.transfer(class).spread(&heap.pages);
                assert_eq!(heap.transfer(class).all().count(), shards);
            }
            let (stored, cached) = objects.split_at(10 * shards);
            store(&heap, class, stored);
            let find = |list: &[*mut u8]| {
                let found = find_with_stored(&heap, class, list);
                heap.check_invariants();
                found
            };
            assert!(find(cached).is_null() && find(&[]).is_null());
            let with = |object: *mut u8| [cached, &[object]].concat();
            // Twice in the bin, there and in any of the shards, and one beside that is still in its span.
            assert_eq!(find(&with(cached[3])), cached[3]);
            for &object in stored {
                assert_eq!(find(&with(object)), object);
            }
            let (free, _) = heap.take_one(class);
            assert!(find(&with(free)).is_null());
            // SAFETY: the object was handed out just now.
            unsafe { heap.give(class, &[free]) };
            assert_eq!(find(&with(free)), free);
            // Into an object, of another class, and foreign.
            let (other, _) = heap.take_one(class_of(256).expect("small"));
            let inside = cached[0].wrapping_add(8);
            let foreign = inside.wrapping_add(PAGE_SIZE << 20);
            for wrong in [inside, other, foreign] {
                assert_eq!(find(&with(wrong)), wrong);
            }
            // In two shards.
            if shards > 1 {
                let last = heap.transfer(class).all().last().expect("several");
                assert!(last.store(1, &stored[..1], true, usize::MAX, &heap.pages));
                assert_eq!(find_with_stored(&heap, class, cached), stored[0]);
            }
        }
    }

    #[test]
    fn spans_may_follow_each_other_in_any_order() {
        let (heap, class, mut objects) = objects();
        while objects.len() < 500 {
            objects.push(heap.take_one(class).0);
        }
        // Every seventh: from span to span and back.
        let apart: Vec<*mut u8> = (0..7)
            .flat_map(|first| objects.iter().skip(first).step_by(7).copied())
            .collect();
        let span_of = |object: *mut u8| heap.pages.map.view().span_at(object as usize);
        let changes = apart
            .windows(2)
            .filter(|two| span_of(two[0]) != span_of(two[1]));
        assert!(changes.count() > 7);
        assert!(find(&heap, class, &apart).is_null());
        for &object in &apart {
            let again = [&apart[..], &[object]].concat();
            assert_eq!(find(&heap, class, &again), object);
        }
        let (other, _) = heap.take_one(class_of(256).expect("small"));
        for wrong in [apart[400].wrapping_add(16), other] {
            let list = [&apart[..300], &[wrong], &apart[300..]].concat();
            assert_eq!(find(&heap, class, &list), wrong);
        }
        heap.check_invariants();
    }

    #[test]
    fn a_bin_alone_is_looked_at_the_same_way() {
        let (heap, class, objects) = objects();
        assert!(find(&heap, class, &objects).is_null());
        let twice = [&objects[..], &objects[7..8]].concat();
        assert_eq!(find(&heap, class, &twice), objects[7]);
        heap.check_invariants();
    }
}
