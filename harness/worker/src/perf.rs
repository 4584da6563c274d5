//! Samples where a program and everything it starts spend their CPU time, by the kernel's software clock
//! (`perf_event_open`, PERF_COUNT_SW_CPU_CLOCK): at every period of CPU time the address that runs is noted, with the user's
//! address where the kernel works on the program's behalf. Addresses are resolved to files and offsets at the end.
//!
//! Source: perf_event_open(2), include/uapi/linux/perf_event.h. The events are opened on this process, disabled, inherited
//! by the program and enabled by its exec, one a CPU, because only those may be inherited and have a ring.

use heaplab_worker::protocol::Sampled;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages of a ring; a power of two, small enough for the limit of users who are not root (`perf_event_mlock_kb`).
const RING_PAGES: usize = 16;

/// `struct perf_event_attr`, version 6 (112 bytes).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    config1: u64,
    config2: u64,
    branch: u64,
    user_registers: u64,
    user_stack: u32,
    clock: i32,
    interrupt_registers: u64,
    aux_watermark: u32,
    max_stack: u16,
    reserved: u16,
}

const SOFTWARE: u32 = 1;
const SAMPLE_IP: u64 = 1;
const SAMPLE_TID: u64 = 1 << 1;
const SAMPLE_CALLCHAIN: u64 = 1 << 5;
const DISABLED: u64 = 1;
const INHERIT: u64 = 1 << 1;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const MMAP: u64 = 1 << 8;
const ENABLE_ON_EXEC: u64 = 1 << 12;
const TASK: u64 = 1 << 13;
const EXCLUDE_CALLCHAIN_KERNEL: u64 = 1 << 21;
const MMAP2: u64 = 1 << 23;
/// Addresses of a call chain above this are marks of the kind of address that follows.
const MARKS: u64 = u64::MAX - 4095;

/// A part of a file whose time is counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The file, as the kernel names the mapping.
    pub path: PathBuf,
    /// First offset.
    pub from: u64,
    /// Offset behind the last.
    pub to: u64,
}

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    file: u32,
}

/// A running collection of samples.
pub struct Sampler {
    rings: Vec<Ring>,
    period_ns: u64,
    with_kernel: bool,
    lost: u64,
    counts: HashMap<(u32, u64, bool), u64>,
    mappings: HashMap<u32, Vec<Mapping>>,
    parents: HashMap<u32, u32>,
    files: HashMap<Vec<u8>, u32>,
}

