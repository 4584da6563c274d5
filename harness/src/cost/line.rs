//! What two threads that answer each other cannot go below: the way of a cache line from one CPU to another and back.
//!
//! It tells in which state the machine is: two threads that answer each other take twice as long where a line takes some nanoseconds longer. A
//! virtual machine is not told where its CPUs are, and its host moves them.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Ways there and back that are timed at once, and how often; the fastest counts.
const WAYS: u32 = 2_000;
const BURSTS: u32 = 10;
const LONGEST: Duration = Duration::from_millis(100);
/// What stands on the line.
const ANSWERED: u32 = 0;
const ASKED: u32 = 1;
const END: u32 = 2;

/// Alone on its line, and on the one that CPUs fetch with it.
#[repr(align(128))]
struct Line(AtomicU32);

/// Nanoseconds there and back between the last two CPUs that may be used, which replays of two threads are pinned to; `None` where there is one.
pub fn there_and_back_ns() -> Option<f64> {
    let usable = sched_getaffinity(None).ok()?;
    let mut cpus = (0..CpuSet::MAX_CPU).rev().filter(|cpu| usable.is_set(*cpu));
    let (here, there) = (cpus.next()?, cpus.next()?);
    let line = Line(AtomicU32::new(ANSWERED));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pinned(there);
            answer(&line);
        });
        let asking = scope.spawn(|| {
            pinned(here);
            let began = Instant::now();
            let fastest = (0..BURSTS)
                // Where others have the CPUs, a way may take a time slice.
                .take_while(|_| began.elapsed() < LONGEST)
                .map(|_| burst(&line))
                .reduce(f64::min);
            line.0.store(END, Ordering::Release);
            fastest
        });
        asking.join().ok().flatten()
    })
}

/// Nanoseconds of a way there and back, of some in a row.
fn burst(line: &Line) -> f64 {
    let began = Instant::now();
    for _ in 0..WAYS {
        line.0.store(ASKED, Ordering::Release);
        while line.0.load(Ordering::Acquire) != ANSWERED {
            spin_loop();
        }
    }
    began.elapsed().as_nanos() as f64 / f64::from(WAYS)
}

fn answer(line: &Line) {
    loop {
        match line.0.load(Ordering::Acquire) {
            ASKED => line.0.store(ANSWERED, Ordering::Release),
            END => break,
            _ => spin_loop(),
        }
    }
}

/// Where the kernel refuses, it stays where it is.
fn pinned(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    let _ = sched_setaffinity(None, &one);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_longer_than_a_call_and_less_than_the_kernel_takes() {
        let cpus = sched_getaffinity(None).unwrap().count();
        match there_and_back_ns() {
            // On a busy machine each turn may wait for the other's time slice.
            Some(ns) => assert!(cpus > 1 && ns > 5.0 && ns < 5e6, "{ns}"),
            None => assert_eq!(cpus, 1),
        }
        // Whoever asked is where it was.
        assert_eq!(sched_getaffinity(None).unwrap().count(), cpus);
    }
}
