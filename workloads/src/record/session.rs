//! Creating a session: the shared memory, its name for the program, and the clock.

use super::RecordError;
use super::clock::{self, Calibration};
use super::drain::Drainer;
use super::room::default_pool_bytes;
use super::sink::Sink;
use super::summary::DrainSummary;
use super::target;
use heaplab_ring::layout::{MAX_CHUNKS, MIN_CHUNKS, session_bytes};
use heaplab_ring::stack::StackMode;
use heaplab_ring::{CHUNK_BYTES, Mapping, Pool, SESSION_VARIABLE, SessionConfig};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::FdFlags;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The session's descriptor gets at least this number, out of the way of programs (and tests of
/// programs) that expect small numbers; lower where the limit of open files is.
const DESCRIPTOR_AT_LEAST: i32 = 1000;

/// How a session is set up.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Bytes of shared memory for records; rounded to chunks of 64 KiB, 256 KiB at least. Every
    /// recording thread holds one chunk. [`default_pool_bytes`] by default.
    pub pool_bytes: u64,
    /// Drop and count events when no chunk is free, instead of making the program wait.
    pub lossy: bool,
    /// Which allocations bring their stacks; needs the recorder that captures them.
    pub stacks: StackMode,
    /// Where to put the memory's file when the system gives no memfd; the output folder.
    pub fallback_dir: Option<PathBuf>,
    /// Record the first process only, not what it starts.
    pub first_only: bool,
    /// Record mmap, munmap, mremap and brk, too.
    pub mappings: bool,
    /// Record nothing until [`Switch::set_paused`] says otherwise, or the program does.
    pub paused: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            pool_bytes: default_pool_bytes(),
            lossy: false,
            stacks: StackMode::Off,
            fallback_dir: None,
            first_only: false,
            mappings: false,
            paused: false,
        }
    }
}

/// A session that one program can be recorded in. Dropping it stops the recording; the program
/// goes on without.
#[derive(Debug)]
pub struct Session {
    fd: OwnedFd,
    mapping: Arc<Mapping>,
    nonce: u64,
    calibration: Calibration,
}

impl Session {
    /// Creates the shared memory and measures the clock (some 20 ms).
    ///
    /// The descriptor is inherited by every process started while the session lives: start the
    /// recorded program from this process, with [`Session::environment`].
    ///
    /// # Errors
    /// When the system gives neither a memfd nor a file in the fallback folder, or cannot map it.
    pub fn create(options: &SessionOptions) -> Result<Self, RecordError> {
        let chunks = (options.pool_bytes / CHUNK_BYTES as u64)
            .clamp(u64::from(MIN_CHUNKS), u64::from(MAX_CHUNKS)) as u32;
        let bytes = session_bytes(chunks) as u64;
        let error = |source| RecordError::Pool { bytes, source };
        let fd = shared_memory(bytes, options.fallback_dir.as_deref()).map_err(error)?;
        let clock = clock::choose();
        let nonce = nonce();
        let config = SessionConfig {
            chunks,
            nonce,
            clock,
            lossy: options.lossy,
            drainer_pid: std::process::id(),
            stacks: options.stacks,
            first_only: options.first_only,
            mappings: options.mappings,
            paused: options.paused,
        };
        let mapping = Mapping::create(fd.as_raw_fd(), &config)
            .map_err(|errno| error(io::Error::from_raw_os_error(errno as i32)))?;
        Ok(Self {
            fd,
            mapping: Arc::new(mapping),
            nonce,
            calibration: Calibration::measure(clock),
        })
    }

    /// The variables that make a program record into this session; a LD_PRELOAD of this process
    /// stays, behind the recorder. `recorder` must be an absolute path without space or colon,
    /// which the dynamic loader takes for separators.
    pub fn environment(&self, recorder: &Path) -> Vec<(OsString, OsString)> {
        let behind = std::env::var_os("LD_PRELOAD").unwrap_or_default();
        self.environment_before(recorder, &behind)
    }

