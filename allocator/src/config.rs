//! Settings from the environment: `SPANALLOC_CONF="key=value,key=value"`, read once, without
//! allocating. A key that does not exist or a value that cannot be read is a warning on standard
//! error and is otherwise ignored.

use crate::fault::Line;
use crate::lookup::LOOKUP;
use crate::page_heap::{ahead, huge, moving};
use crate::process::HEAP;
use crate::{dump, front_end, hardened, helper, profile, scavenger, thread_cache};
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The variable's name.
pub const VARIABLE: &str = "SPANALLOC_CONF";
/// Keys and what they mean, for warnings and documentation.
pub const KEYS: [(&str, &str); 18] = [
    (
        "decay_ms",
        "milliseconds that free pages stay before they are released; 0 at once, -1 never",
    ),
    (
        "thread_cache_bytes",
        "bytes that one thread's caches may hold; 0 turns them nearly off",
    ),
    (
        "front_end",
        "thread: a cache per thread; cpu: one per CPU, by restartable sequences; auto: thread",
    ),
    (
        "helper",
        "1: a thread of the allocator's own gives memory back while the program is idle; 0: none",
    ),
    (
        "huge_pages",
        "1: in heaps above 8 MiB resident ranges of 2 MiB become huge pages, above 16 MiB fresh ones too; 0: not",
    ),
    (
        "move_pages",
        "1: large blocks that grow or find no resident run get pages by the page tables where that is cheaper; 0: not",
    ),
    (
        "populate",
        "1: pages that a class with 1 MiB or more grows over become resident several at a time; 0: one by one, by faults",
    ),
    (
        "check",
        "1: threads have no caches, so that every wrong free is reported at once; 0: not",
    ),
    (
        "hardened",
        "1: check, freed blocks filled and kept in a quarantine, sampled guard pages; 0: not",
    ),
    (
        "quarantine_bytes",
        "bytes of freed blocks that wait before they are used again, when hardened",
    ),
    (
        "guard_rate",
        "one allocation in so many gets guard pages, when hardened; 0 none",
    ),
    (
        "limit_soft",
        "bytes in use beyond which free memory is given back; 0 none",
    ),
    (
        "limit_hard",
        "bytes in use beyond which requests are refused; 0 none",
    ),
    (
        "dump_at_exit",
        "1: statistics on standard error when the process ends; 0: not",
    ),
    (
        "dump_signal",
        "number of a signal that prints statistics on standard error; 0 none",
    ),
    (
        "profile_bytes",
        "mean distance in bytes of the samples of a heap profile; 0 no profile",
    ),
    (
        "profile_at_exit",
        "1: the profile goes to spanalloc-PID.heap when the process ends; 0: not",
    ),
    (
        "profile_signal",
        "number of a signal that writes the profile to spanalloc-PID.N.heap; 0 none",
    ),
];

/// Why a setting was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    UnknownKey,
    BadValue,
}

static LOADED: AtomicU32 = AtomicU32::new(0);

