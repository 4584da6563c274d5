//! A raw file without its events: who took part, where the events lie, what was said.

use crate::trace::container::{ChunkKind, ChunkPlace, ChunkReader, FILE_HEADER};
use crate::trace::error::TraceError;
use crate::trace::header::{FinishInfo, TraceHeader};
use crate::trace::process::ProcessInfo;
use crate::trace::raw::{self, RawMeta};
use crate::trace::stacks::RawStacks;
use std::collections::BTreeMap;
use std::path::Path;

/// Numbers of threads and processes are below this, against hostile files.
const MOST: u32 = 1 << 20;

/// A raw file without its events.
pub struct RawIndex {
    pub reader: ChunkReader,
    pub header: TraceHeader,
    pub names: Vec<(u32, String)>,
    /// Process (`None`: all), ns, name.
    pub marks: Vec<(Option<u32>, u64, String)>,
    pub notes: Vec<String>,
    /// Start and end of each thread, ns.
    pub lives: BTreeMap<u32, (u64, Option<u64>)>,
    /// Processes by their dense number; none in files of one process that say nothing of it.
    pub processes: Vec<ProcessInfo>,
    /// The process of each thread that does not belong to the first one.
    pub owners: BTreeMap<u32, u32>,
    /// Dense numbers of the recorder's.
    pub numbers: BTreeMap<u32, u32>,
    pub chunks: BTreeMap<u32, Vec<(ChunkPlace, RawMeta)>>,
    pub stacks: RawStacks,
    pub events: u64,
    pub finish: Option<FinishInfo>,
    pub damage: Option<String>,
}

