//! Phrases: calls that the threads of a role make in a row, again and again.

use super::distribution::MAX_VALUE;
use super::group::Group;
use super::lifetime::Lifetime;
use crate::model::decode::{Read, Table, Value};
use serde::Serialize;

/// Calls of a phrase at most, repetitions counted.
pub const MOST_CALLS: usize = 1 << 16;

/// Calls in a row. A thread draws phrase after phrase by their weights; a call that would lead a group too far from its live set is
/// left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phrase {
    /// Its name, by which others are followed by it.
    pub name: String,
    /// The calls as words, see [`Deed`].
    #[serde(rename = "calls")]
    pub text: String,
    /// What follows it: words NAME:PERCENT. What they leave of 100 is drawn by the weights.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub then: String,
    /// How often, relative to the other phrases: once for all, or in each part of the courses.
    pub weight: Vec<f64>,
    /// The words, read.
    #[serde(skip)]
    pub calls: Vec<Call>,
    /// Numbers of those that follow it, and their percentages.
    #[serde(skip)]
    pub followers: Vec<(usize, f64)>,
}

/// One call of a phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is done.
    pub deed: Deed,
    /// Number of the group in its role.
    pub group: u32,
    /// Bytes of an allocation; 0: drawn from the group's sizes. Rank of a free; 0: by the group's lifetime.
    pub size: u32,
}

/// How an allocation of a phrase asks for its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// The function.
    pub by: By,
    /// `%` before the group: only a part is written, as much as the group's `written` says.
    pub partly: bool,
}

/// A function that allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// malloc.
    Malloc,
    /// calloc.
    Calloc,
    /// aligned_alloc, with one of the group's alignments.
    Aligned,
}

impl By {
    const fn whole(self) -> Deed {
        Deed::Allocate(Way {
            by: self,
            partly: false,
        })
    }
}

/// What a call of a phrase does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// `+GROUP` or `+GROUP:BYTES`: allocates by malloc; with `#` by calloc, with `@` with an alignment.
    Allocate(Way),
    /// `-GROUP`: frees what the group's lifetime says; `-GROUP:RANK`: the newest but so many.
    Free,
    /// `!GROUP`: frees the newest.
    FreeNewest,
    /// `>GROUP`: frees the one that was allocated just after the one freed last.
    FreeNext,
    /// `<GROUP`: frees the one that was allocated just before it.
    FreePrevious,
    /// `~GROUP`: the newest grows or has its size drawn again, by realloc.
    Resize,
}

impl Deed {
    /// All deeds and their signs.
    pub const SIGNS: [(char, Self); 8] = [
        ('+', By::Malloc.whole()),
        ('#', By::Calloc.whole()),
        ('@', By::Aligned.whole()),
        ('-', Self::Free),
        ('!', Self::FreeNewest),
        ('>', Self::FreeNext),
        ('<', Self::FreePrevious),
        ('~', Self::Resize),
    ];

    /// Its sign, with the mark of blocks that are written in part.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Allocate(Way { by, partly }) => match (by, partly) {
                (By::Malloc, false) => "+",
                (By::Malloc, true) => "+%",
                (By::Calloc, false) => "#",
                (By::Calloc, true) => "#%",
                (By::Aligned, false) => "@",
                (By::Aligned, true) => "@%",
            },
            Self::Free => "-",
            Self::FreeNewest => "!",
            Self::FreeNext => ">",
            Self::FreePrevious => "<",
            Self::Resize => "~",
        }
    }
}

impl Phrase {
    /// Reads the phrases of a role that has these groups.
    pub fn read_all(list: &Value<'_>, role: &str, groups: &[Group]) -> Read<Vec<Self>> {
        let what = format!("role '{role}', phrase");
        let tables = list.list()?;
        if tables.is_empty() || tables.len() > 1 << 12 {
            return Err(list.expected("1 to 4096 phrases"));
        }
        let by_recency =
            |group: &Group| matches!(group.lifetime, Lifetime::Recency { .. }) && group.live > 0;
        if let Some(other) = groups.iter().find(|group| !by_recency(group)) {
            return Err(list.fault(format_args!(
                "`phrases` need groups with `live` and a lifetime of kind \"recency\", group '{}' has another",
                other.name
            )));
        }
        let mut phrases = tables
            .iter()
            .map(|value| Self::read(value.table(what.clone())?, groups))
            .collect::<Read<Vec<_>>>()?;
        for index in 0..phrases.len() {
            let value = &tables[index];
            if phrases[..index]
                .iter()
                .any(|other| other.name == phrases[index].name)
            {
                return Err(value.fault(format_args!(
                    "another phrase is called '{}'",
                    phrases[index].name
                )));
            }
            phrases[index].followers =
                followers(&phrases[index].then, &phrases).map_err(|reason| value.fault(reason))?;
        }
        let parts = |group: &Group| group.course.as_ref().map_or(1, |course| course.live.len());
        let parts = groups.iter().map(parts).max().unwrap_or(1);
        for part in 0..parts {
            let sum = phrases
                .iter()
                .map(|phrase| phrase.weight_in(part))
                .sum::<f64>();
            if sum <= 0.0 && parts == 1 {
                return Err(list.fault("all weights of phrases are 0, expected one above 0"));
            }
        }
        for (value, phrase) in tables.iter().zip(&phrases) {
            let given = phrase.weight.len();
            if given != 1 && given != parts {
                return Err(value.fault(format_args!(
                    "a phrase has {given} weights, expected one, or {parts} as the courses have parts"
                )));
            }
        }
        Ok(phrases)
    }

