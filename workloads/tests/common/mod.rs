//! An interpreter of scripts: executes streams under random interleavings with the rules of `op.rs`.

use heaplab_script::{FLAG_SHARED, OpKind, Script};

/// Executes the script; at each step a thread is chosen by `choose(number of runnable candidates tried)`. Panics when
/// an op finds its slot in a state that the rules forbid, or when no thread can go on.
pub fn interpret(script: &Script, mut choose: impl FnMut(usize) -> usize) {
    let slots = (script.info().private_slots + script.info().shared_slots) as usize;
    let mut state = vec![(0u16, false); slots];
    let mut user: Vec<Option<usize>> = vec![None; slots];
    let mut at = vec![0usize; script.thread_count()];
    let mut started: Vec<bool> = (0..script.thread_count())
        .map(|thread| script.exists_from_start(thread))
        .collect();
    let mut parent: Vec<Option<usize>> = vec![None; script.thread_count()];
    loop {
        let open: Vec<usize> = (0..at.len())
            .filter(|&thread| started[thread] && at[thread] < script.thread(thread).len())
            .collect();
        if open.is_empty() {
            break;
        }
        let first = choose(open.len());
        let ready = (0..open.len())
            .map(|step| open[(first + step) % open.len()])
            .find(|&thread| {
                let op = script.thread(thread)[at[thread]];
                if !op.is_call() || op.flags & FLAG_SHARED == 0 {
                    return true;
                }
                let (generation, full) = state[op.slot as usize];
                let wants_full = matches!(op.kind(), Some(OpKind::Free | OpKind::Realloc));
                generation == op.generation && full == wants_full
            });
        let thread = ready.expect("every thread waits: deadlock");
        let op = script.thread(thread)[at[thread]];
        at[thread] += 1;
        if !op.is_call() {
            if op.kind() == Some(OpKind::ThreadStart) {
                started[op.slot as usize] = true;
                parent[op.slot as usize] = Some(thread);
            }
            continue;
        }
        let slot = &mut state[op.slot as usize];
        if op.flags & FLAG_SHARED == 0 {
            // Only the thread itself, or one that it started with its last op, or a successor of that one.
            let before = user[op.slot as usize].replace(thread);
            let mut line = Some(thread);
            while line.is_some() && before.is_some() && line != before {
                line = parent[line.unwrap()].filter(|&up| at[up] == script.thread(up).len());
            }
            assert!(
                before.is_none() || line == before,
                "a private slot has two users"
            );
            assert_eq!(op.generation, 0);
        }
        match op.kind() {
            Some(OpKind::Malloc | OpKind::Calloc | OpKind::AlignedAlloc) => {
                assert!(!slot.1, "allocation into a full slot");
                slot.1 = true;
            }
            Some(OpKind::Realloc) => {
                assert!(slot.1, "realloc of an empty slot");
                if op.flags & FLAG_SHARED != 0 {
                    slot.0 = slot.0.wrapping_add(1);
                }
            }
            _ => {
                assert!(slot.1, "free of an empty slot");
                slot.1 = false;
                if op.flags & FLAG_SHARED != 0 {
                    slot.0 = slot.0.wrapping_add(1);
                }
            }
        }
    }
    assert!(
        started.iter().all(|&started| started),
        "a thread was never started"
    );
}

/// Follows the global order instead: every op must be ready at its turn (the witness).
pub fn follow_order(script: &Script) {
    let turns: Vec<u32> = script
        .order()
        .iter()
        .flat_map(|run| std::iter::repeat_n(run.thread, run.count as usize))
        .collect();
    let slots = (script.info().private_slots + script.info().shared_slots) as usize;
    let mut state = vec![(0u16, None::<u64>); slots];
    let mut at = vec![0usize; script.thread_count()];
    let mut started: Vec<bool> = (0..script.thread_count())
        .map(|thread| script.exists_from_start(thread))
        .collect();
    let (mut live, mut blocks, mut peak, mut peak_blocks) = (0u64, 0u64, 0, 0);
    for thread in turns {
        let thread = thread as usize;
        assert!(started[thread], "thread {thread} acts before it is started");
        let op = script.thread(thread)[at[thread]];
        at[thread] += 1;
        if !op.is_call() {
            if op.kind() == Some(OpKind::ThreadStart) {
                started[op.slot as usize] = true;
            }
            continue;
        }
        let slot = &mut state[op.slot as usize];
        let shared = u16::from(op.flags & FLAG_SHARED);
        assert_eq!(
            slot.0, op.generation,
            "an op would wait in the global order"
        );
        match op.kind() {
            Some(OpKind::Free) => {
                assert_eq!(
                    slot.1.take(),
                    Some(op.size()),
                    "a free repeats the block's size"
                );
                live -= op.size();
                blocks -= 1;
                slot.0 = slot.0.wrapping_add(shared);
            }
            Some(OpKind::Realloc) => {
                live = live + op.size() - slot.1.expect("realloc of an empty slot");
                slot.1 = Some(op.size());
                slot.0 = slot.0.wrapping_add(shared);
            }
            _ => {
                assert!(slot.1.is_none(), "allocation into a full slot");
                slot.1 = Some(op.size());
                live += op.size();
                blocks += 1;
            }
        }
        peak = peak.max(live);
        peak_blocks = peak_blocks.max(blocks);
    }
    assert_eq!(
        (peak, peak_blocks),
        (
            script.info().peak_live_bytes,
            script.info().peak_live_blocks
        )
    );
}
