//! The recorded program seen from outside, through /proc: which of its threads still exist.

use heaplab_ring::SESSION_VARIABLE;
use std::path::PathBuf;

/// Whether the numbers that the program has of itself mean the same here. In another process-id
/// namespace they do not, and a thread must not be taken for dead.
#[derive(Debug)]
pub struct Target {
    pid: u32,
    visible: bool,
}

impl Target {
    /// Looks at process `pid`, which claimed the session with this nonce.
    pub fn new(pid: u32, nonce: u64) -> Self {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let wanted = format!("{nonce:x}");
        let visible = environ.split(|&byte| byte == 0).any(|entry| {
            entry
                .strip_prefix(SESSION_VARIABLE.as_bytes())
                .is_some_and(|value| {
                    value.split(|&byte| byte == b':').nth(1) == Some(wanted.as_bytes())
                })
        });
        Self { pid, visible }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_our_session_says_nothing_about_its_threads() {
        let target = Target::new(std::process::id(), 0x1234_5678_9abc);
        assert!(!target.is_gone(u32::MAX - 1));
        assert_eq!(target.name(std::process::id()), None);
    }

    #[test]
    fn a_visible_process_has_its_main_thread_and_no_invented_one() {
        let target = Target {
            pid: std::process::id(),
            visible: true,
        };
        assert!(!target.is_gone(std::process::id()));
        assert!(target.is_gone(u32::MAX - 1));
        assert!(
            target
                .name(std::process::id())
                .is_some_and(|name| !name.is_empty())
        );
    }
}
