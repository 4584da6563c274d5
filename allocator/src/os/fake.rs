//! A page source for tests: a block of ordinary memory, with failures on demand.

use super::{Mapped, Moved, Os};
use core::ops::Index;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

const ALIGN: usize = 64 << 20;

/// What a system may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Map,
    Purge,
    Renew,
    Unmap,
    HandOver,
    Populate,
    Collapse,
    Move,
    Protect,
}

impl Call {
    pub const ALL: [Self; 9] = [
        Self::Map,
        Self::Purge,
        Self::Renew,
        Self::Unmap,
        Self::HandOver,
        Self::Populate,
        Self::Collapse,
        Self::Move,
        Self::Protect,
    ];
}

/// Calls of one kind: how many there were, and which are refused.
pub struct Calls {
    made: AtomicUsize,
    /// Those that shall still succeed.
    allowed: AtomicUsize,
    /// The number of the one that fails.
    to_fail: AtomicUsize,
}

impl Calls {
    fn new() -> Self {
        Self {
            made: AtomicUsize::new(0),
            allowed: AtomicUsize::new(usize::MAX),
            to_fail: AtomicUsize::new(usize::MAX),
        }
    }

    pub fn made(&self) -> usize {
        self.made.load(Relaxed)
    }

    /// From now on so many succeed, and then none.
    pub fn allow(&self, calls: usize) {
        self.allowed.store(calls, Relaxed);
    }

    /// The call of this number, counted from 0, fails.
    pub fn fail(&self, number: usize) {
        self.to_fail.store(number, Relaxed);
    }

    /// One more call; false: it is refused.
    fn count(&self) -> bool {
        let nth = self.made.fetch_add(1, Relaxed);
        nth != self.to_fail.load(Relaxed)
            && self
                .allowed
                .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
                .is_ok()
    }
}

/// Hands out one zeroed block, piece by piece as it is mapped.
pub struct FakeOs {
    mapping: usize,
    block: usize,
    len: usize,
    reach: usize,
    /// Bytes that are mapped, and ...
    pub mapped: AtomicUsize,
    /// ... those that may be mapped in all.
    pub limit: AtomicUsize,
    /// The clock, advanced by the test.
    pub clock_ms: AtomicU64,
    calls: [Calls; Call::ALL.len()],
    /// What was to be collapsed, ...
    pub collapses: std::sync::Mutex<Vec<(usize, usize)>>,
    /// ... and populated.
    pub populates: std::sync::Mutex<Vec<(usize, usize)>>,
    /// Addresses in this range are reported as taken.
    pub taken: (usize, usize),
    /// Processors of the machine.
    pub processors: usize,
}

impl FakeOs {
    /// A source whose heap may reach over `reach` bytes; metadata has as much again.
    pub fn new(reach: usize) -> Self {
        let len = reach * 2 + ALIGN;
        // Not `alloc_zeroed`: with an alignment that writes to every page.
        // SAFETY: a fresh mapping anywhere; the kernel supplies the zero pages lazily.
        let mapping = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len + ALIGN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(
            mapping,
            libc::MAP_FAILED,
            "no memory for the fake page source"
        );
        Self {
            mapping: mapping as usize,
            block: (mapping as usize).next_multiple_of(ALIGN),
            len,
            reach,
            mapped: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            clock_ms: AtomicU64::new(0),
            calls: core::array::from_fn(|_| Calls::new()),
            collapses: std::sync::Mutex::default(),
            populates: std::sync::Mutex::default(),
            taken: (0, 0),
            processors: 8,
        }
    }

    /// First address of the block.
    pub fn start(&self) -> usize {
        self.block
    }

    /// Counts a call; false: it is refused.
    fn may(&self, call: Call) -> bool {
        self[call].count()
    }
}

impl Index<Call> for FakeOs {
    type Output = Calls;

    fn index(&self, call: Call) -> &Calls {
        &self.calls[call as usize]
    }
}

impl Drop for FakeOs {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nobody uses it any more.
        unsafe { libc::munmap(self.mapping as *mut libc::c_void, self.len + ALIGN) };
    }
}

