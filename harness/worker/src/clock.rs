//! Clocks: the time stamp counter for single calls, the kernel's clocks for whole runs, and what the kernel counts.

use std::arch::x86_64::_rdtsc;
use std::ffi::{CStr, c_int};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Time stamp counter. Not fenced: a fence costs more than a fast call.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 has the instruction.
    unsafe { _rdtsc() }
}

/// libc's own `clock_gettime`, once looked up.
static LIBC_CLOCK: AtomicUsize = AtomicUsize::new(0);

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

/// Looks up libc's clock, so that the worker's own stamps need no system call.
pub fn find_libc_clock() {
    let name: &CStr = c"clock_gettime";
    // SAFETY: a valid C string; a lookup changes nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    LIBC_CLOCK.store(found as usize, Ordering::Release);
}

/// The system's clock, whatever subjects are told.
pub fn real_clock(clock: libc::clockid_t, time: &mut libc::timespec) -> c_int {
    match LIBC_CLOCK.load(Ordering::Acquire) {
        // SAFETY: `time` is a place for the result.
        0 => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut *time) as c_int },
        // SAFETY: libc's function of this name, which has this signature; `time` is a place for the result.
        found => unsafe {
            std::mem::transmute::<usize, ClockGettime>(found)(clock, &raw mut *time)
        },
    }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    real_clock(clock, &mut time);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Monotonic nanoseconds.
pub fn now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CPU nanoseconds of the whole process, the subject's own threads included.
pub fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU nanoseconds of the calling thread.
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Sleeps for about `ns` nanoseconds.
pub fn sleep_ns(ns: u64) {
    let mut rest = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    // SAFETY: both pointers are to the same valid timespec, which nanosleep allows.
    while unsafe { libc::nanosleep(&raw const rest, &raw mut rest) } != 0 {}
}

/// Sleeps until the monotonic clock shows `ns`.
pub fn sleep_until_ns(ns: u64) {
    let until = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    // SAFETY: a valid timespec; an absolute sleep needs no place for the rest.
    while unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const until,
            std::ptr::null_mut(),
        )
    } == libc::EINTR
    {}
}

/// What the kernel counted for this process or thread.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Faults served without I/O.
    pub minor_faults: u64,
    /// Faults that needed I/O.
    pub major_faults: u64,
    /// Voluntary and involuntary switches.
    pub switches: u64,
    /// Involuntary switches.
    pub preemptions: u64,
}

/// Counts of the whole process (`thread` false) or of the calling thread.
pub fn usage(thread: bool) -> Usage {
    // SAFETY: zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let who = if thread {
        libc::RUSAGE_THREAD
    } else {
        libc::RUSAGE_SELF
    };
    // SAFETY: `usage` is a place for the result.
    unsafe { libc::getrusage(who, &raw mut usage) };
    Usage {
        minor_faults: usage.ru_minflt as u64,
        major_faults: usage.ru_majflt as u64,
        switches: (usage.ru_nvcsw + usage.ru_nivcsw) as u64,
        preemptions: usage.ru_nivcsw as u64,
    }
}

/// How ticks become nanoseconds.
#[derive(Clone, Copy, Default)]
pub struct Scale {
    /// Nanoseconds of 2³² ticks.
    per_4g: u64,
    /// Cost of an empty pair of stamps, nanoseconds (median).
    pub pair_ns: f64,
}

impl Scale {
    /// Compares the counter with the kernel's raw clock for 20 ms and times empty pairs.
    pub fn measure() -> Self {
        let raw = || read(libc::CLOCK_MONOTONIC_RAW);
        let (ns0, ticks0) = both(raw, ticks);
        while raw() - ns0 < 20_000_000 {
            spin_loop();
        }
        let (ns1, ticks1) = both(raw, ticks);
        let per_4g = ((u128::from(ns1 - ns0) << 32) / u128::from((ticks1 - ticks0).max(1))) as u64;
        let mut pairs: Vec<u64> = (0..4096)
            .map(|_| {
                let before = ticks();
                ticks() - before
            })
            .collect();
        pairs.sort_unstable();
        let pair_ns = pairs[pairs.len() / 2] as f64 * per_4g as f64 / (1u64 << 32) as f64;
        Self { per_4g, pair_ns }
    }

    /// Nanoseconds of `ticks`.
    #[inline(always)]
    pub fn ns(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.per_4g)) >> 32) as u64
    }

    /// Ticks of `ns` nanoseconds.
    pub fn ticks(self, ns: u64) -> u64 {
        ((u128::from(ns) << 32) / u128::from(self.per_4g.max(1))) as u64
    }
}

/// The two clocks at one instant: of a few readings the one during which the fewest ticks passed. A thread that loses its
/// CPU between the two for some of the 20 ms that are compared would take every call for several times as long.
fn both(mut ns: impl FnMut() -> u64, mut ticks: impl FnMut() -> u64) -> (u64, u64) {
    let readings = (0..16).map(|_| {
        let before = ticks();
        let ns = ns();
        let took = ticks().saturating_sub(before);
        (took, ns, before + took / 2)
    });
    let (_, ns, ticks) = readings.min().unwrap_or_default();
    (ns, ticks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_thread_that_loses_its_cpu_between_two_clocks_still_compares_one_instant() {
        // Two ticks a nanosecond; each look takes 10 ns, and one of them 15 ms.
        for held_up in 0..48 {
            let (time, looks) = (Cell::new(1_000), Cell::new(0));
            let look = || {
                let took = if looks.get() == held_up {
                    15_000_000
                } else {
                    10
                };
                looks.set(looks.get() + 1);
                time.set(time.get() + took);
                time.get()
            };
            let (ns, ticks) = both(look, || 2 * look());
            assert!(
                ticks.abs_diff(2 * ns) <= 40,
                "{held_up}: {ns} ns, {ticks} ticks"
            );
        }
    }
}
