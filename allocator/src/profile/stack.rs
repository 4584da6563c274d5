//! The callers of an allocation: the stack of the calling thread, unwound by `heaplab-unwind` without
//! allocating and without a lock.
//!
//! Words of the stack are read by a system call that answers for addresses that cannot be read, so a
//! corrupt frame pointer, an alternative stack or a fibre cannot make the walk fault.

use crate::os::{self, syscall6};
use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use heaplab_unwind::{Memory, Registers, Row, Stack, StackHash, walk};

/// Frames that are kept of a stack.
pub(super) const MAX_FRAMES: usize = 64;

/// Addresses of a stack, the innermost first.
#[derive(Debug)]
pub(super) struct Frames {
    at: [u64; MAX_FRAMES],
    len: usize,
    pub(super) hash: u64,
}

impl Frames {
    /// Return addresses, as profiles have them.
    pub(super) fn addresses(&self) -> &[u64] {
        &self.at[..self.len]
    }
}

/// `struct dl_find_object` of x86-64 (glibc 2.35: lock-free, made for unwinders).
#[repr(C)]
struct Found {
    flags: u64,
    start: usize,
    end: usize,
    link_map: *const c_void,
    eh_frame_header: usize,
    reserved: [u64; 7],
}

type Find = unsafe extern "C" fn(*mut c_void, *mut Found) -> c_int;

const UNRESOLVED: usize = 0;
const RESOLVING: usize = 1;
const MISSING: usize = 2;
static FIND: AtomicUsize = AtomicUsize::new(UNRESOLVED);

/// Asks for the loader's function, so that no sample has to.
pub(super) fn prepare() {
    find();
}

/// The loader's function, `None` if it has none or is being asked for it.
fn find() -> Option<Find> {
    if FIND
        .compare_exchange(UNRESOLVED, RESOLVING, Relaxed, Relaxed)
        .is_ok()
    {
        // SAFETY: a C string. Where the name is found nothing is allocated.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        FIND.store(
            if found.is_null() {
                MISSING
            } else {
                found as usize
            },
            Relaxed,
        );
    }
    match FIND.load(Relaxed) {
        UNRESOLVED | RESOLVING | MISSING => None,
        // SAFETY: dlsym found this address under the function's name.
        address => Some(unsafe { core::mem::transmute::<usize, Find>(address) }),
    }
}

/// The mapping of a loaded module.
struct Module {
    start: usize,
    end: usize,
    tables: usize,
}

impl Module {
    /// The module that `pc` lies in.
    fn of(pc: u64) -> Option<Self> {
        let mut found = Found {
            flags: 0,
            start: 0,
            end: 0,
            link_map: core::ptr::null(),
            eh_frame_header: 0,
            reserved: [0; 7],
        };
        // SAFETY: any address may be asked for; the function fills the struct and locks nothing.
        let known = unsafe { find()?(pc as usize as *mut c_void, &raw mut found) } == 0;
        known.then_some(Self {
            start: found.start,
            end: found.end,
            tables: found.eh_frame_header,
        })
    }
}

impl Memory for Module {
    fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let address = address as usize;
        if address < self.start || address.checked_add(N)? > self.end {
            return None;
        }
        // SAFETY: inside a module that is mapped while code of it is on this thread's stack; tables and
        // headers lie in its readable segments.
        Some(unsafe { core::ptr::read_unaligned(address as *const [u8; N]) })
    }
}

/// How to step from the frame that `pc` lies in to its caller's.
fn row(pc: u64) -> Row {
    Module::of(pc)
        .filter(|module| module.tables != 0)
        .and_then(|module| heaplab_unwind::row(&module, module.tables as u64, pc))
        .unwrap_or(Row::CHAIN)
}

/// Bytes of the stack that one system call reads.
const WINDOW: usize = 1024;
const KERNEL_PAGE: u64 = 4096;

/// A part of the stack, copied.
struct Window {
    start: Cell<u64>,
    bytes: Cell<u64>,
    words: [Cell<u64>; WINDOW / 8],
}

