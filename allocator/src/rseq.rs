//! Restartable sequences (Linux 4.18, rseq(2)): short pieces of code that read and change data of the
//! CPU they run on and end with one store. The kernel sends a thread that was interrupted in one, by
//! another thread on its CPU or by a signal, back to the start, so that they need neither lock nor
//! atomic instruction, and a signal handler meets every list whole.
//!
//! glibc 2.35 and later registers every thread and says where by `__rseq_offset`; we use that
//! registration and never make one. Without it (older C library, valgrind, `glibc.pthread.rseq=0`)
//! [`Rseq::find`] finds nothing.
//!
//! A list is one word: its length in the upper 16 bits above the address of its first object, so that
//! one store changes both. The first word of an object holds the list's word as it was before the
//! object came. Invariants: R1 the store to the list is a section's last instruction; R2 everything
//! before it can be done again.

use core::sync::atomic::{AtomicPtr, AtomicU64};

/// Bits of a list's word that hold the address.
pub const ADDRESS_BITS: u32 = 48;
const ADDRESS: u64 = (1 << ADDRESS_BITS) - 1;
/// What a descriptor has in front of its abort address, as glibc registered it for x86-64.
const SIGNATURE: u32 = 0x5305_3053;

/// First object of a list.
#[inline]
#[must_use]
pub fn first_of(list: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut((list & ADDRESS) as usize)
}

/// Objects in a list.
#[inline]
#[must_use]
pub fn len_of(list: u64) -> usize {
    (list >> ADDRESS_BITS) as usize
}

/// The word of a list.
#[inline]
#[must_use]
pub fn list_of(first: *mut u8, len: usize) -> u64 {
    first.expose_provenance() as u64 | (len as u64) << ADDRESS_BITS
}

core::arch::global_asm!(".weak __rseq_offset", ".weak __rseq_size");

/// Where the calling thread's area is: an offset from the thread pointer, the same for all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rseq(isize);

/// A section: descriptor, start, the CPU's lists in `{slab}` (without any, on to 76), the code with the
/// label 74 behind its last store.
macro_rules! section {
    ($begin:literal; $($code:literal),*) => {
        concat!(
            // Descriptor: version, flags, start, length, abort address.
            ".pushsection __rseq_cs, \"aw\", @progbits\n",
            ".balign 32\n",
            "70: .long 0, 0\n",
            ".quad 73f, 74f - 73f, 75f\n",
            ".popsection\n",
            ".pushsection .text.spanalloc_rseq_abort, \"ax\", @progbits\n",
            // The signature as the operand of an instruction that traps.
            ".byte 0x0f, 0xb9, 0x3d\n",
            ".long {signature}\n",
            "75: jmp 71f\n",
            ".popsection\n",
            "71: ", $begin, "\n",
            "lea {a}, [rip + 70b]\n",
            "mov qword ptr fs:[{rseq} + 8], {a}\n",
            "73: mov {a:e}, dword ptr fs:[{rseq} + 4]\n",
            "cmp {a:e}, {cpus}\n",
            "jae 76f\n",
            "mov {slab}, qword ptr [{slabs} + {a} * 8]\n",
            "test {slab}, {slab}\n",
            "jz 76f\n",
            $($code, "\n",)*
            "76:\n"
        )
    };
}

/// CPUs that can have lists; on others every operation finds none.
pub const MAX_CPUS: usize = 1024;

/// Where the lists of each CPU are, null if there are none: words by class.
pub type Slabs<T> = [AtomicPtr<T>; MAX_CPUS];

impl Rseq {
    /// The registration that glibc made, if it made one.
    #[must_use]
    pub fn find() -> Option<Self> {
        let (offset, size): (*const isize, *const u32);
        // SAFETY: reads the addresses of two weak symbols, 0 where they do not exist.
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr [rip + __rseq_offset@GOTPCREL]",
                "mov {1}, qword ptr [rip + __rseq_size@GOTPCREL]",
                out(reg) offset,
                out(reg) size,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        if offset.is_null() || size.is_null() {
            return None;
        }
        // SAFETY: glibc's variables, written before any code of ours runs.
        let found = unsafe { (*size > 0).then(|| Self(*offset)) }?;
        // A failed registration leaves a negative number.
        (found.cpu() as i32 >= 0).then_some(found)
    }

    /// The registration whose areas are at `offset`.
    pub(crate) fn at(offset: isize) -> Self {
        Self(offset)
    }

    /// Where the areas are.
    pub(crate) fn offset(self) -> isize {
        self.0
    }

    /// The CPU that the thread runs on, or did a moment ago.
    #[inline]
    #[must_use]
    pub fn cpu(self) -> usize {
        let cpu: u32;
        // SAFETY: the thread's area is at the offset.
        unsafe {
            core::arch::asm!(
                "mov {0:e}, dword ptr fs:[{1} + 4]",
                out(reg) cpu,
                in(reg) self.0,
                options(readonly, nostack, preserves_flags),
            );
        }
        cpu as usize
    }

