//! A definition and its parameters as tables: everything that needs floating point happens here, once.

use super::ModelParams;
use super::alias::Alias;
use super::definition::{
    Call, Definition, DropOrder, Group, GrowBy, HandOver, Lifetime, Phrase, Recall, Role,
    Succession,
};
use super::sampler::{Sampler, threshold};
use super::threads;
use crate::error::WorkloadError;

/// Calls of a thread's life at least: a smaller scale would make scripts of nothing but thread starts.
const SHORTEST_LIFE: u64 = 2;

/// Turns of a group in a part of a course that are few.
const RARE: f64 = 16.0;

/// Everything that playing a model needs.
#[derive(Debug)]
pub struct Plan {
    pub roles: Vec<RolePlan>,
    /// Role of each thread that exists from the beginning.
    pub threads: Vec<usize>,
    pub phases: Vec<PhasePlan>,
    pub rounds: u32,
    pub calls: u64,
    pub seed: u64,
    pub scale: f64,
    /// No thread ever touches another one's blocks or waits for it.
    pub separate: bool,
}

/// A role with its tables.
#[derive(Debug)]
pub struct RolePlan {
    pub groups: Vec<GroupPlan>,
    pub burst: u64,
    /// Share of the calls over which its threads start.
    pub ramp: f64,
    /// Calls between pauses, and their length in nanoseconds.
    pub pause: Option<(u64, u64)>,
    /// Calls between hand-overs of whole live sets; `u64::MAX`: never.
    pub every: u64,
    pub succession: Option<Succession>,
    /// Its phrases' calls.
    pub phrases: Vec<PhrasePlan>,
    pub recall: Option<Recall>,
    /// Received blocks that a thread keeps before it frees the oldest.
    pub hold: usize,
    /// Other threads may touch blocks of its groups.
    pub crosses: bool,
    /// It has one group, which is [`GroupPlan::straight`].
    pub lone: bool,
    /// All its groups are [`GroupPlan::drawn`].
    pub drawn: bool,
}

/// A group with its tables.
#[derive(Debug)]
pub struct GroupPlan {
    /// Blocks or bytes that are alive at a live factor of 1.
    pub live: u64,
    pub in_bytes: bool,
    /// What is added to a target before its fraction is dropped.
    pub rounding: f64,
    /// Deaths in a row.
    pub deaths: u64,
    /// How far phrases may lead the live set above and below its target.
    pub swing: (u64, u64),
    /// Calls in a row when a thread turns to it.
    pub run: u32,
    /// The group's own sizes, then those of phases. Empty: it never allocates.
    pub sizes: Vec<Sampler>,
    pub lifetime: Lifetime,
    pub rule: Rule,
    pub calloc: u64,
    /// Of blocks that are written in part, 2^32 for all of their bytes.
    pub written: u64,
    /// Share of the allocations that no phrase names of which only that part is written, 2^32 for all.
    pub partly: u64,
    pub aligned: u64,
    pub align_log2: Vec<u8>,
    pub grow: Option<GrowPlan>,
    pub resize: u64,
    pub hand: Hand,
    /// All its blocks may go to other threads.
    pub ring: bool,
    /// A call for it does nothing but allocate or free one block, and leaves nothing for its thread to do before the next one:
    /// nothing can come between such calls.
    pub straight: bool,
}

/// What a lifetime means for the next step, to be told apart at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Blocks die when their time has come, whatever the live set is.
    Surplus,
    /// None dies.
    Phase,
    /// A death or a birth by chance.
    Exponential,
    /// A stack, up and down.
    Lifo,
    /// Deaths in runs.
    Recency,
    /// All die when there are enough.
    Batch,
    /// One dies for one that is born into a full set.
    Full,
}

impl Rule {
    fn of(lifetime: &Lifetime) -> Self {
        match lifetime {
            Lifetime::Drawn { .. } | Lifetime::Generational { .. } => Self::Surplus,
            Lifetime::Phase => Self::Phase,
            Lifetime::Exponential => Self::Exponential,
            Lifetime::Lifo => Self::Lifo,
            Lifetime::Recency { .. } => Self::Recency,
            Lifetime::Batch { .. } => Self::Batch,
            Lifetime::Random
            | Lifetime::Fifo
            | Lifetime::Bimodal { .. }
            | Lifetime::BySize { .. }
            | Lifetime::Zipf { .. } => Self::Full,
        }
    }

