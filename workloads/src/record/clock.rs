//! Ticks of the session's clock as nanoseconds since the session's start.

use heaplab_ring::clock::{Clock, TICK_SHIFT, tsc};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// How long the counter's rate is measured. An error of 50 ns at either end is then 5 in a million.
const CALIBRATION: Duration = Duration::from_millis(20);
/// Pairs of readings tried for each end; the one with the smallest gap is taken.
const TRIES: u32 = 32;

/// A linear map from ticks to nanoseconds: one for the whole session, so that the order of any two
/// records by ticks is their order by time.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    clock: Clock,
    /// Ticks at the session's start.
    base: u64,
    ns_per_tick: f64,
}

impl Calibration {
    /// Measures the clock against CLOCK_MONOTONIC; takes some 20 ms for the counter.
    pub fn measure(clock: Clock) -> Self {
        match clock {
            Clock::Monotonic => Self {
                clock,
                base: monotonic_ns(),
                ns_per_tick: 1.0,
            },
            Clock::Tsc => {
                let (first_ticks, first_ns) = pair();
                std::thread::sleep(CALIBRATION);
                let (last_ticks, last_ns) = pair();
                let ticks = last_ticks.saturating_sub(first_ticks).max(1);
                Self {
                    clock,
                    base: last_ticks,
                    ns_per_tick: last_ns.saturating_sub(first_ns).max(1) as f64 / ticks as f64,
                }
            }
        }
    }

    /// Nanoseconds since the session's start; 0 for what is earlier.
    pub fn ns(&self, ticks: u64) -> u64 {
        (ticks.saturating_sub(self.base) as f64 * self.ns_per_tick) as u64
    }

    /// The times of a chunk that was taken at `base`.
    pub fn span(&self, base: u64) -> Span {
        Span {
            base_ns: self.ns(base),
            scale: (self.ns_per_tick * (1u64 << (TICK_SHIFT + SCALE_BITS)) as f64) as u64,
        }
    }

    /// Nanoseconds since the session's start, now.
    pub fn now_ns(&self) -> u64 {
        match self.clock {
            Clock::Tsc => self.ns(tsc()),
            Clock::Monotonic => self.ns(monotonic_ns()),
        }
    }
}

/// Bits behind the binary point of [`Span::scale`]: with 32 bits of ticks and some hundred nanoseconds a tick there is no
/// overflow, and 40 seconds are off by less than 100 ns.
const SCALE_BITS: u32 = 24;

/// Turns the ticks of a chunk's records into nanoseconds since the session's start, by one multiplication.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    base_ns: u64,
    scale: u64,
}

impl Span {
    #[inline(always)]
    pub fn ns(&self, ticks: u32) -> u64 {
        self.base_ns + ((u64::from(ticks) * self.scale) >> SCALE_BITS)
    }
}

/// The counter, where the kernel trusts it as its own clock or the processor promises a constant
/// rate that no sleep stops; else the monotonic clock.
pub fn choose() -> Clock {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    if std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc") {
        return Clock::Tsc;
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    let has = |flag| flags.split_ascii_whitespace().any(|word| word == flag);
    if has("constant_tsc") && has("nonstop_tsc") {
        Clock::Tsc
    } else {
        Clock::Monotonic
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Counter and clock at nearly the same instant.
fn pair() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..TRIES {
        let before = tsc();
        let ns = monotonic_ns();
        let gap = tsc().saturating_sub(before);
        if gap < best.0 {
            best = (gap, before + gap / 2, ns);
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_agrees_with_the_clock() {
        let calibration = Calibration::measure(Clock::Tsc);
        let (ticks_before, ns_before) = pair();
        std::thread::sleep(Duration::from_millis(30));
        let (ticks_after, ns_after) = pair();
        let by_ticks = calibration.ns(ticks_after) - calibration.ns(ticks_before);
        let by_clock = ns_after - ns_before;
        // A preempted reading may be off; one part in a hundred is far above that here.
        assert!(
            by_ticks.abs_diff(by_clock) < by_clock / 100 + 2_000_000,
            "{by_ticks} ns by the counter, {by_clock} ns by the clock"
        );
    }

    #[test]
    fn ticks_before_the_start_are_time_zero() {
        let calibration = Calibration::measure(Clock::Monotonic);
        assert_eq!(calibration.ns(0), 0);
        assert_eq!(calibration.ns(calibration.base + 5), 5);
    }
}
