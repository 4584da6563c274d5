//! How helps look: the width they are folded to, what hangs under its own column, and where defaults stand.

use super::Cli;
use clap::{Arg, Command, CommandFactory};
use heaplab_reports::text::wrapped;

/// Columns beyond which a line is no longer easily read.
const WIDEST: usize = 100;

/// The command line with helps for a terminal of `width` columns.
pub fn command(width: usize) -> Command {
    shaped(Cli::command(), width.min(WIDEST))
}

/// The command line with helps that are not folded, for what folds them itself.
pub fn unfolded() -> Command {
    shaped(Cli::command(), usize::MAX)
}

fn shaped(command: Command, width: usize) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|one| one.get_name().to_owned())
        .collect();
    let below = command.get_after_help().map(ToString::to_string);
    let mut command = command.term_width(width).mut_args(default_in_line);
    if let Some(below) = below {
        command = command.after_help(folded(&below, width));
    }
    names.into_iter().fold(command, |all, name| {
        all.mut_subcommand(name, |inner| shaped(inner, width))
    })
}

/// A default stands behind the sentence on the option, whether it is the parser's or described.
fn default_in_line(arg: Arg) -> Arg {
    let values: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let takes_value = arg.get_action().takes_values();
    match arg.get_help().map(ToString::to_string) {
        Some(help) if takes_value && !values.is_empty() => arg
            .help(format!("{help} [default: {}]", values.join(",")))
            .hide_default_value(true),
        _ => arg,
    }
}

