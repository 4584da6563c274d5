//! The file of a recording: its head before the program starts; its end, the order of its events and its final name after
//! the program has ended.

use super::cause::Inspected;
use super::failure::{kept, stopped};
use super::recorded::{Recorded, not_recorded, remarks, warnings_of_others};
use super::{Ended, Recording, cost};
use crate::bar::Bar;
use crate::clock::Utc;
use crate::error::Error;
use crate::exec::Limits;
use crate::fingerprint;
use crate::out::{Terminal, remark};
use crate::subject::inspect;
use heaplab_workloads::trace::raw::RawWriter;
use heaplab_workloads::trace::{
    FinishInfo, MachineShape, ResolveOptions, TraceHeader, TraceSummary, resolve_file,
    temporary_path,
};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

impl Recording<'_> {
    pub(super) fn header(&self, inspected: &Inspected) -> TraceHeader {
        let machine = fingerprint::read();
        let preloaded = first_with_malloc(&self.preloaded().to_string_lossy());
        TraceHeader {
            created: Utc::now().rfc3339(),
            tool: format!("heaplab {}", env!("CARGO_PKG_VERSION")),
            machine: MachineShape {
                cpus: fingerprint::usable_cpus(),
                page_size: machine.page_size as u32,
                thp: machine.thp,
                kernel: machine.kernel,
                libc: machine.libc,
                cpu_model: machine.cpu,
                memory_limit: machine
                    .details
                    .get("memory_limit")
                    .and_then(|bytes| bytes.parse().ok()),
            },
            allocator: preloaded
                .or_else(|| inspected.carried.map(str::to_string))
                .or_else(|| crate::program::brought_allocator(self.command, &Limits::seconds(10)))
                .unwrap_or_else(|| "system".into()),
            argv: self
                .command
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
        }
    }

    pub(super) fn finish(
        &self,
        terminal: &Terminal,
        inspected: &Inspected,
        ended: &Ended,
        mut raw: RawWriter,
        part: &Path,
    ) -> Result<Recorded, Error> {
        let name = self.command[0].to_string_lossy();
        let (status, drained) = (ended.status, &ended.drained);
        if let Some(why) = inspected.nothing(&name, drained) {
            let _ = std::fs::remove_file(part);
            return Ok(Recorded::without_trace(status, why));
        }
        let mut remarks = remarks(drained);
        let mut missing = not_recorded(drained);
        missing.extend(inspected.warning(&name));
        missing.extend(warnings_of_others(inspected, drained));
        for line in missing.iter().chain(&ended.notes) {
            raw.note(line).map_err(|e| stopped(e.into(), part))?;
        }
        remarks.extend(missing);
        let cost = match cost::cost() {
            Ok(cost) => Some(cost),
            Err(error) => {
                remarks.push(error.to_string());
                None
            }
        };
        raw.finish(FinishInfo {
            lost_events: drained.lost_events,
            recorder_ns_per_event: cost.map(|cost| cost.ns()),
            recorder_ns_uncertain: cost.is_some_and(|cost| !cost.settled),
            exit_status: status.code(),
            signal: status.signal(),
            duration_ns: drained.duration_ns,
            cpu_ns: ended.cpu_ns,
        })
        .map_err(|e| stopped(e.into(), part))?;
        let trace = self.resolve(terminal, ended, part)?;
        let _ = std::fs::remove_file(part);
        Ok(Recorded {
            status,
            stopped: false,
            trouble: None,
            measured: Vec::new(),
            trace: Some(trace),
            held_up: None,
            remarks,
        })
    }

    /// The raw file becomes the trace; Ctrl-C leaves the raw file.
    fn resolve(
        &self,
        terminal: &Terminal,
        ended: &Ended,
        part: &Path,
    ) -> Result<TraceSummary, Error> {
        terminal.detail("the program has ended; its events are being brought into order");
        let options = ResolveOptions {
            keep_addresses: self.keep_addresses,
            ..ResolveOptions::default()
        };
        let mut bar = Bar::new(terminal, "bringing the events into order");
        resolve_file(part, &self.out, &options, &mut |done, all| {
            // What this is a part of looks for it, too, and has files of its own to remove: a moment later.
            if let Some(signal) = ended.signals.asked_to_end().filter(|_| !self.silent) {
                bar.clear();
                let _ = std::fs::remove_file(temporary_path(&self.out));
                remark(&format!(
                    "heaplab: interrupted while the events were being brought into order; {}",
                    kept(part)
                ));
                std::process::exit(128 + signal.as_raw());
            }
            bar.at(done, all);
        })
        .map_err(|e| stopped(e.into(), part))
    }
}

/// The library of a preload list that the program allocates with. A name that the loader has to look for may be it.
fn first_with_malloc(list: &str) -> Option<String> {
    list.split([':', ' '])
        .filter(|path| !path.is_empty())
        .find(|path| {
            inspect(Path::new(path)).map_or(true, |elf| elf.allocator_symbols.contains("malloc"))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preloaded_library_is_the_allocator_only_if_it_has_a_malloc() {
        let libc = crate::program::c_library().unwrap();
        let libc = libc.to_str().unwrap();
        let libm = libc.replace("libc.so", "libm.so");
        assert!(Path::new(&libm).exists(), "{libm}");
        assert_eq!(first_with_malloc(&libm), None);
        assert_eq!(
            first_with_malloc(&format!("{libm}:{libc}")).as_deref(),
            Some(libc)
        );
        assert_eq!(
            first_with_malloc(&format!("{libm} libfound.so")).as_deref(),
            Some("libfound.so")
        );
        assert_eq!(first_with_malloc(""), None);
    }
}
