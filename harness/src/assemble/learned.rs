//! What subjects said of themselves in their runs: version, settings, statistics.

use crate::plan::Comparison;
use heaplab_reports::schema::{RunLine, Status, Subject};
use heaplab_worker::protocol::Api;
use serde_json::Value;

/// Takes version and settings as the subject itself told them in its first good run.
pub(super) fn learn(subject: &mut Subject, lines: &[&RunLine], comparison: &Comparison) {
    if comparison.api == Api::Sized && !comparison.program {
        let entry = (lines.iter().filter(|l| l.status == Status::Ok))
            .find_map(|line| line.answer["subject"].get("sized_free"));
        let note = match entry.and_then(Value::as_str) {
            Some(entry) => format!("api sized frees with {entry}"),
            None => "api sized frees with free: the library has no sized one".to_owned(),
        };
        if entry.is_some() && !subject.notes.contains(&note) {
            subject.notes.push(note);
        }
    }
    // Of a memory run, where blocks are live as the workload leaves them; of any other where there is none. What a program's
    // subject says comes from a worker of its own and is not about the program.
    let of = |measure: &str| {
        let mut good = lines
            .iter()
            .filter(|l| l.status == Status::Ok && l.measure == measure);
        good.find_map(|l| Some(l.answer["subject"]["statistics"].clone()).filter(Value::is_object))
    };
    if subject.stats_at_end.is_none() {
        subject.stats_at_end = ["memory", "speed", "latency", "counts"]
            .iter()
            .find_map(|m| of(m));
    }
    for line in lines.iter().filter(|l| l.status == Status::Ok) {
        let proof = &line.answer["subject"];
        if let Some(version) = proof["version"].as_str().filter(|v| !v.is_empty()) {
            subject.version = version.to_string();
        }
        if let Some(settings) = proof["settings"].as_object() {
            for (key, value) in settings {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_string);
                subject.settings.entry(key.clone()).or_insert(value);
            }
            return;
        }
    }
}