impl Window {
    /// Copies what lies around `address`, within one page of the kernel's.
    fn fill(&self, address: u64) {
        let page = address & !(KERNEL_PAGE - 1);
        let start = address.saturating_sub(64).max(page);
        let bytes = (KERNEL_PAGE - (start - page)).min(WINDOW as u64);
        let local = [self.words.as_ptr() as usize, bytes as usize];
        let remote = [start as usize, bytes as usize];
        // SAFETY: both are one iovec; the kernel writes at most `bytes` bytes into the cells, which are
        // this function's, and answers for addresses that cannot be read.
        let got = unsafe {
            syscall6(
                libc::SYS_process_vm_readv,
                [
                    os::process_number(),
                    local.as_ptr() as usize,
                    1,
                    remote.as_ptr() as usize,
                    1,
                    0,
                ],
            )
        };
        self.start.set(start);
        self.bytes.set(u64::try_from(got).unwrap_or(0) & !7);
    }

    fn look(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.start.get())?;
        if !address.is_multiple_of(8) || offset >= self.bytes.get() {
            return None;
        }
        Some(self.words.get(offset as usize / 8)?.get())
    }
}

impl Stack for Window {
    fn word(&self, address: u64) -> Option<u64> {
        self.look(address).or_else(|| {
            self.fill(address);
            self.look(address)
        })
    }
}

/// The stack of the caller, without the frames of this library where it is one of its own.
#[inline(never)]
pub(super) fn capture() -> Frames {
    let (pc, sp, bp): (u64, u64, u64);
    // SAFETY: reads registers.
    unsafe {
        core::arch::asm!(
            "lea {pc}, [rip]",
            "mov {sp}, rsp",
            "mov {bp}, rbp",
            pc = out(reg) pc,
            sp = out(reg) sp,
            bp = out(reg) bp,
            options(nomem, nostack, preserves_flags),
        );
    }
    let window = Window {
        start: Cell::new(0),
        bytes: Cell::new(0),
        words: [const { Cell::new(0) }; WINDOW / 8],
    };
    let mut frames = Frames {
        at: [0; MAX_FRAMES],
        len: 0,
        hash: 0,
    };
    // In a library only the frames of others say who allocated. In a program that has us linked in, its
    // own frames lie in the same module, so all stay.
    let own = Module::of(pc).filter(|module| !is_program(module));
    let mut inside = own.is_some();
    walk(
        &window,
        Registers { pc, sp, bp },
        2 * MAX_FRAMES as u32,
        row,
        |pc| {
            inside &= own
                .as_ref()
                .is_some_and(|own| (own.start as u64..own.end as u64).contains(&pc));
            if !inside && frames.len < MAX_FRAMES {
                frames.at[frames.len] = pc + 1;
                frames.len += 1;
            }
        },
    );
    frames.hash = StackHash::of(&frames.at[..frames.len], 0);
    frames
}

/// The module is the program itself, not a library: the program's headers lie in it.
fn is_program(module: &Module) -> bool {
    // SAFETY: reads a value that the kernel gave the process.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    (module.start..module.end).contains(&headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn outer(depth: usize) -> Frames {
        if depth == 0 {
            return capture();
        }
        let frames = outer(depth - 1);
        std::hint::black_box(&frames);
        frames
    }

    #[test]
    fn a_stack_has_one_frame_for_each_call() {
        let frames = outer(10);
        // Ten calls of itself return to one place, whatever lies around it.
        let longest = frames
            .addresses()
            .chunk_by(|one, next| one == next)
            .map(<[u64]>::len)
            .max();
        assert_eq!(longest, Some(10), "{:x?}", frames.addresses());
        assert_eq!(outer(500).addresses().len(), MAX_FRAMES);
        assert_ne!(outer(3).hash, outer(4).hash);
    }

    #[test]
    fn words_that_cannot_be_read_are_none() {
        let window = Window {
            start: Cell::new(0),
            bytes: Cell::new(0),
            words: [const { Cell::new(0) }; WINDOW / 8],
        };
        for address in [0, 8, 4096, 1 << 46, u64::MAX - 7, u64::MAX] {
            assert_eq!(window.word(address), None, "{address:x}");
        }
        let local = [1_u64, 2, 3];
        let address = local.as_ptr() as u64;
        assert_eq!(window.word(address + 16), Some(3));
        assert_eq!(window.word(address), Some(1));
        assert_eq!(window.word(address + 1), None);
    }
}
