//! Distributions of whole numbers: sizes in bytes, lifetimes in allocations.

use crate::model::decode::{Read, Table, Value};
use serde::Serialize;

/// Largest number that a distribution may give.
pub const MAX_VALUE: u64 = 1 << 30;

/// A distribution of whole numbers. In a file the numbers of `fixed`, `table` and `zipf` are called `bytes` for sizes and
/// `values` for all else; either word is read.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Distribution {
    /// Always the same.
    Fixed {
        /// The number.
        values: u32,
    },
    /// All between two bounds, both included, equally often.
    Uniform {
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// Some numbers with weights.
    Table {
        /// The numbers.
        values: Vec<u32>,
        /// How often, relative to each other.
        weights: Vec<f64>,
    },
    /// Bins with weights; equally often within a bin.
    Histogram {
        /// Bin n reaches from `edges[n]` to below `edges[n + 1]`.
        edges: Vec<u32>,
        /// How often, relative to each other; one fewer than edges.
        weights: Vec<f64>,
    },
    /// Some numbers, the n-th one in proportion to n^-exponent.
    Zipf {
        /// The numbers, the most frequent first.
        values: Vec<u32>,
        /// Exponent, 0 to 20.
        exponent: f64,
    },
    /// The logarithm is normally distributed.
    LogNormal {
        /// Half of the draws are smaller.
        median: u32,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
        /// Smaller draws become this.
        min: u32,
        /// Larger draws become this.
        max: u32,
    },
    /// Power-law tail.
    Pareto {
        /// Exponent; the smaller, the heavier the tail.
        alpha: f64,
        /// Smallest number.
        min: u32,
        /// Larger draws become this.
        max: u32,
    },
    /// As measured: quantiles at equal distances, straight lines between them.
    Empirical {
        /// The quantiles of 0, 1/n … 1; never decreasing.
        quantiles: Vec<u32>,
    },
    /// One of several distributions.
    Mixture {
        /// The parts, none of them a mixture.
        parts: Vec<Part>,
    },
}

/// A part of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// How often, relative to the other parts.
    pub weight: f64,
    /// Its distribution.
    pub size: Distribution,
}

const KINDS: &[(&str, Kind)] = &[
    ("fixed", Kind::Fixed),
    ("uniform", Kind::Uniform),
    ("table", Kind::Table),
    ("histogram", Kind::Histogram),
    ("zipf", Kind::Zipf),
    ("log-normal", Kind::LogNormal),
    ("pareto", Kind::Pareto),
    ("empirical", Kind::Empirical),
    ("mixture", Kind::Mixture),
];

#[derive(Clone, Copy)]
enum Kind {
    Fixed,
    Uniform,
    Table,
    Histogram,
    Zipf,
    LogNormal,
    Pareto,
    Empirical,
    Mixture,
}

impl Distribution {
    /// Reads a distribution whose numbers are at least `least`.
    pub fn read(value: &Value<'_>, what: &str, least: u64) -> Read<Self> {
        Self::read_part(value, what, least, true)
    }

