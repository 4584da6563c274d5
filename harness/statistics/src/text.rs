//! A flat JSON object of numbers, written without allocating.

use core::fmt::{self, Write};

pub(crate) struct Text<'a> {
    into: &'a mut [u8],
    used: usize,
    fields: usize,
    overflowed: bool,
}

impl<'a> Text<'a> {
    pub fn new(into: &'a mut [u8]) -> Self {
        Self {
            into,
            used: 0,
            fields: 0,
            overflowed: false,
        }
    }

    /// One more field. `name` holds nothing that JSON would want escaped.
    pub fn number(&mut self, name: fmt::Arguments<'_>, value: usize) {
        let before = if self.fields == 0 { '{' } else { ',' };
        self.fields += 1;
        if write!(self, "{before}\"{name}\":{value}").is_err() {
            self.overflowed = true;
        }
    }

    /// Length of the whole; `None` without a field or without room.
    pub fn finish(&mut self) -> Option<usize> {
        if self.fields == 0 || self.overflowed || self.write_char('}').is_err() {
            return None;
        }
        Some(self.used)
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.into.get_mut(self.used..).ok_or(fmt::Error)?;
        let place = room.get_mut(..part.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(part.as_bytes());
        self.used += part.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn an_object_or_nothing() {
        let mut room = [0; 64];
        let mut text = Text::new(&mut room);
        text.number(format_args!("{}_bytes", "a"), 7);
        text.number(format_args!("b"), usize::MAX);
        let used = text.finish().unwrap();
        let shown = std::str::from_utf8(&room[..used]).unwrap();
        assert_eq!(shown, "{\"a_bytes\":7,\"b\":18446744073709551615}");
        assert_eq!(Text::new(&mut [0; 8]).finish(), None);
        let mut small = [0; 8];
        let mut text = Text::new(&mut small);
        text.number(format_args!("long"), 1);
        assert_eq!(text.finish(), None, "no half of an object");
    }
}
