//! A group: blocks of one thread that share sizes, lifetime and fate.

use super::distribution::{Distribution, MAX_VALUE};
use super::lifetime::Lifetime;
use crate::model::decode::{Read, Table, Value};
use serde::Serialize;

/// Blocks that share sizes, lifetime and fate. Each thread of the role has its own set of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Group {
    /// Its name, by which phases change it.
    pub name: String,
    /// How often a thread turns to this group, relative to the others of the role.
    pub weight: f64,
    /// Calls in a row when it does.
    pub run: u32,
    /// Blocks that each thread keeps alive (the batch size for `batch`); 0: none of its own.
    #[serde(skip_serializing_if = "is_zero")]
    pub live: u64,
    /// Bytes that each thread keeps alive, in place of `live`.
    #[serde(skip_serializing_if = "is_zero")]
    pub live_bytes: u64,
    /// Sizes of its blocks; absent for a role that only frees what others hand to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Distribution>,
    /// Which blocks die.
    pub lifetime: Lifetime,
    /// Share of allocations by calloc.
    #[serde(skip_serializing_if = "is_nothing")]
    pub calloc: f64,
    /// Blocks of which the program writes only a part.
    #[serde(skip_serializing_if = "Written::whole")]
    pub written: Written,
    /// Aligned allocations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aligned: Option<Aligned>,
    /// Blocks that grow to their size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grow: Option<Grow>,
    /// Share of this group's calls that give a random live block a new size.
    #[serde(skip_serializing_if = "is_nothing")]
    pub resize: f64,
    /// Blocks that go to other threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<HandOver>,
    /// How its live set and its weight change over the model's calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub course: Option<Course>,
}

/// How a group changes over the model's calls, which are cut into equal parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Course {
    /// Factor on `live` or `live-bytes` at the end of each part; straight lines between, from 0 at the beginning.
    pub live: Vec<f64>,
    /// Factor on `weight` in each part.
    pub weight: Vec<f64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_nothing(share: &f64) -> bool {
    *share == 0.0
}

/// Blocks of which the program writes only a part, from their beginning. Phrases name theirs; of the others it is a share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Written {
    /// Share of the allocations that no phrase names.
    pub share: f64,
    /// Share of such a block's bytes that is written.
    pub part: f64,
}

/// Aligned allocations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Aligned {
    /// Share of allocations.
    pub share: f64,
    /// Alignments, powers of two, equally often.
    pub to: Vec<u64>,
}

/// Blocks start small and grow to the size drawn from the distribution. A block may only be freed by its lifetime when a
/// random look finds it at its full size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grow {
    /// First size, bytes.
    pub start: u32,
    /// Each step multiplies by this …
    pub factor: f64,
    /// … and adds this, bytes.
    pub step: u32,
    /// How a step is made.
    pub by: GrowBy,
}

/// How a block becomes larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrowBy {
    /// One call of realloc.
    #[default]
    Realloc,
    /// A new block, and a free of the old one: what containers of C++ do.
    Copy,
}

/// How blocks come to other threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum HandOver {
    /// New blocks go through a queue to a thread of another role, which frees them.
    Queue {
        /// The other role.
        to: String,
        /// Blocks that wait in a thread's queue at most; a full one stops its producers.
        depth: u64,
        /// Share of blocks that go this way.
        share: f64,
        /// Blocks that travel together.
        batch: u64,
        /// Blocks that the receiver keeps before it frees the oldest.
        hold: u64,
    },
    /// A block is freed by any other thread of the role, or by one of another role.
    Random {
        /// Share of blocks.
        share: f64,
        /// The other role; `None`: the same.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// A new block is put into a random place of a table that all threads of the role share; what lay there becomes a
    /// block of the thread's own.
    Exchange {
        /// Share of blocks.
        share: f64,
        /// Places of the table.
        places: u64,
    },
}

#[derive(Clone, Copy)]
enum HandOverKind {
    Queue,
    Random,
    Exchange,
}

