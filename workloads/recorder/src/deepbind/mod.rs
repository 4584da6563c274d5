//! Libraries that the program opens with RTLD_DEEPBIND. The loader binds their calls to what they depend on before it looks at
//! preloaded libraries: they would call the C library's `malloc` past the recorder.
//!
//! So after such an opening the places where the loader has put addresses (relocations) are gone through, in the library and in
//! what it depends on. A place that holds exactly the function that the recorder would call next gets the recorder's own; one
//! that holds another allocator's keeps it, as that is what the flag is for. What constructors allocate meanwhile is not seen; a
//! block of theirs that is freed or resized later is a foreign free to the recording, which counts them.
//!
//! The loader takes the object of the address that dlopen returns to for the caller: its RUNPATH and `$ORIGIN` count. An opening
//! without the flag is therefore a jump. One with the flag returns to a `ret` instruction inside the caller's object, and from
//! there to here. (Shadow stacks would not allow that; glibc has none in a process with a library that is not made for them,
//! and this one is not.)

mod caller;
mod functions;
pub mod loaded;
mod relocations;

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use heaplab_hook::{member, session};

use crate::musl;
use functions::{Allocator, COUNT, Set};
use loaded::LinkMap;
use relocations::Place;

/// The C library's functions; 0 while not looked up.
static TARGETS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

macro_rules! opening {
    ($($index:literal $name:ident $mode:literal)*) => {$(
        /// The C library's function of this name; with RTLD_DEEPBIND what it opened calls the recorder afterwards.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                concat!("test ", $mode, ", {flag}"),
                "jnz 2f",
                "mov rax, qword ptr [rip + {targets} + 8 * {index}]",
                "test rax, rax",
                "jz 2f",
                "jmp rax",
                "2:",
                "push rdi",
                "push rsi",
                "push rdx",
                ".cfi_adjust_cfa_offset 24",
                concat!("mov esi, ", $mode),
                "mov edi, {index}",
                "mov rdx, qword ptr [rsp + 24]",
                "call {begin}",
                "mov r10, rax",
                "mov r11, rdx",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                ".cfi_adjust_cfa_offset -24",
                "test r11, r11",
                "jnz 3f",
                "jmp r10",
                "3:",
                "lea rax, [rip + 4f]",
                "push rax",
                ".cfi_adjust_cfa_offset 8",
                "push r11",
                ".cfi_adjust_cfa_offset 8",
                "jmp r10",
                ".cfi_adjust_cfa_offset -16",
                // Whoever unwinds looks one byte before the address that is returned to.
                "nop",
                "4:",
                "sub rsp, 8",
                ".cfi_adjust_cfa_offset 8",
                "mov rdi, rax",
                "call {opened}",
                "add rsp, 8",
                ".cfi_adjust_cfa_offset -8",
                "ret",
                ".cfi_endproc",
                flag = const libc::RTLD_DEEPBIND,
                targets = sym TARGETS,
                index = const $index,
                begin = sym begin,
                opened = sym opened,
            )
        }
    )*};
}

opening! {
    0 dlopen "esi"
    // Of another namespace nothing is recorded: it has a C library of its own, with its own heap.
    1 dlmopen "edx"
}

/// Where an opening goes on, and where it is to return to first; 0: to its caller.
#[repr(C)]
struct Way {
    function: usize,
    back: usize,
}

extern "C" fn begin(index: usize, mode: c_int, caller: usize) -> Way {
    // SAFETY: errno is a thread-local integer.
    let errno = unsafe { *libc::__errno_location() };
    let mut way = Way {
        function: target(index),
        back: 0,
    };
    if mode & libc::RTLD_DEEPBIND != 0 && is_recorded() && !musl::is_here() {
        way.back = caller::ret_near(caller).unwrap_or(0);
        #[cfg(feature = "stacks")]
        crate::stacks::modules::will_return_to(way.back);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    way
}

fn is_recorded() -> bool {
    if session::mode() == session::UNKNOWN {
        member::attach();
    }
    session::mode() == session::RECORDING
}

fn target(index: usize) -> usize {
    let Some((target, name)) = TARGETS.get(index).zip([c"dlopen", c"dlmopen"].get(index)) else {
        return nothing as *const () as usize;
    };
    let mut address = target.load(Ordering::Relaxed);
    if address == 0 {
        // SAFETY: the name is zero-terminated; RTLD_NEXT is valid in a preloaded library.
        address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
        if address == 0 {
            return nothing as *const () as usize;
        }
        target.store(address, Ordering::Relaxed);
    }
    address
}

/// For a function that the C library does not have.
extern "C" fn nothing() -> *mut c_void {
    core::ptr::null_mut()
}

/// A library was opened with the flag, unless `handle` is null: then dlerror has the reason, and nothing here changes it.
extern "C" fn opened(handle: *mut c_void) -> *mut c_void {
    if handle.is_null() {
        return handle;
    }
    // SAFETY: errno is a thread-local integer.
    let errno = unsafe { *libc::__errno_location() };
    let mut map: *const LinkMap = core::ptr::null();
    let mut space: libc::Lmid_t = libc::LM_ID_NEWLM;
    // SAFETY: a handle that dlopen has just given; the results are a pointer and a number.
    let told = unsafe {
        libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) == 0
            && libc::dlinfo(handle, libc::RTLD_DI_LMID, (&raw mut space).cast()) == 0
    };
    if told && !map.is_null() && space == libc::LM_ID_BASE {
        bind(handle, map);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    handle
}

/// Has the object and what it depends on call the recorder where they call what comes behind it. No symbol may be looked up
/// while the loader's list is held, so that what is met is gathered first.
fn bind(handle: *mut c_void, map: *const LinkMap) {
    let (mut met, mut unbound) = (Set::default(), Set::default());
    relocations::each_place(map, |place| {
        let seen = match place {
            Place::Bound(..) => &mut met,
            Place::Unbound(..) => &mut unbound,
        };
        seen.insert(place.function());
    });
    let both = met | unbound;
    if both.is_empty() {
        return;
    }
    let allocator = Allocator::find();
    let next: [usize; COUNT] = functions::next(both);
    // Bound at the first call: to what the loader will find then.
    let mut bound_later = [0; COUNT];
    let mut failed = false;
    for function in unbound.iter() {
        // SAFETY: an open handle and a zero-terminated name.
        let found = unsafe { libc::dlsym(handle, functions::name(function).as_ptr()) };
        failed |= found.is_null();
        bound_later[function] = found as usize;
    }
    if failed {
        // A search that succeeds takes back what dlerror would tell the program.
        // SAFETY: a zero-terminated name.
        unsafe { libc::dlsym(libc::RTLD_NEXT, c"free".as_ptr()) };
    }
    relocations::each_place(map, |place| {
        let function = place.function();
        let address = match place {
            &Place::Bound(_, address, _) => address,
            Place::Unbound(..) => bound_later[function],
        };
        let is_next = match functions::is_operator(function) {
            true => allocator.contains(address),
            false => address == next[function],
        };
        if address != 0 && is_next {
            place.write(functions::own(function));
        }
    });
}
