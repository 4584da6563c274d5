//! The worker's own private memory, made resident before anything is measured, so that the bare worker has no less of it than a
//! run: what it lacked was in every figure, up to 12 KiB and 3 % of the heap of bc.

use std::arch::asm;
use std::ffi::c_void;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr::with_exposed_provenance_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PAGE: usize = 4096;
/// As far down the stack as a run reaches.
const DEPTH: usize = 64 << 10;
/// Arguments and variables may take a quarter of the stack's limit; more than this nobody gives a worker.
const MOST_PAGES: usize = 2 << 10;

static STACK: AtomicU64 = AtomicU64::new(0);

/// Resident bytes of the main thread's stack as [`settle`] found it. They are in no figure: they are no subject's, and the kernel
/// begins the stack anywhere within two pages, with arguments and variables above it, so that no two processes have the same.
pub fn stack_bytes() -> u64 {
    STACK.load(Relaxed)
}

/// To be called by the main thread, first of all.
pub fn settle() {
    settle_statics();
    settle_stack();
}

/// Writes to the part of the stack that a run may reach, and counts what is resident from there up.
#[inline(never)]
fn settle_stack() {
    let mut room = MaybeUninit::<[u8; DEPTH]>::uninit();
    // Nobody may know that only some bytes of it are written: the compiler would give each a place of its own, side by side.
    let room: *mut u8 = black_box(room.as_mut_ptr()).cast();
    for offset in (0..DEPTH).step_by(PAGE) {
        // SAFETY: inside the array.
        unsafe { room.add(offset).write_volatile(0) };
    }
    let lowest = room as usize / PAGE;
    let resident = (lowest..lowest + MOST_PAGES)
        .map_while(residence)
        .filter(|resident| *resident)
        .count();
    STACK.store((resident * PAGE) as u64, Relaxed);
}

/// Whether the page with that number is resident; `None`: nothing is mapped there, as above the stack.
fn residence(page: usize) -> Option<bool> {
    let mut answer = 0_u8;
    let address = with_exposed_provenance_mut::<c_void>(page * PAGE);
    // SAFETY: asks about a page that need not exist; the answer is one byte.
    let code = unsafe { libc::mincore(address, PAGE, &raw mut answer) };
    (code == 0).then_some(answer & 1 != 0)
}

/// Writes to every page of the statics that begin as zeros.
fn settle_statics() {
    unsafe extern "C" {
        /// Where they begin and end: the linker's.
        static __bss_start: u8;
        static _end: u8;
    }
    let (first, end) = (&raw const __bss_start as usize, &raw const _end as usize);
    for page in first / PAGE..end.div_ceil(PAGE) {
        let byte = with_exposed_provenance_mut::<u8>((page * PAGE).max(first));
        // SAFETY: a byte of the program's own statics. It keeps its value, whoever else writes to it meanwhile, as a subject's threads
        // may. (The compiler makes a mere read of an atomic `fetch_or(0)`.)
        unsafe { asm!("lock or byte ptr [{}], 0", in(reg) byte, options(nostack)) };
    }
}
