//! What the allocators count themselves, as lines of text: each under its own names.

use crate::schema::{ResultSet, Subject};
use crate::units;
use serde::Serialize;
use serde_json::Value;

/// One subject's figures at one instant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Counted {
    /// Label of the subject.
    pub subject: String,
    /// `at the peak` or `at the end`.
    pub when: &'static str,
    /// `name value · name value …`.
    pub text: String,
}

/// Of all subjects that say something.
pub(super) fn counted(result: &ResultSet) -> Vec<Counted> {
    result.subjects.iter().flat_map(of).collect()
}

fn of(subject: &Subject) -> Vec<Counted> {
    [
        ("at the peak", &subject.stats_at_peak),
        ("at the end", &subject.stats_at_end),
    ]
    .into_iter()
    .filter_map(|(when, statistics)| {
        let text = text(statistics.as_ref()?);
        (!text.is_empty()).then(|| Counted {
            subject: subject.name.clone(),
            when,
            text,
        })
    })
    .collect()
}

/// The numbers of an object; lists and objects inside it (a row a size class) are in `result.json` only.
fn text(statistics: &Value) -> String {
    let Some(fields) = statistics.as_object() else {
        return String::new();
    };
    let shown = fields.iter().filter_map(|(name, value)| {
        let number = value.as_f64()?;
        Some(match name.strip_suffix("_bytes") {
            Some(of) => format!("{} {}", of.replace('_', " "), units::bytes(number)),
            None => format!("{} {}", name.replace('_', " "), units::count(number)),
        })
    });
    shown.collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_their_units() {
        let statistics = serde_json::json!({
            "in_use_bytes": 3 << 20, "free_chunks": 17, "classes": [1], "allocator": "x"
        });
        assert_eq!(text(&statistics), "free chunks 17 · in use 3.00 MiB");
        assert_eq!(text(&serde_json::json!(null)), "");
    }
}
