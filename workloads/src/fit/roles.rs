//! Which threads of a trace do the same.

use super::survey::Totals;
use crate::error::WorkloadError;

/// Threads with a smaller share of the calls are left out, where there are others.
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
    let all: u64 = table.iter().map(|one| one.calls).sum();
    let mut threads: Vec<Vec<u32>> = Vec::new();
    let mut of = vec![None; table.len()];
    let (mut omitted, mut omitted_calls) = (0, 0);
    for thread in busy {
        let me = &table[thread];
        let alike = threads.iter().position(|role| {
            let other = &table[role[0] as usize];
            let near = |mine: u64, theirs: u64| {
                let (mine, theirs) = (mine as f64 + 1.0, theirs as f64 + 1.0);
                mine / theirs < ALIKE && theirs / mine < ALIKE
            };
            near(me.calls, other.calls)
                && near(me.allocations, other.allocations)
                && near(me.bytes, other.bytes)
        });
        let small = (me.calls as f64) < LEAST_SHARE * all as f64;
        let room = threads.len() < MOST_ROLES;
        let role = match alike {
            Some(role) if !small => Some(role),
            None if threads.is_empty() || !small && room => {
                threads.push(Vec::new());
                Some(threads.len() - 1)
            }
            _ => None,
        };
        match role {
            Some(role) => threads[role].push(thread as u32),
            None => {
                omitted += 1;
                omitted_calls += me.calls;
            }
        }
        of[thread] = role;
    }
    let mut left_out = Vec::new();
    if omitted > 0 {
        let share = 100.0 * omitted_calls as f64 / all as f64;
        left_out.push(format!("{omitted} threads with {share:.1} % of the calls"));
    }
    Ok(Roles {
        threads,
        of,
        left_out,
    })
}
