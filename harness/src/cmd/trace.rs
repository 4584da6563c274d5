//! `heaplab trace …`: looks at traces, checks them, makes others of them.

use crate::cli::{ListFormat, TraceCommand, TraceFile};
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal, human_bytes, human_count};
use crate::workload::trace_error;
use heaplab_workloads::trace::{
    self, Bucket, CutOptions, Trace, TraceError, TraceStats, TraceSummary,
};
use serde_json::json;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Threads that are listed for people; all are in the JSON.
const THREADS_SHOWN: usize = 12;

/// Does it.
///
/// # Errors
/// A file that cannot be read or written; for `verify` a broken rule, with exit status 1.
pub fn run(command: &TraceCommand, terminal: &Terminal) -> Result<Outcome, Error> {
    match command {
        TraceCommand::Info(args) => info(args),
        TraceCommand::Verify(args) => verify(args),
        TraceCommand::Stats(args) => stats(args, terminal),
        TraceCommand::Cut(args) => {
            let options = CutOptions {
                threads: Vec::new(),
                from_event: args.from_event,
                to_event: args.to_event,
                from_ns: args.from.map(|d| d.as_nanos() as u64),
                to_ns: args.to.map(|d| d.as_nanos() as u64),
            };
            if options == CutOptions::default() {
                return Err(Error::usage(
                    "no part is named; use '--from', '--to', '--from-event' or '--to-event'",
                ));
            }
            let source = open(&args.file)?;
            other_file(&args.file, &args.out)?;
            let made = trace::cut(&source, &args.out, &options, &mut |_, _| {});
            wrote(terminal, &args.out, &made.map_err(trace_error)?)
        }
        TraceCommand::Anonymise(args) => {
            let source = open(&args.file)?;
            other_file(&args.file, &args.out)?;
            let made = trace::anonymise(&source, &args.out, &mut |_, _| {});
            wrote(terminal, &args.out, &made.map_err(trace_error)?)
        }
        TraceCommand::Export(args) => export(&open(&args.file)?, args.out.as_deref(), terminal),
    }
}

fn open(path: &Path) -> Result<Trace, Error> {
    Trace::open(path).map_err(trace_error)
}

/// A trace cannot be read and replaced at the same time.
fn other_file(from: &Path, to: &Path) -> Result<(), Error> {
    match (from.canonicalize(), to.canonicalize()) {
        (Ok(from), Ok(to)) if from == to => Err(Error::usage(format!(
            "'{}' would replace itself; choose another file with --out",
            to.display()
        ))),
        _ => Ok(()),
    }
}

fn wrote(terminal: &Terminal, out: &Path, summary: &TraceSummary) -> Result<Outcome, Error> {
    terminal.say(&format!(
        "wrote {}: {} events, peak live {}",
        out.display(),
        human_count(summary.events),
        human_bytes(summary.peak_live_bytes)
    ));
    Ok(Outcome::Done)
}

fn info(args: &TraceFile) -> Result<Outcome, Error> {
    let trace = open(&args.file)?;
    let (header, summary) = (trace.header(), trace.summary());
    if args.format == ListFormat::Json {
        let mut value = json!(summary);
        value["file"] = json!(args.file.display().to_string());
        value["header"] = json!(header);
        value["command"] = json!(header.argv);
        value["notes"] = json!(trace.notes());
        value["marks"] = (trace.marks().iter())
            .map(|(tick, name)| {
                json!({"time_ns": tick.saturating_mul(trace::TICK_NS), "name": name})
            })
            .collect();
        for (thread, name) in trace.names() {
            if let Some(entry) = value["thread_table"].get_mut(*thread as usize) {
                entry["name"] = json!(name);
            }
        }
        out::print_json(&value)?;
        return Ok(Outcome::Done);
    }
    let machine = &header.machine;
    let mut rows = Rows::default();
    rows.add("file", args.file.display().to_string());
    rows.add("command", header.argv.join(" "));
    rows.add(
        "recorded",
        format!("{}  by {}", header.created, header.tool),
    );
    rows.add("allocator", header.allocator.clone());
    let limit = machine
        .memory_limit
        .map(|bytes| format!(", memory limit {}", human_bytes(bytes)))
        .unwrap_or_default();
    let thp = match machine.thp.as_str() {
        "" => String::new(),
        thp => format!(", THP {thp}"),
    };
    rows.add(
        "machine",
        format!("{} CPUs{thp}{limit}  {}", machine.cpus, machine.cpu_model),
    );
    rows.add("system", format!("{}  {}", machine.kernel, machine.libc));
    rows.add("events", human_count(summary.events));
    rows.add("duration", duration(summary.duration_ns));
    rows.add("peak live", human_bytes(summary.peak_live_bytes));
    if let Some(finish) = &summary.finish {
        let end = match (finish.exit_status, finish.signal) {
            (Some(status), _) => format!("exit status {status}"),
            (None, Some(signal)) => crate::exec::signal_name(signal),
            (None, None) => String::new(),
        };
        rows.add("ended", end);
        if let Some(ns) = finish.recorder_ns_per_event {
            rows.add("recorder", format!("about {ns:.0} ns per event"));
        }
    }
    rows.add("complete", complete(summary));
    for note in trace.notes() {
        rows.add("note", note.clone());
    }
    for (tick, name) in trace.marks() {
        let at = duration(tick.saturating_mul(trace::TICK_NS));
        rows.add("mark", format!("{name} at {at}"));
    }
    out::print(&format!("{}\n{}", rows.text(), threads(&trace)))?;
    Ok(Outcome::Done)
}

