//! What was sampled: sites (a stack and a size class) with their counts, and the blocks that are live.
//!
//! Memory comes from mappings of the profile's own and is never given back: sites are a few hundred bytes
//! each, and there is one per stack and class of size, however long the program runs.
//! Invariants: T1 a site's live count is the number of its entries among the live blocks; T2 an address
//! is at most once among them; T3 the filter counts each live block, so 0 there means "not sampled".

use super::gap::Gaps;
use super::stack::Frames;
use crate::os::{map_fresh, unmap};
use crate::size_class::{MAX_SMALL, NUM_CLASSES, class_of};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Blocks and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: usize) {
        self.blocks += 1;
        self.bytes += bytes as u64;
    }
}

/// A stack and a class of size; its addresses lie behind it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Site {
    /// In the same bucket.
    next: *mut Site,
    /// The site that was made after this one.
    pub(super) newer: *mut Site,
    hash: u64,
    group: u32,
    depth: u32,
    pub(super) live: Count,
    pub(super) all: Count,
}

impl Site {
    /// Return addresses, the innermost first.
    pub(super) fn addresses(&self) -> &[u64] {
        let first = core::ptr::from_ref(self).wrapping_add(1).cast::<u64>();
        // SAFETY: `site` writes `depth` addresses behind each site; neither changes afterwards.
        unsafe { core::slice::from_raw_parts(first, self.depth as usize) }
    }
}

/// A sampled block that has not been freed.
#[derive(Clone, Copy, Debug)]
struct Live {
    /// 0: nothing here.
    block: usize,
    bytes: usize,
    site: *mut Site,
}

const BUCKETS: usize = 1024;
const FIRST_LIVE: usize = 1024;
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) gaps: Gaps,
    buckets: [*mut Site; BUCKETS],
    pub(super) oldest: *mut Site,
    newest: *mut Site,
    chunk: *mut u8,
    left: usize,
    live: *mut Live,
    room: usize,
    pub(super) live_count: Count,
    pub(super) all_count: Count,
    /// Samples that no memory was there for.
    pub(super) dropped: u64,
    pub(super) mapped: usize,
}

// SAFETY: all pointers are to memory of the table's own; its lock guards them.
unsafe impl Send for Table {}

/// How many sampled blocks are live by a hash of their addresses, so that most frees need not look.
static FILTER: [AtomicU8; 1 << FILTER_BITS] = [const { AtomicU8::new(0) }; 1 << FILTER_BITS];
const FILTER_BITS: u32 = 14;

fn hash(block: usize) -> u64 {
    (block as u64 >> 3).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn filter(block: usize) -> &'static AtomicU8 {
    &FILTER[(hash(block) >> (64 - FILTER_BITS)) as usize]
}

/// False: no sampled block lies at this address. To be asked without the lock, by whoever frees it.
#[inline]
pub(super) fn may_be_live(block: usize) -> bool {
    filter(block).load(Relaxed) != 0
}

/// Sizes that are counted together: a class, or a sixteenth of a doubling, in which the weights of a
/// sample are so near each other that the mean size has the mean weight.
fn group(bytes: usize) -> u32 {
    match class_of(bytes) {
        Some(class) => class as u32,
        None => {
            let log = (bytes / MAX_SMALL).ilog2();
            let part = (bytes >> (log + MAX_SMALL.ilog2() - 4)) as u32 & 15;
            NUM_CLASSES as u32 + log * 16 + part
        }
    }
}

impl Table {
    pub(super) const fn new() -> Self {
        Self {
            gaps: Gaps::new(),
            buckets: [null_mut(); BUCKETS],
            oldest: null_mut(),
            newest: null_mut(),
            chunk: null_mut(),
            left: 0,
            live: null_mut(),
            room: 0,
            live_count: Count {
                blocks: 0,
                bytes: 0,
            },
            all_count: Count {
                blocks: 0,
                bytes: 0,
            },
            dropped: 0,
            mapped: 0,
        }
    }

