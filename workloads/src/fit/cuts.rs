//! Where a trace is cut into parts: where what it does changes, so that what comes one after the other in the program does so in the
//! model. A trace's beginning, in which a program builds what it keeps, is often a hundredth of its calls; in a part with what follows
//! it would be mixed with it. Where live sets go up and down all the time parts of equal length tell as much, and more of them.

use super::survey::{BINS, Slot, Survey};

/// Parts at most, and equal ones from and to.
const PARTS: usize = 24;
const EQUAL: (u64, u64) = (20, 26);
/// Parts of equal length that are cut further, so that none is long: what is said in a part is heard at its beginning only.
const FIRST: usize = 8;
/// Calls of a part at least.
const LEAST_CALLS: u64 = 500;
/// What a live set that is off its line by the whole peak weighs beside calls that are all others.
const LIVE_WEIGHT: f64 = 4.0;

/// The parts of a trace.
pub(super) struct Cuts {
    /// Calls until the end of each.
    ends: Vec<u64>,
}

impl Cuts {
    /// Parts of equal length, so many that one ends just after the peak.
    pub fn even(survey: &Survey) -> Self {
        let (calls, most) = (survey.calls, (survey.calls / LEAST_CALLS).clamp(1, EQUAL.1));
        // From the peak to the end of its part, in calls.
        let after = |parts: u64| {
            let reached = survey.peak_at as f64 / calls.max(1) as f64 * parts as f64;
            (reached.ceil() - reached) / parts as f64
        };
        let all = most.min(EQUAL.0)..=most;
        let best = all.rev().min_by(|&a, &b| after(a).total_cmp(&after(b)));
        let parts = best.unwrap_or(1);
        Self {
            ends: (1..=parts).map(|part| calls * part / parts).collect(),
        }
    }