fn threads(trace: &Trace) -> String {
    let mut busy: Vec<_> = (trace.summary().thread_table.iter().enumerate())
        .filter(|(_, thread)| thread.events > 0)
        .collect();
    let all = busy.len();
    busy.sort_by_key(|(number, thread)| (std::cmp::Reverse(thread.events), *number));
    let rows: Vec<Vec<String>> = busy
        .iter()
        .take(THREADS_SHOWN)
        .map(|(number, thread)| {
            let name = (trace.names().iter().rev())
                .find(|(of, _)| *of as usize == *number)
                .map_or("", |(_, name)| name);
            vec![
                number.to_string(),
                name.to_string(),
                human_count(thread.allocations),
                human_count(thread.frees),
                human_count(thread.remote_frees),
                human_bytes(thread.bytes_allocated),
            ]
        })
        .collect();
    let header = [
        "thread",
        "name",
        "allocations",
        "frees",
        "remote frees",
        "bytes",
    ];
    let mut text = out::columns(&header, &rows);
    if all > THREADS_SHOWN {
        let more = all - THREADS_SHOWN;
        text.push_str(&format!("and {more} more; --format json lists all\n"));
    }
    text
}

fn verify(args: &TraceFile) -> Result<Outcome, Error> {
    let checked = Trace::open(&args.file).and_then(|trace| trace.verify(&mut |_, _| {}));
    let summary = match checked {
        Ok(summary) => summary,
        Err(error @ TraceError::Io { .. }) => return Err(trace_error(error)),
        Err(error) => {
            let why = crate::error::lower_first(&error.to_string());
            if args.format == ListFormat::Json {
                out::print_json(&json!({"valid": false, "complete": false, "reason": why}))?;
            }
            return Err(Error::Verification(why));
        }
    };
    match args.format {
        ListFormat::Json => out::print_json(&json!({
            "valid": true, "complete": summary.complete, "missing": summary.missing,
            "events": summary.events, "allocations": summary.allocations, "frees": summary.frees,
        }))?,
        ListFormat::Table if summary.complete => out::print(&format!(
            "{}: whole, {} events agree with the summary",
            args.file.display(),
            human_count(summary.events)
        ))?,
        ListFormat::Table => {}
    }
    if summary.complete {
        return Ok(Outcome::Done);
    }
    let rest = match summary.events {
        0 => "it holds no event; record again".to_string(),
        n => format!(
            "what is there ({} events) is consistent and can be replayed",
            human_count(n)
        ),
    };
    Err(Error::Verification(format!(
        "'{}' is not whole: {}; {rest}",
        args.file.display(),
        summary.missing.join("; ")
    )))
}

fn stats(args: &TraceFile, terminal: &Terminal) -> Result<Outcome, Error> {
    let trace = open(&args.file)?;
    let stats = trace.stats(&mut |_, _| {}).map_err(trace_error)?;
    if args.format == ListFormat::Json {
        out::print_json(&stats)?;
        return Ok(Outcome::Done);
    }
    if !stats.complete {
        terminal.say(&format!("! missing: {}", stats.missing.join("; ")));
    }
    out::print(&described(&stats))?;
    Ok(Outcome::Done)
}

