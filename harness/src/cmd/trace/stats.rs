//! `heaplab trace stats`: sizes, lifetimes, live bytes over time, threads.

use super::info::threads;
use super::open;
use super::rows::{Rows, duration};
use crate::cli::ListFormat;
use crate::cli::trace::TraceFile;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal, human_bytes, human_count};
use crate::watch::Watch;
use crate::workload::trace_error;
use heaplab_workloads::trace::{self, Bucket, LivePoint, TraceStats};

/// Does it.
///
/// # Errors
/// A damaged file.
pub fn run(args: &TraceFile, terminal: &Terminal) -> Result<Outcome, Error> {
    let trace = open(&args.file)?;
    let mut watch = Watch::new(terminal, "reading");
    let stats = trace.stats(&mut watch.events()).map_err(trace_error)?;
    watch.clear();
    if args.format == ListFormat::Json {
        out::print_json(&stats)?;
        return Ok(Outcome::Done);
    }
    if !stats.complete {
        terminal.say(&format!("! missing: {}", stats.missing.join("; ")));
    }
    let mut text = described(&stats);
    if stats.threads > 1 {
        text.push('\n');
        text.push_str(&threads(&trace));
    }
    out::print(&text)?;
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
            "{}, {:.1} % of all frees  (by another thread than the one that allocated)",
            human_count(stats.remote_frees),
            100.0 * stats.remote_free_share
        ),
    );
    rows.count("foreign frees", stats.foreign_frees);
    rows.count("lost frees", stats.lost_frees);
    rows.add(
        "duration",
        format!(
            "{}, of it {} without a call for 1 ms and more",
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
    rows.add(
        "live bytes",
        curve(&stats.live_curve, stats.peak_live_bytes),
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

/// Bounds of lifetimes; what is shorter than the trace's clock tells apart is in the first bucket.
fn lifetime(ns: u64) -> String {
    if ns < trace::TICK_NS {
        format!("under {} ns", trace::TICK_NS)
    } else {
        duration(ns)
    }
}

/// The live curve in one line: each sign is the largest value of its part, the eight heights are eighths of the peak.
fn curve(points: &[LivePoint], peak: u64) -> String {
    const WIDTH: usize = 60;
    const SIGNS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let part = points.len().div_ceil(WIDTH).max(1);
    let line: String = points
        .chunks(part)
        .map(|part| part.iter().map(|point| point.live_bytes).max().unwrap_or(0))
        .map(|bytes| SIGNS[(bytes as f64 / peak.max(1) as f64 * 7.99) as usize % 8])
        .collect();
    if line.is_empty() {
        line
    } else {
        format!("{line}  (over the events)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
