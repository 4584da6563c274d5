//! Profiles from the command line: what is planted in a program is named by its function and its source line.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use support::{heaplab, run};

/// `lose` never frees 4 MiB (line 5), `storm` frees 200,000 blocks at once (line 8), `hold` keeps 16 MiB at the peak (line 14).
const C: &str = "\
#include <stdlib.h>
#include <string.h>
#define KEEP __attribute__((noinline, noclone))
KEEP void lose(int n) {
    while (n--) { volatile char *lost = malloc(4096); lost[0] = 1; } }
KEEP int storm(int n) {
    int sum = 0;
    while (n--) { char *text = malloc(48); strcpy(text, \"gone\"); sum += text[n % 4]; free(text); }
    return sum;
}
KEEP int hold(int n) {
    int sum = 0;
    char **kept = calloc(n, sizeof *kept);
    for (int i = 0; i < n; i++) { kept[i] = malloc(16384); kept[i][0] = 1; sum += kept[i][0]; }
    for (int i = 0; i < n; i++) free(kept[i]);
    free(kept);
    return sum;
}
int main(void) {
    lose(1024);
    int sum = storm(200000) + hold(1024);
    return sum == 0 ? 1 : 9;
}
";

/// The same in Rust, through its own types: a leaked vector (line 2), short-lived strings (line 6).
const RUST: &str = "\
#[inline(never)] fn lose(n: usize) {
    std::mem::forget(std::hint::black_box(Vec::<u8>::with_capacity(n)));
}
#[inline(never)] fn storm(n: usize) -> usize {
    (0..n).map(|at| {
        let text = format!(\"{at:0100}\");
        std::hint::black_box(&text).len()
    }).sum()
}
fn main() {
    for _ in 0..100 { lose(50_000); }
    assert!(storm(100_000) > 0);
    std::process::exit(3);
}
";

fn compile(folder: &Path, compiler: &str, name: &str, source: &str, flags: &[&str]) -> String {
    let file = folder.join(name);
    std::fs::write(&file, source).unwrap();
    let program = folder.join(name.split('.').next().unwrap());
    let built = Command::new(compiler)
        .args(flags)
        .arg("-o")
        .args([&program, &file])
        .status()
        .unwrap();
    assert!(built.success(), "{compiler} {flags:?} {name}");
    program.display().to_string()
}

fn profile(folder: &Path, out: &str) -> Value {
    let text = std::fs::read_to_string(folder.join(out).join("profile.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The site that has most of something.
fn top<'a>(profile: &'a Value, of: &str) -> &'a Value {
    let sites = profile["sites"].as_array().unwrap();
    let amount = |site: &&Value| site[of]["value"].as_f64().unwrap();
    sites
        .iter()
        .max_by(|a, b| amount(a).total_cmp(&amount(b)))
        .unwrap()
}

#[track_caller]
fn is_at(site: &Value, function: &str, file: &str, line: u64) {
    let found = (
        site["function"].as_str().unwrap(),
        site["file"].as_str().unwrap(),
        site["line"].as_u64().unwrap(),
    );
    assert!(
        found.0 == function && found.1.ends_with(file) && found.2 == line,
        "{found:?} is not {function} at {file}:{line}"
    );
}

#[test]
fn a_leak_a_storm_and_a_peak_in_c_are_named_by_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let program = compile(at, "cc", "lab.c", C, &["-O2", "-g"]);
    for (stacks, out) in [("full", "full"), ("sampled", "sampled")] {
        let (status, stdout, err) =
            run(heaplab(at).args(["profile", "--stacks", stacks, "-o", out, "--", &program]));
        assert_eq!(
            (status, stdout.as_str()),
            (9, ""),
            "the program's own status and output: {err}"
        );
        let found = profile(at, out);
        is_at(top(&found, "peak_bytes"), "hold", "lab.c", 14);
        is_at(top(&found, "leaked_bytes"), "lose", "lab.c", 5);
        is_at(top(&found, "short_lived_blocks"), "storm", "lab.c", 8);
        // Exact, however stacks were chosen.
        let totals = &found["totals"];
        assert_eq!(
            (&totals["leaked_bytes"], &totals["leaked_blocks"]),
            (&(4u64 << 20).into(), &1024.into()),
            "{totals}"
        );
        assert!(totals["short_lived_blocks"].as_u64().unwrap() >= 200_000);
        for part in [
            "LIVE AT THE PEAK",
            "ALLOCATED",
            "SHORT-LIVED",
            "NEVER FREED",
            "hold",
            "lab.c:14",
            "profile.html",
        ] {
            assert!(err.contains(part), "{part} in {err}");
        }
        for file in [
            "profile.html",
            "profile.pb.gz",
            "trace.hltrace",
            "flamegraph-peak.svg",
            "flamegraph-leaked.svg",
            "collapsed-allocated.txt",
        ] {
            assert!(at.join(out).join(file).is_file(), "{file}");
        }
        let page = std::fs::read_to_string(at.join(out).join("profile.html")).unwrap();
        assert!(
            page.contains("storm") && !page.contains("src=\"http") && !page.contains("href=\"http"),
            "self-contained"
        );
        let lines = std::fs::read_to_string(at.join(out).join("collapsed-leaked.txt")).unwrap();
        assert!(lines.contains("main;lose"), "{lines}");
    }
    let full = profile(at, "full");
    assert_eq!(
        top(&full, "leaked_bytes")["leaked_bytes"],
        serde_json::json!({ "value": (4u64 << 20) as f64 }),
        "exact, no error"
    );
    let sampled = profile(at, "sampled");
    let peak = &top(&sampled, "peak_bytes")["peak_bytes"];
    let (value, error) = (
        peak["value"].as_f64().unwrap(),
        peak["error95"].as_f64().unwrap(),
    );
    // Three times the 95 % interval: chance does not get there.
    assert!(
        error > 0.0 && (value - 16_777_216.0).abs() < 3.0 * error,
        "{peak}"
    );
}

#[test]
fn rust_programs_are_named_by_their_own_lines_not_the_librarys() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let program = compile(
        at,
        "rustc",
        "lab.rs",
        RUST,
        &["-O", "-g", "--edition", "2021"],
    );
    let (status, _, err) =
        run(heaplab(at).args(["profile", "--stacks", "full", "-o", "p", "--", &program]));
    assert_eq!(status, 3, "{err}");
    let found = profile(at, "p");
    let leak = top(&found, "leaked_bytes");
    is_at(leak, "lab::lose", "lab.rs", 2);
    assert_eq!(leak["leaked_blocks"]["value"], 100.0);
    let storm = top(&found, "short_lived_blocks");
    assert!(
        storm["function"]
            .as_str()
            .unwrap()
            .starts_with("lab::storm"),
        "{storm}"
    );
    assert_eq!(
        (
            storm["line"].as_u64(),
            storm["file"].as_str().unwrap().ends_with("lab.rs")
        ),
        (Some(6), true),
        "{storm}"
    );
}