impl Sampler {
    /// Opens the events; the program must be started afterwards, by this thread.
    pub fn open(period_ns: u64) -> io::Result<Self> {
        // SAFETY: asks for a number.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }.max(1) as i32;
        let (mut rings, mut with_kernel) = (Vec::new(), true);
        for cpu in 0..cpus {
            let mut event = event(period_ns, with_kernel, cpu);
            let refused =
                |e: &io::Error| [Some(libc::EACCES), Some(libc::EPERM)].contains(&e.raw_os_error());
            // Users who are not root may often look at their own code only.
            if event.as_ref().is_err_and(refused) && with_kernel && rings.is_empty() {
                with_kernel = false;
                event = self::event(period_ns, with_kernel, cpu);
            }
            match event {
                Ok(event) => rings.push(Ring::map(event)?),
                // A CPU that is offline has no event.
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self {
            rings,
            period_ns,
            with_kernel,
            lost: 0,
            counts: HashMap::new(),
            mappings: HashMap::new(),
            parents: HashMap::new(),
            files: HashMap::new(),
        })
    }

    /// Takes what has come.
    pub fn drain(&mut self) {
        let mut records = Vec::new();
        for ring in &mut self.rings {
            ring.take(&mut records);
        }
        let mut rest = records.as_slice();
        while let Some(size) = field::<2>(rest, 6).map(u16::from_le_bytes) {
            let size = usize::from(size);
            let (true, Some(record)) = (size >= 8, rest.get(..size)) else {
                return;
            };
            // A record that is cut short is one that this parser does not understand; the next begins where it ends.
            let _ = self.record(record);
            rest = &rest[size..];
        }
    }

    fn record(&mut self, record: &[u8]) -> Option<()> {
        const LOST: u32 = 2;
        const FORK: u32 = 7;
        const SAMPLE: u32 = 9;
        const MAPPED: u32 = 10;
        const KERNEL_MODE: u32 = 1;
        let u32_at = |at| field(record, at).map(u32::from_le_bytes);
        let u64_at = |at| field(record, at).map(u64::from_le_bytes);
        match u32_at(0)? {
            LOST => self.lost += u64_at(16)?,
            FORK => {
                let (pid, parent) = (u32_at(8)?, u32_at(12)?);
                if pid != parent {
                    self.parents.insert(pid, parent);
                }
            }
            SAMPLE => {
                let in_kernel = u32_at(4)? & 7 == KERNEL_MODE;
                let (ip, pid, chain) = (u64_at(8)?, u32_at(16)?, u64_at(24)?.min(16));
                let user = (0..chain as usize)
                    .filter_map(|at| u64_at(32 + 8 * at))
                    .find(|address| *address < MARKS);
                let at = if in_kernel { user.unwrap_or(0) } else { ip };
                *self.counts.entry((pid, at, in_kernel)).or_default() += 1;
            }
            MAPPED => {
                let (pid, start, length, offset) =
                    (u32_at(8)?, u64_at(16)?, u64_at(24)?, u64_at(32)?);
                let name = record.get(72..)?.split(|byte| *byte == 0).next()?;
                let next = self.files.len() as u32;
                let file = *self.files.entry(name.to_vec()).or_insert(next);
                self.mappings.entry(pid).or_default().push(Mapping {
                    start,
                    end: start.saturating_add(length),
                    offset,
                    file,
                });
            }
            _ => {}
        }
        Some(())
    }

    /// Ends the collection: how much of it fell into the parts in question.
    pub fn finish(mut self, counted: &[Counted]) -> Sampled {
        use std::os::unix::ffi::OsStrExt;
        self.drain();
        let parts: Vec<(u32, u64, u64)> = counted
            .iter()
            .filter_map(|part| {
                let file = self.files.get(part.path.as_os_str().as_bytes())?;
                Some((*file, part.from, part.to))
            })
            .collect();
        let mut sampled = Sampled {
            period_ns: self.period_ns,
            with_kernel: self.with_kernel,
            lost: self.lost,
            ..Sampled::default()
        };
        for ((pid, address, in_kernel), count) in &self.counts {
            sampled.samples += count;
            let Some((file, offset)) = self.place(*pid, *address) else {
                continue;
            };
            let inside =
                |part: &&(u32, u64, u64)| part.0 == file && (part.1..part.2).contains(&offset);
            if parts.iter().any(|part| inside(&part)) {
                match in_kernel {
                    true => sampled.counted_kernel += count,
                    false => sampled.counted_user += count,
                }
            }
        }
        sampled
    }

    /// File and offset of an address; a process that was forked has its parent's mappings.
    fn place(&self, pid: u32, address: u64) -> Option<(u32, u64)> {
        let mut at = Some(pid);
        for _ in 0..64 {
            let pid = at?;
            // The newest mapping of an address is the one that counts.
            let found = self.mappings.get(&pid).and_then(|list| {
                list.iter()
                    .rev()
                    .find(|mapping| (mapping.start..mapping.end).contains(&address))
            });
            if let Some(mapping) = found {
                return Some((mapping.file, address - mapping.start + mapping.offset));
            }
            at = self.parents.get(&pid).copied();
        }
        None
    }
}

fn field<const N: usize>(record: &[u8], at: usize) -> Option<[u8; N]> {
    record.get(at..at + N)?.try_into().ok()
}

fn event(period_ns: u64, with_kernel: bool, cpu: i32) -> io::Result<File> {
    let kernel = if with_kernel { 0 } else { EXCLUDE_KERNEL };
    let attributes = Attributes {
        kind: SOFTWARE,
        size: size_of::<Attributes>() as u32,
        period: period_ns,
        sample: SAMPLE_IP | SAMPLE_TID | SAMPLE_CALLCHAIN,
        flags: DISABLED
            | INHERIT
            | MMAP
            | ENABLE_ON_EXEC
            | TASK
            | EXCLUDE_CALLCHAIN_KERNEL
            | MMAP2
            | kernel,
        max_stack: 1,
        ..Attributes::default()
    };
    const CLOSE_ON_EXEC: u64 = 1 << 3;
    // SAFETY: the attributes are a whole structure of the size that it names; pid 0 is this thread.
    let got = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            0,
            cpu,
            -1,
            CLOSE_ON_EXEC,
        )
    };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(got as i32) })
}

/// The kernel's ring of one event: it writes behind `head`, we read up to it and move `tail`.
struct Ring {
    _event: File,
    base: *mut u8,
    page: usize,
}

// SAFETY: the mapping belongs to this value alone, and nothing in it is bound to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Offsets in the first page (`struct perf_event_mmap_page`).
    const HEAD: usize = 1024;
    const TAIL: usize = 1032;

    fn map(event: File) -> io::Result<Self> {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                (RING_PAGES + 1) * page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            _event: event,
            base: base.cast(),
            page,
        })
    }

    /// Appends everything that is in the ring.
    fn take(&mut self, records: &mut Vec<u8>) {
        let size = RING_PAGES * self.page;
        // SAFETY: head and tail lie in the first page of the mapping, are 8-byte aligned, and are shared with the kernel
        // as atomic words.
        let (head, tail) = unsafe {
            (
                &*self.base.add(Self::HEAD).cast::<AtomicU64>(),
                &*self.base.add(Self::TAIL).cast::<AtomicU64>(),
            )
        };
        let (end, start) = (head.load(Ordering::Acquire), tail.load(Ordering::Relaxed));
        let length = (end - start) as usize;
        debug_assert!(length <= size, "the kernel writes no further than tail");
        let from = start as usize % size;
        let first = length.min(size - from);
        // SAFETY: the `length` bytes before `head` are the kernel's finished records; it does not write there until `tail` is
        // moved. Both parts lie inside the ring of `size` bytes that begins at the second page.
        unsafe {
            let ring = self.base.add(self.page);
            records.extend_from_slice(std::slice::from_raw_parts(ring.add(from), first));
            records.extend_from_slice(std::slice::from_raw_parts(ring, length - first));
        }
        tail.store(end, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, which nothing refers to any more.
        unsafe { libc::munmap(self.base.cast(), (RING_PAGES + 1) * self.page) };
    }
}
