//! Why a recording holds nothing, or not all: what the file of the program tells, in one sentence with a remedy.

use crate::subject::{self, Elf, GO};
use heaplab_workloads::record::DrainSummary;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What to do about an allocator in the program itself.
const REMEDY: &str = "for Rust wrap it, #[global_allocator] static A: heaplab_recorded::Recorded<ALLOCATOR>, for C call \
                      HEAPLAB_ALLOCATED and HEAPLAB_FREEING of heaplab.h in it, or build with the system's allocator";

/// What to do about Go's, which no wrapper reaches.
const GO_REMEDY: &str =
    "only what its C code asks for can be recorded; Go's own runtime/pprof shows the rest";

fn remedy(allocator: &str) -> &'static str {
    match allocator {
        GO => GO_REMEDY,
        _ => REMEDY,
    }
}

/// What every program holds that has the recorder linked in.
const LINKED_IN: &[u8] = b"heaplab_record_v1";

/// The program as its file shows it; for a script that is its interpreter.
#[derive(Debug)]
pub struct Inspected {
    /// File that the kernel runs in the end.
    path: PathBuf,
    /// It is not the file that was asked for but the one that runs it.
    interpreter: bool,
    elf: Result<Elf, String>,
    /// It runs with other rights than the caller's, so that the dynamic loader ignores LD_PRELOAD.
    privileged: bool,
    /// An allocator that it carries in itself.
    pub carried: Option<&'static str>,
}

/// Looks at an executable; follows `#!` lines.
pub fn inspect(program: &Path) -> Inspected {
    let mut path = program.to_path_buf();
    // The kernel follows at most four interpreters of interpreters.
    for _ in 0..4 {
        match interpreter_of(&path) {
            Some(next) => path = next,
            None => break,
        }
    }
    const SET_ID: u32 = 0o6000;
    let privileged = std::fs::metadata(&path).is_ok_and(|file| {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let other_user = file.mode() & SET_ID & 0o4000 != 0 && file.uid() != user.as_raw();
        let other_group = file.mode() & SET_ID & 0o2000 != 0 && file.gid() != group.as_raw();
        other_user || other_group
    });
    let elf = subject::inspect(&path);
    let carried = elf
        .as_ref()
        .ok()
        .and_then(Elf::carried_allocator)
        .filter(|_| !contains(&path, LINKED_IN));
    Inspected {
        interpreter: path != program,
        path,
        elf,
        privileged,
        carried,
    }
}

/// Whether a file holds these bytes.
fn contains(path: &Path, wanted: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|part| part == wanted))
}

/// The program of a script's first line; with `env` the one that `env` would find.
fn interpreter_of(path: &Path) -> Option<PathBuf> {
    use std::io::Read;
    let mut head = Vec::new();
    std::fs::File::open(path)
        .ok()?
        .take(256)
        .read_to_end(&mut head)
        .ok()?;
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split_whitespace();
    let program = words.next()?;
    if Path::new(program)
        .file_name()
        .is_some_and(|name| name == "env")
        && let Some(name) = words.find(|word| !word.starts_with('-'))
    {
        return crate::tools::find_program(name.as_ref()).ok();
    }
    Some(program.into())
}

impl Inspected {
    /// The sentence for a recording that holds nothing; `None` when there is something, or rightly nothing.
    pub fn nothing(&self, name: &str, drained: &DrainSummary) -> Option<String> {
        if drained.events > 0 {
            return None;
        }
        let why = if drained.processes == 0 {
            self.not_recorded(drained)
        } else {
            // Loaded and never called: without an allocator of its own the program simply did not allocate.
            self.carried.map(|allocator| self.own(allocator))?
        };
        Some(format!(
            "'{name}' was run, but it recorded nothing, because {why}"
        ))
    }

    /// The recorder is in, but part of the program's memory may not pass it.
    pub fn warning(&self, name: &str) -> Option<String> {
        let allocator = self.carried?;
        Some(format!(
            "'{name}' carries {allocator} in its executable: what it allocates there is not in the trace; {}",
            remedy(allocator)
        ))
    }

    /// Why it did not join the recording, with a remedy.
    pub fn not_recorded(&self, drained: &DrainSummary) -> String {
        let preloads = self.elf.as_ref().is_ok_and(|elf| elf.dynamic) && !self.privileged;
        if drained.attach_errno == 0 || !preloads {
            return self.not_loaded();
        }
        let error = std::io::Error::from_raw_os_error(drained.attach_errno as i32);
        format!(
            "the recorder could not map its memory: {}; raise the limit on address space (ulimit -v) or choose a smaller --pool",
            crate::error::reason_of(&error)
        )
    }

