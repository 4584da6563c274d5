//! One process's heap while the streams are merged: which block lies at which address.

use crate::trace::alone::Inheritance;
use crate::trace::event::{Effect, EventKind};
use crate::trace::process::ProcessCounts;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Addresses are well spread after one multiplication; the standard hasher costs as much as the rest of the merge.
#[derive(Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

/// A map by address (or by process and address).
pub type Addresses<K, V> = HashMap<K, V, BuildHasherDefault<AddressHasher>>;

/// A block that a forked process has from an ancestor and has not touched yet.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// Its owner and its number there.
    pub from: Inheritance,
    /// Bytes requested.
    pub size: u64,
    /// log2 of its alignment.
    pub align_log2: u8,
}

/// The heap of one process.
#[derive(Debug, Default)]
pub struct Space {
    /// Its own blocks.
    pub blocks: Addresses<u64, u32>,
    /// Blocks of its ancestors.
    pub inherited: Addresses<u64, Inherited>,
    /// For the inherited blocks that it touched, in that order: where they are from.
    pub sources: Vec<Inheritance>,
    /// It may go on: it is no fork, or its parent has come to the fork.
    pub begun: bool,
    /// Streams that are not at their end.
    pub running: u32,
    /// Its end has come in the merge.
    pub ending: bool,
    /// A thread of it.
    pub thread: u32,
    /// First break seen.
    pub first_break: Option<u64>,
    /// Requested bytes alive that are its own.
    live_bytes: u64,
    /// What it did.
    pub counts: ProcessCounts,
}

impl Space {
    /// The heap of a child that is forked off now. `about` tells size and alignment of a block.
    pub fn fork(&self, about: impl Fn(u32) -> (u64, u8)) -> Addresses<u64, Inherited> {
        let older = self.inherited.iter().map(|(&address, block)| {
            let up = block.from.up + 1;
            let from = Inheritance { up, ..block.from };
            (address, Inherited { from, ..*block })
        });
        let own = self.blocks.iter().map(|(&address, &number)| {
            let (size, align_log2) = about(number);
            let block = Inherited {
                from: Inheritance { up: 1, number },
                size,
                align_log2,
            };
            (address, block)
        });
        older.chain(own).collect()
    }

    /// Counts an event; `before` is the size that its block had, 0 for a new one.
    pub fn count(&mut self, kind: EventKind, before: u64, size: u64) {
        let counts = &mut self.counts;
        counts.events += 1;
        match kind.effect() {
            Effect::Alloc | Effect::Resize => {
                self.live_bytes = (self.live_bytes - before).saturating_add(size);
                counts.peak_live_bytes = counts.peak_live_bytes.max(self.live_bytes);
                counts.end_live_blocks += u64::from(kind.effect() == Effect::Alloc);
                counts.reallocs += u64::from(kind.effect() == Effect::Resize);
                if kind != EventKind::Inherited {
                    counts.allocations += u64::from(kind.effect() == Effect::Alloc);
                    counts.bytes_allocated = counts.bytes_allocated.saturating_add(size);
                }
            }
            // What goes with its process was alive at its end.
            Effect::Free if kind == EventKind::Gone => {}
            Effect::Free => {
                counts.frees += u64::from(kind != EventKind::LostFree);
                self.live_bytes -= before;
                counts.end_live_blocks -= 1;
            }
            Effect::Told | Effect::None => {}
        }
        counts.end_live_bytes = self.live_bytes;
    }
}
