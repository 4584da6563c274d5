//! `paced`: every op at its recorded time × a factor, and how late it was made.
//!
//! A thread sleeps until shortly before the time and spins for the rest, because the kernel wakes a sleeper some 50 µs
//! late; where there are more threads than CPUs it only sleeps, because a spinning thread would keep another from its op.

use crate::clock;
use crate::fail;
use hdrhistogram::Histogram;
use heaplab_worker::protocol::Lateness;

/// Spun before an op's time, nanoseconds.
const SPIN_NS: u64 = 80_000;
/// Time that a look at the kernel's counters may take, nanoseconds.
const EARLY_NS: u64 = 2_000;
/// Longest lateness told apart from longer ones, nanoseconds.
const HIGHEST_NS: u64 = 600_000_000_000;

/// One thread's pace.
pub struct Pace {
    start_ns: u64,
    factor: f64,
    spins: bool,
    late: Histogram<u64>,
}

impl Pace {
    /// A pace that begins at `start_ns` on the monotonic clock.
    pub fn new(start_ns: u64, factor: f64, spins: bool) -> Self {
        Self {
            start_ns,
            factor,
            spins,
            late: none(),
        }
    }

    /// Whether there is time for something else before the op's: a thread that is late has none, and what it does then makes it later.
    pub fn is_early(&self, recorded_ns: u64) -> bool {
        clock::now_ns() + EARLY_NS < self.intended(recorded_ns)
    }

    fn intended(&self, recorded_ns: u64) -> u64 {
        self.start_ns + (recorded_ns as f64 * self.factor) as u64
    }

    /// Waits for the op's time (recorded, nanoseconds since the beginning); returns the intended start.
    pub fn wait(&mut self, recorded_ns: u64) -> u64 {
        let intended = self.intended(recorded_ns);
        let spin = if self.spins { SPIN_NS } else { 0 };
        let mut now = clock::now_ns();
        if now + spin < intended {
            clock::sleep_until_ns(intended - spin);
            now = clock::now_ns();
        }
        while now < intended {
            std::hint::spin_loop();
            now = clock::now_ns();
        }
        self.late.saturating_record((now - intended).max(1));
        intended
    }

    /// What was noted.
    pub fn finish(self) -> Histogram<u64> {
        self.late
    }
}

/// No lateness yet.
pub fn none() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 2)
        .unwrap_or_else(|error| fail::with(format!("no histogram can be made: {error}")))
}

/// The summary of the answer; `None` when no op had a time.
pub fn summary(late: &Histogram<u64>) -> Option<Lateness> {
    (!late.is_empty()).then(|| Lateness {
        ops: late.len(),
        p50_ns: late.value_at_quantile(0.5),
        p99_ns: late.value_at_quantile(0.99),
        max_ns: late.max(),
    })
}
