//! `heaplab trace model`: fits a model and says how near it comes.

use crate::cli::options::{Format, WorkloadArgs};
use crate::cli::trace::TraceModel;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal, human_bytes};
use crate::plan::Kind;
use crate::watch::Watch;
use crate::{estimate, workload};
use heaplab_reports::schema::ResultSet;
use heaplab_reports::shell;
use heaplab_workloads::{Workload, fit};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a model should reach: relative differences of time and of peak resident bytes.
const GOALS: (f64, f64) = (0.10, 0.15);

/// Of the models in the check.
const SEED: u64 = 1;

/// Behind a model's name: its twin, which is replayed beside it.
const TWIN: &str = "-twin";

/// Fits, writes, replays both, prints.
///
/// # Errors
/// A model as input; a trace that cannot be read; replays that fail.
pub fn run(args: &TraceModel, terminal: &Terminal) -> Result<Outcome, Error> {
    let workload = Workload::resolve(&args.file).map_err(workload::error)?;
    let Workload::Trace(recorded) = &workload else {
        return Err(Error::usage(format!(
            "'{}' is a model already; name a trace",
            args.file
        )));
    };
    let name = model_name(&args.out, workload.name());
    let mut watch = Watch::new(terminal, "fitting");
    let mut source = recorded.source().map_err(workload::error)?;
    let fitted = fit::fit(&mut source, &name, &mut watch.events()).map_err(workload::error)?;
    watch.clear();
    let failed = |error: std::io::Error| Error::io("write", &args.out, &error);
    heaplab_workloads::trace::replaceable(&args.out).map_err(failed)?;
    let folder = args
        .out
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = out::unfinished_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    std::io::Write::write_all(&mut file, fitted.text.as_bytes()).map_err(failed)?;
    file.persist(&args.out)
        .map_err(|error| failed(error.error))?;
    terminal.say(&format!(
        "wrote {}: {} parts, {} lines, peak live {} of {}",
        args.out.display(),
        fitted.parts,
        fitted.text.lines().count(),
        human_bytes(fitted.model_peak),
        human_bytes(fitted.trace_peak),
    ));
    let share = |(kinds, sizes): (f64, f64)| {
        format!(
            "{:.1} % ({:.1} % with their sizes)",
            100.0 * kinds,
            100.0 * sizes
        )
    };
    let (of_trace, of_model) = fitted.surprise;
    terminal.say(&format!(
        "calls that do not follow from those before: {}, of the trace {}",
        share(of_model),
        share(of_trace),
    ));
    for what in &fitted.left_out {
        terminal.say(&format!("! left out: {what}"));
    }
    if args.no_check {
        return Ok(Outcome::Done);
    }
    let folder = tempfile::tempdir()
        .map_err(|error| Error::io("create a folder in", &std::env::temp_dir(), &error))?;
    // The same model under another name: how far the two are apart is how far a figure is from itself.
    let path = folder.path().join("twin.toml");
    let text = (fitted.text).replacen(
        &format!("name = \"{}\"", fitted.model.name()),
        &format!("name = \"{}{TWIN}\"", fitted.model.name()),
        1,
    );
    std::fs::write(&path, text).map_err(|error| Error::io("write", &path, &error))?;
    announce(args, &path, terminal)?;
    // All say how much of their blocks is written, where it was recorded.
    let results = [
        replay(args, &path, &["--measure", "speed"])?,
        replay(args, &path, &["--measure", "memory"])?,
    ];
    let rows = compare(&results, workload.name(), fitted.model.name());
    if rows.is_empty() {
        return Err(Error::Verification(
            "no allocator replayed both the trace and the model; 'heaplab run' with both says why"
                .into(),
        ));
    }
    print(args.format, workload.name(), fitted.surprise, &rows)?;
    Ok(Outcome::Done)
}

/// The name of the model: that of its file, but never that of the trace, or the two could not be told apart in results.
fn model_name(out: &Path, trace: &str) -> String {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    if stem.eq_ignore_ascii_case(trace) {
        format!("{trace}-fitted")
    } else {
        stem.into_owned()
    }
}

/// What the replays for memory will cost. Their scripts are made here, and found again by the replays.
fn announce(args: &TraceModel, twin: &Path, terminal: &Terminal) -> Result<(), Error> {
    let names = [args.file.as_ref(), args.out.as_os_str(), twin.as_os_str()];
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let parameters = WorkloadArgs {
        scale: 1.0,
        pace: 1.0,
        ..WorkloadArgs::default()
    };
    let shape = |kind| workload::shape(&parameters, kind);
    let memory = [Kind::Memory];
    let all = workload::comparisons(&names, "", &parameters, SEED, &memory, terminal)?;
    estimate::ordered(&all, &shape, terminal);
    Ok(())
}

