//! The allocator as this test program's own `#[global_allocator]`: everything that the test
//! harness, the standard library and the tests allocate goes through it.

#[path = "common/random.rs"]
mod random;

use random::Random;
use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;

#[global_allocator]
static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;

impl Random {
    fn layout(&mut self) -> Layout {
        let bits = if self.below(400) == 0 { 21 } else { 12 };
        let bound = 1_usize << self.below(bits + 1);
        let align = 1_usize
            << if self.below(8) == 0 {
                self.below(15)
            } else {
                self.below(5)
            };
        Layout::from_size_align(self.below(bound) + 1, align).expect("small sizes")
    }
}

/// A live block: its layout and the byte that fills it.
struct Live {
    layout: Layout,
    stamp: u8,
}

/// All operations of `GlobalAlloc` in random order against a map of live ranges.
fn walk(seed: u64, steps: usize) {
    let a = spanalloc::SpanAlloc;
    let mut random = Random(seed | 1);
    let mut live: BTreeMap<usize, Live> = BTreeMap::new();
    let mut addresses: Vec<usize> = Vec::new();
    let check = |address: usize, length: usize, stamp: u8| {
        // SAFETY: the block is live and at least `length` long.
        let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, length) };
        assert!(
            bytes.iter().all(|&byte| byte == stamp),
            "contents at {address:#x} changed"
        );
    };
    let enter = |live: &mut BTreeMap<usize, Live>, address: usize, layout: Layout, stamp: u8| {
        assert_ne!(address, 0);
        assert_eq!(address % layout.align(), 0, "{layout:?}");
        if let Some((&below, block)) = live.range(..=address).next_back() {
            assert!(
                below + block.layout.size() <= address,
                "overlap below {address:#x}"
            );
        }
        if let Some((&above, _)) = live.range(address..).next() {
            assert!(
                address + layout.size() <= above,
                "overlap above {address:#x}"
            );
        }
        // SAFETY: the block is new and has the layout's size.
        unsafe { (address as *mut u8).write_bytes(stamp, layout.size()) };
        live.insert(address, Live { layout, stamp });
    };
    for step in 0..steps {
        let stamp = (step as u8) | 1;
        let grow = live.len() < 200 || (live.len() < 4_000 && random.below(2) == 0);
        // SAFETY: each block is used with the layout that it was allocated or resized with.
        unsafe {
            if grow {
                let layout = random.layout();
                let address = if random.below(4) == 0 {
                    let block = a.alloc_zeroed(layout);
                    check(block as usize, layout.size(), 0);
                    block as usize
                } else {
                    a.alloc(layout) as usize
                };
                enter(&mut live, address, layout, stamp);
                addresses.push(address);
            } else {
                let at = random.below(addresses.len());
                let address = addresses[at];
                let block = live.remove(&address).expect("a live address");
                check(address, block.layout.size(), block.stamp);
                if random.below(4) == 0 {
                    let size = random.layout().size();
                    let moved = a.realloc(address as *mut u8, block.layout, size) as usize;
                    check(moved, size.min(block.layout.size()), block.stamp);
                    let layout = Layout::from_size_align_unchecked(size, block.layout.align());
                    enter(&mut live, moved, layout, stamp);
                    addresses[at] = moved;
                } else {
                    a.dealloc(address as *mut u8, block.layout);
                    addresses.swap_remove(at);
                }
            }
        }
        if step % 50_000 == 49_999 {
            spanalloc::trim(0);
        }
    }
    for (address, block) in live {
        check(address, block.layout.size(), block.stamp);
        // SAFETY: the block is live.
        unsafe { a.dealloc(address as *mut u8, block.layout) };
    }
}

#[test]
fn a_million_random_operations_match_the_model() {
    let threads: Vec<_> = (1..=4)
        .map(|seed| std::thread::spawn(move || walk(seed, 250_000)))
        .collect();
    for thread in threads {
        thread.join().expect("the model holds");
    }
}

