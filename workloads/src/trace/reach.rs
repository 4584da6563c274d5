//! How much of a trace's large blocks is written, and when.
//!
//! A recording says what is written of a block when its life ends. When it was written is known of blocks that grow: a program
//! asks for more when a block is full, so that what a resize added is written between it and the next one, and what the last
//! one added, as far as it can be told, at the speed of the one before. Of all other blocks it is not known: they count as
//! written when they are allocated. An allocator that gives back by the clock has given back what a vector left behind by
//! the time that its new place is full (sqlite3 on mimalloc).

use super::event::{Effect, TICK_NS};
use super::reader::Trace;
use crate::error::WorkloadError;
use std::collections::HashMap;

/// Smaller blocks are never told of.
const SEEN_BYTES: u64 = heaplab_ring::EARLY_BYTES as u64;
/// What a resize added counts as written at once when it is less, bytes.
const FILLED_BYTES: u64 = 64 << 10;
/// Or when it was written in less, ns.
const FILLED_NS: u64 = 100_000;

/// What is written of a block since its allocation or resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Its first bytes.
    pub bytes: u64,
    /// Of these the first, at once.
    pub at_once: u64,
    /// The others little by little in so long; 0: at once as well.
    pub over_ns: u64,
}

/// A large block that is alive.
struct Large {
    /// Number of its allocation or last resize, and its time.
    number: u64,
    tick: u64,
    size: u64,
    /// Bytes that it had before.
    before: u64,
    /// Nanoseconds for a byte when it grew before.
    pace: Option<f64>,
    /// Births that no sight has come for, and their bytes.
    unseen: Vec<(u64, u64)>,
}

/// By the number of an allocation or resize, where it is not all of the block at once; when something is written only where
/// the replay is `timed`. Resizes between two sights count as the next one.
pub(super) fn of(trace: &Trace, timed: bool) -> Result<HashMap<u64, Reach>, WorkloadError> {
    let mut all = HashMap::new();
    if trace.summary().written_blocks == 0 && !timed {
        return Ok(all);
    }
    let mut alive: HashMap<u32, Large> = HashMap::new();
    let mut last = 0;
    for (number, event) in (0u64..).zip(trace.events()) {
        let event = event?;
        last = event.tick;
        let (block, size) = (event.block, event.size);
        let effect = event.kind.effect();
        match effect {
            Effect::Alloc if size >= SEEN_BYTES => {
                alive.insert(block, Large::new(number, last, size));
            }
            Effect::Resize if size >= SEEN_BYTES => {
                let mut next = Large::new(number, last, size);
                if let Some(large) = alive.remove(&block) {
                    if size > large.size {
                        next.before = large.size;
                        next.pace = large.filled(last.saturating_sub(large.tick), timed, &mut all);
                    } else {
                        large.ended(last, timed, &mut all);
                    }
                    next.unseen.splice(0..0, large.unseen);
                }
                alive.insert(block, next);
            }
            Effect::Told => {
                let births = alive
                    .get_mut(&block)
                    .map(|large| std::mem::take(&mut large.unseen));
                for (birth, of) in births.unwrap_or_default() {
                    // A later sight of the same block starts from its last birth.
                    if size < of {
                        see(&mut all, birth, size);
                    }
                }
            }
            Effect::Free | Effect::Resize => {
                if let Some(large) = alive.remove(&block) {
                    large.ended(last, timed, &mut all);
                }
            }
            Effect::Alloc | Effect::None => {}
        }
    }
    for large in alive.into_values() {
        large.ended(last, timed, &mut all);
    }
    Ok(all)
}

/// Only so much was written of it.
fn see(all: &mut HashMap<u64, Reach>, birth: u64, bytes: u64) {
    let reach = all.entry(birth).or_insert(Reach {
        bytes,
        at_once: bytes,
        over_ns: 0,
    });
    reach.bytes = bytes;
    reach.at_once = match reach.over_ns {
        0 => bytes,
        _ => reach.at_once.min(bytes),
    };
}

impl Large {
    fn new(number: u64, tick: u64, size: u64) -> Self {
        Self {
            number,
            tick,
            size,
            before: size,
            pace: None,
            unseen: vec![(number, size)],
        }
    }

    /// What its resize added was written in so many ticks; the pace.
    fn filled(&self, ticks: u64, timed: bool, all: &mut HashMap<u64, Reach>) -> Option<f64> {
        let (added, ns) = (self.size - self.before, ticks.saturating_mul(TICK_NS));
        if added == 0 {
            return None;
        }
        if timed && added >= FILLED_BYTES && ns >= FILLED_NS {
            let reach = all.entry(self.number).or_insert(Reach {
                bytes: self.size,
                at_once: self.size,
                over_ns: 0,
            });
            reach.at_once = self.before.min(reach.bytes);
            reach.over_ns = ns;
        }
        Some(ns as f64 / added as f64)
    }

    /// It grows no more.
    fn ended(&self, tick: u64, timed: bool, all: &mut HashMap<u64, Reach>) {
        if let Some(pace) = self.pace {
            let most = tick.saturating_sub(self.tick);
            let ticks = (pace * (self.size - self.before) as f64 / TICK_NS as f64) as u64;
            self.filled(ticks.min(most), timed, all);
        }
    }
}
