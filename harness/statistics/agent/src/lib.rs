//! `libheaplab_statistics_agent.so`: asks the allocator of an unmodified program for its own statistics when it is told to, and
//! once more when the process ends.
//!
//! Loaded by LD_PRELOAD in front of the subject, in a run that is made for this alone: its thread would change what a timed
//! run measures. It exports nothing of the malloc family. The harness writes a question's number into a file
//! (`heaplab_statistics`), the thread sees it and answers; nothing is asked from a signal handler, so that no lock of the
//! allocator is held by whoever asks.
#![no_std]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
compile_error!("the agent supports Linux on x86-64 with glibc only");

use core::ffi::{CStr, c_int, c_long, c_void};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use heaplab_preloaded::process_file;
use heaplab_statistics as statistics;

/// Folder in which each process has a file named by its number.
const FOLDER: &CStr = c"HEAPLAB_STATISTICS";
/// The object of the allocator; empty: the program itself.
const OBJECT: &CStr = c"HEAPLAB_STATISTICS_OF";
/// Between two looks for a question, ns.
const PAUSE_NS: c_long = 1_000_000;
/// Looks at whether the last words are written, before a process ends without them.
const LOOKS_AT_END: u32 = 500;
const STACK_BYTES: usize = 256 << 10;

/// The mapped file of the process [`OWNER`]; null before there is one.
static PAGE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static OWNER: AtomicI32 = AtomicI32::new(0);
static HANDLE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// The process whose thread there is.
static SERVED: AtomicI32 = AtomicI32::new(0);
/// The process that wants its last words written, and the one that has them.
static ENDING: AtomicI32 = AtomicI32::new(0);
static ENDED: AtomicI32 = AtomicI32::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = at_end;

extern "C" fn constructor() {
    begin();
    // SAFETY: the handler is a function without arguments; it stays as long as this library, which is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
}

unsafe extern "C" fn after_fork() {
    PAGE.store(ptr::null_mut(), Ordering::Relaxed);
    begin();
}

/// Makes this process's file and starts the thread; does nothing where that is not wanted or fails.
fn begin() {
    // SAFETY: plain calls of the C library with valid C strings; the results are checked.
    unsafe {
        let folder = libc::getenv(FOLDER.as_ptr());
        if folder.is_null() {
            return;
        }
        let folder = CStr::from_ptr(folder);
        let Some(page) = process_file::create(folder, c"", statistics::PAGE_BYTES) else {
            return;
        };
        let object = libc::getenv(OBJECT.as_ptr());
        let handle = if object.is_null() || *object == 0 {
            libc::dlopen(ptr::null(), libc::RTLD_LAZY)
        } else {
            libc::dlopen(object, libc::RTLD_LAZY | libc::RTLD_NOLOAD)
        };
        if handle.is_null() {
            return;
        }
        HANDLE.store(handle, Ordering::Relaxed);
        OWNER.store(libc::getpid(), Ordering::Relaxed);
        PAGE.store(page, Ordering::Release);
        start();
    }
}

