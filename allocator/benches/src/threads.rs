//! Placing threads and waiting, for benches with several.

use std::hint::spin_loop;

/// Binds the calling thread to CPU number `cpu`, if there is one.
pub fn pin(cpu: usize) {
    // SAFETY: an all-zero set is a valid one; the calls read and write it only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        // Not being able to leaves the placing to the kernel.
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Spins, and lets others run when it takes long: there may be fewer CPUs than threads.
pub fn wait_until(mut ready: impl FnMut() -> bool) {
    let mut rounds = 0_u32;
    while !ready() {
        rounds += 1;
        if rounds.is_multiple_of(4096) {
            std::thread::yield_now();
        }
        spin_loop();
    }
}
