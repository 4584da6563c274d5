//! How a validation is printed.

use super::{Ranking, Row, by_peak, by_time, measured};
use crate::cli::options::Format;
use crate::disturbance::Disturbance;
use crate::error::Error;
use crate::out::{self, human_bytes};
use heaplab_reports::schema::Metric;
use heaplab_reports::shell;
use serde_json::json;

/// Own mappings above this are worth a line; below it is the loader's and a few stacks'.
const WORTH_A_LINE: u64 = 1 << 20;

/// What was validated.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Runs of the program, and replays for memory, under each subject at first.
    pub runs: u32,
    /// The same at most, where that did not suffice for a verdict.
    pub most_runs: u32,
    /// Recordings, which the replays take in turn.
    pub recordings: u32,
    /// How many of them were disturbed, although the program was recorded twice.
    pub disturbed_recordings: u32,
    /// Calls in a recording (median).
    pub events: u64,
    /// Threads in it (most).
    pub threads: u64,
    /// Peak of its live bytes (median).
    pub peak_live_bytes: u64,
    /// The recordings hold everything.
    pub complete: bool,
    /// Bytes that do not come from malloc on the C library's malloc; what was subtracted of a subject's peaks, its row says.
    pub own_mappings_bytes: u64,
    /// CPU time of the harness in every predicted time, seconds.
    pub harness_s: Option<f64>,
    /// What else went on at the machine from begin to end.
    pub beside: Option<Disturbance>,
    /// Remarks that change how the figures are read.
    pub remarks: Vec<String>,
}

/// Prints rows and verdict.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(rows: &[Row], facts: &Facts, format: Format) -> Result<(), Error> {
    match format {
        Format::Json => out::print_json(&json!({
            "command": facts.command,
            "runs": facts.runs,
            "replays": facts.runs,
            "most_runs": facts.most_runs,
            "recordings": facts.recordings,
            "disturbed_recordings": facts.disturbed_recordings,
            "beside": facts.beside,
            "trace": {
                "events": facts.events, "threads": facts.threads,
                "peak_live_bytes": facts.peak_live_bytes, "complete": facts.complete,
            },
            "own_mappings_bytes": facts.own_mappings_bytes,
            "harness_s": facts.harness_s,
            "subjects": rows,
            "ranking": by_peak(rows),
            "time_ranking": by_time(rows),
            "remarks": facts.remarks,
        })),
        Format::Csv => out::print(&csv(rows)),
        Format::Markdown => {
            let mut text = String::new();
            for table in [peaks(rows), times(rows), measured::table(rows)]
                .iter()
                .flatten()
            {
                text.push_str(&markdown(table));
                text.push('\n');
            }
            text.push_str(&verdict(rows, facts));
            out::print(&text)
        }
        Format::Table => {
            let mut text = format!(
                "{}   {} events, {} thread{}, peak live {}, {} recording{}\n\n",
                shell::command(&facts.command),
                out::human_count(facts.events),
                facts.threads,
                if facts.threads == 1 { "" } else { "s" },
                human_bytes(facts.peak_live_bytes),
                facts.recordings,
                if facts.recordings == 1 { "" } else { "s" },
            );
            for table in [peaks(rows), times(rows), measured::table(rows)]
                .iter()
                .flatten()
            {
                let (head, cells) = table;
                let head: Vec<&str> = head.iter().map(String::as_str).collect();
                text.push_str(&out::columns(&head, cells));
                text.push('\n');
            }
            text.push_str(&verdict(rows, facts));
            out::print(&text)
        }
    }
}

pub(super) type Table = (Vec<String>, Vec<Vec<String>>);

fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |s| format!("{:.1} %", 100.0 * s))
}

