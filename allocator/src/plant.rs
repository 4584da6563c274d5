//! Mistakes that a loom model's control plants in the code that it models, to show that the model would notice them.
//! Without `cfg(loom)` there are none, at no cost.

/// A mistake in the order of a protocol's steps.
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
}

/// Whether the code shall make this mistake.
#[cfg(not(loom))]
#[inline(always)]
#[must_use]
pub const fn planted(_: Plant) -> bool {
    false
}

#[cfg(loom)]
std::thread_local! {
    /// All threads of a model are on one thread of the system.
    static PLANTED: core::cell::Cell<Option<Plant>> = const { core::cell::Cell::new(None) };
}

/// Whether the code shall make this mistake.
#[cfg(loom)]
#[must_use]
pub fn planted(plant: Plant) -> bool {
    PLANTED.get() == Some(plant)
}

/// What models of the calling thread's shall make, none at first.
#[cfg(loom)]
pub fn plant(plant: Option<Plant>) {
    PLANTED.set(plant);
}
