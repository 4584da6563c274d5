//! One event as it lies in shared memory: 16 bytes, four on a cache line, committed by the store of its second word.
//!
//! ```text
//! word 0  time (32 bits) | size (26 bits) | log2 of the alignment (6 bits)
//! word 1  address (48 bits) | kind (8 bits) | generation of the chunk (8 bits)
//! ```
//! Time counts from the chunk's base, in [`crate::clock::TICK_SHIFT`] ticks of the session's clock; a thread whose chunk is
//! too old for that takes another. A size that does not fit stands in a [`Kind::Wide`] record before. What is no event uses
//! the first word and the address for what its kind says. The generation is the commit mark: a slot that still holds what
//! an earlier use of the chunk left there carries another one and reads as empty. Addresses of user space have 47 bits
//! unless a program asks for more explicitly, which no allocator does.

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
    /// Up to two addresses of a stack that is defined for the first time, the inner one as the first word, 0 where there is
    /// none. See [`crate::stack`].
    StackFrames = 240,
    /// The stack of the allocation that follows in the same thread: its hash as the first word, a
    /// [`crate::stack::StackNote`] as the address.
    Stack = 241,
    /// Fourteen bytes of a description: 8 as the first word, 6 as the address.
    Bytes = 242,
    /// A module of the program: the first word holds its epoch (16 bits) and above it the number of bytes that describe it,
    /// which stand before.
    Module = 243,
    /// The size of the next event of this thread that has [`WIDE`] for its size: the first word.
    Wide = 244,
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
    /// Of the large block at `address` so many bytes (size) lie in pages that have been written.
    Written = 25,
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
            244 => Kind::Wide,
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
            25 => Kind::Written,
            _ => return None,
        })
    }
}

/// Largest size of an event, in bytes; larger requests (which always fail) are stored as it.
pub const MAX_SIZE: u64 = (1 << 48) - 1;
/// In place of a size: it stands in the last [`Kind::Wide`] before. Smaller sizes stand in the record itself.
pub const WIDE: u64 = (1 << SIZE_BITS) - 1;
const SIZE_BITS: u32 = 26;

/// Bit in the size of a [`Kind::ProcessStart`]: ids of processes are below 2^22.
pub const CLONED: usize = 1 << 25;

/// Bytes of text that a record holds.
pub const TEXT_BYTES: usize = 13;
/// Bit beside the length of a first piece of text.
const FIRST_PIECE: u8 = 0x80;

/// A record in shared memory.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Record {
    word: AtomicU64,
    commit: AtomicU64,
}

/// A committed record, read out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView {
    /// Time, size and alignment of an event.
    pub word: u64,
    /// Address of the block, 0 for a failed allocation; 48 bits.
    pub address: u64,
    /// Number of a [`Kind`]; not yet checked.
    pub kind: u8,
}

impl RecordView {
    /// Time since the chunk's base.
    #[inline(always)]
    pub fn ticks(&self) -> u32 {
        self.word as u32
    }

    /// Requested bytes, or [`WIDE`].
    #[inline(always)]
    pub fn size(&self) -> u64 {
        self.word >> 32 & WIDE
    }

    /// log2 of the requested alignment, 0 where none was requested.
    #[inline(always)]
    pub fn align_log2(&self) -> u8 {
        (self.word >> (32 + SIZE_BITS)) as u8
    }

    /// The text of a [`Kind::Text`], how much of it is used, and whether it is a first piece.
    pub fn text(&self) -> ([u8; TEXT_BYTES], usize, bool) {
        let mut text = [0; TEXT_BYTES];
        text[..8].copy_from_slice(&self.word.to_le_bytes());
        let rest = self.address.to_le_bytes();
        text[8..].copy_from_slice(&rest[..5]);
        let used = usize::from(rest[5] & !FIRST_PIECE).min(TEXT_BYTES);
        (text, used, rest[5] & FIRST_PIECE != 0)
    }
}

/// The first word of an event. `size` is at most [`WIDE`].
#[inline(always)]
pub fn event_word(ticks: u32, size: u64, align_log2: u8) -> u64 {
    debug_assert!(size <= WIDE);
    u64::from(ticks) | size << 32 | u64::from(align_log2) << (32 + SIZE_BITS)
}

impl Record {
    /// An empty record: generation 0 is never valid.
    #[cfg(any(test, loom))]
    pub(crate) fn empty() -> Record {
        Record {
            word: AtomicU64::new(0),
            commit: AtomicU64::new(0),
        }
    }

    /// Writes and commits this record. `generation` is that of the chunk it lies in.
    #[inline(always)]
    pub fn publish(&self, word: u64, kind: Kind, address: u64, generation: u32) {
        self.word.store(word, Ordering::Relaxed);
        let kind = u64::from(kind as u8) << 8;
        let commit = address << 16 | kind | u64::from(generation as u8);
        // Release: whoever sees this word sees the one before it.
        self.commit.store(commit, Ordering::Release);
    }

    /// Writes and commits up to [`TEXT_BYTES`] bytes of text and their number.
    /// `first`: what came before and found no record that takes it is void.
    pub fn publish_text(&self, text: &[u8], first: bool, generation: u32) {
        let length = text.len().min(TEXT_BYTES);
        let mut bytes = [0u8; 16];
        for (place, byte) in bytes.iter_mut().zip(&text[..length]) {
            *place = *byte;
        }
        bytes[TEXT_BYTES] = length as u8 | if first { FIRST_PIECE } else { 0 };
        let both = u128::from_le_bytes(bytes);
        self.publish(both as u64, Kind::Text, (both >> 64) as u64, generation);
    }