const HAND_OVERS: &[(&str, HandOverKind)] = &[
    ("queue", HandOverKind::Queue),
    ("random", HandOverKind::Random),
    ("exchange", HandOverKind::Exchange),
];

impl Group {
    /// Reads the keys of a group from its own table, or from that of a role with only one group. `hand_over` is the value of
    /// that key, which a role may want for itself.
    pub fn read(table: &mut Table<'_>, name: &str, hand_over: Option<Value<'_>>) -> Read<Self> {
        let what = table.what().to_owned();
        let live = table.get("live");
        let live_bytes = table.get("live-bytes");
        if let (Some(_), Some(bytes)) = (&live, &live_bytes) {
            return Err(bytes.fault("`live` and `live-bytes` exclude each other"));
        }
        let blocks = live
            .as_ref()
            .map_or(Ok(0), |value| value.whole(1..=1 << 28))?;
        let bytes = live_bytes
            .as_ref()
            .map_or(Ok(0), |value| value.whole(1..=1 << 40))?;
        let lifetime = table
            .get("lifetime")
            .map_or(Ok(Lifetime::Random), |value| Lifetime::read(&value, &what))?;
        let size = table
            .get("size")
            .map(|value| Distribution::read(&value, &what, 0))
            .transpose()?;
        let group = Self {
            name: name.to_owned(),
            weight: table
                .get("weight")
                .map_or(Ok(1.0), |value| value.number(0.0..=1e9))?,
            run: table.whole("run", 1..=1 << 20, 1)? as u32,
            live: blocks,
            live_bytes: bytes,
            size,
            lifetime,
            calloc: table.share("calloc", 0.0)?,
            written: table
                .get("written")
                .map_or(Ok(Written::WHOLE), |value| Written::read(&value, &what))?,
            aligned: table
                .get("aligned")
                .map(|value| Aligned::read(&value, &what))
                .transpose()?,
            grow: table
                .get("grow")
                .map(|value| Grow::read(&value, &what))
                .transpose()?,
            resize: table.share("resize", 0.0)?,
            hand_over: hand_over
                .map(|value| HandOver::read(&value, &what))
                .transpose()?,
            course: table
                .get("course")
                .map(|value| Course::read(&value, &what))
                .transpose()?,
        };
        let all_leave =
            matches!(group.hand_over, Some(HandOver::Queue { share, .. }) if share >= 1.0);
        let needs_live = !matches!(group.lifetime, Lifetime::Drawn { .. } | Lifetime::Phase);
        if group.size.is_some() && needs_live && !all_leave && blocks == 0 && bytes == 0 {
            table.refuse_unknown()?;
            return Err(table.fault(
                "`live` is missing, expected the number of blocks that a thread keeps alive",
            ));
        }
        let drawn = matches!(group.lifetime, Lifetime::Drawn { .. });
        if let Some(live) = live.as_ref().or(live_bytes.as_ref())
            && drawn
        {
            return Err(live.fault(
                "`live` and `live-bytes` follow from the ages of a drawn lifetime: leave them out",
            ));
        }
        if group.calloc + group.aligned.as_ref().map_or(0.0, |aligned| aligned.share) > 1.0 {
            return Err(table.fault("the shares of calloc and aligned together are above 1"));
        }
        Ok(group)
    }
}

impl Written {
    const WHOLE: Self = Self {
        share: 1.0,
        part: 1.0,
    };

    fn whole(&self) -> bool {
        *self == Self::WHOLE
    }

    fn read(value: &Value<'_>, what: &str) -> Read<Self> {
        if let Ok(part) = value.number(0.0..=1.0) {
            return Ok(Self { share: 1.0, part });
        }
        let mut table = value
            .table(what)
            .map_err(|_| value.expected("a number from 0 to 1, or { share, part }"))?;
        let share = table.need("share")?.number(0.0..=1.0)?;
        let part = table.need("part")?.number(0.0..=1.0)?;
        table.finish()?;
        Ok(Self { share, part })
    }
}

