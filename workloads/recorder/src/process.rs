//! What the program says about itself: marks and pauses (`include/heaplab.h`), programs that it starts, its end.
//!
//! exec and its relatives are exported only to note which file is about to be executed, so that one that turns out not to
//! be recorded (static, setuid, without our environment) can be named. The exported functions are assembly because some
//! take a variable number of arguments and because the child of a vfork must leave no frame of ours behind: they note
//! the name and jump on.

use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use heaplab_hook::{chunks, large, member, session};
use heaplab_ring::{Kind, Pool, sys};

/// Longest name of a file or a mark that is kept.
const NAME_BYTES: usize = 400;

/// Where each function goes on; 0 while unresolved.
static TARGETS: [AtomicUsize; NAMES.len()] = [const { AtomicUsize::new(0) }; NAMES.len()];

macro_rules! noted {
    ($($index:literal $name:ident)*) => {$(
        /// The C library's function of this name, after a note.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "push rdi",
                "push rsi",
                "push rdx",
                "push rcx",
                "push r8",
                "push r9",
                // The number of vector registers of a variadic call.
                "push rax",
                ".cfi_adjust_cfa_offset 56",
                "mov edx, {index}",
                "call {note}",
                "mov r11, rax",
                "pop rax",
                "pop r9",
                "pop r8",
                "pop rcx",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                ".cfi_adjust_cfa_offset -56",
                "jmp r11",
                ".cfi_endproc",
                index = const $index,
                note = sym note,
            )
        }
    )*};
}

noted! {
    0 execve
    1 execv
    2 execvp
    3 execvpe
    4 execl
    5 execlp
    6 execle
    7 execveat
    8 fexecve
}

static NAMES: [&CStr; 9] = [
    c"execve",
    c"execv",
    c"execvp",
    c"execvpe",
    c"execl",
    c"execlp",
    c"execle",
    c"execveat",
    c"fexecve",
];
const EXECVEAT: usize = 7;
const FEXECVE: usize = 8;

/// Notes which file function `index` is called for, by its first two arguments; the address to go on at.
unsafe extern "C" fn note(first: usize, second: usize, index: usize) -> usize {
    if session::mode() == session::RECORDING {
        let mut buffer = [0u8; NAME_BYTES];
        let file = match index {
            FEXECVE => descriptor(first, &mut buffer),
            EXECVEAT => text_at(second),
            _ => text_at(first),
        };
        // In the child of a vfork this is the child's id, though all memory is the parent's.
        member::record_with_text(file, Kind::Exec, sys::getpid() as usize, 0);
    }
    let Some((target, name)) = TARGETS.get(index).zip(NAMES.get(index)) else {
        return unknown as *const () as usize;
    };
    let mut address = target.load(Ordering::Relaxed);
    if address == 0 {
        // SAFETY: the name is zero-terminated; RTLD_NEXT is valid in a preloaded library.
        address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
        if address == 0 {
            address = unknown as *const () as usize;
        }
        target.store(address, Ordering::Relaxed);
    }
    address
}

