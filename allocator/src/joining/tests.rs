//! Joined objects in heaps that are filled, thinned out and asked for longer blocks.

use super::*;
use crate::heap::Block;
use crate::os::fake::{Call, FakeOs};
use crate::size_class::class_of;

const SHORT: usize = 208;
const LONG: usize = 1024;
/// Objects of the short class that one of the long class needs.
const EACH: usize = 5;

fn class(size: usize) -> usize {
    class_of(size).expect("small")
}

/// A heap of objects of `SHORT` bytes of which each 20th is left, which nobody has wanted since; those.
fn sparse() -> (Box<Heap<FakeOs>>, Vec<*mut u8>) {
    let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
    let kept = scatter(&heap);
    (heap, kept)
}

/// The objects of [`sparse`].
fn scatter(heap: &Heap<FakeOs>) -> Vec<*mut u8> {
    let mut kept = Vec::new();
    let mut free = Vec::new();
    for number in 0..20_000 {
        let (object, _) = heap.take_one(class(SHORT));
        // SAFETY: the object is ours.
        unsafe { object.write_bytes(number as u8, SHORT) };
        if number % 20 == 7 {
            kept.push(object);
        } else {
            free.push(object);
        }
    }
    // SAFETY: each was handed out above and is given back once.
    unsafe { heap.give(class(SHORT), &free) };
    (0..2 * NUM_CLASSES).for_each(|_| heap.purge_unwanted(1));
    kept
}

fn take(heap: &Heap<FakeOs>, size: usize, count: usize) -> Vec<*mut u8> {
    let mut objects = vec![core::ptr::null_mut(); count];
    let mut got = 0;
    while got < count {
        let more = heap.refill(class(size), 1, &mut objects[got..]);
        assert!(more > 0);
        got += more;
    }
    objects
}

fn outside(heap: &Heap<FakeOs>, class: usize) -> usize {
    let inner = heap.central(class).inner.lock();
    (inner.handed_out - inner.taken_back) as usize
}

#[test]
fn what_is_free_between_survivors_serves_longer_blocks_and_comes_back_by_address_or_by_size() {
    let (heap, kept) = sparse();
    let pages = heap.pages.in_use_bytes();
    let blocks = take(&heap, LONG, 500);
    assert_eq!(heap.pages.in_use_bytes(), pages, "no span was taken");
    assert_eq!(outside(&heap, class(SHORT)), kept.len() + EACH * 500);
    for &block in &blocks {
        assert!(matches!(heap.block_of(block), Block::Small(found) if found == class(LONG)));
        assert_eq!(heap.usable_size(block), LONG);
        // SAFETY: the block is ours.
        unsafe { block.write_bytes(0xEE, LONG) };
    }
    heap.check_invariants();
    for (index, &object) in kept.iter().enumerate() {
        assert_eq!(heap.usable_size(object), SHORT);
        // SAFETY: the survivor is live.
        let bytes = unsafe { core::slice::from_raw_parts(object, SHORT) };
        assert!(bytes.iter().all(|&byte| byte == (index * 20 + 7) as u8));
    }
    // A size that needs as many objects, and the class that the block is found to be of.
    assert_eq!(900_usize.div_ceil(SHORT), EACH);
    let (by_size, by_address) = blocks.split_at(250);
    // SAFETY: the blocks are ours, each is given back once, the survivors last and between others.
    unsafe {
        heap.give(class(1000), by_size);
        for (&block, &object) in by_address.iter().zip(&kept) {
            heap.give(class(LONG), &[block]);
            heap.give(class(SHORT), &[object]);
        }
        heap.check_invariants();
        assert_eq!(outside(&heap, class(SHORT)), kept.len() - 250);
        heap.give(class(SHORT), &kept[250..]);
    }
    assert_eq!(outside(&heap, class(SHORT)), 0);
    heap.trim(0);
    assert_eq!(heap.check_invariants().small, 0, "all spans went back");
}

#[test]
fn a_class_that_is_wanted_again_lends_nothing() {
    let (heap, _) = sparse();
    assert!(!take(&heap, SHORT, 1)[0].is_null());
    let before = outside(&heap, class(SHORT));
    take(&heap, LONG, 100);
    assert_eq!(outside(&heap, class(SHORT)), before);
    heap.check_invariants();
}

