//! The machine as the subject sees it: how many CPUs it is told of, on which of them the threads stay, how much memory
//! there is.
//!
//! An allocator asks for the number of CPUs through libc. The functions below stand in the executable, which comes first
//! in the loader's search order, so a preloaded library that calls them gets their answer, already in its constructors.
//! They change nothing unless `HEAPLAB_CPUS` is set or the worker has bound its threads, which must not look like a
//! smaller machine. What they do not reach: calls inside libc itself (glibc's malloc: its harness sets `arena_max`),
//! a library that makes the system call or reads /proc or /sys by itself, and the number of the CPU a thread runs on.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Variable by which the harness says how many CPUs the subject is told of.
const VARIABLE: &CStr = c"HEAPLAB_CPUS";
/// Not yet known, in the variables below.
const UNKNOWN: u32 = u32::MAX;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Whether a variable of the environment is there, looked up once and without an allocation: subjects ask in their constructors.
pub struct Wish {
    name: &'static CStr,
    answer: AtomicU32,
}

impl Wish {
    /// Of the variable `name`.
    pub const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            answer: AtomicU32::new(UNKNOWN),
        }
    }

    /// Whether it is there, whatever its value.
    pub fn is_set(&self) -> bool {
        match self.answer.load(Ordering::Relaxed) {
            UNKNOWN => {
                // SAFETY: a valid C string; nobody changes the environment of a worker.
                let set = unsafe { !libc::getenv(self.name.as_ptr()).is_null() };
                self.answer.store(u32::from(set), Ordering::Relaxed);
                set
            }
            answer => answer != 0,
        }
    }
}

/// CPUs that the subject is told of; 0 = those there are.
static TOLD: AtomicU32 = AtomicU32::new(UNKNOWN);
/// The affinity mask that the process was started with, once the worker has read it, as words of 64 CPUs.
static STARTED_WITH: OnceLock<Mask> = OnceLock::new();

/// Words of a mask: as many CPUs as libc's `cpu_set_t` has.
const WORDS: usize = size_of::<libc::cpu_set_t>() / 8;
type Mask = [u64; WORDS];

fn told() -> u32 {
    match TOLD.load(Ordering::Relaxed) {
        UNKNOWN => {
            // SAFETY: a valid C string; nobody changes the environment of a worker.
            let text = unsafe { libc::getenv(VARIABLE.as_ptr()) };
            let mut value = 0u32;
            if !text.is_null() {
                // No allocation here: the subject may be in its constructor.
                // SAFETY: getenv gives a C string.
                for byte in unsafe { CStr::from_ptr(text) }.to_bytes() {
                    value = value
                        .saturating_mul(10)
                        .saturating_add(u32::from(byte.wrapping_sub(b'0').min(9)));
                }
            }
            let value = value.min((WORDS * 64) as u32);
            TOLD.store(value, Ordering::Relaxed);
            value
        }
        told => told,
    }
}

/// The system's own mask.
fn kernel_mask(pid: libc::pid_t) -> Result<Mask, c_int> {
    let mut mask = [0u64; WORDS];
    // SAFETY: the mask is writable for the length given.
    let got = unsafe {
        libc::syscall(
            libc::SYS_sched_getaffinity,
            pid,
            size_of::<Mask>(),
            mask.as_mut_ptr(),
        )
    };
    if got < 0 { Err(-1) } else { Ok(mask) }
}

/// What the process may use, whatever its threads were bound to since.
fn mask() -> Mask {
    *STARTED_WITH.get_or_init(|| kernel_mask(0).unwrap_or([1; WORDS]))
}

fn count(mask: &Mask) -> u32 {
    mask.iter().map(|word| word.count_ones()).sum()
}

/// Numbers of the CPUs that the process may use.
pub fn cpus() -> Vec<usize> {
    let mask = mask();
    (0..WORDS * 64)
        .filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 != 0)
        .collect()
}

/// How many CPUs the subject is told of.
pub fn told_cpus() -> u32 {
    match told() {
        0 => count(&mask()).max(1),
        told => told,
    }
}

/// Binds the calling thread to one CPU. Failing leaves the affinity as it is, which costs only time.
fn bind(cpu: usize) {
    mask();
    let mut one = [0u64; WORDS];
    if let Some(word) = one.get_mut(cpu / 64) {
        *word = 1 << (cpu % 64);
        // SAFETY: the mask is readable for the length given.
        unsafe {
            libc::syscall(
                libc::SYS_sched_setaffinity,
                0,
                size_of::<Mask>(),
                one.as_ptr(),
            )
        };
    }
}

