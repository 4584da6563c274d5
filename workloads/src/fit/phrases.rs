//! What a role's threads do in a row, again and again: the pairs of calls that are met most often are joined into one, until what is
//! left repeats too seldom (byte pair encoding, Gage 1994).

use super::collect::Said;
use crate::model::definition::Deed;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// Joins that are made at most, and the share of a role's calls that one must bring.
const JOINS: usize = 240;
const LEAST_JOIN: f64 = 0.001;
/// Calls of a phrase at most: beyond, nobody reads it.
const MOST_CALLS: u32 = 96;
/// Single calls with a smaller share of a role's calls are no phrase: the groups' live sets bring them.
const LEAST_SINGLE: f64 = 0.001;
/// Resizes, which nothing else brings.
const LEAST_RESIZE: f64 = 0.0002;
/// A size with this share of a role's allocations is said, others are drawn.
const FREQUENT: f64 = 0.01;
/// Calls before one from which its size may be known; sizes of a class are said if that is so for this part of those that
/// chance would not hit, or if chance hits this part.
const CONTEXT: usize = 3;
const ORDERLY: f64 = 0.3;
const EASY: f64 = 0.5;
/// Followers of a phrase that are told, and the least percentage of one.
const MOST_FOLLOWERS: usize = 8;
const LEAST_SHARE: u32 = 2;
/// Calls after which a stretch counts as said again, to see how many of its drawn sizes are others.
const STRETCH: usize = 8;
/// Separates what did not follow.
const BREAK: u16 = 0;
/// A call as a phrase has it: what, class, size (0: drawn).
type Word = (Deed, u8, u32);

/// Something that is said: a call, or two others.
struct Term {
    word: Option<Word>,
    of: (u16, u16),
    calls: u32,
}

/// A phrase and how often it is said in each part.
pub(super) struct Phrase {
    term: u16,
    words: Vec<Word>,
    times: Vec<u64>,
    /// The terms that follow it, with their shares in percent, the most frequent first.
    then: Vec<(u16, u32)>,
}

/// Phrases of a role.
#[derive(Default)]
pub(super) struct Phrases {
    pub phrases: Vec<Phrase>,
    /// Sizes that phrases name.
    pub named: Vec<u32>,
    /// Of the sizes that they do not name, the share that was another one when the calls before it came again.
    pub redrawn: f64,
}

impl Phrases {
    /// Whether any is about a class.
    pub fn mention(&self, class: usize) -> bool {
        let mut words = self.phrases.iter().flat_map(|phrase| &phrase.words);
        words.any(|(_, of, _)| usize::from(*of) == class)
    }
}

/// Finds at most `most` phrases.
pub(super) fn find(threads: &[&[Said]], parts: usize, most: usize) -> Phrases {
    let named = frequent_sizes(threads);
    let (mut terms, mut said) = spell(threads, &named);
    let calls: u64 = said.len() as u64;
    let mut joined = 0;
    while joined < JOINS
        && let Some((pair, count)) = most_frequent(&said, &terms)
    {
        let length = terms[pair.0 as usize].calls + terms[pair.1 as usize].calls;
        if f64::from(count) * f64::from(length) < LEAST_JOIN * calls as f64 {
            break;
        }
        terms.push(Term {
            word: None,
            of: pair,
            calls: length,
        });
        let new = terms.len() as u16 - 1;
        join(&mut said, pair, new);
        joined += 1;
    }
    let mut times = vec![vec![0u64; parts]; terms.len()];
    for &(term, part) in &said {
        times[term as usize][usize::from(part)] += 1;
    }
    let least = |term: usize| {
        let resizes = matches!(terms[term].word, Some((Deed::Resize, ..)));
        let share = if resizes { LEAST_RESIZE } else { LEAST_SINGLE };
        (share * calls as f64) as u64
    };
    keep(&terms, &mut times, most, &least);
    let covered = |term: usize| times[term].iter().sum::<u64>() * u64::from(terms[term].calls);
    let mut told: Vec<usize> = (1..terms.len())
        .filter(|&term| covered(term) > least(term))
        .collect();
    // Single calls may be more than there is room for.
    told.sort_by_key(|&term| (std::cmp::Reverse(covered(term)), term));
    told.truncate(most);
    let kept: Vec<bool> = (0..terms.len()).map(|term| told.contains(&term)).collect();
    let mut pairs = pairs(&said, &terms, &kept);
    let phrases = (1..terms.len()).filter(|&term| kept[term]).map(|term| {
        let mut words = Vec::new();
        spell_out(&terms, term as u16, &mut words);
        Phrase {
            term: term as u16,
            words,
            then: followers(pairs.remove(&(term as u16)).unwrap_or_default()),
            times: std::mem::take(&mut times[term]),
        }
    });
    Phrases {
        phrases: phrases.collect(),
        redrawn: redrawn(threads, &named),
        named,
    }
}

