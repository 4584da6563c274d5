//! The optional subject rpmalloc. It wants to be told of the process's begin and of each thread's begin and end; a library
//! that is preloaded learns of a thread by its first call. The binding brings Rust's standard library, of which nothing runs.

#[path = "../../exports.rs"]
mod exports;

/// The binding's version, with the commit of rpmalloc that it brings.
fn described() -> &'static str {
    "version=0.2.3+b097fd0\n"
}

mod raw {
    use core::ffi::c_void;
    use core::sync::atomic::{AtomicU32, Ordering};
    use rpmalloc_sys as rp;

    /// The pthread key whose destructor tells of a thread's end, plus one; 0: not made yet, 1: being made.
    static KEY: AtomicU32 = AtomicU32::new(0);
    const MAKING: u32 = u32::MAX;

    extern "C" fn thread_ends(_: *mut c_void) {
        // SAFETY: called in the thread itself, which makes no call of ours afterwards that would not begin it anew.
        unsafe { rp::rpmalloc_thread_finalize() };
    }

    /// Tells rpmalloc of the calling thread, and of the process before.
    #[inline(always)]
    fn ready() {
        // SAFETY: no pointers; the answer is the thread's own.
        if unsafe { rp::rpmalloc_is_thread_initialized() } == 0 {
            begin();
        }
    }

    #[cold]
    fn begin() {
        loop {
            match KEY.load(Ordering::Acquire) {
                0 => {
                    if KEY
                        .compare_exchange(0, MAKING, Ordering::AcqRel, Ordering::Acquire)
                        .is_ok()
                    {
                        let mut key: libc::pthread_key_t = 0;
                        // SAFETY: called once, before any other call; `key` is a place for the result.
                        unsafe {
                            rp::rpmalloc_initialize();
                            libc::pthread_key_create(&raw mut key, Some(thread_ends));
                        }
                        KEY.store(key + 1, Ordering::Release);
                    }
                }
                MAKING => core::hint::spin_loop(),
                key => {
                    // SAFETY: the thread is not known yet; the key was made above and is never deleted.
                    unsafe {
                        rp::rpmalloc_thread_initialize();
                        libc::pthread_setspecific(key - 1, core::ptr::dangling::<u8>().cast());
                    }
                    return;
                }
            }
        }
    }

    /// # Safety
    /// As the C function's.
    pub unsafe fn malloc(size: usize) -> *mut c_void {
        ready();
        // SAFETY: any size may be asked for.
        unsafe { rp::rpmalloc(size) }
    }

    /// # Safety
    /// As the C function's.
    pub unsafe fn calloc(count: usize, size: usize) -> *mut c_void {
        ready();
        // SAFETY: any product may be asked for.
        unsafe { rp::rpcalloc(count, size) }
    }

    /// # Safety
    /// As the C function's.
    pub unsafe fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
        ready();
        // SAFETY: the contract is the caller's.
        unsafe { rp::rprealloc(block, size) }
    }

    /// # Safety
    /// As the C function's.
    pub unsafe fn free(block: *mut c_void) {
        ready();
        // SAFETY: the contract is the caller's.
        unsafe { rp::rpfree(block) }
    }

    /// # Safety
    /// `alignment` is a power of two.
    pub unsafe fn aligned(alignment: usize, size: usize) -> *mut c_void {
        ready();
        // SAFETY: the contract is the caller's.
        unsafe { rp::rpaligned_alloc(alignment, size) }
    }

    /// # Safety
    /// `block` is a live block.
    pub unsafe fn usable(block: *mut c_void) -> usize {
        // SAFETY: the contract is the caller's.
        unsafe { rp::rpmalloc_usable_size(block) }
    }
}
