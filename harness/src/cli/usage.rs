//! Turns the argument parser's errors into the form of the contract: one lower-case sentence with the offending name
//! and a next step.

use crate::cli::{Cli, help};
use crate::error::{Error, lower_first};
use crate::out;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};
use std::any::TypeId;
use std::ffi::OsString;
use std::time::Duration;

/// The sentence for a parser error, of these words, that is not a request for help.
pub fn sentence(error: &clap::Error, words: &[OsString]) -> Error {
    let arg = text(error, ContextKind::InvalidArg).map(|a| option_name(&a));
    let value = text(error, ContextKind::InvalidValue);
    let help = help_command(words);
    let message = match error.kind() {
        ErrorKind::InvalidValue => match (arg, value.as_deref()) {
            (Some(arg), Some("") | None) => format!("{arg} needs a value; see `{help}`"),
            (Some(arg), Some(value)) => match list(error, ContextKind::ValidValue) {
                Some(valid) => format!("unknown value '{value}' for {arg}; use {valid}"),
                None => format!("unknown value '{value}' for {arg}; see `{help}`"),
            },
            _ => fallback(error, &help),
        },
        ErrorKind::ValueValidation => match (arg, value) {
            (Some(arg), Some(value)) => {
                let why = std::error::Error::source(error).map(|e| e.to_string());
                let why = why.map_or_else(|| format!("see `{help}`"), |why| numbers(&why));
                format!("invalid value '{value}' for {arg}; {}", lower_first(&why))
            }
            _ => fallback(error, &help),
        },
        ErrorKind::UnknownArgument => match (arg, text(error, ContextKind::SuggestedArg)) {
            (Some(arg), _)
                if arg.starts_with("'")
                    && !arg.starts_with("'-")
                    && ["heaplab record --help", "heaplab validate --help"]
                        .contains(&help.as_str()) =>
            {
                format!("{arg} is no option; write the program behind `--`, as in `-- CMD ARG`")
            }
            (Some(arg), Some(other)) => format!("unknown option {arg}; did you mean '{other}'?"),
            (Some(arg), None) => format!("unknown option or argument {arg}; see `{help}`"),
            _ => fallback(error, &help),
        },
        ErrorKind::InvalidSubcommand => {
            let name = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            match list(error, ContextKind::SuggestedSubcommand) {
                Some(other) => format!("unknown command '{name}'; did you mean {other}?"),
                None => format!("unknown command '{name}'; `{help}` lists the commands"),
            }
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("no command was given; `{help}` lists the commands")
        }
        ErrorKind::MissingRequiredArgument => match list(error, ContextKind::InvalidArg) {
            Some(_) if help == "heaplab profile --help" => format!(
                "nothing to profile is named; write a program behind `--`, or a trace; see `{help}`"
            ),
            Some(missing) if missing.contains("'<CMD>...'") => {
                format!(
                    "no program is named; write it behind `--`, as in `-- CMD ARG`; see `{help}`"
                )
            }
            Some(missing) => format!("missing {missing}; see `{help}`"),
            None => fallback(error, &help),
        },
        ErrorKind::InvalidUtf8 => {
            let none = |word: &&OsString| word.to_str().is_none();
            let word = words.iter().find(none).map(|word| word.to_string_lossy());
            format!(
                "'{}' is not UTF-8, as names of workloads, subjects and metrics must be; rename the file or link to it",
                word.unwrap_or_default()
            )
        }
        ErrorKind::ArgumentConflict => match (arg, text(error, ContextKind::PriorArg)) {
            (Some(a), Some(b)) => format!(
                "{a} cannot be used together with {}; leave one out",
                option_name(&b)
            ),
            (Some(a), None) => format!("{a} cannot be used here or was given twice; see `{help}`"),
            _ => fallback(error, &help),
        },
        _ => fallback(error, &help),
    };
    Error::Usage(message)
}

/// What the parsers of numbers say, as what to do.
fn numbers(why: &str) -> String {
    if let Some((low, high)) = why
        .split_once(" is not in ")
        .and_then(|(_, range)| range.split_once("..="))
    {
        return format!("write a whole number from {low} to {high}");
    }
    match why {
        "number too large to fit in target type" => "write a smaller number".into(),
        "invalid digit found in string"
        | "cannot parse integer from empty string"
        | "number too small to fit in target type" => "write a whole number".into(),
        other => other.into(),
    }
}

/// `'--format'` out of `--format <FORMAT>`.
fn option_name(shown: &str) -> String {
    if !shown.starts_with('-') {
        return format!("'{shown}'");
    }
    let name = shown.split([' ', '=']).next().unwrap_or(shown);
    format!("'{}'", name.trim_end_matches(['[', '<']))
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(s) => Some(s.clone()),
        ContextValue::Strings(all) => all.first().cloned(),
        _ => None,
    }
}

