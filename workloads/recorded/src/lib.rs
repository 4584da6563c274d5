//! Records a program that carries its own allocator, which no preloaded library can stand in front of.
//!
//! ```ignore
//! use heaplab_recorded::Recorded;
//! #[global_allocator]
//! static ALLOCATOR: Recorded<mimalloc::MiMalloc> = Recorded::new(mimalloc::MiMalloc);
//! ```
//! Under `heaplab record -- ./program` every call is recorded; otherwise a call costs one load and a branch more. In a
//! dynamically linked program the events go through the preloaded recorder, so program and heaplab need not be of the same
//! build; a statically linked one joins the session by itself and does.
//!
//! Not for allocators that take their blocks from the C library's `malloc`, such as `System`: those are recorded anyway, and
//! would be twice.
#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{CStr, c_char, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

use heaplab_hook::{member, session, thread};
use heaplab_ring::Kind;

/// Blocks of the malloc family have this alignment without being asked.
const DEFAULT_ALIGN: usize = 16;

/// An allocator whose calls are recorded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded<A>(A);

impl<A> Recorded<A> {
    /// Records the calls of `allocator`.
    pub const fn new(allocator: A) -> Self {
        Self(allocator)
    }
}

// SAFETY: every call is passed on with its arguments, and its result is returned.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Recorded<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let block = unsafe { self.0.alloc(layout) };
        allocated(Kind::Malloc, block, layout);
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        allocated(Kind::Calloc, block, layout);
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let kind = match layout.align() > DEFAULT_ALIGN {
            true => Kind::FreeAlignedSized,
            false => Kind::FreeSized,
        };
        // Before the call: afterwards another thread may have the block already.
        record(kind, block, layout.size(), log2(layout));
        // SAFETY: the caller's promises are passed on.
        unsafe { self.0.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        record(Kind::ReallocBegin, block, 0, 0);
        // SAFETY: the caller's promises are passed on.
        let new = unsafe { self.0.realloc(block, layout, size) };
        record(Kind::ReallocEnd, new, size, 0);
        new
    }
}

#[inline]
fn allocated(kind: Kind, block: *mut u8, layout: Layout) {
    let kind = match (block.is_null(), layout.align() > DEFAULT_ALIGN) {
        (true, _) => Kind::FailedAlloc,
        (false, true) => Kind::AlignedAlloc,
        (false, false) => kind,
    };
    record(kind, block, layout.size(), log2(layout));
}

/// log2 of an alignment that was asked for.
fn log2(layout: Layout) -> u32 {
    match layout.align() > DEFAULT_ALIGN {
        true => layout.align().trailing_zeros(),
        false => 0,
    }
}

/// Names this instant: a phase of the program begins. Does nothing outside a recording.
pub fn mark(name: &str) {
    const MOST: usize = 400;
    let name = name.as_bytes();
    let name = name.get(..MOST).unwrap_or(name);
    match symbol(c"heaplab_mark") {
        Some(mark) => {
            let mut text = [0u8; MOST + 1];
            text[..name.len()].copy_from_slice(name);
            // SAFETY: the recorder's function has this signature, and the text ends in a zero byte.
            unsafe {
                let mark = core::mem::transmute::<usize, unsafe extern "C" fn(*const c_char)>(mark);
                mark(text.as_ptr().cast());
            }
        }
        None => member::record_with_text(name, Kind::Mark, 0, 0),
    }
}

type Door = extern "C" fn(u32, *mut c_void, usize, u32);

/// Nobody has looked yet.
const UNKNOWN: usize = 0;
/// There is no recording.
const NONE: usize = 1;
/// Where events go: one of the above or the address of a [`Door`].
static DOOR: AtomicUsize = AtomicUsize::new(UNKNOWN);

#[inline]
fn record(kind: Kind, block: *mut u8, size: usize, align_log2: u32) {
    let door = DOOR.load(Ordering::Relaxed);
    if door != NONE {
        pass(door, kind, block, size, align_log2);
    }
}

fn pass(door: usize, kind: Kind, block: *mut u8, size: usize, align_log2: u32) {
    let door = match door {
        UNKNOWN => find(),
        door => door,
    };
    if door != NONE {
        // SAFETY: neither of the two numbers, so `find` stored the address of a `Door`.
        let door = unsafe { core::mem::transmute::<usize, Door>(door) };
        door(kind as u32, block.cast(), size, align_log2);
    }
}

/// Looks for the preloaded recorder, then for a session to join. Threads that look at the same time find the same.
#[cold]
fn find() -> usize {
    let door = symbol(c"heaplab_record_v1").unwrap_or_else(|| {
        member::attach();
        if session::mode() == session::RECORDING {
            member::register_fork_handler();
            directly as *const () as usize
        } else {
            NONE
        }
    });
    DOOR.store(door, Ordering::Relaxed);
    door
}

/// Events of a program that joined the session itself.
extern "C" fn directly(kind: u32, block: *mut c_void, size: usize, align_log2: u32) {
    if let Some(kind) = u8::try_from(kind).ok().and_then(Kind::from_u8) {
        thread::record(kind, block as usize, size, align_log2 as u8);
    }
}

/// A function of the preloaded recorder. A static program has none, and no way to look for one.
fn symbol(name: &CStr) -> Option<usize> {
    if cfg!(target_feature = "crt-static") {
        return None;
    }
    // SAFETY: the name is zero-terminated.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found as usize)
}
