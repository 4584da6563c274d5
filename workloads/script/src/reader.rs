//! The reader: a script that opens is safe to replay without further checks of bounds.
//!
//! Opened whole, everything stays mapped and ops are slices. Opened in windows, the check and every later reading map a
//! few MiB at a time, so that a script larger than memory or address space allows can be replayed.

use crate::cursor::{Cursor, Part, Runs};
use crate::error::ScriptError;
use crate::file::{Run, ScriptInfo};
use crate::hash::{SegmentHash, WordHash};
use crate::layout::{self, AT_START, HEADER_BYTES, Header, THREAD_BYTES, ThreadEntry};
use crate::map::{Mapping, bytes_of};
use crate::op::{FLAG_INHERITED, FLAG_SHARED, Op, OpKind};
use crate::spill::SEGMENT;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Bytes mapped at a time by the check of a script that is not mapped whole: what is hashed together.
const CHECK_WINDOW: usize = SEGMENT;

/// A script in its file.
///
/// `open` has checked: every op has a known kind, a slot of its kind within the table, a sane alignment; every
/// thread that is started exists and is started once; the order counts every op exactly once.
pub struct Script {
    path: PathBuf,
    file: File,
    /// The whole file, unless it is read in windows.
    map: Option<Mapping>,
    header: Header,
    entries: Vec<ThreadEntry>,
    /// Where each thread's times begin; empty without times.
    times: Vec<u64>,
    phases: Vec<String>,
}

impl Script {
    /// Opens and checks a script (one pass over its ops) and keeps it mapped whole. Errors for anything that is not a
    /// sound script.
    pub fn open(path: &Path) -> Result<Self, ScriptError> {
        Self::open_as(path, true)
    }

    /// As [`Script::open`], but nothing stays mapped: [`Script::cursor`] and [`Script::runs`] read it in windows.
    /// [`Script::thread`], [`Script::threads`] and [`Script::order`] panic.
    pub fn open_windowed(path: &Path) -> Result<Self, ScriptError> {
        Self::open_as(path, false)
    }

