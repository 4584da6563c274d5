//! The form of a model file (`docs/MODELS.md`), and everything that is checked when one is read.

mod distribution;
mod group;
mod lifetime;
mod phase;
mod phrase;
mod role;

use super::decode::{Read, Table, Value};
use crate::error::WorkloadError;
pub use distribution::{Distribution, MAX_VALUE, Part};
pub use group::{Aligned, Course, Group, Grow, GrowBy, HandOver, Written};
pub use lifetime::{BatchOrder, Dies, Lifetime};
pub use phase::{Change, DropOrder, GroupChange, Phase};
pub use phrase::{By, Call, Deed, Phrase, Way};
pub use role::{Pause, Recall, Role, Succession};
use serde::Serialize;
use toml::de::DeTable;

/// A model file. It can be written again by `toml::to_string`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Definition {
    /// Name by which it is asked for.
    pub name: String,
    /// What sort of model it is.
    pub kind: Category,
    /// What it is for, one line.
    pub purpose: String,
    /// What it stresses, what a change in it means.
    pub analysis: String,
    /// Where the behaviour is described.
    pub sources: Vec<String>,
    /// Calls of all threads together at scale 1.
    pub ops: u64,
    /// How often all phases are gone through.
    pub rounds: u32,
    /// Lengths of the parts of the courses, in proportion; none: all are equal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<f64>,
    /// What its script must be at the default seed and scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// Kinds of threads.
    #[serde(rename = "role")]
    pub roles: Vec<Role>,
    /// Phases, one after the other; none: one phase without a name.
    #[serde(rename = "phase", skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
}

/// Sorts of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// A published benchmark, rebuilt from its description.
    Classic,
    /// A kind of program.
    Application,
    /// Made to hold memory.
    Fragmentation,
    /// Fitted to a trace.
    Fitted,
}

/// What a script must be at seed 1, scale 1 and the model's own number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Calls of the malloc family.
    pub calls: u64,
    /// The script's checksum.
    pub checksum: u64,
}

impl Serialize for Expect {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut table = to.serialize_struct("Expect", 2)?;
        table.serialize_field("calls", &self.calls)?;
        table.serialize_field("checksum", &format!("{:016x}", self.checksum))?;
        table.end()
    }
}

/// Letters of a name at most: files are called by it.
pub const MOST_NAME: usize = 100;

/// Threads of all roles together at most.
pub const MOST_THREADS: u32 = 4096;

const CATEGORIES: &[(&str, Category)] = &[
    ("classic", Category::Classic),
    ("application", Category::Application),
    ("fragmentation", Category::Fragmentation),
    ("fitted", Category::Fitted),
];

/// Reads and checks a definition; `file` is named in errors.
///
/// # Errors
/// The first thing that is wrong, with its line.
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
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let found = text.get(span.clone()).unwrap_or_default().trim();
        let message = error.message().replace('\n', " ");
        let found = match found.lines().next() {
            Some(found) if message == "duplicate key" => {
                format!("the key `{found}` comes twice, expected it once")
            }
            Some(found) if found.len() <= 60 => format!("{message}, found `{found}`"),
            Some(_) => message,
            // What the parser would have liked there is one of many.
            None if text
                .get(..span.start)
                .is_some_and(|before| before.trim_end().ends_with('=')) =>
            {
                "a value is missing after `=`".to_owned()
            }
            None => message,
        };
        at(span.start, found)
    })?;
    read(Table::new(table.get_ref(), 0, "model")).map_err(|fault| at(fault.at, fault.reason))
}

