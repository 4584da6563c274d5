//! One operation of a script, 16 bytes, and the meaning of each field.
//!
//! An op names a *slot* instead of an address. A slot holds at most one live block at a time; the
//! compiler recycles slots, so a slot table is as large as the peak of live blocks.

/// What an op does. The discriminants are the file format: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpKind {
    /// `slot = malloc(size)`
    Malloc = 0,
    /// `slot = calloc(1, size)`
    Calloc = 1,
    /// `slot = aligned_alloc(1 << align_log2, size)` (also memalign, posix_memalign, valloc, pvalloc)
    AlignedAlloc = 2,
    /// `slot = realloc(slot, size)`: the block keeps its slot; a shared slot moves to generation g + 1
    Realloc = 3,
    /// `free(slot)`; `size` and `align_log2` repeat the block's, so that a sized free needs no table
    Free = 4,
    /// The thread sleeps for `size` nanoseconds (recorded gap of 1 ms and more); `slot` unused
    Idle = 5,
    /// Start of phase number `size`; `slot` unused
    Mark = 6,
    /// Thread number `slot` of the script is started by this thread
    ThreadStart = 7,
    /// The thread ends here, after its last call, where the recorded one ended; `slot` and `size` unused
    ThreadEnd = 8,
    /// Of the block that this thread's next op allocates or resizes only the first `size` bytes are written. Where `slot` is not 0
    /// they are written in so many microseconds, but for the first `generation` parts of 65535, which are written at once
    Written = 9,
}

/// The block at this slot was, or will be, handled by another thread: before the op touches the slot
/// it waits until the slot's generation equals the op's and the slot is full (free, realloc) or empty
/// (allocations); afterwards it publishes the slot with release order.
pub const FLAG_SHARED: u8 = 1;

/// The block at this private slot was allocated by a thread that has ended, and whose last op started this one (or one
/// between them): nothing needs to wait, but the free is a remote one.
pub const FLAG_INHERITED: u8 = 2;

/// One operation. `#[repr(C)]`, 16 bytes, little endian; an array of these is what a worker maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Op {
    /// An [`OpKind`] as its number.
    pub kind: u8,
    /// [`FLAG_SHARED`], [`FLAG_INHERITED`] or 0.
    pub flags: u8,
    /// Generation of the slot that this op expects (shared slots only, else 0). An allocation expects the
    /// slot empty at generation g and fills it at g; the free expects it full at g and leaves it empty at g + 1
    /// (wrapping). A realloc expects it full at g and leaves it **full at g + 1** (wrapping): without that step a free in
    /// a third thread could overtake the realloc, and the realloc would wait for ever.
    pub generation: u16,
    /// Index into the slot table of the script.
    pub slot: u32,
    /// Bits 0..=55: bytes requested (nanoseconds for `Idle`); bits 56..=63: log2 of the alignment, 0 = default.
    pub size_and_align: u64,
}

/// Largest size an op can carry, bytes.
pub const MAX_SIZE: u64 = (1 << 56) - 1;

impl Op {
    /// Makes an op. `size` must be at most [`MAX_SIZE`], `align_log2` below 64.
    #[inline(always)]
    pub const fn new(
        kind: OpKind,
        flags: u8,
        generation: u16,
        slot: u32,
        size: u64,
        align_log2: u8,
    ) -> Self {
        assert!(size <= MAX_SIZE && align_log2 < 64);
        Self {
            kind: kind as u8,
            flags,
            generation,
            slot,
            size_and_align: size | (align_log2 as u64) << 56,
        }
    }

    /// An op [`OpKind::Written`]: of the next block the first `bytes` are written, `at_once` of them at once and the others in
    /// `over_ns` nanoseconds (whole microseconds, an hour at most); 0: all of them at once.
    pub fn written(bytes: u64, at_once: u64, over_ns: u64) -> Self {
        let bytes = bytes.min(MAX_SIZE);
        let over_us = u32::try_from(over_ns / 1000).unwrap_or(u32::MAX);
        let mut op = Self::new(OpKind::Written, 0, 0, over_us, bytes, 0);
        if over_us > 0 {
            let share = u128::from(at_once.min(bytes)) * u128::from(u16::MAX);
            op.generation = (share / u128::from(bytes.max(1))) as u16;
        }
        op
    }

    /// Of an op [`OpKind::Written`] the nanoseconds that the writing takes, and the share of the bytes, from 0 to 1, that is
    /// written at once; `None`: all at once.
    pub fn filled_in(self) -> Option<(u64, f64)> {
        let share = f64::from(self.generation) / f64::from(u16::MAX);
        (self.slot > 0).then_some((u64::from(self.slot) * 1000, share))
    }

    /// Bytes requested, or nanoseconds for `Idle`.
    #[inline(always)]
    pub const fn size(self) -> u64 {
        self.size_and_align & MAX_SIZE
    }

    /// log2 of the requested alignment; 0 means the default alignment of malloc.
    #[inline(always)]
    pub const fn align_log2(self) -> u8 {
        (self.size_and_align >> 56) as u8
    }

    /// The kind as an enum, `None` for a number that no version knows.
    #[inline(always)]
    pub const fn kind(self) -> Option<OpKind> {
        Some(match self.kind {
            0 => OpKind::Malloc,
            1 => OpKind::Calloc,
            2 => OpKind::AlignedAlloc,
            3 => OpKind::Realloc,
            4 => OpKind::Free,
            5 => OpKind::Idle,
            6 => OpKind::Mark,
            7 => OpKind::ThreadStart,
            8 => OpKind::ThreadEnd,
            9 => OpKind::Written,
            _ => return None,
        })
    }

    /// Whether the op is a call of the malloc family (what "ops" counts mean everywhere).
    #[inline(always)]
    pub const fn is_call(self) -> bool {
        self.kind <= OpKind::Free as u8
    }
}
