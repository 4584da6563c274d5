//! `heaplab diff OLD NEW`: two result sets cell by cell. It informs and does not judge; judging is the gate's.

use crate::cli::DiffArgs;
use crate::cli::options::Format;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal};
use crate::render;
use heaplab_reports::{Change, Diff, Direction};
use serde_json::{Value, json};

/// Prints the difference.
///
/// # Errors
/// If a result cannot be read or standard output cannot be written.
pub fn run(args: &DiffArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let old = heaplab_reports::load(&args.old).map_err(render::error)?;
    let new = heaplab_reports::load(&args.new).map_err(render::error)?;
    let diff = heaplab_reports::diff(&old, &new);
    match args.format {
        Format::Table => out::print(&diff.render(render::style(terminal), terminal.verbose)),
        Format::Markdown => out::print(&diff.markdown()),
        Format::Json => out::print_json(&as_json(&diff)),
        Format::Csv => out::print(&as_csv(&diff)),
    }?;
    Ok(Outcome::Done)
}

/// The words for a change, its ratio and its reason.
fn words(change: &Change) -> (&'static str, Option<f64>, Option<&str>) {
    match change {
        Change::Compared { ratio, .. } => ("compared", Some(*ratio), None),
        Change::NotCompared(why) => ("not compared", None, Some(why)),
        Change::New => ("new", None, None),
        Change::Removed => ("removed", None, None),
        Change::NowFails(why) => ("now fails", None, Some(why)),
        Change::NowRuns => ("now runs", None, None),
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Better => "better",
        Direction::Worse => "worse",
        Direction::Same => "same",
        Direction::Unknown => "unknown",
    }
}

fn as_json(diff: &Diff) -> Value {
    let rows: Vec<Value> = diff
        .rows
        .iter()
        .map(|row| {
            let (change, ratio, reason) = words(&row.change);
            let interval = match &row.change {
                Change::Compared { interval, .. } => interval
                    .as_ref()
                    .map(|r| json!({"low": r.low, "high": r.high})),
                _ => None,
            };
            json!({
                "cell": row.cell,
                "metric": row.metric,
                "old": row.old.as_ref().map(|m| m.median),
                "new": row.new.as_ref().map(|m| m.median),
                "unit": row.new.as_ref().or(row.old.as_ref()).map(|m| m.unit.clone()),
                "change": change,
                "ratio": ratio,
                "interval": interval,
                "direction": direction(row.direction()),
                "reason": reason,
            })
        })
        .collect();
    json!({"rows": rows, "notes": diff.notes})
}

fn as_csv(diff: &Diff) -> String {
    let mut text = String::from("cell,metric,old,new,change,ratio,direction\n");
    for row in &diff.rows {
        let (change, ratio, _) = words(&row.change);
        let number = |n: Option<f64>| n.map_or_else(String::new, |n| n.to_string());
        text.push_str(&format!(
            "{},{},{},{},{change},{},{}\n",
            quote(&row.cell),
            row.metric,
            number(row.old.as_ref().map(|m| m.median)),
            number(row.new.as_ref().map(|m| m.median)),
            number(ratio),
            direction(row.direction()),
        ));
    }
    text
}

/// RFC 4180: a field with a comma, a quote or a line break stands in quotes.
fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.into()
    }
}
