//! `heaplab man`: the manual page in roff, one page with every subcommand.

use crate::cli::Cli;
use crate::error::{Error, Outcome};
use crate::out;
use clap::{Command, CommandFactory};

/// Prints the page.
///
/// # Errors
/// If standard output cannot be written.
pub fn run() -> Result<Outcome, Error> {
    out::print(&page()?)?;
    Ok(Outcome::Done)
}

fn page() -> Result<String, Error> {
    let mut root = Cli::command();
    root.build();
    let mut roff = Vec::new();
    let failed = |e: std::io::Error| {
        Error::environment(format!(
            "cannot form the manual page: {e}; please report this"
        ))
    };
    clap_mangen::Man::new(root.clone())
        .render(&mut roff)
        .map_err(failed)?;
    subcommands(&root, "heaplab", &mut roff).map_err(failed)?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

/// Appends a section for each subcommand, in the order of the help.
fn subcommands(command: &Command, path: &str, roff: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write;
    for sub in command
        .get_subcommands()
        .filter(|s| s.get_name() != "help" && !s.is_hide_set())
    {
        let path = format!("{path} {}", sub.get_name());
        writeln!(roff, ".SH \"{}\"", path.to_uppercase())?;
        let man = clap_mangen::Man::new(sub.clone());
        man.render_description_section(roff)?;
        man.render_options_section(roff)?;
        if let Some(examples) = sub.get_after_help() {
            writeln!(
                roff,
                ".nf\n{}\n.fi",
                examples
                    .to_string()
                    .replace('\\', "\\\\")
                    .replace("\n.", "\n\\&.")
            )?;
        }
        subcommands(sub, &path, roff)?;
    }
    Ok(())
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
    }
}
