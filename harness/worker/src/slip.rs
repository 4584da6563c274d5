//! Whether a thread that has waited for another one's block pauses before it goes on.
//!
//! Two threads that go on each other's heels pull every cache line to and fro; where the one behind lets the other get ahead, it finds many
//! blocks ready (Giacomoni et al., *FastForward for efficient pipeline parallelism*, PPoPP 2008: temporal slipping). Two that answer each
//! other wait for every block, however long they pause, and pauses only make both slower.

/// Blocks that must be ready after pauses, or they were made for nothing.
const WORTH: u32 = 8;
/// After pauses for nothing the next wait has none, after further ones twice as many each time, and so many at most.
const MOST_SKIPPED: u32 = 1024;

/// What a thread has learnt from its pauses.
#[derive(Default)]
pub struct Slip {
    /// Blocks that were ready since the last wait.
    ready: u32,
    /// The last wait had pauses after it.
    paused: bool,
    /// Waits that have none from here on, and how many that were after the last pauses for nothing.
    skip: u32,
    skipped: u32,
}

impl Slip {
    /// A block was ready.
    #[inline(always)]
    pub fn was_ready(&mut self) {
        self.ready = self.ready.wrapping_add(1);
    }

    /// Whether the wait that is over has pauses after it. `short`: the thread has not given its CPU up in it; where it has, the other
    /// one is ahead by that.
    pub fn pauses(&mut self, short: bool) -> bool {
        let ready = std::mem::take(&mut self.ready);
        if std::mem::take(&mut self.paused) {
            self.skipped = match ready {
                WORTH.. => 0,
                _ => (2 * self.skipped).clamp(1, MOST_SKIPPED),
            };
            self.skip = self.skipped;
        }
        if short {
            self.paused = self.skip == 0;
            self.skip = self.skip.saturating_sub(1);
        }
        self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses in so many waits, each with some blocks ready before it.
    fn pauses(slip: &mut Slip, waits: u32, ready: u32) -> u32 {
        (0..waits)
            .filter(|_| {
                (0..ready).for_each(|_| slip.was_ready());
                slip.pauses(true)
            })
            .count() as u32
    }

    #[test]
    fn pauses_stay_where_blocks_are_ready_after_them_and_all_but_end_where_none_is() {
        assert_eq!(pauses(&mut Slip::default(), 1000, 50), 1000);
        let slip = &mut Slip::default();
        // Waits without pauses between them: 1, 2, 4 … 1,024, 1,024 …
        let answering = pauses(slip, 100_000, 0);
        assert!((100..120).contains(&answering), "{answering}");
        // Who answers no longer, and has tried again, pauses at every wait.
        pauses(slip, MOST_SKIPPED + 1, 50);
        assert_eq!(pauses(slip, 1000, 50), 1000);
    }

    #[test]
    fn who_has_given_up_the_cpu_does_not_pause() {
        let slip = &mut Slip::default();
        assert!(!slip.pauses(false));
        assert!(slip.pauses(true));
        // What came of these pauses counts all the same.
        assert!(!slip.pauses(false) && !slip.pauses(true) && slip.pauses(true));
    }
}
