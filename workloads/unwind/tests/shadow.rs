//! A walk that is shortened by what is remembered sees what a whole walk sees, whatever has happened to the stack since.

use heaplab_unwind::{REMEMBERED, Registers, Row, Shadow, Stack, walk};

const BASE: u64 = 0x7fff_0000;

struct Words(Vec<u64>);

impl Stack for Words {
    fn word(&self, address: u64) -> Option<u64> {
        let at = address.checked_sub(BASE)?;
        if !at.is_multiple_of(8) {
            return None;
        }
        self.0.get((at / 8) as usize).copied()
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) % bound
    }
}

/// The row of an address: 64 different ones, of every kind.
fn row(pc: u64) -> Row {
    let pc = pc % 64;
    let words = |count: u64| 8 * count as i64;
    let row = match pc % 16 {
        0 => return Row::END,
        1 if pc < 32 => return Row::SIGNAL,
        2 | 3 => return Row::CHAIN,
        4 => Row::at_rbp(-8, Some(-16)),
        5 | 6 => Row::from_rbp(16, Some(-16)),
        7 | 8 => Row::from_rsp(words(1 + pc / 16), Some(-16)),
        _ => Row::from_rsp(words(1 + pc / 16), None),
    };
    row.expect("small offsets")
}

/// Compares on a stack of this many words, of which some change between walks.
fn compare(seed: u64, words: u64, walks: u32, limit: u32) -> (u32, u32) {
    let mut random = Random(seed);
    let word = |random: &mut Random| match random.below(8) {
        // A return address, as `CHAIN` believes none below a page.
        0..=3 => 0x1000 + random.below(64),
        4 => 1 + random.below(64),
        5 => random.below(1 << 40),
        _ => BASE + 8 * random.below(words),
    };
    let mut stack = Words((0..words).map(|_| word(&mut random)).collect());
    let mut shadow = Shadow::new();
    let (mut deepest, mut most) = (0, 0);
    let mut first = Registers {
        pc: 9,
        sp: BASE,
        bp: BASE + 16,
    };
    for _ in 0..walks {
        if random.below(4) == 0 {
            first = Registers {
                pc: 0x1000 + random.below(64),
                sp: BASE + 8 * random.below(words.min(40)),
                bp: BASE + 8 * random.below(words),
            };
        }
        for _ in 0..random.below(3) {
            let at = random.below(words) as usize;
            stack.0[at] = word(&mut random);
        }
        let code = random.below(200) / 199;
        let rows = |pc: u64| match code {
            0 => row(pc),
            _ => row(pc ^ 8),
        };
        let whole = walk(&stack, first, limit, rows, |_| {});
        let mut asked = 0;
        let short = shadow.walk(&stack, first, limit, code, |pc| {
            asked += 1;
            rows(pc)
        });
        assert_eq!(
            short.hash.value(0),
            whole.hash.value(0),
            "seed {seed}, {first:x?}"
        );
        assert_eq!(
            (short.frames, short.cut),
            (whole.frames, whole.cut),
            "seed {seed}"
        );
        deepest = deepest.max(whole.frames);
        most = most.max(whole.frames.saturating_sub(asked));
    }
    (deepest, most)
}

#[test]
fn a_shortened_walk_is_the_whole_walk() {
    let (mut deepest, mut most) = (0, 0);
    for seed in 0..400 {
        for (words, limit) in [(30, 128), (300, 128), (300, 9), (900, 128)] {
            let (depth, saved) = compare(seed, words, 100, limit);
            (deepest, most) = (deepest.max(depth), most.max(saved));
        }
    }
    // The test tests something: deep stacks were met, and most of them was not walked again.
    assert!(
        deepest > 24 && most > 16,
        "{deepest} frames, {most} of them remembered"
    );
}

/// Frames of 32 bytes from the outermost, each with its own return address; those that `changed` names have another.
fn chain(depth: u64, changed: &[u64]) -> (Words, Registers) {
    let mut words = vec![0; 4 * depth as usize];
    for frame in 0..depth {
        // The frame's caller's address lies at its top; the outermost returns into `END`.
        let outward = depth - 1 - frame;
        let back = match (frame, changed.contains(&frame)) {
            (0, _) => 0x1000,
            (_, false) => 0x1039,
            (_, true) => 0x103a,
        };
        words[4 * outward as usize + 3] = back + 1;
    }
    let first = Registers {
        pc: 0x1039,
        sp: BASE,
        bp: 0,
    };
    (Words(words), first)
}

#[test]
fn an_equal_stack_is_not_walked_and_a_change_is_seen_wherever_it_is() {
    for depth in [2u64, 20, 47, 48, 100] {
        let mut shadow = Shadow::new();
        let mut ask = |stack: &Words, first| {
            let mut asked = 0;
            let walked = shadow.walk(stack, first, 128, 0, |pc| {
                asked += 1;
                row(pc)
            });
            let whole = walk(stack, first, 128, row, |_| {});
            assert_eq!(walked.frames, whole.frames);
            assert_eq!(walked.hash.value(0), whole.hash.value(0));
            (whole.frames, asked)
        };
        let (stack, first) = chain(depth, &[]);
        ask(&stack, first);
        let (frames, asked) = ask(&stack, first);
        assert_eq!(u64::from(frames), depth + 1);
        let remembered = frames.min(REMEMBERED as u32);
        assert_eq!(asked, frames - remembered, "of {frames} frames");
        for at in 1..depth {
            let (changed, first) = chain(depth, &[at]);
            ask(&changed, first);
            // Of deeper stacks half of what there is room for may be enough.
            let most = match remembered == frames {
                true => 0,
                false => frames - remembered / 2,
            };
            assert!(ask(&changed, first).1 <= most, "{at} of {depth}");
            ask(&stack, first);
        }
    }
}
