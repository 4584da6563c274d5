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
    let good = || lines.iter().filter(|l| l.status == Status::Ok);
    // Of a memory run, where blocks are live as the workload leaves them; of any other where there is none.
    let of_replay = |measure: &&str| {
        let answers = good().filter(|l| l.measure == *measure);
        let mut found = answers.map(|l| l.answer["subject"]["statistics"].clone());
        found.find(Value::is_object)
    };
    if subject.stats_at_end.is_none() {
        subject.stats_at_end = ["memory", "speed", "latency", "counts"]
            .iter()
            .find_map(of_replay);
    }
    let of_program = |when: &str| {
        let mut found = good().map(|l| l.answer["statistics"][when].clone());
        found.find(Value::is_object)
    };
    if subject.stats_at_end.is_none() {
        subject.stats_at_end = of_program("at_end");
    }
    if subject.stats_at_peak.is_none() {
        subject.stats_at_peak = of_program("at_peak");
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
                // What it reads back counts, not what it was given.
                subject.settings.insert(key.clone(), value);
            }
            return;
        }
    }
}