/// Binds the calling thread, and those it starts, to the CPU it is on.
pub fn stay_here() {
    // SAFETY: no arguments.
    let cpu = unsafe { libc::sched_getcpu() };
    if cpu >= 0 {
        bind(cpu as usize);
    }
}

/// Binds one of `threads` threads to a CPU of its own, from the last one on (the first ones serve interrupts), where there
/// are enough of them.
pub fn pin(thread: u32, threads: usize) {
    let cpus = cpus();
    if threads <= cpus.len() {
        bind(cpus[cpus.len() - 1 - thread as usize]);
    }
}

/// Whether the subject's large mappings are to be of huge pages: `HEAPLAB_THP=always`.
fn huge_pages() -> bool {
    static WANTED: Wish = Wish::new(c"HEAPLAB_THP");
    WANTED.is_set()
}

/// libc's `mmap`: with huge pages where the harness wants them. Calls inside libc do not come here (glibc's malloc has the
/// tunable `hugetlb=1` for the same).
///
/// # Safety
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    // SAFETY: the contract is the caller's; libc's wrapper gives MAP_FAILED and errno as this does.
    let start = unsafe {
        libc::syscall(
            libc::SYS_mmap,
            address,
            length,
            protection,
            flags,
            file,
            offset,
        )
    } as *mut c_void;
    let plain = flags & (libc::MAP_ANONYMOUS | libc::MAP_PRIVATE)
        == libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
    if plain && length >= HUGE && start != libc::MAP_FAILED && huge_pages() {
        // SAFETY: the mapping was just made; the advice changes no contents, and failing it is no failure.
        unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
    }
    start
}

/// As [`mmap`], under the name of programs with 64-bit offsets.
///
/// # Safety
/// As the system call's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    // SAFETY: the contract is the caller's.
    unsafe { mmap(address, length, protection, flags, file, offset) }
}

/// Memory that could be used, bytes, by /proc/meminfo; large when it is not known.
pub fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(u64::MAX, |kib| kib * 1024)
}

/// libc's `sched_getaffinity`.
///
/// # Safety
/// `set` is writable for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_getaffinity(
    pid: libc::pid_t,
    size: usize,
    set: *mut libc::cpu_set_t,
) -> c_int {
    let mut mask = match (told(), STARTED_WITH.get()) {
        (0, Some(mask)) => *mask,
        _ => match kernel_mask(pid) {
            Ok(mask) => mask,
            Err(error) => return error,
        },
    };
    let told = told() as usize;
    if told > 0 {
        for (index, word) in mask.iter_mut().enumerate() {
            let bits = told.saturating_sub(index * 64).min(64);
            *word = if bits == 64 {
                u64::MAX
            } else {
                (1 << bits) - 1
            };
        }
    }
    let bytes = size.min(size_of::<Mask>());
    // SAFETY: `set` has `size` bytes by contract, the mask at least `bytes`.
    unsafe {
        std::ptr::write_bytes(set.cast::<u8>(), 0, size);
        std::ptr::copy_nonoverlapping(mask.as_ptr().cast::<u8>(), set.cast::<u8>(), bytes);
    }
    0
}

/// glibc's `pthread_getaffinity_np`.
///
/// # Safety
/// `set` is writable for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_getaffinity_np(
    _thread: libc::pthread_t,
    size: usize,
    set: *mut libc::cpu_set_t,
) -> c_int {
    // SAFETY: the contract is the caller's.
    unsafe { sched_getaffinity(0, size, set) }
}

/// libc's `sysconf`.
///
/// # Safety
/// None beyond libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysconf(name: c_int) -> c_long {
    match name {
        libc::_SC_NPROCESSORS_ONLN | libc::_SC_NPROCESSORS_CONF if told() > 0 => {
            c_long::from(told())
        }
        // SAFETY: libc's own function of the same contract, under its other name.
        _ => unsafe { __sysconf(name) },
    }
}

unsafe extern "C" {
    fn __sysconf(name: c_int) -> c_long;
}

/// glibc's `get_nprocs`.
#[unsafe(no_mangle)]
pub extern "C" fn get_nprocs() -> c_int {
    // SAFETY: no pointers.
    unsafe { sysconf(libc::_SC_NPROCESSORS_ONLN) as c_int }
}

/// glibc's `get_nprocs_conf`.
#[unsafe(no_mangle)]
pub extern "C" fn get_nprocs_conf() -> c_int {
    // SAFETY: no pointers.
    unsafe { sysconf(libc::_SC_NPROCESSORS_CONF) as c_int }
}
