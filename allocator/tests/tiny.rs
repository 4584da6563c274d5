//! Tiny blocks that share one: pieces never overlap while they live, a block comes back once its last piece is gone,
//! whoever frees it, and a boxed byte costs little.

#[path = "common/random.rs"]
mod random;

use random::Random;
use spanalloc::tiny::{BLOCK, LARGEST};
use spanalloc::{SpanAlloc, TinyAlloc};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, mpsc};

#[global_allocator]
static ALLOCATOR: TinyAlloc = TinyAlloc;

/// Figures of the whole process are compared, so tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Random {
    /// Mostly tiny, sometimes what `SpanAlloc` serves.
    fn layout(&mut self) -> Layout {
        let size = if self.below(10) == 0 {
            self.below(200) + 1
        } else {
            self.below(LARGEST) + 1
        };
        let align = 1 << self.below(3);
        Layout::from_size_align(size, align).expect("small")
    }
}

struct Piece {
    at: *mut u8,
    layout: Layout,
    stamp: u8,
}

// SAFETY: a piece is a block that its holder owns.
unsafe impl Send for Piece {}

impl Piece {
    fn new(random: &mut Random, stamp: u8) -> Self {
        let layout = random.layout();
        // SAFETY: the layout has a size; the bytes are the new piece's.
        unsafe {
            let at = if stamp.is_multiple_of(5) {
                let at = ALLOCATOR.alloc_zeroed(layout);
                assert!((0..layout.size()).all(|byte| *at.add(byte) == 0));
                at
            } else {
                ALLOCATOR.alloc(layout)
            };
            assert!(!at.is_null() && (at as usize).is_multiple_of(layout.align()));
            at.write_bytes(stamp, layout.size());
            Self { at, layout, stamp }
        }
    }

    fn check(&self, bytes: usize) {
        // SAFETY: the piece is live.
        let found = unsafe { std::slice::from_raw_parts(self.at, bytes) };
        assert!(
            found.iter().all(|&byte| byte == self.stamp),
            "{:?} at {:p}",
            self.layout,
            self.at
        );
    }

    fn resize(&mut self, random: &mut Random) {
        let size = random.layout().size();
        // SAFETY: the piece is live, with this layout.
        unsafe {
            self.at = ALLOCATOR.realloc(self.at, self.layout, size);
            self.check(size.min(self.layout.size()));
            self.layout = Layout::from_size_align_unchecked(size, self.layout.align());
            self.at.write_bytes(self.stamp, size);
        }
    }

    fn free(self) {
        self.check(self.layout.size());
        // SAFETY: the piece is live, with this layout.
        unsafe { ALLOCATOR.dealloc(self.at, self.layout) };
    }
}

#[test]
fn pieces_keep_their_bytes_while_threads_free_each_others() {
    let _turn = turn();
    let (to, from): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel::<Piece>()).unzip();
    let threads: Vec<_> = from
        .into_iter()
        .enumerate()
        .map(|(number, from)| {
            let to = to.clone();
            std::thread::spawn(move || {
                let mut random = Random(number as u64 + 1);
                let mut live: Vec<Piece> = Vec::new();
                for step in 0..60_000_usize {
                    if live.len() < 50 || random.below(100) < 50 {
                        live.push(Piece::new(&mut random, step as u8));
                    } else {
                        let at = random.below(live.len());
                        let mut piece = live.swap_remove(at);
                        match random.below(4) {
                            0 => {
                                piece.resize(&mut random);
                                live.push(piece);
                            }
                            // A thread that has ended takes nothing any more.
                            1 => match to[random.below(4)].send(piece) {
                                Ok(()) => {}
                                Err(back) => back.0.free(),
                            },
                            _ => piece.free(),
                        }
                    }
                    if step % 64 == 0 {
                        from.try_iter().for_each(Piece::free);
                    }
                    if step % 20_000 == 0 {
                        spanalloc::trim(0);
                    }
                }
                drop(to);
                live.into_iter().for_each(Piece::free);
                from
            })
        })
        .collect();
    drop(to);
    for thread in threads {
        let from = thread.join().expect("a thread that allocates ends");
        from.try_iter().for_each(Piece::free);
    }
}

#[test]
fn a_block_is_used_again_only_after_its_last_piece() {
    let _turn = turn();
    // In a thread of its own, so that nothing else cuts pieces.
    std::thread::spawn(|| {
        let byte = Layout::new::<u8>();
        let mut random = Random(9);
        // SAFETY: pieces are live until they are freed, once.
        unsafe {
            let mut live: Vec<*mut u8> = (0..15_000).map(|_| ALLOCATOR.alloc(byte)).collect();
            let mut by_block: BTreeMap<usize, usize> = BTreeMap::new();
            for piece in &live {
                *by_block.entry(*piece as usize / BLOCK).or_default() += 1;
            }
            assert!(
                by_block
                    .values()
                    .filter(|&&pieces| pieces == BLOCK - 1)
                    .count()
                    > 900
            );
            while !live.is_empty() {
                let piece = live.swap_remove(random.below(live.len()));
                let block = piece as usize / BLOCK;
                ALLOCATOR.dealloc(piece, byte);
                let left = by_block.get_mut(&block).expect("a block with pieces");
                *left -= 1;
                // What is handed out as a whole block now is none that has a piece.
                let whole = Layout::from_size_align_unchecked(BLOCK, BLOCK);
                let new = SpanAlloc.alloc(whole);
                let taken = by_block.get(&(new as usize / BLOCK)).copied().unwrap_or(0);
                assert_eq!(taken, 0, "a block with {taken} pieces was handed out");
                new.write_bytes(0xFF, BLOCK);
                SpanAlloc.dealloc(new, whole);
            }
        }
    })
    .join()
    .expect("blocks are counted right");
}

#[test]
fn a_million_boxed_bytes_cost_about_a_byte_each_and_all_comes_back() {
    let _turn = turn();
    let mut boxes: Vec<Box<u8>> = Vec::with_capacity(1_000_000);
    let before = spanalloc::stats();
    boxes.extend((0..1_000_000).map(|number| Box::new(number as u8)));
    let full = spanalloc::stats();
    let each = (full.in_use_bytes - before.in_use_bytes) as f64 / 1e6;
    assert!(each < 1.2, "{each} bytes for a byte");
    assert!(full.tiny_blocks - before.tiny_blocks >= 1_000_000 / (BLOCK as u64 - 1));
    assert!(
        boxes
            .iter()
            .enumerate()
            .all(|(number, byte)| **byte == number as u8)
    );
    // Freed by another thread than the one that cut them.
    std::thread::spawn(move || drop(boxes))
        .join()
        .expect("the other thread frees");
    let after = spanalloc::stats();
    assert!(
        after.in_use_bytes < before.in_use_bytes + 10_000,
        "{before:?} {after:?}"
    );
}

#[test]
fn the_end_of_a_thread_leaves_its_block_to_the_pieces() {
    let _turn = turn();
    let kept: Vec<Box<u8>> = (0..200_u8)
        .map(|n| {
            std::thread::spawn(move || Box::new(n))
                .join()
                .expect("it ends")
        })
        .collect();
    assert!(kept.iter().enumerate().all(|(n, byte)| **byte == n as u8));
    let before = spanalloc::stats().in_use_bytes;
    drop(kept);
    assert!(spanalloc::stats().in_use_bytes + 200 * BLOCK <= before);
}