fn peaks(rows: &[Row]) -> Option<Table> {
    let head = [
        "subject",
        "runs",
        "predicted peak",
        "spread",
        "actual peak",
        "spread",
        "error",
        "95 % interval",
    ];
    let cells = rows.iter().map(|row| {
        let bytes = |n: Option<f64>| n.map_or("-".into(), |n| human_bytes(n as u64));
        let miss = match (row.within_goal, row.decided) {
            (_, Some(false)) => " ?",
            (Some(false), _) => " !",
            _ => "",
        };
        let error = match (&row.reason, row.error) {
            (Some(reason), _) => format!("FAILED {reason}"),
            (None, Some(error)) => format!("{:+.1} %{miss}", 100.0 * error),
            (None, None) => "-".into(),
        };
        vec![
            row.subject.clone(),
            runs(row),
            bytes(row.predicted_peak_bytes),
            percent(row.predicted_spread),
            bytes(row.actual_peak_bytes),
            percent(row.actual_spread),
            error,
            row.error_interval.map_or("-".into(), |[low, high]| {
                format!("{:+.1} to {:+.1} %", 100.0 * low, 100.0 * high)
            }),
        ]
    });
    Some((head.map(String::from).to_vec(), cells.collect()))
}

/// How often it was run, and replayed where that is another number.
fn runs(row: &Row) -> String {
    let (runs, replays) = (row.actual_samples.len(), row.predicted_samples.len());
    match runs == replays || row.variant {
        true => runs.to_string(),
        false => format!("{runs}, {replays} replays"),
    }
}

/// What was disturbed: how much of it, and what that means for the verdicts.
fn disturbed(rows: &[Row], facts: &Facts) -> Option<String> {
    let count = |figure: fn(&Row) -> usize| rows.iter().map(figure).sum::<usize>();
    let (runs, all) = (
        count(|row| row.actual_disturbed),
        count(|row| row.actual_samples.len()),
    );
    let (times, timed) = (
        count(|row| row.actual_allocation_disturbed),
        count(|row| row.actual_allocation_samples.len()),
    );
    let parts = [
        (runs, all, "runs of the program"),
        (
            facts.disturbed_recordings as usize,
            facts.recordings as usize,
            "recordings",
        ),
        (times, timed, "runs in which its time was sampled"),
    ];
    // Where its time could not be sampled no run of it counts.
    let parts: Vec<String> = (parts.iter())
        .filter(|(some, all, _)| (1..=*all).contains(some))
        .map(|(some, all, what)| format!("{some} of {all} {what}"))
        .collect();
    (!parts.is_empty()).then(|| {
        format!(
            "! {} were disturbed although they were made twice: other programs or the host held them up. Verdicts are of the others; \
             a row without enough of those has none.",
            parts.join(", ")
        )
    })
}

/// What else had the machine from begin to end, where that is worth a line.
fn beside(found: &Disturbance) -> Option<String> {
    found.matters().then(|| {
        format!(
            "from begin to end other programs took {:.0} % and the host {:.0} % of a CPU",
            100.0 * found.others,
            100.0 * found.steal
        )
    })
}

/// A row that was run further than the others: why, and how the two sides lie.
fn further(row: &Row, facts: &Facts) -> Option<String> {
    let runs = row.actual_samples.len();
    if runs <= facts.runs as usize {
        return None;
    }
    let quartiles = |ends: Option<[f64; 3]>| {
        let ends = ends.unwrap_or_default().map(|n| human_bytes(n as u64));
        ends.join(" | ")
    };
    let differ = match row.error_interval {
        Some([low, high]) if low > 0.0 || high < 0.0 => "the two differ",
        _ => "they are not shown to differ",
    };
    Some(format!(
        "  {}: {} runs and replays, as {} did not suffice for a verdict; quartiles predicted {}, actual {}: {differ}",
        row.subject,
        runs,
        facts.runs,
        quartiles(row.predicted_quartiles),
        quartiles(row.actual_quartiles)
    ))
}

