//! A program on mimalloc that a preloaded library alone could not record: `on_mimalloc BLOCKS`.

use heaplab_recorded::Recorded;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: Recorded<mimalloc::MiMalloc> = Recorded::new(mimalloc::MiMalloc);

#[repr(align(128))]
struct Wide([u8; 256]);

fn main() {
    let blocks: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1000);
    heaplab_recorded::mark("blocks");
    let kept: Vec<Box<[u8; 1111]>> = (0..blocks)
        .map(|_| black_box(Box::new([1; 1111])))
        .collect();
    let other = std::thread::spawn(move || drop(kept));
    other.join().expect("the thread ends");
    heaplab_recorded::mark("wide");
    for _ in 0..10 {
        black_box(&black_box(Box::new(Wide([2; 256]))).0);
    }
    let mut grown = vec![3u8; 7777];
    grown.resize(77_777, 4);
    black_box(&grown);
}
