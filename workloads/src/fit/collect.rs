//! Second pass: what each role does with each class of sizes, part by part of the trace.

use super::asked::Asked;
use super::classes::Classes;
use super::cuts::Cuts;
use super::distribution::{Counts, MOST};
use super::extent::Extent;
use super::roles::Roles;
use super::spread::Spread;
use super::surprise::Surprise;
use super::survey::{Grown, Survey};
use super::waves::Wave;
use crate::chain::Chain;
use crate::compile::{Action, Source};
use crate::error::WorkloadError;
use crate::model::definition::{By, Deed, Way};
use heaplab_script::OpKind;

/// A death among so many of the newest counts as near them.
const NEAR: u32 = 64;
/// A rank below this is told as it is.
const FEW: u32 = 16;
/// One within so many steps of the last is its neighbour.
const NEIGHBOURS: u32 = 8;

/// What was alive comes back when there is so much of it again.
const BACK: f64 = 1.1;

/// Calls of a role that are remembered in each part.
const REMEMBERED: u64 = 40_000;

/// A thread's call for a block of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Said {
    pub deed: Deed,
    pub class: u8,
    pub part: u8,
    /// Bytes of an allocation of a block that keeps its size; of a free how many are younger, where these are few; 0 else.
    pub size: u32,
}

/// What is alive of a class.
#[derive(Clone, Copy, Default)]
pub(super) struct Alive {
    pub blocks: u64,
    pub bytes: u64,
    /// Blocks of which only a part was written.
    pub partly: Partly,
}

/// Blocks of which only a part was written.
#[derive(Clone, Copy, Default)]
pub(super) struct Partly {
    /// Their sizes and how much of them was written, bytes.
    pub bytes: u64,
    pub written: u64,
}

impl Partly {
    fn add(&mut self, extent: Extent) {
        if let Some(written) = extent.partly {
            self.bytes += extent.size;
            self.written += written;
        }
    }

    fn remove(&mut self, extent: Extent) {
        if let Some(written) = extent.partly {
            self.bytes -= extent.size;
            self.written -= written;
        }
    }
}

/// Blocks of a class that a role allocates.
#[derive(Clone, Default)]
pub(super) struct Cell {
    /// Sizes when they are allocated; of those that grow the largest.
    pub sizes: Counts,
    pub calloc: u64,
    /// Allocations of which only a part is written, and the bytes of all.
    pub partly: Partly,
    pub bytes: u64,
    /// log2 of the alignments asked for.
    pub aligned: Counts,
    pub resizes: u64,
    /// Deaths by recency, in the order of `Lifetime::recencies`.
    pub deaths: [u64; 6],
    /// Ranks of those near the newest.
    pub ranks: Counts,
    /// How often deaths followed an allocation.
    pub reversals: u64,
    /// How often a thread of the role turned to this class.
    pub turns: u64,
    /// Deaths by other threads, by role.
    pub remote: Vec<u64>,
    /// Of those that grow: first sizes, and the natural logarithms of the factors by which they grew.
    pub first: Counts,
    pub growth: (f64, u64),
    /// By part: calls of the role's own threads.
    pub calls: Vec<u64>,
    /// By part: blocks that began and that died.
    pub moves: Vec<(u64, u64)>,
    /// By part: what is alive when most bytes are alive in all, and at its end.
    pub alive: Vec<Alive>,
    pub left: Vec<Alive>,
    /// By part: how many blocks the threads had at their calls.
    pub waves: Vec<Wave>,
}

pub(super) struct Collected {
    /// By role, class.
    pub cells: Vec<Vec<Cell>>,
    /// Calls that a thread makes in a row, by role, in proportion to its calls in all: a round of the model has one turn of
    /// each thread.
    pub burst: Vec<u64>,
    pub calls: u64,
    /// Of the blocks that are told, and the part in which it is reached.
    pub peak_bytes: u64,
    pub peak_part: usize,
    /// By part: largest sum of bytes alive, and that at its end.
    pub levels: Vec<(u64, u64)>,
    /// By thread: what it did, from the beginning of each part on.
    pub said: Vec<Vec<Said>>,
    /// How well the next call was known.
    pub surprise: Surprise,
    pub spread: Spread,
    pub asked: Asked,
}

#[derive(Clone, Copy)]
struct Born {
    /// `NOBODY`: not of any role.
    thread: u32,
    class: u32,
    place: u32,
    extent: Extent,
    most: u64,
}

const NOBODY: u32 = u32::MAX;

/// What a thread has of a class.
struct Set {
    /// Numbers of blocks.
    chain: Chain<u32>,
    falling: bool,
}

