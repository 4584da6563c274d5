//! Free blocks: a stack per class and thread, and a list per class through which batches travel between threads. No free block
//! is ever read or written: a script that frees many and allocates them again would wait for each one's line of the cache, and
//! that would count as the harness's own cost.

use crate::region::{self, CLASSES};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Blocks a stack holds before half of them go to the shared list.
const STACK: usize = 4096;
/// Room behind each stack, its two ends included, so that the tops of all stacks do not fall into the same lines of the CPU's cache.
const PAD: usize = 24;
/// Stands behind the last place of a stack: no block has this address.
const FULL: *mut c_void = ptr::without_provenance_mut(1);
/// A class for every size that can be asked for; those from `CLASSES` on are never filled.
const ALL_CLASSES: usize = 64;
/// Blocks moved at once.
const BATCH: usize = STACK / 2;

// A pointer-sized variable in the static TLS block: read in two instructions, without a call to the loader.
core::arch::global_asm!(
    ".section .tbss,\"awT\",@nobits",
    ".p2align 3",
    ".globl heaplab_null_cache",
    ".hidden heaplab_null_cache",
    ".type heaplab_null_cache,@object",
    ".size heaplab_null_cache,8",
    "heaplab_null_cache:",
    ".zero 8",
    ".text",
);

/// This thread's cache, or null before its first call.
#[inline(always)]
pub fn current() -> *mut Cache {
    let cache: *mut Cache;
    // SAFETY: reads the thread's own variable defined above; it is zero or was written by `set_current`.
    unsafe {
        core::arch::asm!(
            "mov {cache}, qword ptr [rip + heaplab_null_cache@GOTTPOFF]",
            "mov {cache}, qword ptr fs:[{cache}]",
            cache = out(reg) cache,
            options(nostack, preserves_flags, readonly, pure),
        );
    }
    cache
}

fn set_current(cache: *mut Cache) {
    // SAFETY: writes the thread's own variable defined above.
    unsafe {
        core::arch::asm!(
            "mov {offset}, qword ptr [rip + heaplab_null_cache@GOTTPOFF]",
            "mov qword ptr fs:[{offset}], {cache}",
            offset = out(reg) _,
            cache = in(reg) cache,
            options(nostack, preserves_flags),
        );
    }
}

/// One thread's free blocks. Neither call compares a number: a stack ends in a null below, and in [`FULL`] above.
#[repr(C)]
pub struct Cache {
    /// Where the last block of each stack is, or the null below it; of a class that is too large, always that.
    tops: [*mut *mut c_void; ALL_CLASSES],
    /// Fresh memory of each class: next block and end.
    fresh: [(usize, usize); CLASSES],
    /// Next cache in the list of caches without a thread.
    next: *mut Cache,
    /// A null, blocks, [`FULL`], and the padding.
    stacks: [[*mut c_void; STACK + PAD]; CLASSES],
    /// The stack of all classes that are too large.
    none: [*mut c_void; 2],
}

impl Cache {
    /// Takes a free block of `class`.
    #[inline(always)]
    pub fn pop(&mut self, class: usize) -> Option<*mut c_void> {
        // SAFETY: `class` is that of a size, so below ALL_CLASSES; its top points into a stack, and not below the null.
        unsafe {
            let top = *self.tops.get_unchecked(class);
            let block = *top;
            if block.is_null() {
                return None;
            }
            *self.tops.get_unchecked_mut(class) = top.sub(1);
            Some(block)
        }
    }

    /// Keeps a free block; false when the stack is full.
    #[inline(always)]
    pub fn push(&mut self, class: usize, block: *mut c_void) -> bool {
        // SAFETY: `class` is that of a block given out, so below CLASSES; what lies above the last place is FULL.
        unsafe {
            let place = (*self.tops.get_unchecked(class)).add(1);
            if *place == FULL {
                return false;
            }
            *place = block;
            *self.tops.get_unchecked_mut(class) = place;
            true
        }
    }