    /// As [`Session::environment`], with these preloaded libraries behind the recorder instead:
    /// the subject that the program is to run on, or nothing.
    pub fn environment_before(&self, recorder: &Path, behind: &OsStr) -> Vec<(OsString, OsString)> {
        let mut preload = recorder.as_os_str().to_owned();
        if !behind.is_empty() {
            preload.push(":");
            preload.push(behind);
        }
        let fd = self.fd.as_raw_fd();
        let name = format!("{fd}:{:x}:/proc/{}/fd/{fd}", self.nonce, std::process::id());
        vec![
            ("LD_PRELOAD".into(), preload),
            (SESSION_VARIABLE.into(), name.into()),
        ]
    }

    /// Moves records to `sink` until `program_alive` says no (after the program was waited for), every other process of the
    /// session has ended as well, and everything committed is out. It is asked about every millisecond; it must not block.
    ///
    /// # Errors
    /// When the sink cannot write: recording has then been stopped, and what was not written until the program's end is counted.
    pub fn drain<S: Sink>(
        &mut self,
        program_alive: impl FnMut() -> bool,
        sink: &mut S,
    ) -> Result<DrainSummary, RecordError> {
        self.drain_tree(program_alive, |_| true, sink)
    }

    /// As [`Session::drain`]; `others` is asked every 100 ms after the program's end, with the ids of the processes that go
    /// on, whether to wait for them.
    ///
    /// # Errors
    /// As [`Session::drain`].
    pub fn drain_tree<S: Sink>(
        &mut self,
        program_alive: impl FnMut() -> bool,
        others: impl FnMut(&[u32]) -> bool,
        sink: &mut S,
    ) -> Result<DrainSummary, RecordError> {
        let pool = self.mapping.pool();
        let drainer = Drainer::new(pool, self.calibration, self.nonce, sink);
        let result = drainer.run(program_alive, others);
        pool.stop();
        result
    }

    /// Ids of all processes that have this session in their environment, recorded or not.
    pub fn members(&self) -> Vec<u32> {
        target::members(self.nonce)
    }

    /// A switch for the recording that can be turned from elsewhere, such as a handler of a signal.
    pub fn switch(&self) -> Switch {
        Switch(Arc::clone(&self.mapping), self.calibration)
    }
}

/// Pauses a recording and lets it go on.
#[derive(Clone, Debug)]
pub struct Switch(Arc<Mapping>, Calibration);

impl Switch {
    /// Leaves events out from now on, or no more; `true` when that is a change.
    pub fn set_paused(&self, paused: bool) -> bool {
        self.0.pool().switch_paused(paused)
    }

    /// Nanoseconds since the session's start.
    pub fn now_ns(&self) -> u64 {
        self.1.now_ns()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let pool: Pool<'_> = self.mapping.pool();
        pool.stop();
    }
}

/// A file of `bytes` zeros that lives as long as its descriptor, which children inherit.
fn shared_memory(bytes: u64, fallback_dir: Option<&Path>) -> io::Result<OwnedFd> {
    let fd = match memfd(bytes) {
        Ok(fd) => fd,
        Err(error) => match fallback_dir {
            Some(dir) => unlinked_file(dir, bytes)?,
            None => return Err(error),
        },
    };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit
        .current
        .map_or(i32::MAX, |most| i32::try_from(most).unwrap_or(i32::MAX));
    let at_least = DESCRIPTOR_AT_LEAST.min(most / 2);
    let high = rustix::io::fcntl_dupfd_cloexec(&fd, at_least).unwrap_or(fd);
    rustix::io::fcntl_setfd(&high, FdFlags::empty())?;
    Ok(high)
}

fn memfd(bytes: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("heaplab-session", flags)?;
    rustix::fs::ftruncate(&fd, bytes)?;
    // Nobody can shrink it under a mapping, which would be a SIGBUS in the program.
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

fn unlinked_file(dir: &Path, bytes: u64) -> io::Result<OwnedFd> {
    let path = dir.join(format!(
        ".heaplab-session-{}-{:x}",
        std::process::id(),
        nonce()
    ));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    // All blocks now: on a full disk this fails here, not as a SIGBUS in the program.
    let allocated = rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes);
    std::fs::remove_file(&path)?;
    allocated?;
    Ok(fd)
}

/// A number that no other session has: random by the standard library's hash keys.
fn nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}