/// A trace with its names is read where the program is not; anonymised it holds neither.
#[test]
fn names_travel_with_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let program = compile(at, "cc", "lab.c", C, &["-O2", "-g"]);
    let (status, _, err) = run(heaplab(at).args([
        "record",
        "--stacks",
        "full",
        "-o",
        "t.hltrace",
        "--",
        &program,
    ]));
    assert_eq!(status, 9, "{err}");
    let (status, _, err) =
        run(heaplab(at).args(["trace", "symbolise", "t.hltrace", "-o", "named.hltrace"]));
    assert_eq!(status, 0, "{err}");
    std::fs::remove_file(&program).unwrap();
    let top_leak = |trace: &str| {
        let (status, out, err) =
            run(heaplab(at).args(["profile", "--format", "json", "-o", "p", trace]));
        assert_eq!(status, 0, "{err}");
        top(
            &serde_json::from_str::<Value>(&out).unwrap(),
            "leaked_bytes",
        )
        .clone()
    };
    is_at(&top_leak("named.hltrace"), "lose", "lab.c", 5);
    let bare = top_leak("t.hltrace");
    assert!(
        bare["function"].as_str().unwrap().starts_with("lab+0x"),
        "{bare}"
    );
    let (status, out, err) = run(heaplab(at).args(["trace", "verify", "named.hltrace"]));
    assert_eq!((status, out.contains("whole")), (0, true), "{out}{err}");
    let (status, _, err) = run(heaplab(at).args([
        "trace",
        "anonymise",
        "named.hltrace",
        "-o",
        "shared.hltrace",
    ]));
    assert_eq!(status, 0, "{err}");
    let bytes = std::fs::read(at.join("shared.hltrace")).unwrap();
    for secret in ["lab", "lose", "storm"] {
        assert!(
            !bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes()),
            "{secret}"
        );
    }
    let (status, _, err) = run(heaplab(at).args(["profile", "-o", "q", "shared.hltrace"]));
    assert_eq!(status, 2);
    assert!(
        err.contains("holds no stacks") && err.contains("--stacks"),
        "{err}"
    );
}

#[test]
fn statuses_are_those_of_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (command, status) in [
        (&["/nowhere/program"][..], 127),
        (&["/etc/hostname"], 126),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
    ] {
        let (found, _, err) = run(heaplab(at).args(["profile", "-o", "p", "--"]).args(command));
        assert_eq!(found, status, "{command:?}: {err}");
    }
    let (status, _, err) = run(heaplab(at).args(["profile", "--stacks", "off", "--", "true"]));
    assert_eq!(status, 2);
    assert!(err.contains("needs stacks"), "{err}");
    let (status, _, err) = run(heaplab(at).args(["profile"]));
    assert_eq!((status, err.lines().count()), (2, 1), "{err}");
}

/// A process of a tree is named as `trace info` lists it.
#[test]
fn one_process_of_a_tree_is_profiled_by_its_pid() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let program = compile(at, "cc", "lab.c", C, &["-O2", "-g"]);
    let script = format!("true; {program}; ls");
    let (status, _, err) = run(heaplab(at)
        .args([
            "record",
            "--stacks",
            "full",
            "-o",
            "tree.hltrace",
            "--",
            "sh",
            "-c",
        ])
        .arg(&script));
    assert_eq!(status, 0, "{err}");
    let (_, info, _) = run(heaplab(at).args(["trace", "info", "tree.hltrace", "--format", "json"]));
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["stacks"]["mode"], "full");
    let table = info["process_table"].as_array().unwrap();
    let lab = table
        .iter()
        .find(|process| process["program"].as_str().unwrap().ends_with("lab"))
        .unwrap();
    let named = format!("tree.hltrace#{}", lab["pid"]);
    for (words, out) in [
        (vec![named.clone()], "one"),
        (
            vec![
                "tree.hltrace".into(),
                "--process".into(),
                lab["pid"].to_string(),
            ],
            "two",
        ),
    ] {
        let (status, _, err) = run(heaplab(at).args(["profile", "-o", out]).args(&words));
        assert_eq!(status, 0, "{err}");
        let found = profile(at, out);
        is_at(top(&found, "leaked_bytes"), "lose", "lab.c", 5);
        assert_eq!(found["totals"]["leaked_bytes"], 4 << 20);
    }
    let (status, _, err) = run(heaplab(at).args(["profile", "tree.hltrace#4000000000"]));
    assert!(
        status == 2 && err.contains("has no process '4000000000'"),
        "{err}"
    );
}
