//! Programs of the system that some features need: whether they are there, and how to install them.

use crate::error::Error;
use std::ffi::OsStr;
use std::path::PathBuf;

/// A tool, what heaplab uses it for, and the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Name of the executable.
    pub name: &'static str,
    /// Debian package.
    pub package: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

/// Counts instructions.
pub const VALGRIND: Tool = Tool {
    name: "valgrind",
    package: "valgrind",
    purpose: "counting instructions (--measure counts, the gate)",
};

/// Counts system calls.
pub const STRACE: Tool = Tool {
    name: "strace",
    package: "strace",
    purpose: "counting system calls (--measure counts)",
};

/// Every optional tool.
pub const ALL: [Tool; 3] = [
    VALGRIND,
    STRACE,
    Tool {
        name: "cc",
        package: "gcc",
        purpose: "building heaplab itself, and subjects from their sources",
    },
];

impl Tool {
    /// Its path, looked up along PATH.
    pub fn find(&self) -> Option<PathBuf> {
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|dir| dir.join(self.name))
            .find(|p| is_executable(p))
    }

    /// The sentence for a feature that needs it.
    pub fn missing(&self) -> String {
        format!(
            "{} is not installed; install it with `apt install {}`",
            self.name, self.package
        )
    }
}

/// The file that a shell would run for `name`.
///
/// # Errors
/// With the statuses of a shell: 127 not found, 126 not executable.
pub fn find_program(name: &OsStr) -> Result<PathBuf, Error> {
    let shown = name.to_string_lossy();
    let missing = |code, why: &str| {
        Err(Error::Launch {
            code,
            message: format!("program '{shown}' {why}"),
        })
    };
    if shown.contains('/') {
        let path = PathBuf::from(name);
        return match () {
            () if is_executable(&path) => Ok(path),
            () if path.exists() => missing(
                126,
                "is not executable; check its permissions, or name its interpreter",
            ),
            () => missing(127, "does not exist; check the path"),
        };
    }
    let all = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&all)
        .map(|dir| dir.join(name))
        .find(|path| is_executable(path))
    {
        Some(path) => Ok(path),
        None => missing(
            127,
            "is not found along PATH; check its name or give its path",
        ),
    }
}

fn is_executable(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::Tool;

    #[test]
    fn found_and_missing() {
        let sh = Tool {
            name: "sh",
            package: "dash",
            purpose: "",
        };
        assert!(sh.find().unwrap().is_absolute());
        let none = Tool {
            name: "no-such-tool-9",
            package: "p9",
            purpose: "",
        };
        assert!(none.find().is_none());
        assert_eq!(
            none.missing(),
            "no-such-tool-9 is not installed; install it with `apt install p9`"
        );
    }
}
