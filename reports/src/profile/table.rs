//! What the terminal shows.

use super::callers::{Chain, callers};
use super::schema::{Metric, Profile, Site};
use crate::table::{Field, Style, align};
use crate::text::wrapped;
use crate::{shell, units};
use std::collections::BTreeMap;

/// Columns of a function's name, and of a place.
const FUNCTION: usize = 46;
const PLACE: usize = 38;
/// A site with fewer samples is no more than a hint: it is counted, not ranked.
const FEWEST_SAMPLES: u64 = 4;
/// Columns of a note.
const NOTE: usize = 100;
/// Columns of a line of callers.
const WIDTH: usize = 110;
/// Rows of a table whose callers are named.
const CALLED: usize = 3;
/// A share that is smaller is shown as 0.0 %.
const VISIBLE: f64 = 0.000_5;

/// The tables, each with at most `top` rows.
pub fn render(profile: &Profile, style: Style, top: usize) -> String {
    let mut out = head(profile, style);
    for metric in Metric::ALL {
        out.push(String::new());
        out.extend(section(profile, metric, style, top));
    }
    out.push(String::new());
    for note in notes(profile) {
        let lines = wrapped(&note, NOTE, NOTE - 2).into_iter().enumerate();
        out.extend(lines.map(|(number, line)| {
            if number == 0 {
                line
            } else {
                format!("  {line}")
            }
        }));
    }
    out.join("\n") + "\n"
}

fn head(profile: &Profile, style: Style) -> Vec<String> {
    let totals = &profile.totals;
    let program = match profile.program.is_empty() {
        true => "a program".to_owned(),
        false => shorten(&shell::command(&profile.program), 70, true),
    };
    let seconds = |ns: u64| units::seconds(ns as f64 / 1e9);
    vec![
        format!(
            "{}   peak {} after {} of {}",
            style.paint("1", &program),
            units::bytes(totals.peak_bytes as f64),
            seconds(totals.peak_ns),
            seconds(totals.duration_ns)
        ),
        format!(
            "{} of {}, {} of them short-lived; {} in {} never freed",
            units::counted(totals.allocations as f64, "allocation"),
            units::bytes(totals.bytes as f64),
            share(totals.short_lived_blocks as f64, totals.allocations as f64),
            units::bytes(totals.leaked_bytes as f64),
            units::counted(totals.leaked_blocks as f64, "block")
        ),
    ]
}

pub(super) fn title(profile: &Profile, metric: Metric) -> String {
    let totals = &profile.totals;
    let bytes = |value: u64| units::bytes(value as f64);
    let blocks = |value: u64| units::counted(value as f64, "block");
    match metric {
        Metric::Peak => format!(
            "LIVE AT THE PEAK   {} in {}",
            bytes(totals.peak_bytes),
            blocks(totals.peak_blocks)
        ),
        Metric::Allocated => format!(
            "ALLOCATED   {} in {}",
            bytes(totals.bytes),
            units::counted(totals.allocations as f64, "allocation")
        ),
        Metric::ShortLived => format!(
            "SHORT-LIVED   {}, {}: freed before their thread's {} next allocations",
            blocks(totals.short_lived_blocks),
            bytes(totals.short_lived_bytes),
            profile.short_lived_within
        ),
        Metric::Leaked => format!(
            "NEVER FREED   {} in {}",
            bytes(totals.leaked_bytes),
            blocks(totals.leaked_blocks)
        ),
    }
}

/// The sites of a metric, the largest first, and those that were sampled too rarely to be ranked.
pub(super) fn ranked(profile: &Profile, metric: Metric) -> (Vec<&Site>, Vec<&Site>) {
    let sampled = profile.sampling.period_bytes.is_some();
    let (mut sites, rare): (Vec<&Site>, Vec<&Site>) = profile
        .sites
        .iter()
        .filter(|site| metric.of(&site.costs).value >= 0.5)
        .partition(|site| {
            // As many samples as its error says: (value / standard error) squared, at least.
            let amount = metric.of(&site.costs);
            let known = amount.error95 <= 1.959_964 * amount.value / (FEWEST_SAMPLES as f64).sqrt();
            !sampled || known
        });
    sites.sort_by(|a, b| {
        metric
            .of(&b.costs)
            .value
            .total_cmp(&metric.of(&a.costs).value)
    });
    (sites, rare)
}

