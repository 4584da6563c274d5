//! `--enter`: changes what a process inherits, then becomes the command. No subject is loaded here, so a subject meets
//! the changed machine from its first instruction on.
//!
//! | setting | effect |
//! |---|---|
//! | `addresses=fixed` | no randomisation of addresses (personality) |
//! | `thp=never` | no transparent huge pages (PR_SET_THP_DISABLE) |
//! | `cgroup=FOLDER` | the process moves into that control group |
//! | `data=BYTES` | limit of private writable memory (RLIMIT_DATA) |
//! | `env:NAME=VALUE` | a variable of the command |

use crate::fail;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `SETTING… -- CMD ARG…`; returns only when it fails.
pub fn enter(arguments: &[OsString]) -> i32 {
    let Some(divider) = arguments.iter().position(|argument| argument == "--") else {
        fail::with("there is no command to enter".to_owned());
    };
    let Some(program) = arguments.get(divider + 1) else {
        fail::with("there is no command to enter".to_owned());
    };
    let mut command = Command::new(program);
    command.args(&arguments[divider + 2..]);
    for setting in &arguments[..divider] {
        if let Err(reason) = apply(setting.as_bytes(), &mut command) {
            fail::with(format!(
                "the setting '{}' is not possible here: {reason}",
                setting.to_string_lossy()
            ));
        }
    }
    let error = command.exec();
    fail::with(format!(
        "'{}' cannot be started: {error}",
        program.to_string_lossy()
    ))
}

fn apply(setting: &[u8], command: &mut Command) -> Result<(), String> {
    let equals = setting.iter().position(|byte| *byte == b'=');
    let (name, value) = setting.split_at(equals.ok_or("it is no NAME=VALUE")?);
    let value = OsStr::from_bytes(&value[1..]);
    let done = |result: i64| match result {
        0.. => Ok(()),
        _ => Err(std::io::Error::last_os_error().to_string()),
    };
    match name {
        b"addresses" => {
            const READ: libc::c_ulong = 0xffff_ffff;
            // SAFETY: no pointers; reading does not change the personality.
            let now = unsafe { libc::personality(READ) };
            done(i64::from(now))?;
            let wanted = now as libc::c_ulong | libc::ADDR_NO_RANDOMIZE as libc::c_ulong;
            // SAFETY: no pointers.
            done(i64::from(unsafe { libc::personality(wanted) }))
        }
        b"thp" => {
            // SAFETY: no pointers.
            done(i64::from(unsafe {
                libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0)
            }))
        }
        b"cgroup" => {
            let path = Path::new(value).join("cgroup.procs");
            std::fs::write(path, std::process::id().to_string()).map_err(|error| error.to_string())
        }
        b"data" => {
            let bytes = value.to_str().and_then(|text| text.parse().ok());
            let bytes = bytes.ok_or("it is no number of bytes")?;
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            // SAFETY: a valid rlimit.
            done(i64::from(unsafe {
                libc::setrlimit(libc::RLIMIT_DATA, &raw const limit)
            }))
        }
        _ => match name.strip_prefix(b"env:") {
            Some(name) => {
                command.env(OsStr::from_bytes(name), value);
                Ok(())
            }
            None => Err("it is not known".to_owned()),
        },
    }
}