impl RawIndex {
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let reader = ChunkReader::open(path)?;
        let mut this = Self {
            reader,
            header: TraceHeader::default(),
            names: Vec::new(),
            marks: Vec::new(),
            notes: Vec::new(),
            lives: BTreeMap::new(),
            processes: Vec::new(),
            owners: BTreeMap::new(),
            numbers: BTreeMap::new(),
            chunks: BTreeMap::new(),
            stacks: RawStacks::default(),
            events: 0,
            finish: None,
            damage: None,
        };
        let mut offset = FILE_HEADER;
        loop {
            let place = match this.reader.place(offset) {
                Ok(Some(place)) => place,
                Ok(None) => break,
                Err(error) => {
                    this.damage = Some(error.to_string());
                    break;
                }
            };
            if offset == FILE_HEADER && place.kind != ChunkKind::HEADER {
                return Err(TraceError::damaged(path, offset, "the header is missing"));
            }
            if let Err(error) = this.take(path, &place) {
                if offset == FILE_HEADER || matches!(error, TraceError::Usage(_)) {
                    return Err(error);
                }
                this.damage = Some(error.to_string());
                break;
            }
            offset = place.end();
        }
        this.settle();
        Ok(this)
    }

    /// Numbers the processes by their start, densely: the recorder's numbers have gaps where a fork failed.
    fn settle(&mut self) {
        self.processes
            .sort_by_key(|process| (process.start_ns, process.process));
        self.numbers = (0..)
            .zip(&self.processes)
            .map(|(dense, process)| (process.process, dense))
            .collect();
        let dense = |number: u32| self.numbers.get(&number).copied();
        for process in &mut self.processes {
            process.process = dense(process.process).unwrap_or(0);
            process.parent = process
                .parent
                .and_then(dense)
                .filter(|parent| *parent < process.process);
        }
        for owner in self.owners.values_mut() {
            *owner = dense(*owner).unwrap_or(0);
        }
        for (process, ..) in &mut self.marks {
            *process = process.and_then(dense);
        }
    }

    /// The process of a thread.
    pub fn process_of(&self, thread: u32) -> u32 {
        self.owners.get(&thread).copied().unwrap_or(0)
    }

    fn take(&mut self, path: &Path, place: &ChunkPlace) -> Result<(), TraceError> {
        let cut = || TraceError::damaged(path, place.offset, "a chunk is too short");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let json = |error: serde_json::Error| {
            TraceError::damaged(
                path,
                place.offset,
                format!("a chunk cannot be read: {error}"),
            )
        };
        let u32_at = |meta: &[u8]| Some(u32::from_le_bytes(*meta.first_chunk::<4>()?));
        let u64_at =
            |meta: &[u8], at: usize| Some(u64::from_le_bytes(*meta.get(at..)?.first_chunk::<8>()?));
        // Threads are numbered in the order in which they begin, each with a chunk of 32 bytes at least: a larger number is a
        // hostile one, and would make a large table.
        let most = u64::from(MOST).min(4096 + place.offset / 32) as u32;
        // Every chunk is checked here, so that the merge never meets a bad one half-way.
        let chunk = self.reader.chunk(place)?;
        match place.kind {
            ChunkKind::HEADER => {
                if !chunk.meta.is_empty() {
                    return Err(TraceError::Usage(format!(
                        "'{}' has been resolved already: use it as it is",
                        path.display()
                    )));
                }
                let argv = std::mem::take(&mut self.header.argv);
                self.header = serde_json::from_slice(&chunk.body).map_err(json)?;
                self.header.argv = argv;
            }
            ChunkKind::ARGV => {
                self.header.argv = serde_json::from_slice(&chunk.body).map_err(json)?;
            }
            ChunkKind::NAME => {
                let thread = u32_at(&chunk.meta).ok_or_else(cut)?;
                self.names.push((thread, text(&chunk.body)));
            }
            ChunkKind::MARK => {
                let time_ns = u64_at(&chunk.meta, 0).ok_or_else(cut)?;
                let process = u32_at(chunk.meta.get(8..).unwrap_or_default());
                self.marks.push((process, time_ns, text(&chunk.body)));
            }
            ChunkKind::NOTE => self.notes.push(text(&chunk.body)),
            ChunkKind::PROCESS => {
                let number = u32_at(&chunk.meta).filter(|&number| number < MOST);
                let mut process: ProcessInfo = serde_json::from_slice(&chunk.body).map_err(json)?;
                process.process = number.ok_or_else(cut)?;
                if self.processes.iter().any(|p| p.process == process.process) {
                    return Err(TraceError::damaged(
                        path,
                        place.offset,
                        "a process begins twice",
                    ));
                }
                self.processes.push(process);
            }
            ChunkKind::RAW_PROCESS_END => {
                let number = u32_at(&chunk.meta).ok_or_else(cut)?;
                let time_ns = u64_at(&chunk.meta, 4).ok_or_else(cut)?;
                if let Some(process) = self
                    .processes
                    .iter_mut()
                    .rev()
                    .find(|p| p.process == number)
                {
                    process.end_ns = Some(time_ns);
                }
            }
            ChunkKind::RAW_THREAD_START => {
                let thread = u32_at(&chunk.meta).filter(|&thread| thread < most);
                let thread = thread.ok_or_else(cut)?;
                let time_ns = u64_at(&chunk.meta, 8).ok_or_else(cut)?;
                self.lives.entry(thread).or_insert((time_ns, None)).0 = time_ns;
                if let Some(process) = u32_at(chunk.meta.get(16..).unwrap_or_default()) {
                    self.owners.insert(thread, process);
                }
            }
            ChunkKind::RAW_THREAD_END => {
                let thread = u32_at(&chunk.meta).filter(|&thread| thread < most);
                let thread = thread.ok_or_else(cut)?;
                let time_ns = u64_at(&chunk.meta, 4).ok_or_else(cut)?;
                self.lives.entry(thread).or_insert((time_ns, None)).1 = Some(time_ns);
            }
            ChunkKind::RAW_EVENTS | ChunkKind::RAW_EVENTS_1 => {
                let meta = RawMeta::decode(&chunk.meta).ok_or_else(cut)?;
                if meta.events as usize > raw::CHUNK_EVENTS || meta.thread >= most {
                    return Err(TraceError::damaged(
                        path,
                        place.offset,
                        "impossible numbers",
                    ));
                }
                self.events += u64::from(meta.events);
                self.chunks
                    .entry(meta.thread)
                    .or_default()
                    .push((*place, meta));
            }
            ChunkKind::FINISH => {
                self.finish = Some(serde_json::from_slice(&chunk.body).map_err(json)?);
            }
            _ => self
                .stacks
                .take(place, &chunk.meta, &chunk.body)
                .map_err(|reason| TraceError::damaged(path, place.offset, reason))?,
        }
        Ok(())
    }
}
