//! The form of a model file, and the checks that TOML alone cannot make.

use crate::error::WorkloadError;
use serde::Deserialize;
use std::collections::HashSet;
use std::ops::Range;
use toml::Spanned;

/// A model file. Every part of it is checked when it is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Definition {
    /// Name by which it is asked for.
    pub name: String,
    /// What sort of model it is ("classic", "application", "fragmentation").
    pub kind: String,
    /// What it is for, one line.
    pub purpose: String,
    /// What it stresses, what a change in it means.
    pub analysis: String,
    /// Where the behaviour is described.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Calls of all threads together at scale 1.
    pub ops: u64,
    /// Kinds of threads.
    #[serde(deserialize_with = "unspanned")]
    pub role: Vec<Role>,
    /// Phases, one after the other; none: one phase without a name.
    #[serde(default)]
    pub phase: Vec<Phase>,
    /// Where each role begins in the file, bytes.
    #[serde(skip)]
    spans: Vec<Range<usize>>,
}

/// One kind of thread.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Role {
    /// Its name, by which `hand-over` names it.
    pub name: String,
    /// How many threads have this role; with another number of threads in all, the share.
    #[serde(default = "one")]
    pub threads: u32,
    /// Blocks that each thread keeps alive (the batch size for `batch`); 0: none of its own.
    #[serde(default)]
    pub live: u64,
    /// Sizes of its blocks; absent for a role that only frees what others hand to it.
    pub size: Option<Size>,
    /// Which blocks die.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// Share of allocations by calloc, 0 to 1.
    #[serde(default)]
    pub calloc: f64,
    /// Aligned allocations.
    pub aligned: Option<Aligned>,
    /// Blocks that grow by realloc.
    pub grow: Option<Grow>,
    /// Blocks that go to other threads.
    pub hand_over: Option<HandOver>,
    /// Pauses of each thread.
    pub pause: Option<Pause>,
    #[serde(skip)]
    span: Range<usize>,
}

/// A distribution of sizes, bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case")]
pub enum Size {
    /// Always the same.
    Fixed {
        /// Bytes.
        bytes: u32,
    },
    /// All between two bounds, both included, equally often.
    Uniform {
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// Some sizes with weights.
    Table {
        /// The sizes.
        bytes: Vec<u32>,
        /// How often, relative to each other.
        weights: Vec<f64>,
    },
    /// Some sizes, the n-th one in proportion to n^-exponent.
    Zipf {
        /// The sizes, the most frequent first.
        bytes: Vec<u32>,
        /// Exponent, above 0.
        exponent: f64,
    },
    /// The logarithm is normally distributed.
    LogNormal {
        /// Half of the blocks are smaller.
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
        /// Smallest size.
        min: u32,
        /// Larger draws become this.
        max: u32,
    },
    /// One of several distributions.
    Mixture {
        /// The parts.
        parts: Vec<Part>,
    },
}

/// A part of a mixture.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Part {
    /// How often, relative to the other parts.
    pub weight: f64,
    /// Its distribution.
    pub size: Size,
}

/// Which block dies when one must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case")]
pub enum Lifetime {
    /// Any of the live ones: the live set is full and each allocation replaces a block.
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
        /// Share of short-lived ones, 0 to 1.
        short_share: f64,
        /// How many short-lived ones are alive at once.
        short_live: u64,
    },
    /// `live` blocks are allocated, then all are freed.
    Batch {
        /// In which order.
        order: BatchOrder,
    },
}

/// The order in which a batch is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchOrder {
    /// As allocated.
    Fifo,
    /// The last one first.
    Lifo,
    /// By chance.
    Random,
}

/// Aligned allocations.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Aligned {
    /// Share of allocations, 0 to 1.
    pub share: f64,
    /// Alignments, powers of two, equally often.
    pub to: Vec<u64>,
}

/// Blocks start small and grow to the size drawn from the distribution; then they are freed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grow {
    /// First size, bytes.
    pub start: u32,
    /// Each step multiplies by this …
    #[serde(default = "factor_one")]
    pub factor: f64,
    /// … and adds this, bytes.
    #[serde(default)]
    pub step: u32,
}

/// How blocks come to other threads.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case")]
pub enum HandOver {
    /// After `every` calls each thread gives its whole live set to the next thread of its role.
    Ring {
        /// Calls between hand-overs.
        every: u64,
    },
    /// After `every` calls each thread starts a new one, which inherits its live set, and ends.
    Respawn {
        /// Calls of a thread's life.
        every: u64,
    },
    /// New blocks go through a queue to a thread of another role, which frees them.
    #[serde(rename_all = "kebab-case")]
    Queue {
        /// The other role.
        to: String,
        /// Blocks that wait in a queue at most; a full one stops its producers.
        depth: u64,
        /// Share of blocks that go this way, 0 to 1.
        #[serde(default = "all")]
        share: f64,
    },
    /// A block is freed by any other thread of the role.
    Random {
        /// Share of frees, 0 to 1.
        share: f64,
    },
}

