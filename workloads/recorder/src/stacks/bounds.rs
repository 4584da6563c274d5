//! The limits of the stack that a thread runs on.

use core::sync::atomic::Ordering;

use heaplab_ring::sys;

use super::state::StackState;

/// So often at most a thread looks its limits up: programs that switch stacks all the time get the
/// innermost address only from then on, on stacks other than the last one.
const MOST_LOOKUPS: u32 = 1024;
/// The main thread's stack grows down into space that the kernel keeps free for it.
const MAIN_GROWTH: usize = 64 << 20;

/// The end of the stack that `sp` lies in: every byte in `[sp, end)` is mapped. `None`: not known.
#[inline(always)]
pub fn end_of_stack(state: &StackState, sp: usize) -> Option<usize> {
    let (low, high) = (
        state.low.load(Ordering::Relaxed),
        state.high.load(Ordering::Relaxed),
    );
    if sp >= low && sp < high {
        return Some(high);
    }
    look_up(state, sp)
}

#[cold]
fn look_up(state: &StackState, sp: usize) -> Option<usize> {
    let lookups = state.lookups.load(Ordering::Relaxed);
    if lookups >= MOST_LOOKUPS {
        return None;
    }
    state.lookups.store(lookups + 1, Ordering::Relaxed);
    let (mut low, mut high, main) = mapping_of(sp)?;
    if main {
        low = low.saturating_sub(MAIN_GROWTH);
    } else {
        // A mapping may go on behind the stack: there its thread descriptor lies, which libc puts
        // at the top of the stack.
        let descriptor = thread_pointer();
        if descriptor > sp && descriptor < high {
            high = descriptor;
        }
    }
    // A handler may come in between: it must not combine one stack's low with another's high.
    state.high.store(0, Ordering::Relaxed);
    state.low.store(low, Ordering::Relaxed);
    state.high.store(high, Ordering::Relaxed);
    Some(high)
}

fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: `fs:[0]` holds the thread pointer itself (x86-64 ABI).
    unsafe {
        core::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(pure, readonly, nostack));
    }
    pointer
}

/// First and end address of the mapping with `address`, and whether it is the main thread's stack.
fn mapping_of(address: usize) -> Option<(usize, usize, bool)> {
    let fd = sys::open(b"/proc/self/maps\0", false).ok()?;
    let mut lines = Lines::default();
    // Small: it may lie on a small stack.
    let mut block = [0u8; 512];
    let mut found = None;
    'read: while let Ok(bytes @ 1..) = sys::read(fd, &mut block) {
        for &byte in block.get(..bytes).unwrap_or(&[]) {
            if let Some((low, high, main)) = lines.take(byte)
                && (low..high).contains(&address)
            {
                found = Some((low, high, main));
                break 'read;
            }
        }
    }
    sys::close(fd);
    found
}

/// Reads `low-high perms offset device inode name` byte by byte.
#[derive(Default)]
struct Lines {
    numbers: [usize; 2],
    /// 0, 1: in that number; 2: behind them.
    field: usize,
    /// Bytes of "[stack]" that the line ends in so far.
    matched: usize,
}

impl Lines {
    fn take(&mut self, byte: u8) -> Option<(usize, usize, bool)> {
        const MAIN: &[u8] = b"[stack]";
        if byte == b'\n' {
            let main = self.matched == MAIN.len();
            let [low, high] = self.numbers;
            *self = Lines::default();
            return Some((low, high, main));
        }
        match self.field {
            0 | 1 => match (byte as char).to_digit(16) {
                Some(digit) => {
                    if let Some(number) = self.numbers.get_mut(self.field) {
                        *number = *number << 4 | digit as usize;
                    }
                }
                None => self.field += 1,
            },
            _ => {
                self.matched = match MAIN.get(self.matched) {
                    Some(&next) if next == byte => self.matched + 1,
                    _ => usize::from(byte == b'['),
                }
            }
        }
        None
    }
}