    /// The record, if it is committed in this generation of its chunk.
    #[inline(always)]
    pub fn read(&self, generation: u32) -> Option<RecordView> {
        let commit = self.commit.load(Ordering::Acquire);
        if commit as u8 != generation as u8 {
            return None;
        }
        Some(RecordView {
            word: self.word.load(Ordering::Relaxed),
            address: commit >> 16,
            kind: (commit >> 8) as u8,
        })
    }

    /// Makes the record empty in every generation.
    pub(crate) fn clear(&self) {
        self.commit.store(0, Ordering::Relaxed);
    }
}

/// Copies records of generation `mark` to a chunk of generation `new_mark`; `false` where one of them is not committed.
/// The stores pass the caches by: the lines may be in the drainer's, and the thread does not need them again. They are in
/// order only after [`end_of_copy`].
#[cfg(not(loom))]
#[inline]
pub(crate) fn copy_all(from: &[Record], to: &[Record], mark: u32, new_mark: u32) -> bool {
    use core::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cvtsi128_si64, _mm_load_si128, _mm_or_si128, _mm_set_epi64x,
        _mm_setzero_si128, _mm_stream_si128, _mm_unpackhi_epi64, _mm_xor_si128,
    };
    debug_assert_eq!(from.len(), to.len());
    // SAFETY: SSE2, which every x86-64 processor has. References to records are aligned to 16, as its loads and stores must
    // be. The caller's own thread wrote the ones and holds the others, which nobody reads before they are closed; like every
    // atomic they may be written from here.
    unsafe {
        // The mark is the lowest byte of the second word.
        let marks = [mark, new_mark].map(|mark| _mm_set_epi64x(i64::from(mark as u8), 0));
        let rest = _mm_set_epi64x(!0xff, -1);
        let mut differ = _mm_setzero_si128();
        for (record, copy) in from.iter().zip(to) {
            let both = _mm_load_si128(core::ptr::from_ref(record).cast::<__m128i>());
            differ = _mm_or_si128(differ, _mm_xor_si128(both, marks[0]));
            let copied = _mm_or_si128(_mm_and_si128(both, rest), marks[1]);
            _mm_stream_si128(core::ptr::from_ref(copy).cast_mut().cast(), copied);
        }
        _mm_cvtsi128_si64(_mm_unpackhi_epi64(differ, differ)) as u8 == 0
    }
}

#[cfg(loom)]
pub(crate) fn copy_all(from: &[Record], to: &[Record], mark: u32, new_mark: u32) -> bool {
    from.iter().zip(to).fold(true, |whole, (record, copy)| {
        let (word, commit) = (
            record.word.load(Ordering::Relaxed),
            record.commit.load(Ordering::Relaxed),
        );
        copy.word.store(word, Ordering::Relaxed);
        let new = commit & !u64::from(u8::MAX) | u64::from(new_mark as u8);
        copy.commit.store(new, Ordering::Relaxed);
        whole & (commit as u8 == mark as u8)
    })
}

/// Everything that was copied comes before what is stored from now on, the closing of the chunk above all.
pub(crate) fn end_of_copy() {
    #[cfg(not(loom))]
    // SAFETY: a fence has no operand; it belongs to SSE.
    unsafe {
        core::arch::asm!("sfence", options(nostack, preserves_flags));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_back_in_its_generation_only() {
        let record = Record::empty();
        assert_eq!(record.read(1), None);
        let word = event_word(u32::MAX - 7, WIDE - 1, 63);
        record.publish(word, Kind::Memalign, 0x7fff_dead_beef, 9);
        let view = record.read(9).expect("committed");
        assert_eq!(
            (view.ticks(), view.size(), view.align_log2()),
            (u32::MAX - 7, WIDE - 1, 63)
        );
        assert_eq!(
            (view.address, view.kind),
            (0x7fff_dead_beef, Kind::Memalign as u8)
        );
        assert_eq!(record.read(8), None);
        record.clear();
        assert_eq!(record.read(9), None);
    }

    #[test]
    fn copies_have_the_new_mark_and_tell_of_what_was_not_committed() {
        let from: [Record; 9] = core::array::from_fn(|_| Record::empty());
        let to: [Record; 9] = core::array::from_fn(|_| Record::empty());
        for (index, record) in from.iter().enumerate() {
            // Address and size with all bits: none of them may be taken for the mark, or be lost to it.
            let word = event_word(index as u32, WIDE - 1, 63);
            record.publish(word, Kind::Malloc, 0xffff_ffff_ffff - index as u64, 0xa5);
        }
        assert!(copy_all(&from, &to, 0xa5, 0x5a));
        end_of_copy();
        for (record, copy) in from.iter().zip(&to) {
            assert_eq!(copy.read(0x5a), record.read(0xa5));
            assert_eq!(copy.read(0xa5), None);
        }
        for hole in 0..from.len() {
            let before = from[hole].read(0xa5).expect("committed");
            // As an earlier use has left it: the copy must not look like a record of the generation after the new one.
            for left in [0u32, 0xa4, 0xa5 ^ 0x5b] {
                from[hole].publish(before.word, Kind::Malloc, before.address, left);
                assert!(!copy_all(&from, &to, 0xa5, 0x5a), "{hole} {left}");
                end_of_copy();
                assert_eq!(to[hole].read(0x5b), None);
            }
            from[hole].publish(before.word, Kind::Malloc, before.address, 0xa5);
        }
        assert!(copy_all(&from, &to, 0xa5, 0x5a));
    }

    #[test]
    fn text_of_every_length_comes_back() {
        let long = *b"abcdefghijkl\xff";
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
    fn every_kind_has_its_own_number() {
        let known: Vec<Kind> = (0..=255u8).filter_map(Kind::from_u8).collect();
        assert_eq!(known.len(), 30);
        for kind in known {
            assert_eq!(Kind::from_u8(kind as u8), Some(kind));
        }
    }
}
