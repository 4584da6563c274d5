//! Mistakes at random moments in the lives of random programs (`programs/misuse.c`): with checks on, every one of them is
//! found by the very call, with one line that has its address; by default, when the cache is emptied. Never does the process
//! hang, and never is the allocator's own state what breaks.
//!
//! `MISUSE_CASES=20000` for more than the default, a kind and a setting; `MISUSE_SEED=N` for other numbers. `--nocapture`
//! prints how many of each kind were found, by settings.

mod common;

use common::{compile, number, preloaded};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const PROGRAM: &str = include_str!("programs/misuse.c");

/// When a mistake has to be found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Found {
    /// By the call itself.
    AtCall,
    /// When the cache is emptied, at the latest, if no other thread has the block in its own.
    WhenEmptied,
    /// At the latest when the program ends, which empties everything, if there is no other thread.
    AtEnd,
    /// Not always: it is only counted.
    Counted,
    /// There is nothing wrong that the allocator could notice, and the program ends as ever.
    Harmless,
}
use Found::{AtCall, AtEnd, Counted, Harmless, WhenEmptied};

/// Columns of the table below.
const CHECKED: usize = 0;
const HARDENED: usize = 1;
const GUARDED: usize = 2;
const DEFAULT: usize = 3;
const PER_CPU: usize = 4;

/// Settings, and whose column they have.
const SETTINGS: [(&str, usize); 9] = [
    ("", DEFAULT),
    ("decay_ms=0", DEFAULT),
    ("thread_cache_bytes=0", DEFAULT),
    ("front_end=cpu", PER_CPU),
    ("check=1", CHECKED),
    ("check=1,decay_ms=0", CHECKED),
    ("hardened=1,guard_rate=0", HARDENED),
    (
        "hardened=1,guard_rate=20,quarantine_bytes=16k,decay_ms=1",
        HARDENED,
    ),
    ("hardened=1,guard_rate=1", GUARDED),
];

/// Each kind of mistake, and when it is found.
#[rustfmt::skip]
const KINDS: [(&str, [Found; 5]); 21] = [
    //                         checked   hardened  guarded   default      per CPU
    ("freed",                  [AtCall,  AtCall,   AtCall,   WhenEmptied, WhenEmptied]),
    ("freed-long-ago",         [AtCall,  AtCall,   AtCall,   WhenEmptied, WhenEmptied]),
    ("freed-by-another",       [AtCall,  AtCall,   AtCall,   Counted,     WhenEmptied]),
    ("freed-written",          [AtCall,  AtCall,   AtCall,   WhenEmptied, Counted]),
    ("freed-middle",           [AtCall,  AtCall,   AtCall,   WhenEmptied, WhenEmptied]),
    ("realloc-freed",          [AtCall,  AtCall,   AtCall,   Counted,     Counted]),
    ("realloc-freed-long-ago", [AtCall,  AtCall,   AtCall,   Counted,     Counted]),
    ("interior",               [AtCall,  AtCall,   AtCall,   WhenEmptied, WhenEmptied]),
    ("realloc-interior",       [AtCall,  AtCall,   AtCall,   Counted,     Counted]),
    ("misaligned",             [AtCall,  AtCall,   AtCall,   AtCall,      AtCall]),
    ("realloc-misaligned",     [AtCall,  AtCall,   AtCall,   AtCall,      AtCall]),
    ("foreign",                [AtCall,  AtCall,   AtCall,   AtCall,      AtCall]),
    ("realloc-foreign",        [AtCall,  AtCall,   AtCall,   AtCall,      AtCall]),
    ("neighbour",              [AtCall,  AtCall,   AtCall,   WhenEmptied, WhenEmptied]),
    ("wrong-size",             [AtCall,  AtCall,   AtCall,   Counted,     Counted]),
    ("wrong-aligned-size",     [AtCall,  AtCall,   AtCall,   Counted,     Counted]),
    ("wrong-size-of-delete",   [AtCall,  AtCall,   AtCall,   Counted,     Counted]),
    ("write-freed",            [Counted, AtEnd,    AtEnd,    Counted,     Counted]),
    ("read-freed",             [Counted, Counted,  AtCall,   Counted,     Counted]),
    ("overflow",               [Counted, Counted,  AtEnd,    Counted,     Counted]),
    ("underflow",              [Counted, Counted,  AtEnd,    Counted,     Counted]),
];

