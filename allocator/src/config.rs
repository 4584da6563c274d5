//! Settings from the environment: `SPANALLOC_CONF="key=value,key=value"`, read once, without
//! allocating. A key that does not exist or a value that cannot be read is a warning on standard
//! error and is otherwise ignored.

use crate::fault::Line;
use crate::lookup::LOOKUP;
use crate::page_heap::{ahead, huge, moving};
use crate::process::HEAP;
use crate::{dump, front_end, hardened, helper, os, profile, scavenger, thread_cache};
use core::ffi::{CStr, c_char};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// The variable's name.
pub const VARIABLE: &str = "SPANALLOC_CONF";
/// A line for each key: its name, the least and the most value (of a choice `-`), and what it means, for warnings and the document. One
/// text, as a table would be full of addresses, which the loader writes into every process.
const KEYS: &str = "\
decay_ms -1 86400000 milliseconds that free pages stay before they are given back; 0 at once, -1 never
thread_cache_bytes 0 1g bytes that one thread's caches may hold; 0 turns them nearly off
front_end - - thread: a cache per thread; cpu: one per CPU, by restartable sequences; auto: thread
helper 0 1 1: a thread of the allocator's own gives memory back while the program rests; 0: none
huge_pages 0 1 1: ranges of 2 MiB that small blocks fill become huge pages in heaps above 8 MiB; 0: not
move_pages 0 1 1: large blocks get pages by the page tables where that is cheaper than faults or copies; 0: not
populate 0 1 1: a class with 1 MiB or more makes several pages resident at a time as it grows; 0: one by one, by faults
check 0 1 1: threads have no caches, so that every wrong free is reported at the call; 0: not
hardened 0 1 1: check, freed blocks filled and kept in a quarantine, sampled guard pages; 0: not
quarantine_bytes 0 1g bytes of freed blocks that wait before they are used again, with hardened=1
guard_rate 0 1g one allocation in so many gets guard pages, with hardened=1; 0 none
limit_soft 0 1048576g bytes in use beyond which free memory is given back; 0 none
limit_hard 0 1048576g bytes in use beyond which requests are refused; 0 none
dump_at_exit 0 1 1: statistics on standard error when the process ends; 0: not
dump_signal 0 64 number of a signal that prints statistics on standard error; 0 none
profile_bytes 0 1024g mean distance in bytes of the samples of a heap profile; 0 no profile
profile_at_exit 0 1 1: the profile goes to spanalloc-PID.heap when the process ends; 0: not
profile_signal 0 64 number of a signal that writes the profile to spanalloc-PID.N.heap; 0 none";

/// A key of the settings.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in the variable.
    pub name: &'static [u8],
    /// The least and the most value, as text; `-`: it is a choice.
    pub least: &'static [u8],
    pub most: &'static [u8],
    /// What it sets.
    pub meaning: &'static [u8],
}

/// All keys.
pub fn keys() -> impl Iterator<Item = Key> {
    KEYS.as_bytes().split(|&byte| byte == b'\n').map(|line| {
        let mut parts = line.splitn(4, |&byte| byte == b' ');
        let mut next = || parts.next().unwrap_or_default();
        Key {
            name: next(),
            least: next(),
            most: next(),
            meaning: next(),
        }
    })
}

/// Why a setting was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    UnknownKey,
    /// The value of this key, by its number, cannot be read.
    BadValue(usize),
    /// It can, and is none that the key may have.
    OutOfRange(usize),
}

/// 0: nobody has read the settings yet; [`READ`]; else the number of the thread that reads them.
static STATE: AtomicU32 = AtomicU32::new(0);
const READ: u32 = u32::MAX;

/// Reads the environment unless that has been done. Whoever comes meanwhile waits, as what is allocated under other settings would stay
/// so, and the checks are switched on while nobody looks anything up ([`crate::lookup`]).
#[inline]
pub(crate) fn load_once() {
    if STATE.load(Acquire) != READ {
        load();
    }
}

