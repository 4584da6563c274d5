//! The scripts that people run by hand say what they are for, and what is missing, before they begin anything long.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any answer takes, and shorter than what the scripts are for.
const LIMIT: Duration = Duration::from_secs(20);

/// Scripts of `ci`, of `ci/nightly` and the one that makes `VALIDATION.md`.
fn scripts() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("../harness/docs/validate.sh")];
    for folder in [root.clone(), root.join("nightly")] {
        for entry in fs::read_dir(folder).expect("the folder of the package") {
            let entry = entry.expect("an entry");
            let meta = entry.metadata().expect("what it is");
            if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
                found.push(entry.path());
            }
        }
    }
    assert!(found.len() > 10, "{found:?}");
    found
}

/// What the script answers; one that has begun to work is ended.
fn ask(script: &PathBuf, arguments: &[&str]) -> Output {
    let mut child = Command::new(script)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let begun = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begun.elapsed() > LIMIT {
            child.kill().expect("a child");
            panic!("{} {arguments:?} began to work", script.display());
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("what it said")
}

#[test]
fn every_script_says_what_it_is_for() {
    for script in scripts() {
        let answer = ask(&script, &["--help"]);
        let name = script.file_name().expect("a name").to_string_lossy();
        let text = String::from_utf8_lossy(&answer.stdout);
        assert!(answer.status.success(), "{name}: {}", answer.status);
        assert!(text.lines().count() >= 2, "{name}: {text:?}");
        assert!(!text.contains("#!"), "{name}: {text}");
        assert!(answer.stderr.is_empty(), "{name}");
    }
}

#[test]
fn a_path_that_is_no_program_is_named() {
    let mut asked = 0;
    for script in scripts() {
        let name = script.file_name().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&script).expect("a script");
        let takes_it = ["HEAPLAB", "target/release/heaplab"]
            .iter()
            .any(|argument| text.contains(&format!("{name} {argument}")));
        if !takes_it {
            continue;
        }
        asked += 1;
        let answer = ask(&script, &["/nonexistent/heaplab", "1"]);
        let told = String::from_utf8_lossy(&answer.stderr);
        assert!(!answer.status.success(), "{name}");
        assert!(
            told.contains("'/nonexistent/heaplab' is no program"),
            "{name}: {told}"
        );
        assert!(told.contains("cargo build --release"), "{name}: {told}");
    }
    assert_eq!(asked, 8, "scripts that take a program");
}
