//! What the program itself does under each subject: the peak of its heap, and its time in the allocator.

use super::rounds::Rounds;
use super::{Brought, Trial};
use crate::cli::ValidateArgs;
use crate::disturbance::Watch;
use crate::exec::Limits;
use crate::huge_pages;
use crate::program::{self, HeapLook, ProgramOptions, ProgramReport};
use crate::subject::Subject;
use crate::validation::Run;

/// Runs by which the program's own mappings are measured, at least.
const OWN_RUNS: u32 = 3;
/// Five samples a millisecond of CPU time: dear (about 1 %), but the allocator's part is small and its order is asked for.
const SAMPLE_PERIOD_NS: u64 = 200_000;
/// Makes glibc take all memory from `brk`: what lies elsewhere is then not malloc's.
const ALL_FROM_BRK: &str = "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1";

/// What a reader is told where the program's own mappings could not be followed in its runs.
fn not_told_apart(why: &str) -> String {
    format!(
        "what the program maps by itself could not be followed ({why}): what it maps on the C library's malloc is left out under every subject"
    )
}

/// How the program is run: with its heap looked at, a server as it was recorded.
fn options(args: &ValidateArgs, heap: HeapLook, limits: &Limits) -> ProgramOptions {
    ProgramOptions {
        heap,
        follow_mappings: true,
        sample_period_ns: SAMPLE_PERIOD_NS,
        // Checked when it was recorded.
        service: args.service.service().ok().flatten(),
        ..ProgramOptions::plain(limits.clone())
    }
}

/// An allocator that the program brings in a library, and the C library to put in its place.
pub fn brought(args: &ValidateArgs, limits: &Limits) -> Option<Brought> {
    let (allocator, libc) =
        program::brought_allocator(&args.command, limits).zip(program::c_library())?;
    Some(Brought { allocator, libc })
}

/// The subjects as they are put into the program: where it brings an allocator of its own, the C library's must be put in
/// its place for the row `system`, because that is what was recorded and replayed.
pub fn in_place(
    subjects: &[Subject],
    brought: Option<&Brought>,
    remarks: &mut Vec<String>,
) -> Vec<Subject> {
    let Some(Brought { allocator, libc }) = brought else {
        return subjects.to_vec();
    };
    remarks.push(format!(
        "the program brings its own allocator, {allocator}; the C library's was put in its place for the recording and the row \
         system"
    ));
    subjects
        .iter()
        .map(|subject| match subject.is_variant() {
            true => subject.clone(),
            false => Subject {
                library: subject.library.clone().or_else(|| Some(libc.clone())),
                ..subject.clone()
            },
        })
        .collect()
}

/// As often as the program is run: what is subtracted from the median of its runs varies as they do.
pub fn own_runs(args: &ValidateArgs) -> u32 {
    args.first_runs().max(OWN_RUNS)
}

/// Anonymous bytes that do not come from malloc at the peak of the program's memory on the C library's malloc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// What the program maps by itself, where that can be followed: CPython's small objects, ruby's pages of objects. In a run under
    /// another allocator it is what it is there.
    pub followed: Option<u64>,
    /// What no call of the C library's tells of: the loader's, stacks of threads; all of it where nothing can be followed. It is the
    /// same under every allocator.
    pub rest: u64,
    /// Most bytes in shared memory, files in memory included, and pages of the hugetlb pool, where the C library's malloc has nothing: the
    /// program's own.
    pub elsewhere: u64,
}

/// What a subject has there beyond that is its heap; less is its library's file in memory, and chance.
const ELSEWHERE: u64 = 1 << 20;

/// One run of the program by which [`Own`] is measured, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct OwnRun {
    /// What lies outside `brk`.
    outside: u64,
    /// Which part of it the program has mapped by itself.
    followed: Option<u64>,
    elsewhere: u64,
}

impl Own {
    fn of(runs: &[OwnRun]) -> Self {
        let middle = |figure: &dyn Fn(&OwnRun) -> u64| {
            let bytes: Vec<f64> = runs.iter().map(|run| figure(run) as f64).collect();
            heaplab_reports::stats::median(&bytes).unwrap_or(0.0) as u64
        };
        let own = |run: &OwnRun| run.followed.unwrap_or(0);
        let followed = runs.iter().all(|run| run.followed.is_some());
        Self {
            followed: followed.then(|| middle(&own)),
            rest: match followed {
                true => middle(&|run| run.outside.saturating_sub(own(run))),
                false => middle(&|run| run.outside),
            },
            elsewhere: middle(&|run| run.elsewhere),
        }
    }