#[cold]
#[inline(never)]
fn load() {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: libc's variable; a null means that libc is not initialised yet.
    let mut entry = unsafe { environ };
    if entry.is_null() {
        return;
    }
    let own = os::thread_number() as u32;
    let claimed = STATE.compare_exchange(0, own, Acquire, Acquire);
    if claimed.is_err_and(|reader| !takes_over(reader, own)) {
        return;
    }
    // Now, as programs bind their threads to one processor each later.
    os::count_processors();
    let mut given = 0;
    // SAFETY: `environ` is an array of C strings that ends with null.
    unsafe {
        while !(*entry).is_null() {
            let text = CStr::from_ptr(*entry).to_bytes();
            if let Some(rest) = text.strip_prefix(VARIABLE.as_bytes())
                && let Some(value) = rest.strip_prefix(b"=")
            {
                given |= apply(value);
            }
            entry = entry.add(1);
        }
    }
    if given != 0 {
        warn_of_contradictions(given);
    }
    // Whatever `check` says, before or after it.
    hardened::CHECKED.fetch_or(u32::from(hardened::on()), Relaxed);
    if hardened::checked() {
        LOOKUP.hide();
    }
    if !front_end::choose() {
        warn_of_front_end();
    }
    profile::settle();
    STATE.store(READ, Release);
}

/// Waits for the thread that reads the settings. True: it does not exist any more, as in a child that another thread forked meanwhile, and
/// the caller is to read them. A handler of a signal that interrupted the reading does not wait.
#[cold]
#[inline(never)]
fn takes_over(mut reader: u32, own: u32) -> bool {
    while reader != READ && reader != own {
        if !os::thread_exists(reader) {
            match STATE.compare_exchange(reader, own, Acquire, Acquire) {
                Ok(_) => return true,
                Err(now) => reader = now,
            }
            continue;
        }
        os::sleep_ms(&AtomicU32::new(0), 1);
        reader = STATE.load(Acquire);
    }
    false
}

#[cold]
#[inline(never)]
fn warn_of_front_end() {
    let mut line = Line::new();
    line.text(
        b"spanalloc: warning: front_end=cpu needs restartable sequences (glibc 2.35, not under ",
    );
    line.text(b"valgrind) and no checks; threads have caches")
        .print();
}

/// Follows the settings; those that were given and taken, as bits by their keys' numbers. Out of line, so that programs without the
/// variable do not have it in memory.
#[cold]
#[inline(never)]
fn apply(text: &[u8]) -> u32 {
    let mut given = 0;
    for setting in text.split(|&byte| byte == b',') {
        match apply_one(setting) {
            Ok(key) => given |= key.map_or(0, |key| 1 << key),
            Err(problem) => warn(setting, problem),
        }
    }
    given
}

/// Follows one setting; the number of its key, `None` for an empty one.
fn apply_one(setting: &[u8]) -> Result<Option<usize>, Problem> {
    let setting = setting.trim_ascii();
    if setting.is_empty() {
        return Ok(None);
    }
    let (name, value) = match setting.iter().position(|&byte| byte == b'=') {
        Some(at) => (&setting[..at], &setting[at + 1..]),
        None => (setting, &b""[..]),
    };
    let (number, key) = keys()
        .enumerate()
        .find(|(_, key)| key.name == name)
        .ok_or(Problem::UnknownKey)?;
    if name == b"front_end" {
        let choice = match value {
            b"auto" => front_end::AUTO,
            b"thread" => front_end::THREAD,
            b"cpu" => front_end::CPU,
            _ => return Err(Problem::BadValue(number)),
        };
        front_end::SETTING.store(choice, Relaxed);
        return Ok(Some(number));
    }
    let value = number_of(value).ok_or(Problem::BadValue(number))?;
    let [least, most] = [key.least, key.most].map(|bound| number_of(bound).unwrap_or(0));
    if value < least || value > most || !set(name, value) {
        return Err(Problem::OutOfRange(number));
    }
    Ok(Some(number))
}