fn read(mut table: Table<'_>) -> Read<Definition> {
    let name = table.need("name")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let word = name.text()?;
    if !(1..=MOST_NAME).contains(&word.len()) || !word.bytes().all(plain) {
        return Err(name.expected(format_args!(
            "a name of a-z, 0-9 and '-', {MOST_NAME} at most"
        )));
    }
    table.describe(format!("model '{word}'"));
    let purpose = table.need("purpose")?;
    if purpose.text()?.trim().is_empty() || purpose.text()?.contains(char::is_control) {
        return Err(purpose.expected("one line that says what the model is for"));
    }
    let analysis = table.need("analysis")?;
    if analysis.text()?.trim().is_empty() {
        return Err(analysis
            .expected("a text that says what the model stresses and what a change in it means"));
    }
    let sources = match table.get("sources") {
        Some(list) => list
            .list()?
            .iter()
            .map(|source| source.text().map(str::to_owned))
            .collect::<Read<_>>()?,
        None => Vec::new(),
    };
    let kind = table.need("kind")?.word(CATEGORIES)?;
    let ops = table.need("ops")?.whole(1..=1 << 40)?;
    let rounds = table.get("rounds");
    let expect = table
        .get("expect")
        .map(|value| Expect::read(&value))
        .transpose()?;
    let kinds = table
        .need("role")?
        .present("[[role]], a table for each kind of thread")?;
    let roles = roles(&kinds)?;
    let phases = match table.get("phase") {
        Some(list) => phases(&list, &roles)?,
        None => Vec::new(),
    };
    let courses = match check_courses(&roles, !phases.is_empty()) {
        Ok(courses) => courses,
        Err((role, reason)) => return Err(kinds.list()?[role].fault(reason)),
    };
    let parts = match table.get("parts") {
        Some(list) => parts(&list, courses)?,
        None => Vec::new(),
    };
    if let Some(rounds) = &rounds
        && phases.is_empty()
    {
        return Err(rounds.fault("`rounds` repeats phases, but there is no [[phase]]"));
    }
    let definition = Definition {
        name: word.to_owned(),
        kind,
        purpose: purpose.text()?.to_owned(),
        analysis: analysis.text()?.to_owned(),
        sources,
        ops,
        rounds: rounds.map_or(Ok(1), |rounds| rounds.whole(1..=1 << 20))? as u32,
        parts,
        expect,
        roles,
        phases,
    };
    table.finish()?;
    Ok(definition)
}

fn roles(list: &Value<'_>) -> Read<Vec<Role>> {
    let mut roles: Vec<Role> = Vec::new();
    let tables = list.list()?;
    if tables.is_empty() || tables.len() > 256 {
        return Err(list.expected("1 to 256 roles"));
    }
    for value in &tables {
        let role = Role::read(value)?;
        if roles.iter().any(|other| other.name == role.name) {
            return Err(value.fault(format_args!("another role is called '{}'", role.name)));
        }
        roles.push(role);
        let threads: u32 = roles.iter().map(|role| role.threads).sum();
        if threads > MOST_THREADS {
            return Err(value.fault(format_args!(
                "the roles have {threads} threads with this one, expected at most {MOST_THREADS} in all"
            )));
        }
    }
    for (value, role) in tables.iter().zip(&roles) {
        check_role(role, &roles).map_err(|(group, reason)| {
            let fault = value.fault(format_args!("role '{}': {reason}", role.name));
            match group.and_then(|group| receiver(value, group)) {
                Some(to) => to.elsewhere(fault.reason),
                None => fault,
            }
        })?;
    }
    Ok(roles)
}

/// Where a role says to whom a group of its hands blocks.
fn receiver<'d>(role: &Value<'d>, group: usize) -> Option<Value<'d>> {
    let mut role = role.table("").ok()?;
    let mut group = match role.get("group") {
        Some(groups) => groups.list().ok()?.get(group)?.table("").ok()?,
        None => role,
    };
    group.get("hand-over")?.table("").ok()?.get("to")
}

/// Where a phase names the group that it changes.
fn changed<'d>(phase: &Value<'d>, change: usize) -> Option<Value<'d>> {
    let changes = phase.table("").ok()?.get("change")?.list().ok()?;
    changes.get(change)?.table("").ok()?.get("group")
}