#[test]
fn collections_and_hand_over_between_threads() {
    let (to_worker, from_main) = mpsc::sync_channel::<Vec<String>>(64);
    let worker = std::thread::spawn(move || {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for batch in from_main {
            for text in batch {
                *counts.entry(text).or_default() += 1;
            }
        }
        counts
    });
    for round in 0..2_000 {
        let batch = (0..50)
            .map(|item| format!("{}-{item}", round % 7))
            .collect();
        to_worker.send(batch).expect("the worker lives");
    }
    drop(to_worker);
    let counts = worker.join().expect("the worker ends");
    assert_eq!(counts.len(), 350);
    assert_eq!(counts.values().sum::<usize>(), 100_000);
}

#[test]
fn thousands_of_short_threads_leave_no_caches_behind() {
    for round in 0..100 {
        let threads: Vec<_> = (0..10)
            .map(|item| std::thread::spawn(move || vec![item as u8; 100 + round].len()))
            .collect();
        for thread in threads {
            assert_eq!(thread.join().expect("a short thread ends"), 100 + round);
        }
    }
    // Other tests' threads may be alive, but not hundreds.
    assert!(
        spanalloc::stats().threads < 100,
        "{} caches",
        spanalloc::stats().threads
    );
}

#[test]
fn vectors_grow_in_place_when_they_are_large() {
    let before = spanalloc::stats().pages.grown_in_place;
    let mut bytes: Vec<u8> = Vec::new();
    for step in 0..512 {
        bytes.reserve_exact(8192);
        bytes.resize((step + 1) * 8192, step as u8);
    }
    for (index, chunk) in bytes.chunks(8192).enumerate() {
        assert!(chunk.iter().all(|&byte| byte == index as u8));
    }
    // Once for each sixteenth that it has become longer.
    assert!(spanalloc::stats().pages.grown_in_place > before + 30);
}

#[test]
fn over_aligned_blocks_stay_where_they_serve() {
    let a = spanalloc::SpanAlloc;
    let layout = |size| Layout::from_size_align(size, 64).expect("small");
    // SAFETY: each block is used with the layout that it has then.
    unsafe {
        let block = a.alloc(layout(100));
        block.write_bytes(7, 100);
        assert_eq!(a.realloc(block, layout(100), 128), block, "the same class");
        let moved = a.realloc(block, layout(128), 129);
        assert!(moved != block && (moved as usize).is_multiple_of(64));
        assert!(
            std::slice::from_raw_parts(moved, 100)
                .iter()
                .all(|&byte| byte == 7)
        );
        a.dealloc(moved, layout(129));
        // A block of its own keeps its pages, and less than half of them goes elsewhere.
        let block = a.alloc(layout(1 << 20));
        assert_eq!(a.realloc(block, layout(1 << 20), 800_000), block);
        let less = a.realloc(block, layout(800_000), 300_000);
        assert!(less != block && (less as usize).is_multiple_of(64));
        a.dealloc(less, layout(300_000));
        // It grows where the pages behind it are free, which those of a block that was given back are.
        let [mut block, behind] = [a.alloc(layout(1 << 20)), a.alloc(layout(8 << 20))];
        let before = spanalloc::stats().pages.grown_in_place;
        a.dealloc(behind, layout(8 << 20));
        let mut size = 1 << 20;
        for _ in 0..20 {
            block = a.realloc(block, layout(size), size + (64 << 10));
            assert!(!block.is_null() && (block as usize).is_multiple_of(64));
            size += 64 << 10;
        }
        assert!(spanalloc::stats().pages.grown_in_place > before);
        a.dealloc(block, layout(size));
    }
}

