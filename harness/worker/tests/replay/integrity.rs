//! Libraries that break a rule each, and one that is not in force.

use crate::support::{bad_library, run, single, spec};
use heaplab_worker::protocol::{Answer, Measure, Mode, RunSpec};

#[test]
fn each_violation_is_caught_and_named() {
    let cases = [
        (
            "static void *bad(size_t s) { if (n % 50 == 0 && last) return last; return last = __libc_malloc(s < 4096 ? 4096 : s); }\n#define MALLOC(s) bad(s)\n#define FREE(p)",
            "overlapping blocks",
        ),
        (
            "#define MALLOC(s) (n % 50 ? __libc_malloc(s) : (char *)__libc_malloc(s + 16) + 1)\n#define FREE(p)",
            "misaligned block",
        ),
        (
            "#define CALLOC(a, b) memset(__libc_malloc((a) * (b)), 1, (a) * (b))",
            "is not zeroed",
        ),
        ("#define REALLOC(p, s) __libc_calloc(1, s)", "lost contents"),
        (
            "static void *bad(size_t s) { if (last) memset(last, 7, 8); return last = __libc_malloc(s < 64 ? 64 : s); }\n#define MALLOC(s) bad(s)\n#define FREE(p)",
            "contents of a block",
        ),
        (
            "#define MALLOC(s) (n % 50 ? __libc_malloc(s) : 0)",
            "returned null",
        ),
        (
            "size_t malloc_usable_size(void *p) { return p ? 1 : 0; }",
            "malloc_usable_size gives 1",
        ),
    ];
    for (body, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("s");
        single(&script, 20);
        let library = bad_library(folder.path(), body);
        let spec = RunSpec {
            integrity: true,
            expect_library: Some(library.clone()),
            ..spec(&script, Measure::Speed, Mode::Fast)
        };
        match run(&spec, Some(&library)) {
            Answer::Failed { reason } => assert!(reason.contains(wanted), "{wanted}: {reason}"),
            Answer::Ok(_) => panic!("{wanted}: not caught"),
        }
    }
}

#[test]
fn a_library_that_is_not_in_force_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    single(&script, 1);
    let spec = RunSpec {
        expect_library: Some("/nowhere/libother.so".into()),
        ..spec(&script, Measure::Speed, Mode::Fast)
    };
    assert!(
        matches!(run(&spec, None), Answer::Failed { reason } if reason.contains("/nowhere/libother.so"))
    );
}
