//! `heaplab trace model`: fits a model and says how near it comes.

use crate::cli::options::Format;
use crate::cli::trace::TraceModel;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal, human_bytes};
use crate::watch::Watch;
use crate::workload;
use heaplab_reports::schema::ResultSet;
use heaplab_workloads::{Workload, fit};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a model should reach: relative differences of time and of peak resident bytes.
const GOALS: (f64, f64) = (0.10, 0.15);

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
    for what in &fitted.left_out {
        terminal.say(&format!("! left out: {what}"));
    }
    if args.no_check {
        return Ok(Outcome::Done);
    }
    // Both say how much of their blocks is written, where it was recorded.
    let results = [
        replay(args, &["--measure", "speed"])?,
        replay(args, &["--measure", "memory"])?,
    ];
    let rows = compare(&results, workload.name(), fitted.model.name());
    if rows.is_empty() {
        return Err(Error::Verification(
            "no allocator replayed both the trace and the model; 'heaplab run' with both says why"
                .into(),
        ));
    }
    print(args.format, workload.name(), &rows)?;
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

/// Both replayed by a `heaplab run` of its own that takes one measure, whose result set is thrown away.
fn replay(args: &TraceModel, measure: &[&str]) -> Result<ResultSet, Error> {
    let program =
        std::env::current_exe().map_err(|error| Error::io("find", Path::new("heaplab"), &error))?;
    let folder = tempfile::tempdir()
        .map_err(|error| Error::io("create a folder in", &std::env::temp_dir(), &error))?;
    let results = folder.path().join("results");
    let mut command = Command::new(program);
    command
        .args(["run", "--quiet", "--no-report", "--seed", "1"])
        .args(measure)
        .args(["--blocks", &args.blocks.to_string()])
        .args(["--subject", &args.subjects.specs().join(",")])
        .arg("--out")
        .arg(&results)
        .arg(&args.file)
        .arg(&args.out)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = command
        .status()
        .map_err(|error| Error::io("start", Path::new("heaplab run"), &error))?;
    heaplab_reports::load(&results).map_err(|error| {
        Error::environment(format!(
            "the replays left no result ({status}): {error}; try 'heaplab run {} {}'",
            args.file,
            args.out.display()
        ))
    })
}

/// A subject's figures of the trace and of the model.
struct Row {
    subject: String,
    ns: (f64, f64),
    peak: (f64, f64),
    footprint: (f64, f64),
}

fn compare(results: &[ResultSet; 2], trace: &str, model: &str) -> Vec<Row> {
    let median = |workload: &str, subject: &str, name: &str| {
        (results.iter().flat_map(|result| &result.cells))
            .filter(|cell| cell.workload == workload && cell.subject == subject)
            .find_map(|cell| cell.metrics.get(name))
            .map(|metric| metric.median)
    };
    (results[0].subjects.iter())
        .filter_map(|subject| {
            let of = |workload: &str, name: &str| median(workload, &subject.name, name);
            let both = |name: &str| Some((of(trace, name)?, of(model, name)?));
            Some(Row {
                subject: subject.name.clone(),
                ns: both("ns_per_op")?,
                peak: both("peak_resident_bytes")?,
                footprint: both("footprint_at_peak_resident").unwrap_or((f64::NAN, f64::NAN)),
            })
        })
        .collect()
}

/// How much larger the second is, relative to the first.
fn off((trace, model): (f64, f64)) -> f64 {
    model / trace - 1.0
}

fn print(format: Format, trace: &str, rows: &[Row]) -> Result<(), Error> {
    if format == Format::Json {
        let all: Vec<_> = (rows.iter())
            .map(|row| {
                let pair = |(trace, model): (f64, f64)| json!({"trace": trace, "model": model});
                json!({
                    "subject": row.subject, "ns_per_op": pair(row.ns),
                    "peak_resident_bytes": pair(row.peak), "footprint_at_peak_resident": pair(row.footprint),
                })
            })
            .collect();
        return out::print_json(&json!({"trace": trace, "subjects": all}));
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
                human_bytes(row.peak.0 as u64),
                human_bytes(row.peak.1 as u64),
                percent(off(row.peak)),
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
        "peak resident",
        "model",
        "off",
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
