//! A cursor over a module's memory, with the encodings of `.eh_frame`.

use crate::Memory;

/// Reads forward from `at`, never beyond `end`.
pub struct Reader<'m, M> {
    pub memory: &'m M,
    pub at: u64,
    pub end: u64,
}

// Not derived: a copy needs no `M: Copy`.
impl<M> Clone for Reader<'_, M> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

/// DW_EH_PE_omit: there is no value.
pub const OMIT: u8 = 0xff;

impl<'m, M: Memory> Reader<'m, M> {
    pub fn new(memory: &'m M, at: u64, end: u64) -> Self {
        Self { memory, at, end }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let next = self
            .at
            .checked_add(N as u64)
            .filter(|next| *next <= self.end)?;
        let bytes = self.memory.bytes(self.at)?;
        self.at = next;
        Some(bytes)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn skip(&mut self, bytes: u64) -> Option<()> {
        self.at = self
            .at
            .checked_add(bytes)
            .filter(|next| *next <= self.end)?;
        Some(())
    }

    /// Unsigned LEB128; bits beyond 64 are an error.
    pub fn uleb(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && bits > 1) {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }

    /// Signed LEB128.
    pub fn sleb(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0i64, 0u32);
        loop {
            let byte = self.u8()?;
            if shift > 63 {
                return None;
            }
            value |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                if shift < 64 && byte & 0x40 != 0 {
                    value |= -1i64 << shift;
                }
                return Some(value);
            }
        }
    }

    /// A pointer in one of the encodings DW_EH_PE_*; `data` is what datarel counts from.
    pub fn pointer(&mut self, encoding: u8, data: u64) -> Option<u64> {
        let from = match encoding & 0x70 {
            0x00 => 0,
            0x10 => self.at,
            0x30 => data,
            _ => return None,
        };
        // Indirect pointers need a relocated word of the module: only personality routines use them.
        if encoding & 0x80 != 0 {
            return None;
        }
        let value = match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => self.u64()?,
            0x01 => self.uleb()?,
            0x02 => u64::from(self.u16()?),
            0x03 => u64::from(self.u32()?),
            0x09 => self.sleb()? as u64,
            0x0a => self.u16()? as i16 as u64,
            0x0b => self.u32()? as i32 as u64,
            _ => return None,
        };
        Some(value.wrapping_add(from))
    }

    /// Steps over a pointer in any encoding.
    pub fn skip_pointer(&mut self, encoding: u8) -> Option<()> {
        match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => self.skip(8),
            0x01 | 0x09 => self.uleb().map(drop),
            0x02 | 0x0a => self.skip(2),
            0x03 | 0x0b => self.skip(4),
            _ => None,
        }
    }
}