/// Absent where the program's time could not be sampled.
fn times(rows: &[Row]) -> Option<Table> {
    if rows.iter().all(|row| row.actual_allocation_s.is_none()) {
        return None;
    }
    let head = [
        "subject",
        "predicted time",
        "actual time",
        "spread",
        "of the program's CPU",
    ];
    let cells = rows.iter().map(|row| {
        let time = |s: Option<f64>| s.map_or("-".into(), seconds);
        let share = row.actual_allocation_s.zip(row.actual_cpu_s);
        vec![
            row.subject.clone(),
            time(row.predicted_allocation_s),
            time(row.actual_allocation_s),
            percent(row.actual_allocation_spread),
            percent(
                share
                    .filter(|(_, all)| *all > 0.0)
                    .map(|(part, all)| part / all),
            ),
        ]
    });
    Some((head.map(String::from).to_vec(), cells.collect()))
}

fn seconds(s: f64) -> String {
    match s {
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s => format!("{:.0} ms", 1e3 * s),
    }
}

fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "subject,runs,disturbed_runs,disturbed_replays,predicted_peak_bytes,predicted_spread,actual_peak_bytes,actual_spread,error,error_low,error_high,\
         predicted_allocation_s,actual_allocation_s,actual_allocation_spread,actual_cpu_s",
    );
    let own = measured::names(rows);
    for name in &own {
        text.push_str(&format!(",{name},{name}_low,{name}_high"));
    }
    text.push('\n');
    for row in rows {
        let numbers = [
            Some(row.actual_samples.len() as f64),
            Some(row.actual_disturbed as f64),
            Some(row.predicted_disturbed as f64),
            row.predicted_peak_bytes,
            row.predicted_spread,
            row.actual_peak_bytes,
            row.actual_spread,
            row.error,
            row.error_interval.map(|ends| ends[0]),
            row.error_interval.map(|ends| ends[1]),
            row.predicted_allocation_s,
            row.actual_allocation_s,
            row.actual_allocation_spread,
            row.actual_cpu_s,
        ];
        let own = own.iter().flat_map(|name| {
            let metric = row.metrics.get(*name);
            let of = |figure: fn(&Metric) -> f64| metric.map(figure);
            [of(|m| m.median), of(|m| m.low), of(|m| m.high)]
        });
        let numbers: Vec<String> = (numbers.into_iter().chain(own))
            .map(|n| n.map_or(String::new(), |n| n.to_string()))
            .collect();
        text.push_str(&format!(
            "{},{}\n",
            row.subject.replace(',', ";"),
            numbers.join(",")
        ));
    }
    text
}

fn markdown((head, cells): &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head);
    text.push_str(&format!("|---|{}\n", "---:|".repeat(head.len() - 1)));
    for row in cells {
        let escaped: Vec<String> = row.iter().map(|c| c.replace('|', "\\|")).collect();
        text.push_str(&line(&escaped));
    }
    text
}

