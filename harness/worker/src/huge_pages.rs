//! `--huge-pages BYTES`: has the kernel make huge pages ready for the process that comes next. On a machine that has been up for a
//! while nearly all memory holds files, and free memory lies in small pieces: a subject's huge page is then put together when it
//! is first written, or is not.

use std::ptr;

/// Size of a transparent huge page on x86-64.
const HUGE: usize = 2 << 20;

/// Maps `bytes`, has them filled by huge pages and gives these back free, so that they stay whole. Does what it can: what the kernel
/// refuses the run may be refused as well, and there it is counted.
pub fn make_ready(bytes: usize) {
    // Where a container's limit is in the way it is this process that goes.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // One more, so that whole ones fit in wherever it begins.
    let bytes = bytes.next_multiple_of(HUGE) + HUGE;
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody else knows; the advice changes no contents.
    unsafe {
        let memory = libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return;
        }
        libc::madvise(memory, bytes, libc::MADV_HUGEPAGE);
        libc::madvise(memory, bytes, libc::MADV_POPULATE_WRITE);
        // What came in small pages all the same; the kernel takes more trouble here than when memory is first written.
        libc::madvise(memory, bytes, libc::MADV_COLLAPSE);
        libc::munmap(memory, bytes);
    }
}
