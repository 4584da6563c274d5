//! Size classes: which block sizes exist, which class serves a request, and how an address inside
//! a span becomes an object number without a division.
//!
//! [`SEED_SIZES`] and [`SEED_PAGES`] are the 67-entry tables of the seeds. The shipped table
//! ([`SIZES`], [`SPAN_PAGES`]) starts with exactly these and goes on to 256 KiB, because blocks of
//! 32 to 256 KiB are common enough to be worth a cache (docs/DESIGN.md compares the waste).
//!
//! Invariants: C1 `size <= SIZES[class_of(size)]`; C2 the table is monotone; C3 [`object_at`]
//! is exact for every offset in a span.

use crate::units::{PAGE_SHIFT, PAGE_SIZE};

/// Entries of the seeds' tables, class 0 (size 0) included.
pub const SEED_CLASSES: usize = 67;

/// The seeds' `class_to_size`.
pub const SEED_SIZES: [u32; SEED_CLASSES] = [
    0, 8, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352,
    384, 416, 448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048,
    2304, 2688, 3072, 3200, 3456, 4096, 4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728,
    10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072, 20480, 21760, 24576, 27264, 28672,
    32768,
];

/// The seeds' `class_to_allocnpages`: pages of a class's span.
pub const SEED_PAGES: [u8; SEED_CLASSES] = [
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 2, 1, 2, 1, 2, 1, 3, 2, 3, 1, 3, 2, 3, 4, 5, 6, 1, 7, 6, 5, 4, 3, 5, 7, 2, 9, 7, 5, 8, 3,
    10, 7, 4,
];

/// Our classes above the seeds': whole pages, four steps to 64 KiB, then eight per doubling.
const LARGE_PAGES: [u8; 20] = [
    5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 32,
];

/// Number of classes, class 0 ("not a small block") included.
pub const NUM_CLASSES: usize = SEED_CLASSES + LARGE_PAGES.len();
/// The largest request that a class serves; above it a span of its own is used.
pub const MAX_SMALL: usize = 256 << 10;
/// No span holds more objects than this, so that a bitmap is at most 16 words.
pub const MAX_OBJECTS: usize = 1024;
/// Busy classes get spans of up to this many bytes.
const MAX_SPAN_BYTES: usize = 64 << 10;

/// Bytes of a class's blocks. Index: class.
pub static SIZES: [u32; NUM_CLASSES] = {
    let mut table = [0; NUM_CLASSES];
    let mut class = 0;
    while class < NUM_CLASSES {
        table[class] = if class < SEED_CLASSES {
            SEED_SIZES[class]
        } else {
            (LARGE_PAGES[class - SEED_CLASSES] as u32) << PAGE_SHIFT
        };
        class += 1;
    }
    table
};

/// Pages of a class's *first* span. Later spans are longer, see [`span_pages`].
pub static SPAN_PAGES: [u8; NUM_CLASSES] = {
    let mut table = [0; NUM_CLASSES];
    let mut class = 0;
    while class < NUM_CLASSES {
        table[class] = if class < SEED_CLASSES {
            SEED_PAGES[class]
        } else {
            LARGE_PAGES[class - SEED_CLASSES]
        };
        class += 1;
    }
    table
};

/// Reciprocals for [`object_at`]: ceil(2^64 / size).
pub static RECIPROCALS: [u64; NUM_CLASSES] = {
    let mut table = [0; NUM_CLASSES];
    let mut class = 1;
    while class < NUM_CLASSES {
        let size = SIZES[class] as u64;
        table[class] = (u64::MAX / size) + 1;
        class += 1;
    }
    table
};

/// Up to here requests are classed in steps of 8 bytes, above in steps of 128 (as the seeds do).
pub const FINE_LIMIT: usize = 1024;
const FINE_ENTRIES: usize = FINE_LIMIT / 8 + 1;
const COARSE_ENTRIES: usize = (MAX_SMALL - FINE_LIMIT) / 128 + 1;

/// Class by `ceil(size / 8)`, for sizes up to 1 KiB. Entry 0 is class 1: `malloc(0)` gets a block.
static FINE: [u8; FINE_ENTRIES] = {
    let mut table = [1; FINE_ENTRIES];
    let mut entry = 1;
    let mut class = 1;
    while entry < FINE_ENTRIES {
        while (SIZES[class] as usize) < entry * 8 {
            class += 1;
        }
        table[entry] = class as u8;
        entry += 1;
    }
    table
};

