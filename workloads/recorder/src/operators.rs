//! C++ `operator new` and `delete`, in front of an allocator that defines them itself.
//!
//! The operators of the C++ library call `malloc` and `free`, which are recorded: then each
//! function here jumps on to the next library's and changes nothing. An allocator with operators
//! of its own (most have them) would be asked past our `malloc`: in front of it these functions
//! take its place, call its `malloc` family and record that. When it has no memory its own operator is
//! called, which calls the new-handler or throws. Which of the two it is, is decided at the first
//! call; a program that replaces an operator itself keeps all of them as they are.
//!
//! The exported functions are assembly because exceptions travel through them: their frames are
//! gone when the next library's operator runs.

use core::arch::naked_asm;
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::hooks;
use heaplab_ring::Kind;

const UNDECIDED: u32 = 0;
const RECORD: u32 = 1;
const PASS_ON: u32 = 2;
static MODE: AtomicU32 = AtomicU32::new(UNDECIDED);

/// Where each operator goes: the next library's function or its own recording part; 0: undecided.
static TARGETS: [AtomicUsize; NAMES.len()] = [const { AtomicUsize::new(0) }; NAMES.len()];

/// An operator that allocates: on failure it ends in the next library's.
macro_rules! new {
    ($($index:literal $name:ident $record:ident)*) => {$(
        /// The C++ operator with this mangled name.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "mov rax, qword ptr [rip + {targets} + 8 * {index}]",
                "test rax, rax",
                "jz 2f",
                "jmp rax",
                "2:",
                "push rdi",
                "push rsi",
                "push rdx",
                ".cfi_adjust_cfa_offset 24",
                "mov edi, {index}",
                "lea rsi, [rip + 3f]",
                "call {decide}",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                ".cfi_adjust_cfa_offset -24",
                "jmp rax",
                "3:",
                "push rdi",
                "push rsi",
                "push rdx",
                ".cfi_adjust_cfa_offset 24",
                "call {record}",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                ".cfi_adjust_cfa_offset -24",
                "test rax, rax",
                "jz 4f",
                "ret",
                "4:",
                "push rdi",
                "push rsi",
                "push rdx",
                ".cfi_adjust_cfa_offset 24",
                "mov edi, {index}",
                "call {next_or_end}",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                ".cfi_adjust_cfa_offset -24",
                "jmp rax",
                ".cfi_endproc",
                targets = sym TARGETS,
                index = const $index,
                decide = sym decide,
                record = sym $record,
                next_or_end = sym next_or_end,
            )
        }
    )*};
}

/// An operator that frees.
macro_rules! delete {
    ($($index:literal $name:ident $record:ident)*) => {$(
        /// The C++ operator with this mangled name.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "mov rax, qword ptr [rip + {targets} + 8 * {index}]",
                "test rax, rax",
                "jz 2f",
                "jmp rax",
                "2:",
                "push rdi",
                "push rsi",
                "push rdx",
                ".cfi_adjust_cfa_offset 24",
                "mov edi, {index}",
                "lea rsi, [rip + 3f]",
                "call {decide}",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                ".cfi_adjust_cfa_offset -24",
                "jmp rax",
                "3:",
                "jmp {record}",
                ".cfi_endproc",
                targets = sym TARGETS,
                index = const $index,
                decide = sym decide,
                record = sym $record,
            )
        }
    )*};
}

// `m` is size_t, `Pv` the block, `S` the tags align_val_t and nothrow_t.
new! {
    0 _Znwm new_block
    1 _Znam new_block
    2 _ZnwmRKSt9nothrow_t new_block
    3 _ZnamRKSt9nothrow_t new_block
    4 _ZnwmSt11align_val_t new_aligned
    5 _ZnamSt11align_val_t new_aligned
    6 _ZnwmSt11align_val_tRKSt9nothrow_t new_aligned
    7 _ZnamSt11align_val_tRKSt9nothrow_t new_aligned
}
delete! {
    8 _ZdlPv delete_block
    9 _ZdaPv delete_block
    10 _ZdlPvRKSt9nothrow_t delete_block
    11 _ZdaPvRKSt9nothrow_t delete_block
    12 _ZdlPvSt11align_val_t delete_block
    13 _ZdaPvSt11align_val_t delete_block
    14 _ZdlPvSt11align_val_tRKSt9nothrow_t delete_block
    15 _ZdaPvSt11align_val_tRKSt9nothrow_t delete_block
    16 _ZdlPvm delete_sized
    17 _ZdaPvm delete_sized
    18 _ZdlPvmSt11align_val_t delete_sized_aligned
    19 _ZdaPvmSt11align_val_t delete_sized_aligned
}

/// The operators' names, by index.
pub static NAMES: [&CStr; 20] = [
    c"_Znwm",
    c"_Znam",
    c"_ZnwmRKSt9nothrow_t",
    c"_ZnamRKSt9nothrow_t",
    c"_ZnwmSt11align_val_t",
    c"_ZnamSt11align_val_t",
    c"_ZnwmSt11align_val_tRKSt9nothrow_t",
    c"_ZnamSt11align_val_tRKSt9nothrow_t",
    c"_ZdlPv",
    c"_ZdaPv",
    c"_ZdlPvRKSt9nothrow_t",
    c"_ZdaPvRKSt9nothrow_t",
    c"_ZdlPvSt11align_val_t",
    c"_ZdaPvSt11align_val_t",
    c"_ZdlPvSt11align_val_tRKSt9nothrow_t",
    c"_ZdaPvSt11align_val_tRKSt9nothrow_t",
    c"_ZdlPvm",
    c"_ZdaPvm",
    c"_ZdlPvmSt11align_val_t",
    c"_ZdaPvmSt11align_val_t",
];

