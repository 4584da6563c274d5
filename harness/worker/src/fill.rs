//! Blocks that are filled little by little, as the recorded program filled them: what they occupy grows while other calls are
//! made, and while the clock goes on by which the subject gives memory back.

use std::ffi::c_void;

const PAGE: usize = 4096;
/// Blocks that are filled at a time; further ones are filled at once.
const MOST: usize = 256;

/// A block with a part that is still to be written.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// The block.
    pub start: *mut c_void,
    /// First byte that is to be written, from the start.
    pub from: usize,
    /// The end of what is to be written.
    pub to: usize,
    /// How long it takes, nanoseconds.
    pub over_ns: u64,
}

/// All of them.
#[derive(Default)]
pub struct Fills {
    /// With the time at which each began.
    open: Vec<(u64, Fill)>,
}

impl Fills {
    /// None yet; makes room, so that no call is made later.
    pub fn new() -> Self {
        Self {
            open: Vec::with_capacity(MOST),
        }
    }

    /// Another one begins at `ns`. Bytes written at once.
    ///
    /// # Safety
    /// The block is alive and at least `to` bytes long; [`Fills::leaves`] is called before that ends.
    pub unsafe fn begin(&mut self, ns: u64, mut fill: Fill) -> usize {
        debug_assert!(fill.from <= fill.to && !fill.start.is_null());
        if self.open.len() == MOST {
            let to = fill.to;
            // SAFETY: the caller's promise.
            return unsafe { fill.write(to) };
        }
        self.open.push((ns, fill));
        0
    }

    /// Whether there is nothing to do.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Writes what is due at `ns`. Bytes written.
    pub fn advance(&mut self, ns: u64) -> usize {
        let mut written = 0;
        self.open.retain_mut(|(began, fill)| {
            let passed = ns.saturating_sub(*began);
            let over = passed >= fill.over_ns;
            let share = passed as f64 / fill.over_ns.max(1) as f64;
            // Both ends move: from what is left, in what is left of the time.
            let due = match over {
                true => fill.to,
                false => fill.from + ((fill.to - fill.from) as f64 * share) as usize,
            };
            // SAFETY: the block is alive, as it has not left.
            let now = unsafe { fill.write(due) };
            if now > 0 {
                fill.over_ns = fill.over_ns.saturating_sub(passed);
                *began = ns;
            }
            written += now;
            !over
        });
        written
    }

    /// The block is about to be freed or resized: what is still to be written is written. Bytes.
    pub fn leaves(&mut self, start: *const c_void) -> usize {
        let Some(at) = (self.open.iter()).position(|(_, fill)| fill.start.cast_const() == start)
        else {
            return 0;
        };
        let (_, mut fill) = self.open.swap_remove(at);
        let to = fill.to;
        // SAFETY: as above.
        unsafe { fill.write(to) }
    }
}

impl Fill {
    /// Writes to each page that begins between what is written and `due`. Bytes.
    ///
    /// # Safety
    /// The block is alive and at least `due` bytes long.
    unsafe fn write(&mut self, due: usize) -> usize {
        let begin = self.start as usize;
        let first = (begin + self.from).next_multiple_of(PAGE);
        let mut pages = 0;
        let mut page = first;
        while page < begin + due {
            // SAFETY: inside the block, by the caller's promise.
            unsafe {
                self.start
                    .cast::<u8>()
                    .add(page - begin)
                    .write_volatile(0xa5)
            };
            page += PAGE;
            pages += 1;
        }
        if pages > 0 {
            self.from = due;
        }
        pages * PAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_filled_as_time_goes_on_and_whole_before_it_leaves() {
        let mut block = vec![0u8; 100 * PAGE];
        let start = block.as_mut_ptr().cast::<c_void>();
        let written = |block: &[u8]| block.iter().filter(|byte| **byte == 0xa5).count();
        let mut fills = Fills::new();
        let fill = Fill {
            start,
            from: 20 * PAGE,
            to: 90 * PAGE,
            over_ns: 1000,
        };
        // SAFETY: the block outlives the test, and is as long.
        assert_eq!(unsafe { fills.begin(5000, fill) }, 0);
        assert_eq!(fills.advance(4000), 0);
        assert_eq!(fills.advance(5500), 35 * PAGE);
        assert_eq!(written(&block), 35);
        assert!(block[..20 * PAGE].iter().all(|byte| *byte == 0));
        // Steps below a page add up.
        for ns in 5501..=5750 {
            fills.advance(ns);
        }
        assert!((51..=53).contains(&written(&block)), "{}", written(&block));
        assert_eq!(fills.leaves(std::ptr::null()), 0);
        fills.leaves(start);
        assert!(fills.is_empty() && fills.advance(9000) == 0);
        assert_eq!(written(&block), 70);
        assert!(block[90 * PAGE + PAGE..].iter().all(|byte| *byte == 0));
        // SAFETY: as above.
        unsafe { fills.begin(0, fill) };
        fills.advance(1000);
        assert!(fills.is_empty());
    }
}
