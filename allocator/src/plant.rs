//! Mistakes that the control of a loom model or of a test plants in the code, to show that the model or test would notice them.
//! Elsewhere there are none, at no cost.

/// A mistake: mostly in the order of a protocol's steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// `registry`: a thread that answers a call overwrites its slot without looking what is in it.
    AnswerBlindly,
    /// `registry`: it empties its cache first and puts it back into its slot then.
    EmptyFirst,
    /// `registry`: it says that it has emptied its cache before it has.
    FollowedEarly,
    /// `registry`: what its slot shall name is found out before the call is taken.
    ChooseFirst,
    /// `page_map`: the heap's length is published before its new part is mapped.
    LengthFirst,
    /// `page_map`: the length is published without the mapping before it.
    LengthRelaxed,
    /// `page_map`: look-ups read the length without what was mapped before.
    LookUpRelaxed,
    /// `sync`: who was woken takes the lock as if nobody else slept.
    SleepersForgotten,
    /// `sync`: the lock is given back without what was written under it.
    ReleaseRelaxed,
    /// `transfer_cache`: a class's further shards are named before they are there.
    ShardsRelaxed,
    /// `published`: what another thread has made while one waited for the lock is made again.
    NotLookedAgain,
    /// `published`: it is named without what was written into it.
    NamedRelaxed,
    /// `continued`: the page map goes on showing the class of a span with joined objects.
    ClassStaysShown,
    /// `continued`: the objects that follow the first one of a block are not marked.
    FollowersUnmarked,
    /// `continued`: the class is shown again while another block of several objects is out.
    ShownEarly,
    /// `page_heap`: pages that the system did not take back are taken for zero.
    RefusalOverlooked,
    /// `thread`: a fork leaves out the lock of the page heap.
    LockLeftOut,
}

/// Whether the code shall make this mistake.
#[cfg(not(any(loom, test)))]
#[inline(always)]
#[must_use]
pub const fn planted(_: Plant) -> bool {
    false
}

#[cfg(any(loom, test))]
std::thread_local! {
    /// All threads of a model are on one thread of the system; a test's mistake is its own thread's.
    static PLANTED: core::cell::Cell<Option<Plant>> = const { core::cell::Cell::new(None) };
}

/// Whether the code shall make this mistake.
#[cfg(any(loom, test))]
#[must_use]
pub fn planted(plant: Plant) -> bool {
    PLANTED.get() == Some(plant)
}

/// What models and tests of the calling thread's shall make, none at first.
#[cfg(any(loom, test))]
pub fn plant(plant: Option<Plant>) {
    PLANTED.set(plant);
}
