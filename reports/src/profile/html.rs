//! `profile.html`: one self-contained page. Tables are readable without script; the flame graph is drawn by the page's own.

use super::callers::callers;
use super::schema::{Metric, Profile};
use super::table::{amounts, error, notes, ranked, remainder, share, title, unranked};
use crate::error::ReportError;
use crate::{shell, units};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use serde::Serialize;
use std::collections::HashMap;

/// Rows of a table.
const ROWS: usize = 100;
/// Calls below this share of every metric are left out of the graph (the files beside the page have all).
const SMALLEST: f64 = 0.000_5;
/// Calls in the graph at most.
const MOST_CALLS: usize = 20_000;

#[derive(Serialize)]
struct Row {
    share: String,
    width: f64,
    amount: String,
    error: String,
    beside: String,
    function: String,
    /// End of the path, and the whole.
    place: String,
    whole_place: String,
    via: String,
    /// Who called it, the direct caller first.
    callers: Vec<String>,
    /// Share that came so, and how many other direct callers there are; empty: all of it, none.
    rest: String,
}

#[derive(Serialize)]
struct Section {
    stem: &'static str,
    heading: String,
    amount: &'static str,
    beside: &'static str,
    rows: Vec<Row>,
    more: usize,
    rare: Option<String>,
}

#[derive(Serialize)]
struct Page<'a> {
    title: String,
    program: String,
    peak: String,
    facts: Vec<String>,
    sections: Vec<Section>,
    sampled: bool,
    notes: Vec<String>,
    modules: &'a [super::schema::ModuleNames],
    version: &'a str,
    style: String,
    script: &'a str,
    data: String,
}

/// The graph as the script reads it: names once, then the tree.
#[derive(Serialize)]
struct Graph {
    /// Function and place.
    names: Vec<(String, String)>,
    totals: [f64; 4],
    root: Call,
}

/// A call: index of its name, amounts by metric, calls below. As an array, because there are thousands.
#[derive(Default, Serialize)]
struct Call(u32, [f64; 4], Vec<Call>);

/// The page.
pub fn render(profile: &Profile) -> Result<String, ReportError> {
    let fail = |e: minijinja::Error| ReportError::Template {
        message: format!("{e}"),
    };
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.add_template("profile", include_str!("profile.html"))
        .map_err(fail)?;
    let totals = &profile.totals;
    let program = shell::command(&profile.program);
    let page = Page {
        title: format!(
            "heap profile: {}",
            profile
                .program
                .first()
                .map_or("a program", |name| name.rsplit('/').next().unwrap_or(name))
        ),
        program,
        peak: units::bytes(totals.peak_bytes as f64),
        facts: vec![
            format!(
                "peak after {} of {}",
                units::seconds(totals.peak_ns as f64 / 1e9),
                units::seconds(totals.duration_ns as f64 / 1e9)
            ),
            format!(
                "{} allocated in {}",
                units::bytes(totals.bytes as f64),
                units::counted(totals.allocations as f64, "allocation")
            ),
            format!(
                "{} of them short-lived",
                share(totals.short_lived_blocks as f64, totals.allocations as f64)
            ),
            format!(
                "{} in {} never freed",
                units::bytes(totals.leaked_bytes as f64),
                units::counted(totals.leaked_blocks as f64, "block")
            ),
        ],
        sections: Metric::ALL
            .iter()
            .map(|metric| section(profile, *metric))
            .collect(),
        sampled: profile.sampling.period_bytes.is_some(),
        notes: notes(profile),
        modules: &profile.modules,
        version: &profile.heaplab,
        style: format!(
            "{}\n{}",
            include_str!("../html/report.css"),
            include_str!("profile.css")
        ),
        script: include_str!("profile.js"),
        data: data(profile)?,
    };
    env.get_template("profile")
        .map_err(fail)?
        .render(Value::from(minijinja::value::Serde(page)))
        .map_err(fail)
}

