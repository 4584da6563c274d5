//! The instant at which most memory was resident.

/// Instants within one part in so many of the highest resident bytes count as the highest.
const NEARLY: u64 = 20;

/// What was there at one instant, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instant {
    /// Anonymous resident.
    pub resident: u64,
    /// Requested and alive.
    pub live: u64,
    /// `malloc_usable_size` of what is alive.
    pub usable: u64,
    /// Of the live bytes those that are never written.
    pub unwritten: u64,
}

/// The peak so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    /// The highest resident bytes.
    pub resident: u64,
    /// The instant that stands for the peak: of those with nearly as much resident the one with the most alive. An allocator that
    /// gives nothing back has its last pages, in which it notes what is free, when the program has freed nearly all; what the memory was needed for is
    /// seen before.
    pub instant: Instant,
}

impl Peak {
    /// Takes one more instant into account.
    pub fn look(&mut self, now: Instant) {
        self.resident = self.resident.max(now.resident);
        let floor = self.resident - self.resident / NEARLY;
        let fits = |instant: &Instant| instant.resident >= floor;
        if fits(&now) && (!fits(&self.instant) || now.live > self.instant.live) {
            self.instant = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peak(instants: &[(u64, u64)]) -> Peak {
        let mut peak = Peak::default();
        for &(resident, live) in instants {
            peak.look(Instant {
                resident,
                live,
                ..Instant::default()
            });
        }
        peak
    }

    #[test]
    fn a_last_page_after_everything_was_freed_does_not_move_the_peak() {
        let peak = peak(&[(500, 400), (1000, 900), (1040, 3)]);
        assert_eq!(peak.resident, 1040);
        assert_eq!((peak.instant.resident, peak.instant.live), (1000, 900));
    }

    #[test]
    fn a_peak_that_is_higher_by_more_is_the_peak_however_little_lives() {
        let peak = peak(&[(1000, 900), (1100, 3), (1095, 50), (1000, 890)]);
        assert_eq!(peak.resident, 1100);
        assert_eq!((peak.instant.resident, peak.instant.live), (1095, 50));
    }

    #[test]
    fn small_steps_upwards_do_not_leave_the_instant_behind() {
        let steps: Vec<(u64, u64)> = (0..100)
            .map(|step| (10_000 + 50 * step, 9_000 - step))
            .collect();
        let peak = peak(&steps);
        assert_eq!(peak.resident, 14_950);
        assert!(peak.instant.resident >= 14_200, "{peak:?}");
    }
}
