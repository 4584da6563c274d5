//! Paths that are no files of ours, wherever a file may be named: each command ends by itself, says what the path is, and
//! leaves nothing behind. Devices never end, a pipe without a writer never begins, a sparse file claims any size.

mod support;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::Command;
use support::{heaplab, run};

/// Commands that read a file, with `X` for its name; each is given one that ends as its files do.
const COMMANDS: [(&[&str], &str); 15] = [
    (&["gate", "compare", "X", "X"], ".json"),
    (
        &[
            "gate", "run", "churn", "--base", "system", "--head", "system", "--policy", "X",
        ],
        ".toml",
    ),
    (
        &["gate", "run", "churn", "--base", "system", "--head", "X"],
        ".so",
    ),
    (&["report", "X"], ".json"),
    (&["diff", "X", "X"], ".json"),
    (&["merge", "X", "X", "-o", "new"], ".json"),
    (&["run", "X"], ".toml"),
    (&["run", "X"], ".hltrace"),
    (&["run", "churn", "-a", "X"], ".so"),
    (&["trace", "info", "X"], ".hltrace"),
    (&["trace", "verify", "X"], ".hltrace"),
    (&["trace", "stats", "X"], ".hltrace"),
    (&["trace", "model", "X", "-o", "new"], ".hltrace"),
    (&["profile", "X"], ".hltrace"),
    (&["trace", "import", "X", "-o", "new.hltrace"], ".csv"),
];

#[test]
fn what_is_no_file_of_ours_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (_, end) in COMMANDS {
        let made = [
            ("zero", "/dev/zero"),
            ("random", "/dev/random"),
            ("folder", "/usr"),
        ];
        for (name, target) in made {
            let _ = symlink(target, at(&format!("{name}{end}")));
        }
        let pipe = at(&format!("pipe{end}"));
        if !pipe.exists() {
            mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        File::create(at(&format!("sparse{end}")))
            .unwrap()
            .set_len(5 << 30)
            .unwrap();
    }
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    for (words, end) in COMMANDS {
        for what in ["zero", "random", "folder", "pipe", "sparse"] {
            // An import may come through a pipe, and waits for whoever writes to it.
            if words.contains(&"import") && what == "pipe" {
                continue;
            }
            let name = format!("{what}{end}");
            let words = words
                .iter()
                .map(|word| if *word == "X" { &name } else { *word });
            // A limit on address space: what would read without end fails here instead of taking the machine's memory.
            let command = heaplab(folder.path());
            let mut limited = Command::new("timeout");
            limited
                .args(["-k", "1", "60", "prlimit", "--as=6000000000"])
                .arg(command.get_program())
                .args(words)
                .current_dir(folder.path())
                .env_remove("LD_PRELOAD");
            let (status, out, err) = run(&mut limited);
            let said = format!(
                "{:?} ended with {status}: {out}{err}",
                limited.get_args().collect::<Vec<_>>()
            );
            assert!([1, 2, 3].contains(&status), "{said}");
            assert!(
                err.starts_with("heaplab: ") && err.trim_end().lines().count() == 1,
                "{said}"
            );
            assert!(
                err.contains(what) && !err.contains("out of memory"),
                "{said}"
            );
        }
    }
    let after = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(before, after, "something was left behind");
}
