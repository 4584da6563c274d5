//! `heaplab man`: the manual page in roff, one page with every subcommand.

use crate::cli::help;
use crate::error::{Error, Outcome};
use crate::out;
use clap::Command;
use clap_mangen::Man;
use std::io::Write;

/// Prints the page.
///
/// # Errors
/// If standard output cannot be written.
pub fn run() -> Result<Outcome, Error> {
    out::print(&page()?)?;
    Ok(Outcome::Done)
}

fn page() -> Result<String, Error> {
    let mut root = help::unfolded();
    root.build();
    let mut roff = Vec::new();
    write(&mut root, &mut roff).map_err(|e| {
        Error::environment(format!(
            "cannot form the manual page: {e}; please report this"
        ))
    })?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

fn write(root: &mut Command, roff: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(root.clone());
    man.render_title(roff)?;
    man.render_name_section(roff)?;
    writeln!(roff, ".SH SYNOPSIS\n{}", usage(root))?;
    writeln!(roff, ".SH COMMANDS")?;
    each(root, "heaplab", &mut |path, command| {
        let about = command.get_about().map(ToString::to_string);
        let about = escaped(&about.unwrap_or_default());
        writeln!(roff, ".TP\n\\fB{}\\fR\n{about}", escaped(path))
    })?;
    man.render_options_section(roff)?;
    writeln!(roff, ".SH EXAMPLES")?;
    below(root, roff)?;
    each(root, "heaplab", &mut |path, command| {
        section(path, command, roff)
    })
}

/// Every command but the root, in the order of the help.
fn each(
    command: &mut Command,
    path: &str,
    visit: &mut dyn FnMut(&str, &mut Command) -> std::io::Result<()>,
) -> std::io::Result<()> {
    for inner in command.get_subcommands_mut() {
        if inner.get_name() != "help" && !inner.is_hide_set() {
            let path = format!("{path} {}", inner.get_name());
            visit(&path, inner)?;
            each(inner, &path, visit)?;
        }
    }
    Ok(())
}

/// The section of one command; the options of every command stand at the top of the page.
fn section(path: &str, command: &mut Command, roff: &mut Vec<u8>) -> std::io::Result<()> {
    writeln!(roff, ".SH \"{}\"", escaped(&path.to_uppercase()))?;
    if let Some(about) = command.get_about().map(ToString::to_string) {
        writeln!(roff, "{}", escaped(&about))?;
    }
    writeln!(roff, ".PP\n{}", usage(command))?;
    let own = command.clone().mut_args(|arg| {
        let elsewhere = arg.is_global_set() || arg.is_hide_set();
        arg.hide(elsewhere)
    });
    let mut options = Vec::new();
    Man::new(own).render_options_section(&mut options)?;
    let options = String::from_utf8_lossy(&options).replace("\n.SH ", "\n.SS ");
    write!(roff, "{options}")?;
    writeln!(roff, ".PP")?;
    below(command, roff)
}

/// How it is called.
fn usage(command: &mut Command) -> String {
    let usage = command.render_usage().to_string();
    escaped(usage.trim_start_matches("Usage: "))
}

/// What stands below the help: prose in paragraphs, the rest as it is.
fn below(command: &Command, roff: &mut Vec<u8>) -> std::io::Result<()> {
    let text = command.get_after_help().map(ToString::to_string);
    for line in text.unwrap_or_default().lines() {
        match line.starts_with("  ") {
            true => writeln!(roff, ".nf\n{}\n.fi", escaped(line))?,
            false if line.is_empty() => writeln!(roff, ".PP")?,
            false => writeln!(roff, "{}", escaped(line))?,
        }
    }
    Ok(())
}

/// Text that roff prints as it is: its hyphens can be copied, and no line begins a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_names_every_command() {
        let page = super::page().unwrap();
        for name in ["RUN", "GATE COMPARE", "LIST", "DOCTOR"] {
            assert!(
                page.contains(&format!(".SH \"HEAPLAB {name}\"")),
                "{name} is missing"
            );
        }
        assert!(page.contains("heaplab run larson"), "examples are there");
        assert!(
            page.contains("\\fBheaplab gate baseline check\\fR"),
            "{page}"
        );
        // There are no pages of their own, and what every command takes stands once.
        assert!(!page.contains("(1)"), "{page}");
        assert_eq!(page.matches("No progress and no remarks").count(), 1);
    }

    #[test]
    fn lines_are_text_and_hyphens_can_be_copied() {
        assert_eq!(super::escaped(".x --y \\"), "\\&.x \\-\\-y \\e");
    }
}
