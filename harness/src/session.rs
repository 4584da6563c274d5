//! The folder of a result set while it grows: never overwritten, every finished run on disk at once, and able to be
//! continued.
//!
//! `session.json` (how it was started) and `runs.jsonl` (one finished run a line) exist from the beginning;
//! `result.json` appears at the end, written whole by the reports package.

use crate::clock::Utc;
use crate::error::Error;
use crate::render;
use heaplab_reports::schema::RunLine;
use heaplab_reports::{RESULT_FILE, RUNS_FILE, write_atomic};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Name of the file that says how the session was started.
pub const SESSION_FILE: &str = "session.json";
const SCHEMA: &str = "heaplab.session/1";
/// Bytes of the journal at most; one of a whole suite has some ten million.
const MOST_BYTES: u64 = 1024 * heaplab_bounded::MIB;

/// How a session was started; enough to start it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Always `heaplab.session/1`.
    pub schema: String,
    /// The command line, the program's name first.
    pub command: Vec<String>,
    /// Working directory, so that relative paths mean the same again.
    pub directory: PathBuf,
    /// Seed, drawn or given.
    pub seed: u64,
    /// UTC, RFC 3339.
    pub started: String,
}

impl Start {
    /// The present command with `seed`.
    pub fn now(seed: u64) -> Self {
        Self {
            schema: SCHEMA.into(),
            command: std::env::args_os()
                .map(|a| a.to_string_lossy().into_owned())
                .collect(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            seed,
            started: Utc::now().rfc3339(),
        }
    }

    /// The command that measures the same again: the plain name of the program, the seed that was drawn, and without the
    /// folder, which is never overwritten.
    pub fn again(&self) -> Vec<String> {
        let end = self
            .command
            .iter()
            .position(|word| word == "--")
            .unwrap_or(self.command.len());
        let (own, rest) = self.command.split_at(end);
        let mut words = vec!["heaplab".to_string()];
        let mut given = own.iter().skip(1);
        let mut seeded = false;
        while let Some(word) = given.next() {
            match word.as_str() {
                "-o" | "--out" => {
                    given.next();
                }
                word if word.starts_with("--out=") || word.starts_with("-o") => {}
                _ => {
                    seeded |= word == "--seed" || word.starts_with("--seed=");
                    words.push(word.clone());
                }
            }
        }
        if !seeded {
            words.extend(["--seed".into(), self.seed.to_string()]);
        }
        words.extend(rest.iter().cloned());
        words
    }
}

/// An open result folder.
#[derive(Debug)]
pub struct Session {
    folder: PathBuf,
    journal: File,
    /// Length of the journal up to the last whole line.
    good: u64,
}

impl Session {
    /// A session in the [`folder`] of this name.
    ///
    /// # Errors
    /// As [`folder`].
    pub fn create(out: Option<&Path>, name: &str, start: &Start) -> Result<Self, Error> {
        let folder = folder(out, name)?;
        let path = folder.join(SESSION_FILE);
        let text = serde_json::to_string_pretty(start).unwrap_or_default();
        let written = write_atomic(&path, (text + "\n").as_bytes());
        written.map_err(render::error)?;
        let path = folder.join(RUNS_FILE);
        let journal = File::create_new(&path).map_err(|e| Error::io("create", &path, &e))?;
        Ok(Self {
            folder,
            journal,
            good: 0,
        })
    }

    /// Opens the folder of an interrupted session and reads what was finished. A torn last line (the machine lost
    /// power while it was written) is cut off.
    ///
    /// # Errors
    /// Usage if the folder holds no session or a finished one; verification if its journal is damaged.
    pub fn resume(folder: &Path) -> Result<(Self, Start, Vec<RunLine>), Error> {
        let path = folder.join(SESSION_FILE);
        let text = heaplab_bounded::read_text(&path, MOST_BYTES).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::usage(format!(
                "'{}' holds no session; give the folder that an interrupted `heaplab run` printed",
                folder.display()
            )),
            _ => Error::io("read", &path, &e),
        })?;
        let damaged = |what: &Path, e: &dyn std::fmt::Display| {
            Error::Verification(format!(
                "'{}' is damaged: {e}; start a new run",
                what.display()
            ))
        };
        let start: Start = serde_json::from_str(&text).map_err(|e| damaged(&path, &e))?;
        if start.schema != SCHEMA {
            return Err(damaged(
                &path,
                &format!("schema '{}' is not '{SCHEMA}'", start.schema),
            ));
        }
        let path = folder.join(RUNS_FILE);
        let text = heaplab_bounded::read_text(&path, MOST_BYTES)
            .map_err(|e| Error::io("read", &path, &e))?;
        let good = text.rfind('\n').map_or(0, |at| at + 1);
        let mut lines = Vec::new();
        for (number, line) in text[..good].lines().enumerate() {
            let parsed = serde_json::from_str::<RunLine>(line);
            lines.push(parsed.map_err(|e| damaged(&path, &format!("line {}: {e}", number + 1)))?);
        }
        let journal = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("open", &path, &e))?;
        let mut session = Self {
            folder: folder.to_path_buf(),
            journal,
            good: good as u64,
        };
        session
            .rewind()
            .map_err(|e| Error::io("write", &path, &e))?;
        Ok((session, start, lines))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a `result.json` of a complete run is there already.
    pub fn result_file(&self) -> PathBuf {
        self.folder.join(RESULT_FILE)
    }

    /// Appends one finished run and hands it to the system. After a failure the journal ends with the last whole line.
    ///
    /// # Errors
    /// Environment, naming the file and the cause (full disk, limit).
    pub fn append(&mut self, line: &RunLine) -> Result<(), Error> {
        let mut text = serde_json::to_vec(line).map_err(|e| {
            Error::environment(format!(
                "cannot form a line of {RUNS_FILE}: {e}; please report this"
            ))
        })?;
        text.push(b'\n');
        let written = self
            .journal
            .write_all(&text)
            .and_then(|()| self.journal.flush());
        if let Err(error) = written {
            // What is finished must stay readable; if even that fails there is nothing left to do.
            let _ = self.rewind();
            return Err(Error::io("write", &self.folder.join(RUNS_FILE), &error));
        }
        self.good += text.len() as u64;
        Ok(())
    }

    fn rewind(&mut self) -> std::io::Result<()> {
        self.journal.set_len(self.good)?;
        self.journal.seek(SeekFrom::Start(self.good)).map(|_| ())
    }
}

