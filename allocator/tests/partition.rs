//! The data partition: blocks of data and of objects never share a page, whatever frees, moves and trims do in
//! between, and figures tell the two apart.

#[path = "common/random.rs"]
mod random;

use random::Random;
use spanalloc::DataAlloc;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashSet;

#[global_allocator]
static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;

const PAGE: usize = 8192;

impl Random {
    fn layout(&mut self) -> Layout {
        let bits = if self.below(100) == 0 { 20 } else { 13 };
        let bound = 1 << self.below(bits + 1);
        let size = self.below(bound) + 1;
        let shift = if self.below(6) == 0 {
            self.below(14)
        } else {
            self.below(5)
        };
        Layout::from_size_align(size, 1 << shift).expect("small sizes")
    }
}

struct Live {
    block: *mut u8,
    layout: Layout,
    stamp: u8,
    data: bool,
}

fn pages(live: &[Live], data: bool) -> HashSet<usize> {
    let of_kind = live.iter().filter(|live| live.data == data);
    of_kind
        .flat_map(|live| {
            let first = live.block as usize;
            first / PAGE..=(first + live.layout.size() - 1) / PAGE
        })
        .collect()
}

/// # Safety
/// The block is live.
unsafe fn check(live: &Live, bytes: usize) {
    // SAFETY: the caller's duty.
    let contents = unsafe { std::slice::from_raw_parts(live.block, bytes) };
    assert!(
        contents.iter().all(|&byte| byte == live.stamp),
        "{:?}",
        live.layout
    );
}

fn walk(seed: u64, steps: usize, trims: bool) {
    let mut random = Random(seed);
    let mut live: Vec<Live> = Vec::new();
    for step in 0..steps {
        let stamp = step as u8 | 1;
        let data = random.below(2) == 0;
        let by = |data: bool| -> &dyn GlobalAlloc { if data { &DataAlloc } else { &ALLOCATOR } };
        // SAFETY: blocks are used, resized and freed with the layout and by the allocator that they came from; data
        // blocks also without a layout, as C does.
        unsafe {
            if live.len() < 300 || (live.len() < 3_000 && random.below(2) == 0) {
                let layout = random.layout();
                let block = if random.below(4) == 0 {
                    let block = by(data).alloc_zeroed(layout);
                    check(
                        &Live {
                            block,
                            layout,
                            stamp: 0,
                            data,
                        },
                        layout.size(),
                    );
                    block
                } else {
                    by(data).alloc(layout)
                };
                assert!(!block.is_null() && (block as usize).is_multiple_of(layout.align()));
                block.write_bytes(stamp, layout.size());
                live.push(Live {
                    block,
                    layout,
                    stamp,
                    data,
                });
                continue;
            }
            let at = random.below(live.len());
            let old = live.swap_remove(at);
            check(&old, old.layout.size());
            match random.below(4) {
                0 => {
                    let size = random.layout().size();
                    let block = by(old.data).realloc(old.block, old.layout, size);
                    let layout = Layout::from_size_align_unchecked(size, old.layout.align());
                    let moved = Live {
                        block,
                        layout,
                        ..old
                    };
                    check(&moved, size.min(old.layout.size()));
                    block.write_bytes(stamp, size);
                    live.push(Live { stamp, ..moved });
                }
                1 => {
                    assert!(spanalloc::alloc::usable_size(old.block) >= old.layout.size());
                    spanalloc::alloc::free(old.block);
                }
                _ => by(old.data).dealloc(old.block, old.layout),
            }
        }
        if step % 10_000 == 9_999 {
            assert!(pages(&live, true).is_disjoint(&pages(&live, false)));
            if trims {
                spanalloc::trim(0);
            }
        }
    }
    for old in live {
        // SAFETY: as above.
        unsafe {
            check(&old, old.layout.size());
            spanalloc::alloc::free(old.block);
        }
    }
}

#[test]
fn the_partitions_never_share_a_page_and_figures_add_up() {
    let threads: Vec<_> = (1..=3)
        .map(|seed| std::thread::spawn(move || walk(seed, 150_000, seed == 1)))
        .collect();
    for thread in threads {
        thread.join().expect("the model holds");
    }
    spanalloc::trim(0);
    let before = spanalloc::stats();
    assert!(
        before.data_in_use_bytes < 64 << 10,
        "all is freed: {before:?}"
    );
    let layout = Layout::from_size_align(1000, 1).expect("a layout");
    // SAFETY: used and freed with its layout.
    let blocks: Vec<*mut u8> = (0..1_000)
        .map(|_| unsafe { DataAlloc.alloc(layout) })
        .collect();
    let full = spanalloc::stats();
    let added = full.data_in_use_bytes - before.data_in_use_bytes;
    assert_eq!(added, 1_000 * 1024);
    assert!(full.in_use_bytes >= before.in_use_bytes + added);
    let mut found = 0;
    assert!(spanalloc::walk(|region| {
        let first = region.address as usize;
        let here = |block: &&*mut u8| (first..first + region.bytes).contains(&(**block as usize));
        let inside = blocks.iter().filter(here).count();
        assert!(inside == 0 || region.partition == 1);
        found += inside;
        true
    }));
    assert_eq!(found, blocks.len());
    for block in blocks {
        // SAFETY: as above.
        unsafe { DataAlloc.dealloc(block, layout) };
    }
    let trimmed = spanalloc::trim(0);
    assert!(trimmed.released_bytes > 0);
    assert_eq!(
        spanalloc::stats().data_in_use_bytes,
        before.data_in_use_bytes
    );
    limits_count_both();
}

fn limits_count_both() {
    let used = spanalloc::stats();
    let in_spans = used.small_span_bytes + used.large_bytes;
    spanalloc::set_limits(0, in_spans + (4 << 20), None);
    let layout = Layout::from_size_align(3 << 20, 1).expect("a layout");
    // SAFETY: used and freed with its layout.
    unsafe {
        let data = DataAlloc.alloc(layout);
        assert!(!data.is_null());
        assert!(
            ALLOCATOR.alloc(layout).is_null(),
            "together they are beyond the limit"
        );
        assert!(DataAlloc.alloc(layout).is_null());
        DataAlloc.dealloc(data, layout);
        let object = ALLOCATOR.alloc(layout);
        assert!(!object.is_null() && DataAlloc.alloc(layout).is_null());
        ALLOCATOR.dealloc(object, layout);
    }
    spanalloc::set_limits(0, 0, None);
}
