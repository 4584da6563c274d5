//! How each subject is told its settings: the environment variables that carry them.

use crate::error::Error;

/// The variable that the C library reads its own settings from.
pub const TUNABLES: &str = "GLIBC_TUNABLES";

/// Tunables of glibc's malloc. It ignores a name that it does not know, so we must not.
const GLIBC: [&str; 13] = [
    "check",
    "top_pad",
    "perturb",
    "mmap_max",
    "mmap_threshold",
    "trim_threshold",
    "arena_max",
    "arena_test",
    "tcache_max",
    "tcache_count",
    "tcache_unsorted_limit",
    "mxfast",
    "hugetlb",
];

/// Splits `key=value,key=value`.
pub(super) fn split(spec: &str, text: &str) -> Result<Vec<(String, String)>, Error> {
    text.split(',')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(Error::usage(format!(
                "'{pair}' in '{spec}' is not key=value"
            ))),
        })
        .collect()
}

/// The environment for a subject's settings.
pub(super) fn environment(
    name: &str,
    settings: &[(String, String)],
) -> Result<Vec<(String, String)>, Error> {
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    let joined = |between: &str, separator: &str| {
        settings
            .iter()
            .map(|(key, value)| format!("{key}{between}{value}"))
            .collect::<Vec<_>>()
            .join(separator)
    };
    let each = |prefix: &str| {
        settings
            .iter()
            .map(|(key, value)| (format!("{prefix}{}", key.to_uppercase()), value.clone()))
            .collect::<Vec<_>>()
    };
    let one = |variable: &str, text: String| vec![(variable.to_owned(), text)];
    Ok(match name {
        "null" => {
            return Err(Error::usage(
                "null has no settings; leave out what follows the colon",
            ));
        }
        "planted" => one("HEAPLAB_PLANTED", joined("=", ",")),
        "system" => {
            let mut tunables = Vec::new();
            for (key, value) in settings {
                let short = key.strip_prefix("glibc.malloc.").unwrap_or(key);
                if !GLIBC.contains(&short) {
                    return Err(Error::usage(match key.split_once(':') {
                        Some((name, _)) => format!(
                            "system has no setting '{key}'; another subject with settings has an -a of its own: -a {name}:…"
                        ),
                        None => {
                            format!("system has no setting '{key}'; it has {}", GLIBC.join(", "))
                        }
                    }));
                }
                // glibc reads all of them as numbers, and what is none as nothing.
                let number = match value.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => value.parse(),
                };
                if number.is_err() {
                    return Err(Error::usage(format!(
                        "'{value}' is no number; write {key}= with bytes or a count"
                    )));
                }
                tunables.push(format!("glibc.malloc.{short}={value}"));
            }
            one(TUNABLES, tunables.join(":"))
        }
        // The built-in jemalloc has a prefix and reads another variable than an installed one.
        "jemalloc" => one("_RJEM_MALLOC_CONF", joined(":", ",")),
        _ if name.contains("jemalloc") => one("MALLOC_CONF", joined(":", ",")),
        _ if name.contains("mimalloc") => each("MIMALLOC_"),
        _ if name.contains("spanalloc") => one("SPANALLOC_CONF", joined("=", ",")),
        // Whether Google's has its caches for each CPU depends on the C library's (`glibc.pthread.rseq=0`).
        _ if name.contains("tcmalloc") => (settings.iter().zip(each("TCMALLOC_")))
            .map(|(own, prefixed)| match own.0.as_str() {
                TUNABLES => own.clone(),
                _ => prefixed,
            })
            .collect(),
        // An unknown library: its settings are environment variables as they stand.
        _ => settings.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcmalloc_is_told_by_its_prefix_and_the_c_library_beside_it_by_its_own_name() {
        let settings = split(
            "tcmalloc:…",
            "GLIBC_TUNABLES=glibc.pthread.rseq=0,release_rate=1",
        );
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            environment("tcmalloc", &settings.unwrap()).unwrap(),
            [
                pair("GLIBC_TUNABLES", "glibc.pthread.rseq=0"),
                pair("TCMALLOC_RELEASE_RATE", "1")
            ]
        );
    }
}