/// `'a', 'b' or 'c'`
fn list(error: &clap::Error, kind: ContextKind) -> Option<String> {
    let all = match error.get(kind)? {
        ContextValue::String(s) => vec![s.clone()],
        ContextValue::Strings(all) if !all.is_empty() => all.clone(),
        _ => return None,
    };
    let all: Vec<String> = all.iter().map(|s| format!("'{s}'")).collect();
    Some(match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => return None,
    })
}

/// The help command of the subcommand that the words name.
fn help_command(words: &[OsString]) -> String {
    let mut command = &Cli::command();
    let mut path = String::from("heaplab");
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        match command.find_subcommand(word) {
            Some(inner) => {
                path = format!("{path} {}", inner.get_name());
                command = inner;
            }
            // The one global option with a value of its own.
            None if word == "--color" => drop(words.next()),
            None if word != "--" && word.starts_with('-') => {}
            None => break,
        }
    }
    path + " --help"
}

/// The parser's own first line, where no better form is known.
fn fallback(error: &clap::Error, help: &str) -> String {
    let rendered = error.to_string();
    let line = rendered
        .lines()
        .next()
        .unwrap_or("the command line is not understood");
    format!(
        "{}; see `{help}`",
        lower_first(line.trim_start_matches("error: "))
    )
}

