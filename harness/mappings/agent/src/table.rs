//! The ranges of this process, in the file that the harness reads.

use core::ffi::c_int;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering, fence};
use heaplab_mappings::{
    CAPACITY, COUNT_AT, FOLLOWED, Full, LOST, RANGES_AT, RENEWALS, RENEWALS_AT, RENEWED_AT, Range,
    Ranges, SEQUENCE_AT, STATE_AT, UNSETTLED_AT,
};

/// The mapped file; null before there is one. It is never unmapped.
static PAGE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// The process that it belongs to: children of fork have a copy of this variable and the file itself.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// The thread that holds the ranges; 0: none.
static HOLDER: AtomicI32 = AtomicI32::new(0);
/// Tries for them before the processor is given up.
const TRIES: u32 = 100;
const PAUSE_NS: i64 = 50_000;

/// From now on the ranges are kept in `page`.
pub fn begin(page: *mut u8) {
    // SAFETY: no arguments.
    OWNER.store(unsafe { libc::getpid() }, Ordering::Relaxed);
    // No number that another program in this process has used.
    number(page, SEQUENCE_AT).store(now_ns() & !1, Ordering::Relaxed);
    number(page, STATE_AT).store(FOLLOWED, Ordering::Relaxed);
    PAGE.store(page, Ordering::Release);
}

fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a place for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A number in front of the ranges.
fn number(page: *mut u8, at: usize) -> &'static AtomicU64 {
    debug_assert!(at.is_multiple_of(8) && at < RANGES_AT);
    // SAFETY: inside the mapping, which is never unmapped and begins at a page; whoever else reads it does so by `read`.
    unsafe { AtomicU64::from_ptr(page.add(at).cast()) }
}

/// The file, where it is this process's.
fn own_page() -> Option<*mut u8> {
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: no arguments.
    let own = !page.is_null() && unsafe { libc::getpid() } == OWNER.load(Ordering::Relaxed);
    own.then_some(page)
}

/// While it lives, memory may be there that is not noted yet, or on its way out and no more to be seen.
pub struct Unsettled(&'static AtomicU64);

/// Before a call that brings memory in at once or takes own memory away; nothing where there are no ranges of this process.
pub fn unsettled() -> Option<Unsettled> {
    let calls = number(own_page()?, UNSETTLED_AT);
    calls.fetch_add(1, Ordering::AcqRel);
    Some(Unsettled(calls))
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The ranges, while no other thread changes them.
pub struct Held(*mut u8);

/// Waits for them. Nothing where there are none of this process; and where the calling thread has them already and was interrupted
/// by a signal: what its handler does is not noted, and the ranges are wrong from now on.
pub fn hold() -> Option<Held> {
    let page = own_page()?;
    // SAFETY: no arguments.
    let own = unsafe { libc::syscall(libc::SYS_gettid) } as c_int;
    let mut tries = 0;
    loop {
        match HOLDER.compare_exchange_weak(0, own, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return Some(Held(page)),
            Err(holder) if holder == own => {
                number(page, STATE_AT).store(LOST, Ordering::Release);
                return None;
            }
            Err(_) => {}
        }
        tries += 1;
        if tries < TRIES {
            core::hint::spin_loop();
            continue;
        }
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: PAUSE_NS,
        };
        // SAFETY: a valid time. By a system call, as the C library's function is a point of cancellation.
        unsafe { libc::syscall(libc::SYS_nanosleep, &raw const time, ptr::null_mut::<u8>()) };
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HOLDER.store(0, Ordering::Release);
    }
}

impl Held {
    /// Whether some of the range is the program's.
    pub fn meets(&mut self, range: Range) -> bool {
        self.ranges().meets(range)
    }

    /// Whether all of it is.
    pub fn holds(&mut self, range: Range) -> bool {
        self.ranges().hold(range)
    }

    /// The range is the program's, and new.
    pub fn mapped(&mut self, range: Range) {
        let over = self.meets(range);
        self.change(range, over, |ranges| ranges.add(range));
    }

    /// The range is not the program's, or not any more.
    pub fn gone(&mut self, range: Range) {
        if self.meets(range) {
            self.change(range, true, |ranges| ranges.remove(range));
        }
    }

    /// What was in the range may not be there any more.
    pub fn renewed(&mut self, range: Range) {
        if self.meets(range) {
            self.change(range, true, |_| Ok(()));
        }
    }

    fn ranges(&mut self) -> Ranges<'_> {
        let count = number(self.0, COUNT_AT).load(Ordering::Relaxed) as usize;
        // SAFETY: the file has room for so many ranges behind the numbers, aligned to 8 bytes; this value is the only one in the process
        // while it lives, and is borrowed for as long as the slice is.
        let room =
            unsafe { slice::from_raw_parts_mut(self.0.add(RANGES_AT).cast::<Range>(), CAPACITY) };
        Ranges::new(room, count)
    }

    fn change(
        &mut self,
        range: Range,
        renewed: bool,
        by: impl FnOnce(&mut Ranges<'_>) -> Result<(), Full>,
    ) {
        let page = self.0;
        let sequence = number(page, SEQUENCE_AT);
        let before = sequence.load(Ordering::Relaxed);
        sequence.store(before + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let mut ranges = self.ranges();
        let done = by(&mut ranges);
        let count = ranges.as_slice().len() as u64;
        number(page, COUNT_AT).store(count, Ordering::Relaxed);
        if renewed {
            let so_far = number(page, RENEWED_AT).load(Ordering::Relaxed);
            let at = RENEWALS_AT + so_far as usize % RENEWALS * size_of::<Range>();
            // SAFETY: inside the file, behind the ranges, and aligned to 8 bytes; the calling thread alone writes there.
            unsafe { page.add(at).cast::<Range>().write(range) };
            number(page, RENEWED_AT).store(so_far + 1, Ordering::Relaxed);
        }
        if done.is_err() {
            number(page, STATE_AT).store(LOST, Ordering::Relaxed);
        }
        sequence.store(before + 2, Ordering::Release);
    }
}