    /// Whether a group never gets full: then its blocks grow as it allocates.
    pub fn grows_always(self) -> bool {
        matches!(self, Self::Surplus | Self::Exponential)
    }
}

/// A phrase with what follows it.
#[derive(Debug)]
pub struct PhrasePlan {
    pub calls: Vec<Call>,
    /// Bounds for the upper 32 bits of a random word, increasing, and the phrases below them.
    pub then: Vec<(u64, usize)>,
}

/// How blocks grow.
#[derive(Clone, Copy, Debug)]
pub struct GrowPlan {
    pub start: u32,
    pub factor: f64,
    pub step: u32,
    pub copy: bool,
}

/// How blocks come to other threads.
#[derive(Clone, Copy, Debug)]
pub enum Hand {
    Keep,
    Queue {
        role: usize,
        depth: usize,
        share: u64,
        batch: usize,
    },
    Random {
        share: u64,
        /// The role whose threads free; `None`: the own one.
        role: Option<usize>,
    },
    Exchange {
        share: u64,
        /// Number of the table.
        table: usize,
        places: u64,
    },
}

/// A phase with its tables.
#[derive(Debug)]
pub struct PhasePlan {
    pub share: f64,
    pub name: Option<String>,
    /// For each role, for each of its groups.
    pub groups: Vec<Vec<GroupPhase>>,
    /// For each role: which group comes next; `None`: the role rests, all its weights are 0 in this phase.
    pub pick: Vec<Option<Alias>>,
    /// For each role with phrases: which comes next, and which are said at all.
    pub phrase: Vec<Option<(Alias, Vec<bool>)>>,
    /// For each role, where its share of the calls follows from courses: own calls of a thread in a turn, on average.
    pub turn: Vec<Option<f64>>,
}

/// What a phase means for a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupPhase {
    pub drop: f64,
    pub order: DropOrder,
    pub factor: f64,
    /// The factor moves in a straight line from that of the phase before.
    pub ramp: bool,
    /// So few turns that chance must not decide whether they come: its live set is brought to the factor at once.
    pub rare: bool,
    /// Index into the group's sizes.
    pub sampler: usize,
}

impl Plan {
    /// Checks the parameters and builds the tables.
    pub fn new(definition: &Definition, params: &ModelParams) -> Result<Self, WorkloadError> {
        let scale = params.scale;
        if !(scale > 0.0 && scale <= 1e6) {
            return Err(WorkloadError::Parameters(format!(
                "scale {scale} is not possible: give a number above 0, at most 1000000"
            )));
        }
        let threads = threads::assign(definition, params.threads)?;
        let mut tables = 0;
        let mut roles: Vec<RolePlan> = definition
            .roles
            .iter()
            .map(|role| role_plan(definition, role, scale, &mut tables))
            .collect();
        for role in &definition.roles {
            for group in &role.groups {
                if let Some(HandOver::Queue { to, hold, .. }) = &group.hand_over
                    && let Some(receiver) = position(definition, to)
                {
                    let held = &mut roles[receiver].hold;
                    // What a receiver keeps is a live set.
                    *held = (*held).max(match hold {
                        0 => 0,
                        hold => scaled(*hold, scale) as usize,
                    });
                }
            }
        }
        let phases = phases(definition, &mut roles);
        for (index, role) in roles.iter_mut().enumerate() {
            for group in &mut role.groups {
                group.straight = group.is_straight(index);
                role.crosses |= group.ring || !matches!(group.hand, Hand::Keep);
            }
            role.lone = matches!(&role.groups[..], [group] if group.straight);
            role.drawn = !role.groups.is_empty() && role.groups.iter().all(GroupPlan::drawn);
        }
        // Alone, threads share the calls evenly: not so where one rests.
        let rests = (phases.iter()).any(|phase| phase.pick.iter().any(Option::is_none));
        // Nor where the roles' shares change over time.
        let courses = (definition.roles.iter().flat_map(|role| &role.groups))
            .any(|group| group.course.is_some());
        let shifts = rests || courses && definition.roles.len() > 1;
        let separate = !shifts
            && roles.iter().all(|role| {
                role.succession.is_none()
                    && role.ramp == 0.0
                    && role
                        .groups
                        .iter()
                        .all(|group| matches!(group.hand, Hand::Keep))
            });
        Ok(Self {
            roles,
            threads,
            phases,
            rounds: definition.rounds,
            calls: scaled(definition.ops, scale),
            seed: params.seed,
            scale,
            separate,
        })
    }

