//! One run: everything prepared outside the timed part, the threads let go together, the answer put together.

use crate::calls::Calls;
use crate::check::Checker;
use crate::clock::{self, Scale};
use crate::engine::{self, Player};
use crate::fail;
use crate::latency::{self, Latency};
use crate::lockstep::{self, Baton};
use crate::memory::{Memory, Recorder};
use crate::probe::{Bare, Probe};
use crate::proof;
use crate::shared::{self, SharedArray};
use crate::slots::Slots;
use crate::threads::{Crew, Start};
use crate::world::{Parts, World};
use heaplab_script::Op;
use heaplab_script::file::Script;
use heaplab_worker::protocol::{Api, Measure, Mode, Report, RunSpec};
use std::ffi::c_void;

/// Scripts up to this size are brought in completely before the run.
const POPULATED_SCRIPT: usize = 2 << 30;

/// Does what the harness asked for; does not return when the subject or the description is at fault.
pub fn run(spec: &RunSpec, start_anon_bytes: u64) -> Report {
    let mut spec = spec.clone();
    if spec.measure == Measure::Memory {
        if spec.mode != Mode::Lockstep {
            fail::with("memory is measured in lockstep only".to_owned());
        }
        if spec.null {
            fail::with("the null allocator has no memory figures".to_owned());
        }
        spec.integrity = true;
    }
    let mut report = match spec.measure {
        Measure::Speed | Measure::Counts => measure::<Bare>(&spec),
        Measure::Latency => measure::<Latency>(&spec),
        Measure::Memory => measure::<Memory>(&spec),
    };
    report.start_anon_bytes = start_anon_bytes;
    report
}

/// Prints what the subject says of itself.
pub fn describe() -> i32 {
    let (calls, object) = Calls::resolve(Api::Sized).unwrap_or_else(|error| fail::with(error));
    match serde_json::to_string(&proof::describe(&object, calls)) {
        Ok(line) => fail::print(&format!("{line}\n")),
        Err(error) => fail::with(error.to_string()),
    }
    0
}

/// Calls a constructor of shared memory, ends the run when there is none.
fn mapped<T>(what: &str, value: Option<T>) -> T {
    value.unwrap_or_else(|| fail::with(format!("no shared memory for {what}")))
}

fn measure<P: Probe>(spec: &RunSpec) -> Report {
    let script = Script::open(&spec.script).unwrap_or_else(|error| fail::with(error.to_string()));
    let (calls, object) = Calls::resolve(spec.api).unwrap_or_else(|error| fail::with(error));
    if let Some(wanted) = &spec.expect_library {
        proof::expect(wanted, &object);
    }
    let threads = script.thread_count();
    let info = script.info().clone();
    let tracked = spec.integrity || P::TRACKS;
    let slots = mapped(
        "the slots",
        Slots::new(info.private_slots, info.shared_slots),
    );
    let lockstep = spec.mode == Mode::Lockstep && threads > 1;
    let world = World::settle(Parts {
        metas: mapped(
            "the blocks' sizes",
            SharedArray::new(if tracked { slots.len() } else { 1 }),
        ),
        checker: mapped("the checks", Checker::new()),
        scale: if spec.measure == Measure::Latency {
            Scale::measure()
        } else {
            Scale::default()
        },
        crew: mapped("the threads' stacks", Crew::new(threads, thread_main::<P>)),
        baton: lockstep.then(|| mapped("the threads' turns", Baton::new(threads))),
        recorder: Recorder::new(info.calls, spec.samples, spec.baseline_bytes),
        spec: spec.clone(),
        script,
        calls,
        slots,
    });
    populate(world);
    if lockstep {
        stay_on_one_cpu();
    }
    let mut report = Report::default();
    let repeat = if lockstep { 1 } else { spec.repeat.max(1) };
    for repetition in 0..repeat {
        if repetition > 0 {
            clean_up(world, tracked);
        }
        repetition_of::<P>(world, &mut report);
    }
    world.results(|results| {
        report.calls = results.calls;
        report.wait_ns = results.wait_ns;
        report.idle_ns = results.idle_ns;
        report.latency = latency::encode(&results.latency);
    });
    let wanted = info.calls * u64::from(repeat);
    if report.calls != wanted {
        fail::with(format!(
            "{} calls were made where the script has {wanted}",
            report.calls
        ));
    }
    if spec.measure == Measure::Memory {
        // SAFETY: all other threads have ended.
        report.memory = Some(unsafe { (*world.recorder()).curve() });
    }
    report.timer_ns = world.scale.pair_ns;
    report.subject = proof::describe(&object, world.calls);
    report
}

