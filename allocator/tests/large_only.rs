//! A process in which no thread ever has a cache: this program's own allocator is the system's, and of spanalloc it wants long
//! blocks only.

use spanalloc::alloc::{allocate, free};

#[test]
fn a_program_of_large_blocks_gets_a_helper() {
    for _ in 0..32 {
        let block = allocate(16 << 20);
        assert!(!block.is_null());
        // SAFETY: the block is ours and is freed once.
        unsafe {
            block.write(1);
            free(block);
        }
    }
    let stats = spanalloc::stats();
    assert!(stats.dirty_bytes >= 16 << 20);
    assert_eq!(stats.helper_starts, 1);
}
