//! Events of a trace in its final form, and the rule that gives blocks their numbers.

use super::raw::RawKind;

/// Nanoseconds of a tick, the unit of time in the final form.
pub const TICK_NS: u64 = 100;
/// Blocks alive at once at most, against hostile files.
pub(super) const MAX_LIVE: usize = 1 << 28;

/// What happened. The numbers are the format; 0 to 14 are those of [`RawKind`] as far as they mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventKind {
    /// malloc
    Malloc = 0,
    /// calloc
    Calloc = 1,
    /// aligned_alloc
    AlignedAlloc = 2,
    /// memalign
    Memalign = 3,
    /// posix_memalign
    PosixMemalign = 4,
    /// valloc
    Valloc = 5,
    /// pvalloc
    Pvalloc = 6,
    /// realloc of nothing: an allocation
    ReallocNew = 7,
    /// realloc of a block
    Realloc = 8,
    /// free
    Free = 9,
    /// free_sized, sized operator delete
    FreeSized = 10,
    /// free_aligned_sized, aligned operator delete
    FreeAlignedSized = 11,
    /// reallocarray of a block
    ReallocArray = 12,
    /// an allocation that failed; no block
    Failed = 13,
    /// a mark of the program; no block, `size` is its number
    Mark = 14,
    /// realloc to size 0 that freed the block
    ReallocFree = 15,
    /// a free that was never seen: the address came back from an allocation while its block was still alive
    LostFree = 16,
    /// a block of the parent's that a forked process touches for the first time: from here on it has its own copy
    Inherited = 17,
    /// a block that was alive when its process ended or replaced itself by exec
    Gone = 18,
    /// fork; no block, `size` is the number of the child's process
    Fork = 19,
    /// mmap of `size` bytes; no block
    Mmap = 20,
    /// munmap of `size` bytes; no block
    Munmap = 21,
    /// mremap to `size` bytes; no block
    Mremap = 22,
    /// brk; no block, `size` is the new break's distance from the first one seen
    Brk = 23,
    /// of the block so many bytes (`size`) lay in pages that were written, since its allocation or last resize
    Written = 24,
}

/// What an event does to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A block appears.
    Alloc,
    /// A block changes its size.
    Resize,
    /// A block is gone.
    Free,
    /// Nothing, but one is told of.
    Told,
    /// Nothing.
    None,
}

