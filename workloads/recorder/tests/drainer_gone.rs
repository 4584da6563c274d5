//! What becomes of a program when whoever takes its records cannot go on.

mod common;

use common::{Recorded, compile, scratch};
use heaplab_workloads::record::{RecordError, Session, SessionOptions, Sink};
use heaplab_workloads::trace::packed::Packed;
use heaplab_workloads::trace::{ResolveOptions, TraceError, resolve_file};
use std::path::Path;
use std::process::Command;

type Taken = Result<(), TraceError>;

#[test]
fn a_program_whose_drainer_is_gone_goes_on() {
    // The drainer lives in this process: it ends when its sink fails, as on a full disk.
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    let options = SessionOptions {
        pool_bytes: 256 << 10,
        ..SessionOptions::default()
    };
    let session = Session::create(&options).expect("session");
    let mut child = Command::new(program)
        .args(["churn", "300042"])
        .envs(session.environment_before(common::recorder(), "".as_ref()))
        .spawn()
        .expect("the program starts");
    drop(session);
    assert_eq!(child.wait().expect("wait").code(), Some(42));
}

#[test]
fn a_program_whose_drainer_is_killed_ends_with_its_own_status() {
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    let (raw, status) = (dir.path().join("run.raw"), dir.path().join("status"));
    // The shell, which is not recorded, outlives the drainer and notes how the program ended.
    let script =
        "LD_PRELOAD=$SUBJECT \"$0\" churn 6000042; echo $? > \"$1.new\"; mv \"$1.new\" \"$1\"";
    let mut drainer = Command::new(common::example("drain"))
        .arg(common::recorder())
        .arg(&raw)
        .args(["sh", "-c", script])
        .arg(&program)
        .arg(&status)
        .spawn()
        .expect("the drainer starts");
    common::wait_until("events in the raw file", || {
        std::fs::metadata(&raw).is_ok_and(|file| file.len() > 400_000)
    });
    assert!(
        !status.exists(),
        "the program was over before its drainer was killed"
    );
    drainer.kill().expect("kill");
    // Not waited for: a drainer that is a zombie is dead, too.
    common::wait_until("the program's end", || status.exists());
    assert_eq!(
        std::fs::read_to_string(&status).expect("status").trim(),
        "42"
    );
    drainer.wait().expect("wait");
    let out = dir.path().join("run.hltrace");
    let summary = resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {})
        .expect("what was written before the kill is a trace");
    assert!(summary.events > 50_000);
    assert!(!summary.complete && !summary.missing.is_empty());
}

/// A disk that takes some events and is then full.
struct Full {
    room: usize,
    taken: Recorded,
}

impl Sink for Full {
    fn thread_start(&mut self, process: u32, thread: u32, tid: u32, ns: u64) -> Taken {
        self.taken.thread_start(process, thread, tid, ns)
    }
    fn thread_name(&mut self, thread: u32, name: &str) -> Taken {
        self.taken.thread_name(thread, name)
    }
    fn events(&mut self, thread: u32, events: &Packed) -> Taken {
        if self.room < events.len() {
            let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(TraceError::io("write", Path::new("run.raw"), full));
        }
        self.room -= events.len();
        Sink::events(&mut self.taken, thread, events)
    }
    fn thread_end(&mut self, thread: u32, ns: u64) -> Taken {
        self.taken.thread_end(thread, ns)
    }
    fn mark(&mut self, process: Option<u32>, ns: u64, name: &str) -> Taken {
        self.taken.mark(process, ns, name)
    }
    fn note(&mut self, text: &str) -> Taken {
        self.taken.note(text)
    }
}

#[test]
fn a_program_goes_on_when_the_disk_is_full() {
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    let options = SessionOptions {
        pool_bytes: 256 << 10,
        ..SessionOptions::default()
    };
    let mut session = Session::create(&options).expect("session");
    let counter = compile(dir.path(), "counter", true);
    let counts = dir.path().join("counts");
    std::fs::write(&counts, [0; 4096]).expect("counts file");
    let mut child = Command::new(program)
        .args(["churn", "2000042"])
        .envs(session.environment_before(common::recorder(), counter.as_os_str()))
        .env("HEAPLAB_TEST_COUNTS", &counts)
        .spawn()
        .expect("the program starts");
    let mut disk = Full {
        room: 1_000_000,
        taken: Recorded::default(),
    };
    let alive = || matches!(child.try_wait(), Ok(None));
    let error = session.drain(alive, &mut disk).expect_err("it is full");
    assert!(error.to_string().contains("run.raw"), "{error}");
    assert_eq!(child.wait().expect("wait").code(), Some(42));
    assert!(disk.taken.allocations() > 400_000);
    disk.taken.check();
    // What the disk did not take is known to the event.
    let RecordError::Cut { stored, lost, .. } = error else {
        panic!("{error}");
    };
    let counted = common::counted(&counts);
    let all = counted.allocations + counted.frees + 2 * counted.reallocs;
    assert_eq!(stored, disk.taken.events().count() as u64);
    assert_eq!(stored + lost, all);
}
