//! Which bytes of a block each touch policy writes, told by a library that looks at them when they are freed.

use crate::support::{bad_library, reported, run, spec};
use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{Op, OpKind};
use heaplab_worker::protocol::{Measure, Mode, RunSpec, Touch};
use std::path::Path;

/// Begins 16 bytes behind a page's begin: its pages begin at 4,080, 8,176 and so on.
const SIZE: usize = 20_000;
const PAGES: [usize; 5] = [0, 4_080, 8_176, 12_272, 16_368];
/// Of a block of that size so many are written, where a script tells.
const REACH: usize = 9_000;

/// One block, of which nothing is told or of which [`REACH`] bytes were written.
fn one(path: &Path, told: bool) {
    let mut script = ScriptWriter::create(path, 1).unwrap();
    let mut ops = vec![
        Op::new(OpKind::Malloc, 0, 0, 0, SIZE as u64, 0),
        Op::new(OpKind::Free, 0, 0, 0, SIZE as u64, 0),
    ];
    if told {
        ops.insert(0, Op::new(OpKind::Written, 0, 0, 0, REACH as u64, 0));
    }
    for op in &ops {
        script.push(0, *op).unwrap();
    }
    script.order(0, ops.len() as u32).unwrap();
    script
        .finish(ScriptInfo {
            private_slots: 1,
            ..ScriptInfo::default()
        })
        .unwrap();
}

/// The bytes that are not as the library left them.
fn written(folder: &Path, touch: Touch, told: bool, integrity: bool) -> Vec<usize> {
    let script = folder.join("s");
    one(&script, told);
    // Each byte changed: one bit, in hexadecimal digits.
    let library = bad_library(
        folder,
        &format!(
            "static char *block, out[{SIZE} / 4 + 1];\n\
             static void *come(size_t s) {{ if (s != {SIZE}) return __libc_malloc(s);\n\
               block = (char *)__libc_memalign(4096, s + 16) + 16; memset(block, 0x11, s); return block; }}\n\
             static void go(char *p) {{ if (!block || p != block) {{ __libc_free(p); return; }}\n\
               for (int i = 0; i < {SIZE} / 4; i++) {{ int digit = 0;\n\
                 for (int b = 0; b < 4; b++) digit |= (p[4 * i + b] != 0x11) << b; out[i] = \"0123456789abcdef\"[digit]; }}\n\
               __libc_free(p - 16); }}\n\
             #define MALLOC(s) come(s)\n#define FREE(p) go(p)\n\
             size_t heaplab_subject_describe(char *t, size_t n) {{ memcpy(t, \"written=\", 8); memcpy(t + 8, out, sizeof out - 1);\n\
               return 8 + sizeof out - 1; }}"
        ),
    );
    let spec = RunSpec {
        touch,
        integrity,
        ..spec(&script, Measure::Speed, Mode::Fast)
    };
    let report = reported(run(&spec, Some(&library)));
    let digits = &report.subject.settings["written"];
    assert_eq!(digits.len(), SIZE / 4);
    digits
        .chars()
        .enumerate()
        .flat_map(|(at, digit)| {
            let bits = digit.to_digit(16).unwrap();
            (0..4)
                .filter(move |bit| bits >> bit & 1 != 0)
                .map(move |bit| 4 * at + bit)
        })
        .collect()
}

#[test]
fn each_policy_writes_its_bytes_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<usize> = (0..SIZE).collect();
    let reached: Vec<usize> = PAGES.into_iter().filter(|at| *at < REACH).collect();
    for (touch, told, wanted) in [
        (Touch::None, false, &[][..]),
        (Touch::First, false, &PAGES[..1]),
        (Touch::Page, false, &PAGES),
        (Touch::Page, true, &PAGES),
        (Touch::Recorded, false, &PAGES),
        (Touch::Recorded, true, &reached),
        (Touch::All, false, &all),
    ] {
        assert_eq!(
            written(folder.path(), touch, told, false),
            wanted,
            "{touch:?}, told: {told}"
        );
    }
}

/// The pattern of the checks stands in the first eight bytes, and from `page` on in the last eight that may be written; a byte of it may
/// by chance be what was there.
#[test]
fn beside_the_checks_pattern_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (touch, told, end) in [
        (Touch::None, false, None),
        (Touch::First, false, None),
        (Touch::Page, false, Some(SIZE)),
        (Touch::Recorded, false, Some(SIZE)),
        (Touch::Recorded, true, Some(REACH)),
        (Touch::All, false, Some(SIZE)),
    ] {
        let found = written(folder.path(), touch, told, true);
        let pattern = |at: usize| at < 8 || end.is_some_and(|end| (end - 8..end).contains(&at));
        let beside: Vec<usize> = found.iter().copied().filter(|at| !pattern(*at)).collect();
        let end = end.unwrap_or(0);
        let wanted: Vec<usize> = match touch {
            Touch::None => Vec::new(),
            Touch::All => (8..SIZE - 8).collect(),
            Touch::First => vec![8],
            _ => (std::iter::once(8).chain(PAGES.into_iter().skip(1)))
                .filter(|at| *at < end)
                .collect(),
        };
        assert_eq!(beside, wanted, "{touch:?}, told: {told}");
        let patterns = found.len() - beside.len();
        assert!(patterns >= 4, "{touch:?}: {patterns} bytes of the pattern");
    }
}