impl EventKind {
    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Malloc,
            1 => Self::Calloc,
            2 => Self::AlignedAlloc,
            3 => Self::Memalign,
            4 => Self::PosixMemalign,
            5 => Self::Valloc,
            6 => Self::Pvalloc,
            7 => Self::ReallocNew,
            8 => Self::Realloc,
            9 => Self::Free,
            10 => Self::FreeSized,
            11 => Self::FreeAlignedSized,
            12 => Self::ReallocArray,
            13 => Self::Failed,
            14 => Self::Mark,
            15 => Self::ReallocFree,
            16 => Self::LostFree,
            17 => Self::Inherited,
            18 => Self::Gone,
            19 => Self::Fork,
            20 => Self::Mmap,
            21 => Self::Munmap,
            22 => Self::Mremap,
            23 => Self::Brk,
            24 => Self::Written,
            _ => return None,
        })
    }

    /// What it does to a block.
    #[inline]
    pub const fn effect(self) -> Effect {
        match self {
            Self::Realloc | Self::ReallocArray => Effect::Resize,
            Self::Free
            | Self::FreeSized
            | Self::FreeAlignedSized
            | Self::ReallocFree
            | Self::LostFree
            | Self::Gone => Effect::Free,
            Self::Written => Effect::Told,
            Self::Failed
            | Self::Mark
            | Self::Fork
            | Self::Mmap
            | Self::Munmap
            | Self::Mremap
            | Self::Brk => Effect::None,
            _ => Effect::Alloc,
        }
    }

    /// Whether the size is stored (a free repeats its block's).
    pub const fn has_size(self) -> bool {
        !matches!(self.effect(), Effect::Free)
    }

    /// Whether an alignment is stored.
    pub const fn has_alignment(self) -> bool {
        matches!(
            self,
            Self::AlignedAlloc | Self::Memalign | Self::PosixMemalign
        )
    }

    /// Its name in exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malloc => "malloc",
            Self::Calloc => "calloc",
            Self::AlignedAlloc => "aligned_alloc",
            Self::Memalign => "memalign",
            Self::PosixMemalign => "posix_memalign",
            Self::Valloc => "valloc",
            Self::Pvalloc => "pvalloc",
            Self::ReallocNew => "realloc_new",
            Self::Realloc => "realloc",
            Self::Free => "free",
            Self::FreeSized => "free_sized",
            Self::FreeAlignedSized => "free_aligned_sized",
            Self::ReallocArray => "reallocarray",
            Self::Failed => "failed",
            Self::Mark => "mark",
            Self::ReallocFree => "realloc_free",
            Self::LostFree => "lost_free",
            Self::Inherited => "inherited",
            Self::Gone => "gone",
            Self::Fork => "fork",
            Self::Mmap => "mmap",
            Self::Munmap => "munmap",
            Self::Mremap => "mremap",
            Self::Brk => "brk",
            Self::Written => "written",
        }
    }

    /// The allocating kind of a raw one.
    pub(super) const fn of_allocation(raw: RawKind) -> Option<Self> {
        match raw {
            RawKind::Malloc
            | RawKind::Calloc
            | RawKind::AlignedAlloc
            | RawKind::Memalign
            | RawKind::PosixMemalign
            | RawKind::Valloc
            | RawKind::Pvalloc => Self::from_number(raw as u8),
            _ => None,
        }
    }
}

/// One event, complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Who.
    pub thread: u32,
    /// When: ticks of 100 ns since the recording began; never decreases within a thread.
    pub tick: u64,
    /// What.
    pub kind: EventKind,
    /// Number of the block; numbers are used again. 0 for kinds without a block.
    pub block: u32,
    /// Bytes requested; for frees those of the block.
    pub size: u64,
    /// log2 of the alignment asked for, 0 = default; for frees and reallocs that of the block.
    pub align_log2: u8,
    /// Address, where addresses were kept; else 0.
    pub address: u64,
}

impl TraceEvent {
    /// One without an alignment of its own, its address not kept.
    pub fn new(thread: u32, tick: u64, kind: EventKind, block: u32, size: u64) -> Self {
        Self {
            thread,
            tick,
            kind,
            block,
            size,
            align_log2: 0,
            address: 0,
        }
    }
}

/// A block's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Bytes requested.
    pub size: u64,
    /// Tick of its allocation.
    pub tick: u64,
    /// Number of its allocation among all.
    pub birth: u64,
    /// Thread that allocated it.
    pub thread: u32,
    /// log2 of its alignment.
    pub align_log2: u8,
    /// It is alive.
    pub alive: bool,
}

impl Block {
    /// A number that no block has at the moment.
    pub(super) const FREE: Self = Self {
        size: 0,
        tick: 0,
        birth: 0,
        thread: 0,
        align_log2: 0,
        alive: false,
    };
}

/// All blocks: the number freed last is given out first, else the next one that was never used. Writer and reader both
/// follow this rule, so allocations need no number in the file.
#[derive(Default)]
pub struct Blocks {
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Requested bytes alive.
    pub live_bytes: u64,
    /// Blocks alive.
    pub live_blocks: u64,
    /// Allocations so far.
    pub allocations: u64,
}

