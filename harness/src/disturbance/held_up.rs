//! How long a program was ready to run and did not, because something else had the CPUs: what the kernel notes of each thread
//! (`/proc/PID/task/TID/schedstat`, its second number). An allocator that gives memory back by the clock keeps another amount
//! of it in a program that is held up.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// Between two looks: a thread that ends takes with it what it waited since the last one.
const STEP: Duration = Duration::from_millis(10);

/// The threads of one process, followed while it runs.
#[derive(Debug)]
pub struct HeldUp {
    pid: u32,
    began: Instant,
    looked: Instant,
    /// Nanoseconds by thread.
    waited: HashMap<u32, u64>,
}

impl HeldUp {
    /// Of a process that has just been started.
    pub fn of(pid: u32) -> Self {
        let now = Instant::now();
        Self {
            pid,
            began: now,
            looked: now,
            waited: HashMap::new(),
        }
    }

    /// Looks, if the last look was long enough ago. Neither a mapping nor a thread of the program is held for it.
    pub fn look(&mut self) {
        let now = Instant::now();
        if !self.waited.is_empty() && now < self.looked + STEP {
            return;
        }
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return;
        };
        for thread in threads.flatten() {
            let number = thread.file_name().to_str().and_then(|n| n.parse().ok());
            let waited = (fs::read_to_string(thread.path().join("schedstat")).ok())
                .and_then(|text| waited_ns(&text));
            if let (Some(number), Some(waited)) = (number, waited) {
                self.waited.insert(number, waited);
                self.looked = now;
            }
        }
    }

    /// Of all its threads together, as a share of the time until the last look; `None` where the kernel does not note it, and
    /// of a program that was over before it was looked at twice.
    pub fn share(&self) -> Option<f64> {
        let over = self.looked - self.began;
        let waited: u64 = self.waited.values().sum();
        (over >= STEP).then(|| waited as f64 / over.as_nanos() as f64)
    }
}

/// Time on the CPU, time ready to run without one, time slices.
fn waited_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_on_one_cpu_hold_each_other_up() {
        assert_eq!(waited_ns("812 65326 1\n"), Some(65326));
        // Two shells that count, on the same CPU: each waits while the other runs.
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let start = || {
            std::process::Command::new("taskset")
                .args(["-c", "0", "sh", "-c", spin])
                .spawn()
                .unwrap()
        };
        let (mut one, mut other) = (start(), start());
        let mut held = HeldUp::of(one.id());
        while one.try_wait().unwrap().is_none() {
            held.look();
            std::thread::sleep(Duration::from_millis(1));
        }
        let share = held.share().unwrap();
        other.wait().unwrap();
        assert!(share > 0.1, "{share} although two ran on one CPU");
        let mut gone = HeldUp::of(u32::MAX);
        gone.look();
        assert_eq!(gone.share(), None);
    }
}
