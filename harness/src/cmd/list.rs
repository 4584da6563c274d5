//! `heaplab list`: subjects, workloads, suites and metrics, as tables or as the JSON of the contract.

use crate::cli::{ListArgs, ListFormat, Listed};
use crate::error::{Error, Outcome};
use crate::exec::{self, Limits};
use crate::{metrics, out, subject, workload};
use heaplab_workloads::Workload;
use serde_json::{Value, json};

/// Prints the list.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &ListArgs) -> Result<Outcome, Error> {
    let (header, rows, values) = match args.what {
        Listed::Subjects => subjects(),
        Listed::Workloads => workloads()?,
        Listed::Suites => suites(),
        Listed::Metrics => described(),
    };
    match args.format {
        ListFormat::Table => out::print(&out::columns(&header, &rows))?,
        ListFormat::Json => out::print_json(&values)?,
    }
    Ok(Outcome::Done)
}

type List = (Vec<&'static str>, Vec<Vec<String>>, Vec<Value>);

/// Each known subject is started once: its version is its own word, and one that does not start is not available.
fn subjects() -> List {
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for known in subject::known() {
        let asked = match &known.unavailable {
            Some(reason) => Err(reason.clone()),
            None => subject::parse(known.name)
                .map_err(|e| e.to_string())
                .and_then(|list| {
                    let one = list.into_iter().next().ok_or("it names no subject")?;
                    exec::describe(&one, &Limits::seconds(20)).map_err(|failure| failure.reason)
                }),
        };
        let (version, reason) = match asked {
            Ok(proof) => (proof.version, None),
            Err(reason) => (None, Some(reason)),
        };
        let available = if reason.is_none() {
            "yes".to_string()
        } else {
            "no".into()
        };
        let remark = reason.clone().unwrap_or_else(|| known.origin.into());
        rows.push(vec![
            known.name.into(),
            version.clone().unwrap_or_default(),
            available,
            remark,
        ]);
        let mut value = json!({
            "name": known.name, "version": version, "available": reason.is_none(), "origin": known.origin,
        });
        if let Some(reason) = reason {
            value["reason"] = json!(reason);
        }
        values.push(value);
    }
    (vec!["subject", "version", "usable", ""], rows, values)
}

fn workloads() -> Result<List, Error> {
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for name in Workload::builtin_names() {
        let info = Workload::resolve(name)
            .and_then(|w| w.info())
            .map_err(workload::error)?;
        let value = serde_json::to_value(&info).map_err(|e| {
            Error::environment(format!(
                "cannot form JSON of '{name}': {e}; please report this"
            ))
        })?;
        rows.push(vec![
            info.name,
            (value["category"].as_str())
                .or(value["kind"].as_str())
                .unwrap_or_default()
                .to_string(),
            info.threads.to_string(),
            out::human_count(info.ops),
            out::human_bytes(info.peak_live_bytes),
            info.purpose,
        ]);
        values.push(value);
    }
    Ok((
        vec!["workload", "kind", "threads", "ops", "peak live", "purpose"],
        rows,
        values,
    ))
}

fn suites() -> List {
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for suite in heaplab_workloads::suites() {
        rows.push(vec![
            suite.name.clone(),
            suite.workloads.len().to_string(),
            suite.purpose.clone(),
        ]);
        values.push(
            json!({"name": suite.name, "purpose": suite.purpose, "workloads": suite.workloads}),
        );
    }
    (vec!["suite", "workloads", "purpose"], rows, values)
}

fn described() -> List {
    let row = |m: &metrics::Described| {
        [m.name, m.unit, m.better, m.measure, m.meaning]
            .map(String::from)
            .to_vec()
    };
    let values = metrics::ALL.iter().map(|m| json!(m)).collect();
    (
        vec!["metric", "unit", "better", "measure", "meaning"],
        metrics::ALL.iter().map(row).collect(),
        values,
    )
}
