//! A live block of a model.

/// A live block. Everything that its ops will need travels with it, so that a free looks nothing up.
///
/// One number of two words, which compilers keep in two registers: taken apart into fields, a block is written in pieces and read back
/// whole a few instructions later, which no processor can forward without waiting. From the lowest bit on: slot (32 bits), bytes now
/// (32), bytes that it grows to (32), mark (16), log2 of the alignment (8), whether it is shared (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(u128);

/// The parts of a block.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
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

/// Where parts that change begin.
const SIZE: u32 = 32;
const TARGET: u32 = 64;
const MARK: u32 = 96;

impl Block {
    /// Stands where there is no block.
    pub const NONE: Self = Self(u128::MAX);

    #[inline(always)]
    pub fn new(parts: Parts) -> Self {
        let place = u64::from(parts.slot) | u64::from(parts.size) << 32;
        let kind = u64::from(parts.target)
            | u64::from(parts.mark) << 32
            | u64::from(parts.align_log2) << 48
            | u64::from(parts.shared) << 56;
        Self(u128::from(place) | u128::from(kind) << 64)
    }

    /// Whether this is [`Block::NONE`].
    #[inline(always)]
    pub fn is_none(&self) -> bool {
        (self.0 >> 64) as u64 == u64::MAX
    }

    /// See [`Parts::slot`].
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        self.0 as u32
    }

    /// See [`Parts::size`].
    #[inline(always)]
    pub fn size(&self) -> u32 {
        (self.0 >> SIZE) as u32
    }

    /// See [`Parts::target`].
    #[inline(always)]
    pub fn target(&self) -> u32 {
        (self.0 >> TARGET) as u32
    }

    /// See [`Parts::mark`].
    #[inline(always)]
    pub fn mark(&self) -> u16 {
        (self.0 >> MARK) as u16
    }

    /// See [`Parts::align_log2`].
    #[inline(always)]
    pub fn align_log2(&self) -> u8 {
        (self.0 >> 112) as u8 & 63
    }

    /// See [`Parts::shared`].
    #[inline(always)]
    pub fn shared(&self) -> bool {
        self.0 >> 120 != 0
    }

    /// Generation for an op on it: 0 for private slots.
    #[inline(always)]
    pub fn generation(&self) -> u16 {
        if self.shared() { self.mark() } else { 0 }
    }

    /// It has another size now.
    #[inline(always)]
    pub fn set_size(&mut self, size: u32) {
        self.set(SIZE, u32::MAX, size);
    }

    /// It grows to another size.
    #[inline(always)]
    pub fn set_target(&mut self, target: u32) {
        self.set(TARGET, u32::MAX, target);
    }

    /// Its mark is another one.
    #[inline(always)]
    pub fn set_mark(&mut self, mark: u16) {
        self.set(MARK, u32::from(u16::MAX), u32::from(mark));
    }

    /// It lies in another slot.
    #[inline(always)]
    pub fn set_slot(&mut self, slot: u32) {
        self.set(0, u32::MAX, slot);
    }

    /// Puts another value where the bits of `mask` lie from bit `from` on.
    #[inline(always)]
    fn set(&mut self, from: u32, mask: u32, value: u32) {
        self.0 = self.0 & !(u128::from(mask) << from) | u128::from(value) << from;
    }
}

// Four to a cache line: taking a random one is a cache miss, and should be one only.
const _: () = assert!(size_of::<Block>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_and_change_alone() {
        let most = Parts {
            slot: u32::MAX,
            size: u32::MAX - 1,
            target: u32::MAX - 2,
            mark: u16::MAX,
            align_log2: 63,
            shared: true,
        };
        let mut block = Block::new(most);
        assert!(!block.is_none() && Block::NONE.is_none());
        let seen = |block: &Block| {
            (
                (block.slot(), block.size(), block.target()),
                (block.mark(), block.align_log2(), block.shared()),
            )
        };
        let whole = ((u32::MAX, u32::MAX - 1, u32::MAX - 2), (u16::MAX, 63, true));
        assert_eq!(seen(&block), whole);
        block.set_size(7);
        block.set_target(8);
        assert_eq!(seen(&block), ((u32::MAX, 7, 8), (u16::MAX, 63, true)));
        block.set_slot(9);
        block.set_mark(10);
        assert_eq!(seen(&block), ((9, 7, 8), (10, 63, true)));
        assert_eq!(block.generation(), 10);
        let private = Parts {
            shared: false,
            ..most
        };
        assert_eq!(Block::new(private).generation(), 0);
    }
}