impl Os for FakeOs {
    fn pick_base(&self, len: usize, attempt: u32) -> Option<usize> {
        (attempt == 0 && len <= self.len).then_some(self.block)
    }

    fn heap_reach(&self) -> usize {
        self.reach
    }

    fn map_at(&self, addr: usize, len: usize) -> Mapped {
        if addr < self.taken.1 && addr + len > self.taken.0 {
            return Mapped::Taken;
        }
        if addr < self.block || addr + len > self.block + self.len {
            return Mapped::NoMemory;
        }
        if !self.may(Call::Map) {
            return Mapped::NoMemory;
        }
        if self.mapped.fetch_add(len, Relaxed) + len > self.limit.load(Relaxed) {
            self.mapped.fetch_sub(len, Relaxed);
            return Mapped::NoMemory;
        }
        Mapped::Yes
    }

    fn purge(&self, addr: usize, len: usize) -> bool {
        if !self.may(Call::Purge) {
            return false;
        }
        // Not a memset: that would occupy pages that were never touched.
        // SAFETY: the page heap purges free runs inside the block only, which is anonymous memory.
        unsafe { libc::madvise(addr as *mut libc::c_void, len, libc::MADV_DONTNEED) == 0 }
    }

    fn renew(&self, _: usize, _: usize) -> bool {
        self.may(Call::Renew)
    }

    fn unmap(&self, addr: usize, len: usize) -> bool {
        if !self.may(Call::Unmap) {
            return false;
        }
        self.mapped.fetch_sub(len, Relaxed);
        // Whoever touches it from now on ends the tests.
        // SAFETY: the page heap unmaps free runs inside the block only.
        unsafe { libc::mprotect(addr as *mut libc::c_void, len, libc::PROT_NONE) == 0 }
    }

    fn hand_over(&self, from: usize, to: usize, len: usize) -> bool {
        let inside = self.block..=self.block + self.len - len;
        if !self.may(Call::HandOver) || !inside.contains(&to) {
            return false;
        }
        // What was never used reads as zero there.
        // SAFETY: the page heap hands over free runs inside the block only.
        unsafe { libc::mprotect(from as *mut libc::c_void, len, libc::PROT_NONE) == 0 }
    }

    fn touch(&self, _: usize) {}

    fn populate(&self, addr: usize, len: usize) -> bool {
        let mut asked = self.populates.lock().expect("no test panics in here");
        asked.push((addr, len));
        if !self.may(Call::Populate) {
            return false;
        }
        // Not by writing: another thread may use the pages already. Where the system cannot, nothing is different but residency.
        super::Linux::BESIDE.populate(addr, len);
        true
    }

    fn collapse(&self, addr: usize, len: usize) -> bool {
        let mut asked = self.collapses.lock().expect("no test panics in here");
        asked.push((addr, len));
        self.may(Call::Collapse)
    }

    fn is_resident(&self, addr: usize, len: usize) -> bool {
        super::Linux::BESIDE.is_resident(addr, len)
    }

    fn move_pages(&self, from: usize, to: usize, len: usize) -> Moved {
        if !self.may(Call::Move) {
            return Moved::No;
        }
        // SAFETY: both ranges lie in spans that the caller owns and do not overlap.
        unsafe {
            (to as *mut u8).copy_from_nonoverlapping(from as *const u8, len);
            if self.mapped.load(Relaxed) > self.limit.load(Relaxed) {
                // Whoever touches it from now on ends the tests.
                libc::mprotect(from as *mut libc::c_void, len, libc::PROT_NONE);
                return Moved::WithPlace;
            }
            (from as *mut u8).write_bytes(0, len);
        }
        Moved::Yes
    }

    fn protect(&self, _: usize, _: usize, _: bool) -> bool {
        self.may(Call::Protect)
    }

    fn now_ms(&self) -> u64 {
        self.clock_ms.load(Relaxed)
    }

    fn now_ns(&self) -> u64 {
        self.now_ms() * 1_000_000
    }

    fn processors(&self) -> usize {
        self.processors
    }
}
