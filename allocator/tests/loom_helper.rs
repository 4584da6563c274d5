//! Start and end of the helper under loom (`on_duty`, the code itself; `helper` puts threads around it): whatever is free
//! when everybody has come to rest has been looked at, or somebody is there who will. `FORGETFUL` is the control: the
//! protocol that this one replaced, in which a request counts as answered while a helper still exists.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use spanalloc::on_duty::OnDuty;

struct World {
    duty: OnDuty,
    /// The control's word: a helper exists.
    exists: AtomicU32,
    /// Free memory that nobody has given back.
    free: AtomicU32,
    /// Helpers that were sent.
    sent: AtomicU32,
}

impl World {
    fn new() -> Self {
        Self {
            duty: OnDuty::new(),
            exists: AtomicU32::new(0),
            free: AtomicU32::new(0),
            sent: AtomicU32::new(0),
        }
    }

    /// A thread frees much; true: it has to send a helper.
    fn frees<const FORGETFUL: bool>(&self) -> bool {
        // Under the lock of a class.
        self.free.fetch_add(1, Ordering::AcqRel);
        let sends = if FORGETFUL {
            self.exists.swap(1, Ordering::AcqRel) == 0
        } else {
            self.duty.ask()
        };
        if sends {
            self.sent.fetch_add(1, Ordering::AcqRel);
        }
        sends
    }

    /// A helper: looks until it finds nothing.
    fn helps<const FORGETFUL: bool>(&self) {
        loop {
            let found = self.free.swap(0, Ordering::AcqRel) > 0;
            if found {
                continue;
            }
            if FORGETFUL {
                self.exists.store(0, Ordering::Release);
                return;
            }
            if self.duty.may_leave() {
                return;
            }
        }
    }
}

fn what_is_free_is_looked_at<const FORGETFUL: bool>() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = Arc::new(World::new());
        // The first helper was sent for what the first thread freed; a second thread frees while it may be leaving.
        assert!(world.frees::<FORGETFUL>());
        let helper = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.helps::<FORGETFUL>())
        };
        if world.frees::<FORGETFUL>() {
            // Started at once, beside the one that is on its way out.
            world.helps::<FORGETFUL>();
        }
        helper.join().expect("the helper does not panic");
        assert_eq!(
            world.free.load(Ordering::Acquire),
            0,
            "left behind with nobody there"
        );
        assert!(world.sent.load(Ordering::Acquire) <= 2);
    });
}

#[test]
fn nothing_is_left_behind_when_the_helper_goes() {
    what_is_free_is_looked_at::<false>();
}

#[test]
#[should_panic(expected = "left behind with nobody there")]
fn control_a_request_that_meets_a_leaving_helper_is_forgotten() {
    what_is_free_is_looked_at::<true>();
}

#[test]
fn two_that_ask_at_once_send_one_helper() {
    loom::model(|| {
        let duty = Arc::new(OnDuty::new());
        let other = {
            let duty = Arc::clone(&duty);
            thread::spawn(move || duty.ask())
        };
        let sent = u32::from(duty.ask()) + u32::from(other.join().expect("it asks"));
        assert_eq!(sent, 1);
        // Who asked second is heard before the helper leaves.
        assert!(!duty.may_leave());
        assert!(duty.may_leave());
        assert!(duty.ask(), "nobody is there any more");
    });
}
