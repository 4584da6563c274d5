//! Logs of glibc's `mtrace` (malloc/mtrace-impl.c): a line a call, `@ CALLER` before it where it is known.
//!
//! `+ ADDRESS SIZE` allocation, `- ADDRESS` free, `< OLD` and `> NEW SIZE` realloc, `! ADDRESS SIZE` a realloc that failed.
//! The log knows neither times nor threads: calls are 100 ns apart, in thread 0.

use super::intake::{Intake, Told};
use super::lines::Lines;
use crate::trace::columns::MAX_VALUE;
use crate::trace::error::TraceError;
use crate::trace::event::EventKind;

/// Lines between two calls of a progress function.
const PROGRESS: u64 = 1 << 16;

pub(super) fn read(
    lines: &mut Lines,
    intake: &mut Intake,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TraceError> {
    intake.note("imported from an mtrace log, which has no times and no threads")?;
    let mut old: Option<u64> = None;
    let (mut count, mut tick) = (0u64, 0u64);
    loop {
        let Some(line) = lines.next()? else {
            return Ok(());
        };
        let outcome = call(line, &mut old);
        count += 1;
        if count.is_multiple_of(PROGRESS) {
            let (read, all) = lines.progress();
            progress(read, all);
        }
        match outcome {
            Ok(None) => {}
            Ok(Some(told)) => {
                intake.take(&Told { tick, ..told })?;
                tick += 1;
            }
            Err(reason) => return Err(lines.wrong(reason)),
        }
    }
}

fn call(line: &str, old: &mut Option<u64>) -> Result<Option<Told>, String> {
    let mut words = line.split_ascii_whitespace();
    let mut sign = words.next().unwrap_or_default();
    if sign == "@" {
        words.next();
        sign = words.next().unwrap_or_default();
    }
    if sign.is_empty() || sign == "=" {
        return Ok(None);
    }
    let mut number = || {
        let word = words.next().ok_or("a number is missing")?;
        number(word).ok_or_else(|| format!("'{word}' is no number"))
    };
    let key = number()?;
    let mut told = Told {
        thread: 0,
        tick: 0,
        kind: EventKind::Malloc,
        key,
        new_key: key,
        size: 0,
        align_log2: 0,
        address: key,
    };
    match sign {
        "+" => {
            told.size = number()?;
            // A null pointer: the allocation failed.
            if key == 0 {
                told.kind = EventKind::Failed;
            }
        }
        "-" if key == 0 => return Ok(None),
        "-" => told.kind = EventKind::Free,
        "<" => {
            *old = Some(key);
            return Ok(None);
        }
        ">" => {
            told.kind = EventKind::Realloc;
            told.size = number()?;
            told.key = old.take().ok_or("a realloc's old address is missing")?;
        }
        "!" => {
            told.kind = EventKind::Failed;
            told.size = number()?;
        }
        other => return Err(format!("'{other}' is no sign of a call")),
    }
    if told.size >= MAX_VALUE {
        return Err(format!("{} bytes are out of range", told.size));
    }
    Ok(Some(told))
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if word == "(nil)" => Some(0),
        None => word.parse().ok(),
    }
}