    /// At most [`PARTS`] parts that are cut where what is done changes. One ends with the peak: a part is told by one level, and what
    /// falls after the peak in the same part would not be told.
    pub fn of(survey: &Survey) -> Self {
        let slots = Slots::of(survey);
        let least = LEAST_CALLS.div_ceil(survey.slot_calls.max(1)) as usize;
        let peak = survey.peak_at.div_ceil(survey.slot_calls.max(1)) as usize;
        let mut parts = first_parts(survey.slots.len(), peak, least);
        let mut cuts: Vec<_> = (parts.iter())
            .map(|&(begin, end)| slots.best_cut(begin, end, least))
            .collect();
        while parts.len() < PARTS {
            let found = (cuts.iter().enumerate())
                .filter_map(|(part, cut)| cut.map(|(gain, at)| (gain, part, at)))
                .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
            let Some((_, part, at)) = found.filter(|(gain, ..)| *gain > 0.0) else {
                break;
            };
            let (begin, end) = parts[part];
            parts.splice(part..=part, [(begin, at), (at, end)]);
            let both = [(begin, at), (at, end)];
            cuts.splice(
                part..=part,
                both.map(|(begin, end)| slots.best_cut(begin, end, least)),
            );
        }
        // Slots end after the peak, and the last one after the trace.
        let calls = |&(_, end): &(usize, usize)| match end == peak {
            true => survey.peak_at,
            false => (end as u64 * survey.slot_calls).min(survey.calls),
        };
        let mut ends: Vec<u64> = parts.iter().map(calls).collect();
        if let Some(last) = ends.last_mut() {
            *last = survey.calls;
        }
        ends.dedup();
        Self { ends }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The part of a call, and how much of it is over then. Calls come in order: `part` is that of the one before.
    pub fn find(&self, mut part: usize, call: u64) -> (usize, f64) {
        while part + 1 < self.ends.len() && call >= self.ends[part] {
            part += 1;
        }
        let begin = self.begin(part);
        let length = (self.ends[part] - begin).max(1);
        (part, (call - begin) as f64 / length as f64)
    }

    fn begin(&self, part: usize) -> u64 {
        part.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// Calls of each part.
    pub fn lengths(&self) -> impl Iterator<Item = u64> {
        (self.ends.iter().enumerate()).map(|(part, end)| end - self.begin(part))
    }

    /// Calls of a part as a share of all.
    pub fn share(&self, part: usize) -> f64 {
        let all = self.ends.last().copied().unwrap_or(0).max(1);
        (self.ends[part] - self.begin(part)) as f64 / all as f64
    }
}

/// Parts from slot to slot that are cut further: equal ones, of which one ends with the peak. None is shorter than `least`.
fn first_parts(count: usize, peak: usize, least: usize) -> Vec<(usize, usize)> {
    let mut ends: Vec<usize> = (1..FIRST).map(|part| count * part / FIRST).collect();
    ends.retain(|end| end.abs_diff(peak) > count / (2 * FIRST));
    ends.extend([peak, count]);
    // If the peak is in the last slot, an empty part follows it, for what the slot has after the peak.
    ends.sort_unstable();
    let mut parts = Vec::new();
    let mut begin = 0;
    for end in ends {
        if end == count || end - begin >= least && count - end >= least {
            parts.push((begin, end));
            begin = end;
        }
    }
    parts
}

/// What is done in the slots, as sums from the beginning: those of any part are the difference of two.
struct Slots {
    /// By slot: bytes alive in each bin, as parts of the peak.
    levels: Vec<[f64; BINS]>,
    /// By slot: sums of the levels, of their squares, and of the products with the slots' numbers.
    level_sums: Vec<[[f64; 3]; BINS]>,
    /// By slot: sums of the roots of the calls' shares (Hellinger), two for each bin.
    call_sums: Vec<[f64; 2 * BINS]>,
}

impl Slots {
    fn of(survey: &Survey) -> Self {
        let peak = survey.peak_bytes.max(1) as f64;
        let mut all = Self {
            levels: vec![[0.0; BINS]],
            level_sums: vec![[[0.0; 3]; BINS]],
            call_sums: vec![[0.0; 2 * BINS]],
        };
        for (number, Slot { levels, calls }) in survey.slots.iter().enumerate() {
            let levels = levels.map(|bytes| bytes as f64 / peak);
            let mut sums = *all.level_sums.last().unwrap_or(&[[0.0; 3]; BINS]);
            for (sums, level) in sums.iter_mut().zip(levels) {
                let more = [level, level * level, level * (number + 1) as f64];
                sums.iter_mut()
                    .zip(more)
                    .for_each(|(sum, more)| *sum += more);
            }
            let count: u64 = calls.iter().map(|&count| u64::from(count)).sum();
            let mut call_sums = *all.call_sums.last().unwrap_or(&[0.0; 2 * BINS]);
            for (sum, &calls) in call_sums.iter_mut().zip(calls) {
                *sum += (f64::from(calls) / count.max(1) as f64).sqrt();
            }
            all.levels.push(levels);
            all.level_sums.push(sums);
            all.call_sums.push(call_sums);
        }
        all
    }

    /// The cut of a part into two of at least `least` slots that brings most: how much, and where.
    fn best_cut(&self, begin: usize, end: usize, least: usize) -> Option<(f64, usize)> {
        let whole = self.apart(begin, end);
        (begin + least..(end + 1).saturating_sub(least))
            .map(|at| (whole - self.apart(begin, at) - self.apart(at, end), at))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
    }

    /// How far the slots of a part are from what is told of it: the mean of the calls, and the line between the live sets at its ends.
    fn apart(&self, begin: usize, end: usize) -> f64 {
        let length = (end - begin) as f64;
        if length < 1.0 {
            return 0.0;
        }
        // The roots of a slot's shares have squares that add up to one.
        let means = (self.call_sums[end].iter().zip(&self.call_sums[begin]))
            .map(|(to, from)| (to - from).powi(2))
            .sum::<f64>();
        let calls = length - means / length;
        let mut live = 0.0;
        let (first, last) = (begin as f64, end as f64);
        // Sums of the numbers of the slots and of their squares.
        let times = (first + 1.0 + last) * length / 2.0;
        let cubes = |n: f64| n * (n + 1.0) * (2.0 * n + 1.0) / 6.0;
        let times2 = cubes(last) - cubes(first);
        let ends = self.levels[begin].iter().zip(&self.levels[end]);
        let sums = self.level_sums[begin].iter().zip(&self.level_sums[end]);
        for ((from, to), (before, after)) in ends.zip(sums) {
            let slope = (to - from) / length;
            let base = from - slope * first;
            let [sum, squares, products] = [0, 1, 2].map(|what| after[what] - before[what]);
            live += squares + base * base * length + slope * slope * times2
                - 2.0 * base * sum
                - 2.0 * slope * products
                + 2.0 * base * slope * times;
        }
        calls + LIVE_WEIGHT * live.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(slots: Vec<Slot>, slot_calls: u64, peak_at: u64) -> Survey {
        Survey {
            calls: slots.len() as u64 * slot_calls,
            slots,
            slot_calls,
            peak_bytes: 1000,
            peak_at,
            ..Survey::default()
        }
    }

    fn slot(bin: usize, level: u64) -> Slot {
        let mut slot = Slot::default();
        slot.calls[2 * bin] = 1000;
        slot.levels[bin] = level;
        slot
    }

    #[test]
    fn cuts_are_where_something_changes() {
        // A beginning of 13 slots, one thing then, and another one from slot 307 on.
        let slots = (0..400).map(|at| match at {
            0..13 => slot(3, 100 * at / 13),
            13..307 => slot(7, 100),
            _ => slot(9, 100),
        });
        let cuts = Cuts::of(&survey(slots.collect(), 1000, 399_500));
        for change in [13_000, 307_000] {
            assert!(cuts.ends.contains(&change), "{:?}", cuts.ends);
        }
        assert_eq!(cuts.ends.last(), Some(&400_000));
        assert!(cuts.len() <= PARTS);
    }

    #[test]
    fn an_equal_part_ends_just_after_the_peak() {
        let all = |calls, peak_at| Survey {
            calls,
            peak_at,
            ..Survey::default()
        };
        assert_eq!(Cuts::even(&all(100, 50)).len(), 1);
        for peak_at in [77_000, 500_000, 834_000, 961_000, 999_999] {
            let parts = Cuts::even(&all(1_000_000, peak_at)).len();
            assert!((20..=26).contains(&parts));
            let after = 1.0 - ((peak_at - 1) as f64 / 1e6 * parts as f64).fract();
            assert!(after < 0.2, "{peak_at}: {after}, {parts} parts");
        }
    }

    #[test]
    fn a_part_ends_with_the_peak() {
        for peak_at in [700, 77_123, 200_000, 201_500, 399_100] {
            let slots = (0..400).map(|_| slot(5, 500)).collect();
            let cuts = Cuts::of(&survey(slots, 1000, peak_at));
            assert!(cuts.ends.contains(&peak_at), "{peak_at}: {:?}", cuts.ends);
            assert!(cuts.ends.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_line_that_is_followed_is_no_reason() {
        let rising: Vec<Slot> = (0..64).map(|at| slot(5, 10 * (at + 1))).collect();
        let apart = Slots::of(&survey(rising, 1000, 64_000)).apart(0, 64);
        assert!(apart.abs() < 1e-6, "{apart}");
        let saw: Vec<Slot> = (0..64).map(|at| slot(5, 500 * (at % 2))).collect();
        let apart = Slots::of(&survey(saw, 1000, 64_000)).apart(0, 64);
        assert!(apart > 1.0, "{apart}");
    }

    #[test]
    fn calls_find_their_parts() {
        let cuts = Cuts {
            ends: vec![10, 50, 100],
        };
        assert_eq!(cuts.find(0, 0), (0, 0.0));
        assert_eq!(cuts.find(0, 9), (0, 0.9));
        assert_eq!(cuts.find(0, 10), (1, 0.0));
        assert_eq!(cuts.find(0, 75), (2, 0.5));
        assert_eq!(cuts.find(2, 200).0, 2);
        assert_eq!(cuts.lengths().collect::<Vec<_>>(), [10, 40, 50]);
        assert_eq!(cuts.share(1), 0.4);
    }
}
