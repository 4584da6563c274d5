//! What a block takes of memory: its size, and how much of it was written.

/// From this share on a block counts as written whole.
const LEAST_WHOLE: f64 = 0.98;

/// A block's size and, if only a part of it was written, how much; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Extent {
    pub size: u64,
    pub partly: Option<u64>,
}

impl Extent {
    /// No block.
    pub const NONE: Self = Self {
        size: 0,
        partly: None,
    };

    /// `written`: as far as it was told.
    pub fn new(size: u64, written: Option<u64>) -> Self {
        let partly = written.filter(|&written| (written as f64) < LEAST_WHOLE * size as f64);
        Self { size, partly }
    }

    /// Bytes that were written.
    pub fn written(&self) -> u64 {
        self.partly.unwrap_or(self.size)
    }
}
