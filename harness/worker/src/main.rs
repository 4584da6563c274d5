//! heaplab-worker: the child process in which exactly one run takes place.
//!
//! `heaplab-worker '<RunSpec as JSON>'` replays a script and prints one line of JSON, an [`Answer`].
//! `heaplab-worker --describe` prints what the subject says of itself.
//! `heaplab-worker --baseline THREADS` prints the bare worker's anonymous bytes.
//! `heaplab-worker --enter SETTING… -- CMD ARG…` changes what a process inherits and becomes the command.
//! `heaplab-worker --launch REPORT [--sample PERIOD_NS] [--count PATH FROM TO]… [NAME=VALUE…] -- CMD ARG…` runs a program and writes what
//! the kernel accounted to it.
//!
//! There is no Rust runtime start-up here (`no_main`): it would make calls of the malloc family through libc, which
//! would reach the subject and count as its memory.
#![no_main]

mod arena;
mod callgrind;
mod calls;
mod check;
mod clock;
mod engine;
mod enter;
mod fail;
mod frequency;
mod huge_pages;
mod latency;
mod launch;
mod lockstep;
mod memory;
mod numbers;
mod op_clock;
mod own_time;
mod pace;
mod perf;
mod probe;
mod proof;
mod run;
mod settled;
mod shadow;
mod shape;
mod shared;
mod sleepers;
mod slots;
mod statistics;
mod statm;
mod steady;
mod threads;
mod touch;
mod waiting;
mod world;

use heaplab_worker::protocol::{Answer, RunSpec};
use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

#[global_allocator]
static ARENA: arena::Arena = arena::Arena::new();

/// Entry point of the C runtime.
///
/// # Safety
/// Called once by the C runtime with its argument vector.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    settled::settle();
    let start_anon_bytes = statm::anonymous_bytes();
    clock::find_libc_clock();
    let arguments: Vec<OsString> = (1..count as usize)
        .map(|index| {
            // SAFETY: the C runtime gives `count` valid C strings.
            let text = unsafe { CStr::from_ptr(*arguments.add(index)) };
            OsString::from_vec(text.to_bytes().to_vec())
        })
        .collect();
    // A worker whose harness is gone measures for nobody.
    // SAFETY: only asks for a signal.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    match arguments.first().and_then(|first| first.to_str()) {
        Some("--enter") => enter::enter(&arguments[1..]),
        Some("--launch") => launch::launch(&arguments[1..]),
        Some("--baseline") => {
            let threads = arguments
                .get(1)
                .and_then(|text| text.to_str()?.parse().ok())
                .unwrap_or(1);
            fail::print(&format!("{}\n", threads::baseline(threads)));
            0
        }
        Some("--huge-pages") => {
            let bytes = arguments
                .get(1)
                .and_then(|text| text.to_str()?.parse().ok());
            huge_pages::make_ready(bytes.unwrap_or(0));
            0
        }
        Some("--describe") => run::describe(),
        Some(text) => match serde_json::from_str::<RunSpec>(text) {
            Ok(spec) => {
                let report = run::run(&spec, start_anon_bytes);
                fail::answer(&Answer::Ok(Box::new(report)));
                0
            }
            Err(error) => fail::with(format!("the run's description cannot be read: {error}")),
        },
        None => fail::with("no run was described; start heaplab instead of its worker".to_owned()),
    }
}