fn described(stats: &TraceStats) -> String {
    let mut rows = Rows::default();
    rows.add("allocations", human_count(stats.allocations));
    rows.add("frees", human_count(stats.frees));
    rows.add("reallocs", human_count(stats.reallocs));
    rows.count("failed", stats.failed);
    rows.add("requested", human_bytes(stats.bytes_allocated));
    rows.add(
        "peak live",
        format!(
            "{} in at most {} blocks",
            human_bytes(stats.peak_live_bytes),
            human_count(stats.peak_live_blocks)
        ),
    );
    rows.add(
        "never freed",
        format!(
            "{} in {} blocks",
            human_bytes(stats.end_live_bytes),
            human_count(stats.end_live_blocks)
        ),
    );
    rows.add("threads", stats.threads.to_string());
    rows.add(
        "remote frees",
        format!(
            "{}  (by another thread than the one that allocated)",
            human_count(stats.remote_frees)
        ),
    );
    rows.count("foreign frees", stats.foreign_frees);
    rows.count("lost frees", stats.lost_frees);
    rows.add(
        "duration",
        format!(
            "{}, idle {}",
            duration(stats.duration_ns),
            duration(stats.idle_ns)
        ),
    );
    rows.add(
        "calls",
        (stats.calls.iter())
            .map(|(name, count)| format!("{name} {}", human_count(*count)))
            .collect::<Vec<_>>()
            .join(", "),
    );
    rows.add("complete", if stats.complete { "yes" } else { "no" }.into());
    let mut text = rows.text();
    text.push('\n');
    text.push_str(&histogram("size at most", &stats.sizes, human_bytes));
    text.push('\n');
    text.push_str(&histogram(
        "lifetime at most",
        &stats.lifetimes_ns,
        lifetime,
    ));
    text
}

fn histogram(title: &str, buckets: &[Bucket], shown: fn(u64) -> String) -> String {
    let total: u64 = buckets.iter().map(|b| b.count).sum();
    let mut sum = 0;
    let rows: Vec<Vec<String>> = buckets
        .iter()
        .map(|bucket| {
            sum += bucket.count;
            let share = |n: u64| format!("{:5.1} %", 100.0 * n as f64 / total.max(1) as f64);
            vec![
                shown(bucket.le),
                human_count(bucket.count),
                share(bucket.count),
                share(sum),
                human_bytes(bucket.bytes),
            ]
        })
        .collect();
    out::columns(&[title, "blocks", "share", "up to here", "bytes"], &rows)
}

fn export(trace: &Trace, to: Option<&Path>, terminal: &Terminal) -> Result<Outcome, Error> {
    let Some(path) = to else {
        let mut standard = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        let written = trace::export_csv(trace, &mut standard, &mut |_, _| {}).and_then(|()| {
            standard
                .flush()
                .map_err(|error| TraceError::io("write", Path::new("the table"), error))
        });
        return match written {
            Err(TraceError::Io { source, .. }) => Err(out::closed_or_full(&source)),
            Err(error) => Err(trace_error(error)),
            Ok(()) => Ok(Outcome::Done),
        };
    };
    // Beside its final name until it is whole.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| Error::io("write", path, &error);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut buffered = BufWriter::with_capacity(1 << 16, file.as_file_mut());
    trace::export_csv(trace, &mut buffered, &mut |_, _| {}).map_err(|error| match error {
        TraceError::Io { source, .. } => failed(source),
        other => trace_error(other),
    })?;
    buffered.flush().map_err(failed)?;
    drop(buffered);
    file.persist(path).map_err(|e| failed(e.error))?;
    terminal.say(&format!(
        "wrote {}: {} events",
        path.display(),
        human_count(trace.summary().events)
    ));
    Ok(Outcome::Done)
}

fn complete(summary: &TraceSummary) -> String {
    if summary.complete {
        "yes".into()
    } else {
        format!("no: {} missing", summary.missing.join("; "))
    }
}

/// `12 ns`, `3.4 us`, `1.2 ms`, `5.0 s`.
fn duration(ns: u64) -> String {
    let f = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", f / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", f / 1e6),
        _ => format!("{:.1} s", f / 1e9),
    }
}

/// Bounds of lifetimes; what is shorter than the trace's clock tells apart is in the first bucket.
fn lifetime(ns: u64) -> String {
    if ns < trace::TICK_NS {
        format!("under {} ns", trace::TICK_NS)
    } else {
        duration(ns)
    }
}

/// Names and values, one a line; empty values are left out.
#[derive(Default)]
struct Rows(Vec<Vec<String>>);

impl Rows {
    fn add(&mut self, name: &str, value: String) {
        if !value.trim().is_empty() {
            self.0
                .push(vec![name.to_string(), value.trim().to_string()]);
        }
    }

    /// Only where there are any.
    fn count(&mut self, name: &str, count: u64) {
        if count > 0 {
            self.add(name, human_count(count));
        }
    }

    fn text(&self) -> String {
        // No header: the first column names the rows.
        let text = out::columns(&["", ""], &self.0);
        text.split_once('\n')
            .map_or(String::new(), |(_, rows)| rows.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500_000), "1.5 ms");
        assert_eq!(duration(61_000_000_000), "61.0 s");
    }

    #[test]
    fn shares_add_up() {
        let bucket = |le, count| Bucket {
            le,
            count,
            bytes: le * count,
        };
        let text = histogram("size at most", &[bucket(16, 1), bucket(32, 3)], human_bytes);
        assert!(
            text.contains(" 25.0 %") && text.contains("100.0 %"),
            "{text}"
        );
    }
}