/// A program that writes to freed blocks goes on as if nothing was: nothing of the allocator's own is in them.
const SCRIBBLE: (&str, [Found; 5]) = ("scribble", [Harmless, Counted, Counted, Harmless, Counted]);

const PLACES: [&str; 5] = ["main", "thread", "child", "destructor", "exit"];

/// What became of a case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    /// A line and SIGABRT (or at a guard page a line and SIGSEGV), and the program had not gone on.
    AtCall,
    /// The same later.
    Later,
    /// It was no mistake after all.
    None,
    /// The program ended as if nothing was.
    Unnoticed,
    /// The program found a block of its own not as it was, or died of it.
    Suffered,
    /// What may never be: a hang, an abort without a line or with another line, a fault of the allocator itself.
    Broken,
}

/// A link that was written over was followed. Where its bytes are no address at all, as the program's 0xe0e0e0e0e0e0 is none, and the
/// register is the frame's base, processors report a fault of the stack, which Linux delivers as SIGBUS.
fn is_access(signal: i32) -> bool {
    matches!(signal, libc::SIGSEGV | libc::SIGBUS)
}

struct Case {
    kind: &'static str,
    settings: &'static str,
    expected: Found,
    seed: u64,
    past: u64,
    place: &'static str,
    workers: u64,
    soon: bool,
}

impl Case {
    fn new(kind: &(&'static str, [Found; 5]), settings: (&'static str, usize), seed: u64) -> Self {
        // Splitmix64.
        let mut state = seed;
        let mut next = |below: u64| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % below
        };
        // A worker may be handed what was scribbled on, have the block next door, or all places between guard pages.
        let alone = [
            "scribble",
            "neighbour",
            "read-freed",
            "overflow",
            "underflow",
        ];
        Self {
            kind: kind.0,
            settings: settings.0,
            expected: kind.1[settings.1],
            seed,
            past: [0, 30, 500, 3000][next(4) as usize],
            place: PLACES[next(PLACES.len() as u64) as usize],
            workers: if alone.contains(&kind.0) {
                0
            } else {
                [0, 0, 1, 2][next(4) as usize]
            },
            soon: next(2) == 0,
        }
    }

    fn arguments(&self) -> [String; 6] {
        [
            self.kind.to_owned(),
            self.seed.to_string(),
            self.past.to_string(),
            self.place.to_owned(),
            self.workers.to_string(),
            u8::from(self.soon).to_string(),
        ]
    }

    /// What became of it, and the line that the program ended with.
    fn run(&self, program: &Path) -> (Outcome, String) {
        let output = preloaded(program)
            .args(self.arguments())
            .env("SPANALLOC_CONF", self.settings)
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        let address = said
            .lines()
            .find_map(|line| line.strip_prefix("mistake "))
            .unwrap_or("none");
        let made = said.contains("mistake ");
        let went_on = said.contains("went on");
        // While one thread tells of the damage another one may follow the link that was written over.
        let beside_others = self.workers > 0 && self.place != "child";
        let one = line.lines().count() == 1 && line.starts_with("spanalloc: ");
        let at_the_place = line
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| word == address);
        let outcome = match (output.status.signal(), output.status.code()) {
            _ if line.contains("internal error") => Outcome::Broken,
            (Some(libc::SIGABRT), _) if one && !went_on && at_the_place => Outcome::AtCall,
            (Some(libc::SIGSEGV), _) if one && !went_on && line.contains(": access at ") => {
                Outcome::AtCall
            }
            // A mistake that was not found has the program make others.
            (Some(libc::SIGABRT), _) if one && went_on => Outcome::Later,
            (Some(signal), _) if made && line.is_empty() && is_access(signal) => Outcome::Suffered,
            (Some(signal), _) if went_on && beside_others && is_access(signal) => Outcome::Suffered,
            (_, Some(3)) if went_on => Outcome::Suffered,
            (_, Some(0)) if said.contains("not one") => Outcome::None,
            (_, Some(0)) if went_on && line.is_empty() => Outcome::Unnoticed,
            _ => Outcome::Broken,
        };
        let status = output.status;
        (outcome, format!("{status}, said {said:?}, line {line:?}"))
    }

    /// Whether that may become of it.
    fn allows(&self, outcome: Outcome) -> bool {
        let found_early = outcome == Outcome::AtCall;
        let found = found_early || outcome == Outcome::Later;
        match self.expected {
            _ if outcome == Outcome::Broken => false,
            _ if outcome == Outcome::None => true,
            AtCall => found_early,
            WhenEmptied => found || self.workers > 0 || !self.soon,
            // A guarded place may be somebody else's again, whose block is shorter.
            AtEnd => found || self.workers > 0,
            Counted => true,
            Harmless => outcome == Outcome::Unnoticed,
        }
    }
}

