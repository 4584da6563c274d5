//! Transparent huge pages while memory is measured. When a subject first writes to memory for which huge pages may be used, the kernel
//! gives it one of 2 MiB or, where it has none in one piece, a small page at a time: then less is resident, whatever the
//! subject does. And every ten seconds a thread of the kernel (khugepaged) goes through such memory and puts a huge page where
//! small ones lie: then more is resident. So the kernel is asked to have as many ready as a run may need, and a run during which it
//! had none or put one in by itself is made once more.

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

/// How many huge pages khugepaged has put in; what `madvise(MADV_COLLAPSE)` puts in, which is the subject's doing, is not among them.
const COLLAPSED: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed";

/// What the kernel did with huge pages that no subject asked of it, on the whole machine, so that other programs may have been meant.
/// 0 where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whims {
    /// How often it had none when one was due.
    pub refused: u64,
    /// How many it put where small pages lay.
    pub collapsed: u64,
}

impl Whims {
    /// Since the machine was started.
    fn now() -> Self {
        let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let collapsed = fs::read_to_string(COLLAPSED).unwrap_or_default();
        Self {
            refused: count(&counters, "thp_fault_fallback"),
            collapsed: collapsed.trim().parse().unwrap_or(0),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            refused: self.refused.saturating_sub(before.refused),
            collapsed: self.collapsed.saturating_sub(before.collapsed),
        }
    }

    fn all(self) -> u64 {
        self.refused + self.collapsed
    }
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

/// Makes a run for which up to `live` bytes of huge pages are made ready, once more where the kernel refused some or put some in
/// meanwhile. The run in which it did so less often, and how often.
///
/// # Errors
/// The run's own.
pub fn over<T>(live: u64, run: impl FnMut() -> Result<T, String>) -> Result<(T, Whims), String> {
    calmest(|attempt| make_ready(live, attempt), Whims::now, run)
}

fn calmest<T>(
    ready: impl Fn(usize),
    mut now: impl FnMut() -> Whims,
    mut run: impl FnMut() -> Result<T, String>,
) -> Result<(T, Whims), String> {
    let mut once = |attempt| -> Result<(T, Whims), String> {
        ready(attempt);
        let before = now();
        let result = run()?;
        Ok((result, now().since(before)))
    };
    let first = once(0)?;
    if first.1.all() == 0 {
        return Ok(first);
    }
    let second = once(1)?;
    Ok(if second.1.all() < first.1.all() {
        second
    } else {
        first
    })
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
    fn a_run_with_a_whim_of_the_kernels_is_made_once_more_and_the_calmer_one_counts() {
        // What the counters show before and after each run.
        let runs = |counters: &[(u64, u64)]| {
            let (mut looks, mut made) = (counters.iter(), 0);
            let result = calmest(
                |_| {},
                || {
                    let &(refused, collapsed) = looks.next().unwrap();
                    Whims { refused, collapsed }
                },
                || {
                    made += 1;
                    Ok(made)
                },
            );
            let (which, Whims { refused, collapsed }) = result.unwrap();
            (which, (refused, collapsed), made)
        };
        assert_eq!(runs(&[(5, 1), (5, 1)]), (1, (0, 0), 1));
        assert_eq!(runs(&[(5, 1), (9, 1), (9, 1), (9, 1)]), (2, (0, 0), 2));
        assert_eq!(runs(&[(5, 1), (5, 2), (5, 2), (5, 2)]), (2, (0, 0), 2));
        assert_eq!(runs(&[(5, 1), (9, 1), (9, 1), (20, 1)]), (1, (4, 0), 2));
        assert_eq!(runs(&[(5, 1), (6, 2), (6, 2), (6, 3)]), (2, (0, 1), 2));
        let failed: Result<((), Whims), _> =
            calmest(|_| {}, Whims::default, || Err("it hangs".to_owned()));
        assert_eq!(failed, Err("it hangs".to_owned()));
    }
}