fn section(profile: &Profile, metric: Metric) -> Section {
    let whole = metric.total(&profile.totals) as f64;
    let (sites, rare) = ranked(profile, metric);
    let chains = callers(profile, metric);
    let largest = sites
        .first()
        .map_or(1.0, |site| metric.of(&site.costs).value);
    let heading = title(profile, metric);
    let (name, rest) = heading.split_once("   ").unwrap_or((&heading, ""));
    Section {
        stem: metric.stem(),
        heading: format!("{}: {rest}", capitalised(name)),
        amount: if metric.is_bytes() { "bytes" } else { "blocks" },
        beside: match metric {
            Metric::ShortLived => "bytes",
            Metric::Allocated => "allocations",
            _ => "blocks",
        },
        more: sites.len().saturating_sub(ROWS),
        rare: unranked(profile, metric, &sites, &rare),
        rows: sites
            .iter()
            .take(ROWS)
            .map(|site| {
                let amount = metric.of(&site.costs);
                let chain = chains.get(&site.location).cloned().unwrap_or_default();
                Row {
                    share: share(amount.value, whole),
                    width: (1000.0 * amount.value / largest).round() / 10.0,
                    amount: amounts(metric.is_bytes(), amount.value),
                    error: error(amount),
                    beside: amounts(!metric.is_bytes(), metric.beside(&site.costs).value),
                    function: site.location.function.clone(),
                    place: end_of_path(&site.location.place()),
                    whole_place: site.location.place(),
                    via: site.via.clone(),
                    rest: remainder(&chain),
                    callers: chain.functions,
                }
            })
            .collect(),
    }
}

/// The last three components of a path: enough to find the file, and few enough to be read.
fn end_of_path(path: &str) -> String {
    match path.rmatch_indices('/').nth(2) {
        Some((at, _)) if at > 0 => format!("…{}", &path[at..]),
        _ => path.to_owned(),
    }
}

/// `NEVER FREED` as a heading.
fn capitalised(words: &str) -> String {
    let lower = words.to_lowercase();
    let mut letters = lower.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// A call while the tree is made.
#[derive(Default)]
struct Node {
    amounts: [f64; 4],
    below: HashMap<u32, usize>,
}

fn data(profile: &Profile) -> Result<String, ReportError> {
    // Calls of one function from one line are one call.
    let mut names: Vec<(String, String)> = vec![("all".into(), String::new())];
    let mut index: HashMap<(String, String), u32> = HashMap::new();
    let frames: Vec<u32> = profile
        .frames
        .iter()
        .map(|location| {
            let name = (location.function.clone(), location.place());
            *index.entry(name.clone()).or_insert_with(|| {
                names.push(name);
                names.len() as u32 - 1
            })
        })
        .collect();
    let mut nodes = vec![Node::default()];
    for stack in &profile.stacks {
        let amounts = Metric::ALL.map(|metric| metric.of(&stack.costs).value);
        let add = |node: &mut Node| {
            node.amounts
                .iter_mut()
                .zip(amounts)
                .for_each(|(sum, amount)| *sum += amount)
        };
        let mut at = 0;
        add(&mut nodes[at]);
        for frame in &stack.frames {
            let name = frames.get(*frame as usize).copied().unwrap_or(0);
            let next = nodes.len();
            at = match nodes[at].below.entry(name) {
                std::collections::hash_map::Entry::Occupied(found) => *found.get(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(next);
                    nodes.push(Node::default());
                    next
                }
            };
            add(&mut nodes[at]);
        }
    }
    let totals = nodes[0].amounts;
    let mut left = MOST_CALLS;
    let root = tree(&nodes, 0, 0, &totals, &mut left);
    let graph = Graph {
        names,
        totals,
        root,
    };
    let json = serde_json::to_string(&graph).map_err(|error| ReportError::Template {
        message: error.to_string(),
    })?;
    // Inside a script element nothing may look like markup.
    Ok(json.replace('<', "\\u003c"))
}

fn tree(nodes: &[Node], at: usize, name: u32, totals: &[f64; 4], left: &mut usize) -> Call {
    let node = &nodes[at];
    let mut below: Vec<(u32, usize)> = node
        .below
        .iter()
        .map(|(name, at)| (*name, *at))
        .filter(|(_, at)| {
            nodes[*at]
                .amounts
                .iter()
                .zip(totals)
                .any(|(amount, total)| *total > 0.0 && amount / total >= SMALLEST)
        })
        .collect();
    below.sort_by(|a, b| {
        nodes[b.1].amounts[0]
            .total_cmp(&nodes[a.1].amounts[0])
            .then(a.0.cmp(&b.0))
    });
    let calls = below
        .into_iter()
        .map_while(|(name, at)| {
            *left = left.checked_sub(1)?;
            Some(tree(nodes, at, name, totals, left))
        })
        .collect();
    Call(name, node.amounts.map(f64::round), calls)
}
