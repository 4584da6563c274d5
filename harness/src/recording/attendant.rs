//! The thread that goes with a server while the recording's own thread moves the records.

use crate::exec::RunFailure;
use crate::service::{Leftovers, Served, Server, Service};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Goes with a server in a thread of its own, while the recording's thread moves the records.
pub(super) struct Attendant {
    thread: std::thread::JoinHandle<Result<Served, RunFailure>>,
    failed: Arc<AtomicBool>,
    leftovers: Leftovers,
}

pub(super) fn attend(service: Service, pid: u32) -> Attendant {
    let failed = Arc::new(AtomicBool::new(false));
    let (leftovers, tell) = (Leftovers::of(&service), Arc::clone(&failed));
    let thread = std::thread::spawn(move || {
        let served =
            Server::open(pid).and_then(|server| service.attend(&server, &|| false, &mut || {}));
        tell.store(served.is_err(), Ordering::Release);
        served
    });
    Attendant {
        thread,
        failed,
        leftovers,
    }
}

impl Attendant {
    /// Called again and again when the program has ended, with its processes that go on: once the load is over they are ended.
    pub(super) fn end_what_is_left(&mut self, processes: &[u32]) {
        if self.thread.is_finished() {
            let failed = self.failed.load(Ordering::Acquire);
            self.leftovers.end(processes, failed);
        }
    }

    /// Processes that went on after the program.
    pub(super) fn left_behind(&self) -> usize {
        self.leftovers.most
    }

    /// Waits for it, which is short after the program's end; how the server was served, or why not as it should.
    pub(super) fn end(self) -> Result<Served, String> {
        match self.thread.join() {
            Ok(served) => served.map_err(|failure| failure.reason),
            Err(_) => Err("the watch over the program broke off".into()),
        }
    }
}
