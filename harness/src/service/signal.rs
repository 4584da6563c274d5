//! The signal that stops a server.

use rustix::process::Signal;

/// Names and numbers of the signals that one would stop a server with.
const KNOWN: [(&str, Signal); 8] = [
    ("TERM", Signal::TERM),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("HUP", Signal::HUP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("ALRM", Signal::ALARM),
    ("KILL", Signal::KILL),
];

/// `--stop-signal`: `TERM`, `SIGINT`, `2` …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(Signal);

impl Default for StopSignal {
    fn default() -> Self {
        Self(Signal::TERM)
    }
}

impl StopSignal {
    /// Reads the option's value.
    ///
    /// # Errors
    /// Words on what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let upper = text.trim().to_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        KNOWN
            .iter()
            .find(|(known, signal)| *known == name || signal.as_raw().to_string() == name)
            .map(|(_, signal)| Self(*signal))
            .ok_or_else(|| {
                let names: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
                format!("write one of {} or its number", names.join(", "))
            })
    }

    /// The signal.
    pub fn signal(self) -> Signal {
        self.0
    }

    /// Whether a program that ended so ended as it was asked to: by itself with status 0, by the signal, or with the status
    /// that shells and many servers give after it.
    pub fn is_orderly(self, exit_code: Option<i32>, signal: Option<i32>) -> bool {
        let asked = self.0.as_raw();
        match (exit_code, signal) {
            (Some(code), _) => code == 0 || code == 128 + asked,
            (None, Some(signal)) => signal == asked,
            (None, None) => false,
        }
    }
}

impl std::fmt::Display for StopSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = KNOWN.iter().find(|(_, signal)| *signal == self.0);
        write!(f, "SIG{}", name.map_or("?", |(name, _)| name))
    }
}
