//! Small scripts, libraries made for a test, and the worker that replays the ones under the others.

use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{FLAG_SHARED, Op, OpKind};
use heaplab_worker::protocol::{Answer, Api, Measure, Mode, Report, RunSpec, SubjectProof, Touch};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thread: `rounds` times 64 blocks of mixed sizes, one of them grown, freed in another order.
pub fn single(path: &Path, rounds: u64) {
    let mut script = ScriptWriter::create(path, 1).unwrap();
    let mut count = 0;
    let mut push = |op| {
        script.push(0, op).unwrap();
        count += 1;
    };
    for round in 0..rounds {
        for slot in 0..64u32 {
            let size = (u64::from(slot) * 37 + round * 11) % 3000;
            let (kind, align) = match slot % 8 {
                1 => (OpKind::Calloc, 0),
                2 => (OpKind::AlignedAlloc, 7),
                _ => (OpKind::Malloc, 0),
            };
            push(Op::new(kind, 0, 0, slot, size, align));
        }
        push(Op::new(OpKind::Realloc, 0, 0, 3, 9000, 0));
        for slot in (0..64u32).rev() {
            let size = (u64::from(slot) * 37 + round * 11) % 3000;
            let size = if slot == 3 { 9000 } else { size };
            push(Op::new(
                OpKind::Free,
                0,
                0,
                slot,
                size,
                if slot % 8 == 2 { 7 } else { 0 },
            ));
        }
    }
    script.order(0, count).unwrap();
    script
        .finish(ScriptInfo {
            private_slots: 64,
            ..ScriptInfo::default()
        })
        .unwrap();
}

/// Thread 0 starts all others and hands blocks to each in turn; they free them and end.
pub fn handed_over(path: &Path, threads: u32, blocks: u16) {
    let mut script = ScriptWriter::create(path, threads).unwrap();
    for thread in 1..threads {
        script
            .push(0, Op::new(OpKind::ThreadStart, 0, 0, thread, 0, 0))
            .unwrap();
        script.order(0, 1).unwrap();
    }
    for generation in 0..blocks {
        for thread in 1..threads {
            let size = 100 + u64::from(thread);
            script
                .push(
                    0,
                    Op::new(OpKind::Malloc, FLAG_SHARED, generation, thread - 1, size, 0),
                )
                .unwrap();
            script.order(0, 1).unwrap();
            script
                .push(
                    thread,
                    Op::new(OpKind::Free, FLAG_SHARED, generation, thread - 1, size, 0),
                )
                .unwrap();
            script.order(thread, 1).unwrap();
        }
    }
    script
        .finish(ScriptInfo {
            shared_slots: threads - 1,
            ..ScriptInfo::default()
        })
        .unwrap();
}

/// Thread 0 makes `pairs` blocks of 1,000 bytes come and go, 2 µs apart, and starts a thread that stays with a block.
pub fn timed(path: &Path, pairs: u64) {
    let mut script = ScriptWriter::create(path, 2).unwrap();
    script.timed();
    script.stays(1).unwrap();
    let mut push = |thread, op, ns| {
        script.push(thread, op).unwrap();
        script.time(thread, ns).unwrap();
        script.order(thread, 1).unwrap();
    };
    push(0, Op::new(OpKind::ThreadStart, 0, 0, 1, 0, 0), 0);
    push(1, Op::new(OpKind::Malloc, 0, 0, 8, 5000, 0), 0);
    for pair in 0..pairs {
        let at = pair * 4_000;
        push(0, Op::new(OpKind::Malloc, 0, 0, 0, 1000, 0), at);
        push(0, Op::new(OpKind::Free, 0, 0, 0, 1000, 0), at + 2_000);
    }
    script
        .finish(ScriptInfo {
            private_slots: 16,
            ..ScriptInfo::default()
        })
        .unwrap();
}

