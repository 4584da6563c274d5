//! Variable-length numbers (LEB128: seven bits a byte, low bits first) and signed numbers in zig-zag form.

/// Appends `value`, 1 to 10 bytes.
#[inline]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Signed to unsigned: small magnitudes become small numbers.
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads numbers off a column; every method gives `None` at the end or for a number that is too long.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor<'a>(pub &'a [u8]);

impl Cursor<'_> {
    /// The next number.
    #[inline]
    pub fn next(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        self.long(u64::from(first & 0x7f))
    }

    fn long(&mut self, mut value: u64) -> Option<u64> {
        let mut shift = 7;
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn roundtrip(values in prop::collection::vec(any::<u64>(), 0..50), shift in 0u32..64) {
            let mut bytes = Vec::new();
            for &value in &values {
                put(&mut bytes, value >> shift);
                put(&mut bytes, zigzag((value >> shift) as i64));
            }
            let mut cursor = Cursor(&bytes);
            for &value in &values {
                prop_assert_eq!(cursor.next(), Some(value >> shift));
                prop_assert_eq!(cursor.next().map(unzigzag), Some((value >> shift) as i64));
            }
            prop_assert_eq!(cursor.next(), None);
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut cursor = Cursor(&bytes);
            let mut count = 0;
            while cursor.next().is_some() {
                count += 1;
            }
            prop_assert!(count <= bytes.len());
        }
    }

    #[test]
    fn too_long_is_refused() {
        assert_eq!(Cursor(&[0xff; 11]).next(), None);
        assert_eq!(
            Cursor(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).next(),
            None
        );
    }
}
