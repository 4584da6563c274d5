//! `--launch`: runs a program from a small process, so that the kernel's peak for it does not begin at the size of a
//! large parent, and writes what the kernel accounted to it into a file.

use crate::clock;
use crate::fail;
use crate::perf::{Counted, Sampler};
use heaplab_worker::protocol::{Launched, Sampled};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks at the rings of samples.
const DRAIN: Duration = Duration::from_millis(20);

/// `REPORT [--sample PERIOD_NS] [--count PATH FROM TO]… [NAME=VALUE…] -- CMD ARG…`; the exit status of the launcher is 0
/// when the report was written.
pub fn launch(arguments: &[OsString]) -> i32 {
    let Some(divider) = arguments.iter().position(|argument| argument == "--") else {
        fail::with("the launcher was given no program".to_owned());
    };
    let (settings, command) = (&arguments[..divider], &arguments[divider + 1..]);
    let (Some(report), Some(program)) = (settings.first(), command.first()) else {
        fail::with("the launcher was given no report file or no program".to_owned());
    };
    let mut child = Command::new(program);
    child.args(&command[1..]);
    let (mut period, mut counted) = (None, Vec::new());
    let mut words = settings[1..].iter();
    while let Some(setting) = words.next() {
        let mut number = || words.next()?.to_str()?.parse::<u64>().ok();
        if setting == "--sample" {
            period = number();
            continue;
        }
        if setting == "--count" {
            let path = words.next().map(PathBuf::from).unwrap_or_default();
            let mut number = || words.next()?.to_str()?.parse::<u64>().ok();
            let (from, to) = (number().unwrap_or(0), number().unwrap_or(u64::MAX));
            counted.push(Counted { path, from, to });
            continue;
        }
        let bytes = setting.as_bytes();
        if let Some(equals) = bytes.iter().position(|byte| *byte == b'=') {
            let name = std::ffi::OsStr::from_bytes(&bytes[..equals]);
            child.env(name, std::ffi::OsStr::from_bytes(&bytes[equals + 1..]));
        }
    }
    // Processes that outlive their parent stay below this one, where the harness finds them.
    // SAFETY: sets a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let opened = period.map(Sampler::open);
    let (sampler, refused) = match opened {
        Some(Ok(sampler)) => (Some(sampler), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, None),
    };
    let launched = match sampled(sampler, &counted, || start_and_wait(&mut child, report)) {
        Ok((launched, sampled)) => Launched {
            sampled,
            not_sampled: refused,
            ..launched
        },
        Err(error) => Launched {
            start_error: error.raw_os_error().or(Some(0)),
            ..Launched::default()
        },
    };
    write(report, &launched)
}

/// Runs `work` while a thread empties the rings of samples.
fn sampled(
    sampler: Option<Sampler>,
    counted: &[Counted],
    work: impl FnOnce() -> std::io::Result<Launched>,
) -> std::io::Result<(Launched, Option<Sampled>)> {
    let Some(mut sampler) = sampler else {
        return Ok((work()?, None));
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let drainer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                sampler.drain();
                std::thread::sleep(DRAIN);
            }
            sampler.finish(counted)
        });
        let launched = work();
        over.store(true, Ordering::Relaxed);
        let sampled = drainer.join().ok();
        Ok((launched?, sampled))
    })
}

fn start_and_wait(command: &mut Command, report: &OsString) -> std::io::Result<Launched> {
    let start = clock::now_ns();
    let child = command.spawn()?;
    let pid = child.id();
    // The harness samples the program while it runs, so it must learn the number early.
    std::fs::write(pid_file(report), pid.to_string())?;
    let mut status = 0;
    // SAFETY: zero bytes are a valid rusage; both pointers are places for results.
    let (usage, got) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut got = libc::wait4(pid as i32, &raw mut status, 0, &raw mut usage);
        while got < 0 && *libc::__errno_location() == libc::EINTR {
            got = libc::wait4(pid as i32, &raw mut status, 0, &raw mut usage);
        }
        (usage, got)
    };
    let wall_ns = clock::now_ns() - start;
    if got < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    Ok(Launched {
        start_error: None,
        exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        wall_ns,
        user_ns: ns(usage.ru_utime),
        sys_ns: ns(usage.ru_stime),
        peak_rss_bytes: usage.ru_maxrss as u64 * 1024,
        minor_faults: usage.ru_minflt as u64,
        major_faults: usage.ru_majflt as u64,
        context_switches: (usage.ru_nvcsw + usage.ru_nivcsw) as u64,
        sampled: None,
        not_sampled: None,
    })
}

/// Where the program's process number is left while it runs.
fn pid_file(report: &OsString) -> PathBuf {
    let mut path = report.clone();
    path.push(".pid");
    PathBuf::from(path)
}

fn write(report: &OsString, launched: &Launched) -> i32 {
    let written = serde_json::to_vec(launched)
        .map_err(std::io::Error::other)
        .and_then(|text| std::fs::write(report, text));
    match written {
        Ok(()) => 0,
        Err(error) => fail::with(format!(
            "the report on the program cannot be written: {error}"
        )),
    }
}