/// Pauses: the thread sleeps.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pause {
    /// Calls between pauses.
    pub every: u64,
    /// Milliseconds.
    pub ms: u32,
}

/// A phase: what changes, for all roles that have sizes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Phase {
    /// Its name, a mark in the script.
    pub name: String,
    /// Share of the model's calls, relative to the other phases.
    pub share: f64,
    /// Share of the live blocks that are freed, by chance, when the phase begins.
    #[serde(default)]
    pub drop: f64,
    /// Factor on every role's `live`.
    #[serde(default = "all")]
    pub live_factor: f64,
    /// Sizes from now on; absent: the role's own.
    pub size: Option<Size>,
}

fn one() -> u32 {
    1
}

fn all() -> f64 {
    1.0
}

fn factor_one() -> f64 {
    1.0
}

fn unspanned<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Role>, D::Error> {
    let spanned = Vec::<Spanned<Role>>::deserialize(from)?;
    Ok(spanned
        .into_iter()
        .map(|role| {
            let span = role.span();
            Role {
                span,
                ..role.into_inner()
            }
        })
        .collect())
}

/// Reads and checks a definition; `file` is named in errors.
pub fn parse(text: &str, file: &str) -> Result<Definition, WorkloadError> {
    let at = |offset: usize, reason: String| WorkloadError::Model {
        file: file.to_owned(),
        line: text
            .bytes()
            .take(offset)
            .filter(|&byte| byte == b'\n')
            .count()
            + 1,
        reason,
    };
    let mut definition: Definition = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        at(offset, error.message().replace('\n', " "))
    })?;
    definition.spans = definition
        .role
        .iter()
        .map(|role| role.span.clone())
        .collect();
    check(&definition).map_err(|(role, reason)| {
        at(role.map_or(0, |role| definition.spans[role].start), reason)
    })?;
    Ok(definition)
}

type Fault = (Option<usize>, String);

fn check(definition: &Definition) -> Result<(), Fault> {
    let whole = |reason: &str| Err((None, reason.to_string()));
    let name = &definition.name;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return Err((
            None,
            format!("name '{name}' must consist of a-z, 0-9 and '-'"),
        ));
    }
    if definition.purpose.is_empty() || definition.purpose.contains('\n') {
        return whole("purpose must be one line");
    }
    if definition.analysis.trim().is_empty() {
        return whole("analysis must say what the model stresses and what a change means");
    }
    if definition.ops == 0 || definition.ops > 1 << 40 {
        return whole("ops must be at least 1 and at most 2^40");
    }
    if definition.role.is_empty() {
        return whole("expected at least one [[role]]");
    }
    let mut names = HashSet::new();
    for (index, role) in definition.role.iter().enumerate() {
        let fault = |reason: String| (Some(index), format!("role '{}': {reason}", role.name));
        if !names.insert(role.name.as_str()) {
            return Err(fault("another role has the same name".into()));
        }
        check_role(definition, role).map_err(fault)?;
    }
    for phase in &definition.phase {
        let fault = |reason: String| (None, format!("phase '{}': {reason}", phase.name));
        share("drop", phase.drop).map_err(fault)?;
        if !(phase.share > 0.0 && phase.share.is_finite()) {
            return Err(fault("share must be above 0".into()));
        }
        if !(0.0..=1e6).contains(&phase.live_factor) {
            return Err(fault("live-factor must be between 0 and 1e6".into()));
        }
        if let Some(size) = &phase.size {
            check_size(size).map_err(fault)?;
        }
    }
    Ok(())
}