/// Lines of at most `width` characters: what goes on hangs under the text of its line, which in a table is the second
/// column.
fn folded(text: &str, width: usize) -> String {
    let fold = |line: &str| {
        let fits = line.chars().count() <= width;
        let words = line.trim_start_matches(' ');
        let indent = line.len() - words.len();
        let second = words.find("  ").map(|gap| {
            let gap_end = words[gap..].len() - words[gap..].trim_start_matches(' ').len();
            indent + words[..gap].chars().count() + gap_end
        });
        let hang = match second {
            Some(column) if column <= width / 2 => column,
            _ if indent == 0 => 0,
            // Under a command the rest of its words; what already hangs stays where it is.
            _ if indent < 6 => indent + 4,
            _ => indent,
        };
        if fits || hang >= width {
            return line.to_owned();
        }
        let lines = wrapped(words, width - indent, width - hang);
        let joint = format!("\n{}", " ".repeat(hang));
        format!("{}{}", " ".repeat(indent), lines.join(&joint))
    };
    text.lines().map(fold).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::options::EVERYWHERE;
    use super::*;

    /// Every command with its words, the root first.
    fn each(visit: &mut dyn FnMut(&str, &mut Command)) {
        fn walk(command: &mut Command, path: &str, visit: &mut dyn FnMut(&str, &mut Command)) {
            visit(path, command);
            for inner in command.get_subcommands_mut() {
                let path = format!("{path} {}", inner.get_name());
                walk(inner, &path, visit);
            }
        }
        let mut root = command(WIDEST);
        root.build();
        walk(&mut root, "heaplab", visit);
    }

    /// The option names of a help's sections, by heading.
    fn sections(help: &str) -> Vec<(String, Vec<String>)> {
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        for line in help.lines() {
            let words = line.trim_start();
            let indent = line.len() - words.len();
            if indent == 0 && line.ends_with(':') {
                all.push((line.trim_end_matches(':').to_owned(), Vec::new()));
            } else if matches!(indent, 2 | 6) && words.starts_with('-') {
                let names = words.split("  ").next().unwrap_or(words);
                let long = names.split([' ', ',']).find(|name| name.starts_with("--"));
                if let (Some(section), Some(long)) = (all.last_mut(), long) {
                    section.1.push(long.to_owned());
                }
            }
        }
        all
    }

    #[test]
    fn the_options_of_every_command_stand_last_in_each_help() {
        let global = ["--quiet", "--verbose", "--color", "--help", "--version"];
        let mut commands = 0;
        each(&mut |path, command| {
            if path.split(' ').any(|word| word == "help") {
                return;
            }
            commands += 1;
            let helps = [command.render_long_help(), command.render_help()];
            let below = command.get_after_help().map(ToString::to_string);
            for help in helps.map(|help| help.to_string()) {
                let options = help.split_once(&below.clone().unwrap_or_default());
                let mut options = sections(options.expect(path).0);
                options.retain(|(_, names)| !names.is_empty());
                let (heading, names) = options.pop().expect(path);
                assert_eq!(
                    (heading.as_str(), &names[..]),
                    (EVERYWHERE, &global.map(String::from)[..]),
                    "{path}"
                );
                let others: Vec<_> = options.iter().flat_map(|(_, names)| names).collect();
                assert!(
                    !others.iter().any(|name| global.contains(&name.as_str())),
                    "{path}: {others:?}"
                );
            }
        });
        assert!(commands > 25, "{commands}");
    }

    #[test]
    fn no_heading_goes_on_beyond_its_options() {
        each(&mut |path, command| {
            for arg in command.get_positionals() {
                assert_eq!(arg.get_help_heading(), None, "{path} {}", arg.get_id());
            }
        });
        let heading = |name: &str| {
            let run = command(WIDEST).find_subcommand("run").unwrap().clone();
            let arg = run.get_arguments().find(|arg| arg.get_id() == name);
            arg.unwrap().get_help_heading().map(str::to_owned)
        };
        assert_eq!(heading("resume"), None);
        assert_eq!(heading("variants").as_deref(), Some("Programs and servers"));
    }

    #[test]
    fn a_gate_shows_what_it_takes_and_its_own_defaults() {
        each(&mut |path, command| {
            let help = command.render_long_help().to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            let has = |words: &str| help.contains(words);
            match path {
                "heaplab run" => {
                    assert!(
                        has("--idle") && has("[default: speed,latency,memory]"),
                        "{help}"
                    );
                    assert!(has("[default: 90s; up to"), "{help}");
                }
                "heaplab gate run" => {
                    assert!(
                        !has("--idle") && has("[default: speed,memory,counts]"),
                        "{help}"
                    );
                    assert!(has("[default: 5m; up to"), "{help}");
                }
                "heaplab gate baseline update" | "heaplab gate baseline check" => {
                    assert!(!has("--idle") && has("[default: both]"), "{path}: {help}");
                }
                _ => {}
            }
        });
    }

    #[test]
    fn a_default_stands_behind_its_sentence() {
        each(&mut |path, command| {
            let help = command.render_long_help().to_string();
            let lines: Vec<&str> = help.lines().map(str::trim).collect();
            let mut two = lines.windows(2);
            let alone = two.find(|two| two[0].is_empty() && two[1].starts_with("[default"));
            assert_eq!(alone, None, "{path}");
        });
        let mut run = command(WIDEST).find_subcommand("run").unwrap().clone();
        let help = run.render_long_help().to_string();
        assert!(help.contains("2 is half as fast [default: 1]"), "{help}");
    }

    /// What is aligned by hand fits the widest line, and prose is folded by the help alone.
    #[test]
    fn texts_below_helps_are_folded_once() {
        each(&mut |path, command| {
            let text = command.get_after_help().map(ToString::to_string);
            let lines: Vec<String> = text
                .iter()
                .flat_map(|text| text.lines())
                .map(String::from)
                .collect();
            assert!(
                lines.iter().all(|line| line.chars().count() <= WIDEST),
                "{path}: {lines:#?}"
            );
        });
        let mut root = unfolded();
        root.build();
        fn check(command: &Command, path: &str) {
            let text = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for two in lines.windows(2) {
                let prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
                assert!(
                    !(prose(two[0]) && prose(two[1])),
                    "{path}: folded by hand: {two:?}"
                );
                let table = two[1].starts_with("  ");
                assert!(
                    !table || two[1].chars().count() <= WIDEST,
                    "{path}: {}",
                    two[1]
                );
            }
            for inner in command.get_subcommands() {
                check(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        check(&root, "heaplab");
    }

    #[test]
    fn narrow_lines_hang_under_their_text() {
        let table = "  short   words of a table that go on\n          and on";
        assert_eq!(
            folded(table, 24),
            "  short   words of a\n          table that go\n          on\n          and on"
        );
        assert_eq!(
            folded("  heaplab run with many words", 18),
            "  heaplab run with\n      many words"
        );
        assert_eq!(folded("prose that is long", 11), "prose that\nis long");
        assert_eq!(folded("    fits", 8), "    fits");
    }
}
