//! The machine that a run sees: what is set in the process before the worker starts, and the control group that limits
//! its memory.

use super::RunFailure;
use crate::subject::Subject;
use heaplab_worker::protocol::{Machine, Measure, Mode, RunSpec, Thp};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// How a memory limit is enforced.
#[derive(Debug)]
pub(crate) enum Limit {
    /// There is none.
    None,
    /// A control group of our own; its folder is removed when the run is over.
    Group(PathBuf),
    /// RLIMIT_DATA: no control group can be made here.
    Data(u64),
}

impl Limit {
    /// Enforces `machine`'s limit in the best way there is.
    pub(crate) fn new(machine: &Machine) -> Self {
        match machine.memory_limit {
            0 => Self::None,
            bytes => group(bytes).map_or(Self::Data(bytes), Self::Group),
        }
    }

    /// The limit for a command that is typed later: a control group would be gone by then.
    pub(crate) fn to_type(machine: &Machine) -> Self {
        match machine.memory_limit {
            0 => Self::None,
            bytes => Self::Data(bytes),
        }
    }

    /// Settings of `heaplab-worker --enter` that put `machine` with this limit into force.
    pub(crate) fn enter(&self, machine: &Machine) -> Vec<String> {
        let limit = match self {
            Self::None => None,
            Self::Group(folder) => Some(format!("cgroup={}", folder.display())),
            Self::Data(bytes) => Some(format!("data={bytes}")),
        };
        let thp = (machine.thp == Thp::Never).then(|| "thp=never".to_owned());
        limit.into_iter().chain(thp).collect()
    }

    /// Whether the kernel has ended a process for it.
    pub(crate) fn has_killed(&self) -> bool {
        let Self::Group(folder) = self else {
            return false;
        };
        // Version 2, version 1: lines of a word and a number.
        ["memory.events", "memory.oom_control"].iter().any(|file| {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count.is_some_and(|count| count.trim() != "0")
        })
    }

    /// What the result says of it.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Group(_) => Some("control group"),
            Self::Data(_) => Some("RLIMIT_DATA"),
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Self::Group(folder) = self {
            // The kernel lets go of the last process a moment after it was waited for.
            for _ in 0..50 {
                match fs::remove_dir(&*folder) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    _ => return,
                }
            }
        }
    }
}

/// Makes a control group with a memory limit, version 1 or 2, below or beside our own.
fn group(bytes: u64) -> Option<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("heaplab-{}-{number}", std::process::id());
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let places = own.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        match controllers {
            "" => {
                // Version 2: a group with processes passes no controllers on, so the new one stands beside ours.
                let here = Path::new("/sys/fs/cgroup").join(path);
                let parent = here.parent().unwrap_or(&here).to_path_buf();
                let parent = if path.is_empty() { here } else { parent };
                Some((parent, "memory.max"))
            }
            list if list.split(',').any(|one| one == "memory") => {
                let here = Path::new("/sys/fs/cgroup/memory").join(path);
                Some((here, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    for (parent, file) in places {
        let folder = parent.join(&name);
        if fs::create_dir(&folder).is_ok() {
            if fs::write(folder.join(file), bytes.to_string()).is_ok() {
                return Some(folder);
            }
            // A group without the controller limits nothing.
            let _ = fs::remove_dir(&folder);
        }
    }
    None
}

/// What changes the machine for a run.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Settings of `heaplab-worker --enter`.
    pub enter: Vec<String>,
    /// Variables of the worker, beside the subject's; of the same name they stand instead.
    pub variables: Vec<(String, String)>,
}

/// What changes the machine for a run; nothing for the machine as it is.
pub(super) fn settings(
    subject: &Subject,
    spec: &RunSpec,
    limit: &Limit,
) -> Result<Settings, RunFailure> {
    let machine = &spec.machine;
    let (mut enter, mut variables) = (Vec::new(), Vec::new());
    if machine.fixed_addresses {
        enter.push("addresses=fixed".to_owned());
        variables.push(("HEAPLAB_RANDOM".to_owned(), "fixed".to_owned()));
    }
    enter.extend(limit.enter(machine));
    let mut tunables = Vec::new();
    match machine.thp {
        Thp::Default | Thp::Never => {}
        Thp::Always => {
            let file = "/sys/kernel/mm/transparent_hugepage/enabled";
            if crate::fingerprint::active_word(file).is_none_or(|word| word == "never") {
                return Err(RunFailure::new(format!(
                    "huge pages are switched off on this machine; `echo madvise > {file}` allows them"
                )));
            }
            variables.push(("HEAPLAB_THP".to_owned(), "always".to_owned()));
            tunables.push("glibc.malloc.hugetlb=1".to_owned());
        }
    }
    if matches!(spec.measure, Measure::Memory | Measure::Counts) && spec.mode == Mode::Lockstep {
        variables.push(("HEAPLAB_CLOCK".to_owned(), "still".to_owned()));
    }
    let mut cpus = crate::fingerprint::usable_cpus();
    if machine.cpus > 0 {
        cpus = machine.cpus;
        variables.push(("HEAPLAB_CPUS".to_owned(), cpus.to_string()));
    }
    // glibc's malloc asks the kernel how many CPUs it may use, and lockstep binds all threads to one.
    if machine.cpus > 0 || spec.mode != Mode::Fast {
        tunables.push(format!("glibc.malloc.arena_max={}", 8 * cpus));
    }
    if subject.library.is_none() && !tunables.is_empty() {
        // What the user set comes last and wins.
        let own = subject
            .env
            .iter()
            .find(|(name, _)| name == "GLIBC_TUNABLES");
        tunables.extend(own.map(|(_, value)| value.clone()));
        variables.push(("GLIBC_TUNABLES".to_owned(), tunables.join(":")));
    }
    Ok(Settings { enter, variables })
}
