//! The subject mimalloc-v3. It is a workspace of its own because v2 and v3 are features of one binding, which a build can
//! have only one of.
#![no_std]

#[path = "../../mimalloc/src/exports.rs"]
mod exports;

use core::ffi::c_int;

/// The options that change memory or speed, with their numbers in mimalloc 3.3's `mi_option_e`.
const OPTIONS: [(&str, c_int); 10] = [
    ("arena_eager_commit", 4),
    ("purge_decommits", 5),
    ("allow_large_os_pages", 6),
    ("purge_delay", 15),
    ("arena_reserve", 23),
    ("arena_purge_mult", 24),
    ("generic_collect", 34),
    ("page_reclaim_on_free", 35),
    ("page_full_retain", 36),
    ("allow_thp", 43),
];
