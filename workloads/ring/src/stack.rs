//! How stacks travel beside the events.
//!
//! A stack is known by its hash. The first time a program meets it, a thread writes its addresses
//! ([`crate::Kind::StackFrames`], two a record), then, as every time, a [`crate::Kind::Stack`]
//! with the hash and some bits of the block's address, then the allocation itself. All three stand in the
//! records of one thread in this order. What a signal handler records in between has another
//! block; definitions are never begun inside of one another.

/// Which allocations bring their stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StackMode {
    /// None.
    #[default]
    Off,
    /// One of so many bytes on average (a Poisson process over the bytes of each thread).
    Sampled {
        /// Mean distance in bytes, at least 1.
        period: u32,
    },
    /// All.
    Full,
}

impl StackMode {
    /// As two words of the session.
    pub fn to_words(self) -> (u32, u32) {
        match self {
            StackMode::Off => (0, 0),
            StackMode::Sampled { period } => (1, period.max(1)),
            StackMode::Full => (2, 0),
        }
    }

    /// From the two words; nonsense is off.
    pub fn from_words(mode: u32, period: u32) -> StackMode {
        match mode {
            1 if period > 0 => StackMode::Sampled { period },
            2 => StackMode::Full,
            _ => StackMode::Off,
        }
    }
}

/// Most addresses of a stack; the outer ones of deeper stacks are cut off.
pub const MAX_FRAMES: u32 = 128;

/// What a [`crate::Kind::Stack`] says besides the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackNote {
    /// How often the program had unloaded code: addresses mean something within one epoch only.
    pub epoch: u16,
    /// Addresses in the [`crate::Kind::StackFrames`] records just before; 0: defined earlier.
    pub defined: u8,
    /// The stack was deeper than [`MAX_FRAMES`].
    pub cut: bool,
    /// [`block_tag`] of the block.
    pub tag: u32,
}

const TAG_BITS: u32 = 23;

/// Bits of a block's address by which its event is found among those of handlers that came in between.
#[inline(always)]
pub fn block_tag(block: u64) -> u32 {
    (block >> 4) as u32 & ((1 << TAG_BITS) - 1)
}

impl StackNote {
    /// As a record's address field.
    #[inline(always)]
    pub fn to_address(self) -> u64 {
        u64::from(self.epoch)
            | u64::from(self.defined) << 16
            | u64::from(self.cut) << 24
            | u64::from(self.tag) << 25
    }

    /// From a record's address field.
    pub fn from_address(address: u64) -> StackNote {
        StackNote {
            epoch: address as u16,
            defined: (address >> 16) as u8,
            cut: address >> 24 & 1 != 0,
            tag: (address >> 25) as u32 & ((1 << TAG_BITS) - 1),
        }
    }
}

/// Addresses that a [`crate::Kind::StackFrames`] record carries.
pub const FRAMES_PER_RECORD: usize = 2;
/// Bytes that a [`crate::Kind::Bytes`] record carries.
pub const BYTES_PER_RECORD: usize = 14;

/// Bytes of a module's description before its build id and its path: build id's length (u8), one
/// reserved byte, path's length (u16), link-time address of run-time address 0 (u64, wrapping), first and end address (u64).
pub const MODULE_HEADER: usize = 28;

/// Fourteen bytes as a record's first word and address.
pub fn pack_bytes(bytes: &[u8; BYTES_PER_RECORD]) -> (u64, u64) {
    let mut both = [0u8; 16];
    both[..BYTES_PER_RECORD].copy_from_slice(bytes);
    let both = u128::from_le_bytes(both);
    (both as u64, (both >> 64) as u64)
}

/// The bytes of a record's first word and address.
pub fn unpack_bytes(word: u64, address: u64) -> [u8; BYTES_PER_RECORD] {
    let mut bytes = [0; BYTES_PER_RECORD];
    bytes[..8].copy_from_slice(&word.to_le_bytes());
    bytes[8..].copy_from_slice(&address.to_le_bytes()[..6]);
    bytes
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for mode in [
            StackMode::Off,
            StackMode::Full,
            StackMode::Sampled { period: 524_288 },
        ] {
            let (word, period) = mode.to_words();
            assert_eq!(StackMode::from_words(word, period), mode);
        }
        assert_eq!(StackMode::from_words(1, 0), StackMode::Off);
        let note = StackNote {
            epoch: 65_535,
            defined: 128,
            cut: true,
            tag: block_tag(0x7fff_ffff_fff0),
        };
        assert!(note.to_address() < 1 << 48);
        assert_eq!(StackNote::from_address(note.to_address()), note);
        let bytes: [u8; BYTES_PER_RECORD] = core::array::from_fn(|at| 200 + at as u8);
        let (word, address) = pack_bytes(&bytes);
        assert!(address < 1 << 48);
        assert_eq!(unpack_bytes(word, address), bytes);
    }
}