/// Class by `ceil((size - 1024) / 128)`, for sizes from 1 KiB to 256 KiB.
static COARSE: [u8; COARSE_ENTRIES] = {
    let mut table = [0; COARSE_ENTRIES];
    let mut entry = 0;
    let mut class = 1;
    while entry < COARSE_ENTRIES {
        while (SIZES[class] as usize) < FINE_LIMIT + entry * 128 {
            class += 1;
        }
        table[entry] = class as u8;
        entry += 1;
    }
    table
};

/// The class for a request of `size` bytes, or `None` above [`FINE_LIMIT`].
#[inline(always)]
#[must_use]
pub fn fine_class_of(size: usize) -> Option<usize> {
    // SAFETY: (1024 + 7) / 8 = 128 is the last entry of the table.
    (size <= FINE_LIMIT).then(|| unsafe { *FINE.get_unchecked((size + 7) >> 3) } as usize)
}

/// The class for a request of `size` bytes, or `None` above [`MAX_SMALL`].
#[inline(always)]
#[must_use]
pub fn class_of(size: usize) -> Option<usize> {
    if let Some(class) = fine_class_of(size) {
        Some(class)
    } else if size <= MAX_SMALL {
        // SAFETY: size is in (1024, MAX_SMALL], so the entry is at most COARSE_ENTRIES - 1.
        Some(unsafe { *COARSE.get_unchecked((size - FINE_LIMIT + 127) >> 7) } as usize)
    } else {
        None
    }
}

/// The class for `size` bytes aligned to `align`, a power of two of at most one page: the first
/// class that is large enough and whose size is a multiple of the alignment. Spans start on a
/// page, so all their objects are then aligned. `None`: use a span of its own.
#[must_use]
pub fn class_of_aligned(size: usize, align: usize) -> Option<usize> {
    debug_assert!(align.is_power_of_two());
    if align > PAGE_SIZE || size > MAX_SMALL {
        return None;
    }
    let mut class = class_of(size.max(align))?;
    while class < NUM_CLASSES {
        if SIZES[class] as usize & (align - 1) == 0 {
            return Some(class);
        }
        class += 1;
    }
    None
}

/// Bytes of a block of `class`, which must be less than [`NUM_CLASSES`].
#[inline(always)]
#[must_use]
pub fn size_of_class(class: usize) -> usize {
    debug_assert!(class < NUM_CLASSES);
    // SAFETY: every class comes from `class_of` or from the page map, which holds only such.
    unsafe { *SIZES.get_unchecked(class) as usize }
}

/// Number of the object that covers `offset` in a span, and whether it starts there: by one multiplication with the
/// class's entry of [`RECIPROCALS`]. Of an offset that no span has the number is too large for any.
///
/// With r = ceil(2^64 / size) and offset = q size + s the product is q 2^64 + q e + s r, e < size being what rounding
/// added. While q e < r, which all spans are short enough for, the upper half is q, and the lower half is below r
/// exactly if s is 0.
#[inline(always)]
#[must_use]
pub fn object_at(reciprocal: u64, offset: usize) -> (usize, bool) {
    let product = u128::from(reciprocal) * offset as u128;
    ((product >> 64) as usize, (product as u64) < reciprocal)
}

/// Number of the object of `class` that starts at `offset` in a span; `None` where none starts.
#[must_use]
pub fn object_index(class: usize, offset: usize) -> Option<usize> {
    let (index, starts) = object_at(reciprocal_of(class), offset);
    starts.then_some(index)
}

/// The class's entry of [`RECIPROCALS`].
#[inline(always)]
#[must_use]
pub fn reciprocal_of(class: usize) -> u64 {
    debug_assert!(class < NUM_CLASSES);
    // SAFETY: as in `size_of_class`.
    unsafe { *RECIPROCALS.get_unchecked(class) }
}

