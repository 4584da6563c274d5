//! Lockstep against the recording: the live bytes of every sample are those that the events before it leave.

mod support;

use heaplab_reports::schema::ResultSet;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use support::{heaplab, run};

/// Three threads: two make blocks of all kinds and grow some, one frees most of what they hand to it.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
enum { BLOCKS = 6000 };
static void *handed[2][BLOCKS];
static void *makes(void *which) {
    void **to = which;
    unsigned seed = to == handed[0] ? 1 : 2;
    for (int i = 0; i < BLOCKS; i++) {
        unsigned size = (seed = seed * 1103515245u + 12345u) >> 16 & 0xfff;
        void *block = NULL;
        switch (seed >> 28) {
        case 0: block = calloc(3, size); break;
        case 1: block = aligned_alloc(64, (size + 64) & ~63u); break;
        case 2: if (posix_memalign(&block, 4096, size + 1)) abort(); break;
        case 3: block = realloc(malloc(size), 2 * size + 1); break;
        case 4: free(malloc(size)); block = malloc(100000 + size); break;
        default: block = malloc(size);
        }
        __atomic_store_n(&to[i], block, __ATOMIC_RELEASE);
    }
    return NULL;
}
static void *frees(void *unused) {
    for (int i = 0; i < BLOCKS; i++)
        for (int side = 0; side < 2; side++) {
            void *block;
            while (!(block = __atomic_load_n(&handed[side][i], __ATOMIC_ACQUIRE))) {}
            if (i % 7) free(block);
        }
    return unused;
}
int main(void) {
    pthread_t threads[3];
    pthread_create(&threads[0], NULL, makes, handed[0]);
    pthread_create(&threads[1], NULL, makes, handed[1]);
    pthread_create(&threads[2], NULL, frees, NULL);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}
"#;

fn recorded(at: &Path) {
    std::fs::write(at.join("p.c"), PROGRAM).unwrap();
    let built = Command::new("cc")
        .args(["-O1", "-fno-builtin", "-pthread", "-o", "p", "p.c"])
        .current_dir(at)
        .status()
        .unwrap();
    assert!(built.success());
    let (status, _, err) = run(heaplab(at).args(["record", "-o", "p.hltrace", "--", "./p"]));
    assert_eq!(status, 0, "{err}");
}

/// Live bytes after each call, by the exported events alone; before the first call at index 0.
fn live_after_each_call(csv: &str) -> Vec<u64> {
    let mut sizes: HashMap<&str, u64> = HashMap::new();
    let mut live = vec![0];
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (call, block, size) = (fields[3], fields[4], fields[5].parse::<u64>().unwrap());
        let mut now = *live.last().unwrap();
        match call {
            "malloc" | "calloc" | "aligned_alloc" | "posix_memalign" | "realloc" => {
                now += size;
                now -= sizes.insert(block, size).unwrap_or(0);
            }
            "free" => now -= sizes.remove(block).unwrap(),
            "written" => continue,
            other => panic!("the program makes no {other}"),
        }
        live.push(now);
    }
    live
}

#[test]
fn live_bytes_of_every_sample_are_those_of_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    recorded(at);
    let export = ["trace", "export", "p.hltrace"];
    let (status, csv, err) = run(heaplab(at).args(export));
    assert_eq!(status, 0, "{err}");
    let live = live_after_each_call(&csv);
    assert!(live.len() > 24_000, "{}", live.len());
    let words = "run p.hltrace --measure memory --blocks 2 --seed 7 --idle 0s -a system,spanalloc -o r \
                 --no-report --format json";
    let (status, out, err) = run(heaplab(at).args(words.split(' ')));
    assert_eq!(status, 0, "{err}");
    let result: ResultSet = serde_json::from_str(&out).unwrap();
    assert!(result.cells[0].threads >= 4);
    let journal = std::fs::read_to_string(at.join("r/runs.jsonl")).unwrap();
    let mut samples = 0;
    for line in journal.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let curve = &line["answer"]["memory"];
        let column =
            |name: &str| -> Vec<u64> { serde_json::from_value(curve[name].clone()).unwrap() };
        for (calls, bytes) in column("ops").into_iter().zip(column("live_bytes")) {
            assert_eq!(bytes, live[calls as usize], "after {calls} calls: {line}");
            samples += 1;
        }
        assert_eq!(curve["peak_live_bytes"], *live.iter().max().unwrap());
    }
    assert!(samples > 4 * 200, "{samples}");
}