    /// All of it.
    pub fn all(&self) -> u64 {
        self.followed.unwrap_or(0) + self.rest
    }

    /// The peak of a run without it, and how much that was; `None` where the run was over before it could be looked at.
    fn without(&self, report: &ProgramReport) -> Option<(u64, u64)> {
        // Only where there is more: the figures of all others are those of anonymous memory, at its own peak.
        let beyond = report.elsewhere_peak_bytes > self.elsewhere + ELSEWHERE;
        let of = |anonymous: u64, with_elsewhere: u64| match beyond {
            true => with_elsewhere.saturating_sub(self.elsewhere),
            false => anonymous,
        };
        let (peak, own) = match (self.followed, report.apart) {
            (Some(_), Some(apart)) => (
                of(apart.peak_bytes, apart.with_elsewhere_bytes),
                apart.own_bytes,
            ),
            (own, _) => {
                let (own, anonymous) = (own.unwrap_or(0), report.anonymous_peak_bytes?);
                let with_elsewhere = report.with_elsewhere_peak_bytes.unwrap_or(anonymous);
                (of(anonymous, with_elsewhere).saturating_sub(own), own)
            }
        };
        Some((peak.saturating_sub(self.rest), own + self.rest))
    }
}

/// Measures [`Own`]; nothing where that is not possible.
pub fn own_mappings(trial: &Trial<'_>) -> Own {
    let system = Subject {
        label: "system".into(),
        name: "system".into(),
        library: trial.brought.as_ref().map(|brought| brought.libc.clone()),
        settings: Vec::new(),
        env: vec![("GLIBC_TUNABLES".into(), ALL_FROM_BRK.into())],
        ours: false,
    };
    let command = &trial.args.command;
    let options = options(trial.args, HeapLook::EveryMaximum, &trial.limits);
    let mut found = Rounds::new(1);
    found.up_to(
        &[own_runs(trial.args)],
        std::slice::from_ref(&system),
        "own mappings",
        &trial.progress,
        |_, _| {
            program::run_program(&system, command, &options)
                .map_err(|failure| failure.reason)
                .map(|report| OwnRun {
                    outside: report.outside_brk_bytes.unwrap_or(0),
                    followed: report.own_outside_brk_bytes,
                    elsewhere: report.shared_peak_bytes,
                })
        },
    );
    let samples = found.samples.into_iter().next().and_then(Result::ok);
    Own::of(&samples.unwrap_or_default())
}

