//! The faces of a gate report: terminal, Markdown, JUnit, GitHub annotations, JSON.
//!
//! Each ends with the rows that make the gate red, the command that reproduces them and how to
//! accept them, because the end is what a reader of a CI log sees first.

mod annotations;
mod json;
mod junit;
mod markdown;
mod terminal;
mod words;

pub use annotations::annotations;
pub use json::json;
pub use junit::junit;
pub use markdown::markdown;
pub use terminal::{Look, terminal};

use crate::report::GateReport;

/// What was printed; it stands at the top of the HTML report, too.
pub const VERDICT_FILE: &str = "gate.txt";

/// The files that go beside `result.json`: name and contents.
pub fn files(report: &GateReport, strict: bool) -> [(&'static str, String); 4] {
    let look = Look {
        color: false,
        all: false,
        strict,
    };
    [
        ("gate.json", json(report, strict)),
        ("gate.md", markdown(report, strict)),
        ("junit.xml", junit(report, strict)),
        (VERDICT_FILE, terminal(report, look)),
    ]
}
