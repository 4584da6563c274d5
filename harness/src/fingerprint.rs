//! The machine that results belong to: what `machine` in result.json says, and what `doctor` explains.
//!
//! Everything is read from /proc and /sys; a file that cannot be read leaves its entry out, never a guess.

use heaplab_reports::schema::Machine;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;

/// Memory that programs can have without any being taken from others, 0 where that cannot be read.
pub fn available_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    memory_line(&meminfo, "MemAvailable:").unwrap_or(0)
}

/// Reads the fingerprint of this machine.
pub fn read() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu_model(&cpuinfo).unwrap_or("unknown").to_string();
    let kernel = word("/proc/sys/kernel/osrelease").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_bytes = memory_line(&meminfo, "MemTotal:").unwrap_or(0);
    Machine {
        host_id: host_id(&cpu, &kernel, memory_bytes),
        cpus: online_cpus(),
        memory_bytes,
        libc: libc_version(),
        thp: active_word("/sys/kernel/mm/transparent_hugepage/enabled")
            .unwrap_or_else(|| "unknown".into()),
        page_size: rustix::param::page_size() as u64,
        details: details(&cpuinfo),
        cpu,
        kernel,
    }
}

/// CPUs that this process may use; what a subject sees.
pub fn usable_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

/// The one-minute load average.
pub fn load() -> Option<f64> {
    word("/proc/loadavg")?.parse().ok()
}

/// Whether a kernel thread that takes memory back by itself (DAMON) runs.
pub fn has_kdamond() -> bool {
    let Ok(dir) = fs::read_dir("/proc") else {
        return false;
    };
    dir.flatten().any(|entry| {
        let name = entry.file_name();
        let is_pid = name
            .to_str()
            .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        is_pid
            && fs::read_to_string(entry.path().join("comm")).is_ok_and(|c| c.starts_with("kdamond"))
    })
}

/// Share of CPU time that the hypervisor gave to others since boot, 0 to 1.
pub fn steal_share() -> Option<f64> {
    steal_of(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first word of a file.
pub fn word(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()?
        .split_whitespace()
        .next()
        .map(str::to_string)
}

/// The word in brackets of a file such as `always [madvise] never`.
pub fn active_word(path: &str) -> Option<String> {
    bracketed(&fs::read_to_string(path).ok()?).map(str::to_string)
}

/// Whether the CPU's flags name `flag`.
pub fn cpu_flag(cpuinfo: &str, flag: &str) -> bool {
    cpuinfo
        .lines()
        .find(|l| l.starts_with("flags"))
        .is_some_and(|l| l.split_whitespace().any(|f| f == flag))
}

fn details(cpuinfo: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            all.insert(name.to_string(), value);
        }
    };
    put("usable_cpus", Some(usable_cpus().to_string()));
    put(
        "governor",
        word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    );
    put(
        "thp_defrag",
        active_word("/sys/kernel/mm/transparent_hugepage/defrag"),
    );
    put(
        "clocksource",
        word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    );
    put(
        "invariant_tsc",
        Some(cpu_flag(cpuinfo, "nonstop_tsc").to_string()),
    );
    put(
        "virtualised",
        Some(cpu_flag(cpuinfo, "hypervisor").to_string()),
    );
    put("kdamond", Some(has_kdamond().to_string()));
    put("aslr", word("/proc/sys/kernel/randomize_va_space"));
    put(
        "perf_event_paranoid",
        word("/proc/sys/kernel/perf_event_paranoid"),
    );
    put("overcommit", word("/proc/sys/vm/overcommit_memory"));
    put("swappiness", word("/proc/sys/vm/swappiness"));
    put("load_at_start", load().map(|l| format!("{l:.2}")));
    put(
        "steal_since_boot",
        steal_share().map(|s| format!("{:.2} %", s * 100.0)),
    );
    put(
        "memory_limit",
        word("/sys/fs/cgroup/memory.max").filter(|w| w != "max"),
    );
    put("cpu_quota", cpu_quota());
    all
}