/// Whether the words ask for a `heaplab gate run` whose exit status a bisection reads. Told from the words alone: of those that cannot
/// be parsed a bisection wants to know, too.
pub fn bisects(words: &[OsString]) -> bool {
    let all = || words.iter().skip(1).take_while(|word| *word != "--");
    let mut commands = all().filter(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let run = commands.next().is_some_and(|word| word == "gate")
        && commands.next().is_some_and(|word| word == "run");
    run && all().any(|word| word == "--bisect")
}

/// Parses a command line. A negative number or time is the value that it stands for, and is refused as that, not as an
/// option.
///
/// # Errors
/// What clap refuses; [`sentence`] says it in words.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    fn with_negatives(command: Command) -> Command {
        let names = command
            .get_subcommands()
            .map(|one| one.get_name().to_owned());
        let names: Vec<String> = names.collect();
        let command = command.allow_negative_numbers(true).mut_args(|arg| {
            let is_time = arg.get_value_parser().type_id() == TypeId::of::<Duration>();
            match arg.get_long() {
                Some(_) if is_time => arg.allow_hyphen_values(true),
                _ => arg,
            }
        });
        names.into_iter().fold(command, |all, name| {
            all.mut_subcommand(name, with_negatives)
        })
    }
    let command = help::command(out::width());
    let matches = with_negatives(command).try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> String {
        let words = words(args);
        let error = parse(words.clone()).expect_err("must be refused");
        sentence(&error, &words).to_string()
    }

    fn words(args: &[&str]) -> Vec<OsString> {
        let all = std::iter::once("heaplab").chain(args.iter().copied());
        all.map(OsString::from).collect()
    }

    #[test]
    fn a_negative_number_is_a_value() {
        let cut = ["trace", "cut", "a", "-o", "b", "--from-event", "-3"];
        assert!(
            of(&cut).starts_with("invalid value '-3' for '--from-event'"),
            "{}",
            of(&cut)
        );
        assert_eq!(
            of(&["trace", "cut", "a", "-o", "b", "--from", "-3s"]),
            "invalid value '-3s' for '--from'; write a duration with its unit, such as 90s, 10m or 1h30m"
        );
    }

    /// The commands among `lines`, which go on behind a backslash; what a shell would do with their output is cut off.
    fn commands<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut goes_on = false;
        for line in lines {
            let (text, more) = match line.strip_suffix('\\') {
                Some(text) => (text, true),
                None => (line, false),
            };
            match all.last_mut() {
                Some(last) if goes_on => last.push_str(text.trim_start()),
                _ if text.starts_with("heaplab ") => all.push(text.to_owned()),
                _ => {}
            }
            goes_on = more && (goes_on || text.starts_with("heaplab "));
        }
        all.iter()
            .map(|command| {
                let ends = [" | ", " && ", " > ", " #", "   "];
                let end = ends.iter().filter_map(|end| command.find(end)).min();
                command[..end.unwrap_or(command.len())].to_owned()
            })
            .collect()
    }

    fn is_understood(command: &str) {
        let words = shlex::split(command).unwrap_or_else(|| panic!("no shell splits {command}"));
        let parsed = parse(words.into_iter().map(OsString::from));
        assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
    }

    #[test]
    fn every_command_of_the_readme_is_understood() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let text = std::fs::read_to_string(readme).unwrap();
        let fenced = text.split("```sh\n").skip(1);
        let lines = fenced.flat_map(|part| part.split("```").next().unwrap_or_default().lines());
        let all = commands(lines);
        assert!(all.len() > 25, "{all:#?}");
        all.iter().for_each(|command| is_understood(command));
    }

    #[test]
    fn every_example_of_a_help_is_understood() {
        fn walk(command: &Command, all: &mut Vec<String>) {
            let text = command.get_after_help().map(ToString::to_string);
            let text = text.unwrap_or_default();
            // Deeper ones are parts of other commands.
            let lines = text
                .lines()
                .map(|line| line.strip_prefix("  ").unwrap_or(line));
            all.extend(commands(lines));
            command.get_subcommands().for_each(|inner| walk(inner, all));
        }
        let mut all = Vec::new();
        walk(&help::unfolded(), &mut all);
        assert!(all.len() > 50, "{all:#?}");
        all.iter().for_each(|command| is_understood(command));
    }

    #[test]
    fn a_word_that_is_not_utf8_is_named() {
        use std::os::unix::ffi::OsStringExt;
        let word = OsString::from_vec(b"a\xff.hltrace".to_vec());
        let mut words = words(&["run", "--seed", "1"]);
        words.push(word);
        let error = parse(words.clone()).expect_err("must be refused");
        let sentence = sentence(&error, &words).to_string();
        assert!(
            sentence.starts_with("'a\u{fffd}.hltrace' is not UTF-8"),
            "{sentence}"
        );
    }

    #[test]
    fn numbers_that_are_none_are_said_to_be() {
        let cut = ["trace", "cut", "a", "-o", "b", "--thread", "1,x"];
        assert_eq!(
            of(&cut),
            "invalid value 'x' for '--thread'; write a whole number"
        );
        let repack = ["trace", "repack", "a", "-o", "b", "--level", "99"];
        assert_eq!(
            of(&repack),
            "invalid value '99' for '--level'; write a whole number from 1 to 19"
        );
        assert!(of(&["profile"]).starts_with("nothing to profile is named"));
    }

    #[test]
    fn sentences_name_the_offender_and_a_next_step() {
        assert_eq!(
            of(&["run", "--format", "xml"]),
            "unknown value 'xml' for '--format'; use 'table', 'markdown', 'json' or 'csv'"
        );
        assert_eq!(of(&["rum"]), "unknown command 'rum'; did you mean 'run'?");
        assert_eq!(
            of(&["run", "--budget", "90"]),
            "invalid value '90' for '--budget'; write a duration with its unit, such as 90s, 10m or 1h30m"
        );
        // Whatever stands before it, and behind groups of options that several commands share.
        for (args, help) in [
            (&["run", "--foo"][..], "run"),
            (
                &["validate", "-a", "system", "--foo", "--", "ls"],
                "validate",
            ),
            (
                &["gate", "run", "--foo", "--base", "a", "--head", "b"],
                "gate run",
            ),
            (
                &["--color", "never", "trace", "stats", "--foo", "x"],
                "trace stats",
            ),
            (
                &["-q", "gate", "baseline", "check", "--foo"],
                "gate baseline check",
            ),
        ] {
            let wanted = format!("unknown option or argument '--foo'; see `heaplab {help} --help`");
            assert_eq!(of(args), wanted);
        }
        assert_eq!(
            of(&["record", "ls"]),
            "'ls' is no option; write the program behind `--`, as in `-- CMD ARG`"
        );
        assert!(of(&["run", "--blocks"]).starts_with("'--blocks' needs a value"));
        for args in [
            &["record"][..],
            &["validate", "-a", "system"],
            &["run", "--variant", "x=true"],
        ] {
            assert!(of(args).starts_with("no program is named"), "{}", of(args));
        }
        assert!(
            of(&["merge"]).contains("see `heaplab merge --help`"),
            "{}",
            of(&["merge"])
        );
        for args in [
            &["run", "--scale", "0"][..],
            &["run", "--blocks", "3", "--budget", "9s"],
            &[],
            &["gate"],
        ] {
            let s = of(args);
            assert_eq!(s.lines().count(), 1, "{s}");
            assert!(
                s.starts_with(|c: char| c.is_lowercase() || c == '\''),
                "{s}"
            );
        }
    }

    #[test]
    fn a_bisection_is_told_from_the_words_even_where_they_cannot_be_parsed() {
        for (args, asked) in [
            (&["gate", "run", "--bisect"][..], true),
            (
                &["-q", "gate", "--verbose", "run", "--nonsense", "--bisect"],
                true,
            ),
            (&["gate", "run", "--", "--bisect"], false),
            (&["gate", "compare", "--bisect", "a", "b"], false),
            (&["run", "--bisect"], false),
            (&["record", "--", "gate", "run", "--bisect"], false),
            (&[], false),
        ] {
            assert_eq!(bisects(&words(args)), asked, "{args:?}");
        }
    }
}