/// Reads the environment unless that has been done.
#[inline]
pub(crate) fn load_once() {
    if LOADED.load(Relaxed) == 0 {
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
    if entry.is_null() || LOADED.swap(1, Relaxed) != 0 {
        return;
    }
    // Now, as programs bind their threads to one processor each later.
    crate::os::count_processors();
    // SAFETY: `environ` is an array of C strings that ends with null.
    unsafe {
        while !(*entry).is_null() {
            let text = CStr::from_ptr(*entry).to_bytes();
            if let Some(rest) = text.strip_prefix(VARIABLE.as_bytes())
                && let Some(value) = rest.strip_prefix(b"=")
            {
                apply(value);
            }
            entry = entry.add(1);
        }
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

/// Out of line, so that programs without the variable do not have it in memory.
#[cold]
#[inline(never)]
fn apply(text: &[u8]) {
    for setting in text.split(|&byte| byte == b',') {
        if let Err(problem) = apply_one(setting) {
            warn(setting, problem);
        }
    }
}

fn apply_one(setting: &[u8]) -> Result<(), Problem> {
    let setting = setting.trim_ascii();
    if setting.is_empty() {
        return Ok(());
    }
    let (key, value) = match setting.iter().position(|&byte| byte == b'=') {
        Some(at) => (&setting[..at], &setting[at + 1..]),
        None => (setting, &b""[..]),
    };
    let number = || number_of(value).ok_or(Problem::BadValue);
    match key {
        b"decay_ms" => scavenger::DECAY_MS.store(number()?.clamp(-1, 86_400_000), Relaxed),
        b"thread_cache_bytes" => {
            let bytes = usize::try_from(number()?).map_err(|_| Problem::BadValue)?;
            thread_cache::LIMIT_BYTES.store(bytes.min(1 << 30), Relaxed);
        }
        b"front_end" => {
            let choice = match value {
                b"auto" => front_end::AUTO,
                b"thread" => front_end::THREAD,
                b"cpu" => front_end::CPU,
                _ => return Err(Problem::BadValue),
            };
            front_end::SETTING.store(choice, Relaxed);
        }
        b"helper" => helper::ENABLED.store(switch(number()?)?, Relaxed),
        b"huge_pages" => huge::ENABLED.store(switch(number()?)?, Relaxed),
        b"move_pages" => moving::ENABLED.store(switch(number()?)?, Relaxed),
        b"populate" => ahead::ENABLED.store(switch(number()?)?, Relaxed),
        b"check" => hardened::CHECKED.store(switch(number()?)?, Relaxed),
        b"hardened" => {
            hardened::HARDENED.store(switch(number()?)?, Relaxed);
        }
        b"quarantine_bytes" => {
            let bytes = usize::try_from(number()?).map_err(|_| Problem::BadValue)?;
            hardened::LIMIT_BYTES.store(bytes.min(1 << 30), Relaxed);
        }
        b"guard_rate" => {
            let rate = u32::try_from(number()?).map_err(|_| Problem::BadValue)?;
            hardened::RATE.store(rate.min(1 << 30), Relaxed);
        }
        b"limit_soft" => HEAP.pages.limits.set_soft(bytes(number()?)?),
        b"limit_hard" => HEAP.pages.limits.set_hard(bytes(number()?)?),
        b"dump_at_exit" => dump::AT_EXIT.store(switch(number()?)?, Relaxed),
        b"dump_signal" => dump::SIGNAL.store(signal(number()?)?, Relaxed),
        b"profile_bytes" => profile::MEAN.store(bytes(number()?)?.min(1 << 40), Relaxed),
        b"profile_at_exit" => profile::AT_EXIT.store(switch(number()?)?, Relaxed),
        b"profile_signal" => profile::SIGNAL.store(signal(number()?)?, Relaxed),
        _ => return Err(Problem::UnknownKey),
    }
    Ok(())
}

/// Bytes, not negative.
fn bytes(value: i64) -> Result<usize, Problem> {
    usize::try_from(value).map_err(|_| Problem::BadValue)
}

/// The number of a signal that can have a handler, or 0.
fn signal(value: i64) -> Result<u32, Problem> {
    // The system's two, and two that the C library keeps to itself.
    const NOBODYS: [u32; 4] = [libc::SIGKILL as u32, libc::SIGSTOP as u32, 32, 33];
    match u32::try_from(value) {
        Ok(signal @ 0..=64) if !NOBODYS.contains(&signal) => Ok(signal),
        _ => Err(Problem::BadValue),
    }
}

/// 0 or 1.
fn switch(value: i64) -> Result<u32, Problem> {
    match value {
        0 => Ok(0),
        1 => Ok(1),
        _ => Err(Problem::BadValue),
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
        Problem::BadValue => b": cannot read '",
    });
    line.text(&setting[..setting.len().min(64)])
        .text(b"'; keys are");
    for (index, (key, _)) in KEYS.iter().enumerate() {
        line.text(if index == 0 { b" " } else { b", " })
            .text(key.as_bytes());
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

    #[test]
    fn problems_are_told_apart() {
        assert_eq!(apply_one(b""), Ok(()));
        assert_eq!(apply_one(b" "), Ok(()));
        assert_eq!(apply_one(b"no_such_key=1"), Err(Problem::UnknownKey));
        assert_eq!(apply_one(b"decay_ms"), Err(Problem::BadValue));
        assert_eq!(apply_one(b"decay_ms=soon"), Err(Problem::BadValue));
        assert_eq!(apply_one(b"thread_cache_bytes=-1"), Err(Problem::BadValue));
        assert_eq!(apply_one(b"helper=2"), Err(Problem::BadValue));
        for deaf in [
            &b"dump_signal=9"[..],
            b"profile_signal=19",
            b"dump_signal=33",
            b"dump_signal=65",
        ] {
            assert_eq!(apply_one(deaf), Err(Problem::BadValue));
        }
    }
}
