//! Placing threads and waiting, for benches with several.

use std::hint::spin_loop;
use std::sync::OnceLock;

/// Binds the calling thread to the CPU with this number among those that the process was given (`taskset`), if it has so many.
pub fn pin(number: usize) {
    static GIVEN: OnceLock<Vec<usize>> = OnceLock::new();
    let Some(&cpu) = GIVEN.get_or_init(given).get(number) else {
        return;
    };
    // SAFETY: an all-zero set is a valid one; the calls read and write it only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        // Not being able to leaves the placing to the kernel.
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// The CPUs that the first thread may run on, which no bench binds.
fn given() -> Vec<usize> {
    // SAFETY: an all-zero set is a valid one; the calls read and write it only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let first = libc::getpid();
        libc::sched_getaffinity(first, size_of::<libc::cpu_set_t>(), &raw mut set);
        let all = 0..8 * size_of::<libc::cpu_set_t>();
        all.filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
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