struct Collector<'a> {
    roles: &'a Roles,
    classes: &'a Classes,
    cells: Vec<Vec<Cell>>,
    /// By thread, class.
    sets: Vec<Vec<Set>>,
    born: Vec<Born>,
    /// By role and class.
    alive: Vec<Vec<Alive>>,
    /// Class that each thread dealt with last.
    last_class: Vec<usize>,
    /// By thread: how much is written of what its next event allocates.
    reach: Vec<Option<u64>>,
    said: Vec<Vec<Said>>,
    /// Calls of each role that were remembered in this part.
    remembered: Vec<u64>,
    part: usize,
    /// Share of the part that is over.
    progress: f64,
    live: u64,
    levels: Vec<(u64, u64)>,
    /// Largest in the part.
    most: u64,
    risen: bool,
    peak: u64,
    peak_part: usize,
    calls: u64,
    surprise: Surprise,
    spread: Spread,
    asked: Asked,
}

pub(super) fn collect<S: Source>(
    source: &mut S,
    survey: &Survey,
    roles: &Roles,
    classes: &Classes,
    cuts: &Cuts,
    progress: &mut dyn FnMut(u64),
) -> Result<Collected, WorkloadError> {
    let (count, parts) = (roles.threads.len(), cuts.len());
    let cell = Cell {
        remote: vec![0; count],
        calls: vec![0; parts],
        moves: vec![(0, 0); parts],
        alive: vec![Alive::default(); parts],
        left: vec![Alive::default(); parts],
        waves: vec![Wave::default(); parts],
        ..Cell::default()
    };
    let set = || Set {
        chain: Chain::new(),
        falling: false,
    };
    let mut all = Collector {
        roles,
        classes,
        cells: vec![vec![cell; classes.len()]; count],
        sets: (0..roles.of.len())
            .map(|_| (0..classes.len()).map(|_| set()).collect())
            .collect(),
        born: Vec::new(),
        alive: vec![vec![Alive::default(); classes.len()]; count],
        last_class: vec![usize::MAX; roles.of.len()],
        reach: vec![None; roles.of.len()],
        said: vec![Vec::new(); roles.of.len()],
        remembered: vec![0; count],
        part: 0,
        progress: 0.0,
        live: 0,
        levels: vec![(0, 0); parts],
        most: 0,
        risen: false,
        peak: 0,
        peak_part: 0,
        calls: 0,
        surprise: Surprise::default(),
        spread: Spread::default(),
        asked: Asked::default(),
    };
    let (mut number, mut allocations) = (0u64, 0u64);
    let (mut runs, mut in_runs) = (vec![0u64; count], vec![0u64; count]);
    let mut last_thread = u32::MAX;
    source.tell(|event| {
        if let Action::Written { bytes, .. } = event.action {
            all.reach[event.thread as usize] = Some(bytes);
        }
        if !matches!(
            event.action,
            Action::Alloc { .. } | Action::Realloc { .. } | Action::Free { .. }
        ) {
            return Ok(());
        }
        let (part, over) = cuts.find(all.part, number);
        all.enter(part);
        all.progress = over;
        number += 1;
        if number.is_multiple_of(1 << 18) {
            progress(number);
        }
        let grown = match event.action {
            Action::Alloc { .. } => {
                allocations += 1;
                survey.grown.get(&(allocations - 1)).map(Grown::bin)
            }
            _ => None,
        };
        let role = roles.of[event.thread as usize];
        if let Some(role) = role {
            if event.thread != last_thread {
                runs[role] += 1;
                last_thread = event.thread;
            }
            in_runs[role] += 1;
        }
        all.take(event.thread, role, event.action, grown);
        Ok(())
    })?;
    all.leave();
    all.measure_survivors();
    let threads = |role: usize| roles.threads[role].len().max(1) as u64;
    // As many rounds as the thread with the most turns needs.
    let rounds = (0..count).map(|role| runs[role] / threads(role)).max();
    let rounds = rounds.unwrap_or(1).max(1);
    let burst = (0..count).map(|role| (in_runs[role] / threads(role) / rounds).max(1));
    Ok(Collected {
        burst: burst.collect(),
        calls: all.calls,
        peak_bytes: all.peak,
        peak_part: all.peak_part,
        levels: all.levels,
        cells: all.cells,
        said: all.said,
        surprise: all.surprise,
        spread: all.spread,
        asked: all.asked,
    })
}

