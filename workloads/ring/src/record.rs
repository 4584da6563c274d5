//! One event as it lies in shared memory: 24 bytes, committed by the store of its last word.
//!
//! ```text
//! word 0  time: ticks of the session's clock
//! word 1  address (48 bits) << 16 | log2 of the alignment << 8 | kind
//! word 2  size (48 bits, saturating) << 16 | generation of the chunk
//! ```
//! The generation in word 2 is the commit mark: a slot that still holds what an earlier use of
//! the chunk left there carries another generation and reads as empty. Addresses of user space
//! have 47 bits unless a program asks for more explicitly, which no allocator does.

use crate::sync::{AtomicU64, Ordering};

/// What a record says. The numbers are part of the layout; 0 is never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Malloc = 1,
    Calloc = 2,
    AlignedAlloc = 3,
    Memalign = 4,
    PosixMemalign = 5,
    Valloc = 6,
    Pvalloc = 7,
    /// Before the call of realloc; the address is the old one.
    ReallocBegin = 8,
    /// After the call of realloc; address and size are the new ones.
    ReallocEnd = 9,
    Free = 10,
    FreeSized = 11,
    FreeAlignedSized = 12,
    /// After the call of reallocarray; its begin is a [`Kind::ReallocBegin`].
    ReallocArrayEnd = 13,
    /// An allocation that returned null; the address is 0.
    FailedAlloc = 14,
    /// Up to three addresses of a stack that is defined for the first time: words 0, 1 and 2 (48
    /// bits each), the innermost first, 0 where there is none. See [`crate::stack`].
    StackFrames = 240,
    /// The stack of the allocation at `address`, which follows in the same thread: its hash in place
    /// of the time, a [`crate::stack::StackNote`] in place of the size.
    Stack = 241,
    /// Twenty bytes of a description: 8 in place of the time, 6 each in place of address and size.
    Bytes = 242,
    /// A module of the program: its first address in place of the time, its end as the address, its
    /// epoch (16 bits) and the number of bytes that describe it, which stand before, as the size.
    Module = 243,
    /// A piece of text for the next record of this thread that takes one, see [`Record::publish_text`].
    Text = 15,
    /// A named mark; its name is the text before it.
    Mark = 16,
    /// The first record of a process. Address: number of the process that it was forked from, 0 for a
    /// program that was started anew (the text is then its file and its arguments, each behind a zero
    /// byte). Size: the parent's process id, and [`CLONED`] where no [`Kind::Fork`] went before.
    ProcessStart = 17,
    /// Before fork; address: the number that the child will have.
    Fork = 18,
    /// Process `address` is about to execute the file in the text, or (size 1) was started with it.
    Exec = 19,
    /// The process exits in order.
    Exit = 20,
    /// `mmap` returned `address`.
    Mmap = 21,
    /// Before `munmap`.
    Munmap = 22,
    /// `mremap` returned `address`.
    Mremap = 23,
    /// The program break is now `address`.
    Brk = 24,
}

/// Kinds from here on are no events: they describe the events around them.
pub const FIRST_DESCRIPTION: u8 = Kind::StackFrames as u8;

impl Kind {
    /// The kind with this number, if there is one.
    pub fn from_u8(value: u8) -> Option<Kind> {
        Some(match value {
            1 => Kind::Malloc,
            2 => Kind::Calloc,
            3 => Kind::AlignedAlloc,
            4 => Kind::Memalign,
            5 => Kind::PosixMemalign,
            6 => Kind::Valloc,
            7 => Kind::Pvalloc,
            8 => Kind::ReallocBegin,
            9 => Kind::ReallocEnd,
            10 => Kind::Free,
            11 => Kind::FreeSized,
            12 => Kind::FreeAlignedSized,
            13 => Kind::ReallocArrayEnd,
            14 => Kind::FailedAlloc,
            240 => Kind::StackFrames,
            241 => Kind::Stack,
            242 => Kind::Bytes,
            243 => Kind::Module,
            15 => Kind::Text,
            16 => Kind::Mark,
            17 => Kind::ProcessStart,
            18 => Kind::Fork,
            19 => Kind::Exec,
            20 => Kind::Exit,
            21 => Kind::Mmap,
            22 => Kind::Munmap,
            23 => Kind::Mremap,
            24 => Kind::Brk,
            _ => return None,
        })
    }
}

/// Largest size a record can hold, in bytes; larger requests (which always fail) are stored as it.
pub const MAX_SIZE: u64 = (1 << 48) - 1;

/// Bit in the size of a [`Kind::ProcessStart`].
pub const CLONED: usize = 1 << 40;

/// How far ahead of a record the hook asks for the memory that it will write: the drainer has read it last, so that it must
/// come from another core's cache, which takes as long as some ten records.
pub const AHEAD_BYTES: usize = 768;

