//! Which block of a group dies when one must.

use super::distribution::Distribution;
use crate::model::decode::{Read, Table, Value};
use serde::Serialize;

/// Which block dies. All but `exponential`, `lifo`, `batch`, `phase` and `drawn` keep the live set full: each allocation
/// into a full set is preceded by a death.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Lifetime {
    /// Any, equally likely: ages are geometric.
    #[default]
    Random,
    /// The oldest.
    Fifo,
    /// The youngest: a stack whose depth wanders between 0 and `live`.
    Lifo,
    /// Each with the same chance at any time: the live set fluctuates around `live`.
    Exponential,
    /// Most die soon, the others by chance.
    Bimodal {
        /// Share of short-lived ones.
        short_share: f64,
        /// How many short-lived ones are alive at once.
        short_live: u64,
    },
    /// `live` blocks are allocated, then all are freed without a break.
    Batch {
        /// In which order.
        order: BatchOrder,
    },
    /// None dies before a phase's `drop` takes it.
    Phase,
    /// Blocks pass through nurseries; in each most die and the others go on to the next. What leaves the last one is
    /// replaced by chance.
    Generational {
        /// Blocks in each nursery.
        nursery: u64,
        /// Share that leaves a nursery alive.
        survive: f64,
        /// Number of nurseries.
        generations: u32,
    },
    /// The smallest or largest of some random ones: size decides how long a block lives.
    BySize {
        /// Which ones die sooner.
        dies: Dies,
        /// How many are looked at; the more, the stronger the rule.
        tries: u32,
    },
    /// The n-th place of the live set is replaced in proportion to n^-exponent: hot keys.
    Zipf {
        /// Exponent.
        exponent: f64,
    },
    /// By recency: each death is one of these, in proportion; what is impossible at the moment is the newest instead.
    Recency {
        /// The newest one.
        newest: f64,
        /// One of the newest, by its rank (0: the newest).
        near: f64,
        /// The ranks of those.
        #[serde(skip_serializing_if = "Option::is_none")]
        ranks: Option<Distribution>,
        /// The one allocated just after the one that died last: neighbours die one after the other.
        next: f64,
        /// The one allocated just before that.
        previous: f64,
        /// The oldest.
        oldest: f64,
        /// Any.
        random: f64,
        /// Deaths in a row, on average: the set falls so far below `live` before it is filled again.
        run: f64,
        /// How many blocks above `live` phrases may lead the set; 2 times `run` if absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        above: Option<f64>,
        /// How many below.
        #[serde(skip_serializing_if = "Option::is_none")]
        below: Option<f64>,
    },
    /// Each block draws its age at death, counted in allocations of its group and thread.
    Drawn {
        /// The ages, at least 1.
        allocations: Distribution,
    },
}

/// The order in which a batch is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchOrder {
    /// As allocated.
    Fifo,
    /// The last one first.
    Lifo,
    /// By chance.
    Random,
}

/// Which sizes die sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dies {
    /// Small ones.
    Small,
    /// Large ones.
    Large,
}

#[derive(Clone, Copy)]
enum Kind {
    Random,
    Fifo,
    Lifo,
    Exponential,
    Bimodal,
    Batch,
    Phase,
    Generational,
    BySize,
    Zipf,
    Recency,
    Drawn,
}

const KINDS: &[(&str, Kind)] = &[
    ("random", Kind::Random),
    ("fifo", Kind::Fifo),
    ("lifo", Kind::Lifo),
    ("exponential", Kind::Exponential),
    ("bimodal", Kind::Bimodal),
    ("batch", Kind::Batch),
    ("phase", Kind::Phase),
    ("generational", Kind::Generational),
    ("by-size", Kind::BySize),
    ("zipf", Kind::Zipf),
    ("recency", Kind::Recency),
    ("drawn", Kind::Drawn),
];

const ORDERS: &[(&str, BatchOrder)] = &[
    ("fifo", BatchOrder::Fifo),
    ("lifo", BatchOrder::Lifo),
    ("random", BatchOrder::Random),
];

/// Blocks on one side of `live`, if they are told.
fn band(table: &mut Table<'_>, key: &'static str) -> Read<Option<f64>> {
    let value = table.get(key);
    value.map(|value| value.number(0.0..=1e9)).transpose()
}

impl Lifetime {
    /// Reads a lifetime of the thing that `what` describes.
    pub fn read(value: &Value<'_>, what: &str) -> Read<Self> {
        let mut table = value.table(what)?;
        let lifetime = match table.need("kind")?.word(KINDS)? {
            Kind::Random => Self::Random,
            Kind::Fifo => Self::Fifo,
            Kind::Lifo => Self::Lifo,
            Kind::Exponential => Self::Exponential,
            Kind::Phase => Self::Phase,
            Kind::Bimodal => Self::Bimodal {
                short_share: table.need("short-share")?.number(0.0..=1.0)?,
                short_live: table.need("short-live")?.whole(0..=1 << 28)?,
            },
            Kind::Batch => Self::Batch {
                order: table.need("order")?.word(ORDERS)?,
            },
            Kind::Generational => Self::Generational {
                nursery: table.need("nursery")?.whole(1..=1 << 28)?,
                survive: table.need("survive")?.number(0.0..=1.0)?,
                generations: table.whole("generations", 1..=16, 1)? as u32,
            },
            Kind::BySize => Self::BySize {
                dies: table
                    .need("dies")?
                    .word(&[("small", Dies::Small), ("large", Dies::Large)])?,
                tries: table.whole("tries", 2..=64, 4)? as u32,
            },
            Kind::Zipf => Self::Zipf {
                exponent: table.need("exponent")?.number(0.0..=8.0)?,
            },
            Kind::Recency => {
                let near = table.number("near", 0.0..=1e9, 0.0)?;
                let ranks = match near > 0.0 {
                    true => Some(Distribution::read(&table.need("ranks")?, what, 0)?),
                    false => None,
                };
                let mut share = |key| table.number(key, 0.0..=1e9, 0.0);
                let lifetime = Self::Recency {
                    newest: share("newest")?,
                    near,
                    ranks,
                    next: share("next")?,
                    previous: share("previous")?,
                    oldest: share("oldest")?,
                    random: share("random")?,
                    run: table.number("run", 1.0..=1e9, 1.0)?,
                    above: band(&mut table, "above")?,
                    below: band(&mut table, "below")?,
                };
                if lifetime.recencies().iter().sum::<f64>() <= 0.0 {
                    return Err(table.fault(
                        "all shares of a recency lifetime are 0, expected one of newest, near, next, previous, oldest, random above 0",
                    ));
                }
                lifetime
            }
            Kind::Drawn => Self::Drawn {
                allocations: Distribution::read(&table.need("allocations")?, what, 1)?,
            },
        };
        table.finish()?;
        Ok(lifetime)
    }

    /// Shares of a recency lifetime: newest, near, next, previous, oldest, random.
    pub fn recencies(&self) -> [f64; 6] {
        match self {
            Self::Recency {
                newest,
                near,
                next,
                previous,
                oldest,
                random,
                ..
            } => [*newest, *near, *next, *previous, *oldest, *random],
            _ => [0.0; 6],
        }
    }
}