/// A new span is at most this part of what its class has, so that little of a class lies idle.
const GROWTH_SHARE: usize = 4;
/// The end of a class's first spans may be this part of them.
const SHORT_WASTE: usize = 4;
/// A class has short spans until it has so many times the length of a long one.
const SHORT_SHARE: usize = 2;
/// Pages of the spans of a class that has few: the fewest of which the objects leave no more than a quarter. The seeds'
/// spans of large objects are up to ten pages long, much for a program that has one or two such objects.
static SHORT_PAGES: [u8; NUM_CLASSES] = {
    let mut table = [0; NUM_CLASSES];
    let mut class = 1;
    while class < NUM_CLASSES {
        let size = SIZES[class] as usize;
        let mut pages = size.div_ceil(PAGE_SIZE);
        while pages < SPAN_PAGES[class] as usize
            && (pages * PAGE_SIZE % size) * SHORT_WASTE > pages * PAGE_SIZE
        {
            pages += 1;
        }
        table[class] = pages as u8;
        class += 1;
    }
    table
};

/// Pages of the next span of a class that has `held` pages: few first, then the seeds' length, then doubled up to
/// 64 KiB, so that small programs touch little and busy classes ask the page heap seldom.
#[must_use]
pub fn span_pages(class: usize, held: usize) -> usize {
    let size = SIZES[class] as usize;
    let mut pages = SPAN_PAGES[class] as usize;
    if pages * SHORT_SHARE > held {
        return SHORT_PAGES[class] as usize;
    }
    loop {
        let next = pages * 2;
        let bytes = next << PAGE_SHIFT;
        if next * GROWTH_SHARE > held || bytes > MAX_SPAN_BYTES || bytes / size > MAX_OBJECTS {
            return pages;
        }
        pages = next;
    }
}

/// Objects of `class` in a span of `pages`.
#[must_use]
pub fn objects_in(class: usize, pages: usize) -> usize {
    (pages << PAGE_SHIFT) / SIZES[class] as usize
}

/// Most objects that travel between tiers at once.
pub const MAX_BATCH: usize = 128;

/// See [`batch_of`].
static BATCHES: [u8; NUM_CLASSES] = {
    let mut table = [MAX_BATCH as u8; NUM_CLASSES];
    let mut class = 1;
    while class < NUM_CLASSES {
        let count = 32768 / SIZES[class] as usize;
        if count < MAX_BATCH {
            table[class] = if count == 0 { 1 } else { count as u8 };
        }
        class += 1;
    }
    table
};