    /// Counts a sampled block.
    pub(super) fn add(&mut self, block: usize, bytes: usize, frames: &Frames) {
        // A free that was not seen, because the thread had not been reached yet.
        self.remove(block);
        let site = self.site(group(bytes), frames);
        if site.is_null() || !self.make_room() {
            self.dropped += 1;
            return;
        }
        let count = filter(block).load(Relaxed);
        // What has reached the end stays there: a full place is only a useless one.
        filter(block).store(count.saturating_add(1), Relaxed);
        // SAFETY: the site is the table's; there is room.
        unsafe {
            (*site).live.add(bytes);
            (*site).all.add(bytes);
            self.put(Live { block, bytes, site });
        }
        self.live_count.add(bytes);
        self.all_count.add(bytes);
    }

    /// Forgets a block if it is among the live ones.
    pub(super) fn remove(&mut self, block: usize) {
        let Some(mut hole) = self.find(block) else {
            return;
        };
        // SAFETY: all indices are below `room`; sites are never unmapped.
        unsafe {
            let entry = *self.live.add(hole);
            (*entry.site).live.blocks -= 1;
            (*entry.site).live.bytes -= entry.bytes as u64;
            self.live_count.blocks -= 1;
            self.live_count.bytes -= entry.bytes as u64;
            // Whoever had to step over the hole moves into it (Knuth 6.4, algorithm R).
            let mut at = hole;
            loop {
                at = (at + 1) & (self.room - 1);
                let other = *self.live.add(at);
                if other.block == 0 {
                    break;
                }
                let home = self.home(other.block);
                if (at.wrapping_sub(home) & (self.room - 1))
                    >= (at.wrapping_sub(hole) & (self.room - 1))
                {
                    *self.live.add(hole) = other;
                    hole = at;
                }
            }
            (*self.live.add(hole)).block = 0;
        }
        let count = filter(block).load(Relaxed);
        if count < u8::MAX {
            filter(block).store(count - 1, Relaxed);
        }
    }

    /// Forgets all live blocks, but not what was counted in all.
    pub(super) fn forget_live(&mut self) {
        for at in 0..self.room {
            // SAFETY: below `room`.
            unsafe { (*self.live.add(at)).block = 0 };
        }
        let mut site = self.oldest;
        while !site.is_null() {
            // SAFETY: sites are never unmapped.
            unsafe {
                (*site).live = Count::default();
                site = (*site).newer;
            }
        }
        self.live_count = Count::default();
        for place in &FILTER {
            place.store(0, Relaxed);
        }
    }

    fn home(&self, block: usize) -> usize {
        (hash(block) >> 20) as usize & (self.room - 1)
    }

    fn find(&self, block: usize) -> Option<usize> {
        if self.room == 0 {
            return None;
        }
        let mut at = self.home(block);
        loop {
            // SAFETY: below `room`; at most half of the places are taken, so the search ends.
            match unsafe { (*self.live.add(at)).block } {
                0 => return None,
                there if there == block => return Some(at),
                _ => at = (at + 1) & (self.room - 1),
            }
        }
    }

    /// # Safety
    /// There is room and the block is not there.
    unsafe fn put(&mut self, entry: Live) {
        let mut at = self.home(entry.block);
        // SAFETY: as in `find`.
        unsafe {
            while (*self.live.add(at)).block != 0 {
                at = (at + 1) & (self.room - 1);
            }
            *self.live.add(at) = entry;
        }
    }

    /// Keeps half of the places free. False: no memory.
    fn make_room(&mut self) -> bool {
        if (self.live_count.blocks as usize + 1) * 2 <= self.room {
            return true;
        }
        let room = (self.room * 2).max(FIRST_LIVE);
        let fresh = map_fresh(room * size_of::<Live>()).cast::<Live>();
        if fresh.is_null() {
            return false;
        }
        let (old, old_room) = (self.live, self.room);
        (self.live, self.room) = (fresh, room);
        self.mapped += (room - old_room) * size_of::<Live>();
        for at in 0..old_room {
            // SAFETY: the old places are still mapped; there is room for all in the new ones.
            unsafe {
                let entry = *old.add(at);
                if entry.block != 0 {
                    self.put(entry);
                }
            }
        }
        if old_room > 0 {
            unmap(old.cast(), old_room * size_of::<Live>());
        }
        true
    }

