//! One run: everything prepared outside the timed part, the threads let go together, the answer put together.

use crate::callgrind;
use crate::calls::Calls;
use crate::check::Checker;
use crate::clock::{self, Scale};
use crate::engine::{self, Player};
use crate::fail;
use crate::frequency;
use crate::latency::{self, Latency};
use crate::lockstep::{self, Baton};
use crate::memory::{Memory, Recorder};
use crate::own_time::OwnTime;
use crate::pace::{self, Pace};
use crate::probe::{Bare, Probe};
use crate::proof;
use crate::shape;
use crate::shared::{self, SharedArray};
use crate::sleepers::Sleepers;
use crate::slots::Slots;
use crate::statm;
use crate::steady;
use crate::threads::{Crew, Start};
use crate::world::{Parts, World};
use heaplab_script::Op;
use heaplab_script::file::{Script, ScriptInfo};
use heaplab_worker::protocol::{Api, Measure, Mode, Report, RunSpec};
use std::ffi::c_void;
use std::sync::atomic::Ordering;

/// Scripts up to this size are mapped whole and brought in before the run, where memory allows.
const WHOLE_SCRIPT: u64 = 2 << 30;
/// Ops that a thread maps at a time, bytes, where the script is not mapped whole: at most, and at least.
const WINDOW: u64 = 4 << 20;
const LEAST_WINDOW: u64 = 64 << 10;
/// What the worker's own memory may be: for a thread, for a slot, and one byte for so many live ones (the map of live
/// bytes takes 1/64, in whole pages).
const OWN_BY_THREAD: u64 = 16 << 20;
const OWN_BY_SLOT: u64 = 256;
const OWN_BY_LIVE: u64 = 8;

