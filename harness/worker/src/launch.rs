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
    let mut others = Vec::new();
    let first = loop {
        let ended = wait_for_one()?;
        if ended.pid == pid as i32 {
            break ended;
        }
        // Its parent has ended before it and it came to us; it belongs to the program all the same.
        others.push(ended.usage);
    };
    let wall_ns = clock::now_ns() - start;
    // A server may have left processes behind, in a session of their own: they would answer in its place when the next one
    // is waited for.
    let left_behind = end_all_that_is_left(&mut others);
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    let status = first.status;
    let all = || others.iter().chain([&first.usage]);
    let sum = |part: fn(&libc::rusage) -> libc::c_long| all().map(|usage| part(usage) as u64).sum();
    Ok(Launched {
        start_error: None,
        exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        wall_ns,
        user_ns: all().map(|usage| ns(usage.ru_utime)).sum(),
        sys_ns: all().map(|usage| ns(usage.ru_stime)).sum(),
        peak_rss_bytes: all()
            .map(|usage| usage.ru_maxrss as u64 * 1024)
            .max()
            .unwrap_or(0),
        minor_faults: sum(|usage| usage.ru_minflt),
        major_faults: sum(|usage| usage.ru_majflt),
        context_switches: sum(|usage| usage.ru_nvcsw + usage.ru_nivcsw),
        left_behind,
        sampled: None,
        not_sampled: None,
    })
}

/// A child that has ended.
struct EndedChild {
    pid: i32,
    status: i32,
    usage: libc::rusage,
}

/// Waits until any child has ended.
fn wait_for_one() -> std::io::Result<EndedChild> {
    let mut status = 0;
    // SAFETY: zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are places for results.
        let pid = unsafe { libc::wait4(-1, &raw mut status, 0, &raw mut usage) };
        if pid >= 0 {
            return Ok(EndedChild { pid, status, usage });
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Kills the children that there are and those that come to us as they end; how many there were.
fn end_all_that_is_left(usages: &mut Vec<libc::rusage>) -> u32 {
    let mut ended = 0;
    loop {
        for child in children() {
            // SAFETY: no memory is involved; a child that was not waited for keeps its number, so that no other process is meant.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        // Without any child left this is an error.
        let Ok(one) = wait_for_one() else {
            return ended;
        };
        // One that had ended by itself was nobody's to wait for.
        ended +=
            u32::from(libc::WIFSIGNALED(one.status) && libc::WTERMSIG(one.status) == libc::SIGKILL);
        usages.push(one.usage);
    }
}

/// Process numbers of the children of all threads of this process.
fn children() -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task");
    let of = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children"));
    let lists = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| of(thread).ok());
    let numbers = |list: String| -> Vec<i32> {
        list.split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect()
    };
    lists.flat_map(numbers).collect()
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