    /// Makes zero bytes an empty cache.
    fn start(&mut self) {
        let none = self.none.as_mut_ptr();
        for (class, top) in self.tops.iter_mut().enumerate() {
            *top = none;
            if let Some(stack) = self.stacks.get_mut(class) {
                stack[STACK + 1] = FULL;
                *top = stack.as_mut_ptr();
            }
        }
    }

    /// The way of an allocation whose stack is empty: a batch from the shared list, else fresh memory.
    #[cold]
    #[inline(never)]
    pub fn refill(cache: *mut Cache, class: usize) -> *mut c_void {
        if class >= CLASSES {
            return ptr::null_mut();
        }
        let cache = if cache.is_null() {
            Self::adopt()
        } else {
            cache
        };
        if cache.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: this thread's own cache.
        let cache = unsafe { &mut *cache };
        // An adopted cache has what the thread before left in it, and a batch needs an empty stack.
        if let Some(block) = cache.pop(class) {
            return block;
        }
        if SHARED[class].take(&mut cache.stacks[class]) {
            cache.tops[class] = &raw mut cache.stacks[class][BATCH];
            return cache.pop(class).unwrap_or(ptr::null_mut());
        }
        let bytes = region::bytes_of(class);
        let (next, end) = cache.fresh[class];
        if next < end {
            cache.fresh[class].0 = next + bytes;
            return next as *mut c_void;
        }
        let count = (64 * 1024 / bytes).max(1);
        let start = region::take(class, count);
        if start != 0 {
            cache.fresh[class] = (start + bytes, start + bytes * count);
        }
        start as *mut c_void
    }

    /// The way of a free whose stack is full: half of it goes to the shared list.
    #[cold]
    #[inline(never)]
    pub fn spill(cache: *mut Cache, class: usize, block: *mut c_void) {
        let cache = if cache.is_null() {
            Self::adopt()
        } else {
            cache
        };
        if cache.is_null() {
            return; // no memory for a cache: the block is lost, which null may
        }
        // SAFETY: this thread's own cache.
        let cache = unsafe { &mut *cache };
        let stack = &mut cache.stacks[class];
        if cache.tops[class] == &raw mut stack[STACK] {
            cache.tops[class] = &raw mut stack[STACK - BATCH];
            // A slice of that length.
            if let Ok(upper) = stack[STACK - BATCH + 1..=STACK].try_into() {
                SHARED[class].give(upper);
            }
        }
        cache.push(class, block);
    }

    /// Gives the thread a cache: one that an ended thread left, else a new one.
    fn adopt() -> *mut Cache {
        let mut cache = ORPHANS.pop();
        if cache.is_null() {
            cache = mapped(size_of::<Cache>()).cast();
            if cache.is_null() {
                return ptr::null_mut();
            }
            // SAFETY: fresh memory of that size, which nobody else knows; zero bytes are a valid cache.
            unsafe { (*cache).start() };
        }
        set_current(cache);
        ORPHANS.watch(cache);
        cache
    }
}

/// Addresses of free blocks of one class.
struct Batch {
    next: *mut Batch,
    blocks: [*mut c_void; BATCH],
}

/// Batches mapped at once.
const MAPPED: usize = 64;

/// Batches: full ones of a class, or those that are empty.
struct Batches {
    busy: AtomicBool,
    head: UnsafeCell<*mut Batch>,
}

// SAFETY: `head` is only touched by the holder of `busy`.
unsafe impl Sync for Batches {}

impl Batches {
    const fn new() -> Self {
        Self {
            busy: AtomicBool::new(false),
            head: UnsafeCell::new(ptr::null_mut()),
        }
    }

    fn locked<R>(&self, work: impl FnOnce(&mut *mut Batch) -> R) -> R {
        while self.busy.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        // SAFETY: the flag was taken, so nobody else has the reference.
        let result = work(unsafe { &mut *self.head.get() });
        self.busy.store(false, Ordering::Release);
        result
    }

    fn push(&self, batch: *mut Batch) {
        self.locked(|head| {
            // SAFETY: the batch is the caller's until it is in the list.
            unsafe { (*batch).next = *head };
            *head = batch;
        });
    }

