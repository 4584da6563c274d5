//! What the benches of the recorder share: its libraries as they are shipped, arguments, medians.
#![allow(dead_code)] // each bench uses its part

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The bench's own arguments.
pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn of_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    /// The values behind each occurrence of `name`.
    pub fn values(&self, name: &str) -> Result<Vec<&str>> {
        let of = |(at, argument): (usize, &String)| {
            (argument == name).then(|| match self.0.get(at + 1) {
                Some(value) => Ok(value.as_str()),
                None => Err(format!("{name} needs a value").into()),
            })
        };
        self.0.iter().enumerate().filter_map(of).collect()
    }

    pub fn number(&self, name: &str, default: u64) -> Result<u64> {
        match self.values(name)?.last() {
            None => Ok(default),
            Some(value) => match value.parse() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(format!("{name} needs a number above 0, not '{value}'").into()),
            },
        }
    }
}

/// Builds these packages as they are shipped, into the target folder of this bench; the folder with their libraries.
pub fn build(packages: &[&str]) -> Result<PathBuf> {
    // <target folder>/release/deps/<bench>-<hash>
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(3).ok_or("no target folder")?;
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--profile", "embedded"]);
    for package in packages {
        build.args(["-p", package]);
    }
    build
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    run(build.arg("--target-dir").arg(target))?;
    Ok(target.join("embedded"))
}

/// Compiles a C program.
pub fn compile(program: &Path, source: &Path, options: &[&str]) -> Result<()> {
    let mut compile = Command::new("cc");
    compile
        .args(["-O2", "-g", "-fno-builtin", "-D_GNU_SOURCE"])
        .args(options);
    run(compile.arg("-o").arg(program).arg(source))
}

fn run(command: &mut Command) -> Result<()> {
    match command.status()?.success() {
        true => Ok(()),
        false => Err(format!("{command:?} failed").into()),
    }
}

/// Median and least; `None` of nothing.
pub fn middle_and_least(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_unstable_by(f64::total_cmp);
    Some((*values.get(values.len() / 2)?, *values.first()?))
}

pub fn median(values: Vec<f64>) -> Option<f64> {
    middle_and_least(values).map(|(middle, _)| middle)
}