/// Sets what a key stands for to a value within its bounds; false: it is none of them nevertheless.
fn set(name: &[u8], value: i64) -> bool {
    // Their bounds fit.
    let (word, bytes) = (value as u32, value as usize);
    match name {
        b"decay_ms" => scavenger::DECAY_MS.store(value, Relaxed),
        b"thread_cache_bytes" => thread_cache::LIMIT_BYTES.store(bytes, Relaxed),
        b"helper" => helper::ENABLED.store(word, Relaxed),
        b"huge_pages" => huge::ENABLED.store(word, Relaxed),
        b"move_pages" => moving::ENABLED.store(word, Relaxed),
        b"populate" => ahead::ENABLED.store(word, Relaxed),
        b"check" => hardened::CHECKED.store(word, Relaxed),
        b"hardened" => hardened::HARDENED.store(word, Relaxed),
        b"quarantine_bytes" => hardened::LIMIT_BYTES.store(bytes, Relaxed),
        b"guard_rate" => hardened::RATE.store(word, Relaxed),
        b"limit_soft" => HEAP.pages.limits.set_soft(bytes),
        b"limit_hard" => HEAP.pages.limits.set_hard(bytes),
        b"dump_at_exit" => dump::AT_EXIT.store(word, Relaxed),
        b"profile_bytes" => profile::MEAN.store(bytes, Relaxed),
        b"profile_at_exit" => profile::AT_EXIT.store(word, Relaxed),
        b"dump_signal" if may_be_handled(word) => dump::SIGNAL.store(word, Relaxed),
        b"profile_signal" if may_be_handled(word) => profile::SIGNAL.store(word, Relaxed),
        _ => return false,
    }
    true
}

/// A signal can have a handler, or is 0.
fn may_be_handled(signal: u32) -> bool {
    // The system's two, and two that the C library keeps to itself.
    const NOBODYS: [u32; 4] = [libc::SIGKILL as u32, libc::SIGSTOP as u32, 32, 33];
    !NOBODYS.contains(&signal)
}

/// Tells of settings that have no effect beside others. (`front_end=cpu` and profiles are told of where they are refused.)
#[cold]
#[inline(never)]
fn warn_of_contradictions(given: u32) {
    contradictions(given, |text| {
        let mut line = Line::new();
        line.text(b"spanalloc: warning: ").text(VARIABLE.as_bytes());
        line.text(b": ").text(text).print();
    });
}

fn contradictions(given: u32, mut tell: impl FnMut(&[u8])) {
    let is_given = |name: &[u8]| {
        keys()
            .position(|key| key.name == name)
            .is_some_and(|key| given >> key & 1 != 0)
    };
    let hardened = hardened::on();
    if hardened && is_given(b"check") && hardened::CHECKED.load(Relaxed) == 0 {
        tell(b"check=0 has no effect, as hardened=1 checks every call; leave one of them out");
    }
    if !hardened && is_given(b"quarantine_bytes") {
        tell(b"quarantine_bytes has no effect without hardened=1");
    }
    if !hardened && is_given(b"guard_rate") {
        tell(b"guard_rate has no effect without hardened=1");
    }
    if is_given(b"helper")
        && helper::ENABLED.load(Relaxed) != 0
        && scavenger::DECAY_MS.load(Relaxed) < 0
    {
        tell(b"helper=1 has no effect, as nothing is given back with decay_ms=-1");
    }
    let (soft, hard) = HEAP.pages.limits.bytes();
    if hard != 0 && soft > hard {
        tell(b"limit_soft is never reached, as limit_hard is lower");
    }
}

/// A decimal number with an optional sign and an optional suffix k, m or g (powers of 1,024).
fn number_of(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, text),
    };
    let (digits, shift) = match digits.split_last()? {
        (b'k' | b'K', rest) => (rest, 10),
        (b'm' | b'M', rest) => (rest, 20),
        (b'g' | b'G', rest) => (rest, 30),
        _ => (digits, 0),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value
            .checked_mul(10)?
            .checked_add(i64::from(digit - b'0'))?;
    }
    value = value.checked_mul(1 << shift)?;
    Some(if negative { -value } else { value })
}

