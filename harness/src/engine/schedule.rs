//! Which streams get another block: those whose intervals are not narrow yet, as long as there is time.

use super::{Drive, Repetition};
use crate::plan::{self, Kind};
use heaplab_reports::schema::Sample;
use heaplab_reports::stats;
use std::time::Duration;

/// No stream grows beyond this; what has not settled by then will not.
pub const MOST_BLOCKS: u32 = 60;
/// Half the width of a paired interval that counts as narrow: speed and programs, memory and counts.
const NARROW_TIME: f64 = 0.02;
const NARROW_BYTES: f64 = 0.01;

/// One measure of one comparison while it grows.
pub(super) struct Stream {
    pub(super) comparison: usize,
    pub(super) kind: Kind,
    pub(super) blocks: u32,
    pub(super) cost: Duration,
    /// Figures by subject, for the width of the intervals.
    pub(super) samples: Vec<Vec<Sample>>,
}

impl Drive<'_> {
    /// The streams that get another block in this round, in random order.
    pub(super) fn due(&self, streams: &mut [Stream], round: u32) -> Vec<usize> {
        let mut due: Vec<usize> = match self.repetition {
            Repetition::Blocks(n) => (0..streams.len())
                .filter(|i| streams[*i].blocks < self.blocks_of(&streams[*i], n))
                .collect(),
            Repetition::Budget(limit) => self.affordable(streams, limit, limit),
            Repetition::Usual(limit) => {
                self.affordable(streams, limit, limit * Repetition::STRETCH)
            }
        };
        plan::shuffle_round(self.seed, round, &mut due);
        due
    }

    /// The streams that want another block and get it before `limit`, or before `stretched` while they have too few for an interval.
    fn affordable(&self, streams: &[Stream], limit: Duration, stretched: Duration) -> Vec<usize> {
        let mut wanting: Vec<usize> = (0..streams.len())
            .filter(|i| self.wants(&streams[*i]))
            .collect();
        // Those with the fewest blocks first; of equals, speed first: it needs the most blocks.
        wanting.sort_by_key(|i| (streams[*i].blocks, streams[*i].kind, *i));
        let mut time = (self.clock)();
        wanting.retain(|i| {
            let stream = &streams[*i];
            let least = self.blocks_of(stream, self.least_blocks);
            let end = match (stream.blocks as usize) < stats::MIN_BLOCKS {
                true => stretched,
                false => limit,
            };
            let fits = stream.blocks < least || time + stream.cost <= end;
            if fits {
                time += stream.cost;
            }
            fits
        });
        wanting
    }

    /// How many blocks of a stream `wanted` are: a tail is looked at once.
    pub(super) fn blocks_of(&self, stream: &Stream, wanted: u32) -> u32 {
        match stream.kind {
            Kind::Idle => wanted.min(1),
            _ => wanted,
        }
    }

    fn wants(&self, stream: &Stream) -> bool {
        if stream.blocks < self.blocks_of(stream, self.least_blocks) {
            return true;
        }
        let limit = match stream.kind {
            Kind::Idle => return false,
            // Histograms of three blocks hold more calls than any percentile needs.
            Kind::Latency => return false,
            Kind::Speed | Kind::Program => NARROW_TIME,
            Kind::Memory | Kind::Counts => NARROW_BYTES,
        };
        stream.blocks < MOST_BLOCKS && !self.narrow(stream, limit)
    }

    /// Whether every subject's interval is narrow: of the ratio to the baseline where there is one, else of its own
    /// median. Subjects without figures (failed) do not hold up the others.
    fn narrow(&self, stream: &Stream, limit: f64) -> bool {
        let base = self
            .baseline
            .map(|b| &stream.samples[b])
            .filter(|b| !b.is_empty());
        stream
            .samples
            .iter()
            .enumerate()
            .filter(|(_, s)| !s.is_empty())
            .all(|(at, samples)| match base {
                Some(base) if self.baseline != Some(at) => stats::paired_ratio(samples, base)
                    .and_then(|r| stats::detectable(&r))
                    .is_some_and(|width| width <= limit),
                Some(_) if stream.samples.iter().filter(|s| !s.is_empty()).count() > 1 => true,
                _ => stats::summarise(samples).is_some_and(|i| {
                    samples.len() >= stats::MIN_BLOCKS
                        && (i.high - i.low) / 2.0 <= limit * i.median.abs()
                }),
            })
    }

    pub(super) fn expected(&self, streams: &[Stream], due: &[usize]) -> u64 {
        let so_far: u64 = streams.iter().map(|s| u64::from(s.blocks)).sum();
        let to_come = match self.repetition {
            Repetition::Blocks(n) => streams
                .iter()
                .map(|s| u64::from(self.blocks_of(s, n).saturating_sub(s.blocks)))
                .sum(),
            Repetition::Budget(_) | Repetition::Usual(_) => {
                let least: u64 = streams
                    .iter()
                    .map(|s| {
                        let least = self.blocks_of(s, self.least_blocks);
                        u64::from(least.saturating_sub(s.blocks))
                    })
                    .sum();
                least.max(due.len() as u64)
            }
        };
        (so_far + to_come) * self.subjects.len() as u64
    }
}