/// What the figures say, and how to read the columns.
fn verdict(rows: &[Row], facts: &Facts) -> String {
    let mut lines = Vec::new();
    // Where there is no verdict the error of the medians is chance.
    let (open, told): (Vec<&Row>, Vec<&Row>) =
        (rows.iter()).partition(|row| row.decided == Some(false));
    let worst = told
        .iter()
        .filter_map(|row| Some((row.error?, row)))
        .max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()));
    let met = match worst {
        None if open.is_empty() => "no subject has both figures".to_string(),
        None => "no subject has a verdict".to_string(),
        Some((error, row)) => format!(
            "the replay meets the program's peak within {:.1} % ({} {:+.1} %)",
            100.0 * error.abs(),
            row.subject,
            100.0 * error
        ),
    };
    lines.push(format!("ANSWER  peak: {met};"));
    if let (false, false) = (open.is_empty(), told.is_empty()) {
        let names: Vec<&str> = open.iter().map(|row| row.subject.as_str()).collect();
        lines.push(format!("        no verdict on {};", names.join(", ")));
    }
    lines.push(format!("        order by peak: {}.", order(by_peak(rows))));
    let timed = rows.iter().any(|row| row.actual_allocation_s.is_some());
    if timed {
        lines.push(format!(
            "        order by time in allocation: {}.",
            order(by_time(rows))
        ));
        lines.push(
            "        It is less sure than that by peak, least with an allocator that gives back by the clock; the size of the times\n\
             \u{20}       is not predicted (harness/docs/VALIDATION.md has how often it held)."
                .into(),
        );
    }
    lines.push(
        "peak: heap memory without data, stacks and file mappings, medians; spread: smallest to largest, of replays and of the \
         program's runs."
            .into(),
    );
    lines.extend(rows.iter().filter_map(|row| further(row, facts)));
    lines.extend(
        rows.iter()
            .filter_map(|row| Some(row.asked.as_ref()?.told(&row.subject))),
    );
    if rows.iter().all(|row| row.error_interval.is_none()) {
        lines.push("An interval of the error takes four runs: --runs 4.".into());
    }
    if let (true, Some(harness)) = (timed, facts.harness_s) {
        lines.push(format!(
            "time: CPU time in the malloc family, replayed (the harness's own {} is in it) and sampled in the program.",
            seconds(harness)
        ));
    }
    lines.extend(disturbed(rows, facts));
    lines.extend(facts.beside.as_ref().and_then(beside));
    let open = |row: &&Row| row.decided == Some(false);
    if (rows.iter().filter(open)).any(|row| row.actual_disturbed + row.predicted_disturbed > 0) {
        lines.push(
            "? no verdict where runs were disturbed; on a quieter machine there would be one."
                .into(),
        );
    }
    if (rows.iter().filter(open)).any(|row| row.actual_disturbed + row.predicted_disturbed == 0) {
        lines.push(format!(
            "? no verdict: the interval reaches from within {} to beyond it; more runs would tell: --most-runs {}.",
            match facts.threads {
                0 | 1 => "2 %, what a program of one thread should be predicted by,",
                _ => "the larger of 3 % and the program's own spread",
            },
            2 * facts.most_runs.max(4)
        ));
    }
    if (rows.iter()).any(|row| row.within_goal == Some(false) && row.decided != Some(false)) {
        lines.push(
            match facts.threads {
                0 | 1 => "! more than 2 % off, which is what a program of one thread should be predicted by.",
                _ => "! more than 3 % and more than the program's own spread off.",
            }
            .into(),
        );
    }
    lines.extend(own_mappings(rows, facts));
    lines.extend(facts.remarks.iter().map(|remark| format!("! {remark}")));
    lines.join("\n") + "\n"
}

/// What is in no actual peak, under each subject.
fn own_mappings(rows: &[Row], facts: &Facts) -> Option<String> {
    let most = (rows.iter())
        .filter_map(|row| row.own_mappings_bytes)
        .fold(facts.own_mappings_bytes as f64, f64::max);
    let under = |row: &Row| {
        let bytes = human_bytes(row.own_mappings_bytes? as u64);
        Some(format!("{} {bytes}", row.subject))
    };
    (most >= WORTH_A_LINE as f64).then(|| {
        format!(
            "! What does not come from malloc (mapped by the program itself, stacks of threads) is left out of the actual peaks: {}.\n\
             \u{20}\u{20}CPython's small objects are such; PYTHONMALLOC=malloc brings them in.",
            rows.iter().filter_map(under).collect::<Vec<_>>().join(", ")
        )
    })
}

fn order(pairs: Ranking) -> String {
    let decided = pairs.agree + pairs.disagree;
    let rest = match pairs.undecided {
        0 => String::new(),
        1 => "; 1 pair is not separated by its own runs".into(),
        more => format!("; {more} pairs are not separated by its own runs"),
    };
    match (decided, pairs.undecided) {
        (0, 0) => "there is no order to compare".into(),
        (0, _) => "the program's own runs do not separate these subjects".into(),
        (n, _) => format!("{} of {n} pairs as in the program{rest}", pairs.agree),
    }
}
