//! A live block of a model.

/// A live block. Everything that its ops will need travels with it, so that a free looks nothing up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Slot: private ones are counted from 0 in their thread, shared ones from 0 in all.
    pub slot: u32,
    /// Bytes now.
    pub size: u32,
    /// Bytes that it grows to.
    pub target: u32,
    /// Of a block in a shared slot: the generation that its next op expects. Of any other: the script thread that
    /// allocated it.
    pub mark: u16,
    /// log2 of the alignment, 0 = default.
    pub align_log2: u8,
    /// It may be touched by another thread while its own still runs: the slot is a shared one.
    pub shared: bool,
}

impl Block {
    /// Generation for an op on it: 0 for private slots.
    #[inline]
    pub fn generation(&self) -> u16 {
        if self.shared { self.mark } else { 0 }
    }
}

// Four to a cache line: taking a random one is a cache miss, and should be one only.
const _: () = assert!(size_of::<Block>() == 16);
