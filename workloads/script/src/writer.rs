//! Writes a script: ops arrive interleaved over threads, the file has one array per thread.

use crate::error::ScriptError;
use crate::file::{Run, ScriptInfo};
use crate::hash::{SegmentHash, WordHash};
use crate::layout::{self, AT_START, HEADER_BYTES, Header, THREAD_BYTES, ThreadEntry};
use crate::map;
use crate::newcomer::Newcomer;
use crate::op::{FLAG_SHARED, Op, OpKind};
use crate::pieces::{self, Bases, ORDER};
use crate::settled::Settled;
use crate::spill::Spill;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs of the order that are taken together.
const RUNS: usize = 1 << 10;

/// Streaming writer. Nothing appears under the final name before [`ScriptWriter::finish`] has succeeded; a writer
/// that is dropped leaves no file behind.
pub struct ScriptWriter {
    path: PathBuf,
    scratch_path: PathBuf,
    newcomer: Newcomer,
    spill: Spill,
    /// Takes the ops of thread 0 instead of `spill`.
    settled: Option<Settled>,
    threads: usize,
    started_by: Vec<u32>,
    stays: Vec<bool>,
    /// A stream of times for each thread, where ops have times.
    times: Option<Spill>,
    counts: ScriptInfo,
    last_run: Run,
    /// Runs of the order as they lie in the file, until they are [`RUNS`].
    runs: Vec<u64>,
    ordered: Vec<u64>,
    phases: Vec<String>,
}

