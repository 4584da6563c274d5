//! The statistics as text on standard error: at the end of the process (`dump_at_exit`) or on a signal
//! (`dump_signal`). Nothing here allocates.

use crate::fault::Line;
use crate::size_class::NUM_CLASSES;
use crate::slow_path::SlowPath;
use crate::stats::{VERSION, count, count_class};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The setting `dump_at_exit`.
pub static AT_EXIT: AtomicU32 = AtomicU32::new(0);
/// The setting `dump_signal`: the signal's number, 0 for none.
pub static SIGNAL: AtomicU32 = AtomicU32::new(0);

/// Prints whole lines as they come.
#[derive(Debug, Default)]
struct Printer {
    line: Line,
}

impl Write for Printer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, part) in text.split('\n').enumerate() {
            if index > 0 {
                self.line.print();
                self.line = Line::new();
            }
            self.line.text(part.as_bytes());
        }
        Ok(())
    }
}

/// Prints totals of all tiers and one line for each class in use.
#[cold]
#[inline(never)]
pub fn print() {
    let _slow_path = SlowPath::enter();
    print_unmarked();
}

fn print_unmarked() {
    // The printer never fails.
    let _ = write_all(&mut Printer::default());
}

fn write_all(out: &mut impl Write) -> fmt::Result {
    let s = count();
    writeln!(out, "spanalloc {VERSION}: bytes")?;
    for (name, bytes) in [
        ("grown to", s.heap_bytes),
        ("in use by the program", s.in_use_bytes),
        ("of it large blocks", s.large_bytes),
        ("free in thread caches", s.thread_cache_bytes),
        ("free in transfer caches", s.transfer_cache_bytes),
        ("free in spans", s.central_bytes),
        ("of it given back", s.purged_bytes),
        ("freed and set aside", s.quarantined_bytes),
        ("free pages, resident", s.dirty_bytes),
        ("free pages, given back", s.clean_bytes),
        ("longest free run", s.longest_free_run_bytes),
        ("own records", s.metadata_bytes),
        ("resident in the process", s.process_resident_bytes),
        (
            "of it not the allocator's, at least",
            s.process_resident_bytes.saturating_sub(s.resident_bytes),
        ),
    ] {
        writeln!(out, "{bytes:>16}  {name}")?;
    }
    writeln!(
        out,
        "{:>9}{:>9}{:>14}{:>14}{:>14}{:>12}",
        "size", "spans", "span bytes", "handed out", "taken back", "given back"
    )?;
    for class in 1..NUM_CLASSES {
        let c = count_class(class);
        if c.handed_out > 0 {
            writeln!(
                out,
                "{:>9}{:>9}{:>14}{:>14}{:>14}{:>12}",
                c.size, c.spans, c.span_bytes, c.handed_out, c.taken_back, c.purged_bytes
            )?;
        }
    }
    Ok(())
}

/// What [`SIGNAL`] asks for.
pub(crate) extern "C" fn on_signal() {
    print_unmarked();
}

/// To be called when the process ends.
pub fn at_exit() {
    if AT_EXIT.load(Relaxed) != 0 {
        print();
    }
}
