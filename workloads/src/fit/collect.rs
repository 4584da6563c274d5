//! One pass over a trace: what each role does in each phase, by class of size.

use super::distribution::Counts;
use super::roles::Roles;
use crate::error::WorkloadError;
use crate::trace::{Effect, EventKind, Trace};

/// Upper bounds of the classes of sizes, bytes; the last one takes the rest. Small ones go through thread caches, medium ones
/// through spans, large ones come from pages or the system. The
/// largest have classes of their own because a few of them decide about the peak, and one that grows passes through them.
pub(super) const CLASSES: [u64; 8] = [64, 256, 1024, 8192, 131_072, 1 << 20, 1 << 23, u64::MAX];

/// Blocks of a class that a role allocates in a phase.
#[derive(Clone, Default)]
pub(super) struct Cell {
    pub sizes: Counts,
    pub calloc: u64,
    /// log2 of the alignments asked for.
    pub aligned: Counts,
    /// Resizes in its phase, of its blocks and of older ones of the class.
    pub resizes: u64,
    /// Ages of those that died in the phase by a thread of their role.
    pub ages: Counts,
    /// Deaths by another thread of the role; by threads of other roles.
    pub remote_same: u64,
    pub remote_other: Vec<u64>,
    /// Deaths in later phases: number of the phase at whose beginning they happen in the model.
    pub dropped: Vec<u64>,
}

impl Cell {
    fn new(roles: usize, phases: usize) -> Self {
        Self {
            remote_other: vec![0; roles],
            dropped: vec![0; phases + 1],
            ..Self::default()
        }
    }

    /// Adds another class's blocks.
    pub fn append(&mut self, other: &Self) {
        self.sizes.append(&other.sizes);
        self.aligned.append(&other.aligned);
        self.ages.append(&other.ages);
        self.calloc += other.calloc;
        self.resizes += other.resizes;
        self.remote_same += other.remote_same;
        let add = |mine: &mut Vec<u64>, theirs: &Vec<u64>| {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        };
        add(&mut self.remote_other, &other.remote_other);
        add(&mut self.dropped, &other.dropped);
    }

    /// Calls of the role in the phase that are this group's.
    pub fn calls(&self) -> u64 {
        self.sizes.count + self.ages.count + self.resizes
    }
}

pub(super) struct Collected {
    pub phases: usize,
    /// By role, phase, class.
    pub cells: Vec<Vec<Vec<Cell>>>,
    /// Calls of each phase, drops included.
    pub calls: Vec<u64>,
    /// Calls that a thread makes in a row, by role, in proportion to its calls in all: a round of the model has one turn of
    /// each thread.
    pub burst: Vec<u64>,
    /// Blocks of other roles that wait for a free by this one, on average over the trace (Little's law: the sum of the waits
    /// over the length).
    pub waiting: Vec<u64>,
    /// Of the blocks that are told.
    pub peak_bytes: u64,
}

#[derive(Clone, Copy)]
struct Born {
    role: u32,
    phase: u32,
    class: u32,
    count: u64,
    /// Event of the trace.
    event: u64,
}

const NOBODY: u32 = u32::MAX;

fn class_of(size: u64) -> usize {
    CLASSES.iter().position(|&most| size <= most).unwrap_or(0)
}

