//! Which threads of a trace do the same.

use crate::error::WorkloadError;
use crate::trace::Trace;

/// Threads with a smaller share of the calls are left out, where there are others.
const LEAST_SHARE: f64 = 0.005;
/// Roles at most; the threads of the least busy ones are left out.
const MOST_ROLES: usize = 6;
/// Threads are alike when their calls, bytes per call and shares of frees differ by no more than this factor.
const ALIKE: f64 = 1.6;

/// Threads that become one role.
pub(super) struct RoleOf {
    pub threads: Vec<u32>,
}

pub(super) struct Roles {
    pub roles: Vec<RoleOf>,
    /// Role of each thread of the trace.
    pub of: Vec<Option<usize>>,
    pub left_out: Vec<String>,
}

/// Sorts the threads into roles by what they did in all.
pub(super) fn find(trace: &Trace) -> Result<Roles, WorkloadError> {
    let table = &trace.summary().thread_table;
    let mut busy: Vec<usize> = (0..table.len())
        .filter(|&one| table[one].events > 0)
        .collect();
    if busy.is_empty() {
        return Err(WorkloadError::Parameters(
            "the trace has no calls: there is nothing to fit".into(),
        ));
    }
    busy.sort_by_key(|&one| (std::cmp::Reverse(table[one].events), one));
    let all: u64 = table.iter().map(|one| one.events).sum();
    let mut roles: Vec<RoleOf> = Vec::new();
    let mut of = vec![None; table.len()];
    let (mut omitted, mut omitted_events) = (0, 0);
    for thread in busy {
        let me = &table[thread];
        let alike = roles.iter().position(|role| {
            let other = &table[role.threads[0] as usize];
            let near = |mine: f64, theirs: f64| {
                let (mine, theirs) = (mine + 1.0, theirs + 1.0);
                mine / theirs < ALIKE && theirs / mine < ALIKE
            };
            near(me.events as f64, other.events as f64)
                && near(me.allocations as f64, other.allocations as f64)
                && near(me.bytes_allocated as f64, other.bytes_allocated as f64)
        });
        let small = (me.events as f64) < LEAST_SHARE * all as f64;
        match alike {
            Some(role) if !small => {
                roles[role].threads.push(thread as u32);
                of[thread] = Some(role);
            }
            None if !roles.is_empty() && (small || roles.len() == MOST_ROLES) => {
                omitted += 1;
                omitted_events += me.events;
            }
            Some(_) => {
                omitted += 1;
                omitted_events += me.events;
            }
            None => {
                of[thread] = Some(roles.len());
                roles.push(RoleOf {
                    threads: vec![thread as u32],
                });
            }
        }
    }
    let mut left_out = Vec::new();
    if omitted > 0 {
        let share = 100.0 * omitted_events as f64 / all as f64;
        left_out.push(format!("{omitted} threads with {share:.1} % of the calls"));
    }
    let processes = trace.summary().processes;
    if processes > 1 {
        left_out.push(format!(
            "that the threads belong to {processes} processes, and that these follow each other"
        ));
    }
    Ok(Roles {
        roles,
        of,
        left_out,
    })
}
