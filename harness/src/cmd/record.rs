//! `heaplab record`: runs a program unmodified and keeps every allocation as a trace.

use crate::cli::RecordArgs;
use crate::error::{Error, Outcome};
use crate::naming;
use crate::out::{self, Terminal};
use crate::recording::{self, Recorded, Recording};
use crate::service::metric;
use heaplab_reports::shell;
use heaplab_workloads::trace::TraceSummary;
use std::path::Path;

/// Records; the outcome carries the program's own status.
///
/// # Errors
/// [`Error::Launch`] with the statuses of a shell.
pub fn run(args: &RecordArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => recording::default_out(&args.command[0]),
    };
    let service = args.service.service()?;
    let metrics = args.metrics.of_load(service.as_ref())?;
    let recorded = Recording {
        command: &args.command,
        out: out.clone(),
        keep_addresses: args.keep_addresses,
        session: args.session.options(args.stacks.mode()),
        silent: false,
        service,
        metrics,
        allocator: None,
        settings: Vec::new(),
    }
    .run(terminal)?;
    let code = recorded.code();
    let Some(trace) = &recorded.trace else {
        let why = recorded.remarks.join("; ");
        // A script must not go on without its trace; a failure of the program itself says more than ours.
        return match code {
            0 => Err(Error::Launch {
                code: 125,
                message: why,
            }),
            code => {
                out::remark(&format!("heaplab: {why}"));
                Ok(Outcome::Command(code))
            }
        };
    };
    if args.stacks.embed_symbols {
        naming::embed(&out, &out)?;
    }
    for line in summary(&recorded, trace, &out) {
        terminal.say(&line);
    }
    if let Some(trouble) = recorded.trouble {
        // What was recorded is kept, but it is not what was asked for.
        return Err(Error::Launch {
            code: 125,
            message: format!("{trouble}; the trace holds what was recorded until then"),
        });
    }
    Ok(Outcome::Command(code))
}

fn summary(recorded: &Recorded, trace: &TraceSummary, out: &Path) -> Vec<String> {
    let bytes = std::fs::metadata(out).map_or(0, |file| file.len());
    let mut parts = vec![
        format!("{} calls", out::human_count(trace.events)),
        format!(
            "{} {}",
            trace.threads,
            if trace.threads == 1 {
                "thread"
            } else {
                "threads"
            }
        ),
        format!("peak live {}", out::human_bytes(trace.peak_live_bytes)),
    ];
    if trace.processes > 1 {
        parts.insert(1, format!("{} processes", trace.processes));
    }
    // Of a few events the file is mostly header.
    if trace.events >= 1000 {
        parts.push(format!(
            "{:.1} bytes per event",
            bytes as f64 / trace.events as f64
        ));
    }
    if let Some(cost) = trace.finish.as_ref().and_then(recording::told_cost) {
        parts.push(format!("the recorder added {cost}"));
    }
    let mut lines = vec![format!("recorded {}: {}", out.display(), parts.join(", "))];
    lines.extend(recorded.measured.iter().map(metric::told));
    let shown = shell::path(out);
    if trace.events == 0 {
        lines.push("! the program never called the allocator".into());
    }
    lines.extend(
        trace
            .missing
            .iter()
            .map(|what| format!("! missing: {what}")),
    );
    lines.extend(recorded.remarks.iter().map(|what| format!("! {what}")));
    if trace.processes > 1 {
        lines.push(format!(
            "next: heaplab trace info {shown} (lists the processes), heaplab run {shown}#PID (replays one; without #PID the busiest)"
        ));
    } else if trace.events > 0 {
        lines.push(format!("next: heaplab run {shown}"));
    }
    lines
}
