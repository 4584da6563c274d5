//! What goes on when a server has ended: workers that it did not stop, a server that put itself into the background, the
//! server of a script that did not replace itself by it.

use super::{GRACE, Service};
use crate::exec::descendants;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Time in which workers end by themselves after the server.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends the processes that a server has left behind: asked as the server was, and killed when that does not help, at once
/// where the server was not served as it should.
pub(crate) struct Leftovers {
    stop: Signal,
    since: Option<Instant>,
    asked: bool,
    /// Most of those that had to be ended.
    pub most: usize,
}

impl Leftovers {
    /// Of a server that is stopped so.
    pub fn of(service: &Service) -> Self {
        Self {
            stop: service.stop.signal(),
            since: None,
            asked: false,
            most: 0,
        }
    }

    /// Called again and again with the processes that there still are. `failed`: the server was not served as it should.
    pub fn end(&mut self, processes: &[u32], failed: bool) {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        if !failed && waited < PATIENCE {
            return;
        }
        self.most = self.most.max(processes.len());
        if failed || waited >= PATIENCE + GRACE {
            descendants::send(processes, Signal::KILL);
        } else if !self.asked {
            self.asked = true;
            descendants::send(processes, self.stop);
        }
    }
}
