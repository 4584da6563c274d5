//! Columns of numbers in planes: the first bytes of all varints, then the second bytes of those that have one, and so on.
//!
//! Each plane has its own distribution of values, which an entropy coder sees only when they are not mixed: a random load needs
//! 12 % fewer bytes than with whole varints.
//!
//! A column is empty, or: the number of planes (u8), the bytes of each (u32), the planes.

use super::varint::Cursor;

/// Bytes of a number at most, seven bits each.
const MOST: usize = 10;

/// A column that is written.
#[derive(Default)]
pub(super) struct Planes([Vec<u8>; MOST]);

impl Planes {
    /// Appends a number.
    #[inline]
    pub fn put(&mut self, mut value: u64) {
        for plane in &mut self.0 {
            if value < 0x80 {
                plane.push(value as u8);
                return;
            }
            plane.push(value as u8 | 0x80);
            value >>= 7;
        }
    }

    /// Appends the column to a body, and starts again empty.
    pub fn write(&mut self, body: &mut Vec<u8>) {
        let used = self.0.iter().take_while(|plane| !plane.is_empty()).count();
        if used == 0 {
            return;
        }
        body.push(used as u8);
        for plane in &self.0[..used] {
            body.extend_from_slice(&(plane.len() as u32).to_le_bytes());
        }
        for plane in &mut self.0[..used] {
            body.append(plane);
        }
    }
}

/// A column that is read: of planes, or of whole varints as in files of version 1.
pub(super) struct Numbers<'a> {
    planes: [&'a [u8]; MOST],
    /// All varints lie in the first plane.
    whole: bool,
}

impl<'a> Numbers<'a> {
    /// A column of whole varints.
    pub fn varints(column: &'a [u8]) -> Self {
        let mut planes = [&[][..]; MOST];
        planes[0] = column;
        Self {
            planes,
            whole: true,
        }
    }

    /// A column of planes; the error is for one whose lengths do not add up.
    pub fn planes(column: &'a [u8]) -> Result<Self, String> {
        let wrong = || "the planes of a column are cut".to_string();
        let mut planes = [&[][..]; MOST];
        let Some((&used, rest)) = column.split_first() else {
            return Ok(Self {
                planes,
                whole: false,
            });
        };
        let used = used as usize;
        if used > MOST {
            return Err(wrong());
        }
        let (lengths, mut rest) = rest.split_at_checked(4 * used).ok_or_else(wrong)?;
        for (plane, length) in planes.iter_mut().zip(lengths.chunks_exact(4)) {
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
            (*plane, rest) = rest.split_at_checked(length).ok_or_else(wrong)?;
        }
        if !rest.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            planes,
            whole: false,
        })
    }

    /// The next number; `None` at the end or for one that is too long.
    #[inline]
    pub fn next(&mut self) -> Option<u64> {
        let (&first, rest) = self.planes[0].split_first()?;
        if first < 0x80 {
            self.planes[0] = rest;
            return Some(u64::from(first));
        }
        if self.whole {
            let mut cursor = Cursor(self.planes[0]);
            let value = cursor.next();
            self.planes[0] = cursor.0;
            return value;
        }
        self.planes[0] = rest;
        let mut value = u64::from(first & 0x7f);
        for (shift, plane) in (7u32..).step_by(7).zip(&mut self.planes[1..]) {
            let (&byte, rest) = plane.split_first()?;
            *plane = rest;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.planes.iter().map(|plane| plane.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn roundtrip(values in prop::collection::vec(any::<u64>(), 0..60), shift in 0u32..64) {
            let mut planes = Planes::default();
            values.iter().for_each(|value| planes.put(value >> shift));
            let mut body = Vec::new();
            planes.write(&mut body);
            let mut numbers = Numbers::planes(&body).unwrap();
            for value in values {
                prop_assert_eq!(numbers.next(), Some(value >> shift));
            }
            prop_assert_eq!((numbers.next(), numbers.left()), (None, 0));
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(mut numbers) = Numbers::planes(&bytes) {
                let mut count = 0;
                while numbers.next().is_some() {
                    count += 1;
                }
                prop_assert!(count <= bytes.len());
            }
        }
    }
}