/// Asks for the cache line of an address, to write to it. Any address may be given.
#[inline(always)]
pub fn prefetch_for_writing(address: usize) {
    // SAFETY: prefetches have no effect but on the cache and never fault; a processor without this one takes it for a no-op.
    unsafe {
        core::arch::asm!(
            "prefetchw byte ptr [{address}]",
            address = in(reg) address,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Bytes of text that a record holds.
pub const TEXT_BYTES: usize = 20;
/// Bit beside the length of a first piece of text.
pub const FIRST_PIECE: u8 = 0x80;

/// A record in shared memory.
#[repr(C)]
#[derive(Debug)]
pub struct Record {
    time: AtomicU64,
    what: AtomicU64,
    commit: AtomicU64,
}

impl RecordView {
    /// The text of a [`Kind::Text`], how much of it is used, and whether it is a first piece.
    pub fn text(&self) -> ([u8; TEXT_BYTES], usize, bool) {
        let mut text = [0; TEXT_BYTES];
        text[..8].copy_from_slice(&self.time.to_le_bytes());
        text[8..14].copy_from_slice(&self.address.to_le_bytes()[..6]);
        text[14..].copy_from_slice(&self.size.to_le_bytes()[..6]);
        let used = usize::from(self.align_log2 & !FIRST_PIECE).min(TEXT_BYTES);
        (text, used, self.align_log2 & FIRST_PIECE != 0)
    }
}

/// A committed record, read out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView {
    /// Ticks of the session's clock.
    pub time: u64,
    /// Address of the block, 0 for a failed allocation.
    pub address: u64,
    /// Requested bytes.
    pub size: u64,
    /// Number of a [`Kind`]; not yet checked.
    pub kind: u8,
    /// log2 of the requested alignment, 0 where none was requested.
    pub align_log2: u8,
}

impl Record {
    /// An empty record: generation 0 is never valid.
    #[cfg(any(test, loom))]
    pub(crate) fn empty() -> Record {
        Record {
            time: AtomicU64::new(0),
            what: AtomicU64::new(0),
            commit: AtomicU64::new(0),
        }
    }

    /// Writes and commits this record. `generation` is that of the chunk it lies in.
    #[inline(always)]
    pub fn publish(
        &self,
        time: u64,
        kind: Kind,
        address: u64,
        size: u64,
        align_log2: u8,
        generation: u32,
    ) {
        self.time.store(time, Ordering::Relaxed);
        let what = (address << 16) | (u64::from(align_log2) << 8) | u64::from(kind as u8);
        self.what.store(what, Ordering::Relaxed);
        let size = if size > MAX_SIZE { MAX_SIZE } else { size };
        // Release: whoever sees this word sees the two before it.
        self.commit.store(
            (size << 16) | u64::from(generation & 0xffff),
            Ordering::Release,
        );
    }

    /// Writes and commits up to [`TEXT_BYTES`] bytes of text: 8 in place of the time, 6 in place of the
    /// address, 6 in place of the size, and their number in place of the alignment.
    /// `first`: what came before and found no record that takes it is void.
    pub fn publish_text(&self, text: &[u8], first: bool, generation: u32) {
        let mut bytes = [0u8; 24];
        let length = text.len().min(TEXT_BYTES);
        for (at, byte) in text.iter().take(length).enumerate() {
            // Of the address 6 bytes are kept, then 6 of the size.
            bytes[if at < 14 { at } else { at + 2 }] = *byte;
        }
        let word = |at: usize| {
            let bytes = &bytes[at..at + 8];
            bytes
                .iter()
                .rev()
                .fold(0u64, |word, &byte| word << 8 | u64::from(byte))
        };
        let (time, address, size) = (word(0), word(8), word(16));
        let length = length as u8 | if first { FIRST_PIECE } else { 0 };
        self.publish(time, Kind::Text, address, size, length, generation);
    }

    /// The record, if it is committed in this generation of its chunk.
    #[inline]
    pub fn read(&self, generation: u32) -> Option<RecordView> {
        let commit = self.commit.load(Ordering::Acquire);
        if commit & 0xffff != u64::from(generation & 0xffff) {
            return None;
        }
        let what = self.what.load(Ordering::Relaxed);
        Some(RecordView {
            time: self.time.load(Ordering::Relaxed),
            address: what >> 16,
            size: commit >> 16,
            kind: (what & 0xff) as u8,
            align_log2: ((what >> 8) & 0xff) as u8,
        })
    }

    /// Makes the record empty in every generation.
    pub(crate) fn clear(&self) {
        self.commit.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_back_in_its_generation_only() {
        let record = Record::empty();
        assert_eq!(record.read(1), None);
        record.publish(77, Kind::Memalign, 0x7fff_dead_beef, 123_456, 12, 9);
        assert_eq!(
            record.read(9),
            Some(RecordView {
                time: 77,
                address: 0x7fff_dead_beef,
                size: 123_456,
                kind: Kind::Memalign as u8,
                align_log2: 12
            })
        );
        assert_eq!(record.read(8), None);
        record.clear();
        assert_eq!(record.read(9), None);
    }

    #[test]
    fn text_of_every_length_comes_back() {
        let long = *b"abcdefghijklmnopqrst\xff";
        for length in 0..=TEXT_BYTES {
            let record = Record::empty();
            record.publish_text(&long[..length], length % 2 == 0, 3);
            let view = record.read(3).expect("committed");
            assert_eq!(view.kind, Kind::Text as u8);
            let (text, used, first) = view.text();
            assert_eq!((&text[..used], first), (&long[..length], length % 2 == 0));
        }
        let record = Record::empty();
        record.publish_text(&[0xff; 40], false, 3);
        let (text, used, _) = record.read(3).expect("committed").text();
        assert_eq!(text[..used], [0xff; TEXT_BYTES]);
    }

    #[test]
    fn sizes_beyond_48_bits_saturate() {
        let record = Record::empty();
        record.publish(0, Kind::FailedAlloc, 0, u64::MAX, 0, 65_535);
        assert_eq!(record.read(65_535).map(|view| view.size), Some(MAX_SIZE));
        record.publish(0, Kind::Malloc, 16, MAX_SIZE - 1, 0, 65_535);
        assert_eq!(
            record.read(65_535).map(|view| view.size),
            Some(MAX_SIZE - 1)
        );
    }

    #[test]
    fn every_kind_has_its_own_number() {
        let known: Vec<Kind> = (0..=255u8).filter_map(Kind::from_u8).collect();
        assert_eq!(known.len(), 28);
        for kind in known {
            assert_eq!(Kind::from_u8(kind as u8), Some(kind));
        }
    }
}
