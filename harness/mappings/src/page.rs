//! The file that the agent maps shared and the harness reads: native u64 in front, then the ranges.

use crate::Range;

/// Number of changes so far, twice; odd while one is being made.
pub const SEQUENCE_AT: usize = 0;
/// How many ranges there are.
pub const COUNT_AT: usize = 8;
/// 0 before the agent has begun, then one of the two below.
pub const STATE_AT: usize = 16;
/// The ranges are those that the program has mapped.
pub const FOLLOWED: u64 = 1;
/// They are not any more.
pub const LOST: u64 = 2;
/// How many entries the list of what was given back has had so far.
pub const RENEWED_AT: usize = 24;
/// Calls under way that bring memory in before their range is noted, or take it away: it leaves the page tables before it is
/// counted as gone.
pub const UNSETTLED_AT: usize = 32;
/// The first range.
pub const RANGES_AT: usize = 64;
/// Most ranges: each is at least one mapping, of which the kernel permits 65,530 unless it is told otherwise.
pub const CAPACITY: usize = 1 << 17;
/// Where the last [`RENEWALS`] ranges are whose pages are not any more what they were: unmapped, mapped anew or given back. The
/// n-th lies at n modulo their number.
pub const RENEWALS_AT: usize = RANGES_AT + CAPACITY * size_of::<Range>();
/// Most of them.
pub const RENEWALS: usize = 4096;
/// Size of the file, nearly all of it a hole.
pub const PAGE_BYTES: usize = RENEWALS_AT + RENEWALS * size_of::<Range>();