#[test]
fn a_class_that_lent_all_it_has_is_not_looked_at_for_each_batch() {
    let (heap, _) = sparse();
    let own = class(SHORT);
    let vain = || heap.searches[own].vain.load(Relaxed) as usize;
    while vain() > LONG {
        take(&heap, LONG, 50);
    }
    let before = outside(&heap, own);
    take(&heap, LONG, 50);
    assert_eq!(outside(&heap, own), before);
    // Shorter ones are looked for, and when nothing is found for the shortest the class is left alone.
    while heap.sparse.below(class(LONG)).is_some() {
        take(&heap, 2 * SHORT, 50);
    }
    assert!(outside(&heap, own) > before);
    heap.check_invariants();
}

#[test]
fn a_search_that_ends_with_a_list_goes_on_with_the_next_one() {
    const TINY: usize = 64;
    let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
    heap.pages.os[Call::Purge].allow(0);
    let map = &heap.pages.map;
    let mut last = (0, 0);
    let mut spans = 0;
    let mut free = Vec::new();
    // No span is left with objects that were never handed out.
    while spans < 80 || !heap.central(class(TINY)).is_dry() {
        let (object, _) = heap.take_one(class(TINY));
        let page = map.page_of(object as usize).expect("an object");
        // SAFETY: the page is in the heap.
        let number = unsafe { map.number_of_page(page) };
        last = if number == last.0 {
            (number, last.1 + 1)
        } else {
            spans += 1;
            (number, 0)
        };
        // As many as one search looks at have no run, though they are the emptiest; all others have nothing but runs.
        let kept = if spans <= LOOKS {
            last.1 % 8 == 0
        } else {
            last.1 % 64 < 34
        };
        if !kept {
            free.push(object);
        }
    }
    // SAFETY: each was handed out above and is given back once.
    unsafe { heap.give(class(TINY), &free) };
    (0..2 * NUM_CLASSES).for_each(|_| heap.purge_unwanted(1));
    let before = outside(&heap, class(TINY));
    take(&heap, MOST_OBJECTS * TINY, 200);
    assert!(outside(&heap, class(TINY)) > before);
    heap.check_invariants();
}

#[test]
fn bitmaps_of_spans_that_went_back_are_used_again() {
    let (heap, kept) = sparse();
    let mut rest = kept;
    let mut used = Vec::new();
    for _ in 0..6 {
        let blocks = take(&heap, LONG, 500);
        // SAFETY: all are ours, each is given back once.
        unsafe {
            heap.give(class(LONG), &blocks);
            heap.give(class(SHORT), &rest);
        }
        heap.trim(0);
        used.push(heap.pages.inner.lock().metadata_bytes());
        rest = scatter(&heap);
    }
    // A second bitmap has 64 bytes here, and each round needs dozens.
    assert!(used[5] <= used[1] + 1024, "{used:?}");
}

/// What is said when `work` ends the process, in a child.
fn end_of(work: impl FnOnce()) -> String {
    use std::io::{Read, pipe};
    use std::os::fd::AsRawFd;
    let (mut said, to) = pipe().expect("a pipe");
    // SAFETY: the child works with its copy of the heap and ends without the harness.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: both are open.
        unsafe { libc::dup2(to.as_raw_fd(), 2) };
        work();
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) };
    }
    drop(to);
    let mut text = String::new();
    said.read_to_string(&mut text).expect("a line");
    let mut status = 0;
    // SAFETY: the status is writable.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT,
        "{status:x} {text}"
    );
    text
}

#[test]
fn what_is_no_such_block_ends_the_process_when_it_comes_back() {
    let (heap, _) = sparse();
    let block = take(&heap, LONG, 1)[0];
    assert_eq!(heap.usable_size(block), LONG);
    let give = |size: usize, at: usize, times: usize| {
        end_of(|| {
            for _ in 0..times {
                // SAFETY: the child's copy of the heap ends with it.
                unsafe { heap.give(class(size), &[block.add(at)]) };
            }
        })
    };
    assert!(give(2 * LONG, 0, 1).contains("size of another class"));
    assert!(give(SHORT, 0, 1).contains("size of another class"));
    assert!(give(LONG, SHORT, 1).contains("middle of a block"));
    assert!(give(SHORT, SHORT, 1).contains("middle of a block"));
    assert!(give(LONG, 0, 2).contains("double free"));
}

