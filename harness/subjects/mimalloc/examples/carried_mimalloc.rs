//! A Rust program on mimalloc, linked in statically as the crate `mimalloc` does it: `carried_mimalloc STATUS`. What cannot be
//! recorded from outside, for the tests of heaplab.

use libmimalloc_sys as mi;
use std::alloc::{GlobalAlloc, Layout};

struct Mimalloc;

// SAFETY: mimalloc keeps the contract of a global allocator.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the alignment is a power of two.
        unsafe { mi::mi_malloc_aligned(layout.size(), layout.align()).cast() }
    }
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the block came from `alloc`.
        unsafe { mi::mi_free(block.cast()) }
    }
}

#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

fn main() {
    let blocks: Vec<Box<[u8; 1000]>> = (0..1000).map(|_| Box::new([1; 1000])).collect();
    println!("{} blocks", std::hint::black_box(blocks).len());
    let status = std::env::args().nth(1).and_then(|text| text.parse().ok());
    std::process::exit(status.unwrap_or(0));
}
