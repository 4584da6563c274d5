//! How stacks travel beside the events.
//!
//! A stack is known by its hash. The first time a program meets it, a thread writes its addresses
//! ([`crate::Kind::StackFrames`], three a record), then, as every time, a [`crate::Kind::Stack`]
//! with the hash and the block's address, then the allocation itself. All three stand in the
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

/// What a [`crate::Kind::Stack`] says besides hash and block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackNote {
    /// How often the program had unloaded code: addresses mean something within one epoch only.
    pub epoch: u16,
    /// Addresses in the [`crate::Kind::StackFrames`] records just before; 0: defined earlier.
    pub defined: u8,
    /// The stack was deeper than [`MAX_FRAMES`].
    pub cut: bool,
}

impl StackNote {
    /// As a record's size field.
    pub fn to_size(self) -> u64 {
        u64::from(self.epoch) | u64::from(self.defined) << 16 | u64::from(self.cut) << 24
    }

    /// From a record's size field.
    pub fn from_size(size: u64) -> StackNote {
        StackNote {
            epoch: size as u16,
            defined: (size >> 16) as u8,
            cut: size >> 24 & 1 != 0,
        }
    }
}

/// Bytes that a [`crate::Kind::Bytes`] record carries.
pub const BYTES_PER_RECORD: usize = 20;

/// Bytes of a module's description before its build id and its path: build id's length (u8), one
/// reserved byte, path's length (u16), link-time address of run-time address 0 (u64, wrapping).
pub const MODULE_HEADER: usize = 12;

/// Twenty bytes as a record's three fields.
pub fn pack_bytes(bytes: &[u8; BYTES_PER_RECORD]) -> (u64, u64, u64) {
    let mut fields = [[0u8; 8]; 3];
    fields[0].copy_from_slice(&bytes[..8]);
    fields[1][..6].copy_from_slice(&bytes[8..14]);
    fields[2][..6].copy_from_slice(&bytes[14..]);
    let [time, address, size] = fields.map(u64::from_le_bytes);
    (time, address, size)
}

/// The twenty bytes of a record's three fields.
pub fn unpack_bytes(time: u64, address: u64, size: u64) -> [u8; BYTES_PER_RECORD] {
    let mut bytes = [0; BYTES_PER_RECORD];
    bytes[..8].copy_from_slice(&time.to_le_bytes());
    bytes[8..14].copy_from_slice(&address.to_le_bytes()[..6]);
    bytes[14..].copy_from_slice(&size.to_le_bytes()[..6]);
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
        };
        assert_eq!(StackNote::from_size(note.to_size()), note);
        let bytes: [u8; BYTES_PER_RECORD] = core::array::from_fn(|at| 200 + at as u8);
        let (time, address, size) = pack_bytes(&bytes);
        assert!(address <= crate::record::MAX_SIZE && size <= crate::record::MAX_SIZE);
        assert_eq!(unpack_bytes(time, address, size), bytes);
    }
}
