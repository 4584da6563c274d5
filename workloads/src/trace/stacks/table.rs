//! The model.

use heaplab_ring::stack::StackMode;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A file of code that a process had mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Module {
    /// Path as the program's loader had it; a file name only where that was all.
    pub path: String,
    /// The linker's build id, hexadecimal; empty without one.
    pub build_id: String,
}

/// A call: an address in a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Index of the module; `None` for code that is in none (made at run time).
    pub module: Option<u32>,
    /// Address inside the call instruction, as the module was linked (not as it was loaded).
    pub address: u64,
}

/// A function at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Symbol {
    /// Demangled name.
    pub function: String,
    /// Source file; empty when unknown.
    pub file: String,
    /// Line, 0 when unknown.
    pub line: u32,
}

/// Names of frames, by the index of the frame: the function itself last, before it what was inlined into it, the
/// innermost first. Empty where nothing is known.
pub type Symbols = Vec<Vec<Symbol>>;

/// All stacks of a trace. Stacks share their outer parts: each is a frame and the stack of its caller.
#[derive(Clone, Debug, Default)]
pub struct StackTable {
    /// Which allocations brought their stacks.
    pub mode: StackMode,
    /// Files of code.
    pub modules: Vec<Module>,
    /// Calls.
    pub frames: Vec<Frame>,
    /// Stack `n` is node `n - 1`: its innermost frame, and the stack that called (0: none). Callers come before.
    pub nodes: Vec<(u32, u32)>,
    /// Names, where they travel with the trace.
    pub symbols: Option<Symbols>,
}

impl StackTable {
    /// Indices of the frames of a stack, the innermost first. Stack 0 has none.
    pub fn frames_of(&self, stack: u32) -> impl Iterator<Item = u32> + '_ {
        let mut at = stack;
        std::iter::from_fn(move || {
            let &(frame, caller) = self.nodes.get((at as usize).checked_sub(1)?)?;
            at = caller;
            Some(frame)
        })
    }
}

/// Interns what a [`StackTable`] consists of.
#[derive(Debug, Default)]
pub struct StackTableBuilder {
    /// What was interned so far.
    pub table: StackTable,
    modules: HashMap<Module, u32>,
    frames: HashMap<Frame, u32>,
    nodes: HashMap<(u32, u32), u32>,
}

impl StackTableBuilder {
    /// The index of a module.
    pub fn module(&mut self, module: &Module) -> u32 {
        if let Some(&index) = self.modules.get(module) {
            return index;
        }
        let index = self.table.modules.len() as u32;
        self.table.modules.push(module.clone());
        self.modules.insert(module.clone(), index);
        index
    }

    /// The number of a stack, its frames given from the outermost inward. 0 for no frames.
    pub fn stack(&mut self, outer_first: impl Iterator<Item = Frame>) -> u32 {
        outer_first.fold(0, |caller, frame| self.call(frame, caller).1)
    }

    /// Index of the frame and number of the stack that is `frame`, called by `caller` (0: by nobody).
    pub fn call(&mut self, frame: Frame, caller: u32) -> (u32, u32) {
        let frames = &mut self.table.frames;
        let index = *self.frames.entry(frame).or_insert_with(|| {
            frames.push(frame);
            frames.len() as u32 - 1
        });
        let nodes = &mut self.table.nodes;
        let stack = *self.nodes.entry((index, caller)).or_insert_with(|| {
            nodes.push((index, caller));
            nodes.len() as u32
        });
        (index, stack)
    }
}

/// The probability with which an allocation of `size` bytes brings its stack: `1 - exp(-size / period)` when sampled.
/// Counting each one that did `1 / p` times makes sums over allocations unbiased (see `heaplab_ring::sampler`).
pub fn sample_probability(mode: StackMode, size: u64) -> f64 {
    match mode {
        StackMode::Off => 0.0,
        StackMode::Full => 1.0,
        StackMode::Sampled { period } => {
            -(-(size.max(1) as f64) / f64::from(period.max(1))).exp_m1()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_share_their_outer_parts() {
        let mut builder = StackTableBuilder::default();
        let frame = |address| Frame {
            module: Some(0),
            address,
        };
        let deep = builder.stack([1, 2, 3].map(frame).into_iter());
        let other = builder.stack([1, 2, 4].map(frame).into_iter());
        assert_eq!(builder.stack([1, 2, 3].map(frame).into_iter()), deep);
        assert_eq!(builder.stack(std::iter::empty()), 0);
        let table = builder.table;
        assert_eq!((table.frames.len(), table.nodes.len()), (4, 4));
        let addresses = |stack| -> Vec<u64> {
            let frames = table.frames_of(stack);
            frames
                .map(|frame| table.frames[frame as usize].address)
                .collect()
        };
        assert_eq!(addresses(deep), [3, 2, 1]);
        assert_eq!(addresses(other), [4, 2, 1]);
        assert!(addresses(0).is_empty() && addresses(99).is_empty());
    }
}
