//! The file by which the harness asks and the agent in a program answers. The agent maps it shared, the harness reads and
//! writes it: numbers are native u32, and each text has its length in front.

/// Number of the last question (written by the harness).
pub const ASKED_AT: usize = 0;
/// Number of the last question that is answered (written by the agent, after the text).
pub const SERVED_AT: usize = 4;
/// The answer: its length, then the text.
pub const NOW_AT: usize = 64;
/// What the agent wrote by itself at the end of the process: its length (0: nothing yet), then the text.
pub const END_AT: usize = NOW_AT + 4 + TEXT_BYTES;
/// Most bytes of a text.
pub const TEXT_BYTES: usize = 48 << 10;
/// Size of the file.
pub const PAGE_BYTES: usize = END_AT + 4 + TEXT_BYTES;
/// Number of the last question that is asked at all, before a server is told to end.
pub const LAST: u32 = u32::MAX;
