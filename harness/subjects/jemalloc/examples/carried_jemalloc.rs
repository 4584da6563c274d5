//! A Rust program on jemalloc, linked in statically as `tikv-jemallocator` does it: `carried_jemalloc STATUS`. What cannot be
//! recorded from outside, for the tests of heaplab.

use std::alloc::{GlobalAlloc, Layout};
use tikv_jemalloc_sys as je;

struct Jemalloc;

// SAFETY: jemalloc keeps the contract of a global allocator; the flag carries the alignment, and sizes are not 0.
unsafe impl GlobalAlloc for Jemalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not 0 (`GlobalAlloc`).
        unsafe { je::mallocx(layout.size(), je::MALLOCX_ALIGN(layout.align())).cast() }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout.
        unsafe {
            je::sdallocx(
                block.cast(),
                layout.size(),
                je::MALLOCX_ALIGN(layout.align()),
            )
        }
    }
}

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() {
    let blocks: Vec<Box<[u8; 1000]>> = (0..1000).map(|_| Box::new([1; 1000])).collect();
    println!("{} blocks", std::hint::black_box(blocks).len());
    let status = std::env::args().nth(1).and_then(|text| text.parse().ok());
    std::process::exit(status.unwrap_or(0));
}
