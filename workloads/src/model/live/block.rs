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
    /// Script thread that allocated it.
    pub born: u32,
    /// Generation that the next op on a shared slot expects.
    pub generation: u16,
    /// log2 of the alignment, 0 = default.
    pub align_log2: u8,
    /// It may be touched by another thread while its own still runs: the slot is a shared one.
    pub shared: bool,
}
