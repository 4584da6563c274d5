//! Suites: named lists of workloads (`definitions/suites.toml`).

use crate::builtin;
use crate::error::WorkloadError;
use crate::nearest::nearest;
use serde::Deserialize;
use std::collections::BTreeMap;

const SUITES: &str = include_str!("../definitions/suites.toml");

/// A named list of workloads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// What it is for, one line.
    pub purpose: String,
    /// The recorded traces that come before the listed workloads.
    #[serde(default)]
    traces: Traces,
    /// Names of built-in workloads, in the order of tables.
    pub workloads: Vec<String>,
}

/// Recorded traces of a suite.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Traces {
    /// All embedded ones, or none.
    All(bool),
    /// These.
    Some(Vec<String>),
}

impl Default for Traces {
    fn default() -> Self {
        Self::All(false)
    }
}

/// All suites, sorted by name.
pub fn suites() -> Vec<Suite> {
    // The file is embedded and a test reads it: an error here cannot reach a user.
    let parsed: BTreeMap<String, Suite> = toml::from_str(SUITES).unwrap_or_default();
    parsed
        .into_iter()
        .map(|(name, suite)| {
            let mut workloads = match &suite.traces {
                Traces::All(false) => Vec::new(),
                Traces::All(true) => builtin::TRACES
                    .iter()
                    .map(|(trace, _)| trace.to_string())
                    .collect(),
                Traces::Some(names) => names.clone(),
            };
            workloads.extend(suite.workloads);
            Suite {
                name,
                workloads,
                ..suite
            }
        })
        .collect()
}

/// The suite with this name.
pub fn suite(name: &str) -> Result<Suite, WorkloadError> {
    let all = suites();
    let known = all
        .iter()
        .map(|suite| suite.name.clone())
        .collect::<Vec<_>>()
        .join(", ");
    let names = all.iter().map(|suite| suite.name.as_str());
    let suggestion = nearest(name, names).map(str::to_owned);
    all.into_iter()
        .find(|suite| suite.name == name)
        .ok_or_else(|| WorkloadError::UnknownSuite {
            name: name.to_owned(),
            suggestion,
            known,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_lists_only_workloads_that_exist() {
        let parsed: BTreeMap<String, Suite> = toml::from_str(SUITES).unwrap();
        for name in [
            "quick",
            "standard",
            "full",
            "gate",
            "fragmentation",
            "scaling",
        ] {
            assert!(parsed.contains_key(name), "{name}");
        }
        for suite in suites() {
            assert!(!suite.workloads.is_empty() && !suite.purpose.is_empty());
            for workload in &suite.workloads {
                assert!(
                    crate::Workload::resolve(workload).is_ok(),
                    "{workload} of {}",
                    suite.name
                );
            }
        }
        let full = suite("full").unwrap();
        for model in crate::Model::list() {
            assert!(
                full.workloads.contains(&model.name),
                "{} is missing in full",
                model.name
            );
        }
        assert!(suite("none").unwrap_err().to_string().contains("quick"));
        let said = suite("standrad").unwrap_err().to_string();
        assert!(said.contains("did you mean 'standard'?"), "{said}");
    }
}
