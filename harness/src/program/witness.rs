//! Which executables a program consists of while it runs, and whether the subject is in them: a wrapper that the subject
//! reaches may start a program that it does not reach.

use crate::subject::{Elf, inspect};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

/// Looks that a process must have had before its lack of the subject counts: right after its start the loader is not done.
const SETTLED: u32 = 3;

/// What was seen of one executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Witness {
    /// Largest resident set of one of its processes.
    pub largest: u64,
    /// Looks at it.
    pub looks: u32,
    /// The subject's library was mapped in one of its processes.
    pub mapped: bool,
}

/// All executables.
#[derive(Clone, Debug, Default)]
pub(super) struct Witnesses {
    found: BTreeMap<PathBuf, Witness>,
    /// Processes that need no further look at their mappings.
    done: HashMap<u32, PathBuf>,
}

impl Witnesses {
    pub fn look(&mut self, members: &[u32], sizes: &[u64], library: Option<&Path>) {
        for (pid, size) in members.iter().zip(sizes) {
            let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else {
                continue;
            };
            let witness = self.found.entry(exe.clone()).or_default();
            witness.largest = witness.largest.max(*size);
            witness.looks += 1;
            let Some(library) = library.filter(|_| self.done.get(pid) != Some(&exe)) else {
                continue;
            };
            let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            let path = library.to_string_lossy();
            if maps.lines().any(|line| line.ends_with(&*path)) {
                witness.mapped = true;
                self.done.insert(*pid, exe);
            }
        }
    }

    /// Why the subject was not in force where most of the memory is; `None` when it was, or nothing tells.
    pub fn objection(&self, label: &str, library: Option<&Path>) -> Option<String> {
        let (exe, witness) = self
            .found
            .iter()
            .max_by_key(|(_, witness)| witness.largest)?;
        let shown = exe.display();
        // An executable that was replaced or deleted cannot be read; its mappings still tell.
        let elf = inspected(exe);
        if let Some(why) = elf.as_ref().and_then(|elf| elf.unreachable()) {
            return Some(format!("the program runs '{shown}', which {why}"));
        }
        if library.is_some() && !witness.mapped && witness.looks >= SETTLED {
            return Some(format!(
                "the program runs '{shown}' without {label}: its environment was cleared on the way, or it has more rights \
                 than LD_PRELOAD is given"
            ));
        }
        None
    }
}

/// Reads an executable once in the life of this process.
pub(super) fn inspected(exe: &Path) -> Option<Elf> {
    static KNOWN: LazyLock<Mutex<HashMap<PathBuf, Option<Elf>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    known
        .entry(exe.to_owned())
        .or_insert_with(|| inspect(exe).ok())
        .clone()
}