    /// Takes the first object of a list, null if it is empty.
    ///
    /// # Safety
    /// `slabs` has an entry for every CPU, null or words and limits for all classes; the lists are
    /// changed by sections only.
    #[inline]
    pub unsafe fn pop<T>(self, slabs: &Slabs<T>, class: usize) -> *mut u8 {
        let object: *mut u8;
        // SAFETY: the caller's duty. The object's first word is read while no other thread can have
        // run on the CPU since it was seen to be in the list.
        unsafe {
            core::arch::asm!(
                section!(
                    "xor {object:e}, {object:e}";
                    "mov {object}, qword ptr [{slab} + {class} * 8]",
                    "shl {object}, 16",
                    "shr {object}, 16",
                    "jz 76f",
                    "mov {a}, qword ptr [{object}]",
                    "mov qword ptr [{slab} + {class} * 8], {a}",
                    "74:"
                ),
                object = out(reg) object,
                a = out(reg) _,
                slab = out(reg) _,
                rseq = in(reg) self.0,
                slabs = in(reg) slabs.as_ptr(),
                class = in(reg) class,
                signature = const SIGNATURE,
                cpus = const MAX_CPUS,
                options(nostack),
            );
        }
        object
    }

    /// Puts an object in front of a list; false if it has as many as its limit, or is its first.
    ///
    /// # Safety
    /// As [`Rseq::pop`]; the object is of the class and nobody uses it. `limits` is where the limits
    /// of a CPU begin, in bytes from its words.
    #[inline]
    #[must_use]
    pub unsafe fn push<T, const LIMITS: usize>(
        self,
        slabs: &Slabs<T>,
        class: usize,
        object: *mut u8,
    ) -> bool {
        let done: u32;
        // SAFETY: the caller's duty.
        unsafe {
            core::arch::asm!(
                section!(
                    "xor {done:e}, {done:e}";
                    "mov {list}, qword ptr [{slab} + {class} * 8]",
                    "mov {a}, {list}",
                    "shl {a}, 16",
                    "shr {a}, 16",
                    "cmp {a}, {object}",
                    "je 76f",
                    "mov {a}, {list}",
                    "shr {a}, 48",
                    "cmp {a:e}, dword ptr [{slab} + {class} * 4 + {limits}]",
                    "jae 76f",
                    "mov qword ptr [{object}], {list}",
                    "inc {a}",
                    "shl {a}, 48",
                    "or {a}, {object}",
                    "mov qword ptr [{slab} + {class} * 8], {a}",
                    "74: inc {done:e}"
                ),
                done = out(reg) done,
                a = out(reg) _,
                slab = out(reg) _,
                list = out(reg) _,
                rseq = in(reg) self.0,
                slabs = in(reg) slabs.as_ptr(),
                class = in(reg) class,
                object = in(reg) object,
                limits = const LIMITS,
                signature = const SIGNATURE,
                cpus = const MAX_CPUS,
                options(nostack),
            );
        }
        done != 0
    }

    /// Makes a list that is empty `list`; false: it is not empty.
    ///
    /// # Safety
    /// As [`Rseq::pop`]; the objects of `list` are linked as a list's are and are nobody's.
    #[must_use]
    pub unsafe fn install<T>(self, slabs: &Slabs<T>, class: usize, list: u64) -> bool {
        let done: u32;
        // SAFETY: the caller's duty.
        unsafe {
            core::arch::asm!(
                section!(
                    "xor {done:e}, {done:e}";
                    "cmp qword ptr [{slab} + {class} * 8], 0",
                    "jne 76f",
                    "mov qword ptr [{slab} + {class} * 8], {list}",
                    "74: inc {done:e}"
                ),
                done = out(reg) done,
                a = out(reg) _,
                slab = out(reg) _,
                rseq = in(reg) self.0,
                slabs = in(reg) slabs.as_ptr(),
                class = in(reg) class,
                list = in(reg) list,
                signature = const SIGNATURE,
                cpus = const MAX_CPUS,
                options(nostack),
            );
        }
        done != 0
    }

    /// Takes a whole list, 0 if it is empty.
    ///
    /// # Safety
    /// As [`Rseq::pop`].
    #[must_use]
    pub unsafe fn take_all<T>(self, slabs: &Slabs<T>, class: usize) -> u64 {
        let list: u64;
        // SAFETY: the caller's duty.
        unsafe {
            core::arch::asm!(
                section!(
                    "xor {list:e}, {list:e}";
                    "mov {list}, qword ptr [{slab} + {class} * 8]",
                    "mov qword ptr [{slab} + {class} * 8], 0",
                    "74:"
                ),
                list = out(reg) list,
                a = out(reg) _,
                slab = out(reg) _,
                rseq = in(reg) self.0,
                slabs = in(reg) slabs.as_ptr(),
                class = in(reg) class,
                signature = const SIGNATURE,
                cpus = const MAX_CPUS,
                options(nostack),
            );
        }
        list
    }
}

/// Words of lists, for those who read them from outside.
pub type List = AtomicU64;

/// Restarts every section that runs on `cpu` at this moment; false: the kernel cannot.
#[must_use]
pub fn restart_on(cpu: usize) -> bool {
    const EXPEDITED_RSEQ: i32 = 1 << 7;
    const REGISTER_EXPEDITED_RSEQ: i32 = 1 << 8;
    const ON_CPU: u32 = 1;
    let membarrier = |command: i32, flags: u32, cpu: usize| {
        // SAFETY: the call reads and writes no memory of ours.
        unsafe {
            let arguments = [command as usize, flags as usize, cpu, 0, 0, 0];
            crate::os::syscall6(libc::SYS_membarrier, arguments)
        }
    };
    membarrier(REGISTER_EXPEDITED_RSEQ, 0, 0) == 0 && membarrier(EXPEDITED_RSEQ, ON_CPU, cpu) == 0
}
