//! Cases with large blocks and with blocks that grow.

use crate::{Work, timed};
use spanalloc_benches::Allocator;
use std::hint::black_box;

const OS_PAGE: usize = 4096;

/// A large block of which every page is touched.
pub struct Large(pub Allocator, pub usize);

impl Work for Large {
    fn round(&mut self, operations: usize) -> f64 {
        let Self(allocator, size) = *self;
        timed(operations, || {
            for _ in 0..operations {
                let block = allocator.block(size);
                for at in (0..size).step_by(OS_PAGE) {
                    // SAFETY: the block has `size` bytes.
                    unsafe { block.add(at).write_volatile(1) };
                }
                // SAFETY: the block is freed once.
                unsafe { allocator.release(block) };
            }
        })
    }
}

/// A block of zeros.
pub struct Zeroed(pub Allocator, pub usize);

impl Work for Zeroed {
    fn round(&mut self, operations: usize) -> f64 {
        let Self(allocator, size) = *self;
        timed(operations, || {
            for _ in 0..operations {
                // SAFETY: the block is not null, has `size` bytes and is freed once.
                unsafe {
                    let block = black_box((allocator.calloc)(1, size).cast::<u8>());
                    assert!(!block.is_null(), "{}: no memory", allocator.name);
                    block.write_volatile(1);
                    block.add(size - 1).write_volatile(1);
                    allocator.release(block);
                }
            }
        })
    }
}

/// One block that grows by realloc; an operation is its whole life.
pub struct Growth {
    pub allocator: Allocator,
    pub last: usize,
    pub next: fn(usize) -> usize,
}

impl Work for Growth {
    fn round(&mut self, operations: usize) -> f64 {
        timed(operations, || {
            for _ in 0..operations {
                let mut size = (self.next)(64) - 64;
                let mut block = self.allocator.block(size);
                while size < self.last {
                    size = (self.next)(size);
                    // SAFETY: the block is live; it is replaced by what realloc returns.
                    block = unsafe { (self.allocator.realloc)(block.cast(), size).cast() };
                    assert!(!block.is_null(), "{}: no memory", self.allocator.name);
                }
                // SAFETY: the block is freed once.
                unsafe { self.allocator.release(black_box(block)) };
            }
        })
    }
}
