//! What glibc's loader makes of `GLIBC_TUNABLES`: it drops in silence what is out of a tunable's range, and tells what is left when it is
//! asked (`ld.so --list-tunables`, since glibc 2.33). That is what malloc is given; what malloc makes of it nobody tells.

use crate::subject::Subject;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// The loader of the x86-64 ABI, the one in every program that is measured.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const MALLOC: &str = "glibc.malloc.";

/// Values of malloc's tunables in a process with the subject's environment; `None` where the loader does not tell.
pub(super) fn told(subject: &Subject) -> Option<BTreeMap<String, String>> {
    let output = Command::new(LOADER)
        .arg("--list-tunables")
        .env_clear()
        .envs(subject.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found: BTreeMap<String, String> = text.lines().filter_map(line).collect();
    (output.status.success() && !found.is_empty()).then_some(found)
}

/// `glibc.malloc.arena_max: 0x1 (min: 0x1, max: 0xffffffffffffffff)`: the name as `-a system:` has it, and its value.
fn line(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.strip_prefix(MALLOC)?.split_once(": ")?;
    let value = rest.split(" (").next()?;
    Some((name.to_owned(), value.to_owned()))
}

/// The setting's name as [`told`] has it.
pub(super) fn short(key: &str) -> &str {
    key.strip_prefix(MALLOC).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_loader_are_read() {
        let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        let of = "glibc.malloc.arena_max: 0x1 (min: 0x1, max: 0xffffffffffffffff)";
        assert_eq!(line(of), pair("arena_max", "0x1"));
        assert_eq!(
            line("glibc.malloc.perturb: 7 (min: 0, max: 255)"),
            pair("perturb", "7")
        );
        assert_eq!(line("glibc.elision.enable: 0 (min: 0, max: 1)"), None);
        assert_eq!(short("glibc.malloc.mxfast"), short("mxfast"));
    }

    #[test]
    fn the_loader_tells_what_it_took() {
        let of = |spec: &str| told(&crate::subject::parse(spec).unwrap()[0]).unwrap();
        assert_eq!(of("system:arena_max=3")["arena_max"], "0x3");
        assert_eq!(of("system:perturb=7")["perturb"], "7");
        // Out of range.
        assert_eq!(of("system:perturb=300")["perturb"], "0");
    }
}