    /// Calls of the whole model when a phase ends.
    pub fn end_of(&self, round: u32, phase: usize) -> u64 {
        let sum: f64 = self.phases.iter().map(|phase| phase.share).sum();
        let within: f64 = self.phases[..=phase].iter().map(|phase| phase.share).sum();
        if round + 1 == self.rounds && phase + 1 == self.phases.len() {
            return self.calls;
        }
        let done = f64::from(round) + within / sum;
        (self.calls as f64 * (done / f64::from(self.rounds))) as u64
    }
}

fn scaled(value: u64, scale: f64) -> u64 {
    ((value as f64 * scale) as u64).max(1)
}

fn position(definition: &Definition, name: &str) -> Option<usize> {
    definition.roles.iter().position(|role| role.name == name)
}

fn role_plan(definition: &Definition, role: &Role, scale: f64, tables: &mut usize) -> RolePlan {
    let ring = matches!(role.succession, Some(Succession::Ring { .. }));
    RolePlan {
        groups: role
            .groups
            .iter()
            .map(|group| group_plan(definition, group, scale, ring, tables))
            .collect(),
        burst: u64::from(role.burst),
        ramp: role.ramp,
        pause: role
            .pause
            .map(|pause| (pause.every, u64::from(pause.ms) * 1_000_000)),
        every: match role.succession {
            Some(Succession::Ring { every } | Succession::Respawn { every, .. }) => {
                scaled(every, scale).max(SHORTEST_LIFE)
            }
            None => u64::MAX,
        },
        succession: role.succession,
        phrases: (role.phrases.iter()).map(phrase_plan).collect(),
        recall: role.recall,
        hold: 0,
        crosses: false,
        lone: false,
        drawn: false,
    }
}

fn phrase_plan(phrase: &Phrase) -> PhrasePlan {
    let mut sum = 0.0;
    let bound = |&(index, percent): &(usize, f64)| {
        sum += percent / 100.0;
        (threshold(f64::min(sum, 1.0)), index)
    };
    PhrasePlan {
        calls: phrase.calls.clone(),
        then: phrase.followers.iter().map(bound).collect(),
    }
}

fn group_plan(
    definition: &Definition,
    group: &Group,
    scale: f64,
    ring: bool,
    tables: &mut usize,
) -> GroupPlan {
    let in_bytes = group.live_bytes > 0;
    let live = if in_bytes {
        group.live_bytes
    } else {
        group.live
    };
    let aligned = group.aligned.as_ref();
    GroupPlan {
        live: if live == 0 { 0 } else { scaled(live, scale) },
        in_bytes,
        rounding: if group.course.is_some() { 0.5 } else { 0.0 },
        deaths: match group.lifetime {
            Lifetime::Recency { run, .. } => run as u64,
            _ => 1,
        },
        swing: match group.lifetime {
            Lifetime::Recency {
                run, above, below, ..
            } => {
                let blocks = |told: Option<f64>| match told {
                    // A wave of a block or two is no smaller in a smaller model.
                    Some(blocks) => (blocks * scale).max(blocks.min(2.0)) as u64,
                    None => (2.0 * run) as u64,
                };
                (blocks(above), blocks(below))
            }
            _ => (2, 2),
        },
        run: group.run,
        sizes: group.size.iter().map(Sampler::new).collect(),
        lifetime: scaled_lifetime(&group.lifetime, scale),
        rule: Rule::of(&group.lifetime),
        calloc: threshold(group.calloc),
        written: threshold(group.written.part),
        partly: threshold(group.written.share),
        aligned: threshold(aligned.map_or(0.0, |aligned| aligned.share)),
        align_log2: aligned
            .map(|aligned| aligned.to.iter().map(|to| to.ilog2() as u8).collect())
            .unwrap_or_default(),
        grow: group.grow.as_ref().map(|grow| GrowPlan {
            start: grow.start,
            factor: grow.factor,
            step: grow.step,
            copy: grow.by == GrowBy::Copy,
        }),
        resize: threshold(group.resize),
        hand: match &group.hand_over {
            None => Hand::Keep,
            Some(HandOver::Queue {
                to,
                depth,
                share,
                batch,
                ..
            }) => Hand::Queue {
                // Reading has checked the name.
                role: position(definition, to).unwrap_or(0),
                depth: *depth as usize,
                share: threshold(*share),
                batch: *batch as usize,
            },
            Some(HandOver::Random { share, to }) => Hand::Random {
                share: threshold(*share),
                role: to.as_deref().and_then(|to| position(definition, to)),
            },
            Some(HandOver::Exchange { share, places }) => {
                *tables += 1;
                Hand::Exchange {
                    share: threshold(*share),
                    table: *tables - 1,
                    places: *places,
                }
            }
        },
        ring,
        straight: false,
    }
}