pub(super) fn collect(
    trace: &Trace,
    roles: &Roles,
    phases: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Collected, WorkloadError> {
    let total = trace.summary().events.max(1);
    let count = roles.roles.len();
    let mut cells = vec![vec![vec![Cell::new(count, phases); CLASSES.len()]; phases]; count];
    let mut calls = vec![0u64; phases];
    let mut births = vec![[0u64; CLASSES.len()]; roles.of.len()];
    let mut born: Vec<Born> = Vec::new();
    let (mut live, mut peak_bytes) = (0u64, 0u64);
    let mut waits = vec![0u64; count];
    let (mut runs, mut in_runs) = (vec![0u64; count], vec![0u64; count]);
    let (mut phase, mut last_thread) = (0usize, u32::MAX);
    let mut events = trace.events();
    let mut number = 0u64;
    while let Some(next) = events.next_with_block() {
        let (event, block) = next?;
        let place = number as f64 / total as f64 * phases as f64;
        let now = (place as usize).min(phases - 1);
        if now != phase {
            phase = now;
            births.fill([0; CLASSES.len()]);
        }
        number += 1;
        if number.is_multiple_of(1 << 17) {
            progress(number, total);
        }
        let index = event.block as usize;
        let effect = event.kind.effect();
        let role = roles.of[event.thread as usize];
        if effect == Effect::Alloc {
            if index >= born.len() {
                born.resize(
                    index + 1,
                    Born {
                        role: NOBODY,
                        phase: 0,
                        class: 0,
                        count: 0,
                        event: 0,
                    },
                );
            }
            born[index].role = NOBODY;
        }
        let Some(role) = role else {
            continue;
        };
        if effect != Effect::None {
            if event.thread != last_thread {
                runs[role] += 1;
                last_thread = event.thread;
            }
            in_runs[role] += 1;
        }
        match effect {
            Effect::None => {}
            Effect::Alloc => {
                let class = class_of(event.size);
                let births = &mut births[event.thread as usize][class];
                *births += 1;
                born[index] = Born {
                    role: role as u32,
                    phase: phase as u32,
                    class: class as u32,
                    count: *births,
                    event: number,
                };
                let cell = &mut cells[role][phase][class];
                cell.sizes.add(event.size);
                cell.calloc += u64::from(event.kind == EventKind::Calloc);
                if event.align_log2 > 4 {
                    cell.aligned.add(u64::from(event.align_log2));
                }
                calls[phase] += 1;
                live += event.size;
                peak_bytes = peak_bytes.max(live);
            }
            Effect::Resize | Effect::Free => {
                let from = born[index];
                if from.role == NOBODY {
                    continue;
                }
                let (owner, first) = (from.role as usize, from.phase as usize);
                let class = class_of(event.size);
                if effect == Effect::Resize {
                    live = live + event.size - block.size;
                    peak_bytes = peak_bytes.max(live);
                    if class == from.class as usize {
                        // Of an older block too: the group of the present phase stands for it.
                        cells[owner][phase][class].resizes += 1;
                        calls[phase] += 1;
                        continue;
                    }
                    // A block that grows into another class is one of that class from now on, and the old one is gone.
                    let births = &mut births[block.thread as usize][class];
                    *births += 1;
                    born[index] = Born {
                        phase: phase as u32,
                        class: class as u32,
                        count: *births,
                        ..from
                    };
                    cells[owner][phase][class].sizes.add(event.size);
                    calls[phase] += 1;
                } else {
                    live -= event.size;
                }
                let cell = &mut cells[owner][first][from.class as usize];
                calls[phase] += 1;
                let same = owner == role;
                if same && event.thread != block.thread {
                    cell.remote_same += 1;
                }
                let age = births[block.thread as usize][from.class as usize];
                if !same {
                    cell.remote_other[role] += 1;
                    waits[role] += number - from.event;
                } else if first == phase {
                    cell.ages.add(age.saturating_sub(from.count).max(1));
                } else {
                    // Drops happen at beginnings of phases: at the nearest one.
                    let nearest = if place.fract() < 0.5 {
                        phase
                    } else {
                        phase + 1
                    };
                    cell.dropped[nearest] += 1;
                }
            }
        }
    }
    let threads = |role: usize| roles.roles[role].threads.len().max(1) as u64;
    // As many rounds as the thread with the most turns needs.
    let rounds = (0..count).map(|role| runs[role] / threads(role)).max();
    let rounds = rounds.unwrap_or(1).max(1);
    let burst = (0..count).map(|role| (in_runs[role] / threads(role) / rounds).max(1));
    Ok(Collected {
        phases,
        cells,
        calls,
        burst: burst.collect(),
        waiting: waits.iter().map(|wait| wait / total).collect(),
        peak_bytes,
    })
}
