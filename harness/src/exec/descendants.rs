//! The processes that a process has started, and those that they have.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// Numbers of all processes below `ancestor`, which is not among them.
pub(crate) fn below(ancestor: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![ancestor];
    while let Some(parent) = open.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|n| n.parse().ok()) {
                found.push(child);
                open.push(child);
            }
        }
    }
    found.sort_unstable();
    found
}

/// The process that started `pid`.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')')
        .next()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Sends a signal to each of `processes`; those that are gone already are passed over.
pub(crate) fn send(processes: &[u32], signal: Signal) {
    for pid in processes {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            // Gone, or another user's.
            let _ = kill_process(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn children_and_theirs_are_found_and_killed_in_sessions_of_their_own() {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "setsid sh -c 'sleep 60; true' & echo up; wait; exit 7",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = std::time::Instant::now();
        while below(shell.id()).len() < 2 {
            assert!(begun.elapsed().as_secs() < 60, "{:?}", below(shell.id()));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let found = below(shell.id());
        assert!(found.iter().any(|pid| parent(*pid) == Some(shell.id())));
        send(&found, Signal::KILL);
        assert_eq!(shell.wait().unwrap().code(), Some(7));
    }
}