    /// As [`Script::open_windowed`], and everything is hashed in the same pass and compared with the header, as
    /// [`Script::verify_checksum`] does. `progress` takes bytes that were read and bytes of the file.
    pub fn open_verified(
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ScriptError> {
        let script = Self::read(path, false)?;
        let (mut hash, mut done) = (WordHash::new(), 0);
        let length = script.header.file_length;
        script.check_ops(&mut |ops| {
            for segment in bytes_of(ops).chunks(SEGMENT) {
                hash.word(SegmentHash::of(segment));
            }
            done += size_of_val(ops) as u64;
            progress(done, length);
        })?;
        script.check_order()?;
        script.hash_array(script.header.order, script.header.runs * 8, &mut hash)?;
        script.compare(hash)?;
        Ok(script)
    }

    /// Threads and runs of the order of a script, by its header alone: for one that was made or checked by the caller.
    pub fn shape(path: &Path) -> Result<(usize, u64), ScriptError> {
        let script = Self::read(path, false)?;
        Ok((script.thread_count(), script.run_count()))
    }

    fn open_as(path: &Path, whole: bool) -> Result<Self, ScriptError> {
        let script = Self::read(path, whole)?;
        script.check_ops(&mut |_| {})?;
        script.check_order()?;
        Ok(script)
    }

    /// Opens a script whose ops and order nobody has checked yet.
    fn read(path: &Path, whole: bool) -> Result<Self, ScriptError> {
        let file = File::open(path).map_err(|error| ScriptError::io("open", path, error))?;
        let io = |error| ScriptError::io("map", path, error);
        let length = file.metadata().map_err(io)?.len();
        let map = match whole {
            true => Some(Mapping::new(&file).map_err(io)?),
            false => None,
        };
        let invalid = |reason: String| ScriptError::invalid(path, reason);
        let bytes = |offset: u64, bytes: u64, what: &str| {
            if offset.checked_add(bytes).is_none_or(|end| end > length) {
                return Err(invalid(format!("its {what} lies outside the file")));
            }
            let bytes =
                usize::try_from(bytes).map_err(|_| invalid(format!("its {what} is too long")))?;
            Mapping::part(&file, offset, bytes).map_err(io)
        };
        let first = bytes(0, length.min(HEADER_BYTES as u64), "header")?;
        let header = Header::decode(first.bytes()).map_err(invalid)?;
        if header.file_length != length {
            return Err(invalid(format!(
                "it has {length} bytes where {} were written",
                header.file_length
            )));
        }
        if header.threads == 0 || header.threads > layout::MAX_THREADS {
            return Err(invalid(format!("it claims {} threads", header.threads)));
        }
        let table_bytes = u64::from(header.threads) * THREAD_BYTES as u64;
        let table = bytes(header.thread_table, table_bytes, "thread table")?;
        let entries: Vec<_> = table
            .bytes()
            .chunks_exact(THREAD_BYTES)
            .map(ThreadEntry::decode)
            .collect();
        let names = bytes(header.phases, header.phase_bytes, "names of phases")?;
        let phases = decode_phases(names.bytes()).map_err(invalid)?;
        let mut times = Vec::new();
        if header.times != 0 {
            let mut at = header.times;
            for entry in &entries {
                times.push(at);
                at = (entry.count.checked_mul(8))
                    .and_then(|bytes| at.checked_add(bytes))
                    .filter(|end| *end <= length)
                    .ok_or_else(|| invalid("its times lie outside the file".into()))?;
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            map,
            header,
            entries,
            times,
            phases,
        })
    }

    fn invalid(&self, reason: impl Into<String>) -> ScriptError {
        ScriptError::invalid(&self.path, reason)
    }

    /// Checks every op; `seen` takes all of them thread by thread, in pieces that begin at segments.
    fn check_ops(&self, seen: &mut dyn FnMut(&[Op])) -> Result<(), ScriptError> {
        let info = &self.header.info;
        let slots = info
            .private_slots
            .checked_add(info.shared_slots)
            .ok_or_else(|| self.invalid("it claims more slots than numbers for them"))?;
        let mut started = vec![AT_START; self.entries.len()];
        let mut calls = 0u64;
        for (thread, entry) in self.entries.iter().enumerate() {
            let bytes = entry.count.checked_mul(size_of::<Op>() as u64);
            let inside = (bytes.and_then(|bytes| entry.ops.checked_add(bytes)))
                .is_some_and(|end| end <= self.header.file_length)
                && entry.ops.is_multiple_of(layout::ALIGN)
                && (entry.ops >= HEADER_BYTES as u64 || entry.count == 0);
            if !inside {
                return Err(
                    self.invalid(format!("the ops of thread {thread} lie outside the file"))
                );
            }
            let mut cursor = Cursor::new(self, thread, CHECK_WINDOW);
            let (mut index, mut latest) = (0u64, 0u64);
            loop {
                let part = cursor.next(u64::MAX)?;
                if part.ops.is_empty() {
                    break;
                }
                seen(part.ops);
                for op in part.ops {
                    let checked = check_op(op, thread, info.private_slots, slots, &mut started);
                    checked.map_err(|why| {
                        self.invalid(format!("op {index} of thread {thread} {why}"))
                    })?;
                    calls += u64::from(op.is_call());
                    index += 1;
                }
                for time in part.times {
                    if *time < latest {
                        return Err(
                            self.invalid(format!("the times of thread {thread} run backwards"))
                        );
                    }
                    latest = *time;
                }
            }
        }
        if let Some(thread) =
            (0..started.len()).find(|&thread| started[thread] != self.entries[thread].started_by)
        {
            return Err(self.invalid(format!(
                "the thread table is wrong about who starts thread {thread}"
            )));
        }
        if calls != info.calls {
            return Err(self.invalid(format!(
                "it has {calls} calls where {} were written",
                info.calls
            )));
        }
        Ok(())
    }

    fn check_order(&self) -> Result<(), ScriptError> {
        let header = &self.header;
        let bytes = header.runs.checked_mul(size_of::<Run>() as u64);
        let inside = (bytes.and_then(|bytes| header.order.checked_add(bytes)))
            .is_some_and(|end| end <= header.file_length);
        if !inside || !header.order.is_multiple_of(layout::ALIGN) {
            return Err(self.invalid("the global order lies outside the file"));
        }
        let mut left: Vec<u64> = self.entries.iter().map(|entry| entry.count).collect();
        let mut runs = self.runs();
        let mut index = 0u64;
        while let Some(run) = runs.peek()? {
            let Some(left) = left.get_mut(run.thread as usize) else {
                return Err(self.invalid(format!(
                    "run {index} of the order names thread {}",
                    run.thread
                )));
            };
            if run.count == 0 || u64::from(run.count) > *left {
                return Err(
                    self.invalid(format!("run {index} of the order counts {} ops", run.count))
                );
            }
            *left -= u64::from(run.count);
            runs.advance();
            index += 1;
        }
        match left.iter().position(|&left| left != 0) {
            Some(thread) => {
                Err(self.invalid(format!("the order leaves out ops of thread {thread}")))
            }
            None => Ok(()),
        }
    }

    /// The file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of threads, ≥ 1.
    pub fn thread_count(&self) -> usize {
        self.entries.len()
    }

    /// Number of ops of one thread; panics when there is no such thread.
    pub fn op_count(&self, thread: usize) -> u64 {
        self.entries[thread].count
    }

    /// Whether ops have times, so that a replay can keep the recorded pace.
    pub fn has_times(&self) -> bool {
        self.header.times != 0
    }

    /// Bytes of all ops.
    pub fn op_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| entry.count * size_of::<Op>() as u64)
            .sum()
    }

    /// Reads a thread's ops from the beginning, with windows of about `window_bytes` where the script is not mapped whole.
    pub fn cursor(&self, thread: usize, window_bytes: usize) -> Cursor<'_> {
        Cursor::new(self, thread, window_bytes)
    }

    /// Reads the global order from the beginning.
    pub fn runs(&self) -> Runs<'_> {
        Runs::new(self)
    }

    /// Runs of the global order.
    pub fn run_count(&self) -> u64 {
        self.header.runs
    }

    /// A thread's ops where the script is mapped whole.
    pub(crate) fn whole(&self, thread: usize) -> Option<Part<'_>> {
        let map = self.map.as_ref()?;
        let entry = &self.entries[thread];
        let times = self.times.get(thread);
        Some(Part {
            ops: map.records(entry.ops, entry.count).unwrap_or_default(),
            times: times
                .and_then(|at| map.records(*at, entry.count))
                .unwrap_or_default(),
        })
    }

    /// Maps `count` ops of a thread from `first` on, and their times.
    pub(crate) fn window(
        &self,
        thread: usize,
        first: u64,
        count: u64,
    ) -> Result<(Mapping, Mapping), ScriptError> {
        let entry = &self.entries[thread];
        let ops = self.part(entry.ops + first * 16, count * 16)?;
        let times = match self.times.get(thread) {
            Some(at) => self.part(at + first * 8, count * 8)?,
            None => self.part(0, 0)?,
        };
        Ok((ops, times))
    }

    /// Maps `count` runs of the order from `first` on.
    pub(crate) fn run_window(&self, first: u64, count: u64) -> Result<Mapping, ScriptError> {
        self.part(self.header.order + first * 8, count * 8)
    }

    fn part(&self, offset: u64, bytes: u64) -> Result<Mapping, ScriptError> {
        let map = Mapping::part(&self.file, offset, bytes as usize)
            .map_err(|error| ScriptError::io("map", &self.path, error))?;
        map.populate();
        Ok(map)
    }

    fn mapped(&self) -> &Mapping {
        self.map
            .as_ref()
            .expect("the script is mapped whole, not read in windows")
    }

    /// The ops of one thread; panics when there is no such thread or the script is read in windows.
    pub fn thread(&self, thread: usize) -> &[Op] {
        let entry = &self.entries[thread];
        self.mapped()
            .records(entry.ops, entry.count)
            .unwrap_or_default()
    }

    /// The ops of each thread, in the order of thread numbers.
    pub fn threads(&self) -> impl ExactSizeIterator<Item = &[Op]> {
        (0..self.entries.len()).map(|thread| self.thread(thread))
    }

    /// Whether the thread is still there after its last op, until everything is over.
    pub fn stays(&self, thread: usize) -> bool {
        self.entries[thread].stays
    }

    /// Whether a thread exists from the beginning: no `ThreadStart` op names it. True for thread 0.
    pub fn exists_from_start(&self, thread: usize) -> bool {
        self.entries[thread].started_by == AT_START
    }

    /// The global order.
    pub fn order(&self) -> &[Run] {
        self.mapped()
            .records(self.header.order, self.header.runs)
            .unwrap_or_default()
    }

    /// Counts, slots, peaks.
    pub fn info(&self) -> &ScriptInfo {
        &self.header.info
    }

    /// Names of phases; a `Mark` op's size is an index into them.
    pub fn phases(&self) -> &[String] {
        &self.phases
    }

    /// Hashes everything again and compares with the header: no bit of a script that passes differs from what was written,
    /// but for the gaps between arrays. Costs a few ns per op, so `open` leaves it out. At most 1 MiB is mapped at a time where the script is not mapped whole.
    pub fn verify_checksum(&self) -> Result<(), ScriptError> {
        let mut hash = WordHash::new();
        let arrays = self
            .entries
            .iter()
            .map(|entry| (entry.ops, entry.count * size_of::<Op>() as u64));
        for (offset, length) in arrays.chain([(self.header.order, self.header.runs * 8)]) {
            self.hash_array(offset, length, &mut hash)?;
        }
        self.compare(hash)
    }

    /// Hashes an array of the file, segment by segment.
    fn hash_array(&self, offset: u64, length: u64, hash: &mut WordHash) -> Result<(), ScriptError> {
        for at in (0..length).step_by(SEGMENT) {
            let bytes = (length - at).min(SEGMENT as u64);
            match &self.map {
                Some(map) => {
                    let begin = (offset + at) as usize;
                    hash.word(SegmentHash::of(&map.bytes()[begin..begin + bytes as usize]));
                }
                None => hash.word(SegmentHash::of(self.part(offset + at, bytes)?.bytes())),
            }
        }
        Ok(())
    }

    /// Compares the hash of ops and order, and that of all else, with the header.
    fn compare(&self, hash: WordHash) -> Result<(), ScriptError> {
        if hash.value() != self.header.info.checksum {
            return Err(self.invalid("the checksum of its ops does not match"));
        }
        if self.rest_checksum()? != self.header.rest_checksum {
            return Err(self.invalid("the checksum of its threads, phases or times does not match"));
        }
        Ok(())
    }

    /// Hash of the thread table, the names of phases and the times.
    fn rest_checksum(&self) -> Result<u64, ScriptError> {
        let mut hash = WordHash::new();
        let table_bytes = (self.entries.len() * THREAD_BYTES) as u64;
        hash.bytes(self.part(self.header.thread_table, table_bytes)?.bytes());
        hash.bytes(
            self.part(self.header.phases, self.header.phase_bytes)?
                .bytes(),
        );
        for (entry, &times) in self.entries.iter().zip(&self.times) {
            self.hash_array(times, entry.count * 8, &mut hash)?;
        }
        Ok(hash.value())
    }
}