impl ScriptWriter {
    /// Starts a script with `thread_count` threads (≥ 1). Errors when the folder cannot be written.
    pub fn create(path: &Path, thread_count: u32) -> Result<Self, ScriptError> {
        if thread_count == 0 || thread_count > layout::MAX_THREADS {
            return Err(ScriptError::Misuse(format!(
                "{thread_count} threads are not possible"
            )));
        }
        // Two processes may compile the same script at once; each has its own scratch names, also where they share the
        // folder but not the numbers of processes (containers).
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_nanos() as u64);
        let stamp = (std::process::id(), now.wrapping_add(unique()));
        let beside = |what: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}-{}.{what}", stamp.0, stamp.1));
            PathBuf::from(name)
        };
        let scratch_path = beside("ops");
        // The folder must be there and writable now, not after minutes of work.
        let newcomer = Newcomer::create(path, beside("tmp"))
            .map_err(|error| ScriptError::io("write", path, error))?;
        let threads = thread_count as usize;
        Ok(Self {
            spill: Spill::new(&scratch_path, threads + 1),
            path: path.to_path_buf(),
            scratch_path,
            newcomer,
            settled: None,
            threads,
            started_by: vec![AT_START; threads],
            stays: vec![false; threads],
            times: None,
            counts: ScriptInfo::default(),
            last_run: Run {
                thread: 0,
                count: 0,
            },
            runs: Vec::with_capacity(RUNS),
            ordered: vec![0; threads],
            phases: Vec::new(),
        })
    }

    /// Promises, before the first op, that no thread will be added and no slot shared: the ops of thread 0 then go straight to
    /// their place in the file. The script is the same.
    pub fn settle(&mut self) {
        self.settled = Some(Settled::new(layout::align_up(table_end(self.threads))));
    }

    /// One more thread; returns its number.
    pub fn add_thread(&mut self) -> Result<u32, ScriptError> {
        if self.settled.is_some() {
            return Err(ScriptError::Misuse("the threads are settled".into()));
        }
        if self.threads as u32 == layout::MAX_THREADS {
            return Err(ScriptError::Misuse("too many threads".into()));
        }
        self.spill.add();
        self.started_by.push(AT_START);
        self.stays.push(false);
        if let Some(times) = &mut self.times {
            times.add();
        }
        self.ordered.push(0);
        self.threads += 1;
        Ok(self.threads as u32 - 1)
    }

    /// Number of threads.
    pub fn threads(&self) -> u32 {
        self.threads as u32
    }

    /// Bytes of ops that may lie in memory (256 MiB unless said otherwise); what is more goes to a scratch file.
    pub fn set_memory_budget(&mut self, bytes: usize) {
        self.spill.set_budget(bytes);
    }

    /// Appends an op to its thread. Slots are those of the finished table unless `finish_relocated` is used.
    #[inline]
    pub fn push(&mut self, thread: u32, op: Op) -> Result<(), ScriptError> {
        self.append(thread, &[op])
    }

    /// Appends ops to a thread, as [`ScriptWriter::push`] does.
    #[inline]
    pub fn append(&mut self, thread: u32, ops: &[Op]) -> Result<(), ScriptError> {
        if thread as usize >= self.threads {
            return Err(ScriptError::Misuse(format!("there is no thread {thread}")));
        }
        let of = |op: &Op, kind: OpKind| u64::from(op.kind == kind as u8);
        let (mut allocations, mut frees, mut reallocs) = (0, 0, 0);
        let mut flags = 0;
        for op in ops {
            flags |= op.flags;
            allocations += u64::from(op.kind <= OpKind::AlignedAlloc as u8);
            reallocs += of(op, OpKind::Realloc);
            frees += of(op, OpKind::Free);
        }
        if allocations + frees + reallocs != ops.len() as u64 {
            for op in ops.iter().filter(|op| !op.is_call()) {
                self.note(thread, *op)?;
            }
        }
        self.counts.allocations += allocations;
        self.counts.reallocs += reallocs;
        self.counts.frees += frees;
        let bytes = map::bytes_of(ops);
        let kept = match &mut self.settled {
            Some(_) if flags & FLAG_SHARED != 0 => {
                return Err(ScriptError::Misuse("no slot was to be shared".into()));
            }
            Some(settled) if thread == 0 => settled.append(self.newcomer.file(), bytes),
            _ => self.spill.append(thread as usize + 1, bytes),
        };
        kept.map_err(|error| ScriptError::io("write", &self.path, error))
    }

    /// An op that is no call.
    fn note(&mut self, thread: u32, op: Op) -> Result<(), ScriptError> {
        match op.kind() {
            Some(OpKind::Idle) => self.counts.idle_ns += op.size(),
            Some(OpKind::ThreadStart) => {
                if op.slot as usize >= self.threads || op.slot == 0 || op.slot == thread {
                    return Err(ScriptError::Misuse(format!(
                        "thread {thread} cannot start thread {}",
                        op.slot
                    )));
                }
                self.started_by[op.slot as usize] = thread;
            }
            Some(_) => {}
            None => {
                return Err(ScriptError::Misuse(format!(
                    "no op has the number {}",
                    op.kind
                )));
            }
        }
        Ok(())
    }

    /// Gives every op a time: [`ScriptWriter::time`] must follow each push. Call before the first op.
    pub fn timed(&mut self) {
        let mut path = self.scratch_path.clone().into_os_string();
        path.push(".times");
        self.times = Some(Spill::new(Path::new(&path), self.threads));
    }

    /// When the op pushed last to `thread` is to be made, nanoseconds since the beginning; never decreasing in a thread.
    #[inline]
    pub fn time(&mut self, thread: u32, ns: u64) -> Result<(), ScriptError> {
        match &mut self.times {
            Some(times) if (thread as usize) < self.threads => times
                .append(thread as usize, &ns.to_le_bytes())
                .map_err(|error| ScriptError::io("write", &self.path, error)),
            _ => Err(ScriptError::Misuse(format!(
                "thread {thread} takes no times"
            ))),
        }
    }

    /// The thread was still there when the program ended: a replay keeps it asleep after its last op instead of ending it.
    pub fn stays(&mut self, thread: u32) -> Result<(), ScriptError> {
        match self.stays.get_mut(thread as usize) {
            Some(stays) => {
                *stays = true;
                Ok(())
            }
            None => Err(ScriptError::Misuse(format!("there is no thread {thread}"))),
        }
    }

    /// Appends `count` ops of `thread` to the global order. Neighbouring calls for one thread are joined.
    #[inline]
    pub fn order(&mut self, thread: u32, count: u32) -> Result<(), ScriptError> {
        if self.last_run.thread == thread
            && let Some(sum) = self.last_run.count.checked_add(count)
        {
            self.last_run.count = sum;
            return Ok(());
        }
        let run = std::mem::replace(&mut self.last_run, Run { thread, count });
        if run.count > 0 {
            self.runs.push(word_of(run));
            if self.runs.len() == RUNS {
                return self.flush_runs();
            }
        }
        Ok(())
    }

    /// The runs so far go to their stream: together, because models whose threads take short turns have a run for every other op.
    #[cold]
    fn flush_runs(&mut self) -> Result<(), ScriptError> {
        for word in &self.runs {
            let thread = *word as u32;
            let Some(ordered) = self.ordered.get_mut(thread as usize) else {
                return Err(ScriptError::Misuse(format!(
                    "the order names thread {thread}"
                )));
            };
            *ordered += word >> 32;
        }
        self.spill
            .append(ORDER, map::bytes_of(&self.runs))
            .map_err(|error| ScriptError::io("write", &self.path, error))?;
        self.runs.clear();
        Ok(())
    }

    /// Names the next phase; returns its number, the `size` of its `Mark` ops.
    pub fn phase(&mut self, name: &str) -> u64 {
        self.phases.push(name.to_owned());
        self.phases.len() as u64 - 1
    }

    /// Writes the file and gives it its name. `info` brings the slots, the peaks and the dropped idle time; the writer
    /// counts the calls and computes the checksum itself and returns the whole.
    pub fn finish(self, info: ScriptInfo) -> Result<ScriptInfo, ScriptError> {
        let bases = vec![0; self.threads];
        self.finish_relocated(info, &bases, 0, &mut |_, _| {})
    }

    /// As [`ScriptWriter::finish`], for a compiler that learns the sizes of pools last: private slots were counted
    /// from 0 in each thread and get `private_base[thread]` added, shared ones were counted from 0 and get
    /// `shared_base` added. `progress` is called with (done, total) between parts of the file.
    pub fn finish_relocated(
        mut self,
        info: ScriptInfo,
        private_base: &[u32],
        shared_base: u32,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<ScriptInfo, ScriptError> {
        if self.settled.is_some() && private_base.first() != Some(&0) {
            return Err(ScriptError::Misuse(
                "the slots of thread 0 are settled".into(),
            ));
        }
        let last = std::mem::take(&mut self.last_run.count);
        if last > 0 {
            self.runs.push(word_of(Run {
                thread: self.last_run.thread,
                count: last,
            }));
        }
        self.flush_runs()?;
        for thread in 0..self.threads {
            let ops = self.length(thread) / size_of::<Op>() as u64;
            if self.ordered[thread] != ops {
                return Err(ScriptError::Misuse(format!(
                    "thread {thread} has {ops} ops but the order counts {}",
                    self.ordered[thread]
                )));
            }
            if (self.times.as_ref()).is_some_and(|times| times.length(thread) / 8 != ops) {
                return Err(ScriptError::Misuse(format!(
                    "not every op of thread {thread} has a time"
                )));
            }
        }
        let counts = ScriptInfo {
            calls: self.counts.allocations + self.counts.frees + self.counts.reallocs,
            allocations: self.counts.allocations,
            frees: self.counts.frees,
            reallocs: self.counts.reallocs,
            idle_ns: self.counts.idle_ns,
            ..info
        };
        let info = self
            .assemble(counts, private_base, shared_base, progress)
            .map_err(|error| ScriptError::io("write", &self.path, error))?;
        let named = self.newcomer.publish();
        named.map_err(|error| ScriptError::io("name", &self.path, error))?;
        Ok(info)
    }

    /// Bytes of a thread's ops so far.
    fn length(&self, thread: usize) -> u64 {
        match &self.settled {
            Some(settled) if thread == 0 => settled.length(),
            _ => self.spill.length(thread + 1),
        }
    }

    fn assemble(
        &mut self,
        mut info: ScriptInfo,
        private_base: &[u32],
        shared_base: u32,
        progress: &mut dyn FnMut(u64, u64),
    ) -> io::Result<ScriptInfo> {
        let file = self.newcomer.file();
        let thread_table = HEADER_BYTES as u64;
        let mut at = table_end(self.threads);
        let mut table = Vec::with_capacity(THREAD_BYTES * self.threads);
        let mut pieces = Vec::new();
        for thread in 0..self.threads {
            at = layout::align_up(at);
            let length = self.length(thread);
            let entry = ThreadEntry {
                ops: at,
                count: length / size_of::<Op>() as u64,
                started_by: self.started_by[thread],
                stays: self.stays[thread],
            };
            table.extend_from_slice(&entry.encode());
            pieces::add(&self.spill, thread + 1, at, &mut pieces);
            at += length;
        }
        let order = layout::align_up(at);
        let runs = self.spill.length(ORDER) / 8;
        pieces::add(&self.spill, ORDER, order, &mut pieces);
        let times = order + runs * 8;
        let phases = match &self.times {
            Some(streams) => times + streams.total(self.threads),
            None => times,
        };
        let mut names = Vec::new();
        for name in &self.phases {
            names.extend_from_slice(&(name.len() as u32).to_le_bytes());
            names.extend_from_slice(name.as_bytes());
        }
        let mut rest = WordHash::new();
        rest.bytes(&table);
        rest.bytes(&names);
        file.set_len(phases)?;
        file.write_all_at(&table, thread_table)?;
        file.write_all_at(&names, phases)?;
        if let Some(streams) = &self.times {
            let (mut at, mut bytes) = (times, Vec::new());
            for thread in 0..self.threads {
                for segment in 0..streams.segments(thread) {
                    streams.read(thread, segment, &mut bytes)?;
                    rest.word(SegmentHash::of(&bytes));
                    file.write_all_at(&bytes, at)?;
                    at += bytes.len() as u64;
                }
            }
        }
        let bases = |stream: usize| Bases {
            private: private_base[stream - 1],
            shared: shared_base,
        };
        let before = match &mut self.settled {
            Some(settled) => settled.finish(file)?,
            None => &[],
        };
        info.checksum = pieces::write(&mut self.spill, file, before, &pieces, bases, progress)?;
        let header = Header {
            threads: self.threads as u32,
            thread_table,
            order,
            runs,
            phases,
            times: if self.times.is_some() { times } else { 0 },
            phase_bytes: names.len() as u64,
            file_length: phases + names.len() as u64,
            rest_checksum: rest.value(),
            info: info.clone(),
        };
        file.write_all_at(&header.encode(), 0)?;
        Ok(info)
    }
}

/// Where the table of so many threads ends in the file.
fn table_end(threads: usize) -> u64 {
    (HEADER_BYTES + THREAD_BYTES * threads) as u64
}

/// A run as it lies in the file.
fn word_of(run: Run) -> u64 {
    u64::from(run.thread) | u64::from(run.count) << 32
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
