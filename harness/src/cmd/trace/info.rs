//! `heaplab trace info`: what is known without reading an event.

use super::open;
use super::processes;
use super::rows::{Rows, duration};
use crate::cli::ListFormat;
use crate::cli::trace::TraceFile;
use crate::error::{Error, Outcome};
use crate::out::{self, human_bytes, human_count};
use heaplab_reports::shell;
use heaplab_workloads::record::StackMode;
use heaplab_workloads::trace::{self, StackTable, Trace, TraceSummary};
use serde_json::{Value, json};

/// Threads that are listed for people; all are in the JSON.
const THREADS_SHOWN: usize = 12;

/// Does it.
///
/// # Errors
/// A file that is no trace.
pub fn run(args: &TraceFile) -> Result<Outcome, Error> {
    let trace = open(&args.file)?;
    let (header, summary) = (trace.header(), trace.summary());
    if args.format == ListFormat::Json {
        let mut value = json!(summary);
        value["file"] = json!(args.file.display().to_string());
        value["header"] = json!(header);
        value["command"] = json!(header.argv);
        value["notes"] = json!(trace.notes());
        value["stacks"] = trace.stacks().map_or(Value::Null, stacks_json);
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
    rows.add("command", shell::command(&header.argv));
    let by = match header.tool.as_str() {
        "" => String::new(),
        tool => format!("by {tool}"),
    };
    rows.add("recorded", format!("{}  {by}", header.created));
    rows.add("allocator", header.allocator.clone());
    let limit = machine
        .memory_limit
        .map(|bytes| format!(", memory limit {}", human_bytes(bytes)))
        .unwrap_or_default();
    let thp = match machine.thp.as_str() {
        "" => String::new(),
        thp => format!(", THP {thp}"),
    };
    let cpus = match machine.cpus {
        0 => String::new(),
        1 => "1 CPU".into(),
        cpus => format!("{cpus} CPUs"),
    };
    rows.add(
        "machine",
        format!("{cpus}{thp}{limit}  {}", machine.cpu_model),
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
        if let Some(cost) = crate::recording::told_cost(finish) {
            rows.add("recorder", cost);
        }
    }
    if let Some(table) = trace.stacks() {
        rows.add("stacks", stacks(table));
    }
    rows.add("complete", complete(summary));
    for note in trace.notes() {
        rows.add("note", note.clone());
    }
    for (tick, name) in trace.marks() {
        let at = duration(tick.saturating_mul(trace::TICK_NS));
        rows.add("mark", format!("{name} at {at}"));
    }
    out::print(&format!(
        "{}\n{}{}",
        rows.text(),
        processes::table(&trace),
        threads(&trace)
    ))?;
    Ok(Outcome::Done)
}

/// The busiest threads, a line each.
pub fn threads(trace: &Trace) -> String {
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

fn stacks(table: &StackTable) -> String {
    let which = match table.mode {
        StackMode::Sampled { period } => {
            format!(
                "one for every {} allocated on average",
                human_bytes(period.into())
            )
        }
        StackMode::Full | StackMode::Off => "of each allocation".to_owned(),
    };
    let names = match table.symbols {
        Some(_) => "names stored with the trace",
        None => "names are looked up in the files of the program on this machine",
    };
    format!(
        "{which}; {} different, {names}",
        human_count(table.nodes.len() as u64)
    )
}

fn stacks_json(table: &StackTable) -> Value {
    let (mode, period) = match table.mode {
        StackMode::Off => ("off", None),
        StackMode::Sampled { period } => ("sampled", Some(period)),
        StackMode::Full => ("full", None),
    };
    json!({
        "mode": mode, "period_bytes": period, "frames": table.frames.len(), "modules": table.modules,
        "symbols": table.symbols.is_some(),
    })
}

fn complete(summary: &TraceSummary) -> String {
    if summary.complete {
        "yes".into()
    } else {
        format!("no, missing: {}", summary.missing.join("; "))
    }
}
