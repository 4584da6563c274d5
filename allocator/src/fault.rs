//! What happens when the program has misused the heap: one line on standard error that names the
//! fault and the address, then SIGABRT. Nothing here allocates.

use crate::os;
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

pub(crate) use crate::units::DETECT;

/// A mistake of the program that the allocator has noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The block is free already.
    DoubleFree,
    /// The address was never returned by this allocator.
    ForeignPointer,
    /// The address lies inside a block.
    InteriorPointer,
    /// The address is in the heap but no block can start there: it is not aligned.
    Misaligned,
    /// The size given at free does not belong to the block.
    WrongSize,
    /// A freed block is not as it was left.
    WriteAfterFree,
    /// A signal handler allocates or frees where it interrupted the allocator. Instead of an address: the thread's number.
    Interrupted,
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Self::DoubleFree => "double free of ",
            Self::ForeignPointer => "free of a pointer that spanalloc did not return: ",
            Self::InteriorPointer => "free of a pointer into the middle of a block: ",
            Self::Misaligned => "free of a misaligned pointer: ",
            Self::WriteAfterFree => "write to a block after its free: ",
            Self::Interrupted => {
                "malloc or free in a signal handler that interrupted another (front_end=cpu allows it), in thread "
            }
            Self::WrongSize => "free with a size of another class than the block's: ",
        }
    }
}

/// Longest line: the list of all settings fits.
const LINE: usize = 384;

/// A line of text in a fixed buffer; what does not fit is cut off.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Line {
    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; LINE],
            len: 0,
        }
    }

    /// Appends text.
    pub fn text(&mut self, text: &[u8]) -> &mut Self {
        for &byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
        self
    }

    /// Appends a number in hexadecimal.
    pub fn hex(&mut self, value: usize) -> &mut Self {
        let digits = (usize::BITS - value.leading_zeros()).div_ceil(4).max(1);
        self.text(b"0x");
        for digit in (0..digits).rev() {
            let nibble = (value >> (digit * 4)) & 15;
            self.text(&b"0123456789abcdef"[nibble..=nibble]);
        }
        self
    }

    /// Appends a number in decimal.
    pub fn decimal(&mut self, value: usize) -> &mut Self {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut rest = value;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.text(&digits[at..])
    }

    /// The text so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Writes the line with a newline to standard error.
    pub fn print(&mut self) {
        self.len = self.len.min(self.bytes.len() - 1);
        self.text(b"\n");
        os::write_stderr(self.as_bytes());
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

/// The thread that reported a fault last. Its SIGABRT may have a handler that allocates.
static REPORTING: AtomicI32 = AtomicI32::new(0);

/// The calling thread has reported a fault and is in a handler of the process's end.
pub(crate) fn reporting() -> bool {
    let reporting = REPORTING.load(Relaxed);
    reporting != 0 && reporting == os::thread_number()
}

/// Ends the process without the program's handler of its end, which waits for what the process itself holds.
#[cold]
pub(crate) fn end_reporting() -> ! {
    os::forget_abort_handler();
    os::abort_process()
}

/// Reports a fault and ends the process. A fault of the handler of that end ends it without the handler.
#[cold]
#[inline(never)]
pub fn die(fault: Fault, address: usize) -> ! {
    let mut line = Line::new();
    line.text(b"spanalloc: ").text(fault.text().as_bytes());
    if fault == Fault::Interrupted {
        line.decimal(address);
    } else {
        line.hex(address);
    }
    die_of(&mut line)
}

/// [`die`] with a line of the caller's.
#[cold]
#[inline(never)]
pub(crate) fn die_of(line: &mut Line) -> ! {
    line.print();
    let thread = os::thread_number();
    if REPORTING.swap(thread, Relaxed) == thread {
        os::forget_abort_handler();
    }
    os::abort_process()
}

/// Reports that memory for `what` ran out where the caller has no way to go on.
#[cold]
#[inline(never)]
pub fn die_out_of_memory(what: &str, bytes: usize) -> ! {
    let mut line = Line::new();
    line.text(b"spanalloc: out of memory: ")
        .text(what.as_bytes())
        .text(b" of ")
        .hex(bytes);
    line.text(b" bytes");
    line.print();
    os::abort_process()
}

/// Reports that the allocator itself is wrong.
#[cold]
#[inline(never)]
pub fn die_bug() -> ! {
    os::write_stderr(b"spanalloc: internal error, please report it\n");
    os::abort_process()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_format_and_truncate() {
        let mut line = Line::new();
        line.text(b"at ")
            .hex(0)
            .text(b" ")
            .hex(0xdead_beef)
            .text(b" ")
            .hex(usize::MAX);
        assert_eq!(line.as_bytes(), b"at 0x0 0xdeadbeef 0xffffffffffffffff");
        let mut numbers = Line::new();
        numbers.decimal(0).text(b" ").decimal(usize::MAX);
        assert_eq!(numbers.as_bytes(), b"0 18446744073709551615");
        let mut long = Line::new();
        long.text(&[b'x'; 500]);
        assert_eq!(long.as_bytes().len(), LINE);
    }
}
