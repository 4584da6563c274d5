//! Tells callgrind which part of a run is counted, where it was told to wait for that (`--instr-atstart=no`).
//!
//! Opening, checking and hashing a script takes as many instructions as replaying it; they are the same for all subjects and
//! would halve what a slower one differs by. The requests are those of valgrind's manual ("The Client Request mechanism",
//! "Callgrind specific client requests"): instructions that change nothing on a processor, before an exchange of a register
//! with itself.

use std::arch::asm;

/// callgrind's requests begin here: the letters C and T.
const TOOL: u64 = 0x4354_0000;
/// Their numbers in `callgrind.h`.
const TOGGLE_COLLECT: u64 = TOOL + 2;
const START_INSTRUMENTATION: u64 = TOOL + 4;
const STOP_INSTRUMENTATION: u64 = TOOL + 5;

/// From here on the instructions of all threads count.
pub fn start() {
    request(START_INSTRUMENTATION);
}

/// What follows does not count.
pub fn stop() {
    request(STOP_INSTRUMENTATION);
}

/// What this thread does in `work` does not count; that of others does.
pub fn apart(work: impl FnOnce()) {
    request(TOGGLE_COLLECT);
    work();
    request(TOGGLE_COLLECT);
}

fn request(number: u64) {
    // The request and its five arguments, of which these have none.
    let request = [number, 0, 0, 0, 0, 0];
    // SAFETY: the rotations add up to 128 bits and leave rdi as it was, a register exchanged with itself is the same; valgrind
    // reads the request and answers in rdx.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") 0_u64 => _,
            out("rdi") _,
            options(nostack, readonly),
        );
    }
}
