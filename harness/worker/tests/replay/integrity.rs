//! Libraries that break a rule each, and one that is not in force.

use crate::support::{bad_library, handed_over, run, single, spec};
use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{Op, OpKind};
use heaplab_worker::protocol::{Answer, Measure, Mode, RunSpec};
use std::path::Path;

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
        (
            "#define CALLOC(a, b) ((char *)memset((char *)memset(__libc_malloc((a) * (b)), 0, (a) * (b)) + (a) * (b) / 2, 1, 1) - (a) * (b) / 2)",
            "is not zeroed",
        ),
        ("#define REALLOC(p, s) __libc_calloc(1, s)", "lost contents"),
        (
            "#define ALIGNED(a, s) ((char *)__libc_memalign(a, s + 16) + 16)\n#define FREE(p)",
            "misaligned block",
        ),
        (
            // A block that begins in the last bytes of the one before.
            "static char *at, *end;\n#define MALLOC(s) bad(s)\n#define FREE(p)\n\
             static void *bad(size_t s) { s = (s + 15) & ~15; if (end - at < (long)s + 16) { at = sbrk(1 << 20); end = at + (1 << 20); }\
             char *b = at; at += s; if (n % 50 == 0 && s >= 16) at -= 16; return b; }",
            "overlapping blocks",
        ),
        (
            // The last bytes of a block are overwritten.
            "static size_t size; static void *bad(size_t s) { if (last && size > 64) memset(last + size - 4, 7, 4);\
             size = s; return last = __libc_malloc(s); }\n#define MALLOC(s) bad(s)\n#define FREE(p)",
            "contents of a block",
        ),
        (
            "#define REALLOC(p, s) 0",
            "realloc of 9,000 bytes returned null",
        ),
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
        caught(&script, &library, wanted);
    }
}

/// A replay with checks under a library that breaks a rule ends with a reason that says so.
fn caught(script: &Path, library: &Path, wanted: &str) {
    let spec = RunSpec {
        integrity: true,
        expect_library: Some(library.to_owned()),
        ..spec(script, Measure::Speed, Mode::Fast)
    };
    match run(&spec, Some(library)) {
        Answer::Failed { reason } => assert!(reason.contains(wanted), "{wanted}: {reason}"),
        Answer::Ok(_) => panic!("{wanted}: not caught"),
    }
}

#[test]
fn a_block_that_is_never_freed_is_checked_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    let mut writer = ScriptWriter::create(&script, 1).unwrap();
    for slot in 0..2 {
        let op = Op::new(OpKind::Malloc, 0, 0, slot, 100, 0);
        writer.push(0, op).unwrap();
    }
    writer.order(0, 2).unwrap();
    let info = ScriptInfo {
        private_slots: 2,
        ..ScriptInfo::default()
    };
    writer.finish(info).unwrap();
    let library = bad_library(
        folder.path(),
        "static void *bad(size_t s) { if (s != 100) return __libc_malloc(s);\
         if (last) memset(last, 7, 8); return last = __libc_malloc(s); }\n#define MALLOC(s) bad(s)",
    );
    caught(&script, &library, "never freed changed");
}

/// Blocks that another thread frees are checked by whoever frees them.
#[test]
fn violations_of_handed_over_blocks_are_caught() {
    for (body, wanted) in [
        (
            "#define FREE(p)\n#define MALLOC(s) (n % 50 && last ? (last = __libc_malloc(s)) : last ? last : (last = __libc_malloc(s)))",
            "overlapping blocks",
        ),
        (
            "static void *bad(size_t s) { char *b = __libc_malloc(s); if (s > 100 && s < 110) { if (last) memset(last, 7, 8); last = b; }\
             return b; }\n#define MALLOC(s) bad(s)\n#define FREE(p)",
            "contents of a block",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("s");
        handed_over(&script, 4, 100);
        let library = bad_library(folder.path(), body);
        caught(&script, &library, wanted);
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