    fn pop(&self) -> *mut Batch {
        self.locked(|head| {
            let batch = *head;
            if !batch.is_null() {
                // SAFETY: a batch in the list.
                *head = unsafe { (*batch).next };
            }
            batch
        })
    }
}

static SHARED: [Batches; CLASSES] = [const { Batches::new() }; CLASSES];
static EMPTY: Batches = Batches::new();

impl Batches {
    /// Puts `BATCH` blocks into the list as one batch; they are lost where there is no memory for it, which null may.
    fn give(&self, blocks: &[*mut c_void; BATCH]) {
        let batch = match EMPTY.pop() {
            batch if batch.is_null() => empty_batches(),
            batch => batch,
        };
        if !batch.is_null() {
            // SAFETY: a batch that is in no list; its memory is mapped.
            unsafe { (*batch).blocks = *blocks };
            self.push(batch);
        }
    }

    /// Moves one batch into an empty stack; false when there is none.
    fn take(&self, stack: &mut [*mut c_void; STACK + PAD]) -> bool {
        let batch = self.pop();
        if batch.is_null() {
            return false;
        }
        // SAFETY: it was full when it was put into the list, and is in none now.
        stack[1..=BATCH].copy_from_slice(unsafe { &(*batch).blocks });
        EMPTY.push(batch);
        true
    }
}

/// Maps some empty batches, keeps all but one; null without memory.
fn empty_batches() -> *mut Batch {
    let first = mapped(MAPPED * size_of::<Batch>()).cast::<Batch>();
    if !first.is_null() {
        for number in 1..MAPPED {
            EMPTY.push(first.wrapping_add(number));
        }
    }
    first
}

/// Fresh memory of the kernel; null without any.
fn mapped(bytes: usize) -> *mut c_void {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    match memory {
        libc::MAP_FAILED => ptr::null_mut(),
        memory => memory,
    }
}

/// Caches whose thread has ended, for the next thread.
struct Orphans {
    busy: AtomicBool,
    head: UnsafeCell<*mut Cache>,
    /// The pthread key whose destructor brings caches here, plus one; 0 = not made.
    key: AtomicUsize,
}

// SAFETY: `head` is only touched by the holder of `busy`.
unsafe impl Sync for Orphans {}

static ORPHANS: Orphans = Orphans {
    busy: AtomicBool::new(false),
    head: UnsafeCell::new(ptr::null_mut()),
    key: AtomicUsize::new(0),
};

impl Orphans {
    fn locked<R>(&self, work: impl FnOnce(&mut *mut Cache) -> R) -> R {
        while self.busy.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        // SAFETY: the flag was taken, so nobody else has the reference.
        let result = work(unsafe { &mut *self.head.get() });
        self.busy.store(false, Ordering::Release);
        result
    }

    fn pop(&self) -> *mut Cache {
        self.locked(|head| {
            let cache = *head;
            if !cache.is_null() {
                // SAFETY: a cache in the list belongs to no thread.
                *head = unsafe { (*cache).next };
            }
            cache
        })
    }

    /// Sees to it that `cache` comes back when the calling thread ends.
    fn watch(&self, cache: *mut Cache) {
        let key = match self.key.load(Ordering::Acquire) {
            0 => self.locked(|_| {
                if self.key.load(Ordering::Acquire) == 0 {
                    let mut key: libc::pthread_key_t = 0;
                    // SAFETY: `key` is a place for the result, the destructor has the right signature.
                    if unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) } == 0 {
                        self.key.store(key as usize + 1, Ordering::Release);
                    }
                }
                self.key.load(Ordering::Acquire)
            }),
            key => key,
        };
        if key != 0 {
            // SAFETY: the key was made above and is never deleted.
            unsafe { libc::pthread_setspecific((key - 1) as libc::pthread_key_t, cache.cast()) };
        }
    }
}

extern "C" fn thread_ends(cache: *mut c_void) {
    let cache = cache.cast::<Cache>();
    set_current(ptr::null_mut());
    ORPHANS.locked(|head| {
        // SAFETY: the cache was this thread's, which no longer uses it.
        unsafe { (*cache).next = *head };
        *head = cache;
    });
}
