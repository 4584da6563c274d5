//! Stacks of traces in the traces that are made from them.

use crate::trace::error::TraceError;
use crate::trace::reader::Trace;
use crate::trace::stacks::{Frame, StackTable, StackTableBuilder, Symbol, sample_probability};
use heaplab_ring::stack::StackMode;

/// The stack of each event of a trace that is read in its order.
pub(super) struct StackCursor<'a> {
    trace: &'a Trace,
    /// Number of the segment that is read next.
    next: usize,
    /// First event of the segment that was read, and behind its last one.
    bounds: (u64, u64),
    pairs: std::iter::Peekable<std::vec::IntoIter<(u64, u32)>>,
}

impl<'a> StackCursor<'a> {
    pub fn new(trace: &'a Trace) -> Self {
        Self {
            trace,
            next: 0,
            bounds: (0, 0),
            pairs: Vec::new().into_iter().peekable(),
        }
    }

    /// The stack of event `number`, 0 for none. Numbers must rise.
    pub fn of(&mut self, number: u64) -> Result<u32, TraceError> {
        let Some(table) = self.trace.stacks() else {
            return Ok(0);
        };
        while number >= self.bounds.1 {
            let Some(segment) = self.trace.segments().get(self.next) else {
                return Ok(0);
            };
            self.bounds = (segment.first_event, segment.first_event + segment.events);
            if number < self.bounds.1 {
                self.pairs = self.trace.segment_stacks(self.next)?.into_iter().peekable();
            }
            self.next += 1;
        }
        let place = number - self.bounds.0;
        while self.pairs.next_if(|(event, _)| *event < place).is_some() {}
        let found = self.pairs.next_if(|(event, _)| *event == place);
        Ok(found
            .map_or(0, |(_, stack)| stack)
            .min(table.nodes.len() as u32))
    }
}

/// The stacks that a copy uses, of one trace or of several.
pub(super) struct StackCarrier<'a> {
    sources: Vec<Source<'a>>,
    builder: StackTableBuilder,
    /// By frame of the copy.
    symbols: Vec<Vec<Symbol>>,
}

struct Source<'a> {
    table: Option<&'a StackTable>,
    /// By stack of the source: its number in the copy, 0 where it was not used yet.
    known: Vec<u32>,
}

impl<'a> StackCarrier<'a> {
    /// Stacks were chosen as in that of the traces which has the fewest: of the others, as many samples are left out as
    /// it takes to make them alike.
    pub fn new(traces: impl IntoIterator<Item = &'a Trace>) -> Self {
        let sources: Vec<_> = (traces.into_iter().map(Trace::stacks))
            .map(|table| Source {
                table,
                known: vec![0; table.map_or(0, |table| table.nodes.len() + 1)],
            })
            .collect();
        let mut builder = StackTableBuilder::default();
        let modes = sources.iter().filter_map(|source| source.table);
        builder.table.mode = (modes.map(|table| table.mode))
            .max_by_key(|mode| match mode {
                StackMode::Off => 0,
                StackMode::Full => 1,
                StackMode::Sampled { period } => u64::from(*period) + 2,
            })
            .unwrap_or(StackMode::Off);
        Self {
            sources,
            builder,
            symbols: Vec::new(),
        }
    }

    /// The number in the copy of a stack of source `index`, brought by an event of `size` bytes; `draw` (any number that
    /// differs from event to event) decides where samples are left out.
    pub fn carry(&mut self, index: usize, stack: u32, size: u64, draw: u64) -> u32 {
        let Some(table) = self.sources[index].table.filter(|_| stack != 0) else {
            return 0;
        };
        let kept = sample_probability(self.builder.table.mode, size)
            / sample_probability(table.mode, size);
        let hash = draw.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11;
        if kept < 1.0 && hash as f64 >= kept * (1u64 << 53) as f64 {
            return 0;
        }
        // From the stack outward to the first that is known already, and back.
        let mut path = Vec::new();
        let mut at = stack;
        while at != 0 && self.sources[index].known[at as usize] == 0 {
            path.push(at);
            at = table.nodes[at as usize - 1].1;
        }
        let mut caller = self.sources[index].known[at as usize];
        for stack in path.into_iter().rev() {
            let old = table.nodes[stack as usize - 1].0;
            let frame = table.frames[old as usize];
            let module = frame
                .module
                .map(|module| self.builder.module(&table.modules[module as usize]));
            let (new, number) = self.builder.call(Frame { module, ..frame }, caller);
            let named = table.symbols.as_ref().and_then(|all| all.get(old as usize));
            if let Some(named) = named {
                let new = new as usize;
                if new >= self.symbols.len() {
                    self.symbols.resize(new + 1, Vec::new());
                }
                self.symbols[new].clone_from(named);
            }
            caller = number;
            self.sources[index].known[stack as usize] = number;
        }
        caller
    }

    /// The table of the copy.
    pub fn table(mut self) -> StackTable {
        if !self.symbols.is_empty() {
            let frames = self.builder.table.frames.len();
            self.symbols.resize(frames, Vec::new());
            self.builder.table.symbols = Some(self.symbols);
        }
        self.builder.table
    }
}