#[cold]
fn warn(setting: &[u8], problem: Problem) {
    let mut line = Line::new();
    line.text(b"spanalloc: warning: ").text(VARIABLE.as_bytes());
    line.text(match problem {
        Problem::UnknownKey => b": unknown key in '",
        Problem::BadValue(_) => b": cannot read '",
        Problem::OutOfRange(_) => b": cannot use '",
    });
    line.text(&setting[..setting.len().min(64)]);
    match problem {
        Problem::UnknownKey => {
            line.text(b"'; keys are");
            for (index, key) in keys().enumerate() {
                line.text(if index == 0 { b" " } else { b", " })
                    .text(key.name);
            }
        }
        Problem::BadValue(number) | Problem::OutOfRange(number) => {
            if let Some(key) = keys().nth(number) {
                line.text(b"'; ").text(key.name).text(b" is ");
                if key.least != b"-" {
                    line.text(key.least).text(b" to ").text(key.most);
                    line.text(b", ");
                }
                line.text(key.meaning);
            }
        }
    }
    line.print();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_signs_and_suffixes() {
        assert_eq!(number_of(b"0"), Some(0));
        assert_eq!(number_of(b"-1"), Some(-1));
        assert_eq!(number_of(b"512k"), Some(512 << 10));
        assert_eq!(number_of(b"2M"), Some(2 << 20));
        assert_eq!(number_of(b"1g"), Some(1 << 30));
        for bad in [
            &b""[..],
            b"-",
            b"k",
            b"1.5",
            b"1kk",
            b"99999999999999999999",
            b"0x10",
        ] {
            assert_eq!(number_of(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    fn number(name: &str) -> usize {
        let is = |key: Key| key.name == name.as_bytes();
        keys().position(is).expect("a key")
    }

    #[test]
    fn problems_are_told_apart() {
        assert_eq!(apply_one(b""), Ok(None));
        assert_eq!(apply_one(b" "), Ok(None));
        assert_eq!(apply_one(b"no_such_key=1"), Err(Problem::UnknownKey));
        for bad in [
            "decay_ms",
            "decay_ms=soon",
            "front_end=both",
            "guard_rate=1.5",
        ] {
            let key = bad.split('=').next().expect("a first part");
            let problem = Problem::BadValue(number(key));
            assert_eq!(apply_one(bad.as_bytes()), Err(problem), "{bad}");
        }
        for wrong in [
            "decay_ms=-2",
            "decay_ms=86400001",
            "thread_cache_bytes=-1",
            "thread_cache_bytes=1025m",
            "quarantine_bytes=2g",
            "guard_rate=-1",
            "guard_rate=5000000000",
            "limit_hard=-1",
            "limit_soft=9000000000g",
            "profile_bytes=2000g",
            "helper=2",
            "check=-1",
            "dump_signal=9",
            "profile_signal=19",
            "dump_signal=33",
            "dump_signal=65",
        ] {
            let key = wrong.split('=').next().expect("a first part");
            let problem = if wrong == "limit_soft=9000000000g" {
                Problem::BadValue(number(key))
            } else {
                Problem::OutOfRange(number(key))
            };
            assert_eq!(apply_one(wrong.as_bytes()), Err(problem), "{wrong}");
        }
    }

    #[test]
    fn every_key_has_bounds_and_is_set_to_what_it_is_by_default() {
        for (number, key) in keys().enumerate() {
            let name = core::str::from_utf8(key.name).expect("ASCII");
            assert!(!key.meaning.is_empty(), "{name}");
            if name == "front_end" {
                continue;
            }
            let [least, most] = [key.least, key.most].map(number_of);
            assert!(least.is_some() && least < most, "{name}");
            // A value that changes nothing for the other tests of this process.
            let default = match name {
                "decay_ms" => scavenger::DEFAULT_DECAY_MS.to_string(),
                "thread_cache_bytes" => thread_cache::DEFAULT_BYTES.to_string(),
                "helper" | "huge_pages" | "move_pages" | "populate" => "1".to_owned(),
                "quarantine_bytes" => hardened::LIMIT_BYTES.load(Relaxed).to_string(),
                "guard_rate" => hardened::RATE.load(Relaxed).to_string(),
                _ => "0".to_owned(),
            };
            let setting = format!("{name}={default}");
            assert_eq!(apply_one(setting.as_bytes()), Ok(Some(number)), "{setting}");
        }
    }

    /// What the document has in the first column of its table.
    #[test]
    fn the_document_names_every_key_and_no_other() {
        let text = include_str!("../README.md");
        let table = text
            .split("| key | default | meaning |")
            .nth(1)
            .expect("the table of settings");
        let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
        let documented: std::collections::BTreeSet<&str> = rows
            .flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`'))
            .filter(|name| name.contains(|c: char| c.is_ascii_lowercase()))
            .collect();
        let known = keys().map(|key| core::str::from_utf8(key.name).expect("ASCII"));
        assert_eq!(known.collect::<std::collections::BTreeSet<_>>(), documented);
    }
}
