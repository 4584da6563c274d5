//! Integrity of the blocks a subject gives out: alignment, no overlap, contents kept until free, zeroed calloc,
//! realloc's prefix. A violation ends the run with its place.

use crate::fail;
use crate::numbers::grouped;
use crate::shadow::Shadow;
use crate::shared::SharedArray;
use crate::touch;
use std::ffi::c_void;
use std::ptr;

/// What is known about the block of a slot.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Meta {
    /// Bytes requested.
    pub size: u64,
    /// Bytes that malloc_usable_size gave.
    pub usable: u64,
    /// Of the requested bytes those behind the last one that is written.
    pub unwritten: u64,
    /// Pattern at the block's begin and end; differs from block to block.
    tag: u64,
    /// Where the pattern stands a second time, at the end of the bytes that are written; 0: nowhere.
    tagged_end: u64,
}

/// Where in the script something happened.
#[derive(Clone, Copy)]
pub struct Place {
    /// Thread of the script.
    pub thread: u32,
    /// Number of its op, from 0.
    pub op: u64,
}

impl Place {
    fn violation(self, what: &str) -> ! {
        fail::with(format!(
            "{what} at op {} of thread {}",
            grouped(self.op),
            self.thread
        ))
    }
}

/// A block as the subject gave it out.
#[derive(Clone, Copy)]
pub struct Block {
    /// Its address; null only with size 0.
    pub start: *mut c_void,
    /// Bytes requested.
    pub size: u64,
    /// Of these so many, from the first on, may be written: beyond them no page is touched.
    pub reach: u64,
    /// log2 of the alignment asked for, 0 = default.
    pub align_log2: u8,
}

/// The checks of a run.
#[derive(Clone, Copy)]
pub struct Checker {
    shadow: Shadow,
}

impl Checker {
    /// No block alive, or `None` when the memory cannot be mapped.
    pub fn new() -> Option<Self> {
        Some(Self {
            shadow: Shadow::new()?,
        })
    }

    /// Checks a fresh block and puts its pattern in. `policy` says which of its bytes may be touched.
    pub fn allocated(self, place: Place, block: Block, zeroed: bool, policy: u8, meta: &mut Meta) {
        if block.start.is_null() {
            *meta = Meta::default();
            return;
        }
        self.placed(place, block);
        if zeroed && !is_zero(block, policy) {
            place.violation(&format!(
                "calloc of {} bytes is not zeroed",
                grouped(block.size)
            ));
        }
        self.tag(place, block, policy, meta);
    }

    /// Checks a block that is about to be freed or moved, and forgets it.
    pub fn leaving(self, place: Place, start: *mut c_void, meta: &Meta) {
        if start.is_null() {
            return;
        }
        if !holds(start, meta, meta.size) {
            place.violation(&format!(
                "contents of a block of {} bytes changed before its free",
                grouped(meta.size)
            ));
        }
        self.shadow.clear(start as usize, meta.size as usize);
    }

    /// Checks a block that the script leaves alive, after its last op.
    pub fn surviving(self, start: *mut c_void, meta: &Meta) {
        if !holds(start, meta, meta.size) {
            fail::with(format!(
                "contents of a block of {} bytes that is never freed changed before the script's end",
                grouped(meta.size)
            ));
        }
    }

    /// Checks a block that realloc gave, against what was known of the old one, and puts the new pattern in.
    pub fn reallocated(self, place: Place, block: Block, policy: u8, meta: &mut Meta) {
        if block.start.is_null() {
            *meta = Meta::default();
            return;
        }
        self.placed(place, block);
        if !holds(block.start, meta, block.size) {
            place.violation(&format!(
                "realloc from {} to {} bytes lost contents",
                grouped(meta.size),
                grouped(block.size)
            ));
        }
        self.tag(place, block, policy, meta);
    }

    /// Forgets a block without looking at it.
    pub fn forget(self, start: *mut c_void, size: u64) {
        self.shadow.clear(start as usize, size as usize);
    }

    fn placed(self, place: Place, block: Block) {
        let wanted = match block.align_log2 {
            // C guarantees the alignment of any object that fits; on x86-64 none needs more than 16.
            0 => 1usize << block.size.clamp(1, 16).ilog2(),
            shift => 1 << shift,
        };
        if !(block.start as usize).is_multiple_of(wanted) {
            place.violation(&format!(
                "misaligned block of {} bytes ({:p}, {wanted} wanted)",
                grouped(block.size),
                block.start
            ));
        }
        if !self.shadow.mark(block.start as usize, block.size as usize) {
            place.violation("overlapping blocks");
        }
    }

    fn tag(self, place: Place, block: Block, policy: u8, meta: &mut Meta) {
        let seed =
            block.start as u64 ^ place.op.rotate_left(40) ^ u64::from(place.thread).rotate_left(20);
        meta.tag = scramble(seed);
        meta.size = block.size;
        meta.tagged_end = match block.reach {
            reach @ 16.. if policy >= touch::PAGE || block.size <= 64 => reach - 8,
            _ => 0,
        };
        let bytes = block.start.cast::<u8>();
        debug_assert!(block.reach <= block.size);
        // Of a block that the program never wrote to nothing is touched, the pattern neither.
        if block.reach == 0 {
            return;
        }
        // SAFETY: both places lie inside the block of `size` bytes.
        unsafe {
            let tag = meta.tag.to_ne_bytes();
            ptr::copy_nonoverlapping(tag.as_ptr(), bytes, block.size.min(8) as usize);
            if meta.tagged_end != 0 {
                bytes
                    .add(meta.tagged_end as usize)
                    .cast::<u64>()
                    .write_unaligned(meta.tag);
            }
        }
    }
}

/// Whether a block still has the pattern, as far as its first `kept` bytes reach.
fn holds(start: *mut c_void, meta: &Meta, kept: u64) -> bool {
    if meta.unwritten == meta.size {
        return true;
    }
    let bytes = start.cast::<u8>();
    let begin = meta.size.min(kept).min(8) as usize;
    // SAFETY: the block has at least `min(size, kept)` bytes, and only those are read.
    unsafe {
        let found = std::slice::from_raw_parts(bytes, begin);
        found == &meta.tag.to_ne_bytes()[..begin]
            && (meta.tagged_end == 0
                || kept < meta.tagged_end + 8
                || bytes
                    .add(meta.tagged_end as usize)
                    .cast::<u64>()
                    .read_unaligned()
                    == meta.tag)
    }
}

/// Whether the part of a calloc'ed block that the policy lets us look at is zero: all of it up to 1 MiB, of larger
/// ones the first line of each page; only the first line where pages are not to be touched.
fn is_zero(block: Block, policy: u8) -> bool {
    let size = block.size as usize;
    // SAFETY: the block has `size` bytes and nobody else knows it yet.
    let bytes = unsafe { std::slice::from_raw_parts(block.start.cast::<u8>(), size) };
    let zero = |part: &[u8]| part.iter().fold(0, |sum, byte| sum | byte) == 0;
    match policy {
        touch::NONE | touch::FIRST => zero(&bytes[..size.min(64)]),
        _ if size <= 1 << 20 => zero(bytes),
        _ => bytes
            .chunks(4096)
            .all(|page| zero(&page[..page.len().min(64)])),
    }
}

/// The finaliser of splitmix64.
fn scramble(seed: u64) -> u64 {
    let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// One entry a slot, in shared memory.
pub type Metas = SharedArray<Meta>;
