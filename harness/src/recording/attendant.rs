//! The thread that goes with a server while the recording's own thread moves the records.

use crate::exec::RunFailure;
use crate::service::{Server, Service};

/// Goes with a server in a thread of its own, while the recording's thread moves the records.
pub(super) struct Attendant(std::thread::JoinHandle<Result<(), RunFailure>>);

pub(super) fn attend(service: Service, pid: u32) -> Attendant {
    Attendant(std::thread::spawn(move || {
        let server = Server::open(pid)?;
        service.attend(&server, &|| false, &mut || {}).map(drop)
    }))
}

impl Attendant {
    /// Waits for it, which is short after the program's end; why the server was not served as it should.
    pub(super) fn end(self) -> Result<(), String> {
        match self.0.join() {
            Ok(served) => served.map_err(|failure| failure.reason),
            Err(_) => Err("the watch over the program broke off".into()),
        }
    }
}
