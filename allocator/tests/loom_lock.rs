//! The lock under loom: in every order of its atomic operations that the memory model allows, one
//! thread at a time is inside, sees what the last one wrote, and nobody sleeps for ever.
//!
//! Each control plants a mistake (`plant`), which loom has to find.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use spanalloc::plant::{Plant, plant};
use spanalloc::sync::Locked;

fn two_threads_count(mistake: Option<Plant>) {
    plant(mistake);
    loom::model(|| {
        let counter = Arc::new(Locked::new(0_u32));
        let other = {
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                for _ in 0..2 {
                    *counter.lock() += 1;
                }
            })
        };
        *counter.lock() += 1;
        other.join().expect("the thread does not panic");
        assert_eq!(*counter.lock(), 3);
    });
}

#[test]
fn two_threads_exclude_each_other_and_none_is_left_asleep() {
    two_threads_count(None);
}

#[test]
#[should_panic]
fn control_a_lock_given_back_without_what_was_written_is_noticed() {
    two_threads_count(Some(Plant::ReleaseRelaxed));
}

/// With two sleepers a wake-up must be passed on: whoever wakes keeps the mark that others sleep.
fn three_threads_count(mistake: Option<Plant>) {
    plant(mistake);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let counter = Arc::new(Locked::new(0_u32));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let counter = Arc::clone(&counter);
                thread::spawn(move || *counter.lock() += 1)
            })
            .collect();
        *counter.lock() += 1;
        for other in others {
            other.join().expect("the thread does not panic");
        }
        assert_eq!(*counter.lock(), 3);
    });
}

#[test]
fn a_wake_up_reaches_the_second_sleeper() {
    three_threads_count(std::env::var_os(FORGET).map(|_| Plant::SleepersForgotten));
}

/// Set for the control's own process.
const FORGET: &str = "FORGET_SLEEPERS";

/// In a process of its own, as loom panics again where a deadlock's panic is unwound.
#[test]
fn control_a_wake_up_that_is_not_passed_on_is_noticed() {
    let output = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "a_wake_up_reaches_the_second_sleeper",
            "--nocapture",
        ])
        .env(FORGET, "1")
        .output()
        .expect("this program starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("deadlock"),
        "{told}"
    );
}

#[test]
fn who_only_tries_never_enters_beside_the_holder() {
    plant(None);
    loom::model(|| {
        let value = Arc::new(Locked::new((0_u32, 0_u32)));
        let other = {
            let value = Arc::clone(&value);
            thread::spawn(move || {
                if let Some(mut pair) = value.try_lock() {
                    pair.0 += 1;
                    pair.1 += 1;
                }
            })
        };
        {
            let mut pair = value.lock();
            pair.0 += 1;
            assert_eq!(pair.0, pair.1 + 1, "nobody changes the value meanwhile");
            pair.1 += 1;
        }
        other.join().expect("the thread does not panic");
        let pair = value.lock();
        assert_eq!(pair.0, pair.1);
    });
}
