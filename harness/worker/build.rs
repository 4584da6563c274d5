//! Lets the loader find the functions by which the worker shows a subject another machine (`src/shape.rs`, `src/steady.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in [
        "sched_getaffinity",
        "pthread_getaffinity_np",
        "sysconf",
        "get_nprocs",
        "get_nprocs_conf",
        "mmap",
        "mmap64",
        "clock_gettime",
        "getrandom",
        "syscall",
    ] {
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
    }
}