#[test]
fn pages_that_were_given_back_stay_so() {
    let (heap, kept) = sparse();
    let purged = || heap.central(class(SHORT)).inner.lock().purged_pages;
    // With a survivor in 20 few pages have none.
    let gone: Vec<*mut u8> = kept.iter().copied().step_by(2).collect();
    // SAFETY: the survivors are ours.
    unsafe { heap.give(class(SHORT), &gone) };
    (0..2 * NUM_CLASSES).for_each(|_| heap.purge_unwanted(1));
    let before = purged();
    assert!(before > 200, "{before}");
    let blocks = take(&heap, LONG, 200);
    assert_eq!(purged(), before);
    heap.check_invariants();
    // A span to which one comes back is looked at again.
    let given_back = |block: *mut u8| {
        let map = &heap.pages.map;
        let page = map.page_of(block as usize).expect("a block");
        // SAFETY: the block keeps its span, or what is free around it does.
        unsafe { (*map.span_of_page(page)).given_back() }
    };
    let mut spans = 0;
    for &block in &blocks {
        spans += u32::from(given_back(block) > 0);
        // SAFETY: the block is ours.
        unsafe { heap.give(class(LONG), &[block]) };
        assert_eq!(given_back(block), 0);
    }
    assert!(spans > 2, "{spans}");
    heap.check_invariants();
}

#[test]
fn spans_are_as_before_when_the_last_block_has_gone() {
    let (heap, kept) = sparse();
    let shown = || {
        let map = &heap.pages.map;
        kept.iter()
            .filter(|&&object| {
                let page = map.page_of(object as usize).expect("an object");
                // SAFETY: the page is in the heap.
                unsafe { map.class_of_page(page) == class(SHORT) }
            })
            .count()
    };
    assert_eq!(shown(), kept.len());
    let blocks = take(&heap, LONG, 300);
    assert!(shown() < kept.len());
    // SAFETY: the blocks are ours.
    unsafe { heap.give(class(LONG), &blocks) };
    assert_eq!(shown(), kept.len());
    heap.check_invariants();
}

/// Whether a block of the long class is parted when it is freed.
fn is_parted(heap: &Heap<FakeOs>, block: *mut u8) -> bool {
    // SAFETY: the block is the caller's, and not used any more where it is parted.
    heap.rest.is_long() && unsafe { heap.part(class(LONG), block, || ()) }
}

#[test]
fn blocks_are_parted_where_others_are_at_hand_and_the_heap_does_not_grow() {
    let (heap, _) = sparse();
    let blocks = take(&heap, LONG, 300);
    let before = outside(&heap, class(SHORT));
    let rest = || (0..SETTLED).for_each(|_| heap.rest.count());
    rest();
    assert!(!is_parted(&heap, blocks[0]), "there is no other");
    // A span of the class's own, with others in it.
    let (ordinary, _) = heap.take_one(class(LONG));
    assert!(!heap.central(class(LONG)).is_dry());
    assert!(is_parted(&heap, blocks[0]));
    assert_eq!(outside(&heap, class(SHORT)), before - EACH);
    assert!(!is_parted(&heap, ordinary));
    let (large, _) = heap.allocate_large(8 << 20, 1);
    assert!(!large.is_null());
    assert!(!is_parted(&heap, blocks[1]), "it has grown");
    rest();
    assert!(is_parted(&heap, blocks[1]));
    let pages = heap.pages.in_use_bytes();
    let joined = take(&heap, 2 * LONG, 1)[0];
    assert_eq!(heap.pages.in_use_bytes(), pages);
    assert!(!is_parted(&heap, blocks[2]), "{joined:?} was joined");
    heap.check_invariants();
}

#[test]
fn aligned_blocks_are_exchanged() {
    let (heap, _) = sparse();
    let mut exchanged = 0;
    for block in take(&heap, LONG, 300) {
        let aligned = heap.at_multiple(LONG, class(LONG), block);
        assert!((aligned as usize).is_multiple_of(LONG));
        exchanged += usize::from(aligned != block);
    }
    assert!(exchanged > 200, "{exchanged}");
    heap.check_invariants();
}

#[test]
fn runs_of_bits_are_found() {
    let word = 0b1111_0111_0110_1001;
    for length in 1..=64 {
        let ones = u64::MAX >> (64 - length);
        for word in [word, word << 48, u64::MAX, u64::MAX << 3, 0] {
            let expected = (0..=64 - length)
                .filter(|&at| word >> at & ones == ones)
                .fold(0, |bits, at| bits | 1 << at);
            assert_eq!(starts_of_runs(word, length), expected, "{word:b}, {length}");
        }
    }
}

#[test]
fn sets_of_classes_know_their_highest() {
    let set = Classes::new();
    for class in [3, 63, 64, 86] {
        set.insert(class);
    }
    let mut found = Vec::new();
    let mut below = NUM_CLASSES;
    while let Some(class) = set.below(below) {
        found.push(class);
        below = class;
    }
    assert_eq!(found, [86, 64, 63, 3]);
    set.remove(64);
    assert_eq!(set.below(86), Some(63));
}