/// The trace, the model and its twin replayed by a `heaplab run` of its own that takes one measure, whose result set is thrown
/// away.
fn replay(args: &TraceModel, twin: &Path, measure: &[&str]) -> Result<ResultSet, Error> {
    let program =
        std::env::current_exe().map_err(|error| Error::io("find", Path::new("heaplab"), &error))?;
    let folder = tempfile::tempdir()
        .map_err(|error| Error::io("create a folder in", &std::env::temp_dir(), &error))?;
    let results = folder.path().join("results");
    let mut command = Command::new(program);
    command
        .args(["run", "--quiet", "--no-report"])
        .args(["--seed", &SEED.to_string()])
        .args(measure)
        .args(["--blocks", &args.blocks.to_string()])
        .args(["--subject", &args.subjects.specs().join(",")])
        .arg("--out")
        .arg(&results)
        .arg(&args.file)
        .arg(&args.out)
        .arg(twin)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = command
        .status()
        .map_err(|error| Error::io("start", Path::new("heaplab run"), &error))?;
    heaplab_reports::load(&results).map_err(|error| {
        Error::environment(format!(
            "the replays left no result ({status}): {error}; try 'heaplab run {} {}'",
            shell::word(&args.file),
            shell::path(&args.out)
        ))
    })
}

/// A subject's figures of the trace and of the model, and how far the model's twin is from it.
struct Row {
    subject: String,
    ns: (f64, f64),
    ns_noise: f64,
    peak: (f64, f64),
    peak_noise: f64,
    faults: (f64, f64),
    footprint: (f64, f64),
}

fn compare(results: &[ResultSet; 2], trace: &str, model: &str) -> Vec<Row> {
    // Of times the least: what other programs on the machine take only adds.
    let figure = |workload: &str, subject: &str, name: &str| {
        let metric = (results.iter().flat_map(|result| &result.cells))
            .filter(|cell| cell.workload == workload && cell.subject == subject)
            .find_map(|cell| cell.metrics.get(name))?;
        let values = metric.samples.iter().map(|sample| sample.value);
        match name {
            "ns_per_op" => values.min_by(f64::total_cmp),
            _ => Some(metric.median),
        }
    };
    (results[0].subjects.iter())
        .filter_map(|subject| {
            let of = |workload: &str, name: &str| figure(workload, &subject.name, name);
            let both = |name: &str| Some((of(trace, name)?, of(model, name)?));
            let twin = format!("{model}{TWIN}");
            let noise = |name: &str| Some(off((of(model, name)?, of(&twin, name)?)).abs());
            Some(Row {
                subject: subject.name.clone(),
                ns: both("ns_per_op")?,
                ns_noise: noise("ns_per_op")?,
                peak: both("peak_resident_bytes")?,
                peak_noise: noise("peak_resident_bytes")?,
                faults: both("minor_faults").unwrap_or((f64::NAN, f64::NAN)),
                footprint: both("footprint_at_peak_resident").unwrap_or((f64::NAN, f64::NAN)),
            })
        })
        .collect()
}

/// How much larger the second is, relative to the first.
fn off((trace, model): (f64, f64)) -> f64 {
    model / trace - 1.0
}

fn print(
    format: Format,
    trace: &str,
    (surprise, of_model): ((f64, f64), (f64, f64)),
    rows: &[Row],
) -> Result<(), Error> {
    if format == Format::Json {
        let all: Vec<_> = (rows.iter())
            .map(|row| {
                let pair = |(trace, model): (f64, f64)| json!({"trace": trace, "model": model});
                json!({
                    "subject": row.subject, "ns_per_op": pair(row.ns), "ns_per_op_noise": row.ns_noise,
                    "peak_resident_bytes": pair(row.peak), "peak_resident_bytes_noise": row.peak_noise, "footprint_at_peak_resident": pair(row.footprint),
                    "minor_faults": pair(row.faults),
                })
            })
            .collect();
        let unforeseen =
            |(kinds, sizes): (f64, f64)| json!({"kind": kinds, "kind_and_size": sizes});
        return out::print_json(&json!({
            "trace": trace,
            "unforeseen_calls": {"trace": unforeseen(surprise), "model": unforeseen(of_model)},
            "subjects": all,
        }));
    }
    let percent = |value: f64| format!("{:+.0} %", 100.0 * value);
    let cells: Vec<Vec<String>> = (rows.iter())
        .map(|row| {
            let near = off(row.ns).abs() <= GOALS.0 && off(row.peak).abs() <= GOALS.1;
            vec![
                trace.to_string(),
                row.subject.clone(),
                format!("{:.1}", row.ns.0),
                format!("{:.1}", row.ns.1),
                percent(off(row.ns)),
                format!("{:.0} %", 100.0 * row.ns_noise),
                human_bytes(row.peak.0 as u64),
                human_bytes(row.peak.1 as u64),
                percent(off(row.peak)),
                format!("{:.0} %", 100.0 * row.peak_noise),
                format!("{:.2}", row.footprint.0),
                format!("{:.2}", row.footprint.1),
                if near { "near" } else { "" }.to_string(),
            ]
        })
        .collect();
    let header = [
        "trace",
        "subject",
        "ns/op",
        "model",
        "off",
        "noise",
        "peak resident",
        "model",
        "off",
        "noise",
        "footprint",
        "model",
        "",
    ];
    if format == Format::Markdown {
        let mut text = format!(
            "| {} |\n|{}\n",
            header.join(" | "),
            "---|".repeat(header.len())
        );
        for row in cells {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        return out::print(&text);
    }
    out::print(&out::columns(&header, &cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_never_called_like_its_trace() {
        assert_eq!(model_name(Path::new("x/a.toml"), "a"), "a-fitted");
        assert_eq!(model_name(Path::new("b.toml"), "a"), "b");
    }
}
