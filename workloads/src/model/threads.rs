//! Which role each thread has.

use super::definition::{Definition, MOST_THREADS};
use crate::error::WorkloadError;

/// Roles of `threads` threads in proportion to the definition, at least one each, interleaved so that neighbours differ.
pub fn assign(definition: &Definition, threads: Option<u32>) -> Result<Vec<usize>, WorkloadError> {
    let shares: Vec<u64> = definition
        .roles
        .iter()
        .map(|role| u64::from(role.threads))
        .collect();
    let sum: u64 = shares.iter().sum();
    let wanted = threads.map_or(sum, u64::from);
    if wanted < shares.len() as u64 || wanted > u64::from(MOST_THREADS) {
        return Err(WorkloadError::Parameters(format!(
            "model '{}' cannot run with {wanted} threads: it needs {} to {MOST_THREADS}",
            definition.name,
            shares.len()
        )));
    }
    let mut counts: Vec<u64> = shares
        .iter()
        .map(|share| (share * wanted / sum).max(1))
        .collect();
    // The role that is furthest below its share gets the next thread; above its share, loses one.
    loop {
        let have: u64 = counts.iter().sum();
        let lack =
            |index: usize| shares[index] as i64 * wanted as i64 - (counts[index] * sum) as i64;
        if have < wanted {
            let poorest = (0..counts.len())
                .rev()
                .max_by_key(|&index| lack(index))
                .unwrap_or(0);
            counts[poorest] += 1;
        } else if have > wanted {
            let richest = (0..counts.len())
                .filter(|&index| counts[index] > 1)
                .min_by_key(|&index| lack(index))
                .unwrap_or(0);
            counts[richest] -= 1;
        } else {
            break;
        }
    }
    let mut roles = Vec::new();
    while roles.len() < wanted as usize {
        for (role, count) in counts.iter_mut().enumerate() {
            if *count > 0 {
                *count -= 1;
                roles.push(role);
            }
        }
    }
    Ok(roles)
}
