//! How the clock that a subject reads follows a recording's.
//!
//! A recorded time holds what the program did, what the recorder took of each event, and what the recorded allocator took: its
//! calls, and the first writes to pages that were fresh under it. A program under another allocator has that one's instead,
//! and an allocator that copies a growing block to fresh pages where the recorded one moved it takes several times as long just
//! when it decides what to give back. So each op is timed, in a replay of the recorded allocator and in that of the subject,
//! and the clock goes on by the difference. CPU time of the thread: what other programs take of the replay is not the subject's;
//! what they took of the program is in the recorded times.

use crate::clock::thread_cpu_ns;
use crate::steady;
use heaplab_worker::protocol::RecordedClock;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;

/// One op after the other, in the order of the script.
#[derive(Default)]
pub struct OwnTime {
    /// What the recorder took of an event, nanoseconds.
    recorder_ns: f64,
    /// The same allocator's times are kept there, and the recorded one's are here.
    kept: Option<Times>,
    recorded: Option<Times>,
    /// Number of the op.
    op: usize,
    /// When the one before ended, by the thread's CPU time, nanoseconds: a single look at that clock for each op. The harness's
    /// own part is in it, and is the same under both allocators.
    ended: u64,
    /// What the harness has taken since for things of its own, as looking at the subject's memory.
    apart: u64,
    /// Who made the event before; `None` before the first.
    thread: Option<u32>,
    /// What the recorder has taken up to it.
    recorder_sum: f64,
    /// What the subject has taken beyond the recorded allocator.
    ahead_ns: i64,
}

/// Nanoseconds of each op in a file that is mapped: shared memory, and so none of the subject's.
struct Times {
    start: *mut u32,
    len: usize,
}

impl Times {
    /// `len` times in a file; made, where it is to be written.
    fn map(path: &Path, len: usize, write: bool) -> Result<Self, String> {
        let told = |error| format!("the times of ops in '{}': {error}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .create(write)
            .truncate(write)
            .open(path)
            .map_err(told)?;
        let bytes = (len.max(1) * size_of::<u32>()) as u64;
        if write {
            file.set_len(bytes).map_err(told)?;
        } else if file.metadata().map_err(told)?.len() != bytes {
            return Err(format!(
                "the times of ops in '{}' are of another script",
                path.display()
            ));
        }
        let protection = match write {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        // SAFETY: a file of this length, mapped at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes as usize,
                protection,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(told(std::io::Error::last_os_error()));
        }
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    fn at(&self, op: usize) -> *mut u32 {
        assert!(op < self.len, "more ops than the script has");
        self.start.wrapping_add(op)
    }
}

impl OwnTime {
    /// For a script of `ops` ops.
    ///
    /// # Errors
    /// A file of times that cannot be made, or is of another script.
    pub fn new(clock: &RecordedClock, ops: usize) -> Result<Self, String> {
        let map = |path: &Option<_>, write| {
            let path: Option<&std::path::PathBuf> = path.as_ref();
            path.map(|path| Times::map(path, ops, write)).transpose()
        };
        Ok(Self {
            recorder_ns: clock.recorder_ns,
            kept: map(&clock.keep, true)?,
            recorded: map(&clock.recorded, false)?,
            ..Self::default()
        })
    }

    /// What the clock shows where the recording's showed `ns`, and a thread makes the next op.
    pub fn shown(&mut self, ns: u64, thread: u32) -> u64 {
        // Between events of different threads the recorder's work for the one lies beside what the other does.
        if self.thread == Some(thread) {
            self.recorder_sum += self.recorder_ns;
        } else {
            self.thread = Some(thread);
            self.ended = thread_cpu_ns();
            self.apart = 0;
        }
        ns.saturating_add_signed(self.ahead_ns - self.recorder_sum as i64)
    }

    /// The op begins, with what is due to be written.
    pub fn begin(&mut self) {
        steady::call_began(self.ended + self.apart);
    }

    /// CPU time since the last op that was the harness's own, nanoseconds.
    pub fn apart(&self) -> u64 {
        self.apart
    }

    /// Sets it.
    pub fn set_apart(&mut self, ns: u64) {
        self.apart = ns;
    }

    /// The op is over.
    pub fn end(&mut self) {
        steady::call_ended();
        let now = thread_cpu_ns();
        let own = (now - self.ended).saturating_sub(self.apart);
        (self.ended, self.apart) = (now, 0);
        let own = own.min(u64::from(u32::MAX)) as u32;
        if let Some(times) = &self.kept {
            // SAFETY: inside the mapping, which nothing else in this process uses; only the thread whose turn it is comes here.
            unsafe { times.at(self.op).write(own) };
        }
        if let Some(times) = &self.recorded {
            // SAFETY: as above.
            let recorded = unsafe { times.at(self.op).read() };
            self.ahead_ns += i64::from(own) - i64::from(recorded);
        }
        self.op += 1;
    }
}