fn check_role(definition: &Definition, role: &Role) -> Result<(), String> {
    if role.threads == 0 || role.threads > 4096 {
        return Err("threads must be between 1 and 4096".into());
    }
    if role.live > 1 << 28 {
        return Err("live must be at most 2^28 blocks".into());
    }
    match &role.size {
        Some(size) => check_size(size)?,
        None => {
            let fed = definition.role.iter().any(|other| {
                matches!(&other.hand_over, Some(HandOver::Queue { to, .. }) if *to == role.name)
            });
            if !fed {
                return Err(
                    "size is missing (only a role that a queue leads to needs none)".into(),
                );
            }
        }
    }
    share("calloc", role.calloc)?;
    if let Some(aligned) = &role.aligned {
        share("aligned.share", aligned.share)?;
        let sound = |to: &u64| to.is_power_of_two() && (2..=1 << 30).contains(to);
        if aligned.to.is_empty() || !aligned.to.iter().all(sound) {
            return Err("aligned.to must list powers of two from 2 to 2^30".into());
        }
    }
    if let Some(grow) = &role.grow {
        let grows = grow.step > 0 || grow.factor > 1.0;
        if grow.start == 0 || !grows || !(1.0..=64.0).contains(&grow.factor) {
            return Err("grow needs start ≥ 1 and a factor above 1 (at most 64) or a step".into());
        }
    }
    if let Lifetime::Bimodal { short_share, .. } = role.lifetime {
        share("lifetime.short_share", short_share)?;
    }
    if role
        .pause
        .is_some_and(|pause| pause.every == 0 || pause.ms > 60_000)
    {
        return Err("pause needs every ≥ 1 and at most 60000 ms".into());
    }
    let feeds = matches!(role.hand_over, Some(HandOver::Queue { share, .. }) if share >= 1.0);
    if role.size.is_some() && role.live == 0 && !feeds {
        return Err("live must be at least 1".into());
    }
    match &role.hand_over {
        Some(HandOver::Ring { every } | HandOver::Respawn { every }) if *every == 0 => {
            Err("hand-over.every must be at least 1".into())
        }
        Some(HandOver::Queue {
            to,
            depth,
            share: part,
        }) => {
            share("hand-over.share", *part)?;
            if *depth == 0 {
                return Err("hand-over.depth must be at least 1".into());
            }
            if *to == role.name || !definition.role.iter().any(|other| other.name == *to) {
                return Err(format!("hand-over.to names '{to}', expected another role"));
            }
            Ok(())
        }
        Some(HandOver::Random { share: part }) => share("hand-over.share", *part),
        _ => Ok(()),
    }
}

fn share(what: &str, value: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(format!("{what} is {value}, expected a share from 0 to 1"))
}

/// Largest block of a model, bytes.
const MAX_BYTES: u32 = 1 << 30;

fn check_size(size: &Size) -> Result<(), String> {
    let bounds = |min: u32, max: u32| {
        if min <= max && max <= MAX_BYTES {
            return Ok(());
        }
        Err(format!(
            "size: expected min ≤ max ≤ 2^30, found {min} and {max}"
        ))
    };
    let listed = |bytes: &[u32]| {
        if bytes.is_empty() || bytes.len() > 1 << 16 {
            return Err("size: expected 1 to 65536 entries in bytes".to_string());
        }
        bounds(0, bytes.iter().copied().max().unwrap_or(0))
    };
    let weights = |weights: &mut dyn Iterator<Item = f64>| {
        let mut sum = 0.0;
        for weight in weights {
            if !(0.0..=1e12).contains(&weight) {
                return Err(format!("size: {weight} is no weight"));
            }
            sum += weight;
        }
        if sum > 0.0 {
            Ok(())
        } else {
            Err("size: all weights are 0".to_string())
        }
    };
    match size {
        Size::Fixed { bytes } => bounds(0, *bytes),
        Size::Uniform { min, max } => bounds(*min, *max),
        Size::Table {
            bytes,
            weights: given,
        } => {
            listed(bytes)?;
            if bytes.len() != given.len() {
                return Err(format!(
                    "size: {} bytes but {} weights",
                    bytes.len(),
                    given.len()
                ));
            }
            weights(&mut given.iter().copied())
        }
        Size::Zipf { bytes, exponent } => {
            listed(bytes)?;
            if (0.0..=20.0).contains(exponent) {
                return Ok(());
            }
            Err(format!("size: exponent is {exponent}, expected 0 to 20"))
        }
        Size::LogNormal {
            median,
            sigma,
            min,
            max,
        } => {
            bounds(*min, *max)?;
            if *median >= 1 && (0.0..=10.0).contains(sigma) {
                return Ok(());
            }
            Err("size: expected median ≥ 1 and sigma from 0 to 10".into())
        }
        Size::Pareto { alpha, min, max } => {
            bounds(*min, *max)?;
            if *min >= 1 && (0.05..=100.0).contains(alpha) {
                return Ok(());
            }
            Err("size: expected min ≥ 1 and alpha from 0.05 to 100".into())
        }
        Size::Mixture { parts } => {
            weights(&mut parts.iter().map(|part| part.weight))?;
            parts.iter().try_for_each(|part| match part.size {
                Size::Mixture { .. } => Err("size: a mixture cannot contain a mixture".to_string()),
                ref size => check_size(size),
            })
        }
    }
}
