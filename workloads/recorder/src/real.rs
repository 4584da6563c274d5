//! The next library's malloc family, and the bootstrap arena that serves `dlsym` itself.

use crate::musl;
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

pub type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
pub type Free = unsafe extern "C" fn(*mut c_void);
pub type Calloc = unsafe extern "C" fn(usize, usize) -> *mut c_void;
pub type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
pub type AlignedAlloc = unsafe extern "C" fn(usize, usize) -> *mut c_void;
pub type PosixMemalign = unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int;
pub type UsableSize = unsafe extern "C" fn(*mut c_void) -> usize;
pub type FreeSized = unsafe extern "C" fn(*mut c_void, usize);
pub type FreeAlignedSized = unsafe extern "C" fn(*mut c_void, usize, usize);

/// One function of the next library; 0 while unresolved or when it has none.
struct Entry(AtomicUsize, &'static CStr);

macro_rules! entries {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $symbol:literal;)*) => {
        mod table {
            use super::*;
            $(#[allow(non_upper_case_globals)]
            pub(super) static $name: Entry = Entry(AtomicUsize::new(0), $symbol);)*
        }
        const ALL: &[&Entry] = &[$(&table::$name),*];
        $(
            $(#[$doc])*
            #[inline(always)]
            pub fn $name() -> Option<$type> {
                let mut address = table::$name.0.load(Ordering::Relaxed);
                if address == 0 {
                    address = resolve_entry(&table::$name);
                }
                // SAFETY: dlsym found this address under the symbol's name, whose C signature is
                // the type; 0 is the representation of `None`.
                unsafe { core::mem::transmute::<usize, Option<$type>>(address) }
            }
        )*
    };
}

entries! {
    /// The first: see [`resolve`].
    malloc: Malloc = c"malloc";
    free: Free = c"free";
    calloc: Calloc = c"calloc";
    realloc: Realloc = c"realloc";
    aligned_alloc: AlignedAlloc = c"aligned_alloc";
    memalign: AlignedAlloc = c"memalign";
    posix_memalign: PosixMemalign = c"posix_memalign";
    valloc: Malloc = c"valloc";
    pvalloc: Malloc = c"pvalloc";
    malloc_usable_size: UsableSize = c"malloc_usable_size";
    /// C23; older libraries have none.
    free_sized: FreeSized = c"free_sized";
    /// C23; older libraries have none.
    free_aligned_sized: FreeAlignedSized = c"free_aligned_sized";
}

const UNRESOLVED: u32 = 0;
const RESOLVING: u32 = 1;
const RESOLVED: u32 = 2;
static STATE: AtomicU32 = AtomicU32::new(UNRESOLVED);

/// Looks up every function once. While one thread does, calls (its own nested ones from dlsym, and
/// those of other threads in that instant) find nothing and use the bootstrap arena: what dlsym keeps of a search that
/// failed is none of the program's blocks.
pub fn resolve() {
    if STATE
        .compare_exchange(UNRESOLVED, RESOLVING, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        return;
    }
    // SAFETY: errno is a thread-local integer.
    let errno = unsafe { *libc::__errno_location() };
    let mut found = [0; ALL.len()];
    // The one that no library lacks comes last: a search that succeeds takes back what one that failed would have dlerror
    // tell the program.
    for (address, entry) in found.iter_mut().zip(ALL).rev() {
        // SAFETY: the name is zero-terminated; RTLD_NEXT is valid in a preloaded library.
        *address = unsafe { libc::dlsym(libc::RTLD_NEXT, entry.1.as_ptr()) } as usize;
    }
    for (address, entry) in found.into_iter().zip(ALL) {
        entry.0.store(address, Ordering::Relaxed);
    }
    if musl::is_here() {
        table::calloc
            .0
            .store(musl::calloc as *const () as usize, Ordering::Relaxed);
        table::memalign.0.store(
            table::aligned_alloc.0.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        table::posix_memalign.0.store(
            musl::posix_memalign as *const () as usize,
            Ordering::Relaxed,
        );
        table::valloc
            .0
            .store(musl::valloc as *const () as usize, Ordering::Relaxed);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    STATE.store(RESOLVED, Ordering::Release);
}

#[cold]
#[inline(never)]
fn resolve_entry(entry: &Entry) -> usize {
    resolve();
    entry.0.load(Ordering::Relaxed)
}

/// Bytes of the bootstrap arena; zero pages until used.
const ARENA_BYTES: usize = 256 * 1024;
/// Bytes before a block, for its size; keeps blocks aligned to 16.
const ARENA_HEADER: usize = 16;

#[repr(C, align(4096))]
struct Arena(core::cell::UnsafeCell<[u8; ARENA_BYTES]>);
// SAFETY: blocks are handed out once each by an atomic counter and never taken back.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(core::cell::UnsafeCell::new([0; ARENA_BYTES]));
static ARENA_USED: AtomicUsize = AtomicUsize::new(0);

/// A zeroed block for a call that comes while the next library is not known; null when the arena
/// is used up. Not recorded, never freed.
#[cold]
pub fn bootstrap_allocate(size: usize, align: usize) -> *mut c_void {
    let align = align.max(16);
    let Some(room) = size.checked_add(ARENA_HEADER + align) else {
        return core::ptr::null_mut();
    };
    let start = ARENA_USED.fetch_add(room.next_multiple_of(16), Ordering::Relaxed);
    if start > ARENA_BYTES || room > ARENA_BYTES - start {
        return core::ptr::null_mut();
    }
    let base = ARENA.0.get() as usize;
    let block = (base + start + ARENA_HEADER).next_multiple_of(align);
    // SAFETY: `[start, start + room)` of the arena belongs to this call alone; header and block,
    // moved up by less than `align`, lie inside and the header is aligned to 16.
    unsafe { ((block - ARENA_HEADER) as *mut usize).write(size) };
    block as *mut c_void
}

/// Whether a block came from [`bootstrap_allocate`].
#[inline(always)]
pub fn is_bootstrap(block: *mut c_void) -> bool {
    (block as usize).wrapping_sub(ARENA.0.get() as usize) < ARENA_BYTES
}

/// Size of a block of [`bootstrap_allocate`].
pub fn bootstrap_size(block: *mut c_void) -> usize {
    // SAFETY: the caller passes a block of the arena; its size stands before it.
    unsafe { ((block as usize - ARENA_HEADER) as *const usize).read() }
}