/// For a function that the C library does not have.
extern "C" fn unknown() -> c_int {
    // SAFETY: errno is a thread-local integer.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// Looks up all functions: the child of a vfork must not be the first to, as it has no stack of its own to wait on.
pub fn resolve() {
    for (target, name) in TARGETS.iter().zip(NAMES) {
        // SAFETY: as in `note`.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
        target.store(address, Ordering::Relaxed);
    }
}

/// Has forks followed. By name, as either C library has one of the two, and neither's may be missing where it loads us.
pub fn follow_forks() {
    let [before, in_parent, in_child] = member::FORK_HANDLERS;
    let find = |name: &CStr| {
        // SAFETY: the name is zero-terminated.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    // SAFETY: dlsym found these addresses under the functions' names. glibc's takes a fourth argument, the library with
    // which the handlers go: none, as a preloaded library stays.
    unsafe {
        let glibc = find(c"__register_atfork");
        if let Some(register) = core::mem::transmute::<*mut c_void, Option<RegisterAtFork>>(glibc) {
            register(before, in_parent, in_child, core::ptr::null_mut());
            return;
        }
        let posix = find(c"pthread_atfork");
        if let Some(register) = core::mem::transmute::<*mut c_void, Option<AtFork>>(posix) {
            register(before, in_parent, in_child);
        }
    }
}

type AtFork = unsafe extern "C" fn(extern "C" fn(), extern "C" fn(), extern "C" fn()) -> c_int;
type RegisterAtFork =
    unsafe extern "C" fn(extern "C" fn(), extern "C" fn(), extern "C" fn(), *mut c_void) -> c_int;

/// The C string at an address, as far as it is kept.
fn text_at(address: usize) -> &'static [u8] {
    if address == 0 {
        return &[];
    }
    // SAFETY: the caller passes what the program passed as a name: a zero-terminated string that lives through the call.
    let text = unsafe { CStr::from_ptr(address as *const c_char) }.to_bytes();
    text.get(..NAME_BYTES).unwrap_or(text)
}

/// The file behind a descriptor.
fn descriptor(fd: usize, buffer: &mut [u8; NAME_BYTES]) -> &[u8] {
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0";
    let (mut digits, mut rest) = ([0u8; 7], fd);
    let mut count = 0;
    while count == 0 || (rest > 0 && count < digits.len()) {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    for (at, digit) in digits[..count].iter().rev().enumerate() {
        path[14 + at] = *digit;
    }
    let used = sys::readlink(&path, buffer).unwrap_or(0);
    &buffer[..used]
}

type PosixSpawn = unsafe extern "C" fn(
    *mut libc::pid_t,
    *const c_char,
    *const c_void,
    *const c_void,
    *const *mut c_char,
    *const *mut c_char,
) -> c_int;

macro_rules! spawn {
    ($name:ident, $symbol:literal) => {
        /// The C library's function of this name; what it started is noted.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            pid: *mut libc::pid_t,
            file: *const c_char,
            actions: *const c_void,
            attributes: *const c_void,
            arguments: *const *mut c_char,
            environment: *const *mut c_char,
        ) -> c_int {
            // SAFETY: the name is zero-terminated; RTLD_NEXT is valid in a preloaded library.
            let next = unsafe { libc::dlsym(libc::RTLD_NEXT, $symbol.as_ptr()) };
            // SAFETY: 0, which is `None`, or a function of this signature.
            let next = unsafe { core::mem::transmute::<*mut c_void, Option<PosixSpawn>>(next) };
            let Some(next) = next else {
                return libc::ENOSYS;
            };
            let mut own = 0;
            let pid = if pid.is_null() { &raw mut own } else { pid };
            // SAFETY: the caller's promises are passed on; `pid` is valid.
            unsafe {
                let status = next(pid, file, actions, attributes, arguments, environment);
                if status == 0 && session::mode() == session::RECORDING {
                    let child = *pid as usize;
                    member::record_with_text(text_at(file as usize), Kind::Exec, child, 1);
                }
                status
            }
        }
    };
}

spawn!(posix_spawn, c"posix_spawn");
spawn!(posix_spawnp, c"posix_spawnp");

/// Names this instant: a phase of the program begins.
///
/// # Safety
/// `name` must be null or a zero-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaplab_mark(name: *const c_char) {
    member::record_with_text(text_at(name as usize), Kind::Mark, 0, 0);
}

/// Leaves events out from now on, in all processes of the recording.
#[unsafe(no_mangle)]
pub extern "C" fn heaplab_pause() {
    if let Some(pool) = recording()
        && !pool.is_paused()
    {
        // Before the door closes: a mark is an event.
        member::record_with_text(b"recording paused", Kind::Mark, 0, 0);
        pool.set_paused(true);
    }
}

/// Records events again, in all processes of the recording.
#[unsafe(no_mangle)]
pub extern "C" fn heaplab_resume() {
    if let Some(pool) = recording()
        && pool.set_paused(false)
    {
        member::record_with_text(b"recording resumed", Kind::Mark, 0, 0);
    }
}

/// 1 while events of this process are recorded, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn heaplab_is_recording() -> c_int {
    c_int::from(recording().is_some_and(|pool| !pool.is_paused()))
}

/// The session that this process records into.
fn recording() -> Option<Pool<'static>> {
    member::attach();
    match session::mode() {
        session::RECORDING => session::pool(),
        _ => None,
    }
}

/// Runs when the process exits in order, among the last.
pub extern "C" fn at_exit() {
    if session::mode() == session::RECORDING {
        large::tell_all();
        member::record_always(Kind::Exit, 0, 0);
        chunks::hand_over();
    }
}