impl Blocks {
    /// A new block; the error is for files that claim too much.
    #[inline]
    pub fn alloc(
        &mut self,
        thread: u32,
        tick: u64,
        size: u64,
        align_log2: u8,
    ) -> Result<u32, String> {
        let block = Block {
            size,
            tick,
            birth: self.allocations,
            thread,
            align_log2,
            alive: true,
        };
        let live_bytes = self.live_bytes.checked_add(size).filter(|_| size < 1 << 56);
        self.live_bytes = live_bytes.ok_or("the live bytes are out of range")?;
        let number = match self.free.pop() {
            Some(number) => {
                self.blocks[number as usize] = block;
                number
            }
            None => {
                if self.blocks.len() >= MAX_LIVE {
                    return Err(format!("more than {MAX_LIVE} blocks are alive"));
                }
                self.blocks.push(block);
                self.blocks.len() as u32 - 1
            }
        };
        self.live_blocks += 1;
        self.allocations += 1;
        Ok(number)
    }

    /// The state of a live block.
    #[inline]
    pub fn get(&self, block: u32) -> Result<&Block, String> {
        match self.blocks.get(block as usize) {
            Some(found) if found.alive => Ok(found),
            _ => Err(format!("block {block} is not alive")),
        }
    }

    /// Changes the size of a live block; gives its state from before.
    #[inline]
    pub fn resize(&mut self, block: u32, size: u64) -> Result<Block, String> {
        let old = *self.get(block)?;
        let live_bytes = (self.live_bytes - old.size)
            .checked_add(size)
            .filter(|_| size < 1 << 56);
        self.live_bytes = live_bytes.ok_or("the live bytes are out of range")?;
        self.blocks[block as usize].size = size;
        Ok(old)
    }

    /// Frees a live block; gives its state.
    #[inline]
    pub fn free(&mut self, block: u32) -> Result<Block, String> {
        let old = *self.get(block)?;
        self.blocks[block as usize].alive = false;
        self.free.push(block);
        self.live_bytes -= old.size;
        self.live_blocks -= 1;
        Ok(old)
    }

    /// Numbers that were ever used.
    pub(super) fn numbers(&self) -> usize {
        self.blocks.len()
    }

    /// State of a number that was ever used.
    pub(super) fn state(&self, number: usize) -> &Block {
        &self.blocks[number]
    }

    /// Numbers that are free, the one that is given out next last.
    pub(super) fn free_numbers(&self) -> &[u32] {
        &self.free
    }

    /// The state that a checkpoint holds; an error when its parts contradict each other.
    pub(super) fn restored(
        blocks: Vec<Block>,
        free: Vec<u32>,
        allocations: u64,
    ) -> Result<Self, String> {
        let (mut live_bytes, mut live_blocks) = (0u64, 0u64);
        for block in blocks.iter().filter(|block| block.alive) {
            live_bytes = live_bytes
                .checked_add(block.size)
                .ok_or("the live bytes are out of range")?;
            live_blocks += 1;
        }
        let mut listed = vec![false; blocks.len()];
        for &number in &free {
            let number = number as usize;
            if blocks.get(number).is_none_or(|block| block.alive) || listed[number] {
                return Err(format!("block {number} of a checkpoint is not free"));
            }
            listed[number] = true;
        }
        if free.len() as u64 + live_blocks != blocks.len() as u64 || live_blocks > allocations {
            return Err("a checkpoint leaves blocks out".into());
        }
        Ok(Self {
            blocks,
            free,
            live_bytes,
            live_blocks,
            allocations,
        })
    }

    /// Both hold the same live blocks and give out the same numbers next.
    pub(super) fn same(&self, other: &Self) -> bool {
        let alike = |(mine, theirs): (&Block, &Block)| {
            mine.alive == theirs.alive && (!mine.alive || mine == theirs)
        };
        self.blocks.len() == other.blocks.len()
            && self.allocations == other.allocations
            && self.free == other.free
            && self.blocks.iter().zip(&other.blocks).all(alike)
    }

    /// All live blocks with their numbers, in the order of their allocation.
    pub fn live(&self) -> Vec<(u32, Block)> {
        let mut live: Vec<_> = self
            .blocks
            .iter()
            .enumerate()
            .filter(|(_, block)| block.alive)
            .map(|(number, block)| (number as u32, *block))
            .collect();
        live.sort_unstable_by_key(|(_, block)| block.birth);
        live
    }
}
