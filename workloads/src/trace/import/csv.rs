//! Tables: a line of names, then a line a call.
//!
//! Needed columns: `call`, `block`, `size`. Known ones: `time_ns`, `thread`, `alignment`, `address`, `new_block`. Others are
//! passed over. `call` is a name as `heaplab trace export` writes it; `block` any number that names the block from its
//! allocation to its free (an address does); `thread` any number (the system's, too: from 4096 on, threads are numbered anew in
//! the order in which they come, and their old numbers become their names); `new_block` the name that a realloc gives it, where it changes. Numbers are
//! decimal, or hexadecimal with `0x`; an empty field is 0.

use super::intake::{Intake, Told};
use super::lines::Lines;
use crate::trace::columns::{MAX_THREADS, MAX_VALUE};
use crate::trace::error::TraceError;
use crate::trace::event::{Effect, EventKind, TICK_NS};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Lines between two calls of a progress function.
const PROGRESS: u64 = 1 << 16;

/// Where the columns are.
struct Columns {
    call: usize,
    block: usize,
    size: usize,
    time_ns: Option<usize>,
    thread: Option<usize>,
    alignment: Option<usize>,
    address: Option<usize>,
    new_block: Option<usize>,
}

impl Columns {
    fn of(line: &str) -> Result<Self, String> {
        let names: Vec<&str> = line.split(',').map(str::trim).collect();
        let at = |name: &str| names.iter().position(|found| *found == name);
        let needed = |name: &str| at(name).ok_or_else(|| format!("a column '{name}' is missing"));
        Ok(Self {
            call: needed("call")?,
            block: needed("block")?,
            size: needed("size")?,
            time_ns: at("time_ns"),
            thread: at("thread"),
            alignment: at("alignment"),
            address: at("address"),
            new_block: at("new_block"),
        })
    }

    fn told(&self, line: &str, count: u64, threads: &mut Threads) -> Result<Told, String> {
        let mut fields = [""; 64];
        let mut found = 0;
        for (field, text) in fields.iter_mut().zip(line.split(',')) {
            *field = text.trim();
            found += 1;
        }
        let field = |index: usize| {
            let text = fields.get(index).filter(|_| index < found);
            text.copied()
                .ok_or_else(|| format!("it has only {found} fields"))
        };
        let number = |index: usize| {
            let text = field(index)?;
            number(text).ok_or_else(|| format!("'{text}' is no number"))
        };
        let optional =
            |index: Option<usize>| index.map_or(Ok(None), |index| number(index).map(Some));
        let name = field(self.call)?;
        let mut kind = kind(name).ok_or_else(|| format!("'{name}' is no call"))?;
        let key = number(self.block)?;
        let size = number(self.size)?;
        let alignment = optional(self.alignment)?.unwrap_or(0);
        let thread = optional(self.thread)?.unwrap_or(0);
        let time_ns = optional(self.time_ns)?;
        if size >= MAX_VALUE {
            return Err(format!("{size} bytes are out of range"));
        }
        if alignment > 1 << 47 || (alignment > 0 && !alignment.is_power_of_two()) {
            return Err(format!("{alignment} is no alignment"));
        }
        let align_log2 = match kind.has_alignment() && alignment > 0 {
            true => alignment.trailing_zeros() as u8,
            false => 0,
        };
        // What other programs call realloc may be an allocation.
        if kind == EventKind::Realloc && key == 0 {
            kind = EventKind::ReallocNew;
        }
        let new_key = optional(self.new_block)?
            .filter(|&new| new != 0)
            .unwrap_or(key);
        Ok(Told {
            thread: threads.number(thread)?,
            tick: time_ns.map_or(count, |ns| ns / TICK_NS).min(MAX_VALUE - 1),
            kind,
            key: if kind == EventKind::ReallocNew {
                new_key
            } else {
                key
            },
            new_key,
            size: match kind.effect() {
                Effect::Free => 0,
                _ => size,
            },
            align_log2,
            address: optional(self.address)?.unwrap_or(0),
        })
    }
}

/// Threads with smaller numbers keep them: a trace's tables are as long as its largest number.
const FIRST_RENAMED: u32 = 4096;

/// Numbers of the threads that are numbered anew.
#[derive(Default)]
struct Threads {
    known: HashMap<u64, u32>,
    /// Number and old number of the one that came last, until its name is written.
    new: Option<(u32, u64)>,
}

impl Threads {
    fn number(&mut self, told: u64) -> Result<u32, String> {
        if told < u64::from(FIRST_RENAMED) {
            return Ok(told as u32);
        }
        let next = FIRST_RENAMED + self.known.len() as u32;
        let number = match self.known.entry(told) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) if next >= MAX_THREADS => {
                return Err(format!("more than {MAX_THREADS} threads are too many"));
            }
            Entry::Vacant(place) => {
                self.new = Some((next, told));
                *place.insert(next)
            }
        };
        Ok(number)
    }
}

pub(super) fn read(
    lines: &mut Lines,
    intake: &mut Intake,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TraceError> {
    let Some(names) = lines.next()? else {
        return Err(lines.wrong("the file is empty"));
    };
    let columns = Columns::of(names).map_err(|reason| lines.wrong(reason))?;
    let mut count = 0u64;
    let mut threads = Threads::default();
    loop {
        let Some(line) = lines.next()? else {
            return Ok(());
        };
        if line.trim().is_empty() {
            continue;
        }
        let told = columns.told(line, count, &mut threads);
        let told = told.map_err(|reason| lines.wrong(reason))?;
        if let Some((number, name)) = threads.new.take() {
            intake.name(number, &name.to_string())?;
        }
        intake.take(&told)?;
        count += 1;
        if count.is_multiple_of(PROGRESS) {
            let (read, all) = lines.progress();
            progress(read, all);
        }
    }
}

/// The kind with this name; C++ names are those of what they call.
fn kind(name: &str) -> Option<EventKind> {
    match name {
        "new" | "new[]" => return Some(EventKind::Malloc),
        "delete" | "delete[]" => return Some(EventKind::Free),
        _ => {}
    }
    (0..=u8::MAX)
        .map_while(EventKind::from_number)
        .find(|kind| kind.name() == name)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if text.is_empty() => Some(0),
        None => text.parse().ok(),
    }
}
