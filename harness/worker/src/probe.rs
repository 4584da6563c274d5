//! What a measure adds to the replay loop. Everything is inlined, so a probe that does nothing costs nothing.

use crate::clock;
use crate::world::World;
use heaplab_script::OpKind;
use heaplab_worker::fill::Fill;
use std::ffi::c_void;

/// One call that is about to be made.
#[derive(Clone, Copy)]
pub struct Call {
    /// What is called.
    pub kind: OpKind,
    /// Bytes requested, or of the block that is freed.
    pub size: u64,
    /// The block was allocated by another thread (frees).
    pub remote: bool,
}

/// Hooks of a measure, one value per replaying thread.
pub trait Probe: Sized + 'static {
    /// Requested and usable sizes are kept per slot and [`Probe::moved`] is called.
    const TRACKS: bool;
    /// The measure adds nothing to a call.
    const BARE: bool = false;
    /// Idle ops are slept; otherwise they are left out.
    const SLEEPS: bool;

    /// Made in the thread itself before the run starts.
    fn new(world: &'static World) -> Self;

    /// Runs one call of the subject.
    #[inline(always)]
    fn around<R>(&mut self, call: impl Fn() -> Call, work: impl FnOnce() -> R) -> R {
        let _ = call;
        work()
    }

    /// `paced`: the thread is about to wait for the next op's time.
    #[inline(always)]
    fn rests(&mut self) {}

    /// `paced`: the next call should have been made at `ns` of the monotonic clock.
    #[inline(always)]
    fn intends(&mut self, ns: u64) {
        let _ = ns;
    }

    /// The thread has waited for another thread's block; the call that follows could not be made before.
    fn waited(&mut self) {}

    /// Lockstep of a script with times: the next op was made by `thread` at `ns` since the beginning of the recording.
    #[inline(always)]
    fn at(&mut self, ns: u64, thread: u32) {
        let _ = (ns, thread);
    }

    /// The op that [`Probe::at`] was told of is over.
    #[inline(always)]
    fn done(&mut self) {}

    /// Lockstep of a script with times: a block is filled while time goes on.
    fn fills(&mut self, fill: Fill) {
        let _ = fill;
    }

    /// This block is about to be freed or resized.
    #[inline(always)]
    fn leaves(&mut self, start: *const c_void) {
        let _ = start;
    }

    /// An idle op of so many nanoseconds.
    fn sleep(&mut self, ns: u64) {
        clock::sleep_ns(ns);
    }

    /// A call changed the requested and usable bytes alive, and those of the requested ones that are never written.
    #[inline(always)]
    fn moved(&mut self, live: i64, usable: i64, unwritten: i64) {
        let _ = (live, usable, unwritten);
    }

    /// After the thread's last op.
    fn finish(self, world: &'static World) {
        let _ = world;
    }
}

/// `speed` and `counts`: nothing inside the loop.
pub struct Bare;

impl Probe for Bare {
    const BARE: bool = true;
    const TRACKS: bool = false;
    const SLEEPS: bool = false;

    fn new(_: &'static World) -> Self {
        Self
    }
}
