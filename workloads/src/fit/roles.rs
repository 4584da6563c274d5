//! Which threads of a trace do the same.

use super::survey::Totals;
use crate::error::WorkloadError;
use crate::model::definition::MOST_THREADS;

/// Threads that do the same and have a smaller share of the calls together are left out, where there are others.
const LEAST_SHARE: f64 = 0.005;
/// Roles at most; the threads of the least busy ones are left out.
const MOST_ROLES: usize = 6;
/// Threads are alike when their calls, allocations and bytes differ by no more than this factor.
const ALIKE: f64 = 1.6;

pub(super) struct Roles {
    /// Threads of each role.
    pub threads: Vec<Vec<u32>>,
    /// Role of each thread of the trace.
    pub of: Vec<Option<usize>>,
    pub left_out: Vec<String>,
}

/// Sorts the threads into roles by what they did in all.
pub(super) fn find(table: &[Totals]) -> Result<Roles, WorkloadError> {
    let mut busy: Vec<usize> = (0..table.len())
        .filter(|&one| table[one].calls > 0)
        .collect();
    if busy.is_empty() {
        return Err(WorkloadError::Parameters(
            "the trace has no calls: there is nothing to fit".into(),
        ));
    }
    busy.sort_by_key(|&one| (std::cmp::Reverse(table[one].calls), one));
    let mut alike: Vec<Vec<u32>> = Vec::new();
    for thread in busy {
        let me = &table[thread];
        let kind = alike.iter_mut().find(|kind| {
            let other = &table[kind[0] as usize];
            let near = |mine: u64, theirs: u64| {
                let (mine, theirs) = (mine as f64 + 1.0, theirs as f64 + 1.0);
                mine / theirs < ALIKE && theirs / mine < ALIKE
            };
            near(me.calls, other.calls)
                && near(me.allocations, other.allocations)
                && near(me.bytes, other.bytes)
        });
        match kind {
            Some(kind) => kind.push(thread as u32),
            None => alike.push(vec![thread as u32]),
        }
    }
    let calls_of = |threads: &[u32]| -> u64 {
        let calls = threads.iter().map(|&one| table[one as usize].calls);
        calls.sum()
    };
    let all = calls_of(&alike.concat());
    // Few threads that do much and many that do little alike may matter as much.
    let mut shares: Vec<(u64, usize)> = (alike.iter().enumerate())
        .map(|(index, threads)| (calls_of(threads), index))
        .collect();
    shares.sort_by_key(|&(calls, index)| (std::cmp::Reverse(calls), index));
    let mut kept: Vec<usize> = (shares.iter().enumerate())
        .filter(|&(place, &(calls, _))| {
            place == 0 || place < MOST_ROLES && calls as f64 >= LEAST_SHARE * all as f64
        })
        .map(|(_, &(_, index))| index)
        .collect();
    kept.sort_unstable();
    let mut room = MOST_THREADS as usize;
    let threads: Vec<Vec<u32>> = (kept.iter().enumerate())
        .map(|(role, &index)| {
            let mut threads = alike[index].clone();
            // A model has no more, and each of the roles that follow needs one.
            threads.truncate(room - (kept.len() - 1 - role));
            room -= threads.len();
            threads
        })
        .collect();
    let mut of = vec![None; table.len()];
    for (role, threads) in threads.iter().enumerate() {
        for &thread in threads {
            of[thread as usize] = Some(role);
        }
    }
    let mut left_out = Vec::new();
    let omitted = alike.concat().len() - threads.concat().len();
    if omitted > 0 {
        let share = 100.0 * (all - calls_of(&threads.concat())) as f64 / all as f64;
        let plural = if omitted == 1 { "" } else { "s" };
        left_out.push(format!(
            "{omitted} thread{plural} with {share:.1} % of the calls"
        ));
    }
    Ok(Roles {
        threads,
        of,
        left_out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_with(calls: impl Iterator<Item = u64>) -> Roles {
        let table: Vec<Totals> = calls
            .map(|calls| Totals {
                calls,
                allocations: calls / 2,
                bytes: 8 * calls,
            })
            .collect();
        find(&table).unwrap()
    }

    fn sizes(roles: &Roles) -> Vec<usize> {
        roles.threads.iter().map(Vec::len).collect()
    }

    /// Two hundred small ones are half of the calls; one alone is nothing.
    #[test]
    fn what_threads_alike_do_together_counts() {
        let small = std::iter::repeat_n(10, 200);
        let roles = all_with([2000, 1].into_iter().chain(small));
        assert_eq!(sizes(&roles), [1, 200]);
        assert_eq!(roles.of[1], None);
        assert_eq!(roles.left_out, ["1 thread with 0.0 % of the calls"]);
    }

    #[test]
    fn no_more_threads_than_a_model_has() {
        let roles = all_with([50_000].into_iter().chain(std::iter::repeat_n(8, 4200)));
        assert_eq!(sizes(&roles), [1, 4095]);
        assert_eq!(roles.left_out, ["105 threads with 1.0 % of the calls"]);
        let roles = all_with(std::iter::repeat_n(90, 4200).chain([9000]));
        assert_eq!(sizes(&roles), [1, 4095]);
    }
}
