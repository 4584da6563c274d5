//! What the allocator of a program counts itself, at the program's peak and at its end: the harness's side of the agent
//! (`heaplab-statistics`). Of several processes, the one that was largest.

use heaplab_statistics::{ASKED_AT, END_AT, LAST, NOW_AT, SERVED_AT, TEXT_BYTES};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Growth of a process after which its allocator is asked again: a share of its size, and bytes.
const GROWN: u64 = 50;
const GROWN_BYTES: u64 = 128 << 10;
/// Time for the last answer before a server is told to end.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// What an allocator counts itself, each under its own names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// At the last look before the process stopped growing.
    #[serde(default)]
    pub at_peak: Option<Value>,
    /// Resident bytes of the process when that was asked.
    #[serde(default)]
    pub peak_resident_bytes: u64,
    /// At its end; of a server, before it was told to end.
    #[serde(default)]
    pub at_end: Option<Value>,
}

/// The folder in which processes put their files.
#[derive(Debug)]
pub(super) struct Asked {
    folder: PathBuf,
    known: HashMap<u32, Process>,
}

#[derive(Debug)]
struct Process {
    file: File,
    /// Largest resident size at which it was asked, and the question's number.
    largest: u64,
    number: u32,
    /// Size at the question whose answer is `peak`.
    at: u64,
    peak: Option<Value>,
}

impl Asked {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            known: HashMap::new(),
        }
    }

    /// Looks at processes of these sizes: asks those that have grown, and takes what was answered.
    pub fn look(&mut self, members: &[u32], sizes: &[u64]) {
        for (pid, size) in members.iter().zip(sizes) {
            if !self.known.contains_key(pid)
                && let Some(file) = open(&self.folder, *pid)
            {
                self.known.insert(*pid, Process::new(file));
            }
            if let Some(process) = self.known.get_mut(pid) {
                process.look(*size);
            }
        }
    }

    /// When all are over.
    pub fn end(mut self) -> Option<Statistics> {
        let largest = self
            .known
            .values_mut()
            .max_by_key(|process| process.largest)?;
        largest.take();
        let at_end = text(&largest.file, END_AT).or_else(|| {
            (number(&largest.file, SERVED_AT) == Some(LAST))
                .then(|| text(&largest.file, NOW_AT))
                .flatten()
        });
        Some(Statistics {
            at_peak: largest.peak.take(),
            peak_resident_bytes: largest.at,
            at_end,
        })
        .filter(|found| found.at_peak.is_some() || found.at_end.is_some())
    }
}

impl Process {
    fn new(file: File) -> Self {
        Self {
            file,
            largest: 0,
            number: 0,
            at: 0,
            peak: None,
        }
    }

    fn look(&mut self, size: u64) {
        // The last question is the end's.
        let served = number(&self.file, SERVED_AT).unwrap_or(LAST);
        if served != self.number {
            return;
        }
        self.take();
        if size > self.largest + (self.largest / GROWN).max(GROWN_BYTES) || self.number == 0 {
            self.largest = size;
            self.number += 1;
            let _ = self
                .file
                .write_all_at(&self.number.to_ne_bytes(), ASKED_AT as u64);
        }
    }

    /// The answer to the last question, if it is there.
    fn take(&mut self) {
        if self.number > 0
            && number(&self.file, SERVED_AT) == Some(self.number)
            && let Some(answer) = text(&self.file, NOW_AT)
        {
            self.peak = Some(answer);
            self.at = self.largest;
        }
    }
}

/// Puts the agent into a program's environment, given as `NAME=VALUE` words. It must be loaded before the subject: so it begins
/// after it and ends before it.
pub(super) fn add_agent(environment: &mut Vec<String>, agent: &Path, folder: &Path, object: &str) {
    super::preload_first(environment, agent);
    environment.push(format!("HEAPLAB_STATISTICS={}", folder.display()));
    // A name without a path is an allocator that the program itself carries.
    let object = if object.starts_with('/') { object } else { "" };
    environment.push(format!("HEAPLAB_STATISTICS_OF={object}"));
}