impl Aligned {
    fn read(value: &Value<'_>, what: &str) -> Read<Self> {
        let mut table = value.table(what)?;
        let share = table.need("share")?.number(0.0..=1.0)?;
        let to = table.need("to")?;
        let list = to.list()?;
        if list.is_empty() || list.len() > 64 {
            return Err(to.expected("1 to 64 powers of two"));
        }
        let to = list
            .iter()
            .map(|number| {
                let to = number.whole(2..=MAX_VALUE)?;
                if to.is_power_of_two() {
                    Ok(to)
                } else {
                    Err(number.expected("a power of two"))
                }
            })
            .collect::<Read<_>>()?;
        table.finish()?;
        Ok(Self { share, to })
    }
}

impl Grow {
    fn read(value: &Value<'_>, what: &str) -> Read<Self> {
        let mut table = value.table(what)?;
        let grow = Self {
            start: table.need("start")?.whole(1..=MAX_VALUE)? as u32,
            factor: table
                .get("factor")
                .map_or(Ok(1.0), |value| value.number(1.0..=64.0))?,
            step: table.whole("step", 0..=MAX_VALUE, 0)? as u32,
            by: table.get("by").map_or(Ok(GrowBy::Realloc), |value| {
                value.word(&[("realloc", GrowBy::Realloc), ("copy", GrowBy::Copy)])
            })?,
        };
        if grow.factor <= 1.0 && grow.step == 0 {
            return Err(value.fault("`grow` needs a `factor` above 1 or a `step`"));
        }
        table.finish()?;
        Ok(grow)
    }
}

impl Course {
    fn read(value: &Value<'_>, what: &str) -> Read<Self> {
        let mut table = value.table(what)?;
        let factors = |value: &Value<'_>| -> Read<Vec<f64>> {
            let list = value.list()?;
            if list.is_empty() || list.len() > 4096 {
                return Err(value.expected("1 to 4096 factors"));
            }
            list.iter().map(|one| one.number(0.0..=1e9)).collect()
        };
        let live = factors(&table.need("live")?)?;
        let weights = table.need("weight")?;
        let weight = factors(&weights)?;
        if weight.len() != live.len() {
            return Err(weights.fault(format_args!(
                "a course has {} factors of `weight` and {} of `live`, expected as many",
                weight.len(),
                live.len()
            )));
        }
        table.finish()?;
        Ok(Self { live, weight })
    }
}

impl HandOver {
    /// The role that it leads to, where that is another one.
    pub fn to(&self) -> Option<&str> {
        match self {
            Self::Queue { to, .. } => Some(to),
            Self::Random { to, .. } => to.as_deref(),
            Self::Exchange { .. } => None,
        }
    }

    fn read(value: &Value<'_>, what: &str) -> Read<Self> {
        let mut table = value.table(what)?;
        let hand_over = match table.need("kind")?.word(HAND_OVERS)? {
            HandOverKind::Queue => {
                let depth = table.need("depth")?;
                let queue = Self::Queue {
                    to: table.need("to")?.text()?.to_owned(),
                    depth: depth.whole(1..=1 << 28)?,
                    share: table.share("share", 1.0)?,
                    batch: table.whole("batch", 1..=1 << 20, 1)?,
                    hold: table.whole("hold", 0..=1 << 28, 0)?,
                };
                if let Self::Queue {
                    depth: room, hold, ..
                } = queue
                    && hold >= room
                {
                    return Err(depth.expected("a number above `hold`"));
                }
                queue
            }
            HandOverKind::Random => Self::Random {
                share: table.need("share")?.number(0.0..=1.0)?,
                to: table
                    .get("to")
                    .map(|to| to.text().map(str::to_owned))
                    .transpose()?,
            },
            HandOverKind::Exchange => Self::Exchange {
                share: table.share("share", 1.0)?,
                places: table.need("places")?.whole(1..=1 << 24)?,
            },
        };
        table.finish()?;
        Ok(hand_over)
    }
}
