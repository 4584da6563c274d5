//! The clock of the records: the processor's time stamp counter, or CLOCK_MONOTONIC where the
//! kernel itself does not trust the counter.

/// Records count time in units of 2 to this power ticks: 12 ns of a counter at 2.6 GHz, 32 ns of the monotonic clock. In 32
/// bits that is more than 40 seconds at any rate of a counter that exists (3.2 GHz: 42 s).
pub const TICK_SHIFT: u32 = 5;

/// Which clock stamps the records of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Clock {
    /// `rdtsc`; ticks at a constant rate, the same on every CPU.
    Tsc = 1,
    /// `clock_gettime(CLOCK_MONOTONIC)` in nanoseconds.
    Monotonic = 2,
}

impl Clock {
    /// The clock with this number, if there is one.
    pub fn from_u32(value: u32) -> Option<Clock> {
        match value {
            1 => Some(Clock::Tsc),
            2 => Some(Clock::Monotonic),
            _ => None,
        }
    }
}

/// The time stamp counter now. Not serialising: it may execute some hundred cycles early, which
/// the reader of a trace tolerates (per-address alternation is the truth, time is a hint).
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: `rdtsc` exists on every x86-64 processor and touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}