impl Collected {
    /// Whether what is alive falls in a part and does not come back: its end tells it then, and not its peak.
    pub fn falls(&self, part: usize) -> bool {
        let (most, left) = self.levels[part];
        let later = self.levels[part + 1..].iter().map(|(most, _)| *most).max();
        part != self.peak_part
            && left < most
            && later.is_none_or(|later| later as f64 <= BACK * left as f64)
    }
}

impl Collector<'_> {
    fn enter(&mut self, part: usize) {
        if part != self.part {
            self.leave();
            self.part = part;
            self.remembered.fill(0);
            self.most = self.live;
            self.risen = true;
        }
    }

    /// The part is over.
    fn leave(&mut self) {
        self.snapshot();
        self.levels[self.part] = (self.most, self.live);
        for (cells, alive) in self.cells.iter_mut().zip(&self.alive) {
            for (cell, alive) in cells.iter_mut().zip(alive) {
                cell.left[self.part] = *alive;
            }
        }
    }

    /// What was alive at the part's peak so far, which is over now.
    fn snapshot(&mut self) {
        if !std::mem::take(&mut self.risen) {
            return;
        }
        for (cells, alive) in self.cells.iter_mut().zip(&self.alive) {
            for (cell, alive) in cells.iter_mut().zip(alive) {
                cell.alive[self.part] = *alive;
            }
        }
    }

    /// A block's bytes change; a negative count of blocks is a death.
    fn change(&mut self, role: usize, class: usize, before: Extent, after: Extent, blocks: i64) {
        let (from, to) = (before.size, after.size);
        if to < from {
            self.snapshot();
        }
        self.spread.change(before, after);
        let alive = &mut self.alive[role][class];
        alive.partly.add(after);
        alive.partly.remove(before);
        alive.blocks = alive.blocks.wrapping_add_signed(blocks);
        alive.bytes = alive.bytes - from + to;
        self.live = self.live - from + to;
        if self.live > self.most {
            self.most = self.live;
            self.risen = true;
        }
        if self.live > self.peak {
            self.peak = self.live;
            self.peak_part = self.part;
        }
    }

    /// A call of a thread for one of its own blocks.
    fn own_call(&mut self, thread: u32, role: usize, class: usize, deed: Deed, size: u64) {
        self.calls += 1;
        if self.remembered[role] < REMEMBERED {
            self.remembered[role] += 1;
            self.said[thread as usize].push(Said {
                deed,
                class: class as u8,
                part: self.part as u8,
                size: size.min(MOST) as u32,
            });
        }
        let cell = &mut self.cells[role][class];
        cell.calls[self.part] += 1;
        let level = self.sets[thread as usize][class].chain.len();
        cell.waves[self.part].add(self.progress, level as f64);
        let last = &mut self.last_class[thread as usize];
        cell.turns += u64::from(*last != class);
        *last = class;
    }

    fn take(&mut self, thread: u32, role: Option<usize>, action: Action, grown: Option<u8>) {
        let reach = self.reach[thread as usize].take();
        if role.is_some() {
            self.hear(thread, action);
        }
        match action {
            Action::Alloc {
                kind,
                block,
                size,
                align_log2,
            } => {
                let index = block as usize;
                let nobody = Born {
                    thread: NOBODY,
                    class: 0,
                    place: 0,
                    extent: Extent::NONE,
                    most: size,
                };
                if index >= self.born.len() {
                    self.born.resize(index + 1, nobody);
                }
                self.born[index] = nobody;
                let Some(role) = role else {
                    return;
                };
                let class = self.classes.find(size, grown);
                let set = &mut self.sets[thread as usize][class];
                set.falling = false;
                self.born[index] = Born {
                    thread,
                    class: class as u32,
                    place: set.chain.push(block),
                    ..nobody
                };
                let extent = Extent::new(size, reach);
                let partly = extent.partly.is_some();
                self.born[index].extent = extent;
                let cell = &mut self.cells[role][class];
                cell.moves[self.part].0 += 1;
                cell.calloc += u64::from(kind == OpKind::Calloc);
                cell.bytes += size;
                cell.partly.add(extent);
                // malloc need not give more than 16; who asks for these by name goes another way.
                let by = match kind {
                    OpKind::Calloc => By::Calloc,
                    OpKind::AlignedAlloc if align_log2 > 0 => By::Aligned,
                    _ if align_log2 > 4 => By::Aligned,
                    _ => By::Malloc,
                };
                if by == By::Aligned {
                    cell.aligned.add(u64::from(align_log2));
                }
                let deed = Deed::Allocate(Way { by, partly });
                match class < self.classes.first_growing {
                    true => cell.sizes.add(size),
                    false => cell.first.add(size),
                }
                let told = match class < self.classes.first_growing {
                    true => size,
                    false => 0,
                };
                self.own_call(thread, role, class, deed, told);
                self.change(role, class, Extent::NONE, extent, 1);
            }
            Action::Realloc { block, size } => {
                let Some((owner, class)) = self.owner(block) else {
                    return;
                };
                let of = &mut self.born[block as usize];
                let new = Extent::new(size, reach);
                let before = std::mem::replace(&mut of.extent, new);
                let old = before.size;
                of.most = of.most.max(size);
                let born_in = of.thread;
                let cell = &mut self.cells[owner][class];
                cell.resizes += 1;
                if size > old && old > 0 {
                    cell.growth.0 += (size as f64 / old as f64).ln();
                    cell.growth.1 += 1;
                }
                self.own_call(born_in, owner, class, Deed::Resize, 0);
                self.change(owner, class, before, new, 0);
            }
            Action::Free { block } => {
                let Some((owner, class)) = self.owner(block) else {
                    return;
                };
                let of = self.born[block as usize];
                let (deed, rank) = self.die(owner, class, of);
                self.born[block as usize].thread = NOBODY;
                match role {
                    Some(role) if thread != of.thread => {
                        self.cells[owner][class].remote[role] += 1;
                        self.calls += 1;
                        self.last_class[thread as usize] = usize::MAX;
                    }
                    _ => self.own_call(of.thread, owner, class, deed, u64::from(rank)),
                }
                self.change(owner, class, of.extent, Extent::NONE, -1);
            }
            _ => {}
        }
    }

    fn hear(&mut self, thread: u32, action: Action) {
        let old = |block| {
            self.born
                .get(block as usize)
                .map_or(0, |of: &Born| of.extent.size)
        };
        let (kind, from, to) = match action {
            Action::Alloc { kind, size, .. } => (kind, 0, size),
            Action::Realloc { size, block } => (OpKind::Realloc, old(block), size),
            Action::Free { block } => (OpKind::Free, old(block), 0),
            _ => return,
        };
        let size = if kind == OpKind::Free { from } else { to };
        self.surprise.take(thread, kind, size);
        self.asked.take(thread, kind, from, to);
    }

    /// Role and class of a block that is told.
    fn owner(&self, block: u32) -> Option<(usize, usize)> {
        let of = self.born.get(block as usize)?;
        if of.thread == NOBODY {
            return None;
        }
        Some((self.roles.of[of.thread as usize]?, of.class as usize))
    }

    /// Which of the living ones it is that dies.
    fn die(&mut self, owner: usize, class: usize, of: Born) -> (Deed, u32) {
        let set = &mut self.sets[of.thread as usize][class];
        let cell = &mut self.cells[owner][class];
        cell.reversals += u64::from(!std::mem::replace(&mut set.falling, true));
        let chain = &mut set.chain;
        let mut few = 0;
        let here = Some(of.place);
        let kind = if chain.newest(0) == here {
            0
        } else if chain.above() == here {
            2
        } else if chain.below() == here {
            3
        } else if let Some(rank) = chain.rank(of.place, FEW) {
            cell.ranks.add(u64::from(rank));
            few = rank;
            1
        } else if chain.from(chain.above(), NEIGHBOURS, of.place, true) {
            2
        } else if chain.from(chain.below(), NEIGHBOURS, of.place, false) {
            3
        } else if chain.oldest() == here {
            4
        } else if let Some(rank) = chain.rank(of.place, NEAR.min(chain.len() as u32 / 2)) {
            cell.ranks.add(u64::from(rank));
            1
        } else {
            5
        };
        cell.deaths[kind] += 1;
        cell.moves[self.part].1 += 1;
        chain.take(of.place);
        if (of.place as usize) < chain.len() {
            let moved = *chain.at(of.place);
            self.born[moved as usize].place = of.place;
        }
        if class >= self.classes.first_growing {
            cell.sizes.add(of.most);
        }
        let deed = match kind {
            0 => Deed::FreeNewest,
            2 => Deed::FreeNext,
            3 => Deed::FreePrevious,
            _ => Deed::Free,
        };
        (deed, few)
    }

    /// Blocks that grow and are alive at the end have their largest size, too.
    fn measure_survivors(&mut self) {
        for of in &self.born {
            let class = of.class as usize;
            if of.thread != NOBODY
                && class >= self.classes.first_growing
                && let Some(role) = self.roles.of[of.thread as usize]
            {
                self.cells[role][class].sizes.add(of.most);
            }
        }
    }
}