impl GroupPlan {
    /// Blocks or bytes to keep alive when so much of the way between two live factors is gone.
    #[inline]
    pub fn target(&self, (from, to): (f64, f64), progress: f64) -> u64 {
        let factor = from + (to - from) * progress;
        let target = (self.live as f64 * factor + self.rounding) as u64;
        // A set that begins with nothing has a block: a phase goes on by its calls, and nobody would make the first.
        target.max(u64::from(from < to && self.live > 0))
    }

    /// Whether it is straight and knows nothing but malloc and free of blocks that draw their ages, which others free by chance if at all.
    fn drawn(&self) -> bool {
        let ages = matches!(self.lifetime, Lifetime::Drawn { .. });
        let hand = matches!(self.hand, Hand::Keep | Hand::Random { .. });
        self.straight && ages && hand && self.calloc | self.aligned == 0
    }

    /// See [`GroupPlan::straight`], for a group of the role with this index, when all sizes are known.
    fn is_straight(&self, own: usize) -> bool {
        let to_own = match self.hand {
            Hand::Queue { role, .. } => role == own,
            Hand::Random { role, .. } => role == Some(own),
            Hand::Exchange { .. } | Hand::Keep => false,
        };
        let whole = self.written == threshold(1.0);
        let steady = self.grow.is_none() && self.resize == 0;
        steady && whole && !to_own && !self.in_bytes && !self.sizes.is_empty()
    }
}

/// Live sets inside a lifetime scale as `live` does.
fn scaled_lifetime(lifetime: &Lifetime, scale: f64) -> Lifetime {
    match lifetime {
        Lifetime::Generational {
            nursery,
            survive,
            generations,
        } => Lifetime::Generational {
            nursery: scaled(*nursery, scale),
            survive: *survive,
            generations: *generations,
        },
        other => other.clone(),
    }
}

/// Phases with what they mean for each group; adds their sizes to the groups.
fn phases(definition: &Definition, roles: &mut [RolePlan]) -> Vec<PhasePlan> {
    let own = GroupPhase {
        drop: 0.0,
        order: DropOrder::Random,
        factor: 1.0,
        ramp: false,
        rare: false,
        sampler: 0,
    };
    let groups = || definition.roles.iter().flat_map(|role| &role.groups);
    if let Some(course) = groups().find_map(|group| group.course.as_ref()) {
        let parts = course.live.len();
        return (0..parts)
            .map(|part| PhasePlan {
                share: definition.parts.get(part).copied().unwrap_or(1.0),
                ..part_of_courses(definition, part, own)
            })
            .collect();
    }
    if definition.phases.is_empty() {
        return vec![PhasePlan {
            share: 1.0,
            phrase: phrase_picks(definition, 0),
            turn: vec![None; roles.len()],
            name: None,
            groups: roles
                .iter()
                .map(|role| vec![own; role.groups.len()])
                .collect(),
            pick: definition
                .roles
                .iter()
                .map(|role| pick(role, |group| group.weight))
                .collect(),
        }];
    }
    let mut plans = Vec::new();
    for phase in &definition.phases {
        let mut groups = Vec::new();
        let mut picks = Vec::new();
        for (role, plan) in definition.roles.iter().zip(&mut *roles) {
            let mut weights = Vec::new();
            let mut of_role = Vec::new();
            for (group, tables) in role.groups.iter().zip(&mut plan.groups) {
                let mut change = phase.all.clone();
                for particular in &phase.changes {
                    let meant = particular.group == group.name
                        && particular
                            .role
                            .as_ref()
                            .is_none_or(|name| *name == role.name);
                    if meant {
                        change = change.but(&particular.change);
                    }
                }
                let sampler = match &change.size {
                    Some(size) if group.size.is_some() => {
                        tables.sizes.push(Sampler::new(size));
                        tables.sizes.len() - 1
                    }
                    _ => 0,
                };
                weights.push(change.weight.unwrap_or(group.weight));
                of_role.push(GroupPhase {
                    drop: change.drop.unwrap_or(0.0),
                    order: change.drop_order.unwrap_or_default(),
                    factor: change.live_factor.unwrap_or(1.0),
                    ramp: phase.ramp,
                    rare: false,
                    sampler,
                });
            }
            let mut next = weights.into_iter();
            picks.push(pick(role, |_| next.next().unwrap_or(0.0)));
            groups.push(of_role);
        }
        plans.push(PhasePlan {
            share: phase.share,
            phrase: phrase_picks(definition, 0),
            turn: vec![None; roles.len()],
            name: Some(phase.name.clone()),
            groups,
            pick: picks,
        });
    }
    plans
}