/// What one role asks of the others. A fault may be that of a group's hand-over.
fn check_role(role: &Role, roles: &[Role]) -> Result<(), (Option<usize>, String)> {
    let leads = |group: &Group| {
        group
            .hand_over
            .as_ref()
            .and_then(HandOver::to)
            .map(str::to_owned)
    };
    for (index, group) in role.groups.iter().enumerate() {
        if let Some(to) = leads(group) {
            if to == role.name {
                return Err((Some(index), "`to` must name another role".into()));
            }
            if !roles.iter().any(|other| other.name == to) {
                let known: Vec<_> = roles.iter().map(|other| other.name.as_str()).collect();
                let known = known.join(", ");
                let reason = format!("`to` names the role '{to}', expected one of {known}");
                return Err((Some(index), reason));
            }
        }
    }
    let fed = roles
        .iter()
        .flat_map(|other| &other.groups)
        .any(|group| leads(group).as_ref() == Some(&role.name));
    if !role.allocates() && !fed {
        let reason = "`size` is missing, expected a distribution of sizes (only a role that others hand blocks to needs none)";
        return Err((None, reason.into()));
    }
    if role.ramp > 0.0 && role.succession.is_some() {
        let reason = "`ramp` and the hand-over of whole live sets exclude each other";
        return Err((None, reason.into()));
    }
    Ok(())
}

/// Lengths of the parts that the courses have.
fn parts(list: &Value<'_>, courses: Option<usize>) -> Read<Vec<f64>> {
    let Some(count) = courses else {
        return Err(list.fault("`parts` are those of courses, but no group has a `course`"));
    };
    let lengths = list.list()?;
    if lengths.len() != count {
        return Err(list.fault(format_args!(
            "`parts` has {} lengths, expected {count}, as the courses have parts",
            lengths.len()
        )));
    }
    (lengths.iter())
        .map(|length| length.number(1e-9..=1e12))
        .collect()
}

/// All courses cut the calls into the same parts, and phases would cut them again. How many there are; else the role that is wrong.
fn check_courses(roles: &[Role], has_phases: bool) -> Result<Option<usize>, (usize, String)> {
    let mut parts = None;
    for (index, role) in roles.iter().enumerate() {
        for group in &role.groups {
            let Some(course) = &group.course else {
                continue;
            };
            let mine = course.live.len();
            if has_phases {
                let reason = format!(
                    "group '{}' has a `course`, and there are [[phase]] tables: expected only one of the two",
                    group.name
                );
                return Err((index, reason));
            }
            match parts {
                Some((other, name)) if other != mine => {
                    let reason = format!(
                        "the course of group '{}' has {mine} parts and that of '{name}' {other}, expected as many in all",
                        group.name
                    );
                    return Err((index, reason));
                }
                _ => parts = Some((mine, &group.name)),
            }
        }
    }
    Ok(parts.map(|(count, _)| count))
}

fn phases(list: &Value<'_>, roles: &[Role]) -> Read<Vec<Phase>> {
    let tables = list.list()?;
    if tables.len() > 4096 {
        return Err(list.expected("at most 4096 phases"));
    }
    let mut phases = Vec::new();
    for value in &tables {
        let phase = Phase::read(value)?;
        for (index, change) in phase.changes.iter().enumerate() {
            let found = roles
                .iter()
                .filter(|role| change.role.as_ref().is_none_or(|name| *name == role.name))
                .flat_map(|role| &role.groups)
                .any(|group| group.name == change.group);
            if !found {
                let fault = value.fault(format_args!(
                    "phase '{}': a change names the group '{}', which no role has",
                    phase.name, change.group
                ));
                return Err(match changed(value, index) {
                    Some(group) => group.elsewhere(fault.reason),
                    None => fault,
                });
            }
        }
        phases.push(phase);
    }
    Ok(phases)
}

impl Definition {
    /// How much of the calls a part of the courses, of so many, has.
    pub fn part(&self, part: usize, count: usize) -> f64 {
        match self.parts.get(part) {
            Some(length) => length / self.parts.iter().sum::<f64>(),
            None => 1.0 / count as f64,
        }
    }
}

impl Expect {
    fn read(value: &Value<'_>) -> Read<Self> {
        let mut table = value.table("expect")?;
        let calls = table.need("calls")?.whole(0..=1 << 62)?;
        let checksum = table.need("checksum")?;
        let expect = Self {
            calls,
            checksum: u64::from_str_radix(checksum.text()?, 16)
                .map_err(|_| checksum.expected("16 hexadecimal digits in quotes"))?,
        };
        table.finish()?;
        Ok(expect)
    }
}
