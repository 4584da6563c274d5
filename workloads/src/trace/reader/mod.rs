//! Reads the final form: opens at once by the index, or by scanning when the file was cut off.
//!
//! `scan` knows the chunks of text and files without an index, `segment` one segment, `events` all of them in a row,
//! `groups` parts that can be read alone and in parallel, `verify` every rule.

mod events;
pub(super) mod groups;
mod scan;
mod segment;
mod verify;

use super::container::{Chunk, ChunkKind, ChunkReader, FILE_HEADER};
use super::error::TraceError;
use super::header::TraceHeader;
use super::index::{self, Segment};
use super::resolve::{self, ResolveOptions};
use super::stacks::StackTable;
use super::summary::TraceSummary;
pub use events::Events;
use std::path::{Path, PathBuf};

/// A trace that is open for reading.
pub struct Trace {
    reader: ChunkReader,
    /// The path that was asked for (not the temporary file of a raw one).
    path: PathBuf,
    temporary: Option<PathBuf>,
    header: TraceHeader,
    names: Vec<(u32, String)>,
    marks: Vec<(u64, String)>,
    /// The process of each mark; `None`: of all.
    mark_processes: Vec<Option<u32>>,
    notes: Vec<String>,
    segments: Vec<Segment>,
    /// Number of the segment that follows, offset.
    checkpoints: Vec<(u64, u64)>,
    /// It has its index.
    indexed: bool,
    stacks: Option<StackTable>,
    summary: TraceSummary,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Trace")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Trace {
    /// Opens a trace. A raw file (a recording that was cut off) is resolved into a temporary file first; a final file
    /// without its end is read up to the last good segment. Both then have `complete == false`.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let reader = ChunkReader::open(path)?;
        let first = reader.place(FILE_HEADER)?;
        let Some(first) = first.filter(|place| place.kind == ChunkKind::HEADER) else {
            return Err(TraceError::damaged(
                path,
                FILE_HEADER,
                "the header is missing",
            ));
        };
        let head = reader.chunk(&first)?;
        if head.meta.first() == Some(&1) {
            return Self::open_final(reader, path, None);
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let temporary = std::env::temp_dir().join(format!(
            "heaplab-{}-{}-{name}",
            std::process::id(),
            unique()
        ));
        let options = ResolveOptions {
            level: 1,
            ..ResolveOptions::default()
        };
        resolve::resolve_file(path, &temporary, &options, &mut |_, _| {})?;
        let opened = ChunkReader::open(&temporary)
            .and_then(|reader| Self::open_final(reader, path, Some(temporary.clone())));
        if opened.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        opened
    }

    /// Opens a trace that is embedded in the program; `name` stands for its path.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, TraceError> {
        Self::open_final(ChunkReader::embedded(name, bytes)?, Path::new(name), None)
    }

    fn open_final(
        reader: ChunkReader,
        path: &Path,
        temporary: Option<PathBuf>,
    ) -> Result<Self, TraceError> {
        let index = index::read(&reader)?;
        let mut trace = Self {
            reader,
            path: path.to_path_buf(),
            temporary,
            header: TraceHeader::default(),
            names: Vec::new(),
            marks: Vec::new(),
            mark_processes: Vec::new(),
            notes: Vec::new(),
            segments: Vec::new(),
            checkpoints: Vec::new(),
            indexed: index.is_some(),
            stacks: None,
            summary: TraceSummary::default(),
        };
        match index {
            Some(index) => {
                trace.segments = index.segments;
                trace.checkpoints = index.meta.checkpoints;
                trace.summary = index.meta.summary;
                trace.read_text(index.meta.late.as_deref(), index.offset)?;
            }
            None => {
                trace.scan()?;
                let mut summary = trace.count(&mut |_, _| {})?;
                summary.missing = std::mem::take(&mut trace.summary.missing);
                summary.close();
                trace.summary = summary;
            }
        }
        Ok(trace)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it was recorded, of what.
    pub fn header(&self) -> &TraceHeader {
        &self.header
    }

    /// Totals.
    pub fn summary(&self) -> &TraceSummary {
        &self.summary
    }

    /// Names of threads: (thread, name).
    pub fn names(&self) -> &[(u32, String)] {
        &self.names
    }

    /// Marks: (tick, name), as recorded.
    pub fn marks(&self) -> &[(u64, String)] {
        &self.marks
    }

    /// The process of each of [`Trace::marks`]; `None`: of all.
    pub fn mark_processes(&self) -> &[Option<u32>] {
        &self.mark_processes
    }

    /// The chunk at an offset that the summary names; `None` when there is no chunk of this kind.
    pub(super) fn chunk_at(
        &self,
        offset: u64,
        kind: ChunkKind,
    ) -> Result<Option<Chunk>, TraceError> {
        match self.reader.place(offset)? {
            Some(place) if place.kind == kind => self.reader.chunk(&place).map(Some),
            _ => Ok(None),
        }
    }

    /// Remarks of the recorder.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where allocations came from; `None` in a trace without stacks.
    pub fn stacks(&self) -> Option<&StackTable> {
        self.stacks.as_ref()
    }

    /// The chunks of the file.
    pub(super) fn chunks(&self) -> &ChunkReader {
        &self.reader
    }

    /// Segments in their order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Parts that can be read alone: the checkpoints and the part before the first.
    pub fn parts(&self) -> usize {
        self.groups().len()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It lies in the folder for temporary files; if it cannot be removed now, the system will.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
