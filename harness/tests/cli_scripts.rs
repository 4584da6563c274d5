//! Making scripts, as a user meets it: Ctrl-C, two at once, a full disk, a kill in the middle. Nothing unfinished ever has a name.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use support::{heaplab, run};

/// Takes seconds in any build, and 3.2 GB if nobody stopped it: a script that there is no room for is not begun.
const ENDLESS: u64 = 200_000_000;

fn model(at: &Path, ops: u64) {
    let text = format!(
        "name = 'long'\nkind = 'application'\npurpose = 'a long one'\nanalysis = 'none'\nsources = ['here']\nops = {ops}\n\
         [[role]]\nname = 'r'\nlive = 100\nlifetime = {{ kind = 'fifo' }}\nsize = {{ kind = 'fixed', bytes = 16 }}\n"
    );
    std::fs::write(at.join("long.toml"), text).unwrap();
}

/// Makes the script of the model and shows a command, without any measurement.
fn making(at: &Path) -> std::process::Command {
    let mut command = heaplab(at);
    command
        .args([
            "run",
            "long.toml",
            "-a",
            "system",
            "--print-command",
            "--measure",
            "speed",
        ])
        .args(["--seed", "1"])
        .env("XDG_CACHE_HOME", at.join("cache"));
    command
}

fn scripts(at: &Path) -> PathBuf {
    at.join("cache/heaplab/scripts")
}

fn names(at: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(scripts(at)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Started, and busy with its script.
fn begun(at: &Path) -> Child {
    let child = making(at)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !scripts(at).exists() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The file without a name is open by now, and ops are on their way.
    std::thread::sleep(Duration::from_millis(300));
    child
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The first Ctrl-C is heard within the next stretch of calls, and nothing of the script is left.
#[test]
fn ctrl_c_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at, ENDLESS);
    let mut child = begun(at);
    signal(&child, rustix::process::Signal::INT);
    let asked = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if asked.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it goes on after Ctrl-C");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert_eq!(said, "heaplab: interrupted; nothing was measured yet\n");
    assert!(names(at).is_empty() && !at.join("heaplab-results").exists());
}

#[test]
fn a_kill_in_the_middle_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at, ENDLESS);
    let mut child = begun(at);
    assert!(child.try_wait().unwrap().is_none(), "it is at work");
    signal(&child, rustix::process::Signal::KILL);
    child.wait().unwrap();
    assert_eq!(names(at), Vec::<String>::new());
    // And the next one is not disturbed by what was.
    model(at, 50_000);
    let (status, out, err) = run(&mut making(at));
    assert_eq!(status, 0, "{err}");
    assert!(out.contains(".hlscript"), "{out}");
    assert_eq!(names(at).len(), 1);
}

#[test]
fn two_at_once_make_one_whole_script() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at, 300_000);
    let both: Vec<Child> = (0..3)
        .map(|_| {
            making(at)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let said: Vec<Vec<u8>> = both
        .into_iter()
        .map(|child| {
            let ended = child.wait_with_output().unwrap();
            assert!(ended.status.success(), "{ended:?}");
            ended.stdout
        })
        .collect();
    assert!(said.iter().all(|one| *one == said[0]));
    let made = names(at);
    let [one] = &made[..] else {
        panic!("{made:?}");
    };
    let script = heaplab_script::Script::open(&scripts(at).join(one)).unwrap();
    script.verify_checksum().unwrap();
    assert_eq!(script.info().calls, 300_000);
}

/// A disk that is full behaves as a file that may not grow: what is missing is said, and nothing is left.
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model(at, 300_000);
    // What heaplab takes out of itself lies in the same cache and must be there before.
    model(at, 20_000);
    assert_eq!(run(&mut making(at)).0, 0);
    for name in names(at) {
        std::fs::remove_file(scripts(at).join(name)).unwrap();
    }
    model(at, 300_000);
    let make = making(at);
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -f 512; exec \"$@\"", "sh"])
        .arg(make.get_program())
        .args(make.get_args())
        .current_dir(at)
        .env("XDG_CACHE_HOME", at.join("cache"));
    let (status, out, err) = run(&mut limited);
    assert_eq!((status, out.as_str()), (3, ""), "{err}");
    assert!(
        err.starts_with("heaplab: cannot write")
            && err.contains(".hlscript")
            && err.lines().count() == 1,
        "{err}"
    );
    assert_eq!(names(at), Vec::<String>::new());
    assert_eq!(run(&mut making(at)).0, 0, "with room it is made");
}
