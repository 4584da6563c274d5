//! Who is there to do a kind of work, and who has been asked meanwhile: the start and end of the helper.
//!
//! Work is asked for by threads that cannot do it themselves, and whoever does it goes when there is none. The danger
//! is between the last look and the end: a request that is taken for answered because somebody is still there would be
//! forgotten. So leaving and asking meet in one word: leaving fails if somebody has asked since. Modelled in
//! `tests/loom_helper.rs`.

#[cfg(loom)]
use loom::sync::atomic::AtomicU32;

#[cfg(not(loom))]
use core::sync::atomic::AtomicU32;

use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

const NOBODY: u32 = 0;
const THERE: u32 = 1;
/// Somebody is there and has been asked to look again before leaving.
const ASKED: u32 = 2;

/// The word.
#[derive(Debug)]
pub struct OnDuty(AtomicU32);

impl OnDuty {
    /// Nobody is there.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(NOBODY))
    }

    /// Nobody is there (loom's atomics have no const constructor).
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU32::new(NOBODY))
    }

    /// There is work. True: nobody was there, and the caller has to send somebody or to call [`OnDuty::gone`]. False:
    /// somebody is there who will look at everything that was there before this call, or is being sent: where that
    /// fails ([`OnDuty::gone`]) the request is lost with it, and the next one asks again.
    #[must_use]
    pub fn ask(&self) -> bool {
        let mut state = self.0.load(Acquire);
        loop {
            let next = if state == NOBODY { THERE } else { ASKED };
            match self.0.compare_exchange(state, next, AcqRel, Acquire) {
                Ok(_) => return state == NOBODY,
                Err(now) => state = now,
            }
        }
    }

    /// The one who is there has found nothing and wants to leave. False: somebody has asked since, so it looks again.
    #[must_use]
    pub fn may_leave(&self) -> bool {
        if self
            .0
            .compare_exchange(THERE, NOBODY, AcqRel, Acquire)
            .is_ok()
        {
            return true;
        }
        self.0.swap(THERE, AcqRel);
        false
    }

    /// Nobody could be sent, or whoever was there is no more (in a fork child).
    pub fn gone(&self) {
        self.0.store(NOBODY, Release);
    }
}

impl Default for OnDuty {
    fn default() -> Self {
        Self::new()
    }
}
