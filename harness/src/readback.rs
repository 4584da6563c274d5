//! Whether subjects took the settings they were given, asked before anything is measured: most allocators ignore in silence what
//! they do not know or cannot read, and a row would then claim what was never measured.

mod huge_pool;
mod tunables;

use crate::error::Error;
use crate::exec::{self, Limits};
use crate::subject::{Subject, settings};
use std::collections::BTreeMap;
use std::path::Path;

/// Asks each subject with settings to read them back; gives what must be said beside the figures.
///
/// # Errors
/// Usage, when a setting was not taken.
pub fn check(subjects: &[Subject], limits: &Limits) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for subject in subjects.iter().filter(|s| s.library.is_none()) {
        notes.extend(tunables_taken(subject)?);
        let asked = (subject.settings.iter()).find(|(key, _)| key == "hugetlb");
        let Some(value) = asked.and_then(|(_, value)| value.parse().ok()) else {
            continue;
        };
        let pools = Path::new(huge_pool::POOLS);
        if let Some(why) = huge_pool::without_effect(value, pools, huge_pool::default_bytes()) {
            notes.push(format!(
                "{}: hugetlb={value} changes nothing, {why}",
                subject.label
            ));
        }
    }
    for subject in (subjects.iter()).filter(|s| s.library.is_some() && !s.settings.is_empty()) {
        // A subject that cannot answer fails in its first run, with its reason.
        let Ok(told) = exec::describe(subject, limits) else {
            continue;
        };
        let plain = Subject {
            settings: Vec::new(),
            env: Vec::new(),
            ..subject.clone()
        };
        let by_itself =
            exec::describe(&plain, limits).map_or_else(|_| BTreeMap::new(), |p| p.settings);
        // What the C library is told beside it is none of its settings; what comes of that it may read back (tcmalloc's `mode`).
        let own = (subject.settings.iter()).filter(|(key, _)| key != settings::TUNABLES);
        for (key, value) in own {
            match verdict(key, value, &told.settings, &by_itself) {
                Verdict::Taken => {}
                Verdict::Refused(now) => {
                    return Err(Error::usage(format!(
                        "{} did not take {key}={value}: it reads back {now}; give a value that it knows",
                        subject.name
                    )));
                }
                Verdict::Untold if subject.ours || refuses(subject, limits) => {
                    return Err(Error::usage(format!(
                        "{} has no setting '{key}'; it reads back {}",
                        subject.name,
                        told.settings.keys().cloned().collect::<Vec<_>>().join(", ")
                    )));
                }
                Verdict::Untold => {
                    let known: Vec<&str> = told.settings.keys().map(String::as_str).collect();
                    notes.push(match known.is_empty() {
                        true => format!(
                            "{} reads no settings back: whether {key}={value} was taken is not known",
                            subject.label
                        ),
                        false => format!(
                            "{} does not read '{key}' back: whether it knows this setting is not known (it reads back {})",
                            subject.label,
                            known.join(", ")
                        ),
                    });
                }
            }
        }
    }
    Ok(notes)
}

/// Whether the C library took its settings, by its loader; what must be said where that does not tell.
fn tunables_taken(subject: &Subject) -> Result<Option<String>, Error> {
    if subject.settings.is_empty() {
        return Ok(None);
    }
    let plain = Subject {
        env: Vec::new(),
        ..subject.clone()
    };
    let (Some(told), Some(by_itself)) = (tunables::told(subject), tunables::told(&plain)) else {
        return Ok(Some(format!(
            "{}: this C library does not read its settings back (glibc 2.33 does): whether they were taken is not known",
            subject.label
        )));
    };
    for (key, value) in &subject.settings {
        match verdict(tunables::short(key), value, &told, &by_itself) {
            Verdict::Taken => {}
            Verdict::Refused(now) => {
                return Err(Error::usage(format!(
                    "{} did not take {key}={value}: it reads back {now}; give a value that it knows",
                    subject.name
                )));
            }
            Verdict::Untold => {
                return Err(Error::usage(format!(
                    "this C library has no setting '{key}'; it reads back {}",
                    told.keys().cloned().collect::<Vec<_>>().join(", ")
                )));
            }
        }
    }
    Ok(None)
}

/// Whether a jemalloc that is told to end itself over a setting that it does not know does so.
fn refuses(subject: &Subject, limits: &Limits) -> bool {
    let is_list = |name: &str| name.ends_with("MALLOC_CONF") && !name.starts_with("SPANALLOC");
    if !subject.env.iter().any(|(name, _)| is_list(name)) {
        return false;
    }
    let mut strict = subject.clone();
    for (_, list) in strict.env.iter_mut().filter(|(name, _)| is_list(name)) {
        *list = format!("abort_conf:true,{list}");
    }
    exec::describe(&strict, limits).is_err()
}

