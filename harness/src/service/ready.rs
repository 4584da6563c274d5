//! When a server is ready: a port that answers, or a command that succeeds.

use super::shown;
use super::watch::{Event, Server, wait};
use crate::exec::RunFailure;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at a port.
const PORT_STEP: Duration = Duration::from_millis(2);
/// Between two runs of a command.
const COMMAND_STEP: Duration = Duration::from_millis(20);
/// The host where none is named: both addresses of this machine, as a server may listen on one of them only (node does on
/// `localhost` what comes first in its table).
const THIS_MACHINE: &str = "localhost";
/// A port of this machine that does not answer in this time does not answer.
const CONNECT: Duration = Duration::from_millis(500);

/// `--until-ready`: `tcp:PORT`, `tcp:HOST:PORT`, or a command for the shell that is repeated until it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Something accepts connections there.
    Tcp(String),
    /// Exit status 0.
    Command(String),
}

impl Ready {
    /// Reads the option's value. Its error is the end of clap's sentence "invalid value …: ".
    ///
    /// # Errors
    /// Words on what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(place) = text.strip_prefix("tcp:") else {
            return match text.trim() {
                "" => Err(
                    "write tcp:PORT, or a command that succeeds once the program is ready".into(),
                ),
                command => Ok(Self::Command(command.to_owned())),
            };
        };
        let (host, port) = place.rsplit_once(':').unwrap_or((THIS_MACHINE, place));
        match port.parse::<u16>() {
            Ok(number) if number > 0 && !host.is_empty() => {
                Ok(Self::Tcp(format!("{host}:{number}")))
            }
            _ => Err("write tcp:PORT or tcp:HOST:PORT with a port from 1 to 65535".into()),
        }
    }

    /// A port must not be answered before the server starts.
    pub(super) fn must_be_free(&self) -> Result<(), RunFailure> {
        match self {
            Self::Tcp(place) if answers(place) => Err(RunFailure::new(format!(
                "{place} is answered by another process already; stop it, or let the program use another port"
            ))),
            _ => Ok(()),
        }
    }

    /// Waits; nanoseconds that it took.
    pub(super) fn wait(
        &self,
        server: &Server,
        within: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<u64, RunFailure> {
        let began = Instant::now();
        let until = began + within;
        loop {
            let (ready, step) = match self {
                Self::Tcp(place) => (answers(place), PORT_STEP),
                Self::Command(command) => {
                    (succeeds(command, server, until, cancelled)?, COMMAND_STEP)
                }
            };
            let took = began.elapsed();
            if ready {
                return Ok(took.as_nanos() as u64);
            }
            if took >= within {
                return Err(RunFailure::new(format!(
                    "the program was not ready after {} ({self}); check the condition, or give it more time with \
                     --ready-within",
                    shown(within)
                )));
            }
            if wait(&[server], Some(Instant::now() + step), cancelled)? == Event::Ended(0) {
                return Err(super::ended_early());
            }
        }
    }
}

impl std::fmt::Display for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(place) => match place.strip_prefix(THIS_MACHINE) {
                Some(port) => write!(f, "tcp{port}"),
                None => write!(f, "tcp:{place}"),
            },
            Self::Command(command) => write!(f, "'{command}'"),
        }
    }
}

fn answers(place: &str) -> bool {
    addresses(place).iter().any(|address| {
        let connected = TcpStream::connect_timeout(address, CONNECT);
        connected.is_ok_and(|stream| !is_its_own_end(&stream))
    })
}

/// A connection to a port that nobody listens at succeeds where the kernel happens to give it that very port: it is then
/// connected to itself. Ports above 32,767 are given so, one after the other, and who looks often enough meets it.
fn is_its_own_end(stream: &TcpStream) -> bool {
    let ends = (stream.local_addr(), stream.peer_addr());
    matches!(ends, (Ok(local), Ok(peer)) if local == peer)
}

/// What a place may mean. A machine's own table may know `localhost` by one address, or not at all.
fn addresses(place: &str) -> Vec<SocketAddr> {
    let port = place
        .rsplit_once(':')
        .filter(|(host, _)| *host == THIS_MACHINE)
        .and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(port) => vec![
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
        ],
        None => place
            .to_socket_addrs()
            .map(Iterator::collect)
            .unwrap_or_default(),
    }
}

/// Runs the command once, not beyond `until` nor the server's end.
fn succeeds(
    command: &str,
    server: &Server,
    until: Instant,
    cancelled: &dyn Fn() -> bool,
) -> Result<bool, RunFailure> {
    use std::os::unix::process::CommandExt;
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| RunFailure::new(format!("--until-ready cannot be started: {error}")))?;
    let ended = Server::open(child.id())
        .and_then(|handle| wait(&[&handle, server], Some(until), cancelled));
    if !matches!(ended, Ok(Event::Ended(0))) {
        crate::exec::kill_group(&child);
    }
    let status = child.wait();
    ended?;
    Ok(status.is_ok_and(|status| status.success()))
}
