//! Flame graphs as SVG, by the crate `inferno`.

use super::schema::{Metric, Profile};
use crate::shell;
use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Direction, Options, from_lines};

/// The picture of one metric; the same profile gives the same bytes.
pub fn svg(profile: &Profile, metric: Metric, lines: &[String]) -> std::io::Result<Vec<u8>> {
    let mut options = Options::default();
    options.title = match metric {
        Metric::Peak => "live at the peak",
        Metric::Allocated => "allocated",
        Metric::ShortLived => "short-lived blocks",
        Metric::Leaked => "never freed",
    }
    .into();
    options.subtitle = match shell::command(&profile.program) {
        program if program.is_empty() => None,
        program => Some(program.chars().take(120).collect()),
    };
    options.count_name = if metric.is_bytes() { "bytes" } else { "blocks" }.into();
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.direction = Direction::Straight;
    options.hash = true;
    options.deterministic = true;
    options.min_width = 0.1;
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(svg)
}