/// Asks a server for the last time, before it is told to end, and waits for the answer.
pub(super) fn ask_before_stop(folder: &Path, pid: u32) {
    let Some(file) = open(folder, pid) else {
        return;
    };
    if file
        .write_all_at(&LAST.to_ne_bytes(), ASKED_AT as u64)
        .is_err()
    {
        return;
    }
    let until = Instant::now() + LAST_ANSWER;
    while number(&file, SERVED_AT) != Some(LAST) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn open(folder: &Path, pid: u32) -> Option<File> {
    let path = folder.join(pid.to_string());
    File::options().read(true).write(true).open(path).ok()
}

fn number(file: &File, at: usize) -> Option<u32> {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at as u64).ok()?;
    Some(u32::from_ne_bytes(bytes))
}

fn text(file: &File, at: usize) -> Option<Value> {
    let length = number(file, at)? as usize;
    if length == 0 || length > TEXT_BYTES {
        return None;
    }
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, at as u64 + 4).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaplab_statistics::PAGE_BYTES;

    fn put(file: &File, at: usize, text: &str) {
        file.write_all_at(text.as_bytes(), at as u64 + 4).unwrap();
        let length = (text.len() as u32).to_ne_bytes();
        file.write_all_at(&length, at as u64).unwrap();
    }

    fn serve(file: &File) -> u32 {
        let asked = number(file, ASKED_AT).unwrap();
        file.write_all_at(&asked.to_ne_bytes(), SERVED_AT as u64)
            .unwrap();
        asked
    }

    #[test]
    fn the_largest_process_at_its_largest() {
        let folder = tempfile::tempdir().unwrap();
        let file = |pid: u32| {
            let path = folder.path().join(pid.to_string());
            let mut options = File::options();
            let file = options.read(true).write(true).create_new(true).open(path);
            let file = file.unwrap();
            file.set_len(PAGE_BYTES as u64).unwrap();
            file
        };
        let (small, large) = (file(7), file(8));
        let mut asked = Asked::new(folder.path());
        asked.look(&[7, 8, 9], &[1 << 20, 2 << 20, 3 << 20]);
        put(&small, NOW_AT, "{\"n\":1}");
        put(&large, NOW_AT, "{\"n\":2}");
        assert_eq!((serve(&small), serve(&large)), (1, 1));
        asked.look(&[7, 8], &[1 << 20, 4 << 20]);
        put(&large, NOW_AT, "{\"n\":3}");
        assert_eq!((serve(&small), serve(&large)), (1, 2));
        // It shrinks: what is asked now would not be the peak.
        asked.look(&[7, 8], &[1 << 20, 1 << 20]);
        assert_eq!(serve(&large), 2);
        // The end of a server: what it said before it was told to.
        std::thread::scope(|scope| {
            scope.spawn(|| ask_before_stop(folder.path(), 8));
            while number(&large, ASKED_AT) != Some(LAST) {
                std::thread::yield_now();
            }
            put(&large, NOW_AT, "{\"n\":4}");
            assert_eq!(serve(&large), LAST);
        });
        asked.look(&[8], &[9 << 20]);
        assert_eq!(
            number(&large, ASKED_AT),
            Some(LAST),
            "nothing after the last"
        );
        let found = asked.end().unwrap();
        assert_eq!(found.at_peak.unwrap()["n"], 3);
        assert_eq!(found.peak_resident_bytes, 4 << 20);
        assert_eq!(found.at_end.unwrap()["n"], 4);
        // By its own end it says the last word.
        put(&small, END_AT, "{\"n\":5}");
        let mut asked = Asked::new(folder.path());
        asked.look(&[7], &[1 << 20]);
        assert_eq!(asked.end().unwrap().at_end.unwrap()["n"], 5);
        assert_eq!(Asked::new(folder.path()).end(), None);
    }
}
