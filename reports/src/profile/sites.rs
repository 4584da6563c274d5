//! Which call of a stack is the program's own: the innermost one that is no part of an allocator's or a standard library's
//! plumbing.

use super::schema::{Costs, Location, Metric, Profile, Site};
use std::collections::HashMap;

/// Modules whose functions allocate on behalf of their callers.
const LIBRARIES: [&str; 8] = [
    "libc.so",
    "libc-2.",
    "ld-linux-x86-64.so",
    "libstdc++.so",
    "libc++.so",
    "libgcc_s.so",
    "libheaplab_recorder",
    "libpthread",
];

/// Beginnings of names of functions that only allocate, or hold what is allocated, for their callers.
const PLUMBING: [&str; 29] = [
    "alloc::",
    "core::",
    "std::",
    "hashbrown::",
    "__rust",
    "__rdl_",
    "__rg_",
    "__gnu_cxx::",
    "operator new",
    "malloc",
    "calloc",
    "realloc",
    "xmalloc",
    "xcalloc",
    "xrealloc",
    "g_malloc",
    "g_realloc",
    "g_slice_alloc",
    "zmalloc",
    "zcalloc",
    "zrealloc",
    "ztrymalloc",
    "PyMem_",
    "PyObject_Malloc",
    "PyObject_Realloc",
    "PyObject_Calloc",
    "_PyMem_",
    "_PyObject_Malloc",
    "sqlite3Malloc",
];

/// Parts of paths of the sources of standard libraries, which are inlined into programs.
const SOURCES: [&str; 3] = ["/rustc/", "/lib/rustlib/src/rust/library/", "/include/c++/"];

/// It lies in a library that allocates for others.
fn is_library(location: &Location) -> bool {
    LIBRARIES
        .iter()
        .any(|library| location.module.starts_with(library))
}

/// A function's name says that it belongs to the plumbing.
fn is_plumbing(location: &Location) -> bool {
    if SOURCES.iter().any(|source| location.file.contains(source)) {
        return true;
    }
    let name = location.function.as_str();
    let begins = |part: &str| {
        let part = part
            .trim_start_matches(['<', '&', '*', '('])
            .trim_start_matches("mut ")
            .trim_start_matches("dyn ");
        PLUMBING.iter().any(|start| part.starts_with(start))
    };
    // `<T as alloc::slice::hack::ConvertVec>::to_vec`: a type parameter and a trait of the library.
    if let Some((of, by)) = name
        .strip_prefix('<')
        .and_then(|rest| rest.split_once(" as "))
    {
        let generic = of.len() <= 2
            && of
                .chars()
                .all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit());
        return begins(by) && (generic || begins(of));
    }
    begins(name)
}

/// Index, in a stack given from the outermost call inward, of the program's own innermost call.
pub(super) fn own_call(profile: &Profile, frames: &[u32]) -> Option<usize> {
    let plain = |index: &u32| {
        profile
            .frames
            .get(*index as usize)
            .is_some_and(|location| !is_plumbing(location))
    };
    let own =
        |index: &u32| plain(index) && !profile.frames.get(*index as usize).is_some_and(is_library);
    // Where all is of libraries (the loader, constructors), the innermost that does more than allocate.
    frames
        .iter()
        .rposition(own)
        .filter(|at| !is_start(profile, frames.get(*at)))
        .or_else(|| frames.iter().rposition(plain))
        .or(frames.len().checked_sub(1))
}

/// The program's entry, which allocates nothing itself.
fn is_start(profile: &Profile, frame: Option<&u32>) -> bool {
    let location = frame.and_then(|index| profile.frames.get(*index as usize));
    location.is_some_and(|location| location.function == "_start")
}

/// Adds up by the program's own calls, the largest at the peak first, then by bytes allocated.
pub fn sites(profile: &Profile) -> Vec<Site> {
    let mut sums: HashMap<(&Location, &str), Costs> = HashMap::new();
    let unknown = Location::default();
    for stack in &profile.stacks {
        let at = own_call(profile, &stack.frames);
        let of = |at: usize| {
            stack
                .frames
                .get(at)
                .and_then(|index| profile.frames.get(*index as usize))
        };
        let location = at.and_then(of).unwrap_or(&unknown);
        let via = at
            .and_then(|at| of(at + 1))
            .map_or("", |inner| inner.function.as_str());
        *sums.entry((location, via)).or_default() += stack.costs;
    }
    // One row for a line, whatever it called: the call with most of it is named.
    let mut rows: HashMap<&Location, (Costs, &str, f64)> = HashMap::new();
    for ((location, via), costs) in sums {
        let row = rows
            .entry(location)
            .or_insert((Costs::default(), via, -1.0));
        row.0 += costs;
        if (costs.bytes.value, row.1) > (row.2, via) {
            (row.1, row.2) = (via, costs.bytes.value);
        }
    }
    let mut sites: Vec<Site> = rows
        .into_iter()
        .map(|(location, (costs, via, _))| Site {
            location: location.clone(),
            via: via.to_owned(),
            costs,
        })
        .collect();
    let key = |site: &Site| (Metric::Peak.of(&site.costs).value, site.costs.bytes.value);
    sites.sort_by(|a, b| {
        let (a_key, b_key) = (key(a), key(b));
        b_key
            .0
            .total_cmp(&a_key.0)
            .then(b_key.1.total_cmp(&a_key.1))
            .then_with(|| a.location.cmp(&b.location))
    });
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(function: &str, module: &str) -> Location {
        Location {
            function: function.into(),
            module: module.into(),
            ..Location::default()
        }
    }

    #[test]
    fn plumbing_is_told_from_the_programs_own_calls() {
        for name in [
            "alloc::vec::Vec<T>::with_capacity",
            "<alloc::vec::Vec<T> as alloc::vec::spec_from_iter::SpecFromIter<T, I>>::from_iter",
            "<T as alloc::slice::<impl [T]>::to_vec_in::ConvertVec>::to_vec",
            "__rust_alloc",
            "operator new",
            "std::vector<int>::push_back",
            "PyMem_RawMalloc",
        ] {
            assert!(is_plumbing(&of(name, "app")), "{name}");
        }
        for name in [
            "main",
            "app::tree::insert",
            "<app::Tree as core::clone::Clone>::clone",
            "Parser::node",
            "alloc_node",
            "standard",
        ] {
            assert!(!is_plumbing(&of(name, "app")), "{name}");
        }
        let inlined = Location {
            file: "/rustc/5980/library/core/src/fmt/num.rs".into(),
            ..of("<u64 as core::fmt::Display>::fmt", "app")
        };
        assert!(is_plumbing(&inlined));
        assert!(is_library(&of("fopen", "libc.so.6")) && !is_library(&of("fopen", "app")));
    }
}