/// Makes the folder `out`, or `heaplab-results/<UTC>-<name>` with a number behind it where that exists.
///
/// # Errors
/// Usage if `out` exists and is not an empty folder; environment if the system refuses.
pub fn folder(out: Option<&Path>, name: &str) -> Result<PathBuf, Error> {
    match out {
        Some(folder) => {
            claim(folder)?;
            Ok(folder.to_path_buf())
        }
        None => fresh_folder(Path::new("heaplab-results"), name),
    }
}

/// Makes `folder`, which must not exist or be empty.
///
/// # Errors
/// Usage if something is in it, environment if the system refuses.
pub fn claim(folder: &Path) -> Result<(), Error> {
    if let Ok(mut entries) = fs::read_dir(folder)
        && entries.next().is_some()
    {
        return Err(Error::usage(format!(
            "'{}' is not empty and results are never overwritten; choose another folder with --out",
            folder.display()
        )));
    }
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))
}

/// Makes `<parent>/<UTC>-<name>`; a number is added where two sessions start in the same second.
fn fresh_folder(parent: &Path, name: &str) -> Result<PathBuf, Error> {
    fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, &e))?;
    let stem = format!("{}-{}", Utc::now().compact(), file_name(name));
    let mut folder = parent.join(&stem);
    for number in 2..1000 {
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                folder = parent.join(format!("{stem}-{number}"));
            }
            Err(e) => return Err(Error::io("create", &folder, &e)),
        }
    }
    Err(Error::environment(format!(
        "cannot find a free name beside '{}'; use --out",
        folder.display()
    )))
}

/// A name with letters that are safe in every shell and file system, at most 40 of them.
pub fn file_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    let safe = safe.trim_matches(['-', '.']);
    if safe.is_empty() {
        "run".into()
    } else {
        safe.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaplab_reports::schema::Status;

    fn line(block: u32) -> RunLine {
        RunLine {
            workload: "churn".into(),
            subject: "system".into(),
            measure: "speed".into(),
            block,
            order: 0,
            api: "malloc".into(),
            threads: 1,
            workload_hash: "aa".into(),
            status: Status::Ok,
            reason: None,
            answer: serde_json::json!({"calls": 5}),
        }
    }

    #[test]
    fn a_session_continues_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("r");
        let start = Start::now(7);
        let mut s = Session::create(Some(&out), "x", &start).unwrap();
        s.append(&line(0)).unwrap();
        s.append(&line(1)).unwrap();
        drop(s);
        let journal = out.join(RUNS_FILE);
        let whole = fs::read_to_string(&journal).unwrap();
        fs::write(&journal, format!("{whole}{{\"workload\":\"chu")).unwrap();
        let (mut s, read, lines) = Session::resume(&out).unwrap();
        assert_eq!(read, start);
        assert_eq!(lines, [line(0), line(1)]);
        s.append(&line(2)).unwrap();
        assert_eq!(
            Session::resume(&out).unwrap().2,
            [line(0), line(1), line(2)]
        );
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "x").unwrap();
        let e = Session::create(Some(dir.path()), "x", &Start::now(1)).unwrap_err();
        assert_eq!(e.code(), 2);
        assert!(e.to_string().contains("never overwritten"), "{e}");
        let e =
            Session::create(Some(&dir.path().join("mine/sub")), "x", &Start::now(1)).unwrap_err();
        assert_eq!(e.code(), 3, "{e}");
    }

    #[test]
    fn the_command_to_repeat_has_the_seed_and_no_folder() {
        let again = |words: &[&str]| {
            let start = Start {
                command: words.iter().map(|w| w.to_string()).collect(),
                ..Start::now(7)
            };
            start.again().join(" ")
        };
        assert_eq!(
            again(&["/a/b/heaplab", "run", "churn", "-o", "r", "-a", "system"]),
            "heaplab run churn -a system --seed 7"
        );
        assert_eq!(
            again(&["heaplab", "run", "--out=r", "--seed=3", "churn"]),
            "heaplab run --seed=3 churn"
        );
        // What stands behind the two dashes belongs to the program.
        assert_eq!(
            again(&["heaplab", "run", "--", "cc", "--seed", "-o", "x"]),
            "heaplab run --seed 7 -- cc --seed -o x"
        );
    }

    #[test]
    fn names_of_programs_become_file_names() {
        assert_eq!(file_name("./my prog"), "my-prog");
        assert_eq!(file_name("../.."), "run");
    }
}
