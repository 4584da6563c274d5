//! libspanalloc.so: the malloc family of a process, by `LD_PRELOAD` or by linking.
//!
//! Only this library exports `malloc` and its relatives; the crate `spanalloc` never does, so that
//! linking it into a program cannot replace that program's allocator by accident. `no_std`, so
//! that start-up touches as little memory as possible.
#![no_std]

mod c;
mod cxx;
mod cxx_failure;
mod extensions;
mod indirect;
mod legacy;
mod vfork;

/// Called by the loader before `main`, and before the constructors of everything that depends on
/// us. Allocation works earlier too; here is what is better done once and in one thread.
extern "C" fn constructor() {
    spanalloc::thread::start_process();
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

/// Called by the loader when the process ends by `exit`.
extern "C" fn destructor() {
    spanalloc::dump::at_exit();
    spanalloc::profile::at_exit();
    spanalloc::last_look::at_exit();
}

#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destructor;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    spanalloc::fault::die_bug()
}