fn cpu_quota() -> Option<String> {
    let text = fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    let cpus = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
    Some(format!("{cpus:.2} CPUs"))
}

/// A hash that is equal only for the same boot of the same host, and tells nothing about it.
fn host_id(cpu: &str, kernel: &str, memory: u64) -> String {
    let mut hash = Sha256::new();
    for part in [
        word("/etc/machine-id").unwrap_or_default(),
        word("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        word("/proc/sys/kernel/hostname").unwrap_or_default(),
        cpu.to_string(),
        kernel.to_string(),
        memory.to_string(),
    ] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .take(16)
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// CPUs that are online.
pub fn online_cpus() -> u32 {
    fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|t| cpu_list(&t))
        .unwrap_or_else(usable_cpus)
}

/// glibc's own word for its version; this process runs on the same library as the workers.
fn libc_version() -> String {
    let from_linker = fs::read_to_string("/proc/self/maps").ok().and_then(|maps| {
        let path = maps
            .lines()
            .filter_map(|l| l.split_whitespace().nth(5))
            .find(|p| p.contains("/libc"))?;
        version_in(&fs::read(path).ok()?)
    });
    from_linker.map_or_else(|| "glibc, version unknown".into(), |v| format!("glibc {v}"))
}

/// glibc's banner "… stable release version 2.36." stands as text in the library.
fn version_in(library: &[u8]) -> Option<String> {
    let needle = b"release version ";
    let at = library.windows(needle.len()).position(|w| w == needle)? + needle.len();
    let end = library[at..]
        .iter()
        .position(|b| !(b.is_ascii_digit() || *b == b'.'))?;
    let version = std::str::from_utf8(&library[at..at + end])
        .ok()?
        .trim_end_matches('.');
    (!version.is_empty()).then(|| version.to_string())
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    cpuinfo
        .lines()
        .find(|l| l.starts_with("model name"))?
        .split_once(':')
        .map(|(_, v)| v.trim())
}

/// A line of /proc/meminfo, bytes.
fn memory_line(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find(|l| l.starts_with(name))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn bracketed(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

/// Counts the CPUs of a list such as `0-3,8,10-11`.
fn cpu_list(text: &str) -> Option<u32> {
    text.trim().split(',').try_fold(0, |sum, part| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (u32, u32) = (low.parse().ok()?, high.parse().ok()?);
        Some(sum + high.checked_sub(low)? + 1)
    })
}

fn steal_of(stat: &str) -> Option<f64> {
    let line = stat.lines().find(|l| l.starts_with("cpu "))?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|f| f.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest times are contained in user.
    let total: f64 = ticks.iter().take(8).sum();
    (total > 0.0).then(|| ticks.get(7).copied().unwrap_or(0.0) / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsers() {
        assert_eq!(cpu_list("0-3,8,10-11\n"), Some(7));
        assert_eq!(cpu_list("3-1"), None);
        assert_eq!(bracketed("always [madvise] never"), Some("madvise"));
        assert_eq!(
            memory_line("MemTotal:       4096 kB\nMemFree: 1 kB\n", "MemTotal:"),
            Some(4_194_304)
        );
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: Foo 9000\n"),
            Some("Foo 9000")
        );
        assert_eq!(steal_of("cpu  10 0 10 70 0 0 0 10 0 0\n"), Some(0.1));
        assert_eq!(
            version_in(b"GNU C Library stable release version 2.36.\nCopyright"),
            Some("2.36".into())
        );
        assert!(cpu_flag("flags\t\t: fpu nonstop_tsc sse\n", "nonstop_tsc"));
    }

    #[test]
    fn this_machine_has_a_fingerprint() {
        let m = read();
        assert!(m.cpus >= 1 && m.memory_bytes > 1 << 20 && m.page_size >= 4096);
        assert!(
            m.libc.starts_with("glibc ") && m.host_id.len() == 32,
            "{m:?}"
        );
        assert_eq!(m.host_id, read().host_id, "the same boot has the same id");
    }
}
