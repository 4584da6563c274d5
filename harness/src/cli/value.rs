//! Values of options: durations, thread lists, shards. Each parser's error is the end of a sentence that begins
//! "invalid value '…' for '--option': ".

use heaplab_workloads::record::POOL_BYTES;
use std::time::Duration;

/// `90s`, `10m`, `1h30m`, `500ms`; a bare number is refused, because seconds and minutes are too easily mixed up.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a duration with its unit, such as 90s, 10m or 1h30m".to_string();
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let (unit, seconds) = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
            .into_iter()
            .find(|(unit, _)| {
                rest.strip_prefix(unit)
                    .is_some_and(|r| !r.starts_with(|c: char| c.is_alphabetic()))
            })
            .ok_or_else(wrong)?;
        rest = &rest[unit.len()..];
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    }
    Ok(total)
}

/// Bytes with an optional unit, for the mean distance of sampled stacks: 1 byte to 1 GiB.
///
/// # Errors
/// What is wrong with the text.
pub fn stack_period(text: &str) -> Result<u32, String> {
    match bytes(text) {
        Ok(bytes @ 1..=0x4000_0000) => Ok(bytes as u32),
        _ => Err("write a size of 1 byte to 1 GiB, such as 64KiB or 512KiB".into()),
    }
}

/// A number of threads, 1 to 1024.
pub fn threads(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("a number of threads is between 1 and 1024".to_string()),
    }
}

/// `recorded`, or a number of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// As many as the machine had on which the trace was recorded.
    Recorded,
    /// So many.
    Number(u32),
}

/// `recorded` or 1 to 1024.
pub fn cpus(text: &str) -> Result<Cpus, String> {
    match text.parse::<u32>() {
        Ok(n @ 1..=1024) => Ok(Cpus::Number(n)),
        _ if text == "recorded" => Ok(Cpus::Recorded),
        _ => Err("write `recorded` or a number of CPUs between 1 and 1024".to_string()),
    }
}

/// A number of bytes: `512MiB`, `2G`, `65536`.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "write a size such as 512MiB or 2GiB".to_string();
    let text = text.trim();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * (1u64 << shift) as f64;
    match bytes {
        _ if bytes >= (1u64 << 20) as f64 && bytes < (1u64 << 50) as f64 => Ok(bytes as u64),
        _ => Err("a limit is at least 1MiB".to_string()),
    }
}

/// A count that must be at least one.
pub fn positive(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n >= 1 => Ok(n),
        _ => Err("write a whole number of at least 1".to_string()),
    }
}

/// `64MiB`, `1GiB`, `512KiB` or plain bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "write a size such as 64MiB, 1GiB or a number of bytes".to_string();
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= 1 << 60)
        .ok_or_else(wrong)
}

/// Bytes of a recording's shared memory.
pub fn pool(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        size if POOL_BYTES.contains(&size) => Ok(size),
        _ => Err("write a size between 256KiB and 4GiB".to_string()),
    }
}

/// A scale factor, above 0 and at most 1000.
pub fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(f) if f > 0.0 && f <= 1000.0 => Ok(f),
        _ => Err("write a factor above 0 and at most 1000, such as 0.1".to_string()),
    }
}

/// A build of a program under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What its row is called.
    pub name: String,
    /// Command and arguments.
    pub command: Vec<std::ffi::OsString>,
}

/// `NAME=CMD`, the command split into words as a shell does, without expansions.
pub fn variant(text: &str) -> Result<Variant, String> {
    let wrong = || "write NAME=CMD, such as 'mine=./app-jemalloc --input data'".to_string();
    let (name, command) = text.split_once('=').ok_or_else(wrong)?;
    let words = shlex::split(command).ok_or("a quotation mark is not closed")?;
    if name.is_empty() || name.contains(['/', ' ']) || words.is_empty() {
        return Err(wrong());
    }
    Ok(Variant {
        name: name.to_string(),
        command: words.into_iter().map(Into::into).collect(),
    })
}

/// The I-th of N parts of a plan, both 1-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, 1 to `of`.
    pub index: u32,
    /// How many parts.
    pub of: u32,
}

impl Shard {
    /// Whether the item at `position` (from 0) of a deterministic list belongs to this part.
    pub fn takes(self, position: usize) -> bool {
        position % self.of as usize == self.index as usize - 1
    }
}

/// `2/4`
pub fn shard(text: &str) -> Result<Shard, String> {
    text.split_once('/')
        .and_then(|(i, n)| {
            Some(Shard {
                index: i.parse().ok()?,
                of: n.parse().ok()?,
            })
        })
        .filter(|s| s.index >= 1 && s.index <= s.of)
        .ok_or_else(|| "write I/N with 1 <= I <= N, such as 2/4".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in [
            "",
            "90",
            "s",
            "10x",
            "-5s",
            "1e400s",
            "10 minutes",
            "99999999999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_pool_has_the_size_that_the_message_says() {
        assert_eq!(pool("256KiB"), Ok(*POOL_BYTES.start()));
        assert_eq!(pool("4GiB"), Ok(*POOL_BYTES.end()));
        for bad in ["0", "1", "255KiB", "5GiB", "many"] {
            assert!(pool(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn shards_partition_every_list() {
        assert!(
            shard("0/2").is_err()
                && shard("3/2").is_err()
                && shard("1").is_err()
                && shard("a/b").is_err()
        );
        for position in 0..20 {
            let takers = (1..=3)
                .filter(|i| shard(&format!("{i}/3")).unwrap().takes(position))
                .count();
            assert_eq!(takers, 1, "position {position}");
        }
    }
}
