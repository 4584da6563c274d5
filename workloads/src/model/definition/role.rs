//! A role: threads that do the same.

use super::MOST_THREADS;
use super::group::Group;
use super::phrase::Phrase;
use crate::model::decode::{Read, Table, Value};
use serde::Serialize;

/// One kind of thread.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Role {
    /// Its name, by which queues name it.
    pub name: String,
    /// How many threads have this role; with another number of threads in all, the share.
    pub threads: u32,
    /// Calls that a thread makes before another takes its turn in the global order: on average.
    pub burst: u32,
    /// Share of the model's calls over which the threads of the role start one after the other; 0: all at the beginning.
    #[serde(skip_serializing_if = "is_nothing")]
    pub ramp: f64,
    /// Pauses of each thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// What becomes of the whole live set now and then.
    #[serde(rename = "hand-over", skip_serializing_if = "Option::is_none")]
    pub succession: Option<Succession>,
    /// Calls that its threads make in a row; none: each call is drawn for itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phrases: Vec<Phrase>,
    /// How its threads say again what they said before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<Recall>,
    /// Its blocks, at least one group.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
}

fn is_nothing(share: &f64) -> bool {
    *share == 0.0
}

/// Pauses: the thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pause {
    /// Calls between pauses.
    pub every: u64,
    /// Milliseconds.
    pub ms: u32,
}

/// Stretches of calls that a thread makes again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recall {
    /// Chance of one at the end of each phrase.
    pub chance: f64,
    /// Length of one on average; it ends with a phrase.
    pub calls: u32,
    /// It is taken from so many of the last calls.
    pub memory: u32,
    /// Share of the drawn sizes that are drawn again; the others are those of the first time.
    pub redrawn: f64,
}

/// What becomes of a thread's whole live set now and then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Succession {
    /// After `every` calls each thread gives it to the next thread of its role.
    Ring {
        /// Calls between hand-overs.
        every: u64,
    },
    /// After `every` calls each thread starts a successor and ends.
    Respawn {
        /// Calls of a thread's life.
        every: u64,
        /// Whether the successor inherits the live set; else it is freed before the thread ends.
        inherit: bool,
    },
}

/// Default of [`Role::burst`].
const BURST: u64 = 64;

impl Role {
    /// Reads a `[[role]]`.
    pub fn read(value: &Value<'_>) -> Read<Self> {
        let mut table = value.table("role")?;
        let name = table.need("name")?.text()?.to_owned();
        table.describe(format!("role '{name}'"));
        let threads = table.whole("threads", 1..=u64::from(MOST_THREADS), 1)? as u32;
        let burst = table.whole("burst", 1..=1 << 20, BURST)? as u32;
        let ramp = table.share("ramp", 0.0)?;
        let pause = table
            .get("pause")
            .map(|value| Pause::read(&value))
            .transpose()?;
        let hand_over = table.get("hand-over");
        let (succession, hand_over) = match hand_over {
            Some(value) => match Succession::read(&value)? {
                Some(succession) => (Some(succession), None),
                None => (None, Some(value)),
            },
            None => (None, None),
        };
        let groups = match (table.get("group"), hand_over) {
            (Some(_), Some(value)) => {
                return Err(value.fault(
                    "a queue, random or exchange hand-over belongs into a [[role.group]], since this role has groups",
                ));
            }
            (Some(list), None) => read_groups(&list, &name)?,
            (None, hand_over) => vec![Group::read(&mut table, &name, hand_over)?],
        };
        let phrases = match table.get("phrases") {
            Some(list) => Phrase::read_all(&list, &name, &groups)?,
            None => Vec::new(),
        };
        let recall = match table.get("recall") {
            Some(value) if phrases.is_empty() => {
                return Err(
                    value.fault("`recall` says phrases again, and the role has no `phrases`")
                );
            }
            value => value.map(|value| Recall::read(&value)).transpose()?,
        };
        table.finish()?;
        Ok(Self {
            name,
            threads,
            burst,
            ramp,
            pause,
            succession,
            phrases,
            recall,
            groups,
        })
    }

    /// Whether its threads allocate at all.
    pub fn allocates(&self) -> bool {
        self.groups.iter().any(|group| group.size.is_some())
    }
}

fn read_groups(list: &Value<'_>, role: &str) -> Read<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let tables = list.list()?;
    if tables.is_empty() || tables.len() > 256 {
        return Err(list.expected("1 to 256 groups"));
    }
    for value in tables {
        let mut table = value.table(format!("role '{role}', group"))?;
        let name = table.need("name")?;
        let word = name.text()?;
        table.describe(format!("role '{role}', group '{word}'"));
        if groups.iter().any(|group| group.name == word) {
            return Err(name.fault(format_args!("another group is called '{word}'")));
        }
        table.need("size")?.present("a distribution of sizes")?;
        let hand_over = table.get("hand-over");
        groups.push(Group::read(&mut table, word, hand_over)?);
        table.finish()?;
    }
    if groups.iter().all(|group| group.weight == 0.0) {
        return Err(list.fault("all weights of groups are 0, expected one above 0"));
    }
    Ok(groups)
}

impl Pause {
    fn read(value: &Value<'_>) -> Read<Self> {
        let mut table: Table<'_> = value.table("pause")?;
        let pause = Self {
            every: table.need("every")?.whole(1..=1 << 40)?,
            ms: table.need("ms")?.whole(1..=60_000)? as u32,
        };
        table.finish()?;
        Ok(pause)
    }
}

impl Recall {
    fn read(value: &Value<'_>) -> Read<Self> {
        let mut table: Table<'_> = value.table("recall")?;
        let recall = Self {
            chance: table.share("chance", 1.0)?,
            calls: table.need("calls")?.whole(1..=1 << 20)? as u32,
            memory: table.need("memory")?.whole(2..=1 << 20)? as u32,
            redrawn: table.share("redrawn", 0.0)?,
        };
        table.finish()?;
        Ok(recall)
    }
}

impl Succession {
    /// `None` for the kinds of hand-over that belong to a group.
    fn read(value: &Value<'_>) -> Read<Option<Self>> {
        let mut table = value.table("hand-over")?;
        let kind = table.need("kind")?.word(&[
            ("ring", 0),
            ("respawn", 1),
            ("queue", 2),
            ("random", 2),
            ("exchange", 2),
        ])?;
        if kind == 2 {
            return Ok(None);
        }
        let every = table.need("every")?.whole(1..=1 << 40)?;
        let succession = match kind {
            0 => Self::Ring { every },
            _ => Self::Respawn {
                every,
                inherit: table.flag("inherit", true)?,
            },
        };
        table.finish()?;
        Ok(Some(succession))
    }
}
