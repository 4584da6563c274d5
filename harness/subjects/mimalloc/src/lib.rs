//! The subject mimalloc (the binding's stable line, v2).
#![no_std]

mod exports;

use core::ffi::c_int;

/// The options that change memory or speed, with their numbers in mimalloc 2.3's `mi_option_e`.
const OPTIONS: [(&str, c_int); 9] = [
    ("eager_commit", 3),
    ("arena_eager_commit", 4),
    ("purge_decommits", 5),
    ("allow_large_os_pages", 6),
    ("eager_commit_delay", 14),
    ("purge_delay", 15),
    ("arena_reserve", 23),
    ("arena_purge_mult", 24),
    ("allow_thp", 37),
];
