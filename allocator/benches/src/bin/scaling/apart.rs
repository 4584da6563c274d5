//! The same work by as many processes of one thread.

use crate::work::{Case, Round};
use spanalloc_benches::Allocator;
use std::io::{BufRead, BufReader, Error, Read};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

/// What a process apart does, as its command line says: the number of its CPU, the case and the allocator.
#[derive(Clone, Debug)]
pub struct Alone {
    cpu: usize,
    case: String,
    allocator: String,
}

impl FromStr for Alone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ',');
        let mut next = || parts.next().ok_or("CPU,CASE,ALLOCATOR is expected");
        let cpu = next()?.parse().map_err(|error| format!("{error}"))?;
        Ok(Self {
            cpu,
            case: next()?.to_owned(),
            allocator: next()?.to_owned(),
        })
    }
}

impl Alone {
    /// Says that it is ready, runs when standard input ends, and prints operations per second.
    pub fn run(&self, cases: &[Case], allocators: &[Allocator], time: Duration) {
        let case = cases.iter().find(|case| case.name == self.case);
        let allocator = (allocators.iter()).find(|allocator| allocator.name == self.allocator);
        let (Some(case), Some(&allocator)) = (case, allocator) else {
            eprintln!("scaling: no case or allocator is called so: {self:?}");
            std::process::exit(2);
        };
        println!("ready");
        // Whatever ends the wait, an error as well, ends it for good.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        println!(
            "{}",
            Round::run(case, allocator, self.cpu..self.cpu + 1, time)
        );
    }
}

/// Operations per second of so many processes together, each on a CPU of its own.
///
/// # Errors
/// A process cannot be started, or says no number.
pub fn run(case: &Case, allocator: Allocator, processes: usize) -> Result<f64, Error> {
    let started = (0..processes).map(|cpu| {
        Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg(format!("--alone={cpu},{},{}", case.name, allocator.name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    });
    let mut all: Vec<Child> = started.collect::<Result<_, _>>()?;
    let mut answers: Vec<_> = (all.iter_mut())
        .filter_map(|child| child.stdout.take().map(BufReader::new))
        .collect();
    let mut line = String::new();
    for answer in &mut answers {
        answer.read_line(&mut line)?;
    }
    for child in &mut all {
        drop(child.stdin.take());
    }
    let mut sum = 0.0;
    for answer in &mut answers {
        line.clear();
        answer.read_line(&mut line)?;
        sum += line.trim().parse::<f64>().map_err(Error::other)?;
    }
    for child in &mut all {
        child.wait()?;
    }
    Ok(sum)
}