/// What is said of sites that are not ranked: their estimate, which may be far off, but not more than the ranked ones leave
/// over of the exact whole. Up to a twentieth may overlap: the ranked ones are estimates, too.
pub(super) fn unranked(
    profile: &Profile,
    metric: Metric,
    ranked: &[&Site],
    rare: &[&Site],
) -> Option<String> {
    if rare.is_empty() {
        return None;
    }
    let sum = |sites: &[&Site]| -> f64 {
        let values = sites.iter().map(|site| metric.of(&site.costs).value);
        values.sum()
    };
    let whole = metric.total(&profile.totals) as f64;
    let left = (whole - sum(ranked)).max(whole / 20.0);
    let rest = sum(rare).min(left);
    let share = if rest < VISIBLE * whole {
        "less than 0.1 %".into()
    } else {
        format!("about {}", share(rest, whole))
    };
    Some(match rare.len() {
        1 => format!("1 place with {share} was sampled too rarely to be ranked"),
        n => format!("{n} places with together {share} were sampled too rarely to be ranked"),
    })
}

/// Bytes, or a whole number of blocks: an estimate of 3.16 blocks is about three.
pub(super) fn amounts(bytes: bool, value: f64) -> String {
    if bytes {
        units::bytes(value)
    } else {
        units::count(value.round())
    }
}

/// A fraction of an amount in whole or tenths of percent.
pub(super) fn share(part: f64, whole: f64) -> String {
    if whole <= 0.0 {
        return "-".into();
    }
    let percent = 100.0 * part / whole;
    if percent >= 99.95 {
        "100 %".into()
    } else {
        format!("{percent:.1} %")
    }
}

/// Half the width of the interval, in percent of the amount; nothing for exact ones.
pub(super) fn error(amount: super::schema::Amount) -> String {
    if amount.error95 <= 0.0 || amount.value <= 0.0 {
        return String::new();
    }
    let percent = 100.0 * amount.error95 / amount.value;
    if percent < 9.95 {
        format!("± {percent:.1} %")
    } else {
        format!("± {percent:.0} %")
    }
}

fn section(profile: &Profile, metric: Metric, style: Style, top: usize) -> Vec<String> {
    let (sites, rare) = ranked(profile, metric);
    let mut lines = vec![style.paint("1", &title(profile, metric))];
    let rarely = unranked(profile, metric, &sites, &rare).map(|text| format!("    {text}"));
    if sites.is_empty() {
        lines.push(
            rarely.unwrap_or_else(|| match metric.total(&profile.totals) {
                0 => "    nothing".into(),
                _ => "    none of it was sampled".into(),
            }),
        );
        return lines;
    }
    // The whole is known exactly; what estimates leave over or exceed it by is chance.
    let whole = metric.total(&profile.totals) as f64;
    // What shows as 0.0 % is among the rest, but the first row stands for itself.
    let visible = |site: &&&Site| metric.of(&site.costs).value >= VISIBLE * whole;
    let top = sites.iter().filter(visible).count().clamp(1, top);
    let sampled = profile.sampling.period_bytes.is_some();
    let (first, second) = match metric {
        Metric::ShortLived => ("blocks", "bytes"),
        Metric::Allocated => ("bytes", "allocations"),
        _ => ("bytes", "blocks"),
    };
    let mut header = vec![Field::left(""), Field::right("share"), Field::right(first)];
    if sampled {
        header.push(Field::right("95 %"));
    }
    header.extend([
        Field::right(second),
        Field::left("function"),
        Field::left("where"),
    ]);
    let mut rows = vec![header];
    for site in sites.iter().take(top) {
        let amount = metric.of(&site.costs);
        let mut row = vec![
            Field::left(""),
            Field::right(share(amount.value, whole)),
            Field::right(amounts(metric.is_bytes(), amount.value)),
        ];
        if sampled {
            row.push(Field::right(error(amount)));
        }
        row.extend([
            Field::right(amounts(
                !metric.is_bytes(),
                metric.beside(&site.costs).value,
            )),
            Field::left(shorten(&site.location.function, FUNCTION, false)),
            Field::left(short_path(&site.location.place())),
        ]);
        rows.push(row);
    }
    let gaps = vec![2; rows[0].len()];
    let names = align(&rows[..], &gaps, Style::Plain)[0].find("function");
    let chains = callers(profile, metric);
    for (number, line) in align(&rows, &gaps, style).into_iter().enumerate() {
        lines.push(line);
        let site = number.checked_sub(1).filter(|site| *site < CALLED);
        let chain = site.and_then(|site| chains.get(&sites[site].location));
        if let (Some(chain), Some(indent)) = (chain, names) {
            let text = called(chain, WIDTH.saturating_sub(indent));
            lines.push(format!("{}{}", " ".repeat(indent), style.paint("2", &text)));
        }
    }
    if let Some(rest) = sites.len().checked_sub(top).filter(|rest| *rest > 0) {
        let sum: f64 = sites
            .iter()
            .skip(top)
            .map(|site| metric.of(&site.costs).value)
            .sum();
        let sum = match metric.is_bytes() {
            true => units::bytes(sum),
            false => units::counted(sum, "block"),
        };
        lines.push(format!("    and {rest} more with {sum}"));
    }
    lines.extend(rarely);
    lines
}

