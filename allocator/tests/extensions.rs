//! What Rust programs can ask for beyond `GlobalAlloc`'s four operations.

use spanalloc::alloc::{allocate, free, try_grow, usable_size};
use std::alloc::{GlobalAlloc, Layout};

#[global_allocator]
static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;

/// Resident bytes of the process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages = statm.split(' ').nth(1).expect("the second number");
    pages.parse::<usize>().expect("a number") * 4096
}

/// One after the other: what one allocates would stand in the other's way.
#[test]
fn blocks_grow_where_they_are_or_not_at_all() {
    small_blocks_have_the_rest_of_their_class();
    large_blocks_grow_until_something_is_behind_them();
    zero_blocks_of_any_alignment_are_fresh_pages();
}

fn small_blocks_have_the_rest_of_their_class() {
    for size in [1, 8, 9, 100, 1000, 5000, 40_000, 200_000] {
        let block = allocate(size);
        // SAFETY: the block is live until it is freed.
        unsafe {
            let usable = usable_size(block);
            block.write_bytes(7, usable);
            for wanted in [0, 1, size, usable] {
                assert_eq!(try_grow(block, wanted), Some(usable), "{size} to {wanted}");
            }
            for wanted in [usable + 1, 2 * usable, usize::MAX, isize::MAX as usize] {
                assert_eq!(try_grow(block, wanted), None, "{size} to {wanted}");
            }
            assert!((0..usable).all(|at| *block.add(at) == 7));
            free(block);
        }
    }
}

fn large_blocks_grow_until_something_is_behind_them() {
    const MIB: usize = 1 << 20;
    let grown = || spanalloc::stats().pages.grown_in_place;
    let before = grown();
    // The end of the heap is behind the last block.
    let block = allocate(400 * MIB);
    // SAFETY: the block is live until it is freed; what is touched is usable.
    unsafe {
        block.add(400 * MIB - 1).write(1);
        let usable = try_grow(block, 500 * MIB).expect("nothing lies behind the end of the heap");
        assert!(usable >= 500 * MIB && usable == usable_size(block));
        assert_eq!(grown(), before + 1);
        block.add(usable - 1).write(2);
        assert_eq!((*block.add(400 * MIB - 1), *block.add(usable - 1)), (1, 2));
        assert_eq!(
            try_grow(block, 500 * MIB),
            Some(usable),
            "it has that already"
        );
        // Growing far enough meets the next block, wherever that is.
        let other = allocate(300 * MIB);
        if other > block {
            let between = other as usize - block as usize;
            assert_eq!(try_grow(block, between + 1), None);
            assert_eq!(usable_size(block), usable);
        }
        free(block);
        free(other);
    }
}

fn zero_blocks_of_any_alignment_are_fresh_pages() {
    for shift in [3, 4, 5, 6, 9, 12, 13, 16, 21] {
        for size in [1, 24, 4096, 20_000, 300_000, 64 << 20] {
            let layout = Layout::from_size_align(size, 1 << shift).expect("a layout");
            // SAFETY: used and freed with its layout.
            unsafe {
                // Old contents first, so that zeros are not there by chance.
                if size < 64 << 20 {
                    let dirty = ALLOCATOR.alloc(layout);
                    dirty.write_bytes(0xEE, size);
                    ALLOCATOR.dealloc(dirty, layout);
                }
                spanalloc::trim(0);
                let before = resident();
                let block = ALLOCATOR.alloc_zeroed(layout);
                assert_eq!(block as usize % (1 << shift), 0);
                if size == 64 << 20 {
                    let added = resident().saturating_sub(before);
                    assert!(added < 8 << 20, "{added} resident at alignment 2^{shift}");
                    assert_eq!(*block.add(size / 2), 0);
                } else {
                    assert!((0..size).all(|at| *block.add(at) == 0), "{size} 2^{shift}");
                }
                ALLOCATOR.dealloc(block, layout);
            }
        }
    }
}