/// From the opened gate to the end of the last thread.
fn repetition_of<P: Probe>(world: &'static World, report: &mut Report) {
    let waiting = (1..world.script.thread_count())
        .filter(|thread| world.script.exists_from_start(*thread))
        .map(|thread| world.start_thread(thread as u32))
        .count();
    world.crew.await_arrivals(waiting as u32);
    let mut player = Player::<P>::new(world, 0);
    let play = engine::pick::<P>(&world.spec, world.calls.sized.is_some());
    if world.spec.measure == Measure::Memory {
        // SAFETY: the other threads wait at the gate.
        unsafe { (*world.recorder()).start() };
    }
    let (usage, cpu, wall) = (
        clock::usage(false),
        clock::process_cpu_ns(),
        clock::now_ns(),
    );
    world.crew.open();
    match &world.baton {
        Some(baton) => {
            baton.begin(world);
            baton.play(world, 0, &mut player, play);
        }
        None => {
            play(&mut player, world.script.thread(0));
            if world.spec.mode == Mode::Lockstep {
                lockstep::end_of_memory(world);
            }
        }
    }
    leave(world, player);
    world.crew.join_all();
    report.wall_ns += clock::now_ns() - wall;
    report.cpu_ns += clock::process_cpu_ns() - cpu;
    let after = clock::usage(false);
    report.minor_faults += after.minor_faults - usage.minor_faults;
    report.major_faults += after.major_faults - usage.major_faults;
    report.context_switches += after.switches - usage.switches;
}

/// What every thread but the main one runs.
extern "C" fn thread_main<P: Probe>(argument: *mut c_void) -> *mut c_void {
    // SAFETY: the argument is the boxed Start that Crew::start made for this thread.
    let start = unsafe { Box::from_raw(argument.cast::<Start>()) };
    let (world, thread) = (start.world, start.thread);
    let mut player = Player::<P>::new(world, thread);
    let play = engine::pick::<P>(&world.spec, world.calls.sized.is_some());
    if world.script.exists_from_start(thread as usize) {
        world.crew.arrive();
    }
    match &world.baton {
        Some(baton) => baton.play(world, thread, &mut player, play),
        None => play(&mut player, world.script.thread(thread as usize)),
    }
    leave(world, player);
    std::ptr::null_mut()
}

/// Hands in what a thread has counted.
fn leave<P: Probe>(world: &'static World, player: Player<P>) {
    world.results(|results| {
        results.calls += player.made;
        results.wait_ns += player.wait_ns;
        results.idle_ns += player.idle_ns;
    });
    player.probe.finish(world);
}

/// Brings the ops and the tables in, so that their faults are not the subject's.
fn populate(world: &World) {
    let bytes: usize = world.script.threads().map(size_of_val).sum();
    if bytes <= POPULATED_SCRIPT {
        for ops in world.script.threads() {
            shared::populate(
                ops.as_ptr().cast_mut().cast(),
                size_of_val::<[Op]>(ops),
                false,
            );
        }
    }
    world.metas.populate();
}

/// Frees what the script left alive and makes slots and gate ready for the next repetition.
fn clean_up(world: &World, tracked: bool) {
    world.slots.drain(|slot, block| {
        if tracked && world.spec.integrity {
            // SAFETY: in range, and no thread is running.
            let size = unsafe { (*world.metas.at(slot)).size };
            world.checker.forget(block, size);
        }
        // SAFETY: a live block of the subject that the table has just given up.
        unsafe { (world.calls.free)(block) };
    });
    world.crew.close();
}

/// With direct hand-over a second CPU only adds wake-ups from idle: all threads stay where the main thread is.
fn stay_on_one_cpu() {
    // SAFETY: the set is a local of the right size; failing leaves the affinity as it is, which costs only time.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let cpu = libc::sched_getcpu();
        if cpu >= 0 {
            libc::CPU_SET(cpu as usize, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        }
    }
}