/// How much came on the way that is named, and how many other ways there are; nothing where that is all.
pub(super) fn remainder(chain: &Chain) -> String {
    let percent = share(chain.share, 1.0);
    match (chain.share >= 0.9995, chain.others) {
        (true, _) => String::new(),
        (false, 0) => percent,
        (false, 1) => format!("{percent}, 1 other caller"),
        (false, n) => format!("{percent}, {n} other callers"),
    }
}

/// `← parse ← read_all  62 %`: who called a site.
fn called(chain: &Chain, width: usize) -> String {
    let tail = match remainder(chain) {
        rest if rest.is_empty() => rest,
        rest => format!("  {rest}"),
    };
    let room = width.saturating_sub(tail.chars().count());
    let mut text = String::new();
    for function in &chain.functions {
        let step = format!("← {} ", shorten(function, FUNCTION, false));
        // The direct caller is named in any case.
        if !text.is_empty() && text.chars().count() + step.chars().count() > room + 1 {
            break;
        }
        text.push_str(&step);
    }
    text.trim_end().to_owned() + &tail
}

/// Cuts a text to a width: the begin of a function, the end of a path.
fn shorten(text: &str, width: usize, keep_end: bool) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    if keep_end {
        let tail: String = text.chars().skip(length + 1 - width).collect();
        format!("…{tail}")
    } else {
        let begin: String = text.chars().take(width - 1).collect();
        format!("{begin}…")
    }
}

/// The end of a path, whole components where they fit.
fn short_path(path: &str) -> String {
    if path.chars().count() <= PLACE {
        return path.to_owned();
    }
    let mut kept = shorten(path, PLACE, true);
    if let Some(at) = kept.find('/') {
        kept = format!("…{}", kept.split_off(at));
    }
    kept
}

/// How sure it is, and what has no name.
pub(super) fn notes(profile: &Profile) -> Vec<String> {
    let mut notes = Vec::new();
    match profile.sampling.period_bytes {
        Some(period) => notes.push(format!(
            "sampled: one stack for every {} allocated on average, {} in all. Rows are estimates, 95 % is their sampling error; \
             sums over the program are exact. A smaller --stack-period errs less, --stacks full not at all",
            units::bytes(f64::from(period)),
            units::grouped(profile.sampling.samples as f64)
        )),
        None => notes.push(format!(
            "exact: the stack of each of the {} allocations was recorded",
            units::grouped(profile.sampling.samples as f64)
        )),
    }
    for module in &profile.modules {
        let name = module.path.rsplit('/').next().unwrap_or_default();
        if let Some(why) = module.names.strip_prefix("nothing: ")
            && !name.is_empty()
            && !name.starts_with("linux-vdso")
        {
            notes.push(format!("! {name} has no names: {why}"));
        }
    }
    notes.extend(unnamed(profile));
    notes.extend(
        profile
            .missing
            .iter()
            .map(|what| format!("! missing: {what}")),
    );
    notes
}

/// Modules that have names, but not those of the functions that matter: stripped programs keep what they export.
fn unnamed(profile: &Profile) -> Vec<String> {
    let mut nameless: BTreeMap<&str, f64> = BTreeMap::new();
    for site in &profile.sites {
        let location = &site.location;
        let address = location.function.strip_prefix(&location.module);
        if address.is_some_and(|rest| rest.starts_with("+0x")) {
            *nameless.entry(&location.module).or_default() += site.costs.bytes.value;
        }
    }
    let known = |module: &str| {
        let of = |file: &&super::schema::ModuleNames| file.path.rsplit('/').next() == Some(module);
        let found = profile.modules.iter().find(of);
        found.is_none_or(|file| !file.names.starts_with("nothing"))
    };
    nameless
        .into_iter()
        .filter(|(module, bytes)| *bytes >= profile.totals.bytes as f64 / 20.0 && known(module))
        .map(|(module, bytes)| {
            format!(
                "! {} of the bytes were allocated by functions of {module} that it has no names of: install its debug symbols, or \
                 compile it with -g",
                share(bytes, profile.totals.bytes as f64)
            )
        })
        .collect()
}
