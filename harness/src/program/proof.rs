//! The proof that a subject is in force in a program, made before the program runs: the dynamic loader is asked to load it
//! and to say, without running it, where each object's `malloc` is bound.

use crate::exec::{Limits, RunFailure, run_child};
use crate::subject::{Elf, Subject, inspect};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a variant allocates with: the allocator that its executable carries, else the library that its malloc is bound to.
pub(super) fn carried_by(
    variant: &Subject,
    argv: &[OsString],
    environment: &[String],
    limits: &Limits,
) -> Result<String, RunFailure> {
    let (argv, environment) = &behind_env(argv, environment);
    let name = argv
        .first()
        .ok_or_else(|| RunFailure::new("no program was given"))?;
    let shown = name.to_string_lossy();
    let path = find(name).ok_or_else(|| RunFailure::new(format!("'{shown}' was not found")))?;
    let elf = super::witness::inspected(&interpreter(&path));
    match elf.and_then(|elf| elf.carried_allocator()) {
        Some(carried) => Ok(carried.to_owned()),
        None => bound_to(variant, argv, environment, limits),
    }
}

/// A variant may be `env NAME=VALUE… PROGRAM …`: what is asked is the program, with these variables. Another use of `env` is
/// left as it is.
fn behind_env<'a>(argv: &'a [OsString], environment: &[String]) -> (&'a [OsString], Vec<String>) {
    let mut all = environment.to_vec();
    let is_env =
        (argv.first()).is_some_and(|name| Path::new(name).file_name() == Some("env".as_ref()));
    if !is_env {
        return (argv, all);
    }
    let mut rest = &argv[1..];
    while let Some(pair) = rest.first().and_then(|word| word.to_str())
        && pair.contains('=')
    {
        all.push(pair.to_owned());
        rest = &rest[1..];
    }
    match rest.first() {
        Some(name) if !name.to_string_lossy().starts_with('-') => (rest, all),
        _ => (argv, environment.to_vec()),
    }
}

/// Object that malloc is bound to in `argv` under `environment`.
pub(super) fn bound_to(
    subject: &Subject,
    argv: &[OsString],
    environment: &[String],
    limits: &Limits,
) -> Result<String, RunFailure> {
    let name = argv
        .first()
        .ok_or_else(|| RunFailure::new("no program was given"))?;
    let shown = name.to_string_lossy();
    let path = find(name).ok_or_else(|| RunFailure::new(format!("'{shown}' was not found")))?;
    let elf_path = interpreter(&path);
    let elf = inspect(&elf_path)
        .map_err(|reason| RunFailure::new(format!("'{shown}' cannot be run: {reason}")))?;
    refuse(&shown, &elf_path, &elf)?;
    let mut command = Command::new(&path);
    for pair in environment {
        if let Some((name, value)) = pair.split_once('=') {
            command.env(name, value);
        }
    }
    // With these the loader binds everything, reports each binding and ends without starting the program.
    command
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .env("LD_WARN", "yes")
        .env("LD_BIND_NOW", "1")
        .env("LD_DEBUG", "bindings");
    let ended = run_child(command, limits)?;
    let mut object = None;
    // A program at a fixed address may lend its own jump to malloc as the address of malloc (Debian's python3 does). What
    // counts is where that jump leads: the program's own binding. That it defines no malloc was checked above.
    let lent = |to: &str| same(&elf_path, to);
    let bindings = ended.stderr.lines().filter_map(malloc_binding);
    for (from, to) in bindings.filter(|(_, to)| !lent(to)) {
        if subject
            .library
            .as_deref()
            .is_some_and(|library| !same(library, to))
        {
            return Err(RunFailure::new(format!(
                "'{shown}' does not use {}: malloc of {from} is bound to {to}",
                subject.label
            )));
        }
        object = Some(to.to_owned());
    }
    object.ok_or_else(|| {
        RunFailure::new(format!(
            "'{shown}' makes no use of malloc, or the loader did not say"
        ))
    })
}

/// Programs that LD_PRELOAD does not reach.
fn refuse(shown: &str, path: &Path, elf: &Elf) -> Result<(), RunFailure> {
    if let Some(why) = elf.unreachable() {
        return Err(RunFailure::new(format!("'{shown}' {why}")));
    }
    let privileged = path
        .metadata()
        .is_ok_and(|found| found.mode() & 0o6000 != 0);
    if privileged {
        return Err(RunFailure::new(format!(
            "'{shown}' is set-uid or set-gid, for which LD_PRELOAD is ignored"
        )));
    }
    Ok(())
}

/// `binding file A [0] to B [0]: normal symbol `malloc'` → (A, B).
fn malloc_binding(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("binding file ")?;
    let (files, symbol) = rest.split_once(": normal symbol ")?;
    if !symbol.starts_with("`malloc'") {
        return None;
    }
    let (from, to) = files.split_once(" to ")?;
    let bare = |file: &str| file.rfind(" [").unwrap_or(file.len());
    let (from, to) = (&from[..bare(from)], &to[..bare(to)]);
    // The loader's own first bindings come before the preloaded library is in place.
    (!from.contains("/ld-linux")).then_some((from, to))
}

fn same(library: &Path, object: &str) -> bool {
    match (library.canonicalize(), Path::new(object).canonicalize()) {
        (Ok(library), Ok(object)) => library == object,
        _ => library == Path::new(object),
    }
}

/// Looks a program up as the shell does.
fn find(name: &OsString) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    };
    let path = PathBuf::from(name);
    if path.components().count() > 1 {
        return Some(path).filter(runs);
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(runs)
}

/// For a script: the program that its first line names.
fn interpreter(path: &Path) -> PathBuf {
    let mut start = [0; 256];
    let got = std::fs::File::open(path)
        .and_then(|mut file| file.read(&mut start))
        .unwrap_or(0);
    let line = start[..got]
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let Some(line) = line.strip_prefix(b"#!") else {
        return path.to_owned();
    };
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split_whitespace().map(OsString::from);
    match (words.next(), words.next()) {
        (Some(env), Some(name))
            if Path::new(&env)
                .file_name()
                .is_some_and(|file| file == "env") =>
        {
            find(&name).unwrap_or_else(|| PathBuf::from(env))
        }
        (Some(program), _) => PathBuf::from(program),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_behind_env_is_the_program_with_its_variables() {
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(OsString::from).collect() };
        let seen = |text: &str| {
            let argv = words(text);
            let (argv, environment) = behind_env(&argv, &["A=1".to_owned()]);
            (argv.to_vec(), environment.join(" "))
        };
        assert_eq!(
            seen("/usr/bin/env LD_PRELOAD=/x.so B=2 prog C=3"),
            (words("prog C=3"), "A=1 LD_PRELOAD=/x.so B=2".to_owned())
        );
        for plain in [
            "prog X=1",
            "env -i X=1 prog",
            "env X=1",
            "env X=1 -u Y prog",
        ] {
            assert_eq!(seen(plain), (words(plain), "A=1".to_owned()));
        }
    }
}
