//! How fast the CPU runs that a thread is on. A look takes microseconds, on some kernels milliseconds: none belongs into a timed part.

/// Frequency, kHz, of the CPU that the calling thread is on; `None` where the kernel does not show it.
pub fn khz() -> Option<u64> {
    // SAFETY: no arguments.
    let cpu = unsafe { libc::sched_getcpu() };
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}