pub fn spec(script: &Path, measure: Measure, mode: Mode) -> RunSpec {
    RunSpec {
        mode,
        touch: Touch::Page,
        api: Api::Malloc,
        integrity: false,
        samples: 50,
        ..RunSpec::new(script.to_owned(), measure)
    }
}

pub fn run(spec: &RunSpec, library: Option<&Path>) -> Answer {
    run_in(spec, library, &[])
}

/// With variables of the environment, as the harness sets them.
pub fn run_in(spec: &RunSpec, library: Option<&Path>, variables: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaplab-worker"));
    command
        .arg(serde_json::to_string(spec).unwrap())
        .env_clear()
        .envs(variables.iter().copied());
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

pub fn report(spec: &RunSpec) -> Report {
    reported(run(spec, None))
}

/// With the clock and the random numbers of a memory run.
pub fn steady(spec: &RunSpec, library: &Path) -> Report {
    let variables = [("HEAPLAB_CLOCK", "still"), ("HEAPLAB_RANDOM", "fixed")];
    reported(run_in(spec, Some(library), &variables))
}

pub fn reported(answer: Answer) -> Report {
    match answer {
        Answer::Ok(report) => *report,
        Answer::Failed { reason } => panic!("{reason}"),
    }
}

/// Compiles a library that forwards to glibc's own entry points except for what `body` does wrong.
pub fn bad_library(folder: &Path, body: &str) -> PathBuf {
    let (source, library) = (folder.join("bad.c"), folder.join("libbad.so"));
    let text = format!(
        "#define _GNU_SOURCE\n#include <stddef.h>\n#include <string.h>\n#include <unistd.h>\n\
         extern void *__libc_malloc(size_t); extern void __libc_free(void *);\n\
         extern void *__libc_calloc(size_t, size_t); extern void *__libc_realloc(void *, size_t);\n\
         extern void *__libc_memalign(size_t, size_t);\n\
         static unsigned long n; static char *last;\n{body}\n\
         #ifndef MALLOC\n#define MALLOC(s) __libc_malloc(s)\n#endif\n\
         #ifndef CALLOC\n#define CALLOC(a, b) __libc_calloc(a, b)\n#endif\n\
         #ifndef REALLOC\n#define REALLOC(p, s) __libc_realloc(p, s)\n#endif\n\
         #ifndef FREE\n#define FREE(p) __libc_free(p)\n#endif\n\
         #ifndef ALIGNED\n#define ALIGNED(a, s) __libc_memalign(a, s)\n#endif\n\
         void *malloc(size_t s) {{ n++; return MALLOC(s); }}\n\
         void *calloc(size_t a, size_t b) {{ return CALLOC(a, b); }}\n\
         void *realloc(void *p, size_t s) {{ return REALLOC(p, s); }}\n\
         void *aligned_alloc(size_t a, size_t s) {{ return ALIGNED(a, s); }}\n\
         void free(void *p) {{ FREE(p); }}\n"
    );
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-fno-builtin", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(built.success());
    library
}

/// A library that counts its calls and tells the number as its setting `calls`.
pub fn counting_library(folder: &Path) -> PathBuf {
    bad_library(
        folder,
        "#include <stdio.h>\nstatic unsigned long c;\n\
         #define COUNT __atomic_add_fetch(&c, 1, __ATOMIC_RELAXED)\n\
         size_t heaplab_subject_describe(char *b, size_t n) { return snprintf(b, n, \"version=1\\ncalls=%lu\\n\", c); }\n\
         #define MALLOC(s) (COUNT, __libc_malloc(s))\n\
         #define CALLOC(a, b) (COUNT, __libc_calloc(a, b))\n\
         #define REALLOC(p, s) (COUNT, __libc_realloc(p, s))\n\
         #define FREE(p) if (p) COUNT; __libc_free(p)",
    )
}

pub fn calls_counted(proof: &SubjectProof) -> u64 {
    proof.settings["calls"].parse().unwrap()
}
