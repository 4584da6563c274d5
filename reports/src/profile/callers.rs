//! Who called a site: what tells a wrapper's row apart from the calls that it serves.

use super::schema::{Location, Metric, Profile};
use super::sites::own_call;
use std::collections::HashMap;

/// Calls of a chain at most.
const DEEPEST: usize = 4;
/// Where a program begins: nobody calls it.
const START: [&str; 6] = [
    "_start",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_call_main",
    "__clone3",
    "start_thread",
];

/// The way on which most of a site's amount was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chain {
    /// Functions, the direct caller first.
    pub functions: Vec<String>,
    /// Share of the site's amount that came through all of them, 0 to 1.
    pub share: f64,
    /// Further direct callers.
    pub others: usize,
}

/// Outward from one site: the amount, and the callers by function.
#[derive(Default)]
struct Node<'a> {
    amount: f64,
    by: HashMap<&'a str, Node<'a>>,
}

/// For each site that a function called: the heaviest way to it, by one metric. It goes on as long as more than half of the
/// amount came on it.
pub(super) fn callers(profile: &Profile, metric: Metric) -> HashMap<&Location, Chain> {
    let mut roots: HashMap<&Location, Node<'_>> = HashMap::new();
    for stack in &profile.stacks {
        let amount = metric.of(&stack.costs).value;
        let Some(at) = own_call(profile, &stack.frames).filter(|_| amount > 0.0) else {
            continue;
        };
        let of = |index: &u32| profile.frames.get(*index as usize);
        let Some(site) = stack.frames.get(at).and_then(of) else {
            continue;
        };
        let mut node = roots.entry(site).or_default();
        node.amount += amount;
        let mut last = site.function.as_str();
        let outward = stack.frames[..at].iter().rev().filter_map(of);
        for name in outward.map(|call| call.function.as_str()) {
            if START.contains(&name) {
                break;
            }
            // A recursion is one caller.
            if name == last {
                continue;
            }
            last = name;
            node = node.by.entry(name).or_default();
            node.amount += amount;
        }
    }
    roots
        .into_iter()
        .filter_map(|(site, node)| Some((site, heaviest(&node)?)))
        .collect()
}

fn heaviest(root: &Node<'_>) -> Option<Chain> {
    let mut chain = Chain {
        others: root.by.len().saturating_sub(1),
        ..Chain::default()
    };
    let mut node = root;
    while chain.functions.len() < DEEPEST {
        let next = node
            .by
            .iter()
            .max_by(|a, b| a.1.amount.total_cmp(&b.1.amount).then(b.0.cmp(a.0)));
        let Some((name, next)) = next else { break };
        let share = next.amount / root.amount;
        if !chain.functions.is_empty() && share <= 0.5 {
            break;
        }
        chain.functions.push((*name).to_owned());
        chain.share = share;
        node = next;
    }
    (!chain.functions.is_empty()).then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::super::schema::{Amount, Costs, StackCosts};
    use super::*;

    #[test]
    fn the_heaviest_way_is_followed_while_it_has_more_than_half() {
        let names = ["_start", "main", "read", "parse", "node", "new_node"];
        let frames: Vec<Location> = names
            .iter()
            .map(|name| Location {
                function: (*name).into(),
                module: "app".into(),
                ..Location::default()
            })
            .collect();
        let stack = |frames: &[u32], bytes: f64| StackCosts {
            frames: frames.to_vec(),
            costs: Costs {
                bytes: Amount {
                    value: bytes,
                    error95: 0.0,
                },
                ..Costs::default()
            },
        };
        let profile = Profile {
            frames,
            stacks: vec![
                stack(&[0, 1, 2, 3, 3, 4, 5], 60.0),
                stack(&[0, 1, 3, 4, 5], 20.0),
                stack(&[0, 1, 2, 5], 20.0),
                stack(&[0, 1], 7.0),
            ],
            ..Profile::default()
        };
        let found = callers(&profile, Metric::Allocated);
        let chain = &found[&profile.frames[5]];
        assert_eq!(chain.functions, ["node", "parse", "read", "main"]);
        assert!(
            (chain.share - 0.6).abs() < 1e-9 && chain.others == 1,
            "{chain:?}"
        );
        assert!(
            !found.contains_key(&profile.frames[1]),
            "nobody calls main: {found:?}"
        );
        assert!(callers(&profile, Metric::Leaked).is_empty());
    }
}