    fn read(mut table: Table<'_>, groups: &[Group]) -> Read<Self> {
        let name = table.need("name")?.text()?.to_owned();
        let value = table.need("calls")?;
        let text = value.text()?;
        let mut calls = Vec::new();
        for word in text.split_whitespace() {
            let expected = || {
                value.fault(format_args!(
                    "`calls` has the word \"{word}\", expected +GROUP, +GROUP:BYTES, -GROUP, -GROUP:RANK, !GROUP, >GROUP, <GROUP or ~GROUP (# or @ for +: by calloc, aligned; % before GROUP: written in part), and *TIMES behind it to repeat it"
                ))
            };
            let (rest, times) = match word.split_once('*') {
                Some((rest, times)) => (rest, times.parse().map_err(|_| expected())?),
                None => (word, 1usize),
            };
            let sign = rest.chars().next();
            let deed = Deed::SIGNS.iter().find(|(known, _)| Some(*known) == sign);
            let &(_, mut deed) = deed.ok_or_else(expected)?;
            let mut rest = &rest[1..];
            if let Deed::Allocate(way) = &mut deed
                && let Some(whole) = rest.strip_prefix('%')
            {
                way.partly = true;
                rest = whole;
            }
            let (name, size) = match rest.split_once(':') {
                Some((name, size)) if matches!(deed, Deed::Allocate(_) | Deed::Free) => {
                    (name, size.parse().map_err(|_| expected())?)
                }
                Some(_) => return Err(expected()),
                None => (rest, 0u32),
            };
            if u64::from(size) > MAX_VALUE || times == 0 || calls.len() + times > MOST_CALLS {
                return Err(expected());
            }
            let Some(group) = groups.iter().position(|group| group.name == name) else {
                let known: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
                return Err(value.fault(format_args!(
                    "`calls` names the group '{name}', expected one of {}",
                    known.join(", ")
                )));
            };
            if let Deed::Allocate(Way {
                by: By::Aligned, ..
            }) = deed
                && groups[group].aligned.is_none()
            {
                return Err(value.fault(format_args!(
                    "`calls` has the word \"{word}\", and the group '{name}' says no alignments: expected `aligned` there"
                )));
            }
            let group = group as u32;
            calls.extend(std::iter::repeat_n(Call { deed, group, size }, times));
        }
        if calls.is_empty() {
            return Err(value.expected("at least one call"));
        }
        let weight = table.need("weight")?;
        let weights = match weight.list() {
            Ok(list) => list
                .iter()
                .map(|one| one.number(0.0..=1e12))
                .collect::<Read<Vec<f64>>>()?,
            Err(_) => vec![weight.number(0.0..=1e12).map_err(|_| {
                weight.expected("a number, or a list of as many as the courses have parts")
            })?],
        };
        let then = table.get("then").map_or(Ok(""), |value| value.text())?;
        table.finish()?;
        Ok(Self {
            name,
            then: then.to_owned(),
            followers: Vec::new(),
            text: text.to_owned(),
            weight: weights,
            calls,
        })
    }

    /// Its weight in a part of the courses.
    pub fn weight_in(&self, part: usize) -> f64 {
        let last = self.weight.last().copied().unwrap_or(0.0);
        self.weight.get(part).copied().unwrap_or(last)
    }
}

/// Reads what follows a phrase.
fn followers(then: &str, phrases: &[Phrase]) -> Result<Vec<(usize, f64)>, String> {
    let mut all = Vec::new();
    for word in then.split_whitespace() {
        let read = word.split_once(':').and_then(|(name, percent)| {
            let percent: f64 = percent.parse().ok()?;
            (0.0..=100.0).contains(&percent).then_some((name, percent))
        });
        let Some((name, percent)) = read else {
            return Err(format!(
                "`then` has the word \"{word}\", expected PHRASE:PERCENT"
            ));
        };
        let Some(index) = phrases.iter().position(|phrase| phrase.name == name) else {
            return Err(format!(
                "`then` names the phrase '{name}', which the role does not have"
            ));
        };
        all.push((index, percent));
    }
    if all.iter().map(|(_, percent)| percent).sum::<f64>() > 100.0 + 1e-9 {
        return Err("the percentages of `then` are above 100 together".into());
    }
    Ok(all)
}