/// What is wrong with an op, if something is.
#[inline(always)]
fn check_op(
    op: &Op,
    thread: usize,
    private_slots: u32,
    slots: u32,
    started: &mut [u32],
) -> Result<(), String> {
    if op.is_call() {
        let shared = op.flags & FLAG_SHARED != 0;
        let fits = if shared {
            op.slot >= private_slots && op.slot < slots
        } else {
            op.slot < private_slots
        };
        if !fits || op.flags > FLAG_INHERITED.max(FLAG_SHARED) || op.align_log2() >= 48 {
            return Err(format!("is damaged: {op:?}"));
        }
        return Ok(());
    }
    match op.kind() {
        Some(OpKind::ThreadStart) => {
            let child = op.slot as usize;
            if child == 0 || child >= started.len() || child == thread {
                return Err(format!("starts thread {child}, which it cannot"));
            }
            if started[child] != AT_START {
                return Err(format!("starts thread {child}, which was started before"));
            }
            started[child] = thread as u32;
            Ok(())
        }
        Some(_) => Ok(()),
        None => Err(format!("has the unknown kind {}", op.kind)),
    }
}

fn decode_phases(mut bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or("the names of phases are cut")?;
        let length = u32::from_le_bytes(*length) as usize;
        let name = rest.get(..length).ok_or("the names of phases are cut")?;
        let name = std::str::from_utf8(name).map_err(|_| "a name of a phase is not text")?;
        names.push(name.to_owned());
        bytes = &rest[length..];
    }
    Ok(names)
}