    /// Why the recorder is not loaded into it, with a remedy.
    fn not_loaded(&self) -> String {
        let file = self.file();
        match &self.elf {
            Ok(elf) if !elf.dynamic && self.carried == Some(GO) => self.own(GO),
            Ok(elf) if !elf.dynamic => format!(
                "{file} is a static executable, into which no recorder can be loaded; link it dynamically (without -static), or \
                 link the recorder in (C and C++: workloads/linked of heaplab's sources; Rust: the crate heaplab-recorded)"
            ),
            Ok(elf)
                if elf
                    .interpreter
                    .as_deref()
                    .is_some_and(|i| i.contains("musl")) =>
            {
                format!(
                    "{file} runs on musl and did not load the recorder; build it for glibc (for Rust: --target \
                 x86_64-unknown-linux-gnu), or link it statically with the recorder in (C and C++: workloads/linked of heaplab's \
                 sources)"
                )
            }
            Ok(_) if self.privileged => format!(
                "{file} is setuid or setgid, for which the dynamic loader ignores LD_PRELOAD; run it as its owner, or \
                 record a copy without the bit"
            ),
            Ok(_) if self.carried.is_some() => self.own(self.carried.unwrap_or_default()),
            Ok(_) => format!(
                "{file} did not load the recorder; it may clear LD_PRELOAD, start a static program in its place, have \
                 file capabilities, change its root folder, or run as a user who may not read the recorder (XDG_CACHE_HOME \
                 chooses the folder where it lies): record the program that does the work by itself"
            ),
            Err(reason) => format!(
                "{file} is not an executable for this machine ({reason}); record a dynamically linked x86-64 program"
            ),
        }
    }

    /// Whether the kernel runs this file in the end.
    pub fn is_file(&self, file: &Path) -> bool {
        let same = |path: &Path| std::fs::canonicalize(path).ok();
        self.path == file || same(&self.path).is_some_and(|own| same(file) == Some(own))
    }

    /// How to call the file in a sentence about the program.
    fn file(&self) -> String {
        if self.interpreter {
            format!("its interpreter '{}'", self.path.display())
        } else {
            "it".into()
        }
    }

    fn own(&self, allocator: &str) -> String {
        format!(
            "{} carries {allocator} in its executable and never calls the C library's malloc; {}",
            self.file(),
            remedy(allocator)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_followed_to_their_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("s");
        for line in [
            "#!/bin/sh -e\n",
            "#!/usr/bin/env sh\n",
            "#! /usr/bin/env -S sh -e\n",
        ] {
            std::fs::write(&script, line).unwrap();
            let seen = inspect(&script);
            assert!(seen.path.ends_with("sh"), "{line}: {seen:?}");
            assert!(seen.elf.is_ok_and(|elf| elf.dynamic));
        }
    }

    #[test]
    fn a_go_program_is_not_told_to_wrap_its_allocator() {
        let static_one = Inspected {
            path: "prog".into(),
            interpreter: false,
            elf: subject::inspect(Path::new("/bin/sh")).map(|elf| Elf {
                dynamic: false,
                ..elf
            }),
            privileged: false,
            carried: Some(GO),
        };
        let said = static_one.nothing("prog", &DrainSummary::default());
        assert!(
            said.as_deref()
                .is_some_and(|said| said.contains("runtime/pprof")),
            "{said:?}"
        );
        let warned = static_one.warning("prog").unwrap();
        assert!(
            warned.contains("runtime/pprof") && !warned.contains("global_allocator"),
            "{warned}"
        );
    }

    #[test]
    fn a_recording_without_events_needs_a_reason_only_when_the_recorder_was_not_in() {
        let seen = inspect(Path::new("/bin/sh"));
        let idle = DrainSummary {
            processes: 1,
            ..DrainSummary::default()
        };
        assert_eq!(seen.nothing("sh", &idle), None);
        let out = seen.nothing("sh", &DrainSummary::default()).unwrap();
        assert!(
            out.contains("'sh' was run, but it recorded nothing, because")
                && out.contains("LD_PRELOAD"),
            "{out}"
        );
    }
}
