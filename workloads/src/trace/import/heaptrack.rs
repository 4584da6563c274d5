//! heaptrack's files, versions 1 to 3 (libheaptrack.cpp and heaptrack_interpret.cpp of heaptrack 1.0 to 1.5), all numbers
//! hexadecimal.
//!
//! Raw: `+ SIZE TRACE ADDRESS`, `- ADDRESS`. Interpreted: `a SIZE TRACE` numbers a sort of allocation, `+ N` and `- N` say that one
//! of that sort came or went; which one is not known, and the youngest is taken. `c MS` stamps what came before it: calls
//! between two stamps are spread evenly over the time. Threads are not recorded, and a realloc is a free and an allocation.

use super::intake::{Intake, Told};
use super::lines::Lines;
use crate::trace::TICK_NS;
use crate::trace::columns::MAX_VALUE;
use crate::trace::error::TraceError;
use crate::trace::event::EventKind;
use crate::trace::header::TraceHeader;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Calls between two stamps that are kept to be spread; of more, the first ones are 100 ns apart.
const SPREAD: usize = 1 << 18;
/// Sorts of allocations of an interpreted file at most.
const SORTS: usize = 1 << 24;

/// What stands before the first allocation, read up to it.
pub(super) fn about(lines: &mut Lines) -> Result<TraceHeader, TraceError> {
    let mut header = TraceHeader::default();
    if !lines.peek()?.starts_with("v ") {
        return Err(lines.wrong("a file of heaptrack begins with its version, 'v …'"));
    }
    loop {
        let line = lines.peek()?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
        match kind {
            "v" => {
                let version = rest.split_ascii_whitespace().nth(1).and_then(hex);
                // Version 1 has no number of the file's format.
                if version.unwrap_or(1) > 3 {
                    return Err(lines.wrong("its format is newer than version 3"));
                }
            }
            "X" => header.argv = rest.split_ascii_whitespace().map(String::from).collect(),
            "I" => {
                let page = rest.split_ascii_whitespace().next().and_then(hex);
                header.machine.page_size = page.unwrap_or(0).min(1 << 30) as u32;
            }
            "+" | "-" | "c" => return Ok(header),
            // Sorts are needed while reading: they begin with the events.
            "a" => return Ok(header),
            _ => {}
        }
        if lines.next()?.is_none() {
            return Ok(header);
        }
    }
}

pub(super) fn read(
    lines: &mut Lines,
    intake: &mut Intake,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TraceError> {
    intake.note("imported from heaptrack, which has no threads and stamps every 10 ms; a realloc is a free and an allocation")?;
    let mut reader = Reader {
        intake,
        sorts: Vec::new(),
        live: HashMap::new(),
        allocations: 0,
        waiting: Vec::new(),
        tick: 0,
    };
    while let Some(line) = lines.next()? {
        let outcome = reader.line(line);
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                let (read, all) = lines.progress();
                progress(read, all);
            }
            Err(Fault::Line(reason)) => return Err(lines.wrong(reason)),
            Err(Fault::Trace(error)) => return Err(error),
        }
    }
    let end = reader.tick;
    reader.stamp(end)
}

enum Fault {
    Line(String),
    Trace(TraceError),
}

impl From<TraceError> for Fault {
    fn from(error: TraceError) -> Self {
        Self::Trace(error)
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Self {
        Self::Line(reason.to_string())
    }
}

struct Reader<'a> {
    intake: &'a mut Intake,
    /// Size of each sort.
    sorts: Vec<u64>,
    /// Names of the live blocks of the sorts that have some.
    live: HashMap<u64, Vec<u64>>,
    allocations: u64,
    waiting: Vec<Told>,
    /// Of the last stamp.
    tick: u64,
}

impl Reader<'_> {
    /// True at a stamp.
    fn line(&mut self, line: &str) -> Result<bool, Fault> {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next().unwrap_or_default();
        let mut number = || {
            let word = words.next().ok_or("a number is missing")?;
            hex(word).ok_or("a word is no hexadecimal number")
        };
        match kind {
            "+" => {
                let first = number()?;
                match number() {
                    Ok(_trace) => {
                        let address = number()?;
                        self.told(EventKind::Malloc, address, checked(first)?, address)?;
                    }
                    Err(_) => {
                        self.allocations += 1;
                        let name = self.allocations;
                        let size = self.size_of_sort(first)?;
                        self.live.entry(first).or_default().push(name);
                        self.told(EventKind::Malloc, name, size, 0)?;
                    }
                }
            }
            "-" => {
                let first = number()?;
                if self.sorts.is_empty() {
                    self.told(EventKind::Free, first, 0, first)?;
                } else {
                    self.size_of_sort(first)?;
                    // 0 is no name: a free of what was never allocated.
                    let mut name = 0;
                    if let Entry::Occupied(mut live) = self.live.entry(first) {
                        name = live.get_mut().pop().unwrap_or(0);
                        if live.get().is_empty() {
                            live.remove();
                        }
                    }
                    self.told(EventKind::Free, name, 0, 0)?;
                }
            }
            "a" => {
                if self.sorts.len() == SORTS {
                    return Err("there are too many sorts of allocations".into());
                }
                self.sorts.push(checked(number()?)?);
            }
            "c" => {
                let ms = number()?;
                let ns = ms.checked_mul(1_000_000).ok_or("a time is out of range")?;
                self.stamp((ns / TICK_NS).min(MAX_VALUE - 1))?;
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn size_of_sort(&self, number: u64) -> Result<u64, Fault> {
        let size = usize::try_from(number).ok();
        size.and_then(|number| self.sorts.get(number).copied())
            .ok_or("an allocation is of a sort that was not declared".into())
    }

    fn told(
        &mut self,
        kind: EventKind,
        key: u64,
        size: u64,
        address: u64,
    ) -> Result<(), TraceError> {
        let told = Told {
            thread: 0,
            tick: 0,
            kind,
            key,
            new_key: key,
            size,
            align_log2: 0,
            address,
        };
        if self.waiting.len() == SPREAD {
            let end = self.tick + SPREAD as u64;
            self.stamp(end.min(MAX_VALUE - 1))?;
        }
        self.waiting.push(told);
        Ok(())
    }

    /// Spreads the calls that wait over the time up to `tick`.
    fn stamp(&mut self, tick: u64) -> Result<(), TraceError> {
        let tick = tick.max(self.tick);
        let count = self.waiting.len() as u64;
        for (index, told) in (1u64..).zip(self.waiting.drain(..)) {
            let part =
                (u128::from(tick - self.tick) * u128::from(index) / u128::from(count)) as u64;
            let tick = self.tick + part;
            self.intake.take(&Told { tick, ..told })?;
        }
        self.tick = tick;
        Ok(())
    }
}

fn checked(size: u64) -> Result<u64, Fault> {
    if size < MAX_VALUE {
        Ok(size)
    } else {
        Err("a size is out of range".into())
    }
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}