    /// The site of a stack and a group, a new one if there is none. Null: no memory.
    fn site(&mut self, group: u32, frames: &Frames) -> *mut Site {
        let hash = frames.hash ^ u64::from(group).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bucket = (hash >> 40) as usize % BUCKETS;
        let mut site = self.buckets[bucket];
        while !site.is_null() {
            // SAFETY: sites are never unmapped.
            let known = unsafe { &*site };
            if known.hash == hash && known.group == group && known.addresses() == frames.addresses()
            {
                return site;
            }
            site = known.next;
        }
        let addresses = frames.addresses();
        let bytes = size_of::<Site>() + size_of_val(addresses);
        if self.left < bytes {
            let chunk = map_fresh(CHUNK);
            if chunk.is_null() {
                return null_mut();
            }
            (self.chunk, self.left) = (chunk, CHUNK);
            self.mapped += CHUNK;
        }
        let site = self.chunk.cast::<Site>();
        self.chunk = self.chunk.wrapping_add(bytes);
        self.left -= bytes;
        // SAFETY: the bytes are fresh and the table's own, 8-byte aligned as all sizes are multiples of 8.
        unsafe {
            site.write(Site {
                next: self.buckets[bucket],
                newer: null_mut(),
                hash,
                group,
                depth: addresses.len() as u32,
                live: Count::default(),
                all: Count::default(),
            });
            let first = site.wrapping_add(1).cast::<u64>();
            first.copy_from_nonoverlapping(addresses.as_ptr(), addresses.len());
            if self.newest.is_null() {
                self.oldest = site;
            } else {
                (*self.newest).newer = site;
            }
        }
        self.buckets[bucket] = site;
        self.newest = site;
        site
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::stack::capture;
    use std::collections::HashMap;

    #[test]
    fn a_million_samples_and_frees_match_a_map() {
        let frames = capture();
        let mut table = Table::new();
        let mut model: HashMap<usize, usize> = HashMap::new();
        let mut random = 7_u64;
        for step in 0..1_000_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Few enough addresses that most are met again; their hashes collide.
            let block = 8 + (random >> 20) as usize % 6_000 * 8;
            let bytes = 1 + (random >> 40) as usize % 1_000_000;
            if random.is_multiple_of(2) {
                assert!(!model.contains_key(&block) || may_be_live(block));
                table.remove(block);
                model.remove(&block);
            } else {
                table.add(block, bytes, &frames);
                model.insert(block, bytes);
            }
            if step % 100_000 == 0 {
                check(&table, &model);
            }
        }
        check(&table, &model);
        assert_eq!(table.dropped, 0);
        table.forget_live();
        check(&table, &HashMap::new());
        assert!(table.all_count.blocks > 400_000);
    }

    fn check(table: &Table, model: &HashMap<usize, usize>) {
        let bytes: usize = model.values().sum();
        assert_eq!(table.live_count.blocks as usize, model.len());
        assert_eq!(table.live_count.bytes as usize, bytes);
        for block in model.keys() {
            assert!(table.find(*block).is_some());
        }
        let (mut live, mut site) = (Count::default(), table.oldest);
        while !site.is_null() {
            // SAFETY: sites are never unmapped.
            let known = unsafe { &*site };
            live.blocks += known.live.blocks;
            live.bytes += known.live.bytes;
            site = known.newer;
        }
        assert_eq!(live, table.live_count);
    }

    #[test]
    fn sizes_of_a_group_are_within_a_sixteenth() {
        let mut bytes = MAX_SMALL + 1;
        while bytes < 1 << 40 {
            let next = bytes + bytes / 16 + 1;
            assert_ne!(group(bytes), group(next), "{bytes}");
            assert!(group(bytes) >= NUM_CLASSES as u32);
            bytes = next;
        }
        assert_eq!(group(100), group(112));
        assert_ne!(group(112), group(113));
    }
}