/// Of the sizes that are not named, the share that was another one when the calls before it came again.
fn redrawn(threads: &[&[Said]], named: &[u32]) -> f64 {
    let (mut again, mut others) = (0u64, 0u64);
    for calls in threads {
        let words: Vec<Word> = calls.iter().map(|said| word_of(said, named)).collect();
        let mut last: HashMap<&[Word], u32> = HashMap::new();
        for (at, said) in calls.iter().enumerate().skip(STRETCH) {
            let drawn = matches!(said.deed, Deed::Allocate(_)) && said.size > 0 && words[at].2 == 0;
            if drawn && let Some(before) = last.insert(&words[at - STRETCH..=at], said.size) {
                again += 1;
                others += u64::from(before != said.size);
            }
        }
    }
    others as f64 / again.max(1) as f64
}

/// A call as phrases have it.
fn word_of(said: &Said, named: &[u32]) -> Word {
    let size = match (said.deed, named.binary_search(&said.size)) {
        // Ranks are few.
        (Deed::Free, _) | (_, Ok(_)) => said.size,
        _ => 0,
    };
    (said.deed, said.class, size)
}

/// Sizes that are said: frequent ones of classes in which the size can be known from the calls before.
fn frequent_sizes(threads: &[&[Said]]) -> Vec<u32> {
    let mut counts: BTreeMap<(u8, u32), u64> = BTreeMap::new();
    // By class: allocations, and those whose size was the same after the same calls the last time.
    let mut known: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
    let mut all = 0u64;
    for calls in threads {
        let mut last: HashMap<[Said; CONTEXT], u32> = HashMap::new();
        for (at, said) in calls.iter().enumerate() {
            if !matches!(said.deed, Deed::Allocate(_)) || said.size == 0 {
                continue;
            }
            *counts.entry((said.class, said.size)).or_default() += 1;
            all += 1;
            let Some(before) = at
                .checked_sub(CONTEXT)
                .and_then(|from| calls[from..at].try_into().ok())
            else {
                continue;
            };
            let of = known.entry(said.class).or_default();
            of.0 += 1;
            of.1 += u64::from(last.insert(before, said.size) == Some(said.size));
        }
    }
    let least = FREQUENT * all as f64;
    let mut same: BTreeMap<u8, (f64, f64)> = BTreeMap::new();
    for (&(class, _), &count) in &counts {
        let of = same.entry(class).or_default();
        of.0 += count as f64;
        of.1 += (count as f64).powi(2);
    }
    let orderly = |class: u8| {
        // What chance would hit.
        let (sum, squares) = same[&class];
        let chance = squares / sum / sum;
        let (all, hits) = known.get(&class).copied().unwrap_or_default();
        let hits = hits as f64 / all.max(1) as f64;
        chance > EASY || hits - chance > ORDERLY * (1.0 - chance)
    };
    let mut named: Vec<u32> = (counts.iter())
        .filter(|((class, _), count)| **count as f64 >= least && orderly(*class))
        .map(|((_, size), _)| *size)
        .collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// The calls as terms, each with its part; term 0 is the break.
fn spell(threads: &[&[Said]], named: &[u32]) -> (Vec<Term>, Vec<(u16, u8)>) {
    let mut numbers: BTreeMap<Word, u16> = BTreeMap::new();
    let mut terms = vec![Term {
        word: None,
        of: (0, 0),
        calls: MOST_CALLS,
    }];
    let mut all = Vec::new();
    for calls in threads {
        let mut last = None;
        for said in calls.iter() {
            // Parts are told by their beginnings: what lies between two is not here.
            if last.is_some_and(|part| part != said.part) {
                all.push((BREAK, said.part));
            }
            last = Some(said.part);
            let word = word_of(said, named);
            let number = *numbers.entry(word).or_insert_with(|| {
                terms.push(Term {
                    word: Some(word),
                    of: (0, 0),
                    calls: 1,
                });
                terms.len() as u16 - 1
            });
            all.push((number, said.part));
        }
        all.push((BREAK, last.unwrap_or(0)));
    }
    (terms, all)
}

/// The pair that is met most often and may be joined; of several the first.
fn most_frequent(said: &[(u16, u8)], terms: &[Term]) -> Option<((u16, u16), u32)> {
    let count = terms.len();
    let mut counts = vec![0u32; count * count];
    let mut at = 0;
    while at + 1 < said.len() {
        let (left, right) = (said[at].0 as usize, said[at + 1].0 as usize);
        counts[left * count + right] += 1;
        // Three alike are one pair, not two.
        let three = left == right && said.get(at + 2).is_some_and(|next| next.0 as usize == left);
        at += if three { 2 } else { 1 };
    }
    let allowed = |pair: usize| {
        let (left, right) = (pair / count, pair % count);
        left != 0 && right != 0 && terms[left].calls + terms[right].calls <= MOST_CALLS
    };
    let (pair, &most) = (counts.iter().enumerate())
        .filter(|(pair, count)| **count > 1 && allowed(*pair))
        .max_by_key(|(pair, count)| (**count, std::cmp::Reverse(*pair)))?;
    Some((((pair / count) as u16, (pair % count) as u16), most))
}

/// Writes `new` in place of each `pair`.
fn join(said: &mut Vec<(u16, u8)>, pair: (u16, u16), new: u16) {
    let (mut from, mut to) = (0, 0);
    while from < said.len() {
        let (term, part) = said[from];
        let meets = term == pair.0 && said.get(from + 1).is_some_and(|next| next.0 == pair.1);
        said[to] = if meets { (new, part) } else { (term, part) };
        from += if meets { 2 } else { 1 };
        to += 1;
    }
    said.truncate(to);
}

/// Leaves the joined terms that cover most calls, `most` with the single ones that are told; the others are taken apart, the latest first.
fn keep(terms: &[Term], times: &mut [Vec<u64>], most: usize, least: &dyn Fn(usize) -> u64) {
    loop {
        let covered = |term: usize| times[term].iter().sum::<u64>() * u64::from(terms[term].calls);
        let (single, used): (Vec<usize>, Vec<usize>) = (1..terms.len())
            .filter(|&term| covered(term) > 0)
            .partition(|&term| terms[term].word.is_some());
        let singles = single
            .iter()
            .filter(|&&term| covered(term) > least(term))
            .count();
        if used.len() + singles <= most {
            return;
        }
        // In steps, because taking one apart makes others count more.
        let Some(&least) = used.iter().min_by_key(|&&term| (covered(term), term)) else {
            return;
        };
        let gone = std::mem::take(&mut times[least]);
        times[least] = vec![0; gone.len()];
        let (left, right) = terms[least].of;
        for child in [left, right] {
            for (mine, theirs) in times[child as usize].iter_mut().zip(&gone) {
                *mine += theirs;
            }
        }
    }
}

/// How often each kept term is followed by each other one.
fn pairs(said: &[(u16, u8)], terms: &[Term], kept: &[bool]) -> BTreeMap<u16, BTreeMap<u16, u64>> {
    let mut pairs: BTreeMap<u16, BTreeMap<u16, u64>> = BTreeMap::new();
    let mut last = None;
    let mut open = Vec::new();
    for &(term, _) in said {
        if term == BREAK {
            last = None;
            continue;
        }
        open.push(term);
        while let Some(term) = open.pop() {
            let about = &terms[term as usize];
            if kept[term as usize] {
                if let Some(before) = last.replace(term) {
                    *pairs.entry(before).or_default().entry(term).or_default() += 1;
                }
            } else if about.word.is_none() {
                open.extend([about.of.1, about.of.0]);
            }
        }
    }
    pairs
}

/// The most frequent of those that follow.
fn followers(counts: BTreeMap<u16, u64>) -> Vec<(u16, u32)> {
    let all: u64 = counts.values().sum();
    let mut shares: Vec<(u16, u32)> = (counts.into_iter())
        .map(|(term, count)| (term, (100 * count / all) as u32))
        .filter(|(_, share)| *share >= LEAST_SHARE)
        .collect();
    shares.sort_by_key(|&(term, share)| (std::cmp::Reverse(share), term));
    shares.truncate(MOST_FOLLOWERS);
    shares
}

fn spell_out(terms: &[Term], term: u16, words: &mut Vec<Word>) {
    let about = &terms[term as usize];
    match about.word {
        Some(word) => words.push(word),
        None => {
            spell_out(terms, about.of.0, words);
            spell_out(terms, about.of.1, words);
        }
    }
}

impl Phrase {
    /// The calls in the model's language.
    fn calls(&self, names: &[String]) -> String {
        let mut text = String::new();
        let mut at = 0;
        while at < self.words.len() {
            let word = self.words[at];
            let times = self.words[at..].iter().take_while(|w| **w == word).count();
            let (deed, class, size) = word;
            if !text.is_empty() {
                text.push(' ');
            }
            let _ = write!(text, "{}{}", deed.sign(), names[usize::from(class)]);
            if size > 0 {
                let _ = write!(text, ":{size}");
            }
            if times > 1 {
                let _ = write!(text, "*{times}");
            }
            at += times;
        }
        text
    }

    /// As an entry of `phrases`; of `calls` calls in each part as many as were heard of `heard`.
    pub fn text(&self, names: &[String], heard: &[u64], calls: &[u64]) -> String {
        let scale = |part: usize| calls[part] as f64 / heard[part].max(1) as f64;
        let weights: Vec<f64> = (self.times.iter().enumerate())
            .map(|(part, &times)| times as f64 * scale(part))
            .collect();
        let then: Vec<String> = (self.then.iter())
            .map(|(term, share)| format!("p{term}:{share}"))
            .collect();
        let weights: Vec<String> = weights
            .iter()
            .map(|weight| format!("{}", weight.round() as u64))
            .collect();
        format!(
            "    {{ name = \"p{}\", calls = \"{}\", then = \"{}\", weight = [{}] }},\n",
            self.term,
            self.calls(names),
            then.join(" "),
            weights.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::definition::{By, Way};

    /// A size is asked for after the same calls, a hundred times.
    fn rounds(size: impl Fn(u32) -> u32) -> Vec<Said> {
        let said = |deed, size| Said {
            deed,
            class: 0,
            part: 0,
            size,
        };
        let by = Way {
            by: By::Malloc,
            partly: false,
        };
        (0..100)
            .flat_map(|round| {
                let mut calls = vec![said(Deed::FreeNewest, 0); STRETCH];
                calls.push(said(Deed::Allocate(by), size(round)));
                calls
            })
            .collect()
    }

    #[test]
    fn sizes_that_are_others_after_the_same_calls_are_counted() {
        let share = |size: &dyn Fn(u32) -> u32, named: &[u32]| redrawn(&[&rounds(size)[..]], named);
        assert_eq!(share(&|_| 70, &[]), 0.0);
        assert_eq!(share(&|round| 70 + round, &[]), 1.0);
        assert_eq!(share(&|round| 70 + round / 3, &[]), 33.0 / 99.0);
        // Phrases name the size of each: nothing is drawn.
        assert_eq!(share(&|round| 70 + round % 2, &[70, 71]), 0.0);
    }
}