/// Starts the thread, with all signals blocked in it: the program's handlers run where they always do.
unsafe fn start() {
    // SAFETY: initialised before use; the thread's function has the signature asked for.
    unsafe {
        let (mut all, mut before) = (core::mem::zeroed(), core::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let mut how = core::mem::zeroed();
        let mut thread = 0;
        if libc::pthread_attr_init(&raw mut how) == 0 {
            libc::pthread_attr_setstacksize(&raw mut how, STACK_BYTES);
            libc::pthread_attr_setdetachstate(&raw mut how, libc::PTHREAD_CREATE_DETACHED);
            if libc::pthread_create(&raw mut thread, &raw const how, answer, ptr::null_mut()) == 0 {
                SERVED.store(libc::getpid(), Ordering::Relaxed);
            }
            libc::pthread_attr_destroy(&raw mut how);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
    }
}

extern "C" fn answer(_: *mut c_void) -> *mut c_void {
    let page = PAGE.load(Ordering::Acquire);
    loop {
        let asked = number(page, statistics::ASKED_AT).load(Ordering::Acquire);
        if asked != number(page, statistics::SERVED_AT).load(Ordering::Relaxed) {
            write(page, statistics::NOW_AT);
            number(page, statistics::SERVED_AT).store(asked, Ordering::Release);
        }
        let ending = ENDING.load(Ordering::Acquire);
        if ending != ENDED.load(Ordering::Relaxed) {
            write(page, statistics::END_AT);
            ENDED.store(ending, Ordering::Release);
        }
        pause();
    }
}

fn pause() {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: PAUSE_NS,
    };
    // SAFETY: a valid time.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}

/// A number in the page.
fn number(page: *mut u8, at: usize) -> &'static AtomicU32 {
    debug_assert!(at.is_multiple_of(4) && at + 4 <= statistics::PAGE_BYTES);
    // SAFETY: inside the mapping, which is never unmapped and begins at a page; the harness writes whole numbers.
    unsafe { AtomicU32::from_ptr(page.add(at).cast()) }
}

/// Writes a text with its length in front. Only one thread writes at each place.
fn write(page: *mut u8, at: usize) {
    let find = |name: &CStr| own_symbol(name);
    // SAFETY: the text's place lies inside the mapping; whoever calls holds no lock of the allocator.
    let used = unsafe {
        let place = core::slice::from_raw_parts_mut(page.add(at + 4), statistics::TEXT_BYTES);
        statistics::write(&find, place)
    };
    number(page, at).store(used.unwrap_or(0) as u32, Ordering::Release);
}

/// A function of the allocator's own object: dlsym on a handle goes on into what the object depends on.
fn own_symbol(name: &CStr) -> *mut c_void {
    let handle = HANDLE.load(Ordering::Relaxed);
    // SAFETY: a handle of dlopen and C strings; the structures are filled before they are read.
    unsafe {
        let found = libc::dlsym(handle, name.as_ptr());
        let malloc = libc::dlsym(handle, c"malloc".as_ptr());
        if found.is_null() || malloc.is_null() {
            return found;
        }
        let (mut of_found, mut of_malloc): (libc::Dl_info, libc::Dl_info) =
            (core::mem::zeroed(), core::mem::zeroed());
        let known = libc::dladdr(found, &raw mut of_found) != 0
            && libc::dladdr(malloc, &raw mut of_malloc) != 0;
        if known && of_found.dli_fbase == of_malloc.dli_fbase {
            found
        } else {
            ptr::null_mut()
        }
    }
}

/// The process ends: what was allocated is still there, as the program left it.
extern "C" fn at_end() {
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() && is_owner() {
        write(page, statistics::END_AT);
    }
}

/// As [`at_end`], by the agent's thread: a signal handler may end the process in the middle of a call of the allocator, whose
/// lock the calling thread then holds. The thread waits for that lock in vain, and this one does not wait for ever.
fn at_once() {
    // SAFETY: no arguments.
    let own = unsafe { libc::getpid() };
    if !is_owner() || SERVED.load(Ordering::Relaxed) != own {
        return;
    }
    ENDING.store(own, Ordering::Release);
    for _ in 0..LOOKS_AT_END {
        if ENDED.load(Ordering::Acquire) == own {
            return;
        }
        pause();
    }
}

/// Whether this is the process that the page belongs to: a child of vfork borrows this memory and is not.
fn is_owner() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::getpid() == OWNER.load(Ordering::Relaxed) }
}

/// The C library's functions that end a process without its destructors.
macro_rules! ends {
    ($name:ident) => {
        /// Writes the statistics, then ends the process as the C library's does.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(status: c_int) -> ! {
            at_once();
            loop {
                // SAFETY: does not return.
                unsafe { libc::syscall(libc::SYS_exit_group, status) };
            }
        }
    };
}
ends!(_exit);
ends!(_Exit);