/// One of the parts into which courses cut the calls. Roles share its calls in proportion to their weights.
fn part_of_courses(definition: &Definition, part: usize, own: GroupPhase) -> PhasePlan {
    let weight = |group: &Group, part: usize| {
        let factor = (group.course.as_ref()).map_or(1.0, |course| course.weight[part]);
        group.weight * factor
    };
    let calls = |role: &Role, part: usize| -> f64 {
        (role.groups.iter())
            .map(|group| weight(group, part) * f64::from(group.run))
            .sum()
    };
    let of_all: f64 = definition.roles.iter().map(|role| calls(role, part)).sum();
    // Calls of a round: those of the role with the longest turns are as many as it says.
    let round = (definition.roles.iter())
        .map(|role| f64::from(role.burst) * f64::from(role.threads))
        .fold(1.0, f64::max);
    let turn = |role: &Role| {
        Some(round * calls(role, part) / of_all.max(1e-300) / f64::from(role.threads))
    };
    let of_group = |group: &Group| match &group.course {
        Some(course) => {
            let share = weight(group, part) / of_all.max(1e-300);
            let turns = definition.ops as f64 * definition.part(part, course.live.len()) * share;
            GroupPhase {
                factor: course.live[part],
                ramp: true,
                rare: turns < RARE,
                ..own
            }
        }
        None => own,
    };
    // What rare groups owe at the beginning is made then, not by chance.
    let by_chance = |role: &Role, group: &Group| {
        let plain = weight(group, part);
        let (true, Some(course)) = (of_group(group).rare, &group.course) else {
            return plain;
        };
        let length = definition.part(part, course.live.len());
        let calls =
            definition.ops as f64 * length * plain / of_all.max(1e-300) * f64::from(group.run);
        let before = part.checked_sub(1).map_or(0.0, |last| course.live[last]);
        let owed = (course.live[part] - before).abs()
            * group.live.max(u64::from(group.live_bytes > 0)) as f64
            * f64::from(role.threads);
        plain * (1.0 - owed / calls.max(1e-300)).max(0.0)
    };
    PhasePlan {
        share: 1.0,
        name: None,
        groups: (definition.roles.iter())
            .map(|role| {
                let groups = role.groups.iter();
                groups.map(of_group).collect()
            })
            .collect(),
        pick: (definition.roles.iter())
            .map(|role| pick(role, |group| by_chance(role, group)))
            .collect(),
        phrase: phrase_picks(definition, part),
        turn: definition.roles.iter().map(turn).collect(),
    }
}

fn phrase_picks(definition: &Definition, part: usize) -> Vec<Option<(Alias, Vec<bool>)>> {
    let pick = |role: &Role| {
        let weights: Vec<f64> = (role.phrases.iter())
            .map(|phrase| phrase.weight_in(part))
            .collect();
        let said = weights.iter().map(|weight| *weight > 0.0).collect();
        (weights.iter().sum::<f64>() > 0.0).then(|| (Alias::new(&weights), said))
    };
    definition.roles.iter().map(pick).collect()
}

fn pick(role: &Role, weight: impl FnMut(&Group) -> f64) -> Option<Alias> {
    let weights: Vec<f64> = role.groups.iter().map(weight).collect();
    (weights.iter().sum::<f64>() > 0.0).then(|| Alias::new(&weights))
}
