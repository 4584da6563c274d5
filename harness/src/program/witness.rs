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
    /// An allocator's library that was mapped in one, looked for where the program uses what it uses today.
    pub brought: Option<PathBuf>,
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
            if self.done.get(pid) == Some(&exe) {
                continue;
            }
            let Some(library) = library else {
                // Ever more seldom: libraries are mapped at the start, or when a plugin is loaded.
                if witness.brought.is_none() && witness.looks.is_power_of_two() {
                    witness.brought = allocator_in(&maps(*pid));
                }
                continue;
            };
            let maps = maps(*pid);
            // The kernel names mappings by the path behind all links (`libtcmalloc.so.4` is one).
            let path = library.canonicalize().unwrap_or_else(|_| library.into());
            let path = path.to_string_lossy();
            if maps.lines().any(|line| line.ends_with(&*path)) {
                witness.mapped = true;
                self.done.insert(*pid, exe);
            }
        }
    }

    /// The allocator's library that is mapped where most of the memory is.
    pub fn brought(&self) -> Option<&Path> {
        let largest = self.found.values().max_by_key(|witness| witness.largest);
        largest?.brought.as_deref()
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

fn maps(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default()
}

/// The first mapped library that calls itself an allocator and has a malloc.
fn allocator_in(maps: &str) -> Option<PathBuf> {
    let files = maps
        .lines()
        .filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let mut named = files.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("malloc") && name.contains(".so")
    });
    let has_malloc = |elf: Elf| elf.allocator_symbols.contains("malloc");
    named
        .find(|path| inspected(path).is_some_and(has_malloc))
        .map(Path::to_owned)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_library_that_was_named_by_a_link_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("lib.so.4");
        let library = crate::embed::path(crate::embed::Embedded::Spanalloc).unwrap();
        std::os::unix::fs::symlink(&library, &link).unwrap();
        let mut child = Command::new("cat")
            .env("LD_PRELOAD", &link)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It answers, so the loader is done.
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
        let mut said = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        let (mut with, mut without) = (Witnesses::default(), Witnesses::default());
        for _ in 0..SETTLED {
            with.look(&[child.id()], &[1], Some(&link));
            without.look(&[child.id()], &[1], Some(Path::new("/nowhere/lib.so")));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(with.objection("mine", Some(&link)), None);
        let why = without.objection("mine", Some(&link)).unwrap();
        assert!(why.contains("without mine"), "{why}");
    }
}