/// Does what the harness asked for; does not return when the subject or the description is at fault.
pub fn run(spec: &RunSpec, start_anon_bytes: u64) -> Report {
    let mut spec = spec.clone();
    if spec.measure == Measure::Memory {
        if spec.mode == Mode::Fast {
            fail::with("memory is measured in lockstep, or paced, only".to_owned());
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

/// Opens the script: whole where there is memory for it, else to be read in windows.
fn open(spec: &RunSpec) -> (Script, bool) {
    let bytes = std::fs::metadata(&spec.script).map_or(0, |file| file.len());
    let whole = match spec.whole_script_bytes {
        0 => WHOLE_SCRIPT.min(shape::available_bytes() / 4),
        bytes => bytes,
    };
    let windowed = bytes > whole;
    let script = match windowed {
        true => Script::open_windowed(&spec.script),
        false => Script::open(&spec.script),
    };
    let script = script.unwrap_or_else(|error| fail::with(error.to_string()));
    if spec.mode == Mode::Paced && !script.has_times() {
        fail::with("a paced replay needs a script with times".to_owned());
    }
    (script, windowed)
}

fn measure<P: Probe>(spec: &RunSpec) -> Report {
    let (script, windowed) = open(spec);
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
    // Memory keeps the order at any pace: the figures of its points belong to a moment of one thread.
    let ordered = spec.mode == Mode::Lockstep || spec.measure == Measure::Memory;
    let lockstep = ordered && threads > 1;
    let share = spec.whole_script_bytes.min(WHOLE_SCRIPT) / 4 / threads as u64;
    let window_bytes = match share {
        0 => WINDOW,
        share => share.clamp(LEAST_WINDOW, WINDOW),
    } as usize;
    let scale = if spec.measure == Measure::Latency || spec.null {
        Scale::measure()
    } else {
        Scale::default()
    };
    let own_time = spec.recorded_clock.as_ref().map(|clock| {
        let ops = (0..threads)
            .map(|thread| script.op_count(thread))
            .sum::<u64>();
        OwnTime::new(clock, ops as usize).unwrap_or_else(|error| fail::with(error))
    });
    let world = World::settle(Parts {
        metas: mapped(
            "the blocks' sizes",
            SharedArray::new(if tracked { slots.len() } else { 1 }),
        ),
        checker: mapped("the checks", Checker::new()),
        // With the null allocator it is what the run is made for.
        scale,
        crew: mapped("the threads' stacks", Crew::new(threads, thread_main::<P>)),
        baton: lockstep.then(|| mapped("the threads' turns", Baton::new(threads))),
        recorder: Recorder::new(info.calls, spec.samples, spec.baseline_bytes, own_time),
        spec: spec.clone(),
        script,
        window_bytes,
        calls,
        slots,
    });
    populate(world, windowed);
    // Where one thread is awake at a time, a second CPU only adds wake-ups from idle.
    if lockstep {
        shape::stay_here();
    } else if spec.pin {
        shape::pin(0, threads);
    }
    let mut report = Report::default();
    let repeat = spec.repeat.max(1);
    let timed = matches!(spec.measure, Measure::Speed | Measure::Latency);
    let khz = timed.then(frequency::khz).flatten();
    for repetition in 0..repeat {
        if repetition > 0 {
            clean_up(world, tracked);
        }
        repetition_of::<P>(world, &mut report);
        if spec.integrity {
            world.slots.each(|slot, block| {
                // SAFETY: in range, and no thread is running.
                world
                    .checker
                    .surviving(block, unsafe { &*world.metas.at(slot) });
            });
        }
    }
    report.own_cpu_khz = khz.and_then(|before| Some([before, frequency::khz()?]));
    world.results(|results| {
        report.calls = results.calls;
        report.wait_ns = results.wait_ns;
        report.slip_ns = results.slip_ns;
        report.idle_ns = results.idle_ns;
        report.told_blocks = results.told;
        report.latency = latency::encode(&results.latency);
        report.lateness = pace::summary(&results.late);
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
    report.windowed = windowed;
    report.cpus = shape::told_cpus();
    report.file_bytes = statm::file_bytes();
    report.own_bytes = own_bytes(&info, threads);
    report.subject = proof::describe(&object, world.calls);
    report
}

/// What the worker itself used; a run in which that is out of proportion measured something else than the subject.
fn own_bytes(info: &ScriptInfo, threads: usize) -> u64 {
    let own = statm::shared_bytes().saturating_sub(statm::subjects_shared_bytes());
    let slots = u64::from(info.private_slots) + u64::from(info.shared_slots);
    let bound = OWN_BY_THREAD * (threads as u64 + 1)
        + OWN_BY_SLOT * slots
        + info.peak_live_bytes / OWN_BY_LIVE;
    if own > bound {
        fail::with(format!(
            "the replay took {own} bytes for itself where {bound} are its bound: please report this"
        ));
    }
    own
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
        let recorder = unsafe { &mut *world.recorder() };
        world.crew.roll().enters(0);
        recorder.start(world.spec.mode == Mode::Lockstep, world.crew.roll());
    }
    if world.counts_in_order() {
        // SAFETY: the other threads wait at the gate.
        let op_clock = unsafe { &mut *world.op_clock() };
        world.crew.roll().enters(0);
        op_clock.begin(clock::now_ns(), Sleepers::new(world.crew.roll(), true));
        op_clock.show();
    }
    let (usage, cpu, wall) = (
        clock::usage(false),
        clock::process_cpu_ns(),
        clock::now_ns(),
    );
    world.began_ns.store(clock::now_ns(), Ordering::Release);
    // Where the script is repeated, time goes on.
    world
        .clock_base
        .store(steady::shown().max(clock::now_ns()), Ordering::Release);
    ready(world, &mut player);
    callgrind::start();
    world.crew.open();
    match &world.baton {
        Some(baton) => {
            baton.begin(world);
            baton.play(world, 0, &mut player, play);
        }
        None => {
            player.plays(play, &mut world.cursor(0), u64::MAX);
            lockstep::end_of_memory(world, || {});
        }
    }
    leave(world, player);
    world.crew.join_all();
    callgrind::stop();
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
    world.crew.roll().enters(thread);
    let mut player = Player::<P>::new(world, thread);
    let play = engine::pick::<P>(&world.spec, world.calls.sized.is_some());
    if world.spec.pin {
        shape::pin(thread, world.script.thread_count());
    }
    if world.script.exists_from_start(thread as usize) {
        world.crew.arrive();
    }
    ready(world, &mut player);
    match &world.baton {
        Some(baton) => baton.play(world, thread, &mut player, play),
        None => player.plays(play, &mut world.cursor(thread), u64::MAX),
    }
    leave(world, player);
    std::ptr::null_mut()
}

/// Sets the pace once the beginning is known.
fn ready<P: Probe>(world: &World, player: &mut Player<P>) {
    if world.spec.mode == Mode::Paced {
        // In lockstep only one thread is awake at a time.
        let alone = world.spec.measure == Measure::Memory;
        let spins = alone || world.script.thread_count() <= shape::cpus().len();
        let began = world.began_ns.load(Ordering::Acquire);
        player.pace = Some(Pace::new(began, world.spec.pace, spins));
    }
}

/// Hands in what a thread has counted.
fn leave<P: Probe>(world: &'static World, mut player: Player<P>) {
    let late = player.pace.take().map(Pace::finish);
    world.results(|results| {
        if let Some(late) = late {
            // Same bounds on both sides: adding cannot fail.
            let _ = results.late.add(&late);
        }
        results.calls += player.made;
        results.wait_ns += player.waits.wait_ns;
        results.slip_ns += player.waits.slip_ns;
        results.idle_ns += player.idle_ns;
        results.told += player.told;
    });
    player.probe.finish(world);
}

/// Brings the ops and the tables in, so that their faults are not the subject's.
fn populate(world: &World, windowed: bool) {
    if !windowed {
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