type Counts = BTreeMap<(usize, usize), BTreeMap<Outcome, u64>>;

fn table(kinds: &[(&str, [Found; 5])], counts: &Counts) -> String {
    let mut text = String::from("found at the call + later, not noticed + suffered, of so many:\n");
    for (kind, (name, _)) in kinds.iter().enumerate() {
        for (at, (settings, _)) in SETTINGS.iter().enumerate() {
            let Some(of) = counts.get(&(kind, at)) else {
                continue;
            };
            let count = |outcome| of.get(&outcome).copied().unwrap_or(0);
            let mistakes: u64 = of.values().sum::<u64>() - count(Outcome::None);
            let _ = writeln!(
                text,
                "{name:24}{settings:58}{:5} +{:4}{:5} +{:4}{mistakes:6}",
                count(Outcome::AtCall),
                count(Outcome::Later),
                count(Outcome::Unnoticed),
                count(Outcome::Suffered),
            );
        }
    }
    text
}

/// Runs so many cases of each kind under all settings.
fn run_all(kinds: &[(&'static str, [Found; 5])], cases: u64) {
    let program = compile("misuse.c", PROGRAM);
    let first = number("MISUSE_SEED", 1);
    let counts = Mutex::new(Counts::new());
    let wrong = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    let all = cases * (kinds.len() * SETTINGS.len()) as u64;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= all {
                        return;
                    }
                    let setting = (at % SETTINGS.len() as u64) as usize;
                    let kind = (at / SETTINGS.len() as u64 % kinds.len() as u64) as usize;
                    let case = Case::new(&kinds[kind], SETTINGS[setting], first + at);
                    if case.kind == SCRIBBLE.0 && case.expected != Harmless {
                        continue;
                    }
                    let (outcome, end) = case.run(&program);
                    if !case.allows(outcome) {
                        wrong.lock().expect("no thread panics").push(format!(
                            "SPANALLOC_CONF={} {} {}: {outcome:?}: {end}",
                            case.settings,
                            program.display(),
                            case.arguments().join(" "),
                        ));
                    }
                    let mut counts = counts.lock().expect("no thread panics");
                    *counts
                        .entry((kind, setting))
                        .or_default()
                        .entry(outcome)
                        .or_default() += 1;
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no thread panics");
    println!(
        "{}",
        table(kinds, &counts.into_inner().expect("no thread panics"))
    );
    assert!(
        wrong.is_empty(),
        "{} of {all}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_mistake_is_found_when_it_has_to_be() {
    run_all(&KINDS, number("MISUSE_CASES", 2));
}

#[test]
fn a_program_that_writes_to_what_it_freed_does_not_lead_the_allocator_astray() {
    run_all(&[SCRIBBLE], number("MISUSE_CASES", 2) * 5);
}
