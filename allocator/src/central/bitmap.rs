//! Objects as bits: which of a batch lie side by side and go into a word of a span's bitmap as one, and what is taken out of it, in the
//! order of addresses.

use crate::span::Span;
use core::ptr::with_exposed_provenance_mut;

/// Objects of this size at the two addresses lie side by side.
#[inline(always)]
pub(super) fn beside(object: *mut u8, other: *mut u8, size: usize) -> bool {
    (object as usize).abs_diff(other as usize) == size
}

/// How many of the `objects` lie each beside the one before, the first of them beside `object`, all on the same side and among
/// the `all` objects of a word of the bitmap, in which `object` is number `inside`; and the lowest number of them all.
#[inline(always)]
pub(super) fn neighbours(
    objects: &[*mut u8],
    object: *mut u8,
    size: usize,
    inside: usize,
    all: usize,
) -> (usize, usize) {
    let in_steps = |step: usize, most: usize| {
        let mut expected = object as usize;
        let others = &objects[..most.min(objects.len())];
        let is_next = |&&other: &&*mut u8| {
            expected = expected.wrapping_add(step);
            other as usize == expected
        };
        others.iter().take_while(is_next).count()
    };
    match objects.first() {
        Some(&next) if next as usize == object as usize + size => {
            (inside, in_steps(size, all - inside - 1))
        }
        Some(&next) if next as usize + size == object as usize => {
            let more = in_steps(size.wrapping_neg(), inside);
            (inside - more, more)
        }
        _ => (inside, 0),
    }
}

/// The object of a span with the lowest address, out of its bitmap: [`take_from`] for one, without counting how many there
/// are. Null: none is available.
///
/// # Safety
/// The caller holds the lock of the span's class.
pub(super) unsafe fn take_first(span: *mut Span) -> *mut u8 {
    // SAFETY: the caller's duty; set bits stand for objects, so this one is in the span.
    unsafe {
        for index in 0..(*span).words() {
            let place = (*span).bits.add(index);
            let word = *place;
            if word == 0 {
                continue;
            }
            *place = word & (word - 1);
            let number = index * 64 + word.trailing_zeros() as usize;
            (*span).hand_out(number as u16 + 1);
            (*span).until_notice += 1;
            return with_exposed_provenance_mut((*span).origin + number * (*span).size());
        }
    }
    core::ptr::null_mut()
}

/// A word of a bitmap with so many bits set has long runs of them.
const DENSE: u32 = 48;

/// Moves objects of a span to `objects`, as many as there are and fit, in address order. Returns how many they are.
///
/// # Safety
/// The caller holds the lock of the span's class.
pub(super) unsafe fn take_from(span: *mut Span, objects: &mut [*mut u8]) -> usize {
    let mut got = 0;
    // SAFETY: the caller's duty; set bits stand for objects, so these are in the span.
    unsafe {
        let size = (*span).size();
        for index in 0..(*span).words() {
            let before = *(*span).bits.add(index);
            if before == 0 {
                continue;
            }
            let start = (*span).origin + index * 64 * size;
            let mut word = before;
            let set = word.count_ones();
            let most = (set as usize).min(objects.len() - got);
            let places = &mut objects[got..got + most];
            if set >= DENSE {
                take_runs(&mut word, start, size, places);
            } else {
                for place in places {
                    let object = start + word.trailing_zeros() as usize * size;
                    *place = with_exposed_provenance_mut(object);
                    word &= word - 1;
                }
            }
            *(*span).bits.add(index) = word;
            got += most;
            // What was taken last is the highest so far.
            let end = (index + 1) * 64 - (before & !word).leading_zeros() as usize;
            (*span).hand_out(end as u16);
            if got == objects.len() {
                break;
            }
        }
        (*span).until_notice += got as i32;
    }
    got
}

/// Takes as many bits out of `word` as there are `places`, which are no more, run by run: the objects are of `size`, bit
/// 0 stands for the one at `start`.
fn take_runs(word: &mut u64, start: usize, size: usize, mut places: &mut [*mut u8]) {
    while !places.is_empty() {
        let first = word.trailing_zeros();
        let run = ((*word >> first).trailing_ones() as usize).min(places.len());
        let (these, others) = places.split_at_mut(run);
        let mut object = start + first as usize * size;
        for place in these {
            *place = with_exposed_provenance_mut(object);
            object += size;
        }
        *word &= !(u64::MAX >> (64 - run) << first);
        places = others;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::heap_tests::Random;

    #[test]
    fn neighbours_are_those_on_one_side_up_to_the_end_of_the_word() {
        let mut random = Random::new(1);
        for round in 0..20_000 {
            let size = 16 * (1 + random.below(8));
            let all = 1 + random.below(64);
            // Numbers that go up, down or anywhere, also beyond the word.
            let mut at = random.below(all) as isize;
            let numbers: Vec<isize> = (0..1 + random.below(70))
                .scan(1, |step, _| {
                    let number = at;
                    match random.below(20) {
                        0 => *step = 1,
                        1 => *step = -1,
                        2 => at = random.below(all) as isize,
                        _ => {}
                    }
                    at += *step;
                    Some(number)
                })
                .collect();
            let start = 1 << 20;
            let objects: Vec<*mut u8> = numbers
                .iter()
                .map(|&number| {
                    with_exposed_provenance_mut((start + number * size as isize).cast_unsigned())
                })
                .collect();
            let inside = numbers[0];
            let follow = |step: isize| {
                (1..numbers.len())
                    .take_while(|&n| {
                        let number = inside + step * n as isize;
                        numbers[n] == number && (0..all as isize).contains(&number)
                    })
                    .count()
            };
            let (up, down) = (follow(1), follow(-1));
            let expected = (inside as usize - down, up + down);
            let found = neighbours(&objects[1..], objects[0], size, inside as usize, all);
            assert_eq!(found, expected, "round {round}: {numbers:?} of {all}");
        }
    }
}
