//! Transparent huge pages while memory is measured. When a subject first writes to memory for which huge pages may be used, the kernel
//! gives it one of 2 MiB or, where it has none in one piece, a small page at a time: then less is resident, whatever the
//! subject does. So the kernel is asked to have as many ready as a run may need, and a run during which it had none is made once more.

use crate::embed::{self, Embedded};
use crate::fingerprint;
use std::fs;
use std::process::{Command, Stdio};

/// What a subject may need: so many times the blocks that live, and this. The second time more, as the first was not enough (mimalloc-v3 has
/// 122 MiB of huge pages for the 25 MiB of `mstress`).
const SHARES: [u64; 2] = [2, 6];
const BESIDE: u64 = 16 << 20;
/// At most this part of the memory that is available.
const MEMORY_SHARE: u64 = 4;
/// Which memory the kernel uses them for; the word in force stands in brackets.
const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// How often the kernel had no huge page when one was due, since the machine was started and for all of its processes; 0 where it
/// does not say.
fn refused() -> u64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    count(&counters, "thp_fault_fallback")
}

/// A line of a word and a number.
fn count(counters: &str, name: &str) -> u64 {
    let mut pairs = counters.lines().filter_map(|line| line.split_once(' '));
    let found = pairs.find(|(word, _)| *word == name);
    found
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or(0)
}

/// Whether subjects can get any here.
fn are_used() -> bool {
    fingerprint::active_word(ENABLED).is_some_and(|word| word != "never")
}

/// Has the kernel make huge pages ready for a process with up to `live` bytes of blocks, for the `attempt`-th time. Best effort.
fn make_ready(live: u64, attempt: usize) {
    if !are_used() {
        return;
    }
    let bytes =
        (SHARES[attempt] * live + BESIDE).min(fingerprint::available_bytes() / MEMORY_SHARE);
    let Ok(worker) = embed::path(Embedded::Worker) else {
        return; // the run itself says so
    };
    let _ = (Command::new(worker).args(["--huge-pages", &bytes.to_string()]))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Makes a run for which up to `live` bytes of huge pages are made ready, once more where the kernel refused some meanwhile. The run in which
/// it refused fewer, and how many these were: on the whole machine, so that other programs may have been meant.
///
/// # Errors
/// The run's own.
pub fn over<T>(live: u64, run: impl FnMut() -> Result<T, String>) -> Result<(T, u64), String> {
    fewest(|attempt| make_ready(live, attempt), refused, run)
}

fn fewest<T>(
    ready: impl Fn(usize),
    mut refused: impl FnMut() -> u64,
    mut run: impl FnMut() -> Result<T, String>,
) -> Result<(T, u64), String> {
    let mut once = |attempt| -> Result<(T, u64), String> {
        ready(attempt);
        let before = refused();
        let result = run()?;
        Ok((result, refused().saturating_sub(before)))
    };
    match once(0)? {
        (result, 0) => Ok((result, 0)),
        first => {
            let second = once(1)?;
            Ok(if second.1 < first.1 { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let text = "thp_fault_fallback_charge 7\nthp_fault_fallback 12\nthp_fault_alloc 3\n";
        assert_eq!(count(text, "thp_fault_fallback"), 12);
        assert_eq!(count(text, "thp_fault"), 0);
        assert_eq!(count("", "thp_fault_fallback"), 0);
    }

    #[test]
    fn a_run_that_was_refused_some_is_made_once_more_and_the_better_one_counts() {
        // What the counter shows before and after each run.
        let runs = |counter: &[u64]| {
            let (mut looks, mut made) = (counter.iter(), 0);
            let result = fewest(
                |_| {},
                || *looks.next().unwrap(),
                || {
                    made += 1;
                    Ok(made)
                },
            );
            (result.unwrap(), made)
        };
        assert_eq!(runs(&[5, 5]), ((1, 0), 1));
        assert_eq!(runs(&[5, 9, 9, 9]), ((2, 0), 2));
        assert_eq!(runs(&[5, 9, 9, 20]), ((1, 4), 2));
        let failed: Result<((), u64), _> = fewest(|_| {}, || 0, || Err("it hangs".to_owned()));
        assert_eq!(failed, Err("it hangs".to_owned()));
    }
}