/// Blocks that a thread cache's list has room for at most, and that move between it and the middle
/// tier at once: 32 KiB worth, at least 1, at most 128.
#[inline]
#[must_use]
pub fn batch_of(class: usize) -> usize {
    debug_assert!(class < NUM_CLASSES);
    // SAFETY: as in `size_of_class`.
    unsafe { *BATCHES.get_unchecked(class) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that a class may have when it takes its next span.
    const HELD: [usize; 6] = [0, 4, 16, 64, 256, usize::MAX];

    #[test]
    fn seed_tables_are_the_seeds() {
        assert_eq!(
            SEED_SIZES[5], 64,
            "the seed's example names class_to_size[10] by mistake"
        );
        assert_eq!(SEED_SIZES.iter().map(|&s| s as u64).sum::<u64>(), 372_744);
        assert_eq!(SEED_PAGES.iter().map(|&p| u32::from(p)).sum::<u32>(), 167);
        assert_eq!(&SIZES[..SEED_CLASSES], &SEED_SIZES[..]);
        assert_eq!(&SPAN_PAGES[..SEED_CLASSES], &SEED_PAGES[..]);
    }

    #[test]
    fn every_request_gets_the_smallest_class_that_fits() {
        let mut class = 1;
        for size in 0..=MAX_SMALL {
            while (SIZES[class] as usize) < size {
                class += 1;
            }
            assert_eq!(class_of(size), Some(class), "size {size}");
        }
        assert_eq!(class_of(MAX_SMALL + 1), None);
        assert_eq!(class_of(usize::MAX), None);
    }

    #[test]
    fn classes_are_monotone_and_aligned() {
        for class in 1..NUM_CLASSES {
            assert!(SIZES[class] > SIZES[class - 1]);
            assert!(
                SIZES[class] < 16 || SIZES[class].is_multiple_of(16),
                "class {class}"
            );
        }
        assert_eq!(SIZES[NUM_CLASSES - 1] as usize, MAX_SMALL);
    }

    #[test]
    fn offsets_that_no_span_has_are_no_objects_of_it() {
        for class in 1..NUM_CLASSES {
            let objects = objects_in(class, span_pages(class, usize::MAX));
            for start in [1 << 21, 1 << 40, usize::MAX / 2, usize::MAX - (1 << 13)] {
                for offset in start..start + 4096 {
                    let number = object_index(class, offset);
                    assert!(number.is_none_or(|number| number > objects), "{offset}");
                }
            }
        }
    }

    #[test]
    fn object_index_is_exact_for_every_byte_of_every_span() {
        for (class, &size) in SIZES.iter().enumerate().skip(1) {
            for held in HELD {
                let bytes = span_pages(class, held) << PAGE_SHIFT;
                for offset in 0..bytes {
                    let start = offset.is_multiple_of(size as usize);
                    let number = start.then_some(offset / size as usize);
                    assert_eq!(object_index(class, offset), number, "{size} at {offset}");
                }
            }
        }
    }

    #[test]
    fn spans_waste_little_and_fit_the_bitmap() {
        for (class, &size) in SIZES.iter().enumerate().skip(1) {
            for held in HELD {
                let pages = span_pages(class, held);
                let objects = objects_in(class, pages);
                assert!((1..=MAX_OBJECTS).contains(&objects), "class {class}");
                let tail = (pages << PAGE_SHIFT) - objects * size as usize;
                // The seeds' own worst case: 512 of 8192 bytes, and 1/8 is what Go accepts.
                let part = if pages < SPAN_PAGES[class] as usize {
                    SHORT_WASTE
                } else {
                    16
                };
                assert!(
                    tail * part <= pages << PAGE_SHIFT,
                    "class {class}: {tail} bytes of tail"
                );
            }
        }
    }

    /// Worst internal waste of requests in `(from, to]` bytes, as a part of the block.
    fn worst_waste(from: usize, to: usize, block: impl Fn(usize) -> usize) -> f64 {
        let waste = |size| (block(size) - size) as f64 / block(size) as f64;
        (from + 1..=to).map(waste).fold(0.0, f64::max)
    }

    #[test]
    fn internal_waste_is_as_the_document_compares_it() {
        let shipped = |size| SIZES[class_of(size).expect("small")] as usize;
        let seeds = |size: usize| {
            let small = SEED_SIZES.iter().find(|&&block| block as usize >= size);
            small.map_or(size.next_multiple_of(PAGE_SIZE), |&block| block as usize)
        };
        for (from, to, ours, theirs) in [
            (1 << 10, 32 << 10, 0.158, 0.158),
            (32 << 10, 64 << 10, 0.2, 0.2),
            (64 << 10, 256 << 10, 0.125, 0.112),
        ] {
            let (found, seed) = (worst_waste(from, to, shipped), worst_waste(from, to, seeds));
            assert!(
                found <= ours && seed <= theirs,
                "{from} to {to}: {found:.4}, seeds {seed:.4}"
            );
        }
    }

    #[test]
    fn fine_classes_of_multiples_of_an_alignment_are_multiples_of_it() {
        for shift in 4..=FINE_LIMIT.ilog2() {
            let align = 1 << shift;
            for size in (align..=FINE_LIMIT).step_by(align) {
                let class = fine_class_of(size).expect("the size is fine");
                assert!(SIZES[class].is_multiple_of(align as u32), "{size} {align}");
                assert_eq!(Some(class), class_of_aligned(size - align + 1, align));
            }
        }
    }

    #[test]
    fn aligned_classes_are_multiples_of_the_alignment() {
        let mut align = 8;
        while align <= PAGE_SIZE {
            for size in [0, 1, 7, 24, 100, 1000, 5000, 9000, 33_000, 200_000] {
                let class = class_of_aligned(size, align).expect("the last class is 32 pages");
                assert!(
                    SIZES[class] as usize >= size && (SIZES[class] as usize).is_multiple_of(align)
                );
            }
            align *= 2;
        }
        assert_eq!(class_of_aligned(1, PAGE_SIZE * 2), None);
        assert_eq!(class_of_aligned(MAX_SMALL + 1, 16), None);
    }
}
