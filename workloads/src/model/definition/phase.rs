//! Phases: what changes over the course of a model.

use super::distribution::Distribution;
use crate::model::decode::{Read, Table, Value};
use serde::Serialize;

/// A phase: what changes, for all groups that have sizes and for some of them in particular.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Phase {
    /// Its name, a mark in the script.
    pub name: String,
    /// Share of the model's calls, relative to the other phases.
    pub share: f64,
    /// The live factor moves in a straight line from that of the phase before to this one's, instead of jumping.
    #[serde(skip_serializing_if = "is_false")]
    pub ramp: bool,
    /// What changes for all groups.
    #[serde(flatten)]
    pub all: Change,
    /// What changes for some, over and above.
    #[serde(rename = "change", skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<GroupChange>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What a phase changes; an absent part is the group's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// Share of the live blocks that are freed when the phase begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<f64>,
    /// Which ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_order: Option<DropOrder>,
    /// Factor on `live` and `live-bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_factor: Option<f64>,
    /// Sizes from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Distribution>,
    /// The group's weight from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

/// What a phase changes for some groups.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupChange {
    /// Their role; `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Their name (that of the role for a role without groups).
    pub group: String,
    /// What changes.
    #[serde(flatten)]
    pub change: Change,
}

/// Which blocks a phase frees, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropOrder {
    /// Any, in no order.
    #[default]
    Random,
    /// The oldest ones, oldest first.
    Oldest,
    /// The youngest ones, youngest first.
    Youngest,
    /// Evenly spaced among all by age: every other one for a share of a half.
    Alternate,
}

const ORDERS: &[(&str, DropOrder)] = &[
    ("random", DropOrder::Random),
    ("oldest", DropOrder::Oldest),
    ("youngest", DropOrder::Youngest),
    ("alternate", DropOrder::Alternate),
];

impl Phase {
    /// Reads a `[[phase]]`.
    pub fn read(value: &Value<'_>) -> Read<Self> {
        let mut table = value.table("phase")?;
        let name = table.need("name")?.text()?.to_owned();
        table.describe(format!("phase '{name}'"));
        let share = table.need("share")?.number(1e-9..=1e9)?;
        let ramp = table.flag("ramp", false)?;
        let all = Change::read(&mut table)?;
        let changes = match table.get("change") {
            Some(list) => list
                .list()?
                .iter()
                .map(|value| GroupChange::read(value, &name))
                .collect::<Read<_>>()?,
            None => Vec::new(),
        };
        table.finish()?;
        Ok(Self {
            name,
            share,
            ramp,
            all,
            changes,
        })
    }
}

impl Change {
    /// This change with what `other` says in place of it.
    pub fn but(&self, other: &Self) -> Self {
        Self {
            drop: other.drop.or(self.drop),
            drop_order: other.drop_order.or(self.drop_order),
            live_factor: other.live_factor.or(self.live_factor),
            size: other.size.clone().or_else(|| self.size.clone()),
            weight: other.weight.or(self.weight),
        }
    }

    fn read(table: &mut Table<'_>) -> Read<Self> {
        let what = table.what().to_owned();
        Ok(Self {
            drop: table
                .get("drop")
                .map(|value| value.number(0.0..=1.0))
                .transpose()?,
            drop_order: table
                .get("drop-order")
                .map(|value| value.word(ORDERS))
                .transpose()?,
            live_factor: table
                .get("live-factor")
                .map(|value| value.number(0.0..=1e6))
                .transpose()?,
            size: table
                .get("size")
                .map(|value| Distribution::read(&value, &what, 0))
                .transpose()?,
            weight: table
                .get("weight")
                .map(|value| value.number(0.0..=1e9))
                .transpose()?,
        })
    }
}

impl GroupChange {
    fn read(value: &Value<'_>, phase: &str) -> Read<Self> {
        let mut table = value.table(format!("phase '{phase}', change"))?;
        let change = Self {
            role: table
                .get("role")
                .map(|role| role.text().map(str::to_owned))
                .transpose()?,
            group: table.need("group")?.text()?.to_owned(),
            change: Change::read(&mut table)?,
        };
        table.finish()?;
        Ok(change)
    }
}