/// Indices of the operators that return null instead of throwing.
const NOTHROW_NEW: [usize; 4] = [2, 3, 6, 7];

/// Like the C++ library's: at least one byte, because `malloc(0)` may return null.
unsafe extern "C" fn new_block(size: usize) -> *mut c_void {
    // SAFETY: malloc accepts any size.
    unsafe { hooks::malloc(size.max(1)) }
}

/// Like the C++ library's: the size rounded up, as `aligned_alloc` may demand.
unsafe extern "C" fn new_aligned(size: usize, align: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return core::ptr::null_mut();
    }
    let Some(size) = size.max(1).checked_next_multiple_of(align) else {
        return core::ptr::null_mut();
    };
    // SAFETY: the next library checks the arguments.
    unsafe { hooks::aligned_alloc(align, size) }
}

unsafe extern "C" fn delete_block(block: *mut c_void) {
    // SAFETY: the caller's promise that the block is live is passed on.
    unsafe { hooks::release(Kind::Free, block, 0, 0) }
}

unsafe extern "C" fn delete_sized(block: *mut c_void, size: usize) {
    // SAFETY: as above.
    unsafe { hooks::release(Kind::FreeSized, block, size, 0) }
}

unsafe extern "C" fn delete_sized_aligned(block: *mut c_void, size: usize, align: usize) {
    // SAFETY: as above.
    unsafe { hooks::release(Kind::FreeAlignedSized, block, size, hooks::log2(align)) }
}

/// Decides where operator `index` goes from now on: `record` is its recording part.
unsafe extern "C" fn decide(index: usize, record: usize) -> usize {
    // SAFETY: errno is a thread-local integer.
    let errno = unsafe { *libc::__errno_location() };
    if MODE.load(Ordering::Relaxed) == UNDECIDED {
        // Threads that decide at the same time come to the same result.
        let mode = if replaced_by_the_program() || !next_is_an_allocator() {
            PASS_ON
        } else {
            RECORD
        };
        MODE.store(mode, Ordering::Relaxed);
    }
    let target = match MODE.load(Ordering::Relaxed) {
        PASS_ON => next(index).unwrap_or(record),
        _ => record,
    };
    if let Some(entry) = TARGETS.get(index) {
        entry.store(target, Ordering::Relaxed);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    target
}

/// Where operator `index` goes on when there is no memory.
unsafe extern "C" fn next_or_end(index: usize) -> usize {
    if let Some(next) = next(index).or_else(|| loaded_cxx_library(index)) {
        next
    } else if NOTHROW_NEW.contains(&index) {
        return_null as *const () as usize
    } else {
        // Nobody can throw: as for an exception that is not caught.
        // SAFETY: abort never returns.
        unsafe { libc::abort() }
    }
}

extern "C" fn return_null() -> *mut c_void {
    core::ptr::null_mut()
}

fn next(index: usize) -> Option<usize> {
    let name = NAMES.get(index)?;
    // SAFETY: the name is zero-terminated; RTLD_NEXT is valid in a preloaded library.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    (!address.is_null()).then_some(address as usize)
}

/// The C++ library's operator where only an opened module brought it, out of the global scope.
fn loaded_cxx_library(index: usize) -> Option<usize> {
    let name = NAMES.get(index)?;
    // SAFETY: names are zero-terminated. The handle is kept: the library stays as long as we may
    // jump into it.
    unsafe {
        let flags = libc::RTLD_NOLOAD | libc::RTLD_LAZY;
        let handle = libc::dlopen(c"libstdc++.so.6".as_ptr(), flags);
        if handle.is_null() {
            return None;
        }
        let address = libc::dlsym(handle, name.as_ptr());
        (!address.is_null()).then_some(address as usize)
    }
}

/// Whether any operator that the program uses is not ours: its own definition comes first.
fn replaced_by_the_program() -> bool {
    let ours = object_of(core::ptr::from_ref(&TARGETS) as usize);
    NAMES.iter().any(|name| {
        // SAFETY: the name is zero-terminated.
        let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        object_of(first as usize).map(|object| object.0) != ours.map(|object| object.0)
    })
}

/// Whether the library whose `operator new` comes next defines `malloc` as well.
fn next_is_an_allocator() -> bool {
    let Some((base, path)) = next(0).and_then(object_of) else {
        return false;
    };
    // SAFETY: the loader's own zero-terminated path of a library that is loaded. A search by
    // handle begins in that library, before what it depends on.
    let malloc = unsafe {
        let handle = libc::dlopen(path, libc::RTLD_NOLOAD | libc::RTLD_LAZY);
        if handle.is_null() {
            return false;
        }
        let malloc = libc::dlsym(handle, c"malloc".as_ptr());
        libc::dlclose(handle);
        malloc
    };
    object_of(malloc as usize).is_some_and(|object| object.0 == base)
}

/// Base address and path of the loaded object that contains an address.
fn object_of(address: usize) -> Option<(usize, *const libc::c_char)> {
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr accepts any address and writes the structure, for which zeros are valid.
    let info = unsafe {
        if libc::dladdr(address as *const c_void, info.as_mut_ptr()) == 0 {
            return None;
        }
        info.assume_init()
    };
    Some((info.dli_fbase as usize, info.dli_fname))
}
