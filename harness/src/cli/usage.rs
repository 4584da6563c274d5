//! Turns the argument parser's errors into the form of the contract: one lower-case sentence with the offending name
//! and a next step.

use crate::cli::Cli;
use crate::error::{Error, lower_first};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};
use std::any::TypeId;
use std::ffi::OsString;
use std::time::Duration;

/// The sentence for a parser error that is not a request for help.
pub fn sentence(error: &clap::Error) -> Error {
    let arg = text(error, ContextKind::InvalidArg).map(|a| option_name(&a));
    let value = text(error, ContextKind::InvalidValue);
    let help = help_command(error);
    let message = match error.kind() {
        ErrorKind::InvalidValue => match (arg, value.as_deref()) {
            (Some(arg), Some("") | None) => format!("{arg} needs a value; see `{help}`"),
            (Some(arg), Some(value)) => match list(error, ContextKind::ValidValue) {
                Some(valid) => format!("unknown value '{value}' for {arg}; use {valid}"),
                None => format!("unknown value '{value}' for {arg}; see `{help}`"),
            },
            _ => fallback(error),
        },
        ErrorKind::ValueValidation => match (arg, value) {
            (Some(arg), Some(value)) => {
                let why = std::error::Error::source(error).map(|e| e.to_string());
                let why = why.map_or_else(|| format!("see `{help}`"), |why| numbers(&why));
                format!("invalid value '{value}' for {arg}; {}", lower_first(&why))
            }
            _ => fallback(error),
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
            _ => fallback(error),
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
            Some(missing) => format!("missing {missing}; see `{help}`"),
            None => fallback(error),
        },
        ErrorKind::ArgumentConflict => match (arg, text(error, ContextKind::PriorArg)) {
            (Some(a), Some(b)) => format!(
                "{a} cannot be used together with {}; leave one out",
                option_name(&b)
            ),
            (Some(a), None) => format!("{a} cannot be used here or was given twice; see `{help}`"),
            _ => fallback(error),
        },
        _ => fallback(error),
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

/// The help command of the subcommand that was being parsed, from clap's usage line.
fn help_command(error: &clap::Error) -> String {
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(s)) => s.to_string(),
        _ => String::new(),
    };
    let words: Vec<&str> = usage
        .split_whitespace()
        .skip_while(|w| *w != "heaplab")
        .take_while(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .take_while(|w| !w.starts_with('-'))
        .collect();
    if words.is_empty() {
        "heaplab --help".into()
    } else {
        format!("{} --help", words.join(" "))
    }
}

/// The parser's own first line, where no better form is known.
fn fallback(error: &clap::Error) -> String {
    let rendered = error.to_string();
    let line = rendered
        .lines()
        .next()
        .unwrap_or("the command line is not understood");
    format!(
        "{}; see `{}`",
        lower_first(line.trim_start_matches("error: ")),
        help_command(error)
    )
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
    let matches = with_negatives(Cli::command()).try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> String {
        let all = std::iter::once("heaplab").chain(args.iter().copied());
        sentence(&parse(all.map(OsString::from)).expect_err("must be refused")).to_string()
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

    /// What is aligned by hand must not be broken by the help's own line length.
    #[test]
    fn tables_and_examples_in_helps_fit_a_line() {
        fn check(command: &Command, path: &str) {
            let helps = [command.get_after_help(), command.get_after_long_help()];
            for line in helps.iter().flatten().flat_map(|help| {
                let text = help.to_string();
                text.lines().map(String::from).collect::<Vec<_>>()
            }) {
                let fits = !line.starts_with("  ") || line.chars().count() <= 100;
                assert!(fits, "{path}: {line}");
            }
            for inner in command.get_subcommands() {
                check(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        check(&Cli::command(), "heaplab");
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
        assert!(of(&["run", "--foo"]).starts_with("unknown option or argument '--foo'"));
        assert_eq!(
            of(&["record", "ls"]),
            "'ls' is no option; write the program behind `--`, as in `-- CMD ARG`"
        );
        assert!(of(&["run", "--blocks"]).starts_with("'--blocks' needs a value"));
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
}