#[derive(Debug, PartialEq)]
enum Verdict {
    /// It reads the value back, or another one than without the setting.
    Taken,
    /// It reads back what it does without the setting.
    Refused(String),
    /// It does not tell this setting.
    Untold,
}

fn verdict(
    key: &str,
    value: &str,
    told: &BTreeMap<String, String>,
    by_itself: &BTreeMap<String, String>,
) -> Verdict {
    let find = |all: &BTreeMap<String, String>| {
        let same = |name: &&String| name.trim_start_matches("opt.").eq_ignore_ascii_case(key);
        let name = all.keys().find(same)?;
        all.get(name).cloned()
    };
    let Some(now) = find(told) else {
        return Verdict::Untold;
    };
    // Left to the allocator is what it does by itself.
    let left_to_it = ["auto", "default"].contains(&value) && find(by_itself).as_ref() == Some(&now);
    if left_to_it || meaning(&now) == meaning(value) || find(by_itself).as_ref() != Some(&now) {
        return Verdict::Taken;
    }
    Verdict::Refused(now)
}

/// Spellings of one value: truth in words and numbers, sizes with and without their unit, numbers by the base of sixteen.
fn meaning(value: &str) -> String {
    let value = value.trim().to_ascii_lowercase();
    match value.as_str() {
        "true" | "yes" | "on" => return "1".to_owned(),
        "false" | "no" | "off" => return "0".to_owned(),
        _ => {}
    }
    if let Some(number) = (value.strip_prefix("0x")).and_then(|d| u64::from_str_radix(d, 16).ok()) {
        return number.to_string();
    }
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &value[digits.len()..] {
        "" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    match number
        .zip(shift)
        .and_then(|(n, shift)| n.checked_mul(1 << shift))
    {
        Some(bytes) => bytes.to_string(),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_ignored_is_told_from_what_was_taken() {
        let all = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            (pairs.iter())
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let plain = all(&[
            ("decay", "10000"),
            ("opt.thp", "default"),
            ("tcache", "true"),
        ]);
        let told = all(&[("decay", "10000"), ("opt.thp", "never"), ("tcache", "true")]);
        let of = |key, value| verdict(key, value, &told, &plain);
        assert_eq!(of("thp", "never"), Verdict::Taken);
        assert_eq!(of("DECAY", "10000"), Verdict::Taken);
        assert_eq!(of("tcache", "yes"), Verdict::Taken);
        assert_eq!(of("decay", "abc"), Verdict::Refused("10000".into()));
        assert_eq!(of("tcache", "0"), Verdict::Refused("true".into()));
        assert_eq!(of("nonsense", "1"), Verdict::Untold);
        assert_eq!(
            (meaning("64KiB"), meaning("-1")),
            ("65536".into(), "-1".into())
        );
    }

    #[test]
    fn real_subjects_are_asked() {
        let limits = Limits::seconds(60);
        let of = |spec: &str| check(&crate::subject::parse(spec).unwrap(), &limits);
        for spec in [
            "jemalloc:dirty_decay_ms=77",
            "mimalloc:purge_delay=0",
            "spanalloc:decay_ms=5",
            "spanalloc:front_end=cpu",
            "spanalloc:front_end=auto",
            "mimalloc-v3:purge_delay=0",
            "system:arena_max=1",
            "system:mmap_threshold=0x20000,glibc.malloc.trim_threshold=131072",
        ] {
            assert_eq!(of(spec).unwrap(), Vec::<String>::new(), "{spec}");
        }
        for spec in [
            "jemalloc:dirty_decay_ms=abc",
            "mimalloc:purge_delay=abc",
            "mimalloc-v3:purge_delay=abc",
            "system:perturb=300",
            "spanalloc:decay_ms=abc",
            "spanalloc:front_end=xyz",
        ] {
            let error = of(spec).unwrap_err().to_string();
            assert!(error.contains("did not take"), "{spec}: {error}");
        }
        // A library by its path, whatever its file is called.
        let folder = tempfile::tempdir().unwrap();
        let library = crate::subject::parse("spanalloc").unwrap()[0]
            .library
            .clone();
        let renamed = folder.path().join("renamed.so");
        std::fs::copy(library.unwrap(), &renamed).unwrap();
        let spec = format!("{}:decay_ms=-1", renamed.display());
        assert_eq!(of(&spec).unwrap(), Vec::<String>::new(), "{spec}");
        for spec in ["jemalloc:nonsense=1", "spanalloc:nonsense=1"] {
            let error = of(spec).unwrap_err().to_string();
            assert!(
                error.contains("has no setting 'nonsense'"),
                "{spec}: {error}"
            );
        }
        // One that it knows and does not tell is no mistake.
        assert_eq!(of("jemalloc:max_background_threads=2").unwrap().len(), 1);
        let notes = of("mimalloc:nonsense=1").unwrap();
        assert!(notes[0].contains("'nonsense'"), "{notes:?}");
    }
}