#[test]
fn trim_gives_memory_back_and_statistics_add_up() {
    let blocks: Vec<Vec<u8>> = (0..2_000).map(|_| vec![1; 20_000]).collect();
    let full = spanalloc::stats();
    assert!(full.in_use_bytes >= 2_000 * 20_000);
    drop(blocks);
    let trimmed = spanalloc::trim(0);
    let after = spanalloc::stats();
    // On a busy machine the decay may have been there first.
    let decayed = (after.pages.pages_released - full.pages.pages_released) as usize * 8192;
    assert!(
        trimmed.released_bytes + decayed + after.dirty_bytes > 20 << 20,
        "{trimmed:?} {full:?} {after:?}"
    );
    assert!(after.in_use_bytes < full.in_use_bytes);
    assert!(after.heap_bytes >= after.dirty_bytes + after.clean_bytes);
}

#[test]
fn json_is_complete_and_says_when_the_buffer_is_short() {
    let mut short = [0_u8; 10];
    let needed = spanalloc::stats::write_json(&mut short);
    assert!(needed > 500);
    let mut long = vec![0_u8; needed + 4096];
    let length = spanalloc::stats::write_json(&mut long);
    let text = std::str::from_utf8(&long[..length]).expect("ASCII");
    assert!(text.starts_with("{\"allocator\":\"spanalloc\"") && text.ends_with("]}"));
    assert_eq!(text.matches('{').count(), text.matches('}').count());
    for field in [
        "in_use_bytes",
        "decay_ms",
        "transfer_hits",
        "transfer_shards_added",
        "classes",
        "front_end",
    ] {
        assert!(text.contains(&format!("\"{field}\":")), "{field}");
    }
}

#[test]
fn the_json_has_every_setting_in_force() {
    let mut json = vec![0_u8; 1 << 16];
    let length = spanalloc::stats::write_json(&mut json);
    let json = std::str::from_utf8(&json[..length]).expect("ASCII");
    let (_, rest) = json.split_once("\"settings\":{").expect("settings");
    let (settings, _) = rest.split_once('}').expect("their end");
    let mut names: Vec<&str> = settings.split('"').skip(1).step_by(2).collect();
    // A field of its own, as it says what was chosen.
    names.push("front_end");
    names.sort_unstable();
    let mut keys: Vec<&str> = spanalloc::config::keys()
        .map(|key| std::str::from_utf8(key.name).expect("ASCII"))
        .collect();
    keys.sort_unstable();
    assert_eq!(names, keys);
}

/// Names in backquotes in the first column of the tables of a document.
fn documented(text: &str) -> std::collections::BTreeSet<&str> {
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| {
            let column = line.split('|').nth(1).unwrap_or_default();
            column.split('`').skip(1).step_by(2)
        })
        .map(|name| name.trim_end_matches("[]"))
        .collect()
}

#[test]
fn every_field_of_the_json_is_documented_and_every_documented_field_is_there() {
    let mut json = vec![0_u8; 1 << 16];
    let length = spanalloc::stats::write_json(&mut json);
    let json = std::str::from_utf8(&json[..length]).expect("ASCII");
    // A key is a string with a colon behind it; no value of ours is a string that ends like one.
    let pieces: Vec<&str> = json.split('"').collect();
    let keys: std::collections::BTreeSet<&str> = (1..pieces.len())
        .step_by(2)
        .filter(|&at| pieces[at + 1].starts_with(':'))
        .map(|at| pieces[at])
        .collect();
    let documents = documented(include_str!("../docs/STATS.md"));
    assert_eq!(keys, documents, "left: JSON, right: docs/STATS.md");
}

/// The cache of threads that have none yet is the same for all of them: who could write to it would give them all a bin.
#[test]
fn nobody_can_write_to_the_empty_cache() {
    let address = &raw const spanalloc::tls::EMPTY as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapping = maps.lines().find(|line| {
        let (start, rest) = line.split_once('-').unwrap();
        let end = rest.split(' ').next().unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address)
    });
    assert!(mapping.unwrap().contains(" r--p "), "{mapping:?}");
}
