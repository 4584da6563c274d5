//! A recorded process seen from outside, through /proc: whether it and its threads still exist.

use heaplab_ring::SESSION_VARIABLE;
use std::path::PathBuf;

/// Whether the numbers that the process has of itself mean the same here. In another process-id
/// namespace they do not, and a thread must not be taken for dead.
#[derive(Debug)]
pub struct Target {
    pid: u32,
    visible: bool,
    /// Field 22 of its `stat`: tells it from a later process with the same id.
    start: Option<String>,
}

impl Target {
    /// Looks at process `pid`, which joined the session with this nonce.
    pub fn new(pid: u32, nonce: u64) -> Self {
        // One that is gone already, or whose environment cannot be read, is judged by its id alone, unless it is older than
        // the recording: in another namespace of process ids, small numbers are here those of the kernel's threads and of init.
        let visible = match std::fs::read(format!("/proc/{pid}/environ")) {
            Ok(environ) if !environ.is_empty() => names_session(&environ, nonce),
            _ => !is_older_than_we(pid),
        };
        let start = stat(pid).map(|(_, start)| start);
        Self {
            pid,
            visible,
            start,
        }
    }

    /// Whether its numbers mean the same here.
    pub fn is_visible(&self) -> bool {
        self.visible
    }

    /// Whether the process is known to be gone, or a zombie.
    pub fn is_over(&self) -> bool {
        self.visible
            && match stat(self.pid) {
                None => true,
                Some((state, start)) => {
                    matches!(state, 'Z' | 'X') || self.start.as_ref() != Some(&start)
                }
            }
    }

    /// Whether this thread is known to be gone.
    pub fn is_gone(&self, os_tid: u32) -> bool {
        self.visible
            && std::fs::symlink_metadata(self.task(os_tid))
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// The thread's present name.
    pub fn name(&self, os_tid: u32) -> Option<String> {
        if !self.visible {
            return None;
        }
        let name = std::fs::read(self.task(os_tid).join("comm")).ok()?;
        Some(
            String::from_utf8_lossy(&name)
                .trim_end_matches('\n')
                .to_owned(),
        )
    }

    fn task(&self, os_tid: u32) -> PathBuf {
        format!("/proc/{}/task/{os_tid}", self.pid).into()
    }
}

/// Whether a process began before this one.
fn is_older_than_we(pid: u32) -> bool {
    let began = |pid| stat(pid)?.1.parse::<u64>().ok();
    matches!((began(pid), began(std::process::id())), (Some(its), Some(ours)) if its < ours)
}

/// State and start time of a process.
fn stat(pid: u32) -> Option<(char, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may contain anything.
    let mut fields = text.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.to_owned()))
}

fn names_session(environ: &[u8], nonce: u64) -> bool {
    let wanted = format!("{nonce:x}");
    environ.split(|&byte| byte == 0).any(|entry| {
        entry
            .strip_prefix(SESSION_VARIABLE.as_bytes())
            .is_some_and(|value| {
                value.split(|&byte| byte == b':').nth(1) == Some(wanted.as_bytes())
            })
    })
}

/// Ids of all processes that have this session in their environment, recorded or not.
pub fn members(nonce: u64) -> Vec<u32> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| names_session(&environ, nonce))
        })
        .filter(|pid| stat(*pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_our_session_says_nothing_about_its_threads() {
        let target = Target::new(std::process::id(), 0x1234_5678_9abc);
        assert!(!target.is_gone(u32::MAX - 1));
        assert!(!target.is_over());
        assert_eq!(target.name(std::process::id()), None);
        assert!(members(0x1234_5678_9abc).is_empty());
    }

    #[test]
    fn what_is_older_than_the_recording_was_not_recorded() {
        assert!(!is_older_than_we(std::process::id()));
        // Whoever it is: whether its environment can be read or not, it is not in our session.
        assert!(std::process::id() == 1 || is_older_than_we(1));
        assert!(!Target::new(1, 0x1234_5678_9abc).is_visible());
        assert!(!Target::new(std::process::id(), 0x1234_5678_9abc).is_visible());
    }

    #[test]
    fn a_visible_process_has_its_main_thread_and_no_invented_one() {
        let pid = std::process::id();
        let target = Target {
            pid,
            visible: true,
            start: stat(pid).map(|(_, start)| start),
        };
        assert!(!target.is_gone(pid) && !target.is_over());
        assert!(target.is_gone(u32::MAX - 1));
        assert!(target.name(pid).is_some_and(|name| !name.is_empty()));
    }

    #[test]
    fn a_child_that_has_ended_is_over_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let target = Target {
            pid: child.id(),
            visible: true,
            start: stat(child.id()).map(|(_, start)| start),
        };
        let begun = std::time::Instant::now();
        while !target.is_over() {
            assert!(begun.elapsed().as_secs() < 60, "it never ends");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().expect("wait");
        assert!(target.is_over());
    }
}