/// Runs until each subject has as many as `wanted` says. The first `trial.args.first_runs()` of a subject are followed by one
/// that is sampled and walked; what of the peak is no heap in further ones is what it was in those. `own` does not come from malloc,
/// `live` is what its blocks have at most, bytes.
pub fn runs(
    found: &mut Rounds<Run>,
    subjects: &[Subject],
    (own, live): (Own, u64),
    wanted: &[u32],
    trial: &Trial<'_>,
    remarks: &mut Vec<String>,
) {
    // A run for each figure: a program whose time is sampled, or whose mappings are walked, is held up, and an allocator that
    // gives back by the clock has another peak then.
    let looked_at = ProgramOptions {
        metrics: trial.args.metrics.metrics.clone(),
        ..options(trial.args, HeapLook::Size, &trial.limits)
    };
    let sampled = options(trial.args, HeapLook::Mappings, &trial.limits);
    let first = trial.args.first_runs();
    let beside: Vec<Option<f64>> = (found.samples.iter())
        .map(|samples| {
            let known: Vec<f64> = (samples.iter().flatten())
                .filter_map(|run: &Run| run.beside_bytes)
                .collect();
            heaplab_reports::stats::median(&known)
        })
        .collect();
    let (mut unsampled, mut not_followed) = (None, None);
    let progress = &trial.progress;
    found.up_to(wanted, subjects, "program", progress, |at, block| {
        let (subject, command) = (&subjects[at], &trial.commands[at]);
        let run = |options: &ProgramOptions| {
            // What an allocator that is linked in maps cannot be told from what the program itself does.
            let options = ProgramOptions {
                follow_mappings: !subject.is_variant(),
                ..options.clone()
            };
            let once = || {
                program::run_program(subject, command, &options).map_err(|failure| failure.reason)
            };
            let (report, beside) = Watch::over_program(once, |report| report.held_up)?;
            if let Some(found) = beside {
                progress.detail(&format!("program {}: {}", subject.label, found.told()));
            }
            Ok::<_, String>((report, beside.is_some_and(|found| found.matters())))
        };
        let too_short =
            || "it ended before its heap could be looked at; give it more to do".to_string();
        // As the replays have them: with another number of huge pages another amount is resident.
        let ((report, disturbed), _) = huge_pages::over(live, || run(&looked_at))?;
        let (peak, own_bytes) = own.without(&report).ok_or_else(too_short)?;
        if let Some(why) = report.not_followed {
            not_followed.get_or_insert(why);
        }
        let heap = |beside: u64| peak.saturating_sub(beside) as f64;
        if let (true, Some(beside)) = (block >= first, beside[at]) {
            return Ok(Run {
                peak_bytes: heap(beside as u64),
                own_bytes: own_bytes as f64,
                disturbed,
                metrics: report.own,
                ..Run::default()
            });
        }
        let metrics = report.own;
        let (report, time_disturbed) = run(&sampled)?;
        let beside = report.beside_heap_bytes.ok_or_else(too_short)?;
        if let Some(why) = &report.not_sampled {
            unsampled.get_or_insert_with(|| why.clone());
        }
        Ok(Run {
            peak_bytes: heap(beside),
            own_bytes: own_bytes as f64,
            disturbed,
            time_disturbed,
            beside_bytes: Some(beside as f64),
            allocation_s: report.allocator_s(),
            cpu_s: Some((report.user_ns + report.sys_ns) as f64 / 1e9),
            metrics,
        })
    });
    if let Some(why) = unsampled {
        remarks.push(program::not_sampled(&why));
    }
    if let Some(why) = not_followed {
        let remark = not_told_apart(&why);
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Apart;

    fn own(runs: [(u64, Option<u64>); 3]) -> Own {
        Own::of(&runs.map(|(outside, followed)| OwnRun {
            outside,
            followed,
            elsewhere: 0,
        }))
    }

    #[test]
    fn what_the_program_maps_itself_is_that_of_the_run_where_it_can_be_followed() {
        let report = |apart: Option<(u64, u64)>| ProgramReport {
            anonymous_peak_bytes: Some(150),
            apart: apart.map(|(peak_bytes, own_bytes)| Apart {
                peak_bytes,
                own_bytes,
                ..Apart::default()
            }),
            ..ProgramReport::default()
        };
        let followed = own([(60, Some(50)), (64, Some(54)), (61, Some(51))]);
        let parts = (followed.followed, followed.rest, followed.all());
        assert_eq!(parts, (Some(51), 10, 61));
        // Less than on the C library's malloc, and at another instant than the peak of everything.
        assert_eq!(followed.without(&report(Some((110, 30)))), Some((100, 40)));
        // Where it was not followed in this run, what it was there.
        assert_eq!(followed.without(&report(None)), Some((89, 61)));
        // Not there: all of it, and in no run a second time.
        let own = own([(60, Some(50)), (64, None), (61, Some(51))]);
        assert_eq!((own.followed, own.rest), (None, 61));
        assert_eq!(own.without(&report(Some((110, 30)))), Some((89, 61)));
        assert_eq!(Own::default().without(&report(None)), Some((150, 0)));
        assert_eq!(own.without(&ProgramReport::default()), None);
    }

    #[test]
    fn shared_memory_beyond_the_programs_own_is_the_subjects() {
        const MIB: u64 = 1 << 20;
        let run = OwnRun {
            outside: 6 * MIB,
            followed: Some(5 * MIB),
            elsewhere: 8 * MIB,
        };
        let own = Own::of(&[run, run, run]);
        let report = |elsewhere: u64, apart| ProgramReport {
            anonymous_peak_bytes: Some(30 * MIB),
            elsewhere_peak_bytes: elsewhere * MIB,
            with_elsewhere_peak_bytes: Some(60 * MIB),
            apart,
            ..ProgramReport::default()
        };
        let apart = Some(Apart {
            peak_bytes: 20 * MIB,
            own_bytes: 3 * MIB,
            with_elsewhere_bytes: 50 * MIB,
        });
        let peak = |report: ProgramReport| own.without(&report).unwrap().0 / MIB;
        // As much as on the C library's malloc: anonymous memory tells all.
        assert_eq!(peak(report(8, apart)), 20 - 1);
        assert_eq!(peak(report(40, apart)), 50 - 8 - 1);
        assert_eq!(peak(report(9, None)), 30 - 5 - 1);
        assert_eq!(peak(report(40, None)), 60 - 8 - 5 - 1);
    }
}
