//! Statistics for run, diff and gate: exact intervals of a median, exact rank tests, paired ratios.
//!
//! One module, so that a verdict, a table and a chart can never disagree. Everything here is exact
//! (enumerated distributions, no bootstrap, no normal approximation up to [`EXACT_LIMIT`] values) and
//! conservative: an interval covers *at least* its stated level. Below [`MIN_BLOCKS`] values no such
//! interval exists, and the smallest and largest value are given and called a range.

mod binomial;
mod normal;
mod order;
mod rank_sum;
mod ratio;
mod signed_rank;

pub use binomial::{SignTest, sign_test};
pub use normal::EXACT_LIMIT;
pub use order::{
    Interval, MIN_BLOCKS, median, median_interval, quartiles, summarise, summarise_values,
};
pub use rank_sum::{ratio_of_values, unpaired_ratio};
pub use ratio::{
    block_values, detectable, geometric_mean, geometric_mean_of_pairs, log_pairs, paired_ratio,
    ratio_from_logs, ratio_kind, shown_different,
};
pub use signed_rank::{HodgesLehmann, SignedRank, hodges_lehmann, signed_rank};