    fn read_part(value: &Value<'_>, what: &str, least: u64, mixtures: bool) -> Read<Self> {
        let mut table = value.table(what)?;
        let kind = table.need("kind")?;
        let bounds = |table: &mut Table<'_>, least: u64| -> Read<(u32, u32)> {
            let min = table.need("min")?.whole(least..=MAX_VALUE)?;
            let max = table.need("max")?.whole(min..=MAX_VALUE)?;
            Ok((min as u32, max as u32))
        };
        let distribution = match kind.word(KINDS)? {
            Kind::Fixed => Self::Fixed {
                values: numbers_key(&mut table)?.whole(least..=MAX_VALUE)? as u32,
            },
            Kind::Uniform => {
                let (min, max) = bounds(&mut table, least)?;
                Self::Uniform { min, max }
            }
            Kind::Table => {
                let values = numbers(&numbers_key(&mut table)?, least, 1)?;
                let weights = weights(&table.need("weights")?, values.len())?;
                Self::Table { values, weights }
            }
            Kind::Histogram => {
                let key = table.need("edges")?;
                let edges = numbers(&key, least, 2)?;
                if !edges.is_sorted_by(|left, right| left < right) {
                    return Err(key.fault("`edges` must increase"));
                }
                let weights = weights(&table.need("weights")?, edges.len() - 1)?;
                Self::Histogram { edges, weights }
            }
            Kind::Zipf => Self::Zipf {
                values: numbers(&numbers_key(&mut table)?, least, 1)?,
                exponent: table.need("exponent")?.number(0.0..=20.0)?,
            },
            Kind::LogNormal => {
                let (min, max) = bounds(&mut table, least)?;
                Self::LogNormal {
                    median: table.need("median")?.whole(1..=MAX_VALUE)? as u32,
                    sigma: table.need("sigma")?.number(0.0..=10.0)?,
                    min,
                    max,
                }
            }
            Kind::Pareto => {
                let (min, max) = bounds(&mut table, least.max(1))?;
                Self::Pareto {
                    alpha: table.need("alpha")?.number(0.05..=100.0)?,
                    min,
                    max,
                }
            }
            Kind::Empirical => {
                let key = table.need("quantiles")?;
                let quantiles = numbers(&key, least, 2)?;
                if !quantiles.is_sorted() {
                    return Err(key.fault("`quantiles` must never decrease"));
                }
                Self::Empirical { quantiles }
            }
            Kind::Mixture if !mixtures => {
                return Err(kind.fault("a mixture cannot contain a mixture"));
            }
            Kind::Mixture => Self::Mixture {
                parts: parts(&table.need("parts")?, what, least)?,
            },
        };
        table.finish()?;
        Ok(distribution)
    }

    /// The smallest and the largest number that can be drawn.
    pub fn bounds(&self) -> (u32, u32) {
        let ends = |values: &[u32]| {
            let min = values.iter().copied().min().unwrap_or(0);
            (min, values.iter().copied().max().unwrap_or(0))
        };
        match self {
            Self::Fixed { values } => (*values, *values),
            Self::Uniform { min, max }
            | Self::LogNormal { min, max, .. }
            | Self::Pareto { min, max, .. } => (*min, *max),
            Self::Table { values, .. } | Self::Zipf { values, .. } => ends(values),
            Self::Histogram { edges, .. } => {
                let (min, max) = ends(edges);
                (min, max - 1)
            }
            Self::Empirical { quantiles } => ends(quantiles),
            Self::Mixture { parts } => parts
                .iter()
                .map(|part| part.size.bounds())
                .fold((u32::MAX, 0), |all, one| {
                    (all.0.min(one.0), all.1.max(one.1))
                }),
        }
    }
}

/// `bytes` or `values`.
fn numbers_key<'d>(table: &mut Table<'d>) -> Read<Value<'d>> {
    match table.get("bytes") {
        Some(bytes) => Ok(bytes),
        None => match table.get("values") {
            Some(values) => Ok(values),
            None => table.need("bytes"),
        },
    }
}

fn numbers(value: &Value<'_>, least: u64, fewest: usize) -> Read<Vec<u32>> {
    let list = value.list()?;
    if !(fewest..=1 << 16).contains(&list.len()) {
        return Err(value.expected(format_args!("{fewest} to 65536 numbers")));
    }
    list.iter()
        .map(|number| number.whole(least..=MAX_VALUE).map(|number| number as u32))
        .collect()
}

fn weights(value: &Value<'_>, count: usize) -> Read<Vec<f64>> {
    let list = value.list()?;
    if list.len() != count {
        return Err(value.fault(format_args!(
            "`weights` has {} numbers, expected {count}",
            list.len()
        )));
    }
    let weights = list
        .iter()
        .map(|weight| weight.number(0.0..=1e12))
        .collect::<Read<Vec<f64>>>()?;
    if weights.iter().sum::<f64>() > 0.0 {
        return Ok(weights);
    }
    Err(value.fault("all weights are 0, expected one above 0"))
}

fn parts(value: &Value<'_>, what: &str, least: u64) -> Read<Vec<Part>> {
    let mut parts = Vec::new();
    let list = value.list()?;
    if list.is_empty() || list.len() > 1024 {
        return Err(value.expected("1 to 1024 parts"));
    }
    for part in list {
        let mut table = part.table(what)?;
        parts.push(Part {
            weight: table.need("weight")?.number(0.0..=1e12)?,
            size: Distribution::read_part(&table.need("size")?, what, least, false)?,
        });
        table.finish()?;
    }
    if parts.iter().map(|part| part.weight).sum::<f64>() > 0.0 {
        return Ok(parts);
    }
    Err(value.fault("all weights are 0, expected one above 0"))
}
